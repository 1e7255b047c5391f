package delegation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// The worked example of docs/delegation-token.md. Its bytes are put together
// here with the standard library and literal JSON alone, and compared with what
// this package writes and what it makes of them:
//
//	KAVACH_UPDATE=1 go test ./delegation -run Worked
//
// writes them into the document anew.

const (
	workedDoc   = "../docs/delegation-token.md"
	workedBegin = "<!-- worked bytes: begin -->\n"
	workedEnd   = "<!-- worked bytes: end -->\n"

	workedNow   = 1767225600 // 2026-01-01T00:00:00Z
	workedGit   = "https://git.example"
	workedURI   = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"
	workedProof = `{"ath":"%s","htm":"GET","htu":"https://git.example/pull/847/diff","iat":1767225602,"jti":"proof-1"}`
)

// workedKey is a key whose private part is one byte 32 times.
type workedKey struct {
	name, alg, jwk, jkt string
	seed                byte
	sign                func(message string) []byte
	private             agent.PrivateKey
}

func newWorkedKey(t *testing.T, name string, seed byte, es256 bool) workedKey {
	t.Helper()
	raw := []byte(strings.Repeat(string([]byte{seed}), 32))
	k := workedKey{name: name, seed: seed, alg: "Ed25519"}
	var signer crypto.Signer
	if es256 {
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		signer, k.alg = key, "ES256"
		k.jwk = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, b64(point[1:33]), b64(point[33:]))
		k.sign = func(message string) []byte {
			digest := sha256.Sum256([]byte(message))
			der, err := key.Sign(nil, digest[:], crypto.SHA256) // RFC 6979: the same bytes every time
			if err != nil {
				t.Fatal(err)
			}
			var rs struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(der, &rs); err != nil {
				t.Fatal(err)
			}
			return append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
		}
	} else {
		key := ed25519.NewKeyFromSeed(raw)
		signer = key
		k.jwk = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64(key.Public().(ed25519.PublicKey)))
		k.sign = func(message string) []byte { return ed25519.Sign(key, []byte(message)) }
	}
	k.jkt = hash(k.jwk)
	var err error
	if k.private, err = agent.NewPrivateKey(signer); err != nil {
		t.Fatal(err)
	}
	return k
}

// workedJWT is a compact JWT in all its stages.
type workedJWT struct {
	header, payload, input, signature, lid, text string
}

func (k workedKey) jwt(header, payload string) workedJWT {
	j := workedJWT{header: header, payload: payload, input: b64([]byte(header)) + "." + b64([]byte(payload))}
	j.signature = b64(k.sign(j.input))
	j.lid, j.text = hash(j.input), j.input+"."+j.signature
	return j
}

// worked is everything in the example.
type worked struct {
	server, feedKey, orch, rev, lint workedKey
	root, link1, link2               workedJWT
	dpop, aat, feed                  workedJWT
	chain                            string
}

func newWorked(t *testing.T) worked {
	w := worked{
		server: newWorkedKey(t, "server, at-1", 1, false), orch: newWorkedKey(t, "orchestrator", 2, false),
		rev: newWorkedKey(t, "reviewer", 3, false), lint: newWorkedKey(t, "linter", 4, true),
		feedKey: newWorkedKey(t, "server, rv-1", 5, false),
	}
	cnf := func(k workedKey) string { return `{"jkt":"` + k.jkt + `","jwk":` + k.jwk + `}` }
	details := func(tools, limits string) string {
		return `[{"tools":` + tools + `,"type":"attenuating_agent_token"},` + limits + `]`
	}
	w.root = w.server.jwt(`{"alg":"Ed25519","kid":"at-1","typ":"at+jwt"}`,
		`{"aud":["https://git.example"],"authorization_details":`+details(
			`{"get_diff":{"lines":{"constraint_type":"range","max":500,"min":1,"optional":true},"pull":{"constraint_type":"one_of","values":[847,848]}}}`,
			`{"resources":["pull/*"],"type":"kavach_limits"}`)+
			`,"client_id":"orchestrator","cnf":`+cnf(w.orch)+
			`,"del_depth":0,"del_max_depth":2,"exp":1767225900,"gid":"grant-1","iat":1767225600,"iss":"https://auth.example"`+
			`,"jti":"019b76da-a800-7000-8000-000000000001","scope":"repository:read repository:write","sub":"alice"}`)
	w.link1 = w.orch.jwt(`{"alg":"Ed25519","typ":"aat+jwt"}`,
		`{"aud":["https://git.example"],"authorization_details":`+details(
			`{"get_diff":{"lines":{"constraint_type":"range","max":200,"min":1,"optional":true},"pull":{"constraint_type":"exact","value":847}}}`,
			`{"resources":["pull/847","pull/847/*"],"type":"kavach_limits"}`)+
			`,"client_id":"reviewer","cnf":`+cnf(w.rev)+
			`,"del_depth":1,"del_max_depth":2,"exp":1767225720,"iat":1767225600,"iss":"`+workedURI+w.orch.jkt+
			`","jti":"019b76da-a800-7000-8000-000000000002","par_hash":"`+w.root.lid+
			`","scope":"repository:read repository:write","sub":"alice"}`)
	w.link2 = w.rev.jwt(`{"alg":"Ed25519","typ":"aat+jwt"}`,
		`{"aud":["https://git.example"],"authorization_details":`+details(
			`{"get_diff":{"pull":{"constraint_type":"exact","value":847}}}`,
			`{"max_calls":3,"resources":["pull/847"],"type":"kavach_limits"}`)+
			`,"client_id":"linter","cnf":`+cnf(w.lint)+
			`,"del_depth":2,"del_max_depth":2,"exp":1767225660,"iat":1767225600,"iss":"`+workedURI+w.rev.jkt+
			`","jti":"019b76da-a800-7000-8000-000000000003","par_hash":"`+w.link1.lid+
			`","scope":"repository:read","sub":"alice"}`)
	w.chain = w.root.text + "~" + w.link1.text + "~" + w.link2.text
	w.dpop = w.lint.jwt(`{"alg":"ES256","jwk":`+w.lint.jwk+`,"typ":"dpop+jwt"}`, fmt.Sprintf(workedProof, hash(w.chain)))
	w.aat = w.lint.jwt(`{"alg":"ES256","typ":"aat-pop+jwt"}`,
		`{"aat_aud":"https://git.example","aat_hash":"`+w.link2.lid+`","aat_id":"019b76da-a800-7000-8000-000000000003"`+
			`,"aat_tool":"get_diff","hta":{"pull":847},"iat":1767225602,"jti":"proof-2"}`)
	w.feed = w.feedKey.jwt(`{"alg":"Ed25519","kid":"rv-1","typ":"kavach-revocations+jwt"}`,
		`{"exp":1767225661,"iat":1767225601,"iss":"https://auth.example","seq":7,"tok":["`+w.link1.lid+`"]}`)
	return w
}

func (w worked) verifier(t *testing.T) *delegation.Verifier {
	t.Helper()
	anchor, err := delegation.NewAnchor("at-1", w.server.private.Public().Crypto())
	if err != nil {
		t.Fatal(err)
	}
	return &delegation.Verifier{Issuer: "https://auth.example", Anchors: delegation.AnchorSet(anchor)}
}

// TestWorkedExample: the document holds the bytes that are made here.
func TestWorkedExample(t *testing.T) {
	w := newWorked(t)
	section := w.document(t)
	text, err := os.ReadFile(workedDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), workedBegin)
	held, after, ok2 := strings.Cut(rest, workedEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no worked bytes", workedDoc)
	}
	if held == section {
		return
	}
	if os.Getenv("KAVACH_UPDATE") == "" {
		t.Fatalf("%s holds other bytes than this test makes; write them with KAVACH_UPDATE=1 go test ./delegation -run Worked", workedDoc)
	}
	if err := os.WriteFile(workedDoc, []byte(before+workedBegin+section+workedEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWorkedIsWhatThePackageWrites: Sign, Derive and the makers of proofs write
// the same bytes; of a derived link all but its random jti, of a P-256 signature
// all but its random nonce.
func TestWorkedIsWhatThePackageWrites(t *testing.T) {
	w, at := newWorked(t), time.Unix(workedNow, 0)
	for _, j := range []workedJWT{w.root, w.link1, w.link2, w.dpop, w.aat, w.feed} {
		for _, text := range []string{j.header, j.payload} {
			if canonical, err := jcs.Transform([]byte(text)); err != nil || string(canonical) != text {
				t.Errorf("not canonical: %s\n%s %v", text, canonical, err)
			}
		}
	}
	lines := func(most float64) delegation.Constraint {
		least := 1.0
		return delegation.Range(delegation.Bounds{Min: &least, Max: &most}).Optional()
	}
	rootTools := delegation.Tools{"get_diff": delegation.Args(map[string]delegation.Constraint{
		"lines": lines(500), "pull": delegation.OneOfValues(847, 848)})}
	signed, err := delegation.Sign(delegation.Claims{
		Root: true, MaxDepth: 2, Issuer: "https://auth.example", Subject: "alice", ClientID: "orchestrator", Audience: []string{workedGit},
		IssuedAt: at, Expires: at.Add(300 * time.Second), JTI: "019b76da-a800-7000-8000-000000000001", GrantID: "grant-1",
		Scopes: []string{"repository:read", "repository:write"}, Key: w.orch.private.Public(), Tools: rootTools,
		Limits: delegation.Limits{Resources: []string{"pull/*"}},
	}, delegation.ServerKey{KID: "at-1", Signer: ed25519.NewKeyFromSeed([]byte(strings.Repeat("\x01", 32)))})
	if err != nil || signed.Token != w.root.text || signed.LID != w.root.lid {
		t.Errorf("the root is another one: %v\n%s\n%s", err, signed.Token, w.root.text)
	}
	three := int64(3)
	seal := 0
	for _, step := range []struct {
		parent string
		by, to workedKey
		narrow delegation.Narrow
		want   workedJWT
	}{
		{w.root.text, w.orch, w.rev, delegation.Narrow{
			ClientID: "reviewer", Scopes: []string{"repository:read", "repository:write"},
			Tools: delegation.Tools{"get_diff": delegation.Args(map[string]delegation.Constraint{
				"lines": lines(200), "pull": delegation.Exact(847)})},
			Limits: delegation.Limits{Resources: []string{"pull/847", "pull/847/*"}},
		}, w.link1},
		{w.root.text + "~" + w.link1.text, w.rev, w.lint, delegation.Narrow{
			ClientID: "linter", Scopes: []string{"repository:read"}, TTL: time.Minute, MaxDepth: &seal,
			Tools:  delegation.Tools{"get_diff": delegation.Args(map[string]delegation.Constraint{"pull": delegation.Exact(847)})},
			Limits: delegation.Limits{Resources: []string{"pull/847"}, MaxCalls: &three},
		}, w.link2},
	} {
		derived, err := delegation.Derive(step.parent, step.by.private, step.to.private.Public(), step.narrow, at)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := delegation.Split(derived.Chain)
		if err != nil {
			t.Fatal(err)
		}
		last := parts[len(parts)-1]
		_, jti, _ := strings.Cut(step.want.payload, `"jti":"`)
		if got := strings.Replace(last[1], derived.JTI, jti[:36], 1); last[0] != step.want.header || got != step.want.payload {
			t.Errorf("Derive writes\n%s\n%s\nnot\n%s", last[0], got, step.want.payload)
		}
	}
	dpop, err := agent.SignProof(w.lint.private, agent.Proof{
		Method: "GET", URL: "https://git.example/pull/847/diff?format=raw", Token: w.chain, JTI: "proof-1", IssuedAt: at.Add(2 * time.Second)})
	if err != nil || !strings.HasPrefix(dpop, w.dpop.input+".") {
		t.Errorf("SignProof writes another proof: %v\n%s", err, dpop)
	}
	arguments, _ := jcs.Of(map[string]any{"pull": 847})
	aat, err := agent.SignAATProof(w.lint.private, agent.AATProof{
		LID: w.link2.lid, LeafJTI: "019b76da-a800-7000-8000-000000000003", Tool: "get_diff", Arguments: arguments,
		Audience: workedGit, JTI: "proof-2", IssuedAt: at.Add(2 * time.Second)})
	if err != nil || !strings.HasPrefix(aat, w.aat.input+".") {
		t.Errorf("SignAATProof writes another proof: %v\n%s", err, aat)
	}
	feed, err := delegation.SignFeed(delegation.FeedClaims{
		Issuer: "https://auth.example", Seq: 7, IssuedAt: at.Add(time.Second), Links: []string{w.link1.lid},
	}, "rv-1", ed25519.NewKeyFromSeed([]byte(strings.Repeat("\x05", 32))))
	if err != nil || feed != w.feed.text {
		t.Errorf("SignFeed writes another feed: %v\n%s", err, feed)
	}
}

// TestWorkedIsAccepted: the chain, both proofs and the feed hold.
func TestWorkedIsAccepted(t *testing.T) {
	w, at := newWorked(t), time.Unix(workedNow+2, 0)
	chain, err := w.verifier(t).Verify(w.chain, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.For(workedGit); err != nil {
		t.Error(err)
	}
	if got := strings.Join(chain.Path(), " "); got != "alice orchestrator reviewer linter" {
		t.Errorf("path: %s", got)
	}
	dpop, err := agent.VerifyProof(w.dpop.text, agent.ProofCheck{
		Method: "GET", URL: "https://git.example/pull/847/diff?format=raw", Token: w.chain, JKT: chain.JKT(), Now: at})
	if err != nil || dpop.ReplayKey() != hash(w.lint.jkt+"proof-1") {
		t.Errorf("the DPoP proof: %v, replay key %s", err, dpop.ReplayKey())
	}
	arguments, _ := jcs.Parse([]byte(`{"pull":847.0}`), jcs.Limits{})
	aat, err := agent.VerifyAATProof(w.aat.text, agent.AATCheck{
		Key: chain.Key(), LID: chain.LID(), LeafJTI: chain.JTI(), Audience: workedGit, Tool: "get_diff", Arguments: arguments, Now: at})
	if err != nil || aat.ReplayKey() != hash(w.lint.jkt+"proof-2") {
		t.Errorf("the AAT proof: %v, replay key %s", err, aat.ReplayKey())
	}
	keys := func(kid string) (crypto.PublicKey, bool) { return w.feedKey.private.Public().Crypto(), kid == "rv-1" }
	feed, err := delegation.VerifyFeed(w.feed.text, "https://auth.example", keys, at)
	if err != nil || !feed.Fresh(at) || !feed.Revokes(chain) {
		t.Errorf("the feed: %v", err)
	}
	if budgets := chain.Budgets(); len(budgets) != 1 || budgets[0].LID != w.link2.lid || budgets[0].Grant != "grant-1" || budgets[0].Limit != 3 {
		t.Errorf("budgets: %+v", budgets)
	}
}
