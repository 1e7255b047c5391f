package audit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/jcs"
	"pgregory.net/rapid"
)

const (
	testLog = "kavach.example/audit/0a1b2c3d"
	testID  = "01890a5d-ac96-774b-bcce-b302099a8057"
)

func full() audit.Entry {
	return audit.Entry{
		ID: testID, Observed: 1_700_000_000_123, By: "git-host", Evidence: audit.EvidenceProof,
		Path: []string{"orchestrator", "code-reviewer"}, Agent: "code-reviewer", Sub: "orchestrator",
		Action: "rs.comment", Resource: "https://git.example/pull/847", Result: audit.Denied, Reason: "scope_exceeded",
		Chain: []audit.Party{{LID: "l1", JTI: "j1", ClientID: "orchestrator", JKT: "k1"},
			{LID: "l2", JTI: "j2", ClientID: "code-reviewer", Confirmed: true, JKT: "k2"}},
		Grant:  "01890a5d-ac96-774b-bcce-b302099a8058",
		Detail: map[string]any{"scopes": []string{"b", "a"}, "ttl": 60, "ok": true},
		Issued: []audit.Issued{{LID: "l3", Expires: 1_700_000_060}}, Anc: []string{"l0"},
	}
}

// The bytes of a record are this, for ever: somebody else's verifier hashes
// them.
func TestRecordBytes(t *testing.T) {
	seq := audit.NewSequencer(testLog, audit.Head{Leaf: audit.FirstPrev(testLog)}, 1_700_000_000_456)
	d, err := audit.NewDraft(testLog, full())
	if err != nil {
		t.Fatal(err)
	}
	r := seq.Next(d)
	want := `{"action":"rs.comment","agent":"code-reviewer","by":"git-host",` +
		`"chain":[{"client_id":"orchestrator","jkt":"k1","jti":"j1","lid":"l1"},{"client_id":"code-reviewer","confirmed":true,"jkt":"k2","jti":"j2","lid":"l2"}],` +
		`"detail":{"anc":["l0"],"issued":[{"exp":1700000060,"lid":"l3"}],"ok":true,"scopes":["b","a"],"ttl":60},` +
		`"evidence":"proof","grant":"01890a5d-ac96-774b-bcce-b302099a8058","id":"` + testID + `","log":"` + testLog + `",` +
		`"observed":1700000000123,"path":["orchestrator","code-reviewer"],"prev":"` + audit.FirstPrev(testLog) + `",` +
		`"reason":"scope_exceeded","resource":"https://git.example/pull/847","result":"denied","seq":0,"sub":"orchestrator",` +
		`"time":1700000000456,"v":1}`
	if diff := cmp.Diff(want, string(r.Bytes)); diff != "" {
		t.Error(diff)
	}
	// printf '%s' "$log" | openssl dgst -sha256 -binary | basenc --base64url
	if got := audit.FirstPrev("a"); got != "ypeBEsobvcr6wjGzmiPcTaeG7_gUfE5yuYB3ha_uSLs" {
		t.Errorf("FirstPrev(a) = %s", got)
	}
	if r.Leaf != audit.LeafHash(r.Bytes) || seq.Head() != (audit.Head{Size: 1, Leaf: r.Leaf}) {
		t.Errorf("leaf %s, head %+v", r.Leaf, seq.Head())
	}
	smallest, err := audit.NewDraft(testLog, audit.Entry{ID: testID, Action: audit.Login, Result: audit.Allowed})
	if err != nil {
		t.Fatal(err)
	}
	want = `{"action":"login","by":"server","evidence":"server","id":"` + testID + `","log":"` + testLog + `","prev":"` + r.Leaf +
		`","result":"allowed","seq":1,"time":1700000000456,"v":1}`
	if got := string(seq.Next(smallest).Bytes); got != want {
		t.Errorf("smallest record\n%s, want\n%s", got, want)
	}
}

// RFC 6962: the leaf hash of no bytes.
func TestLeafHash(t *testing.T) {
	if got := audit.LeafHash(nil); got != "bjQLnP-zepicpUTmu3gKLHiQHT-zNzh2hRGjBhevoB0" {
		t.Errorf("leaf hash of nothing = %s", got)
	}
}

func TestInvalidEntries(t *testing.T) {
	for name, change := range map[string]func(*audit.Entry){
		"no id":             func(e *audit.Entry) { e.ID = "" },
		"upper-case id":     func(e *audit.Entry) { e.ID = strings.ToUpper(testID) },
		"UUIDv4":            func(e *audit.Entry) { e.ID = "01890a5d-ac96-474b-bcce-b302099a8057" },
		"urn":               func(e *audit.Entry) { e.ID = "urn:uuid:" + testID },
		"no action":         func(e *audit.Entry) { e.Action = "" },
		"unknown action":    func(e *audit.Entry) { e.Action = "token.forge" },
		"family alone":      func(e *audit.Entry) { e.Action = "rs." },
		"reporter, upper":   func(e *audit.Entry) { e.Action = "rs.READ" },
		"reporter, no word": func(e *audit.Entry) { e.Action = "rs.a..b" },
		"no result":         func(e *audit.Entry) { e.Result = "" },
		"unknown result":    func(e *audit.Entry) { e.Result = "maybe" },
		"unknown evidence":  func(e *audit.Entry) { e.Evidence = "hearsay" },
		"negative time":     func(e *audit.Entry) { e.Observed = -1 },
		"big time":          func(e *audit.Entry) { e.Observed = 1 << 53 },
		"issued without id": func(e *audit.Entry) { e.Issued = []audit.Issued{{}} },
		"own detail":        func(e *audit.Entry) { e.Detail = map[string]any{"issued": 1}; e.Issued = nil },
		"no JSON":           func(e *audit.Entry) { e.Detail = map[string]any{"x": make(chan int)} },
		"too deep":          func(e *audit.Entry) { e.Detail = map[string]any{"x": []any{[]any{[]any{[]any{[]any{[]any{}}}}}}} },
		"too many parties":  func(e *audit.Entry) { e.Path = make([]string, 65) },
		"too big": func(e *audit.Entry) {
			e.Detail = map[string]any{}
			for i := range 40 {
				e.Detail[fmt.Sprint(i)] = strings.Repeat("x", 300)
			}
		},
	} {
		e := full()
		change(&e)
		if _, err := audit.NewDraft(testLog, e); !errors.Is(err, audit.ErrInvalid) || !errors.Is(err, audit.ErrAudit) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// An entry of any size is either refused or becomes a record of at most 8,192
// bytes, wherever it stands.
func TestRecordSize(t *testing.T) {
	for n := 6000; n < 8000; n += 7 {
		e := audit.Entry{ID: testID, Action: audit.Login, Result: audit.Allowed, Detail: map[string]any{}}
		for i := range n / 500 {
			e.Detail[fmt.Sprint("a", i)] = strings.Repeat("x", 480)
		}
		e.Detail["b"] = strings.Repeat("x", n%500)
		d, err := audit.NewDraft(testLog, e)
		if err != nil {
			continue
		}
		r := audit.NewSequencer(testLog, audit.Head{Size: 1<<53 - 1, Leaf: audit.FirstPrev(testLog)}, 1<<53-1).Next(d)
		if len(r.Bytes) > audit.MaxRecord {
			t.Fatalf("a record of %d bytes", len(r.Bytes))
		}
		if r.Size() < len(r.Bytes)-len(testLog) {
			t.Fatalf("Size says %d, it has %d bytes", r.Size(), len(r.Bytes))
		}
	}
}

// A verbose or hostile caller neither keeps a refusal out of the log nor moves
// the cursor of who reads it.
func TestCleaning(t *testing.T) {
	e := audit.Entry{ID: testID, Action: audit.TokenRefuse, Result: audit.Denied, Agent: strings.Repeat("ä", 5000),
		Resource: "a\x00b\x1b[2J\u202e\u2028\x7f\u0085" + string([]byte{0xff}), Reason: strings.Repeat("x", 10_000),
		Detail: map[string]any{"long": strings.Repeat("€", 3000), "list": make([]string, 5000), "map": map[string]string{"k\n": "v\r"}}}
	d, err := audit.NewDraft(testLog, e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := audit.ParseEntry(d.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if want := `a\u{0}b\u{1b}[2J\u{202e}\u{2028}\u{7f}\u{85}` + "\ufffd"; got.Resource != want {
		t.Errorf("resource %q, want %q", got.Resource, want)
	}
	if !strings.HasSuffix(got.Agent, "ä…") || len(got.Agent) > 512 || !strings.HasSuffix(got.Reason, "x…") {
		t.Errorf("agent of %d bytes, reason of %d", len(got.Agent), len(got.Reason))
	}
	if list := got.Detail["list"].([]any); len(list) != 100 || list[99] != "…" {
		t.Errorf("a list of %d", len(list))
	}
	if m := got.Detail["map"].(map[string]any); m[`k\u{a}`] != `v\u{d}` {
		t.Errorf("map %q", m)
	}
}

// Whatever an entry holds: what is read back is what was written, a second
// encoding gives the same bytes (the outbox and retries depend on it), and the
// record is its own canonical form.
func TestRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 40, 700)
	value := rapid.OneOf(rapid.Map(text, func(s string) any { return s }), rapid.Map(rapid.Int64Range(-1<<50, 1<<50), func(n int64) any { return n }),
		rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.SliceOfN(text, 0, 120), func(l []string) any { return l }),
		rapid.Map(rapid.MapOfN(text, text, 0, 5), func(m map[string]string) any { return m }))
	rapid.Check(t, func(t *rapid.T) {
		e := audit.Entry{ID: audit.NewID(), Action: audit.Verified, Result: audit.Failed,
			Agent: text.Draw(t, "agent"), Sub: text.Draw(t, "sub"), Resource: text.Draw(t, "resource"), Reason: text.Draw(t, "reason"),
			Grant: text.Draw(t, "grant"), By: text.Draw(t, "by"), Path: rapid.SliceOfN(text, 0, 4).Draw(t, "path"),
			Observed: rapid.Int64Range(0, 1<<53-1).Draw(t, "observed"),
			Detail:   rapid.MapOfN(rapid.StringMatching(`[a-hj-z]{1,9}`), value, 0, 4).Draw(t, "detail")}
		delete(e.Detail, "anc")
		d, err := audit.NewDraft(testLog, e)
		if err != nil {
			if !errors.Is(err, audit.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		first := string(d.Bytes())
		back, err := audit.ParseEntry(d.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		again, err := audit.NewDraft(testLog, back)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, string(again.Bytes())); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(d.Columns, again.Columns); diff != "" {
			t.Fatal(diff)
		}
		r := audit.NewSequencer(testLog, audit.Head{Size: 7, Leaf: audit.FirstPrev("x")}, 99).Next(d)
		canonical, err := jcs.Transform(r.Bytes)
		if err != nil || string(canonical) != string(r.Bytes) {
			t.Fatalf("not canonical: %v\n%s\n%s", err, r.Bytes, canonical)
		}
		stored, err := audit.ParseRecord(r.Bytes)
		if err != nil || stored.Seq != 7 || stored.Time != 99 || stored.Log != testLog || stored.Prev != audit.FirstPrev("x") {
			t.Fatalf("%+v, %v", stored, err)
		}
		if diff := cmp.Diff(back, stored.Entry); diff != "" {
			t.Fatal(diff)
		}
	})
}

// One path begins with another iff the columns do.
func TestPathColumn(t *testing.T) {
	party := rapid.SampledFrom([]string{"a", "b", "a,", `a"`, `","`, "", "ab"})
	paths := rapid.SliceOfN(party, 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		long, short := paths.Draw(t, "long"), paths.Draw(t, "short")
		begins := len(short) <= len(long)
		for i := range short {
			begins = begins && long[i] == short[i]
		}
		if got := strings.HasPrefix(audit.PathColumn(long), audit.PathColumn(short)); got != begins {
			t.Fatalf("%q begins with %q: %v", long, short, got)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	d, err := audit.NewDraft(testLog, full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(audit.NewSequencer(testLog, audit.Head{}, 1).Next(d).Bytes)
	f.Add([]byte(`{"seq":1,"time":1,"v":1,"detail":{"issued":[1],"anc":{}},"chain":[[]]}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		stored, err := audit.ParseRecord(record)
		if err != nil {
			return
		}
		// What could be read can be read again from what it says.
		if d, err := audit.NewDraft(testLog, stored.Entry); err == nil {
			if _, err := audit.ParseEntry(d.Bytes()); err != nil {
				t.Error(err)
			}
		}
	})
}
