package audit

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// MaxRecord is the size limit of a record in bytes (audit.md §1).
const MaxRecord = 8192

// maxDigits is how long a seq or a time can get (2^53−1).
const maxDigits = 16

// Roles of the ids a record mentions.
const (
	RoleChain  = "chain"
	RoleAnc    = "anc"
	RoleIssued = "issued"
	// RoleKey marks a key thumbprint of the chain, not a lid.
	RoleKey = "key"
)

// Mention is an id that a record can be found by.
type Mention struct {
	ID   string
	Role string
	// Expires is in Unix seconds, for RoleIssued only.
	Expires int64
}

// Columns are what a store keeps beside the bytes of a record, to find it by.
type Columns struct {
	ID, By             string
	Agent, Sub, Action string
	Resource, Result   string
	Grant              string
	Path               string // see PathColumn
	Mentions           []Mention
}

// Draft is a validated, encoded entry that waits for its place in the log.
type Draft struct {
	Columns
	// The canonical members of the entry, cut where the log's own members go:
	//   a ,"log":… b ,"prev":… c ,"seq":… d ,"time":…,"v":1
	a, b, c, d []byte
	observed   bool
}

// NewDraft validates an entry for the log of that id and encodes it. The entry
// must have an id; By and Evidence get their defaults. It returns an error that
// wraps ErrInvalid.
func NewDraft(log string, e Entry) (*Draft, error) {
	e, err := e.checked()
	if err != nil {
		return nil, err
	}
	detail, err := e.detail()
	if err != nil {
		return nil, err
	}
	var d Draft
	groups := []struct {
		into *[]byte
		from map[string]any
	}{
		{&d.a, members("action", e.Action, "agent", e.Agent, "by", e.By, "chain", chainValue(e.Chain),
			"detail", detail, "evidence", e.Evidence, "grant", e.Grant, "id", e.ID)},
		{&d.b, members("observed", e.Observed, "path", e.Path)},
		{&d.c, members("reason", e.Reason, "resource", e.Resource, "result", e.Result)},
		{&d.d, members("sub", e.Sub)},
	}
	for _, g := range groups {
		text, err := jcs.Marshal(g.from)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		*g.into = text[1 : len(text)-1]
	}
	// The size is checked for the longest seq and time there can be, so that
	// whether an entry is accepted never depends on its place in the log.
	const frame = len(`{,"log":"","prev":"","seq":,"time":,"v":1}`) + 43 + 2*maxDigits + 3
	if n := frame + len(log) + len(d.a) + len(d.b) + len(d.c) + len(d.d); n > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, n, MaxRecord)
	}
	d.Columns, d.observed = e.columns(), e.Observed != 0
	return &d, nil
}

// Key is the draft's idempotency key.
func (d *Draft) Key() Key { return Key{By: d.By, ID: d.ID} }

// Size is about how many bytes the record will have.
func (d *Draft) Size() int { return len(d.a) + len(d.b) + len(d.c) + len(d.d) + 200 }

// Bytes returns the entry as canonical JSON, without the log's own members.
func (d *Draft) Bytes() []byte {
	out := make([]byte, 0, d.Size())
	out = append(out, '{')
	for _, part := range [][]byte{d.a, d.b, d.c, d.d} {
		if len(part) > 0 && len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, part...)
	}
	return append(out, '}')
}

// record writes the bytes of the draft at its place. log and prev need no
// escaping: a log id is a host and hex, prev is base64url.
func (d *Draft) record(log string, seq int64, prev string, time int64) []byte {
	out := make([]byte, 0, d.Size()+len(log))
	out = append(out, '{')
	out = append(out, d.a...)
	out = append(out, `,"log":"`...)
	out = append(out, log...)
	out = append(out, '"')
	out = appendMembers(out, d.b)
	out = append(out, `,"prev":"`...)
	out = append(out, prev...)
	out = append(out, '"')
	out = appendMembers(out, d.c)
	out = append(out, `,"seq":`...)
	out = strconv.AppendInt(out, seq, 10)
	out = appendMembers(out, d.d)
	out = append(out, `,"time":`...)
	out = strconv.AppendInt(out, time, 10)
	return append(out, `,"v":1}`...)
}

func appendMembers(out, part []byte) []byte {
	if len(part) == 0 {
		return out
	}
	return append(append(out, ','), part...)
}

// LeafHash is SHA-256(0x00 ‖ record bytes), base64url (RFC 6962 §2.1).
func LeafHash(record []byte) string {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(record)
	var sum [sha256.Size]byte
	return jcs.Base64URL(h.Sum(sum[:0]))
}

// FirstPrev is the prev of record 0: SHA-256 of the log id, base64url.
func FirstPrev(log string) string {
	sum := sha256.Sum256([]byte(log))
	return jcs.Base64URL(sum[:])
}

// members makes an object of pairs, leaving out what is empty.
func members(pairs ...any) map[string]any {
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		switch v := pairs[i+1].(type) {
		case string:
			if v == "" {
				continue
			}
		case bool:
			if !v {
				continue
			}
		case int64:
			if v == 0 {
				continue
			}
		case []string:
			if len(v) == 0 {
				continue
			}
		case []any:
			if len(v) == 0 {
				continue
			}
		case map[string]any:
			if len(v) == 0 {
				continue
			}
		}
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

func chainValue(chain []Party) []any {
	out := make([]any, len(chain))
	for i, p := range chain {
		out[i] = members("lid", p.LID, "jti", p.JTI, "client_id", p.ClientID,
			"confirmed", p.Confirmed, "jkt", p.JKT)
	}
	return out
}

// detail returns the entry's detail, cleaned, with issued and anc.
func (e Entry) detail() (map[string]any, error) {
	out := make(map[string]any, len(e.Detail)+2)
	if len(e.Detail) > 0 {
		cleaned, err := cleanValue(e.Detail, 0)
		if err != nil {
			return nil, err
		}
		out = cleaned.(map[string]any)
	}
	for _, own := range []string{"issued", "anc"} {
		if _, taken := out[own]; taken {
			return nil, fmt.Errorf("%w: detail %q is written by the log", ErrInvalid, own)
		}
	}
	if len(e.Issued) > 0 {
		list := make([]any, len(e.Issued))
		for i, t := range e.Issued {
			list[i] = map[string]any{"lid": t.LID, "exp": t.Expires}
		}
		out["issued"] = list
	}
	if len(e.Anc) > 0 {
		out["anc"] = e.Anc
	}
	return out, nil
}

func (e Entry) columns() Columns {
	c := Columns{ID: e.ID, By: e.By, Agent: e.Agent, Sub: e.Sub,
		Action: e.Action, Resource: e.Resource, Result: e.Result, Grant: e.Grant,
		Path: PathColumn(e.Path)}
	seen := make(map[Mention]bool)
	mention := func(id, role string, exp int64) {
		m := Mention{ID: id, Role: role}
		if id == "" || seen[m] {
			return
		}
		seen[m] = true
		m.Expires = exp
		c.Mentions = append(c.Mentions, m)
	}
	for _, p := range e.Chain {
		mention(p.LID, RoleChain, 0)
		mention(p.JKT, RoleKey, 0)
	}
	for _, id := range e.Anc {
		mention(id, RoleAnc, 0)
	}
	for _, t := range e.Issued {
		mention(t.LID, RoleIssued, t.Expires)
	}
	return c
}

// PathColumn writes a path so that one path begins with another iff the
// strings do: every party as a JSON string and a comma.
func PathColumn(path []string) string {
	var b strings.Builder
	for _, party := range path {
		text, err := jcs.Marshal(party)
		if err != nil { // not UTF-8: no record has such a party
			text = []byte("!")
		}
		b.Write(text)
		b.WriteByte(',')
	}
	return b.String()
}
