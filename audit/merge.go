package audit

import (
	"context"
)

// Chunks in which a source is read: small at first, because most pages are
// full after one.
const (
	firstChunk = 64
	maxChunk   = 1024
)

// merge yields the rows of several scans in order of seq, each row once.
type merge struct {
	store     ReadStore
	ascending bool
	sources   []*source
	list      []int64 // instead of sources: places to look at
}

// source is one scan, read in chunks.
type source struct {
	scan Scan
	rows []Raw
	done bool
}

func (m *merge) add(s Scan) {
	s.Limit = firstChunk
	m.sources = append(m.sources, &source{scan: s})
}

// places makes the merge yield the records at the sorted seqs that come after
// a place.
func (m *merge) places(seqs []int64, after int64) {
	for len(seqs) > 0 && !m.before(after, seqs[0]) {
		seqs = seqs[1:]
	}
	m.list = seqs
}

// before reports whether a comes before b in the order of the merge.
func (m *merge) before(a, b int64) bool {
	if m.ascending {
		return a < b
	}
	return a > b
}

// next returns the next row; ok is false at the end.
func (m *merge) next(ctx context.Context) (row Raw, ok bool, err error) {
	for len(m.list) > 0 {
		seq := m.list[0]
		m.list = m.list[1:]
		rows, err := m.store.Records(ctx, Scan{After: seq - 1, Ascending: true, Limit: 1})
		if err != nil {
			return Raw{}, false, err
		}
		if len(rows) == 1 && rows[0].Seq == seq {
			return rows[0], true, nil
		}
	}
	var best *source
	for _, s := range m.sources {
		if err := m.fill(ctx, s); err != nil {
			return Raw{}, false, err
		}
		if len(s.rows) > 0 && (best == nil || m.before(s.rows[0].Seq, best.rows[0].Seq)) {
			best = s
		}
	}
	if best == nil {
		return Raw{}, false, nil
	}
	row = best.rows[0]
	for _, s := range m.sources { // the same record may stand in several
		if len(s.rows) > 0 && s.rows[0].Seq == row.Seq {
			s.rows = s.rows[1:]
		}
	}
	return row, true, nil
}

// fill reads the next chunk of a source that has nothing left.
func (m *merge) fill(ctx context.Context, s *source) error {
	if len(s.rows) > 0 || s.done {
		return nil
	}
	rows, err := m.store.Records(ctx, s.scan)
	if err != nil {
		return err
	}
	s.rows, s.done = rows, len(rows) < s.scan.Limit
	if len(rows) > 0 {
		s.scan.After = rows[len(rows)-1].Seq
	}
	s.scan.Limit = min(2*s.scan.Limit, maxChunk)
	return nil
}
