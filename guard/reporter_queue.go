package guard

import (
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

const (
	// strangerWhole is how many refusals of one caller without a usable token
	// are reported whole in a Window, per reason ("the first 10 a minute
	// whole").
	strangerWhole = 10
	// maxCallers bounds the callers that are counted apart; the rest share one
	// count.
	maxCallers = 1024
)

// callerKey is what refusals are counted by. The zero value is everybody for
// whom there was no room.
type callerKey struct{ caller, reason string }

// window counts what is not reported one by one.
type window struct {
	began       time.Time
	whole       int
	lid         string // of the caller's token, if it has one
	count       int64
	first, last time.Time
}

func (w *window) add(now time.Time, n int64) {
	if w.count == 0 {
		w.first = now
	}
	w.count, w.last = w.count+n, now
}

// callerOf is who is counted: the holder of a key, the user of a bearer token, or
// an address.
func (r *Reporter) callerOf(d Decision, e wireEntry) callerKey {
	key := callerKey{reason: e.Reason}
	switch {
	case d.Chain == nil:
		key.caller = "address:" + r.cfg.Source(d.Request)
	case d.Chain.Bound():
		key.caller = "key:" + d.Chain.JKT()
	default:
		key.caller = "token:" + d.Chain.LID()
	}
	return key
}

// admit queues an entry that must not be lost.
func (r *Reporter) admit(e wireEntry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return fmt.Errorf("%w: closed", ErrReport)
	case r.spill != nil && (r.away || len(r.allowed) >= r.cfg.Queue):
		if err := r.spill.add(e); err != nil {
			return fmt.Errorf("%w: %w", ErrReport, err)
		}
	case len(r.allowed) < r.cfg.Queue:
		r.allowed = append(r.allowed, e)
	default:
		return fmt.Errorf("%w: the queue is full", ErrReport)
	}
	r.poke()
	return nil
}

// refuse queues a refusal, or counts it.
func (r *Reporter) refuse(e wireEntry, key callerKey, stranger bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("%w: closed", ErrReport)
	}
	w := r.windowOf(key, e)
	// "every refusal with reason `replayed`, `revoked`, `key_reuse`,
	// `refresh_reuse`: whole, always".
	switch delegation.Reason(e.Reason) {
	case delegation.Replayed, delegation.Revoked, delegation.KeyReuse:
		stranger = false
	}
	if len(r.refused) >= r.cfg.Queue || stranger && w.whole >= strangerWhole {
		w.add(r.cfg.Now(), 1)
		return nil
	}
	w.whole++
	r.refused = append(r.refused, e)
	r.poke()
	return nil
}

// windowOf finds the count of a caller; r.mu is held.
func (r *Reporter) windowOf(key callerKey, e wireEntry) *window {
	w := r.windows[key]
	if w == nil && len(r.windows) >= maxCallers {
		key = callerKey{}
		w = r.windows[key]
	}
	if w == nil {
		w = &window{began: r.cfg.Now()}
		if key.caller != "" {
			if w.lid = e.LID; w.lid == "" {
				w.lid = e.bearer
			}
		}
		r.windows[key] = w
	}
	return w
}

// expire turns the counts whose Window is over, or all, into entries; r.mu is
// held.
func (r *Reporter) expire(now time.Time, all bool) {
	for key, w := range r.windows {
		if age := now.Sub(w.began); !all && age >= 0 && age < r.cfg.Window {
			continue // a clock that went back ends the window too
		}
		if w.count > 0 {
			if !all && len(r.refused) >= r.cfg.Queue+maxCallers {
				continue // the log is away for long: go on counting
			}
			e := r.counted(ActionSummary, resultDenied, key.reason, w)
			e.LID = w.lid
			r.refused = append(r.refused, e)
		}
		delete(r.windows, key)
	}
	if d := &r.dropped; d.count > 0 && (all || now.Sub(d.first) >= r.cfg.Window || now.Before(d.first)) {
		r.refused = append(r.refused, r.counted(ActionDropped, resultFailed, "server_error", d))
		r.dropped = window{}
	}
	if len(r.refused) > 0 {
		r.poke()
	}
}

// counted is the entry of a count.
func (r *Reporter) counted(action, result, reason string, w *window) wireEntry {
	if reason == "" {
		reason = "access_denied" // of many reasons
	}
	return wireEntry{
		ID: delegation.NewJTI(r.cfg.Now()), Observed: w.last.UnixMilli(), Action: action, Resource: r.cfg.Resource,
		Result: result, Reason: reason,
		Detail: wireDetail{Count: w.count, First: w.first.UnixMilli(), Last: w.last.UnixMilli()},
	}
}

// poke wakes run.
func (r *Reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
