package delegation_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// document writes the generated part of docs/delegation-token.md. Every verdict
// in it is asked for while it is written.
func (w worked) document(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("\n### Keys\n")
	say("The private part of each key is one byte, 32 times: the seed of Ed25519 (RFC 8032), the number d of P-256. The thumbprint is base64url SHA-256 of the JWK as it stands here.\n")
	for _, k := range []workedKey{w.server, w.orch, w.rev, w.lint, w.feedKey} {
		say("%s: 32 × `%02x`, %s\n\n```\n%s\nthumbprint  %s\n```\n", k.name, k.seed, k.alg, k.jwk, k.jkt)
	}
	for _, part := range []struct {
		title, says string
		jwt         workedJWT
	}{
		{"Root", "Signed by the server for `orchestrator`: diffs of two pull requests, at most 500 lines, two more links.", w.root},
		{"Link 1", "Signed by `orchestrator` for `reviewer`: one pull request, 200 lines. `par_hash` is the lid of the root, `iss` the thumbprint URI of the key in its `cnf`.", w.link1},
		{"Link 2", "Signed by `reviewer` for `linter`, sealed (`del_max_depth` = `del_depth`): reading only, `lines` left out, which its parent lets it because it is optional there, and three calls.", w.link2},
	} {
		say("### %s\n\n%s\n", part.title, part.says)
		part.jwt.write(say, "lid")
	}
	say("The credential is `root~link1~link2`: the three tokens joined, %d bytes; base64url SHA-256 of it (`ath`) is `%s`.\n", len(w.chain), hash(w.chain))

	say("### DPoP proof\n\nBy `linter`, for `GET https://git.example/pull/847/diff?format=raw`. The signature is that of RFC 6979; others hold as well. What is remembered of it is `%s`.\n", hash(w.lint.jkt+"proof-1"))
	w.dpop.write(say, "")
	say("### AAT proof\n\nBy `linter`, for a call of `get_diff` with `{\"pull\":847}`. What is remembered of it is `%s`.\n", hash(w.lint.jkt+"proof-2"))
	w.aat.write(say, "")
	say("### Feed\n\nAfter link 1 was revoked. The chain above is `revoked` for who holds it.\n")
	w.feed.write(say, "")
	w.writeRequests(t, say)
	w.writeRefusals(t, say)
	return b.String()
}

func (j workedJWT) write(say func(string, ...any), id string) {
	say("```\nheader     %s\npayload    %s\nsigned     %s\nsignature  %s", j.header, j.payload, j.input, j.signature)
	if id != "" {
		say("%-10s %s", id, j.lid)
	}
	say("```\n")
}

// writeRequests asks the chain for what the document says it answers.
func (w worked) writeRequests(t *testing.T, say func(string, ...any)) {
	t.Helper()
	chain, err := w.verifier(t).Verify(w.chain, time.Unix(workedNow+2, 0))
	if err != nil {
		t.Fatal(err)
	}
	say("### Requests\n\nStep 16 for this chain; network and size are *none* in all of them. `link` counts from 0, the root.\n")
	say("| scope | `get_diff` with | resource | verdict |\n|---|---|---|---|")
	for _, q := range []struct{ scope, arguments, resource, want string }{
		{"repository:read", `{"pull":847}`, "pull/847", "permit"},
		{"repository:read", `{"pull":8.47e2}`, "pull/847", "permit"},
		{"repository:write", `{"pull":847}`, "pull/847", "scope_not_granted (scope), link 2"},
		{"repository:read", `{"pull":848}`, "pull/847", "constraint_violated (tools), link 1"},
		{"repository:read", `{"pull":"847"}`, "pull/847", "constraint_violated (tools), link 0"},
		{"repository:read", `{"lines":10,"pull":847}`, "pull/847", "constraint_violated (tools), link 2"},
		{"repository:read", `{}`, "pull/847", "constraint_violated (tools), link 0"},
		{"repository:read", `{"pull":847}`, "pull/847/files", "constraint_violated (resources), link 2"},
		{"repository:read", `{"pull":847}`, "", "constraint_violated (resources)"},
	} {
		arguments, err := jcs.Parse([]byte(q.arguments), jcs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r := delegation.Request{
			Scope: delegation.AllOf(q.scope), Tool: delegation.Given(delegation.Call{Name: "get_diff", Arguments: arguments}),
			Resource: delegation.Given(q.resource), Network: delegation.None[string](), Size: delegation.None[int64](),
		}
		resource := "`" + q.resource + "`"
		if q.resource == "" {
			r.Resource, resource = delegation.Dimension[string]{}, "unset"
		}
		if got := verdictText(chain.AllowsBudgeted(r)); got != q.want {
			t.Errorf("%+v: %s", q, got)
		}
		say("| `%s` | `%s` | %s | %s |", q.scope, q.arguments, resource, q.want)
	}
	say("")
}

// writeRefusals signs link 2 with something changed and asks the verifier. One
// of them is written out.
func (w worked) writeRefusals(t *testing.T, say func(string, ...any)) {
	t.Helper()
	const wide = `"lines":{"constraint_type":"range","max":800,"min":1,"optional":true},`
	parent := w.root.text + "~" + w.link1.text + "~"
	ask := func(j workedJWT) string {
		_, err := w.verifier(t).Verify(parent+j.text, time.Unix(workedNow+2, 0))
		return verdictText(err)
	}
	changed := func(old, with string) workedJWT {
		payload := strings.Replace(w.link2.payload, old, with, 1)
		if payload == w.link2.payload {
			t.Fatalf("link 2 has no %s", old)
		}
		return w.rev.jwt(w.link2.header, payload)
	}
	const range800 = "not_narrower (tools), link 2"
	example := changed(`{"get_diff":{`, `{"get_diff":{`+wide)
	if got := ask(example); got != range800 {
		t.Errorf("a wider range: %s", got)
	}
	say("### A narrowing that is refused\n\nLink 2 once more, by the right key, with `lines` up to 800 where link 1 allows 200. `range` under `range` must be at least as tight on each side (4p4), so `root~link1~` and this token is **%s**, before anybody calls anything:\n", range800)
	example.write(say, "")
	say("Other changes to link 2, each signed anew by `reviewer` unless it says otherwise:\n\n| change | verdict |\n|---|---|")
	row := func(what, want string, j workedJWT) {
		t.Helper()
		if got := ask(j); got != want {
			t.Errorf("%s: %s, not %s", what, got, want)
		}
		say("| %s | %s |", what, want)
	}
	row("one more scope: `repository:admin repository:read`", "not_narrower (scope), link 2",
		changed(`"scope":"repository:read"`, `"scope":"repository:admin repository:read"`))
	row("`pull` may be left out (`\"optional\":true`)", "not_narrower (tools), link 2",
		changed(`"value":847}`, `"optional":true,"value":847}`))
	row("`pull` is `any` of `exact` 847: sound, and not in the table", "not_narrower (tools), link 2",
		changed(`{"constraint_type":"exact","value":847}`, `{"constraint_type":"any","constraints":[{"constraint_type":"exact","value":847}]}`))
	row("`get_diff` with `{}`: any arguments", "not_narrower (tools), link 2",
		changed(`{"pull":{"constraint_type":"exact","value":847}}`, `{}`))
	row("`resources` left out", "not_narrower (resources), link 2", changed(`"resources":["pull/847"],`, ``))
	row("`kavach_limits` left out", "not_narrower, link 2",
		changed(`,{"max_calls":3,"resources":["pull/847"],"type":"kavach_limits"}`, ``))
	row("`constraint_type` `regex`", "unknown_constraint (tools), link 2", changed(`"exact","value":847`, `"regex","value":847`))
	row("`exp` one second after that of link 1", "outlives_parent, link 2", changed(`"exp":1767225660`, `"exp":1767225721`))
	row("`sub` `bob`", "principal_altered, link 2", changed(`"sub":"alice"`, `"sub":"bob"`))
	row("`aud` with `https://mail.example`", "audience_widened, link 2", changed(`["https://git.example"]`, `["https://git.example","https://mail.example"]`))
	row("`del_max_depth` 3", "depth_invalid, link 2", changed(`"del_max_depth":2`, `"del_max_depth":3`))
	row("`par_hash` of the root", "par_hash_mismatch, link 2", changed(w.link1.lid, w.root.lid))
	row("the `jti` of link 1", "duplicate_jti, link 2", changed(`000000000003`, `000000000002`))
	row("the `cnf` of link 1", "key_reuse, link 2",
		changed(`{"jkt":"`+w.lint.jkt+`","jwk":`+w.lint.jwk+`}`, `{"jkt":"`+w.rev.jkt+`","jwk":`+w.rev.jwk+`}`))
	row("`exp` as `1767225660.0`", "malformed, link 2", changed(`"exp":1767225660`, `"exp":1767225660.0`))
	row("`scope` twice", "malformed, link 2", changed(`"scope":"repository:read"`, `"scope":"repository:read","scope":"repository:read"`))
	row("`typ` `at+jwt`", "bad_typ, link 2", w.rev.jwt(`{"alg":"Ed25519","typ":"at+jwt"}`, w.link2.payload))
	row("`alg` `EdDSA`", "alg_not_allowed, link 2", w.rev.jwt(`{"alg":"EdDSA","typ":"aat+jwt"}`, w.link2.payload))
	row("signed by `orchestrator`", "signature_invalid, link 2", w.orch.jwt(w.link2.header, w.link2.payload))
	row("the unchanged token, padded with `=`", "malformed", workedJWT{text: w.link2.text + "="})
	say("")
}

func verdictText(err error) string {
	var r *delegation.Refusal
	if !errors.As(err, &r) {
		return "permit"
	}
	text := string(r.Reason)
	if r.Dimension != "" {
		text += " (" + r.Dimension + ")"
	}
	if r.Part >= 0 {
		text += fmt.Sprintf(", link %d", r.Part)
	}
	return text
}

// TestDocumentKnowsTheNumbers: the sizes, times and names of the code stand in
// the document.
func TestDocumentKnowsTheNumbers(t *testing.T) {
	text, err := os.ReadFile(workedDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	seconds := func(d time.Duration) int { return int(d / time.Second) }
	for what, number := range map[string]int{
		"tokens in a chain": delegation.MaxLinks, "bytes of one token": delegation.MaxToken,
		"bytes of a chain in a header": delegation.MaxChainHeader, "bytes of a chain in a body": delegation.MaxChainBody,
		"resources in the `aud` of a root": delegation.MaxAudience, "strings in `anc`": delegation.MaxAncestry,
		"tools in a token": delegation.MaxTools, "nesting of JSON": jcs.MaxDepth, "bytes of an AAT proof": agent.MaxAATProof,
		"s that `iat` and `nbf` may lie ahead":            seconds(delegation.IatSkew),
		"s that the `iat` of a proof may lie off":         seconds(agent.ProofWindow),
		"s, the longest life of a root":                   seconds(delegation.MaxRootTTL),
		"s, the longest life that a deriver gives a link": seconds(delegation.MaxLinkTTL),
		"s, the life of a feed":                           seconds(delegation.FeedLife), "bytes of a feed": delegation.MaxFeed,
	} {
		if row := fmt.Sprintf("| %s | %d |", what, number); !strings.Contains(doc, row) {
			t.Errorf("%s has no row %s", workedDoc, row)
		}
	}
	for _, name := range []string{
		delegation.Revision, delegation.TypeFeed, delegation.MetaKey, delegation.AATProofHeader, delegation.MessageMethod,
		agent.ProofType, agent.AATProofType,
	} {
		if !strings.Contains(doc, "`"+name) && !strings.Contains(doc, name+"`") {
			t.Errorf("%s does not name %s", workedDoc, name)
		}
	}
	source, err := os.ReadFile("refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Reason = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(doc, "`"+m[1]+"`") {
			t.Errorf("%s does not name the reason %s", workedDoc, m[1])
		}
	}
}

// TestDocumentListsWeakKeys: every key in the list of the document is refused.
func TestDocumentListsWeakKeys(t *testing.T) {
	text, err := os.ReadFile(workedDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "### Keys that are refused")
	weak := regexp.MustCompile(`(?m)^[0-9a-f]{64}$`).FindAllString(list, -1)
	if len(weak) != 8 {
		t.Errorf("%d keys of small order", len(weak))
	}
	for _, x := range weak {
		raw, err := hex.DecodeString(x)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agent.NewPublicKey(ed25519.PublicKey(raw)); err == nil {
			t.Errorf("%s is taken", x)
		}
	}
}
