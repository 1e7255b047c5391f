package audittest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"pgregory.net/rapid"
)

// testModel runs random Changes, several at a time, and replays the log: the
// records say which Changes won in which order, and a map that runs the same
// Changes in that order must agree on every win, every loss and every value.
func testModel(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	state := make(map[string]string)
	seen, round := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		n := rapid.IntRange(1, 6).Draw(rt, "callers")
		scripts := make(map[string]script, n)
		answers := make(map[string]error, n)
		var mu sync.Mutex
		var wait sync.WaitGroup
		for i := range n {
			id := fmt.Sprintf("r%d-%d", round, i)
			s := drawScript(rt, id)
			scripts[id] = s
			c := s.change(f)
			wait.Go(func() {
				err := l.Commit(context.Background(), c)
				mu.Lock()
				defer mu.Unlock()
				answers[id] = err
			})
		}
		wait.Wait()
		records := f.Records(t)
		for _, bytes := range records[seen:] {
			r, err := audit.ParseRecord(bytes)
			if err != nil {
				rt.Fatal(err)
			}
			id, won := r.Entry.Resource, r.Entry.Result == audit.Allowed
			s, ok := scripts[id]
			if !ok {
				rt.Fatalf("a second record of %s", id)
			}
			delete(scripts, id)
			if s.run(state) != won {
				rt.Fatalf("%s: the log says won=%v, the model disagrees", id, won)
			}
			if err := answers[id]; won && err != nil || !won && !errors.Is(err, audit.ErrConflict) {
				rt.Fatalf("%s: won=%v, answered %v", id, won, err)
			}
		}
		if len(scripts) != 0 {
			rt.Fatalf("no record of %v", scripts)
		}
		seen = len(records)
		for _, name := range names {
			if got := f.Value(t, name); got != state[name] {
				rt.Fatalf("%s = %q, the model says %q", name, got, state[name])
			}
		}
	})
	resources(t, f)
}

var names = []string{"a", "b", "c"}

// script is a Change as data.
type script struct {
	id    string
	steps []step
}

type step struct{ op, name, from, to string }

func drawScript(rt *rapid.T, id string) script {
	values := []string{"1", "2"}
	s := script{id: id}
	for range rapid.IntRange(0, 4).Draw(rt, "steps") {
		s.steps = append(s.steps, step{
			op:   rapid.SampledFrom([]string{"put", "move", "clear"}).Draw(rt, "op"),
			name: rapid.SampledFrom(names).Draw(rt, "name"),
			from: rapid.SampledFrom(values).Draw(rt, "from"),
			to:   rapid.SampledFrom(values).Draw(rt, "to"),
		})
	}
	return s
}

func (s script) change(f Fixture) audit.Change {
	c := audit.Change{Entries: []audit.Entry{Entry(s.id)}, Else: &audit.Change{Entries: []audit.Entry{Denied(s.id)}}}
	for _, st := range s.steps {
		switch st.op {
		case "put":
			c.Effects = append(c.Effects, f.Put(st.name, st.to))
		case "move":
			c.Effects = append(c.Effects, f.Move(st.name, st.from, st.to))
		case "clear":
			c.Effects = append(c.Effects, f.Clear(st.name))
		}
	}
	return c
}

// run does what the Change should do, and says whether it won.
func (s script) run(state map[string]string) bool {
	next := make(map[string]string)
	for k, v := range state {
		next[k] = v
	}
	for _, st := range s.steps {
		have, there := next[st.name]
		switch st.op {
		case "put":
			if there {
				return false
			}
			next[st.name] = st.to
		case "move":
			if !there || have != st.from {
				return false
			}
			next[st.name] = st.to
		case "clear":
			delete(next, st.name)
		}
	}
	clear(state)
	for k, v := range next {
		state[k] = v
	}
	return true
}
