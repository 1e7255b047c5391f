package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

func TestReportWithProof(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	c := d.chain(git)
	e := d.proved(c, "detail", map[string]any{"status": 200, "method": "GET"})
	r := d.post(token, e)
	if ids, _ := r.json.Get("ids").Strings(); r.status != 201 || !slices.Equal(ids, []string{e["id"].(string)}) {
		t.Fatalf("%d %s", r.status, r.body)
	}
	got := d.record(e)
	if got.By != gitHost || got.Evidence != audit.EvidenceProof || got.Sub != "usr_alice" || got.Grant != "grant-1" ||
		!slices.Equal(got.Path, []string{"usr_alice", "orchestrator", "code-reviewer"}) || got.Agent != "orchestrator" ||
		len(got.Chain) != 2 || got.Chain[1].JKT != c.key.Public().Thumbprint() || got.Result != "allowed" || got.Detail["status"] != int64(200) {
		t.Errorf("%+v", got)
	}
	// "chain and proof are used and dropped": neither is anywhere in the log.
	for _, stored := range d.records("rs.access") {
		for _, secret := range append(strings.FieldsFunc(c.text, func(r rune) bool { return r == '~' || r == '.' }), e["proof"].(string)) {
			if strings.Contains(string(stored.Bytes), secret) {
				t.Errorf("a record holds %.20s…", secret)
			}
		}
	}
	// Seen by whom it is about: the holder of the leaf key, and nobody else.
	sees := func(s audit.Sight) bool {
		_, err := d.reader.Entry(context.Background(), s, e["id"].(string))
		if err != nil && !errors.Is(err, audit.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !sees(audit.Sight{Key: c.key.Public().Thumbprint()}) || sees(audit.Sight{Key: d.secret().Public().Thumbprint()}) || sees(audit.Sight{}) {
		t.Error("the subtree sees what it should not, or does not see what it should")
	}
	asserted := d.proved(c, "proof", nil, "method", nil, "url", nil)
	if r := d.post(token, asserted); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	e = asserted
	if sees(audit.Sight{Key: c.key.Public().Thumbprint()}) || sees(audit.Sight{Grant: "grant-1", Path: []string{"usr_alice"}}) || !sees(audit.Sight{All: true}) {
		t.Error("what is only asserted is shown to the subtree")
	}
}

// What makes an entry evidence, one thing wrong at a time.
func TestReportEvidence(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	url := git + "/pulls/847"
	other := d.chain(git)
	for _, c := range []struct {
		name     string
		change   func(c credential, e map[string]any)
		evidence string
		unproved any
		agent    string
		chain    int
	}{
		{"as it is", func(credential, map[string]any) {}, "proof", nil, "orchestrator", 2},
		{"a query in the URL", func(_ credential, e map[string]any) { e["url"] = url + "?token=x" }, "proof", nil, "orchestrator", 2},
		{"refused for its scope", func(_ credential, e map[string]any) { e["result"], e["reason"] = "denied", "scope_not_granted" }, "proof", nil, "orchestrator", 2},
		{"no proof", func(_ credential, e map[string]any) { delete(e, "proof"); delete(e, "method"); delete(e, "url") }, "asserted", "no_proof", "", 2},
		{"another method", func(_ credential, e map[string]any) { e["method"] = "POST" }, "asserted", "holder_binding_failed", "", 2},
		{"another URL", func(_ credential, e map[string]any) { e["url"] = url + "/merge" }, "asserted", "holder_binding_failed", "", 2},
		{"another chain's proof", func(_ credential, e map[string]any) { e["proof"] = d.proof(other, "GET", url) }, "asserted", "holder_binding_failed", "", 2},
		{"a proof over another chain", func(c credential, e map[string]any) {
			e["proof"] = d.proof(credential{other.text, c.key}, "GET", url)
		}, "asserted", "holder_binding_failed", "", 2},
		{"a proof made long before", func(_ credential, e map[string]any) { e["observed"] = d.clock().Add(31 * time.Second).UnixMilli() }, "asserted", "not_yet_valid", "", 2},
		{"a proof for another server", func(c credential, e map[string]any) {
			e["url"] = wiki + "/page"
			e["proof"] = d.proof(c, "GET", wiki+"/page")
		}, "asserted", "audience_mismatch", "", 2},
		{"a changed chain", func(c credential, e map[string]any) {
			e["credential"] = c.text[:len(c.text)-8] + "AAAAAAAA"
		}, "asserted", "signature_invalid", "", 1},
		{"no chain", func(_ credential, e map[string]any) { e["credential"] = "x" }, "asserted", "malformed", "", 0},
		{"a lid", func(_ credential, e map[string]any) {
			for _, name := range []string{"credential", "proof", "method", "url"} {
				delete(e, name)
			}
			e["lid"] = strings.Repeat("A", 43)
		}, "asserted", nil, "", 1},
	} {
		chain := d.chain(git)
		e := d.proved(chain)
		c.change(chain, e)
		if r := d.post(token, e); r.status != 201 {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
			continue
		}
		got := d.record(e)
		if got.Evidence != c.evidence || got.Detail["unproved"] != c.unproved || got.Agent != c.agent || len(got.Chain) != c.chain {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.chain == 1 && (got.Sub != "" || got.Chain[0].ClientID != "") {
			t.Errorf("%s: read from a token that nobody verified: %+v", c.name, got)
		}
	}
}

func TestReportAudience(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	foreign := d.chain(wiki) // genuine, but not for the git host
	for name, c := range map[string]struct {
		pairs    []any
		evidence string
	}{
		"allowed":                     {nil, "asserted"},
		"refused for another reason":  {[]any{"result", "denied", "reason", "scope_not_granted"}, "asserted"},
		"refused for being elsewhere": {[]any{"result", "denied", "reason", "audience_mismatch"}, "proof"},
	} {
		e := d.proved(foreign, c.pairs...)
		if r := d.post(token, e); r.status != 201 || d.record(e).Evidence != c.evidence {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	// A bearer token proves nothing about who sent it, but it was verified.
	bearer := credential{d.sign(func(*delegation.Claims) {}), d.secret()}
	e := d.proved(bearer)
	if r := d.post(token, e); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := d.record(e); got.Evidence != "asserted" || got.Detail["unproved"] != "unbound" || got.Agent != "orchestrator" || got.Grant != "grant-1" {
		t.Errorf("%+v", got)
	}
	// An agent reports what it refused itself below its own id, with its own
	// token, whatever the place.
	own := d.reporter("code-reviewer", "audit:write")
	evil := "https://evil.example/steal"
	c := d.chain(git)
	e = d.said("resource", "code-reviewer/evil.example:443", "result", "denied", "reason", "constraint_violated", "action", "rs.connect",
		"detail", map[string]any{"dimension": "allow_network"}, "credential", c.text, "proof", d.proof(c, "GET", evil), "method", "GET", "url", evil)
	if r := d.post(own, e); r.status != 201 || d.record(e).Evidence != "proof" {
		t.Errorf("%d %s", r.status, r.body)
	}
	stranger := d.sign(func(cl *delegation.Claims) { cl.JKT = c.key.Public().Thumbprint() })
	c.text = stranger // issued to the orchestrator, not to the reviewer
	e = d.said("resource", "code-reviewer", "credential", c.text, "proof", d.proof(c, "GET", evil), "method", "GET", "url", evil)
	if r := d.post(own, e); r.status != 201 || d.record(e).Evidence != "asserted" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, resource := range []string{
		wiki, wiki + "/x", git + "/vault", git + "/vault/secret", git + ".evil/x", "https://git.internalx", issuer + "/mcp", "wiki-host", "git-hostx", "x",
	} {
		ok, e := d.said(), d.said("resource", resource)
		r := d.post(token, ok, e)
		if r.status != 403 || r.json.Get("error").Str() != "access_denied" {
			t.Errorf("%s: %d %s", resource, r.status, r.body)
		}
		if index, there := r.json.Get("index").Int(); index != 1 || !there {
			t.Errorf("%s: %s", resource, r.body)
		}
		if _, err := d.reader.Entry(context.Background(), audit.Sight{All: true}, ok["id"].(string)); err == nil {
			t.Errorf("%s: part of the batch was written", resource)
		}
	}
	if got := d.records(audit.AuditRefuse); len(got) != 10 || got[0].Entry.Agent != gitHost || got[0].Entry.Reason != "access_denied" {
		t.Errorf("%d refusals are recorded", len(got))
	}
}

// A proof shows one request: one event of one reporter is evidence, and whatever
// else comes with the same proof is only asserted.
func TestReportProofOnce(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	c := d.chain(git)
	first := d.proved(c, "detail", map[string]any{"phase": "before"})
	again := func(pairs ...any) map[string]any {
		e := map[string]any{}
		for name, value := range first {
			e[name] = value
		}
		e["id"] = delegation.NewJTI(d.clock())
		delete(e, "detail")
		for i := 0; i < len(pairs); i += 2 {
			e[pairs[i].(string)] = pairs[i+1]
		}
		return e
	}
	evidence := func(e map[string]any) string {
		t.Helper()
		if r := d.post(token, e); r.status != 201 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return d.record(e).Evidence
	}
	// What belongs to the event may come before it, also in one batch.
	after := again("detail", map[string]any{"of": first["id"], "phase": "after", "status": 201},
		"observed", d.clock().Add(20*time.Minute).UnixMilli(), "requested", first["observed"])
	if r := d.post(token, after, first); r.status != 201 || d.record(first).Evidence != "proof" || d.record(after).Evidence != "proof" {
		t.Fatalf("%d %s: %+v", r.status, r.body, d.record(after))
	}
	if e := again(); evidence(e) != "asserted" || d.record(e).Detail["unproved"] != "replayed" || d.record(e).Agent != "" {
		t.Errorf("another event with a used proof: %+v", d.record(e))
	}
	if e := again("detail", map[string]any{"of": delegation.NewJTI(d.clock())}); evidence(e) != "asserted" {
		t.Error("an event of one's own making makes a used proof new")
	}
	if e := again("detail", map[string]any{"of": first["id"], "status": 500}, "result", "failed", "reason", "server_error"); evidence(e) != "proof" {
		t.Error("what belongs to the event is evidence")
	}
	// Retries are the first answer, an hour later too, when the proof could no
	// longer be judged; and a proof that old proves nothing new.
	d.advance(90 * time.Minute)
	token = d.reporter(gitHost, "audit:write")
	if r := d.post(token, first); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if e := again(); evidence(e) != "asserted" || d.record(e).Detail["unproved"] != "outdated" {
		t.Errorf("%+v", d.record(e))
	}
	// Many at once: one event.
	c = d.chain(git)
	first = d.proved(c)
	const n = 20
	entries := make([]map[string]any, n)
	var all sync.WaitGroup
	for i := range entries {
		entries[i] = again()
		all.Go(func() { d.post(token, entries[i]) })
	}
	all.Wait()
	proved := 0
	for _, e := range entries {
		if d.record(e).Evidence == "proof" {
			proved++
		}
	}
	if proved != 1 {
		t.Errorf("%d of %d events have the evidence of one proof", proved, n)
	}
}

func TestReportExpired(t *testing.T) {
	d := newDesk(t)
	c := d.chain(git)
	d.advance(3 * time.Minute) // the link lived for two
	token := d.reporter(gitHost, "audit:write")
	late := d.proved(c, "result", "denied", "reason", "expired")
	if r := d.post(token, late); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := d.record(late); got.Evidence != "proof" || len(got.Chain) != 2 || got.Result != "denied" {
		t.Errorf("a call after expiry is not shown with its chain: %+v", got)
	}
	allowed := d.proved(c)
	if r := d.post(token, allowed); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := d.record(allowed); got.Evidence != "asserted" || got.Detail["unproved"] != "expired" || got.Sub != "" {
		t.Errorf("an expired chain was allowed something, with evidence: %+v", got)
	}
	d.advance(2 * time.Hour)
	old := d.proved(c, "result", "denied", "reason", "expired")
	if r := d.post(d.reporter(gitHost, "audit:write"), old); r.status != 201 || d.record(old).Evidence != "asserted" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestReportIdempotency(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	c := d.chain(git)
	e := d.proved(c, "detail", map[string]any{"status": 200})
	plain := d.said()
	for range 3 {
		if r := d.post(token, e, plain); r.status != 201 || len(r.json.Get("ids").Elements()) != 2 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if n := len(d.records("rs.access")); n != 2 {
		t.Fatalf("%d records of two entries", n)
	}
	// What a disk must not hold is left out of a repetition: still the same.
	stripped := map[string]any{}
	for name, value := range e {
		stripped[name] = value
	}
	parts, err := delegation.Inspect(c.text)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"credential", "proof", "method", "url"} {
		delete(stripped, name)
	}
	stripped["lid"] = parts[1].LID
	if r := d.post(token, stripped); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
	for name, value := range map[string]any{
		"action": "rs.merge", "resource": git + "/pulls/848", "result": "failed", "observed": d.clock().UnixMilli() - 1,
		"detail": map[string]any{"status": 201}, "lid": strings.Repeat("A", 43),
	} {
		other, fresh := map[string]any{}, d.said()
		for name, value := range stripped {
			other[name] = value
		}
		other[name] = value
		r := d.post(token, fresh, other)
		if index, _ := r.json.Get("index").Int(); r.status != 409 || r.json.Get("error").Str() != "id_conflict" || index != 1 {
			t.Errorf("another %s: %d %s", name, r.status, r.body)
		}
		if _, err := d.reader.Entry(context.Background(), audit.Sight{All: true}, fresh["id"].(string)); err == nil {
			t.Errorf("another %s: part of the batch was written", name)
		}
	}
	if got := d.records(audit.AuditRefuse); len(got) != 6 || got[0].Entry.Reason != "id_conflict" {
		t.Errorf("%d conflicts are recorded", len(got))
	}
	// The id is the reporter's own: another one may use the same.
	same := map[string]any{}
	for name, value := range plain {
		same[name] = value
	}
	same["resource"] = wiki
	if r := d.post(d.reporter("wiki-host", "audit:write"), same); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestReportWaitsForTheLog(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	e := d.proved(d.chain(git))
	d.down = true
	if r := d.post(token, e); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	d.down = false
	if r := d.post(token, e); r.status != 201 || d.record(e).Evidence != "proof" {
		t.Errorf("%d %s", r.status, r.body)
	}
	var batch []map[string]any
	for i := range 500 {
		batch = append(batch, d.said("resource", fmt.Sprintf("%s/pulls/%d", git, i)))
	}
	if r := d.post(token, batch...); r.status != 201 || len(r.json.Get("ids").Elements()) != 500 {
		t.Fatalf("%d %.200s", r.status, r.body)
	}
	if n := len(d.records("rs.access")); n != 500 { // a page
		t.Errorf("%d records", n)
	}
	if r := d.post(token, append(batch, d.said())...); r.status != 400 {
		t.Errorf("501 entries: %d %s", r.status, r.body)
	}
}
