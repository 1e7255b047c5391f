package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/audit"
)

// table is a table that is copied whole: every one but the log, which is copied
// by its records, and migrations, which the target has.
type table struct {
	name string
	// key is what rows are read in order of.
	key string
	// text and ints are all columns, by type.
	text, ints string
	// but leaves rows out: those that belong to the database, not to what
	// lives in it.
	but string
}

// tables lists them. A test compares the list with the schema.
var tables = []table{
	{name: "settings", key: "name", text: "name, value", but: `name <> '` + settingLog + `'`},
	{name: "audit_outbox", key: "id", text: "id, entry", ints: "time"},
	{name: "users", key: "id", text: "id, name, role, password", ints: "disabled, created"},
	{name: "sessions", key: "hash", text: "hash, id, user_id, device, network", ints: "started, seen, expires"},
	{name: "attempts", key: "subject", text: "subject", ints: "tries, until, seen"},
	{name: "keys", key: "kid", text: "kid, slot, purpose, alg, sealed", ints: "created, signs, rests, ends, revoked"},
	{name: "clients", key: "id", text: "id, name, kind, method, secret_hash, redirect_uris, grant_types, scopes, application_type, uri, logo_uri, public_keys",
		ints: "disabled, created, used, bound"},
	{name: "resources", key: "id", text: "id, name, token_alg, introspector", ints: "aware, created"},
	{name: "scopes", key: "name", text: "name, resource, folded, description, users, roles", ints: "position, sensitive"},
	{name: "revocations", key: "seq", text: "kind, value, path, gid", ints: "seq, until, at, absorbed, issued_before"},
	{name: "replays", key: "key", text: "key", ints: "until"},
	{name: "grants", key: "gid", text: "gid, kind, sub, client_id, redirect_uri, scope, resource, hours",
		ints: "max_depth, created, used, expires, revoked"},
	{name: "codes", key: "hash", text: "hash, gid, client_id, redirect_uri, challenge, sub, scope, resource, jkt",
		ints: "redirect_sent, max_depth, created, expires, used, keep"},
	{name: "refresh_tokens", key: "hash", text: "hash, gid, client_id, jkt", ints: "created, expires, used, family_end"},
	{name: "pending", key: "id", text: "id, browser, client_id, redirect_uri, state, challenge, scope, resource, prompt, login_hint, jkt",
		ints: "redirect_sent, state_sent, created, expires, decided"},
	{name: "consents", key: "sub, client_id, redirect_uri, resource, scope",
		text: "sub, client_id, redirect_uri, resource, scope, fingerprint", ints: "granted"},
	{name: "agents", key: "id", text: "id, owner, name, status, version, purpose, scopes, capabilities, public_key, jkt",
		ints: "max_depth, manifest_seq, manifest_expires, created"},
	{name: "manifests", key: "agent, seq", text: "agent, token", ints: "seq, added"},
	{name: "enrolments", key: "hash", text: "hash, owner, agent, renews", ints: "created, expires, used"},
	{name: "handles", key: "hash", text: "hash, sealed", ints: "created, expires, used"},
	{name: "counters", key: "lid", text: "lid", ints: "used, budget, until"},
	{name: "agent_keys", key: "jkt, agent", text: "jkt, agent", ints: "seq, until"},
}

// columns are all columns, those of text first.
func (t *table) columns() (text, all []string) {
	text = strings.Split(t.text, ", ")
	all = text[:len(text):len(text)]
	if t.ints != "" {
		all = append(all, strings.Split(t.ints, ", ")...)
	}
	return text, all
}

// where is the condition for rows that are copied, with another if there is.
func (t *table) where(also string) string {
	switch {
	case t.but == "" && also == "":
		return ""
	case t.but == "" || also == "":
		return " WHERE " + t.but + also
	}
	return " WHERE " + t.but + " AND " + also
}

// pageRows is how many rows are read at a time.
const pageRows = 500

// page is the statement that reads the rows behind a key, and its arguments;
// after is nil for the first.
func (t *table) page(after []any) (string, []any) {
	var behind string
	if after != nil {
		places := make([]string, len(after))
		for i := range after {
			places[i] = "$" + strconv.Itoa(i+1)
		}
		behind = `(` + t.key + `) > (` + strings.Join(places, ", ") + `)`
	}
	_, all := t.columns()
	return `SELECT ` + strings.Join(all, ", ") + ` FROM ` + t.name + t.where(behind) +
		` ORDER BY ` + t.key + ` LIMIT ` + strconv.Itoa(pageRows), after
}

// scan reads one row.
func (t *table) scan(rows *sql.Rows) ([]any, error) {
	text, all := t.columns()
	texts, ints, into := make([]string, len(text)), make([]int64, len(all)-len(text)), make([]any, len(all))
	for i := range texts {
		into[i] = &texts[i]
	}
	for i := range ints {
		into[len(text)+i] = &ints[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	row := make([]any, len(all))
	for i, v := range texts {
		row[i] = v
	}
	for i, v := range ints {
		row[len(text)+i] = v
	}
	return row, nil
}

// keyOf returns the key of a row.
func (t *table) keyOf(row []any) []any {
	_, all := t.columns()
	var key []any
	for _, name := range strings.Split(t.key, ", ") {
		for i, column := range all {
			if column == name {
				key = append(key, row[i])
			}
		}
	}
	return key
}

// insert is the effect that inserts rows, one parameter whatever their number:
// a JSON array of arrays, of which every database can make rows. The target
// has none of them.
func (t *table) insert(s *Store, rows *batch) audit.Effect {
	text, all := t.columns()
	values := make([]string, len(all))
	for i := range all {
		values[i] = "value ->> " + strconv.Itoa(i)
		if i >= len(text) {
			values[i] = "CAST(" + values[i] + " AS BIGINT)"
		}
	}
	return effect(rows.n, `INSERT INTO `+t.name+` (`+strings.Join(all, ", ")+`)
		SELECT `+strings.Join(values, ", ")+` FROM `+s.elements(), rows.json())
}

// elements is the FROM that makes rows of the JSON array $1, each one column
// named value.
func (s *Store) elements() string {
	if s.read.sqlite {
		return `json_each($1)`
	}
	return `json_array_elements(CAST(CAST($1 AS TEXT) AS json))`
}

// batchBytes bounds the parameter of one insert: D1 takes 2 MB.
const batchBytes = 512 << 10

// batch collects rows for one insert.
type batch struct {
	n    int64
	text bytes.Buffer
}

func (b *batch) json() string { return "[" + b.text.String() + "]" }
func (b *batch) full() bool   { return b.n >= pageRows || b.text.Len() >= batchBytes }
func (b *batch) reset()       { b.n = 0; b.text.Reset() }

// add encodes a row and returns its text, which is good until the next.
func (b *batch) add(row []any) ([]byte, error) {
	for _, v := range row {
		// encoding/json would replace what it cannot write.
		if text, ok := v.(string); ok && !utf8.ValidString(text) {
			return nil, fmt.Errorf("%w: a text is not UTF-8", ErrStore)
		}
	}
	if b.n > 0 {
		b.text.WriteByte(',')
	}
	start := b.text.Len()
	encoder := json.NewEncoder(&b.text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(row); err != nil {
		return nil, fmt.Errorf("%w: encoding a row: %w", ErrStore, err)
	}
	b.n++
	return b.text.Bytes()[start:], nil
}

// sum is a digest of rows that does not depend on their order, which two
// databases need not agree on: the sum of the hashes modulo 2^256. It finds
// what goes wrong, not what somebody makes go wrong.
type sum struct {
	rows int64
	hash [4]uint64
}

func (s *sum) add(row []byte) {
	h := sha256.Sum256(row)
	var carry uint64
	for i := range s.hash {
		s.hash[i], carry = bits.Add64(s.hash[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
	s.rows++
}

// view is a state of a database that does not change while it is read.
type view interface {
	head(ctx context.Context) (audit.Head, error)
	// rows returns the rows of a page, see [table.page].
	rows(ctx context.Context, t *table, after []any) ([][]any, error)
	close() error
}

// each calls do with every row of a table.
func each(ctx context.Context, v view, t *table, do func(row []any) error) error {
	for after := []any(nil); ; {
		rows, err := v.rows(ctx, t, after)
		if err != nil {
			return fmt.Errorf("%w: reading %s: %w", ErrStore, t.name, err)
		}
		for _, row := range rows {
			if err := do(row); err != nil {
				return fmt.Errorf("copying %s: %w", t.name, err)
			}
		}
		if len(rows) < pageRows {
			return nil
		}
		after = t.keyOf(rows[len(rows)-1])
	}
}

// still is the view of a database to which nobody else writes.
type still struct{ *Store }

func (v still) head(ctx context.Context) (audit.Head, error) { return v.Head(ctx) }
func (still) close() error                                   { return nil }

func (v still) rows(ctx context.Context, t *table, after []any) ([][]any, error) {
	query, args := t.page(after)
	return collect(ctx, v.Store, t.scan, query, args...)
}
