package audit_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

// shelf is a table of rows that may all go.
type shelf struct {
	name string
	rows int
	err  error
}

// taking is the effect that removes rows of a shelf.
type taking struct {
	from *shelf
	most int
}

func (taking) AuditEffect() {}

func (s *shelf) expired() audit.Expired {
	return audit.Expired{
		Table:  s.name,
		Due:    func(_ context.Context, most int) (int, error) { return min(s.rows, most), s.err },
		Remove: func(most int) audit.Effect { return taking{s, most} },
	}
}

// porter carries out what it is told, and remembers in which order.
type porter struct {
	trips []string
	after func()
	err   error
}

func (p *porter) Commit(_ context.Context, c audit.Change) error {
	for _, e := range c.Effects {
		t := e.(taking)
		n := min(t.from.rows, t.most)
		p.trips = append(p.trips, fmt.Sprint(t.from.name, " ", n))
		t.from.rows -= n
	}
	if p.after != nil {
		p.after()
	}
	return p.err
}

// Every table gets its turn between two pieces of a long one, no piece is
// larger than it may be, and a table without anything costs no Change.
func TestPruneTakesTurns(t *testing.T) {
	long, short, none := &shelf{name: "long", rows: 2*audit.PruneRows + 7}, &shelf{name: "short", rows: 3}, &shelf{name: "none"}
	var p porter
	removed, err := audit.Prune(t.Context(), &p, long.expired(), short.expired(), none.expired())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"long 500", "short 3", "long 500", "long 7"}; !reflect.DeepEqual(p.trips, want) {
		t.Errorf("trips %q, want %q", p.trips, want)
	}
	if want := map[string]int{"long": 1007, "short": 3, "none": 0}; !reflect.DeepEqual(removed, want) {
		t.Errorf("removed %v, want %v", removed, want)
	}
}

// A table that fails does not keep the others from their turn, and is left
// alone until the next time.
func TestPruneGoesOnAfterAFailure(t *testing.T) {
	broken := &shelf{name: "broken", rows: 5000, err: errors.New("no such table")}
	whole := &shelf{name: "whole", rows: 1000}
	var p porter
	_, err := audit.Prune(t.Context(), &p, broken.expired(), whole.expired())
	if !errors.Is(err, broken.err) || whole.rows != 0 || len(p.trips) != 2 {
		t.Errorf("%v; %d left; trips %q", err, whole.rows, p.trips)
	}
	p = porter{err: audit.ErrUnavailable}
	whole.rows = 1000
	if removed, err := audit.Prune(t.Context(), &p, whole.expired()); !errors.Is(err, audit.ErrUnavailable) || removed["whole"] != 0 || len(p.trips) != 1 {
		t.Errorf("without a database: %v, %v, trips %q", removed, err, p.trips)
	}
}

// What never ends while it is removed ends with its context.
func TestPruneEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := &shelf{name: "endless", rows: 1 << 40}
	p := porter{}
	p.after = func() {
		if len(p.trips) == 9 {
			cancel()
		}
	}
	removed, err := audit.Prune(ctx, &p, endless.expired())
	if err != nil || len(p.trips) != 9 || removed["endless"] != 9*audit.PruneRows {
		t.Errorf("%d trips, removed %v, %v", len(p.trips), removed, err)
	}
}
