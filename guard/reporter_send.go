package guard

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

const (
	firstPause = 250 * time.Millisecond
	longPause  = 30 * time.Second
	// lastTries is how often Close tries before what is left stays on the disk.
	lastTries = 3
	// postTimeout bounds one attempt.
	postTimeout = 15 * time.Second
)

// run delivers what is queued, one batch at a time; while one is under way the
// next gathers. After a failure it waits, longer each time. The tick ends
// windows; nothing waits for it.
func (r *Reporter) run() {
	defer close(r.done)
	tick := time.NewTicker(min(time.Second, r.cfg.Window))
	defer tick.Stop()
	retry := time.NewTimer(0) // an earlier process may have left something
	defer retry.Stop()
	pause := time.Duration(0) // not 0: the log is away, and retry runs
	for {
		select {
		case <-r.quit:
			r.finish()
			return
		case <-tick.C:
			r.mu.Lock()
			r.expire(r.cfg.Now(), false)
			r.mu.Unlock()
			continue
		case <-r.wake:
			if pause > 0 {
				continue
			}
		case <-retry.C:
		}
		more, after, err := r.deliver()
		switch {
		case err != nil:
			if pause == 0 {
				r.cfg.Log.Error("the audit log does not take reports", "error", err)
			}
			pause = min(max(2*pause, firstPause), longPause)
			retry.Reset(max(pause/2+rand.N(pause/2), min(after, time.Minute)))
			continue
		case pause > 0:
			r.cfg.Log.Info("the audit log takes reports again")
		}
		if pause = 0; more {
			r.poke()
		}
	}
}

// finish delivers what it can and keeps the rest: where there is a disk it gives
// up early, where there is none it tries as long as it is let.
func (r *Reporter) finish() {
	r.mu.Lock()
	r.expire(r.cfg.Now(), true)
	r.mu.Unlock()
	var err error
	for more, failed := true, 0; more && r.life.Err() == nil && (r.spill == nil || failed < lastTries); {
		if more, _, err = r.deliver(); err != nil {
			failed++
			select {
			case <-time.After(firstPause):
			case <-r.life.Done():
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := r.allowed
	for _, e := range r.refused {
		if e.Action == ActionSummary || e.Action == ActionDropped {
			rest = append(rest, e)
			continue
		}
		r.windowOf(callerKey{reason: e.Reason}, e).add(time.UnixMilli(e.Observed), 1)
	}
	r.refused = nil
	r.expire(r.cfg.Now(), true)
	rest = append(rest, r.refused...)
	r.allowed, r.refused = nil, nil
	if r.spill == nil {
		if len(rest) > 0 {
			r.left = fmt.Errorf("%w: %d entries are lost: %w", ErrReport, len(rest), err)
		}
		return
	}
	if len(rest) > 0 {
		if err := r.spill.add(rest...); err != nil {
			r.left = fmt.Errorf("%w: %d entries are lost: %w", ErrReport, len(rest), err)
		}
	}
	if err := r.spill.close(); err != nil && r.left == nil {
		r.left = fmt.Errorf("%w: %w", ErrReport, err)
	}
}

// deliver sends one batch. more says that there is another.
func (r *Reporter) deliver() (more bool, after time.Duration, err error) {
	b, err := r.take()
	if err != nil || len(b.entries) == 0 && !b.spilled {
		return err != nil, 0, err
	}
	for len(b.entries) > 0 {
		outcome := r.post(r.life, b.entries)
		if outcome.err == nil {
			break
		}
		switch n := bad(b.entries, outcome); {
		case n >= 0:
			r.drop(&b, n, outcome.err)
		case outcome.tooMuch() && len(b.entries) > 1:
			r.most = len(b.entries) / 2 // until the one at fault is alone
			r.giveBack(b, r.isAway())
			return true, 0, nil
		default:
			r.giveBack(b, true)
			return true, outcome.after, outcome.err
		}
	}
	r.most = batchEntries
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = false
	if b.spilled {
		if err := r.spill.done(b.end); err != nil {
			return true, 0, err
		}
	}
	return len(r.allowed) > 0 || len(r.refused) > 0 || r.spill != nil && !r.spill.empty(), 0, nil
}

// batch is what one request carries: from memory, or from the spill.
type batch struct {
	entries []wireEntry
	allowed int // so many at the front are of that queue
	spilled bool
	end     int64 // see spill.next
}

// take takes the next batch. The spill goes first: what waits there is older.
func (r *Reporter) take() (b batch, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spill != nil && !r.spill.empty() && (len(r.allowed)+len(r.refused) < r.cfg.Queue/2 || r.away) {
		b.spilled = true
		b.entries, b.end, err = r.spill.next(r.most, batchBytes)
		return b, err
	}
	room := batchBytes
	for _, queue := range []*[]wireEntry{&r.allowed, &r.refused} {
		n := 0
		for n < len(*queue) && len(b.entries) < r.most {
			if room -= (*queue)[n].length(); room < 0 && len(b.entries) > 0 {
				break
			}
			b.entries = append(b.entries, (*queue)[n])
			n++
		}
		if *queue = (*queue)[n:]; len(*queue) == 0 {
			*queue = nil // let the array go
		}
		if queue == &r.allowed {
			b.allowed = n
		}
	}
	return b, nil
}

func (r *Reporter) isAway() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away
}

// giveBack keeps what could not be sent. While the log is away, what is allowed
// goes where a crash does not take it.
func (r *Reporter) giveBack(b batch, away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
	if b.spilled {
		return
	}
	r.allowed = append(slices.Clone(b.entries[:b.allowed]), r.allowed...)
	r.refused = append(slices.Clone(b.entries[b.allowed:]), r.refused...)
	if r.spill == nil || len(r.allowed) == 0 || !away {
		return
	}
	if err := r.spill.add(r.allowed...); err != nil {
		r.cfg.Log.Error("entries for the audit log stay in memory", "error", err)
		return
	}
	r.allowed = nil
}

// bad returns which entry keeps a batch from being taken, −1 if none is known to.
// That a resource is not this reporter's (403) is a matter of configuration, not
// of the entry: it waits.
func bad(entries []wireEntry, o outcome) int {
	if o.status == http.StatusConflict || o.status == http.StatusBadRequest {
		if o.index >= 0 && o.index < len(entries) {
			return o.index
		}
	}
	if o.tooMuch() && len(entries) == 1 {
		return 0
	}
	return -1
}

// tooMuch: the log will never take these entries together.
func (o outcome) tooMuch() bool {
	return o.status == http.StatusBadRequest || o.status == http.StatusRequestEntityTooLarge || o.status == http.StatusConflict
}

// drop takes an entry out of a batch for good. "What was dropped is itself an
// entry."
func (r *Reporter) drop(b *batch, n int, err error) {
	r.cfg.Log.Error("the audit log refused an entry", "id", b.entries[n].ID, "action", b.entries[n].Action, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.entries[n].Action != ActionDropped { // or it would go on for ever
		r.dropped.add(r.cfg.Now(), 1)
	}
	b.entries = slices.Delete(b.entries, n, n+1)
	if n < b.allowed {
		b.allowed--
	}
}

// reportNow sends one entry and returns nil when the log has it. If it cannot be
// known whether the log has it, an entry that says how it ended follows.
func (r *Reporter) reportNow(ctx context.Context, e wireEntry) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	unknown := false
	for pause := firstPause / 4; ; pause *= 2 {
		o := r.post(ctx, []wireEntry{e})
		if o.err == nil {
			return nil
		}
		unknown = unknown || o.status == 0 || o.status >= http.StatusInternalServerError
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() == nil && bad([]wireEntry{e}, o) < 0 {
			continue
		}
		if unknown {
			r.endUnknown(e)
		}
		return o.err
	}
}

// endUnknown says of an action that may stand in the log that it did not begin.
func (r *Reporter) endUnknown(e wireEntry) {
	now := r.cfg.Now()
	e.Detail.Of, e.ID = e.ID, delegation.NewJTI(now)
	e.Requested, e.Observed = cmp.Or(e.Requested, e.Observed), now.UnixMilli()
	e.Result, e.Reason = resultFailed, "temporarily_unavailable"
	e.Detail.Phase, e.Detail.Status = After, http.StatusServiceUnavailable
	if err := r.admit(e); err != nil {
		r.cfg.Log.Error("an action that did not begin may stand in the log", "id", e.Detail.Of, "error", err)
	}
}

// outcome is what became of one attempt.
type outcome struct {
	err    error
	status int // 0: no answer
	index  int // the entry at fault, −1 if none is
	after  time.Duration
}

// post sends a batch.
func (r *Reporter) post(ctx context.Context, entries []wireEntry) outcome {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	body, err := json.Marshal(map[string][]wireEntry{"entries": entries})
	if err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrReport, err), index: -1}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrReport, err), index: -1}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrReport, err), index: -1}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	o := outcome{status: resp.StatusCode, index: -1}
	if resp.StatusCode == http.StatusCreated {
		// The whole answer: one that was cut off acknowledges nothing.
		o.err = err
		return o
	}
	var said struct {
		Error string `json:"error"`
		Index *int   `json:"index"`
	}
	if json.Unmarshal(text, &said) == nil && said.Index != nil {
		o.index = *said.Index
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		o.after = time.Duration(seconds) * time.Second
	}
	o.err = fmt.Errorf("%w: the log answers %d %s", ErrReport, resp.StatusCode, plainCode(said.Error))
	return o
}

// plainCode is an error code fit for a log.
func plainCode(code string) string {
	for i := range len(code) {
		if c := code[i]; (c < 'a' || c > 'z') && c != '_' || i >= 64 {
			return ""
		}
	}
	return code
}
