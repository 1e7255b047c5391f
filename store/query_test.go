package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// history is a log with records of several parties; the resource of each says
// which one it is.
func history(t *testing.T) *Store {
	t.Helper()
	s, path := openTest(t)
	outside(t, path, `INSERT INTO agents (id, owner, name, status, version, purpose, scopes, capabilities, max_depth,
		public_key, jkt, manifest_seq, manifest_expires, created)
		VALUES ('agent-1', 'ann', 'one', 'active', '1.0.0', '', '[]', '[]', 1, '{}', 'j', 1, 1, 1)`)
	entry := func(resource string, e audit.Entry) audit.Entry {
		base := audittest.Entry(resource)
		base.Agent, base.Sub, base.Grant, base.Path, base.Chain = e.Agent, e.Sub, e.Grant, e.Path, e.Chain
		base.Issued, base.Anc, base.Evidence = e.Issued, e.Anc, e.Evidence
		if e.Action != "" {
			base.Action = e.Action
		}
		if e.Result != "" {
			base.Result = e.Result
		}
		return base
	}
	leaf := []audit.Party{{LID: "lid-root", JKT: "key-root"}, {LID: "lid-leaf", JKT: "key-leaf"}}
	entries := []audit.Entry{
		entry("r0", audit.Entry{Agent: "user:ann", Sub: "ann", Action: audit.Login}),
		entry("r1", audit.Entry{Agent: "app", Sub: "ann", Grant: "g1", Path: []string{"app"}, Action: audit.TokenIssue,
			Issued: []audit.Issued{{LID: "lid-plain", Expires: 1}}}),
		entry("r2", audit.Entry{Agent: "app", Sub: "ann", Grant: "g1", Path: []string{"app", "helper"}, Action: audit.Delegate,
			Chain: []audit.Party{{LID: "lid-plain"}}, Issued: []audit.Issued{{LID: "lid-root", Expires: 1}}}),
		entry("r3", audit.Entry{Agent: "other", Sub: "ann", Grant: "g1", Path: []string{"apple"}, Action: audit.Delegate, Result: audit.Denied}),
		entry("r4", audit.Entry{Agent: "helper", Sub: "ann", Grant: "g1", Path: []string{"app", "helper"}, Chain: leaf, Action: "rs.read"}),
		entry("r5", audit.Entry{Agent: "helper", Sub: "ann", Grant: "g1", Path: []string{"app", "helper"}, Chain: leaf, Action: "rs.read",
			Evidence: audit.EvidenceAsserted}),
		entry("r6", audit.Entry{Agent: "agent-1", Sub: "agent-1", Grant: "g2", Path: []string{"agent-1"}, Action: audit.TokenIssue}),
		entry("r7", audit.Entry{Agent: "agent-2", Sub: "agent-2", Grant: "g3", Path: []string{"agent-2"}, Action: audit.TokenIssue}),
		entry("r8", audit.Entry{Agent: "agent-2", Sub: "agent-2", Grant: "g3", Path: []string{"agent-2"}, Action: audit.Delegate,
			Anc: []string{"lid-root"}}),
		entry("r9 \u202e\x1b[2J", audit.Entry{Agent: audit.Operator}),
	}
	for i, e := range entries {
		d, err := audit.NewDraft(s.LogID(), e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), []audit.Write{{Drafts: []*audit.Draft{d}}}, int64(1000+10*i)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// seqs returns what a query finds, over all pages.
func seqs(t *testing.T, r *audit.Reader, q audit.Query) (list []int64) {
	t.Helper()
	for range 1000 {
		page, err := r.Entries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			list = append(list, e.Seq)
		}
		if page.Next == "" {
			return list
		}
		q.Cursor = page.Next
	}
	t.Fatal("the pages never end")
	return nil
}

// Every filter finds what it names, alone and together, in either order and
// with pages of any size.
func TestQueryFilters(t *testing.T) {
	s := history(t)
	r := audit.NewReader(audit.ReaderConfig{Store: s})
	all := audit.Sight{All: true}
	for _, test := range []struct {
		name string
		q    audit.Query
		want []int64
	}{
		{"all", audit.Query{}, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"agent", audit.Query{Agent: "helper"}, []int64{4, 5}},
		{"action", audit.Query{Action: audit.Delegate}, []int64{2, 3, 8}},
		{"result", audit.Query{Result: audit.Denied}, []int64{3}},
		{"resource", audit.Query{Resource: "r7"}, []int64{7}},
		{"prefix", audit.Query{Prefix: "r9"}, []int64{9}},
		{"prefix of all", audit.Query{Prefix: "r"}, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"sub", audit.Query{Sub: "agent-2"}, []int64{7, 8}},
		{"grant", audit.Query{Grant: "g1"}, []int64{1, 2, 3, 4, 5}},
		{"lid in chain, anc and issued", audit.Query{LID: "lid-root"}, []int64{2, 4, 5, 8}},
		{"a key is no lid", audit.Query{LID: "key-leaf"}, nil},
		{"since", audit.Query{Since: 1080}, []int64{8, 9}},
		{"until", audit.Query{Until: 1010}, []int64{0, 1}},
		{"between", audit.Query{Since: 1030, Until: 1050}, []int64{3, 4, 5}},
		{"together", audit.Query{Grant: "g1", Action: audit.Delegate, Result: audit.Denied}, []int64{3}},
		{"together with time", audit.Query{Action: audit.TokenIssue, Since: 1050, Until: 1060}, []int64{6}},
		{"lid and agent", audit.Query{LID: "lid-root", Agent: "app"}, []int64{2}},
		{"nothing", audit.Query{Agent: "nobody"}, nil},
	} {
		for _, limit := range []int{0, 1, 2, 3} {
			q := test.q
			q.Sight, q.Limit, q.Ascending = all, limit, true
			if got := seqs(t, r, q); !slices.Equal(got, test.want) {
				t.Errorf("%s, pages of %d: %v, want %v", test.name, limit, got, test.want)
			}
			q.Ascending = false
			want := slices.Clone(test.want)
			slices.Reverse(want)
			if got := seqs(t, r, q); !slices.Equal(got, want) {
				t.Errorf("%s, newest first, pages of %d: %v, want %v", test.name, limit, got, want)
			}
		}
	}
}

// Callers without audit:read see their own subtree and nothing else, whatever
// they ask for.
func TestSight(t *testing.T) {
	s := history(t)
	r := audit.NewReader(audit.ReaderConfig{Store: s})
	for _, test := range []struct {
		name  string
		sight audit.Sight
		want  []int64
	}{
		{"nobody", audit.Sight{}, nil},
		{"a caller's name is no sight", audit.Sight{Caller: "ann", Path: []string{"app"}}, nil},
		{"bound: the chain holds the leaf key, and somebody checked", audit.Sight{Key: "key-leaf"}, []int64{4}},
		{"bound to the root", audit.Sight{Key: "key-root"}, []int64{4}},
		{"a lid is no key", audit.Sight{Key: "lid-leaf"}, nil},
		{"plain: grant and path", audit.Sight{Grant: "g1", Path: []string{"app"}}, []int64{1, 2, 4}},
		{"plain, deeper", audit.Sight{Grant: "g1", Path: []string{"app", "helper"}}, []int64{2, 4}},
		{"plain, another grant", audit.Sight{Grant: "g2", Path: []string{"app"}}, nil},
		{"a person also sees the agents she owns", audit.Sight{Grant: "g1", Path: []string{"app"}, Person: "ann"}, []int64{1, 2, 4, 6}},
		{"a person without agents", audit.Sight{Grant: "g3", Path: []string{"agent-2"}, Person: "bob"}, []int64{7, 8}},
	} {
		if got := seqs(t, r, audit.Query{Sight: test.sight, Ascending: true, Limit: 2}); !slices.Equal(got, test.want) {
			t.Errorf("%s: sees %v, want %v", test.name, got, test.want)
		}
		// Filters narrow it and never widen it.
		for _, q := range []audit.Query{{Grant: "g1"}, {Grant: "g3"}, {LID: "lid-root"}, {Sub: "agent-2"}, {Agent: "helper"},
			{Prefix: "r"}, {Since: 1}, {Action: audit.TokenIssue}, {Resource: "r7"}} {
			q.Sight, q.Ascending = audit.Sight{All: true}, true
			found := seqs(t, r, q)
			q.Sight = test.sight
			var want []int64
			for _, seq := range found {
				if slices.Contains(test.want, seq) {
					want = append(want, seq)
				}
			}
			if got := seqs(t, r, q); !slices.Equal(got, want) {
				t.Errorf("%s, %+v: sees %v, want %v", test.name, q, got, want)
			}
		}
		// One record by its id.
		for seq := range int64(10) {
			rows, err := s.Records(t.Context(), audit.Scan{After: seq - 1, Ascending: true, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			stored, err := audit.ParseRecord(rows[0].Bytes)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Entry(t.Context(), test.sight, stored.Entry.ID)
			if slices.Contains(test.want, seq) != (err == nil) || err != nil && !errors.Is(err, audit.ErrNotFound) {
				t.Errorf("%s: record %d: %v", test.name, seq, err)
			}
			if err == nil && (got.Seq != seq || got.Leaf != audit.LeafHash(got.Bytes)) {
				t.Errorf("%s: record %d came as %+v", test.name, seq, got)
			}
		}
	}
}

// A cursor is good for the caller and the filter it was made for.
func TestCursors(t *testing.T) {
	r := audit.NewReader(audit.ReaderConfig{Store: history(t), Secrets: func() [][]byte { return [][]byte{[]byte("0123456789abcdef0123456789abcdef")} }})
	q := audit.Query{Sight: audit.Sight{Caller: "ann", All: true}, Limit: 2}
	page, err := r.Entries(t.Context(), q)
	if err != nil || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	q.Cursor = page.Next
	q.Limit = 3 // the size of a page may change
	if _, err := r.Entries(t.Context(), q); err != nil {
		t.Errorf("its own cursor: %v", err)
	}
	for name, change := range map[string]func(*audit.Query){
		"another caller":  func(q *audit.Query) { q.Sight.Caller = "bob" },
		"another sight":   func(q *audit.Query) { q.Sight = audit.Sight{Caller: "ann", Grant: "g1"} },
		"another filter":  func(q *audit.Query) { q.Agent = "app" },
		"the other order": func(q *audit.Query) { q.Ascending = true },
		"one letter":      func(q *audit.Query) { q.Cursor = "B" + q.Cursor[1:] },
		"cut":             func(q *audit.Query) { q.Cursor = q.Cursor[:20] },
		"no base64":       func(q *audit.Query) { q.Cursor = "!" },
	} {
		changed := q
		change(&changed)
		if _, err := r.Entries(t.Context(), changed); !errors.Is(err, audit.ErrCursor) {
			t.Errorf("%s: %v, want ErrCursor", name, err)
		}
	}
	other := audit.NewReader(audit.ReaderConfig{Store: history(t)})
	if _, err := other.Entries(t.Context(), q); !errors.Is(err, audit.ErrCursor) {
		t.Errorf("another secret: %v, want ErrCursor", err)
	}
}

// A filter that matches almost nothing returns a cursor after 10,000 rows.
func TestPageScansAreBounded(t *testing.T) {
	s, path := filled(t, 10)
	outside(t, path, `WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 21009)
		INSERT INTO audit_records (seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
		SELECT i, 'id' || i, wrote, 1, bytes, leaf, path, agent, sub, action, 'record 3', result, grant_id
		FROM audit_records, n WHERE seq = 3`)
	counting := &countingStore{ReadStore: s}
	r := audit.NewReader(audit.ReaderConfig{Store: counting})
	// The index on resource holds 21,001 rows; none of them matches.
	q := audit.Query{Sight: audit.Sight{All: true}, Resource: "record 3", Until: 2}
	pages, found := 0, 0
	for {
		before := counting.rows
		page, err := r.Entries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if n := counting.rows - before; n > 12_000 {
			t.Errorf("a page read %d rows", n)
		}
		pages++
		found += len(page.Entries)
		if page.Next == "" {
			break
		}
		q.Cursor = page.Next
	}
	if pages != 3 || found != 0 {
		t.Errorf("%d pages, %d found; want 3 pages of at most 10,000 rows", pages, found)
	}
}

type countingStore struct {
	audit.ReadStore
	rows int
}

func (c *countingStore) Records(ctx context.Context, s audit.Scan) ([]audit.Raw, error) {
	rows, err := c.ReadStore.Records(ctx, s)
	c.rows += len(rows)
	return rows, err
}

// Every scan has an index of its own that also gives the order.
func TestScansUseIndexes(t *testing.T) {
	s, _ := openTest(t)
	for index, queries := range scans {
		for _, query := range queries {
			args := []any{1, 10}
			if index != audit.ByNothing {
				args = append(args, "x")
			}
			plan, err := collect(t.Context(), s, func(rows *sql.Rows) (string, error) {
				var a, b, c int
				var detail string
				err := rows.Scan(&a, &b, &c, &detail)
				return detail, err
			}, "EXPLAIN QUERY PLAN "+query, args...)
			if err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprint(plan)
			if !strings.Contains(text, "USING") || strings.Contains(text, "SCAN audit_") || strings.Contains(text, "SCAN r") {
				t.Errorf("%s: %s", query, text)
			}
		}
	}
}
