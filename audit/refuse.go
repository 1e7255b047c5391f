package audit

import (
	"cmp"
	"errors"
	"sync"
	"time"
)

// Bounds of the refusal queue (audit.md §1, "Refusals are recorded too").
const (
	refusalWindow = time.Minute
	refusalWhole  = 10
	refusalKeys   = 4096
	maxSamples    = 8
	// refusalBacklog bounds what waits while the log is away; what comes on
	// top is counted in the summary of its key.
	refusalBacklog = 4096
	refusalBatch   = 64
)

// refusalKey is what refusals are counted by. The zero value is the overflow
// key.
type refusalKey struct{ source, endpoint, reason string }

// window counts the refusals of one key for a minute.
type window struct {
	began       time.Time
	whole       int
	count       int64 // those that were not written whole
	first, last int64
	samples     []any
	like        Entry // the first that was not written whole
}

// refusals is the queue of what is recorded but not awaited. It owns one
// goroutine, run.
type refusals struct {
	log  *Log
	wake chan struct{} // of one element
	quit chan struct{} // closed by close
	done chan struct{} // closed by run

	mu                        sync.Mutex // guards everything below
	closed                    bool
	windows                   map[refusalKey]*window
	queue                     []Entry
	writing                   int // taken from queue, not yet durable
	written, summarised, lost uint64
}

func newRefusals(l *Log) *refusals {
	return &refusals{log: l, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		windows: make(map[refusalKey]*window)}
}

// Refuse records a refusal to an unauthenticated caller: not awaited, durable
// within a second; per (source, endpoint, reason) the first ten a minute whole,
// the rest as one audit.summary a minute. source is the caller's address or
// whatever stands for it; it is counted by and never written.
//
// Refusals to authenticated callers, and every refusal with reason replayed,
// revoked, key_reuse or refresh_reuse, go through Commit.
func (l *Log) Refuse(source, endpoint string, e Entry) {
	e.ID, e.Observed = NewID(), cmp.Or(e.Observed, l.cfg.Now().UnixMilli()) // it is sequenced a moment later
	_, err := NewDraft(l.cfg.Store.LogID(), e)
	if errors.Is(err, ErrInvalid) { // the long names in somebody's chain do not keep it out of the log
		e = e.Slim()
		_, err = NewDraft(l.cfg.Store.LogID(), e)
	}
	if err != nil {
		l.cfg.Logger.Error("a refusal is not recorded", "endpoint", endpoint, "error", err)
		return
	}
	l.refusals.add(refusalKey{clean(source, maxID), endpoint, e.Reason}, e, l.cfg.Now())
}

func (r *refusals) add(key refusalKey, e Entry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.lost++
		return
	}
	w := r.windows[key]
	if w == nil && len(r.windows) >= refusalKeys {
		key = refusalKey{}
		w = r.windows[key]
	}
	if w == nil {
		w = &window{began: now}
		r.windows[key] = w
	}
	if w.whole < refusalWhole && len(r.queue)+r.writing < refusalBacklog {
		w.whole++
		r.queue = append(r.queue, e)
		select {
		case r.wake <- struct{}{}:
		default:
		}
		return
	}
	r.summarised++
	if w.count == 0 {
		w.first, w.like = now.UnixMilli(), e
	}
	w.count, w.last = w.count+1, now.UnixMilli()
	if len(w.samples) < maxSamples {
		w.samples = append(w.samples, members("time", now.UnixMilli(), "agent", clean(e.Agent, 64),
			"sub", clean(e.Sub, 64), "resource", clean(e.Resource, 128)))
	}
}

// summary is what a window says when its minute is over.
func (w *window) summary(key refusalKey) Entry {
	reason := key.reason
	if key == (refusalKey{}) {
		reason = "overflow"
	}
	return Entry{ID: NewID(), Action: AuditSummary, Result: Denied, Reason: reason, Detail: map[string]any{
		"of": w.like.Action, "endpoint": key.endpoint, "count": w.count,
		"first": w.first, "last": w.last, "samples": w.samples}}
}

// expire closes the windows whose minute is over, or all of them.
func (r *refusals) expire(now time.Time, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, w := range r.windows {
		if age := now.Sub(w.began); !all && age >= 0 && age < refusalWindow {
			continue // a clock that went back ends the window too
		}
		if w.count > 0 {
			if !all && len(r.queue) >= 2*refusalBacklog {
				continue // the log is away for long: go on counting
			}
			r.queue = append(r.queue, w.summary(key))
		}
		delete(r.windows, key)
	}
}

// run writes what is queued. The tick ends windows and tries again after the
// log was away; nothing waits for it.
func (r *refusals) run() {
	defer close(r.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.wake:
			r.flush()
		case <-tick.C:
			r.expire(r.log.cfg.Now(), false)
			r.flush()
		case <-r.quit:
			r.expire(r.log.cfg.Now(), true)
			r.flush()
			return
		}
	}
}

// flush commits the queue in pieces; what the log refuses stays first in it.
func (r *refusals) flush() {
	for {
		r.mu.Lock()
		n := min(len(r.queue), refusalBatch)
		batch := r.queue[:n:n]
		r.queue, r.writing = r.queue[n:], n
		if len(r.queue) == 0 {
			r.queue = nil // let the array go
		}
		r.mu.Unlock()
		if n == 0 {
			return
		}
		err := r.log.commitQueued(Change{Entries: batch})
		r.mu.Lock()
		r.writing = 0
		switch {
		case err == nil:
			r.written += uint64(n)
		case errors.Is(err, ErrUnavailable):
			r.queue = append(batch, r.queue...)
		default: // an id of ours that was used before: it is in the log
			r.lost += uint64(n)
			r.log.cfg.Logger.Error("refusals are not recorded", "count", n, "error", err)
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (r *refusals) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.quit)
}

func (r *refusals) status(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.RefusalsQueued = uint64(len(r.queue) + r.writing)
	s.RefusalsWritten, s.RefusalsSummarised, s.RefusalsLost = r.written, r.summarised, r.lost
}
