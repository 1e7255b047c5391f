package delegation_test

import (
	"slices"
	"strings"
	"time"
)

// recorder is a chance that remembers what it gave.
type recorder struct {
	from  chance
	draws []int
}

func (r *recorder) IntN(n int) int {
	draw := r.from.IntN(n)
	r.draws = append(r.draws, draw)
	return draw
}

// replay gives what was recorded, and zeros when that is over: the forest then
// goes on with the dullest there is.
type replay struct {
	draws []int
	at    int
}

func (r *replay) IntN(n int) int {
	if r.at == len(r.draws) {
		return 0
	}
	r.at++
	return min(r.draws[r.at-1], n-1)
}

// smaller looks for fewer and lower draws that break the same law, for half a
// minute.
func smaller(law string, draws []int) (best []int, broke error) {
	until := time.Now().Add(30 * time.Second)
	best = draws
	try := func(candidate []int) bool {
		r := &replay{draws: candidate}
		err := newForest(r).try(forestSteps)
		if err == nil || !strings.HasPrefix(err.Error(), law+":") {
			return false
		}
		best, broke = candidate[:r.at], err
		return true
	}
	for improved := true; improved; {
		improved = false
		for size := max(len(best)/2, 1); size > 0; size /= 2 {
			for at := 0; at+size <= len(best); {
				if time.Now().After(until) {
					return best, broke
				}
				without := slices.Delete(slices.Clone(best), at, at+size)
				if try(without) {
					improved = true
					continue
				}
				zeros := slices.Clone(best)
				clear(zeros[at : at+size])
				if !slices.Equal(zeros, best) && try(zeros) {
					improved = true
				}
				at += size
			}
		}
	}
	return best, broke
}
