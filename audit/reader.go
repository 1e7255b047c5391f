package audit

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
)

// Raw is a row of the log: what the database says its place and hash are, and
// the bytes.
type Raw struct {
	Seq   int64
	Leaf  string
	Bytes []byte
}

// Index is an index of the log by (value, seq).
type Index string

// The indexes a store has. ByNothing is the log itself.
const (
	ByNothing  Index = ""
	ByAgent    Index = "agent"
	ByAction   Index = "action"
	ByResult   Index = "result"
	ByResource Index = "resource"
	BySub      Index = "sub"
	ByGrant    Index = "grant"
	// ByLID finds chain, anc and issued; ByKey a thumbprint of the chain.
	ByLID Index = "lid"
	ByKey Index = "key"
)

// Scan asks for rows in order of seq.
type Scan struct {
	Index Index
	Value string
	// After is where it begins, exclusive: above it if Ascending, below it if
	// not.
	After     int64
	Ascending bool
	Limit     int
}

// ReadStore is what a Reader needs of the store.
type ReadStore interface {
	// Records returns the rows of a scan, each once.
	Records(ctx context.Context, s Scan) ([]Raw, error)
	// RecordsByID returns the records with those entry ids, a batch of reports at
	// the most, of every writer.
	RecordsByID(ctx context.Context, ids ...string) ([]Raw, error)
	// SeqsByTime and SeqsByPrefix return the places, in no order, of records
	// with a time in [since, until] or a resource with that prefix, at most
	// limit.
	SeqsByTime(ctx context.Context, since, until int64, limit int) ([]int64, error)
	SeqsByPrefix(ctx context.Context, prefix string, limit int) ([]int64, error)
	// Owned returns the ids of the agents a person owns.
	Owned(ctx context.Context, person string) ([]string, error)
}

// ReaderConfig says what a Reader reads.
type ReaderConfig struct {
	// Store is the log's store.
	Store ReadStore
	// Secrets sign cursors, of 32 random bytes that every replica has: the first
	// makes them, all are accepted. It is asked with every list and gives one or
	// more. Nil: a fresh one, so that cursors are good for this Reader alone.
	Secrets func() [][]byte
}

// Reader answers questions about the log.
type Reader struct{ cfg ReaderConfig }

// NewReader makes a Reader.
func NewReader(cfg ReaderConfig) *Reader {
	if cfg.Secrets == nil {
		fresh := [][]byte{make([]byte, 32)}
		_, _ = rand.Read(fresh[0]) // never fails (crypto/rand)
		cfg.Secrets = func() [][]byte { return fresh }
	}
	return &Reader{cfg: cfg}
}

// Entry returns the record with that entry id, or ErrNotFound if there is none
// that the caller may see.
func (r *Reader) Entry(ctx context.Context, s Sight, id string) (Stored, error) {
	owned, err := r.owned(ctx, s)
	if err != nil {
		return Stored{}, err
	}
	rows, err := r.cfg.Store.RecordsByID(ctx, id)
	if err != nil {
		return Stored{}, fmt.Errorf("%w: reading a record: %w", ErrUnavailable, err)
	}
	for _, row := range rows {
		if stored, err := ParseRecord(row.Bytes); err == nil && s.sees(&stored.Entry, owned) {
			stored.Leaf = row.Leaf
			return stored, nil
		}
	}
	return Stored{}, ErrNotFound
}

// Written returns those of the entries that the writer has in the log, by id. It
// asks nobody's sight: a writer may see what it wrote.
func (r *Reader) Written(ctx context.Context, by string, ids []string) (map[string]Stored, error) {
	rows, err := r.cfg.Store.RecordsByID(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("%w: reading records: %w", ErrUnavailable, err)
	}
	found := make(map[string]Stored)
	for _, row := range rows {
		if stored, err := ParseRecord(row.Bytes); err == nil && stored.Entry.By == by {
			stored.Leaf = row.Leaf
			found[stored.Entry.ID] = stored
		}
	}
	return found, nil
}

// Entries returns a page.
func (r *Reader) Entries(ctx context.Context, q Query) (Page, error) {
	switch {
	case q.Limit <= 0:
		q.Limit = defaultLimit
	case q.Limit > maxLimit:
		q.Limit = maxLimit
	}
	after := int64(-1)
	if !q.Ascending {
		after = 1<<53 - 1
	}
	if q.Cursor != "" {
		var err error
		if after, err = readCursor(r.cfg.Secrets(), &q); err != nil {
			return Page{}, err
		}
	}
	owned, err := r.owned(ctx, q.Sight)
	if err != nil {
		return Page{}, err
	}
	m, err := r.plan(ctx, &q, owned, after)
	if err != nil {
		return Page{}, fmt.Errorf("%w: reading records: %w", ErrUnavailable, err)
	}
	page := Page{Entries: []Stored{}}
	for scanned := 0; ; scanned++ {
		row, ok, err := m.next(ctx)
		if err != nil {
			return Page{}, fmt.Errorf("%w: reading records: %w", ErrUnavailable, err)
		}
		if !ok {
			return page, nil
		}
		if len(page.Entries) == q.Limit || scanned == maxScan {
			page.Next = makeCursor(r.cfg.Secrets()[0], &q, after)
			return page, nil
		}
		after = row.Seq
		// What cannot be read matches nothing; Verify says that it is damaged.
		stored, err := ParseRecord(row.Bytes)
		if err != nil || !q.matches(&stored) || !q.Sight.sees(&stored.Entry, owned) {
			continue
		}
		stored.Leaf = row.Leaf
		page.Entries = append(page.Entries, stored)
	}
}

func (r *Reader) owned(ctx context.Context, s Sight) ([]string, error) {
	if s.All || s.Person == "" {
		return nil, nil
	}
	owned, err := r.cfg.Store.Owned(ctx, s.Person)
	if err != nil {
		return nil, fmt.Errorf("%w: reading agents: %w", ErrUnavailable, err)
	}
	return owned, nil
}

// maxSources is how many indexes a page merges; with more, the log itself is
// scanned.
const maxSources = 64

// plan chooses where candidates come from: the narrowest index the query
// names, or those that hold the caller's subtree, or the log itself. Whatever
// it chooses, every candidate is matched afterwards.
func (r *Reader) plan(ctx context.Context, q *Query, owned []string, after int64) (*merge, error) {
	m := &merge{store: r.cfg.Store, ascending: q.Ascending}
	from := func(i Index, value string) { m.add(Scan{Index: i, Value: value, After: after, Ascending: q.Ascending}) }
	s := &q.Sight
	switch {
	case !s.All && s.Key == "" && s.Grant == "" && len(owned) == 0:
		return m, nil // sees nothing
	case q.LID != "":
		from(ByLID, q.LID)
	case q.Grant != "":
		from(ByGrant, q.Grant)
	case !s.All && len(owned) < maxSources:
		if s.Key != "" {
			from(ByKey, s.Key)
		}
		if s.Grant != "" {
			from(ByGrant, s.Grant)
		}
		for _, agent := range owned {
			from(BySub, agent)
		}
	case q.Sub != "":
		from(BySub, q.Sub)
	case q.Agent != "":
		from(ByAgent, q.Agent)
	case q.Resource != "":
		from(ByResource, q.Resource)
	default:
		seqs, err := r.places(ctx, q)
		if err != nil {
			return nil, err
		}
		switch {
		case seqs != nil:
			m.places(seqs, after)
		case q.Action != "":
			from(ByAction, q.Action)
		case q.Result != "":
			from(ByResult, q.Result)
		default:
			from(ByNothing, "")
		}
	}
	return m, nil
}

// places returns the places of all records in a narrow range of time or of
// resources, nil if the range is not narrow or there is none.
func (r *Reader) places(ctx context.Context, q *Query) ([]int64, error) {
	narrow := func(seqs []int64, err error) ([]int64, error) {
		if err != nil || len(seqs) > maxScan {
			return nil, err
		}
		slices.Sort(seqs)
		if !q.Ascending {
			slices.Reverse(seqs)
		}
		return append([]int64{}, seqs...), nil
	}
	if q.Prefix != "" {
		if seqs, err := narrow(r.cfg.Store.SeqsByPrefix(ctx, q.Prefix, maxScan+1)); seqs != nil || err != nil {
			return seqs, err
		}
	}
	if q.Since != 0 || q.Until != 0 {
		until := q.Until
		if until == 0 {
			until = 1<<53 - 1
		}
		return narrow(r.cfg.Store.SeqsByTime(ctx, q.Since, until, maxScan+1))
	}
	return nil, nil
}
