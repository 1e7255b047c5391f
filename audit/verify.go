package audit

import (
	"context"
	"fmt"

	"github.com/kavach-dev/kavach/jcs"
)

// VerifyConfig says what to verify against.
type VerifyConfig struct {
	// Log is the id that every record must carry; empty: the store's own.
	Log string
	// Progress hears how far it got, about every thousand records; may be nil.
	Progress func(done, of int64)
}

// Source is a log that can be verified. Package store implements it.
type Source interface {
	// LogID is the log's id as the database has it.
	LogID() string
	// Head is where the log ends.
	Head(ctx context.Context) (Head, error)
	// Records returns the rows of a scan.
	Records(ctx context.Context, s Scan) ([]Raw, error)
	// StoredLeaf reports whether a row other than that one has the leaf hash.
	StoredLeaf(ctx context.Context, leaf string, except int64) (bool, error)
}

// row is a row with what its bytes say and hash to.
type row struct {
	Raw
	hash      string
	ok        bool // the bytes are a record
	log, prev string
	seq       int64
}

func readRow(raw Raw) *row {
	r := &row{Raw: raw, hash: LeafHash(raw.Bytes)}
	v, err := jcs.Parse(raw.Bytes, jcs.Limits{})
	if err != nil {
		return r
	}
	r.seq, r.ok = v.Get("seq").Int()
	r.log, r.prev = v.Get("log").Str(), v.Get("prev").Str()
	return r
}

// Verify recomputes every hash and every link, in one pass with one row of
// lookahead and little memory, and classifies what is wrong. It may run beside
// writers: it verifies the log as it was when it began. An error means that it
// could not read, not that something is wrong.
func Verify(ctx context.Context, src Source, cfg VerifyConfig) (*Report, error) {
	if cfg.Log == "" {
		cfg.Log = src.LogID()
	}
	head, err := src.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: verifying: %w", ErrAudit, err)
	}
	w := &walk{ctx: ctx, src: src, head: head, end: head.Size, report: &Report{Log: cfg.Log, Size: head.Size, Head: head.Leaf},
		prev: FirstPrev(cfg.Log)}
	if err := w.run(cfg.Progress); err != nil {
		return nil, fmt.Errorf("%w: verifying: %w", ErrAudit, err)
	}
	return w.report, nil
}

// walk is the state of Verify. Record number expect should stand in row
// expect+shift and have prev as its prev ("" after damage: anything goes).
type walk struct {
	ctx    context.Context
	src    Source
	head   Head
	end    int64 // how many records there should be: head.Size, see moved
	report *Report

	expect, shift int64
	prev          string
	last          *row // the row before
	lookups       int
}

// maxLookups bounds the look-ups of leaf hashes, which no index serves.
const maxLookups = 50

func (w *walk) run(progress func(done, of int64)) error {
	rows := &stream{w: w, after: -1}
	current, err := rows.next()
	if err != nil {
		return err
	}
	for current != nil && w.expect < w.end && !w.report.Truncated {
		next, err := rows.next()
		if err != nil {
			return err
		}
		w.report.Records++
		w.report.Bytes += int64(len(current.Bytes))
		if err := w.step(current, next); err != nil {
			return err
		}
		w.last, current = current, next
		if progress != nil && w.report.Records%1024 == 0 {
			progress(w.report.Records, w.head.Size)
		}
	}
	if w.report.Truncated {
		return nil
	}
	switch {
	case w.expect < w.end:
		w.found(Missing, w.expect, w.end-1, "the log ends before its head")
	case w.prev != "" && w.prev != w.head.Leaf && w.end > 0:
		w.found(Edited, w.end-1, w.end-1, "the head names another leaf hash")
	case w.head.Size == 0 && w.head.Leaf != FirstPrev(w.report.Log):
		w.found(WrongLog, 0, 0, "the head of the empty log is another log's")
	}
	if err := w.beyond(); err != nil {
		return err
	}
	if progress != nil {
		progress(w.report.Records, w.head.Size)
	}
	return nil
}

// step judges one row; next is the row behind it, nil at the end.
func (w *walk) step(r, next *row) error {
	if gap := r.Seq - (w.expect + w.shift); gap > 0 {
		if w.follows(r) { // nothing is gone, the rows were renumbered
			w.found(Reordered, r.Seq, r.Seq, "its row number was changed")
			if err := w.moved(gap); err != nil {
				return err
			}
		} else {
			w.found(Missing, w.expect, w.expect+gap-1, "no such rows")
			w.expect, w.prev = w.expect+gap, ""
		}
	}
	extra, err := w.claims(next)
	if err != nil {
		return err
	}
	switch {
	case extra && (!r.ok || r.log == w.report.Log):
		w.found(Inserted, r.Seq, r.Seq, "the record of that number stands in the next row")
		return w.moved(1)
	case r.ok && r.log != w.report.Log:
		w.found(WrongLog, r.Seq, r.Seq, "its bytes name another log")
		if extra {
			return w.moved(1)
		}
		w.skip()
	case !r.ok:
		w.found(Edited, r.Seq, r.Seq, "its bytes are no record")
		w.skip()
	case r.seq != w.expect:
		return w.displaced(r, next)
	default:
		w.judge(r, next)
	}
	return nil
}

// judge looks at a row whose bytes say the right number.
func (w *walk) judge(r, next *row) {
	switch {
	case r.hash != r.Leaf:
		w.found(Edited, r.seq, r.seq, "its bytes do not have the stored leaf hash")
		w.skip()
	case w.prev != "" && r.prev != w.prev && w.committed(r, next):
		// What follows vouches for this record, and this one disowns the one
		// before: that was edited and its leaf hash made to fit.
		w.found(Edited, w.expect-1, w.expect-1, "the next record has another prev")
		w.accept(r)
	case w.prev != "" && r.prev != w.prev:
		w.found(Edited, r.seq, r.seq, "its prev is not the leaf hash of the record before")
		w.skip()
	default:
		w.accept(r)
	}
}

// displaced looks at a row whose bytes say another number.
func (w *walk) displaced(r, next *row) error {
	if r.seq > w.expect && w.committed(r, next) && (next == nil || next.ok && next.seq == r.seq+1) {
		// From here on everything moved up. Are the records before it gone, or
		// elsewhere?
		elsewhere, err := w.stored(r.prev, -1)
		if err != nil {
			return err
		}
		if !elsewhere {
			w.found(Missing, w.expect, r.seq-1, "the rows behind were renumbered")
			if err := w.moved(w.expect - r.seq); err != nil {
				return err
			}
			w.expect, w.prev = r.seq, ""
			w.judge(r, next)
			return nil
		}
	}
	ours, err := w.ours(r, next)
	if err != nil {
		return err
	}
	if ours {
		w.found(Reordered, r.Seq, r.Seq, fmt.Sprintf("its bytes are record %d", r.seq))
	} else {
		w.found(Inserted, r.Seq, r.Seq, fmt.Sprintf("its bytes say %d and are no record of this log", r.seq))
	}
	w.skip()
	return nil
}

// accept goes on behind a good record, skip behind a place that is damaged.
func (w *walk) accept(r *row) { w.expect, w.prev = w.expect+1, r.hash }
func (w *walk) skip()         { w.expect, w.prev = w.expect+1, "" }

// moved says that from here on rows stand n places further. Whoever moved them
// may have moved the head as well: if it fits the last row, it counts rows.
func (w *walk) moved(n int64) error {
	w.shift += n
	last, err := w.at(w.head.Size - 1)
	if err != nil {
		return err
	}
	if w.end = w.head.Size; last != nil && last.ok && last.hash == w.head.Leaf && last.seq == w.head.Size-1-w.shift {
		w.end -= w.shift
	}
	return nil
}

// follows reports whether the row is the record that is expected.
func (w *walk) follows(r *row) bool {
	return r != nil && r.ok && r.log == w.report.Log && r.seq == w.expect && w.prev != "" && r.prev == w.prev
}

// claims reports whether the next row has the better claim to be the expected
// record: it follows, and what stands behind it vouches for it.
func (w *walk) claims(next *row) (bool, error) {
	if !w.follows(next) {
		return false, nil
	}
	behind, err := w.at(next.Seq + 1)
	if err != nil {
		return false, err
	}
	if behind == nil || next.seq == w.end-1 {
		return w.head.Leaf == next.hash, nil
	}
	return behind.ok && behind.prev == next.hash, nil
}

// committed reports whether what stands behind a row vouches for it.
func (w *walk) committed(r, next *row) bool {
	if next == nil || r.seq == w.end-1 {
		return w.head.Leaf == r.hash
	}
	return next.ok && next.prev == r.hash
}

// ours reports whether a displaced row is a record of this log: its hash is
// stored elsewhere, or the record behind it, wherever that is, vouches for it.
func (w *walk) ours(r, next *row) (bool, error) {
	if r.seq == w.end-1 && w.head.Leaf == r.hash ||
		next != nil && next.ok && next.prev == r.hash ||
		w.last != nil && w.last.ok && w.last.prev == r.hash {
		return true, nil
	}
	if r.seq >= 0 && r.seq < w.end {
		behind, err := w.at(r.seq + 1 + w.shift)
		if err != nil {
			return false, err
		}
		if behind != nil && behind.ok && behind.prev == r.hash {
			return true, nil
		}
	}
	return w.stored(r.hash, r.Seq)
}

func (w *walk) stored(leaf string, except int64) (bool, error) {
	if w.lookups++; w.lookups > maxLookups {
		return false, nil
	}
	return w.src.StoredLeaf(w.ctx, leaf, except)
}

// at reads one row, nil if it is not there.
func (w *walk) at(seq int64) (*row, error) {
	rows, err := w.src.Records(w.ctx, Scan{After: seq - 1, Ascending: true, Limit: 1})
	if err != nil || len(rows) == 0 || rows[0].Seq != seq {
		return nil, err
	}
	return readRow(rows[0]), nil
}

// beyond looks for rows behind the head. The head is read again after the
// rows, so what writers appended meanwhile is not taken for damage.
func (w *walk) beyond() error {
	moved := w.end + w.shift - w.head.Size
	after := w.head.Size + moved - 1
	for {
		rows, err := w.src.Records(w.ctx, Scan{After: after, Ascending: true, Limit: chunk})
		if err != nil || len(rows) == 0 {
			return err
		}
		head, err := w.src.Head(w.ctx)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if after = r.Seq; after < head.Size+moved {
				continue
			}
			kind, note := Inserted, "it stands behind the head"
			if read := readRow(r); read.ok && read.log != w.report.Log {
				kind, note = WrongLog, "its bytes name another log"
			}
			if w.found(kind, r.Seq, r.Seq, note); w.report.Truncated {
				return nil
			}
		}
		if after < head.Size+moved-1 {
			after = head.Size + moved - 1 // what lies between is newer than this verification
		}
	}
}

func (w *walk) found(kind Kind, first, last int64, note string) {
	if len(w.report.Findings) == MaxFindings {
		w.report.Truncated = true
		return
	}
	w.report.Findings = append(w.report.Findings, Finding{Kind: kind, First: first, Last: last, Note: note})
}

// chunk is how many rows are in memory at a time.
const chunk = 1024

// stream yields all rows in order.
type stream struct {
	w     *walk
	after int64
	rows  []Raw
	done  bool
}

func (s *stream) next() (*row, error) {
	if len(s.rows) == 0 && !s.done {
		rows, err := s.w.src.Records(s.w.ctx, Scan{After: s.after, Ascending: true, Limit: chunk})
		if err != nil {
			return nil, err
		}
		s.rows, s.done = rows, len(rows) < chunk
	}
	if len(s.rows) == 0 {
		return nil, nil
	}
	r := readRow(s.rows[0])
	s.rows, s.after = s.rows[1:], r.Seq
	return r, nil
}
