package audit

import "context"

// Sight is what a caller may see of the log. The zero value sees nothing.
type Sight struct {
	// All: the caller holds audit:read, or is the operator at the database.
	All bool
	// Key is the leaf key thumbprint of a bound token: records whose chain
	// holds it.
	Key string
	// Grant and Path are those of a plain token: records of the same grant
	// whose path begins with it.
	Grant string
	Path  []string
	// Person is the user id of a person's token with no act: also records whose
	// sub is an agent the person owns.
	Person string
}

// Query selects records. Empty members do not filter.
type Query struct {
	// Sight is who asks; the cursor is bound to it.
	Sight Sight
	Agent, Action, Result,
	Resource, Sub, Grant string
	// LID matches chain, anc and what was issued.
	LID string
	// Prefix is a prefix of resource (`q`).
	Prefix string
	// Since and Until bound time in Unix milliseconds, both inclusive; 0: open.
	Since, Until int64
	// Ascending returns the oldest first; the default is the newest first.
	Ascending bool
	// Limit is the size of a page, 1…500; 0 means 50.
	Limit int
	// Cursor continues after a page.
	Cursor string
}

// Stored is a record as it is read.
type Stored struct {
	Seq  int64
	Time int64
	Log  string
	Prev string
	// Leaf is the stored leaf hash, base64url.
	Leaf string
	// Bytes are the record, exactly as written and hashed.
	Bytes []byte
	Entry Entry
}

// Page is one page of records.
type Page struct {
	Entries []Stored
	// Next continues; empty at the end. A page may be short, even empty, and
	// have a Next: a page scans at most 10,000 rows.
	Next string
}

// ReaderConfig says what a Reader reads.
type ReaderConfig struct {
	// Store is the log's store.
	Store ReadStore
	// Secret signs cursors: 32 random bytes that every replica has.
	Secret []byte
}

// Reader answers questions about the log.
type Reader struct{ cfg ReaderConfig }

// NewReader makes a Reader.
func NewReader(cfg ReaderConfig) *Reader { return &Reader{cfg: cfg} }

// Entries returns a page.
func (r *Reader) Entries(ctx context.Context, q Query) (Page, error) { panic("unbuilt") }

// Entry returns the record with that entry id, or ErrNotFound if there is none
// that the caller may see.
func (r *Reader) Entry(ctx context.Context, s Sight, id string) (Stored, error) { panic("unbuilt") }

// ReadStore is what a Reader needs of the store.
type ReadStore interface{ LogID() string }
