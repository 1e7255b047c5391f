package audit

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// Limits of a page.
const (
	defaultLimit = 50
	maxLimit     = 500
	// maxScan is how many rows a page looks at before it returns a cursor
	// (audit.md §4).
	maxScan = 10_000
)

// Sight is what a caller may see of the log. The zero value sees nothing.
type Sight struct {
	// Caller is who asks, as a cursor remembers it; it widens nothing.
	Caller string
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

// Holder is who holds a verified credential, as far as the log asks. A
// *delegation.Chain is one.
type Holder interface {
	// Principal is whose authority it is, Path who acts, from the principal on.
	Principal() string
	Path() []string
	// GrantID is what the credential stands on.
	GrantID() string
	// JKT is the thumbprint of the key that it is bound to, "" for none.
	JKT() string
}

// SightOf is what a holder may see without audit:read: its own subtree
// (audit.md §4).
func SightOf(h Holder) Sight {
	if jkt := h.JKT(); jkt != "" {
		return Sight{Key: jkt}
	}
	s := Sight{Grant: h.GrantID(), Path: h.Path()}
	if len(s.Path) <= 2 { // the principal and a client: nobody acts in between
		s.Person = h.Principal()
	}
	return s
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
	// Limit is the size of a page, 1…500; 0 means 50, more means 500.
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

// matches reports whether a record passes the filters. It reads what the
// record's bytes say, never the columns beside them.
func (q *Query) matches(s *Stored) bool {
	e := &s.Entry
	return equal(q.Agent, e.Agent) && equal(q.Action, e.Action) && equal(q.Result, e.Result) &&
		equal(q.Resource, e.Resource) && equal(q.Sub, e.Sub) && equal(q.Grant, e.Grant) &&
		strings.HasPrefix(e.Resource, q.Prefix) &&
		(q.Since == 0 || s.Time >= q.Since) && (q.Until == 0 || s.Time <= q.Until) &&
		(q.LID == "" || e.mentions(q.LID))
}

func equal(want, have string) bool { return want == "" || want == have }

// mentions reports whether lid is in the chain, in anc, or was issued.
func (e *Entry) mentions(lid string) bool {
	return slices.ContainsFunc(e.Chain, func(p Party) bool { return p.LID == lid }) ||
		slices.Contains(e.Anc, lid) ||
		slices.ContainsFunc(e.Issued, func(t Issued) bool { return t.LID == lid })
}

// sees reports whether the caller may see an entry; owned are the agents of
// Sight.Person (audit.md §4: "others their own subtree").
func (s *Sight) sees(e *Entry, owned []string) bool {
	if s.All {
		return true
	}
	if e.Evidence != EvidenceServer && e.Evidence != EvidenceProof {
		return false
	}
	if s.Key != "" && slices.ContainsFunc(e.Chain, func(p Party) bool { return p.JKT == s.Key }) {
		return true
	}
	if s.Grant != "" && s.Grant == e.Grant && len(e.Path) >= len(s.Path) && slices.Equal(e.Path[:len(s.Path)], s.Path) {
		return true
	}
	return s.Person != "" && slices.Contains(owned, e.Sub)
}

// binding is what a cursor is bound to: the filter and the caller, but not the
// place in the list or the size of a page.
func (q *Query) binding() []byte {
	s := q.Sight
	text, err := jcs.Marshal(map[string]any{
		"agent": q.Agent, "action": q.Action, "result": q.Result, "resource": q.Resource, "sub": q.Sub,
		"grant": q.Grant, "lid": q.LID, "q": q.Prefix, "since": q.Since, "until": q.Until, "ascending": q.Ascending,
		"caller": s.Caller, "all": s.All, "key": s.Key, "sight_grant": s.Grant, "path": s.Path, "person": s.Person,
	})
	if err != nil {
		return nil // not UTF-8: such a query finds nothing and gets no cursor
	}
	return text
}
