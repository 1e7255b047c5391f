package audit

import (
	"fmt"
)

// Limits of a Change.
const (
	maxElse    = 4
	maxEntries = 512
)

// prepare validates a Change and encodes its entries before it is queued.
func prepare(log string, c Change) (Write, error) {
	w := Write{Effects: c.Effects, Narrows: c.Narrows}
	at := &w
	for depth := 0; ; depth++ {
		if depth > maxElse {
			return Write{}, fmt.Errorf("%w: more than %d Else", ErrInvalid, maxElse)
		}
		if len(c.Entries) > maxEntries {
			return Write{}, fmt.Errorf("%w: more than %d entries", ErrInvalid, maxEntries)
		}
		seen := make(map[Key]bool, len(c.Entries))
		at.Drafts = make([]*Draft, 0, len(c.Entries))
		for _, e := range c.Entries {
			if e.ID == "" {
				e.ID = NewID()
			}
			d, err := NewDraft(log, e)
			if err != nil {
				return Write{}, err
			}
			if seen[d.Key()] {
				return Write{}, fmt.Errorf("%w: one id twice in a Change", ErrInvalid)
			}
			seen[d.Key()] = true
			at.Drafts = append(at.Drafts, d)
		}
		if c.Else == nil {
			return w, nil
		}
		c = *c.Else
		at.Else = &Write{Effects: c.Effects, Narrows: w.Narrows}
		at = at.Else
	}
}

// empty reports whether there is nothing to do.
func (w *Write) empty() bool { return len(w.Effects) == 0 && len(w.Drafts) == 0 && w.Else == nil }

// keys appends the idempotency keys of a Write and its Else.
func (w *Write) keys(to []Key) []Key {
	for ; w != nil; w = w.Else {
		for _, d := range w.Drafts {
			to = append(to, d.Key())
		}
	}
	return to
}

// size is about how many bytes of records a Write appends at most.
func (w *Write) size() int {
	most := 0
	for ; w != nil; w = w.Else {
		n := 0
		for _, d := range w.Drafts {
			n += d.Size()
		}
		most = max(most, n)
	}
	return most
}
