package audit

// Head is where the log ends: how many records, and the leaf hash of the last
// (FirstPrev for an empty log).
type Head struct {
	Size int64
	Leaf string
}

// Record is an entry at its place in the log, with the columns it is found by.
type Record struct {
	*Draft
	Seq   int64
	Time  int64
	Bytes []byte
	Leaf  string
}

// Sequencer gives drafts their places behind a head. An adapter makes one in
// each transaction, after it locked the head, and appends what it returns.
type Sequencer struct {
	log  string
	head Head
	now  int64
}

// NewSequencer starts behind head; now is the `time` of every record.
func NewSequencer(log string, head Head, now int64) *Sequencer {
	return &Sequencer{log: log, head: head, now: now}
}

// Next places a draft.
func (s *Sequencer) Next(d *Draft) Record {
	r := Record{Draft: d, Seq: s.head.Size, Time: s.now}
	r.Bytes = d.record(s.log, r.Seq, s.head.Leaf, r.Time)
	r.Leaf = LeafHash(r.Bytes)
	s.head = Head{Size: r.Seq + 1, Leaf: r.Leaf}
	return r
}

// Head is where the log ends after what was placed.
func (s *Sequencer) Head() Head { return s.head }
