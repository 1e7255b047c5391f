package delegation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// The steps for which no vector is published (aat02.md, "No published vector,
// so write your own"), each at both sides where it has an edge.

// A change of one token, by its index, and the step that it ends at.
type strictEdit struct {
	name  string
	token int
	edit  func(*aatToken)
	step  string
}

func (e strictEdit) run(t *testing.T, links int) {
	t.Helper()
	c := newAAT(t, links)
	c.edit[e.token] = e.edit
	if got := c.verify(); got != e.step {
		t.Errorf("%s: step %q, not %q", e.name, got, e.step)
	}
}

func TestStrictPermits(t *testing.T) {
	for links := range 9 {
		c := newAAT(t, links)
		for i := range c.holders {
			c.edit[i] = setClaim("del_max_depth", 8)
		}
		if step := c.verify(); step != "" {
			t.Errorf("%d links: step %s", links, step)
		}
	}
	if _, err := new(delegation.AATStrict).Verify(newAAT(t, 0).build(), time.Unix(aatNow, 0)); err == nil {
		t.Error("the zero verifier permits")
	}
}

func TestStrictSizes(t *testing.T) {
	c := newAAT(t, 1)
	p := c.build()
	longest, total := max(len(p.Chain[0]), len(p.Chain[1])), len(p.Chain[0])+len(p.Chain[1])
	for _, limit := range []struct {
		token, chain int
		step         string
	}{{longest, total, ""}, {longest - 1, total, "2a"}, {longest, total - 1, "2b"}} {
		c.verifier.MaxToken, c.verifier.MaxChain = limit.token, limit.chain
		_, err := c.verifier.Verify(p, time.Unix(aatNow, 0))
		if got := stepOf(err); got != limit.step {
			t.Errorf("%+v: step %q", limit, got)
		}
	}
	c = newAAT(t, 0)
	c.present = func(p *delegation.AATPresentation) { p.Chain = nil }
	if step := c.verify(); step != "1" {
		t.Errorf("no token: step %q", step)
	}
	// The draft's own sizes are the default.
	c = newAAT(t, 0)
	c.edit[0] = setClaim("pad", strings.Repeat("x", 47000))
	if step := c.verify(); step != "" {
		t.Errorf("below 64 KiB: step %q", step)
	}
	c.edit[0] = setClaim("pad", strings.Repeat("x", 50000))
	if step := c.verify(); step != "2a" {
		t.Errorf("above 64 KiB: step %q", step)
	}
	c = newAAT(t, 7)
	for i := range c.holders {
		c.edit[i] = func(x *aatToken) { x.claims["pad"], x.claims["del_max_depth"] = strings.Repeat("x", 30000), 8 }
	}
	if step := c.verify(); step != "2b" {
		t.Errorf("above 256 KiB: step %q", step)
	}
	// A proof is no larger than a token.
	c = newAAT(t, 0)
	c.proof = setClaim("pad", strings.Repeat("x", 50000))
	if step := c.verify(); step != "7a" {
		t.Errorf("a proof above 64 KiB: step %q", step)
	}
}

func stepOf(err error) string {
	var refused *delegation.StrictRefusal
	if errors.As(err, &refused) {
		return refused.Step
	}
	return ""
}

// 2c reads jti before any signature, and nothing else.
func TestStrictJTI(t *testing.T) {
	for _, e := range []strictEdit{
		{"no jti", 1, setClaim("jti", nil), "2c"},
		{"a number", 1, setClaim("jti", 7), "2c"},
		{"null", 1, respell(t, `"jti":"jti-1"`, `"jti":null`), "2c"},
		{"an object with one", 1, respell(t, `"jti":"jti-1"`, `"x":{"jti":"jti-1"}`), "2c"},
		{"a string with one", 1, respell(t, `"jti":"jti-1"`, `"x":",\"jti\":\"jti-1\""`), "2c"},
		{"that of the root", 1, setClaim("jti", "jti-0"), "2c"},
		{"that of the root, escaped", 1, respell(t, `"jti-1"`, `"jti\u002d0"`), "2c"},
		{"an escaped name", 1, respell(t, `"jti":`, `"\u006ati":`), ""},
		{"a lone surrogate", 1, respell(t, `"jti-1"`, `"\ud800"`), "2c"},
		{"two, the first a string", 1, respell(t, `"jti":"jti-1"`, `"jti":"jti-1","jti":7`), "4b"},
		{"two, the first none", 1, respell(t, `"jti":"jti-1"`, `"jti":7,"jti":"jti-1"`), "2c"},
		{"an empty one in the root", 0, setClaim("jti", ""), "3j"},
		{"an empty one in a link", 1, setClaim("jti", ""), "4b1"},
		{"an array", 1, func(x *aatToken) { x.raw = `["jti"]` }, "2c"},
		{"no JSON", 1, func(x *aatToken) { x.raw = `jti` }, "2c"},
		{"an end in the middle", 1, func(x *aatToken) { x.raw = `{"a":"\` }, "2c"},
		{"bad JSON behind it", 1, func(x *aatToken) { x.raw = `{"jti":"jti-1",nonsense` }, "4b"},
		{"data behind the claims", 0, func(x *aatToken) { x.after = nil; respell(t, `"jti"`, ` "jti"`)(x); x.raw += "{}" }, "3b"},
		{"two parts", 1, func(x *aatToken) { x.after = func(s string) string { return s[:strings.LastIndexByte(s, '.')] } }, "2c"},
		{"four parts", 1, func(x *aatToken) { x.after = func(s string) string { return s + ".AA" } }, "2c"},
		{"padded base64", 1, func(x *aatToken) {
			x.after = func(s string) string { return strings.Replace(s, ".", "=.", 2) }
		}, "2c"},
		{"padded signature", 1, func(x *aatToken) { x.after = func(s string) string { return s + "==" } }, "4b"},
		{"nothing", 1, func(x *aatToken) { x.after = func(string) string { return "" } }, "2c"},
	} {
		e.run(t, 1)
	}
}

func TestStrictHeader(t *testing.T) {
	for _, at := range []struct {
		token           int
		header, signing string
	}{{0, "3a", "3b"}, {1, "4a", "4b"}} {
		for _, e := range []strictEdit{
			{"no alg", 0, setHeader("alg", nil), at.header},
			{"none", 0, setHeader("alg", "none"), at.header},
			{"HMAC", 0, setHeader("alg", "HS256"), at.header},
			{"EdDSA", 0, setHeader("alg", "EdDSA"), at.header},
			{"of another key", 0, setHeader("alg", "ES256"), at.header},
			{"alg in a list", 0, setHeader("alg", []any{"Ed25519"}), at.header},
			{"no typ", 0, setHeader("typ", nil), at.header},
			{"our own typ", 0, setHeader("typ", "at+jwt"), at.header},
			{"typ of a proof", 0, setHeader("typ", "aat-pop+jwt"), at.header},
			{"typ in other letters", 0, setHeader("typ", "AAT+JWT"), at.header},
			{"typ as a media type", 0, setHeader("typ", "application/aat+jwt"), at.header},
			{"crit", 0, setHeader("crit", []any{"exp"}), at.header},
			{"an empty crit", 0, setHeader("crit", []any{}), at.header},
			{"two algs", 0, func(x *aatToken) { x.rawHdr = `{"alg":"Ed25519","alg":"Ed25519","typ":"aat+jwt"}` }, at.header},
			{"no object", 0, func(x *aatToken) { x.rawHdr = `"Ed25519"` }, at.header},
			// "Treated as absent, not refused."
			{"a key in the header", 0, setHeader("jwk", object{"kty": "oct", "k": "AA"}), ""},
			{"a URL of keys", 0, setHeader("jku", "https://attacker.example"), ""},
			{"certificates", 0, setHeader("x5c", []any{"AA"}), ""},
			{"a URL of certificates", 0, setHeader("x5u", "https://attacker.example"), ""},
			{"unknown members", 0, func(x *aatToken) { x.header["b64"], x.header["zip"] = true, "DEF" }, ""},
			{"a kid that is no string", 0, setHeader("kid", 7), ""},
			{"signed by a stranger", 0, func(x *aatToken) { x.key = ed25519Key(t) }, at.signing},
			{"signed by a stranger whose key it shows", 0, func(x *aatToken) {
				x.key = ed25519Key(t)
				x.header["jwk"] = x.key.Public().JWK()
			}, at.signing},
			{"two claims of a name", 0, respell(t, `"del_depth":`, `"del_depth":9,"del_depth":`), at.signing},
			{"two members deep inside", 0, respell(t, `"kty":"OKP"`, `"kty":"OKP","kty":"OKP"`), at.signing},
		} {
			e.token = at.token
			e.run(t, 1)
		}
	}
}

func TestStrictRoot(t *testing.T) {
	key := ed25519Key(t).Public()
	jwk := func(change object) func(*aatToken) {
		return func(x *aatToken) {
			cnf := x.claims["cnf"].(object)["jwk"].(object)
			for name, value := range change {
				cnf[name] = value
			}
		}
	}
	for _, e := range []strictEdit{
		{"no iat", 0, setClaim("iat", nil), "3b"},
		{"no exp", 0, setClaim("exp", nil), "3b"},
		{"exp in words", 0, setClaim("exp", "tomorrow"), "3b"},
		{"iat null", 0, respell(t, fmt.Sprintf(`"iat":%d`, aatNow-60), `"iat":null`), "3b"},
		{"iat with a fraction", 0, respell(t, fmt.Sprint(aatNow-60), fmt.Sprintf("%d.0", aatNow-60)), "3b"},
		{"exp with an exponent", 0, respell(t, fmt.Sprint(aatNow+3600), "17040711e2"), "3b"},
		{"no del_depth", 0, setClaim("del_depth", nil), "3c"},
		{"del_depth in words", 0, setClaim("del_depth", "0"), "3c"},
		{"del_depth with a fraction", 0, respell(t, `"del_depth":0`, `"del_depth":0.0`), "3c"},
		{"del_depth -0", 0, respell(t, `"del_depth":0`, `"del_depth":-0`), ""},
		{"par_hash null", 0, respell(t, `"del_depth":0`, `"del_depth":0,"par_hash":null`), "3d"},
		{"exp is now", 0, setClaim("exp", aatNow), "3e"},
		{"exp in a second", 0, setClaim("exp", aatNow+1), ""},
		{"exp huge", 0, respell(t, fmt.Sprint(aatNow+3600), "99999999999999999999999"), "3h"},
		{"exp far below zero", 0, respell(t, fmt.Sprint(aatNow+3600), "-99999999999999999999999"), "3e"},
		{"iat huge", 0, respell(t, fmt.Sprint(aatNow-60), "99999999999999999999999"), "3f"},
		{"iat far below zero", 0, respell(t, fmt.Sprint(aatNow-60), "-99999999999999999999999"), "3h"},
		{"iat at the edge of the skew", 0, setClaim("iat", aatNow+30), ""},
		{"iat beyond it", 0, setClaim("iat", aatNow+31), "3f"},
		{"exp at iat", 0, func(x *aatToken) { x.claims["iat"], x.claims["exp"] = aatNow+20, aatNow+20 }, "3g"},
		{"exp before iat", 0, func(x *aatToken) { x.claims["iat"], x.claims["exp"] = aatNow+20, aatNow+10 }, "3g"},
		{"90 days", 0, func(x *aatToken) { x.claims["iat"], x.claims["exp"] = aatNow, aatNow+7776000 }, ""},
		{"a second longer", 0, func(x *aatToken) { x.claims["iat"], x.claims["exp"] = aatNow, aatNow+7776001 }, "3h"},
		{"no del_max_depth", 0, setClaim("del_max_depth", nil), "3i"},
		{"del_max_depth 8", 0, setClaim("del_max_depth", 8), ""},
		{"del_max_depth 9", 0, setClaim("del_max_depth", 9), "3i"},
		{"del_max_depth -1", 0, setClaim("del_max_depth", -1), "3i"},
		{"del_max_depth true", 0, setClaim("del_max_depth", true), "3i"},
		{"del_max_depth 3.0", 0, respell(t, `"del_max_depth":3`, `"del_max_depth":3.0`), "3i"},
		{"no iss", 0, setClaim("iss", nil), "3k"},
		{"iss of another", 0, setClaim("iss", "https://attacker.example"), "3k"},
		{"iss with a slash", 0, setClaim("iss", aatIssuer+"/"), "3k"},
		{"iss in a list", 0, setClaim("iss", []any{aatIssuer}), "3k"},
		{"no cnf", 0, setClaim("cnf", nil), "3l"},
		{"cnf without jwk", 0, setClaim("cnf", object{"jkt": key.Thumbprint()}), "3l"},
		{"cnf with more beside jwk", 0, setClaim("cnf", object{"jwk": key.JWK(), "jkt": "x"}), "7b"}, // it was taken: the proof is by another key
		{"a private member", 0, jwk(object{"d": "AA"}), "3l"},
		{"a private member that is null", 0, jwk(object{"d": nil}), "3l"},
		{"a symmetric key", 0, setClaim("cnf", object{"jwk": object{"kty": "oct", "k": "AA"}}), "3l"},
		{"a key of small order", 0, setClaim("cnf", object{"jwk": object{"kty": "OKP", "crv": "Ed25519", "x": jcs.Base64URL(make([]byte, 32))}}), "3l"},
		{"extra public members", 0, jwk(object{"kid": "k", "alg": "EdDSA", "use": "sig", "x5t": "AA", "color": "red"}), ""},
		{"no details", 0, setClaim("authorization_details", nil), "3m"},
		{"details that are no array", 0, setClaim("authorization_details", authority(object{})[0]), "3m"},
		{"empty details", 0, setClaim("authorization_details", []any{}), "3m"},
		{"two entries", 0, func(x *aatToken) {
			details := x.claims["authorization_details"].([]any)
			x.claims["authorization_details"] = append(details, details[0])
		}, "3m"},
		{"another type alone", 0, setClaim("authorization_details", []any{object{"type": "payment"}}), "3m"},
		{"another type beside ours", 0, func(x *aatToken) {
			details := x.claims["authorization_details"].([]any)
			x.claims["authorization_details"] = []any{object{"type": "payment", "tools": 7}, "?", nil, details[0], object{"type": 1}}
		}, ""},
		{"no tools", 0, setClaim("authorization_details", []any{object{"type": "attenuating_agent_token"}}), "3m"},
		{"tools in a list", 0, setClaim("authorization_details", authority([]any{"read"})), "3m"},
		{"a tool that is null", 0, setClaim("authorization_details", authority(object{"read": nil})), "3m"},
		{"an uncalled tool that is no object", 0, setClaim("authorization_details", authority(object{"read": object{}, "z": true})), "3m"},
	} {
		e.run(t, 0)
	}
}

func TestStrictEdge(t *testing.T) {
	other := ed25519Key(t).Public()
	for _, e := range []strictEdit{
		{"no cnf", 1, setClaim("cnf", nil), "4b2"},
		{"a private key", 1, setClaim("cnf", object{"jwk": object{"kty": "OKP", "crv": "Ed25519", "x": jcs.Base64URL(make([]byte, 32)), "d": "AA"}}), "4b2"},
		{"no details", 1, setClaim("authorization_details", nil), "4b3"},
		{"details that are no array", 1, setClaim("authorization_details", object{}), "4b3"},
		{"no del_depth", 1, setClaim("del_depth", nil), "4b4"},
		{"no del_max_depth", 1, setClaim("del_max_depth", nil), "4b4"},
		{"del_depth -1", 1, setClaim("del_depth", -1), "4b4"},
		{"del_max_depth -1", 1, setClaim("del_max_depth", -1), "4b4"},
		{"del_depth in words", 1, setClaim("del_depth", "1"), "4b4"},
		{"del_max_depth 3.0", 1, respell(t, `"del_max_depth":3`, `"del_max_depth":3.0`), "4b4"},
		{"no iss", 1, setClaim("iss", nil), "4b5"},
		{"iss a number", 1, setClaim("iss", 1), "4b5"},
		{"no par_hash", 1, setClaim("par_hash", nil), "4b5"},
		{"par_hash true", 1, setClaim("par_hash", true), "4b5"},
		{"no iat", 1, setClaim("iat", nil), "4b5"},
		{"no exp", 1, setClaim("exp", nil), "4b5"},
		{"exp true", 1, setClaim("exp", true), "4b5"},
		{"iat with a fraction", 1, respell(t, fmt.Sprint(aatNow-60), fmt.Sprintf("%d.5", aatNow-60)), "4b5"},
		{"iss of the root", 1, setClaim("iss", aatIssuer), "4c"},
		{"iss of another key", 1, setClaim("iss", other.ThumbprintURI()), "4c"},
		{"depth of the parent", 1, setClaim("del_depth", 0), "4d"},
		{"depth that skips", 1, setClaim("del_depth", 2), "4d"},
		{"a sealed parent", 0, setClaim("del_max_depth", 0), "4e"},
		{"max above the parent's", 1, setClaim("del_max_depth", 4), "4g"},
		{"outlives the parent", 1, setClaim("exp", aatNow+3601), "4h"},
		{"exp is now", 1, setClaim("exp", aatNow), "4i"},
		{"exp in a second", 1, setClaim("exp", aatNow+1), ""},
		{"older than the parent", 1, setClaim("iat", aatNow-61), "4j"},
		{"iat at the edge of the skew", 1, setClaim("iat", aatNow+30), ""},
		{"iat beyond it", 1, setClaim("iat", aatNow+31), "4k"},
		{"exp at iat", 1, func(x *aatToken) { x.claims["iat"], x.claims["exp"] = aatNow+20, aatNow+20 }, "4l"},
		{"depth above its own max", 1, setClaim("del_max_depth", 0), "4m"},
		{"depth at its own max", 1, setClaim("del_max_depth", 1), ""},
		{"two entries", 1, func(x *aatToken) {
			details := x.claims["authorization_details"].([]any)
			x.claims["authorization_details"] = append(details, details[0])
		}, "4n"},
		{"tools in a list", 1, setClaim("authorization_details", authority([]any{})), "4n"},
		{"a tool that is no object", 1, setClaim("authorization_details", authority(object{"read": "any"})), "4n"},
		{"no tools", 1, setClaim("authorization_details", []any{object{"type": "attenuating_agent_token"}}), "4n"},
		{"a malformed constraint", 1, setClaim("authorization_details", authority(object{"read": object{"path": object{}}})), "3n/4o"},
		{"a malformed constraint of a tool that is new", 1, setClaim("authorization_details", authority(object{"write": object{"path": object{}}})), "3n/4o"},
		{"a new tool", 1, setClaim("authorization_details", authority(object{"write": object{}})), "4p1"},
		{"any argument", 1, setClaim("authorization_details", authority(object{"read": object{}})), "4p2"},
		{"an argument that is no longer required", 1,
			setClaim("authorization_details", authority(object{"read": object{"path": object{"constraint_type": "wildcard", "optional": true}}})), "4p3"},
		{"par_hash of another", 1, setClaim("par_hash", lidOf("a.b.c")), "4q"},
		{"par_hash padded", 1, func(x *aatToken) { x.claims["par_hash"] = x.claims["par_hash"].(string) + "=" }, "4q"},
		{"a leaf without an entry", 1, setClaim("authorization_details", []any{}), "6a"},
		{"a leaf with an entry of another type", 1, setClaim("authorization_details", []any{object{"type": "payment"}}), "6a"},
		{"a leaf for no tool", 1, setClaim("authorization_details", authority(object{})), "6b"},
	} {
		e.run(t, 1)
	}
	// 4f cannot be reached: what is above it (3i, 4g, 4e) leaves no such depth.
	// The limit of this enforcement point is met at 3i.
	c := newAAT(t, 2)
	c.verifier.MaxDepth = 2
	if step := c.verify(); step != "3i" {
		t.Errorf("a root deeper than this enforcement point goes: step %q", step)
	}
	for i := range c.holders {
		c.edit[i] = setClaim("del_max_depth", 2)
	}
	if step := c.verify(); step != "" {
		t.Errorf("as deep as this enforcement point goes: step %q", step)
	}
	// 5 cannot either: 3c and 4d count the tokens. A prefix is a chain, a suffix
	// or a chain with a hole is none.
	p := newAAT(t, 2).build()
	v := newAAT(t, 0).verifier
	for _, chain := range [][]string{{p.Chain[1]}, {p.Chain[0], p.Chain[2]}, {p.Chain[0], p.Chain[1], p.Chain[1]}} {
		if _, err := v.Verify(delegation.AATPresentation{Chain: chain, Proof: p.Proof, Tool: "read"}, time.Unix(aatNow, 0)); err == nil {
			t.Error("part of a chain is permitted")
		}
	}
	// "A link that is not the leaf may have no authority entry (then its
	// children can only be empty, and the leaf fails 6a)."
	for step, leaf := range map[string]any{"6a": []any{}, "6b": authority(object{}), "4p1": authority(object{"read": object{}})} {
		c := newAAT(t, 2)
		c.edit[1], c.edit[2] = setClaim("authorization_details", []any{}), setClaim("authorization_details", leaf)
		if got := c.verify(); got != step {
			t.Errorf("below a link without an entry: step %q, not %q", got, step)
		}
	}
}

// "A token is not refused for carrying claims the draft does not define (in
// strict mode `nbf` is one of them)", a child may have any aud or none, and keys
// may come again.
func TestStrictTakesWhatKDT1Refuses(t *testing.T) {
	c := newAAT(t, 2)
	unknown := func(x *aatToken) {
		x.claims["nbf"], x.claims["sub"], x.claims["status"], x.claims["gid"] = aatNow+9999, []any{}, object{}, nil
		x.claims["authorization_details"] = append(authority(c.tools), object{"type": "kavach_limits", "max_calls": -1})
	}
	c.edit[0], c.edit[1], c.edit[2] = unknown, unknown, unknown
	c.holders[2] = c.holders[1]
	if step := c.verify(); step != "" {
		t.Errorf("step %q", step)
	}
}

// "Floats": a proof may spell a number otherwise than the call, the same double
// is meant; what no double holds is refused in the call.
func TestStrictNumbers(t *testing.T) {
	for _, n := range []struct{ bound, args, hta, step string }{
		{`{"constraint_type":"range","min":0.1,"max":1e20}`, `0.1`, `0.10`, ""},
		{`{"constraint_type":"range","min":0.1,"max":1e20}`, `0.09999`, `0.09999`, "6b"},
		{`{"constraint_type":"range","max":1e20}`, `100000000000000000000`, `1e20`, ""},
		{`{"constraint_type":"exact","value":1}`, `1.0`, `1e0`, ""},
		{`{"constraint_type":"exact","value":0}`, `-0`, `0`, ""},
		{`{"constraint_type":"exact","value":1}`, `"1"`, `"1"`, "6b"},
		{`{"constraint_type":"wildcard"}`, `9007199254740993`, `9007199254740992`, "6b"},
		{`{"constraint_type":"wildcard"}`, `[{"x":[1e400]}]`, `1`, "6b"},
		{`{"constraint_type":"wildcard"}`, `1e-400`, `0`, "6b"},
		{`{"constraint_type":"wildcard"}`, `9007199254740992`, `9007199254740993`, ""}, // 7f compares the canonical form
		{`{"constraint_type":"wildcard"}`, `1`, `2`, "7f"},
		{`{"constraint_type":"exact","value":1.00000000000000001}`, `1`, `1`, "3n/4o"},
		{`{"constraint_type":"one_of","values":[[{"a":1e400}]]}`, `1`, `1`, "3n/4o"},
		{`{"constraint_type":"range","min":9007199254740993}`, `1`, `1`, "3n/4o"},
	} {
		c := newAAT(t, 0)
		c.args = `{"n":` + n.args + `}`
		c.edit[0] = func(x *aatToken) {
			x.claims["authorization_details"] = authority(object{"read": object{"n": "CONSTRAINT"}})
			respell(t, `"CONSTRAINT"`, n.bound)(x)
		}
		c.proof = func(x *aatToken) {
			x.claims["hta"] = "HTA"
			respell(t, `"HTA"`, `{"n":`+n.hta+`}`)(x)
		}
		if got := c.verify(); got != n.step {
			t.Errorf("%+v: step %q", n, got)
		}
	}
}

func TestStrictAudience(t *testing.T) {
	for _, a := range []struct {
		aud  string // of the root
		leaf string
		must bool
		step string
	}{
		{"", "", false, ""},
		{"", "", true, "6c"},
		{`"` + aatPoint + `"`, "", true, ""},
		{"", `"` + aatPoint + `"`, true, ""},
		{`["https://b.example","` + aatPoint + `"]`, `"` + aatPoint + `"`, true, ""},
		// "A child may have any `aud` or none."
		{`"` + aatPoint + `"`, `["` + aatPoint + `","https://b.example"]`, false, ""},
		{`"https://b.example"`, "", false, "6c"},
		{`"` + aatPoint + `"`, `"https://b.example"`, false, "6c"},
		{`"` + aatPoint + `/"`, "", false, "6c"},
		{`[]`, "", false, "6c"},
		{`""`, "", false, "6c"},
		{`null`, "", false, "6c"},
		{`7`, "", false, "6c"},
		{`{"` + aatPoint + `":1}`, "", false, "6c"},
		{`["` + aatPoint + `",7]`, "", false, "6c"},
		{`[["` + aatPoint + `"]]`, "", false, "6c"},
	} {
		c := newAAT(t, 1)
		for i, aud := range []string{a.aud, a.leaf} {
			if aud != "" {
				c.edit[i] = setClaim("aud", jsonText(aud))
			}
		}
		c.verifier.RequireAudience = a.must
		if got := c.verify(); got != a.step {
			t.Errorf("%+v: step %q", a, got)
		}
		// An enforcement point that has no name is named by nothing.
		c.verifier.Audience = ""
		c.proof = setClaim("aat_aud", nil)
		if got := c.verify(); (got == "") != (a.aud == "" && a.leaf == "" && !a.must) {
			t.Errorf("%+v without a name: step %q", a, got)
		}
	}
}

func TestStrictAnchors(t *testing.T) {
	c := newAAT(t, 1)
	second, third := ed25519Key(t), es256Key(t)
	c.verifier.Anchors = []delegation.AATAnchor{
		{Issuer: "https://b.example", Key: second.Public(), KID: "two"},
		{Issuer: "https://c.example", Key: third.Public(), KID: "three"},
		{Issuer: "https://d.example", Key: c.anchor.Public(), KID: "one"},
		{Issuer: aatIssuer, Key: c.anchor.Public(), KID: "one"},
		{Issuer: "https://none.example"},
	}
	for _, a := range []struct {
		name string
		edit func(*aatToken)
		step string
	}{
		{"no kid", nil, ""},
		{"its kid", setHeader("kid", "one"), ""},
		{"the other issuer of the key", setClaim("iss", "https://d.example"), ""},
		{"the issuer of another key", setClaim("iss", "https://b.example"), "3k"},
		{"the kid of another anchor", setHeader("kid", "two"), "3b"},
		{"the kid of an anchor of another algorithm", setHeader("kid", "three"), ""}, // it fits none of these
		{"an unknown kid", setHeader("kid", "four"), ""},
		{"another anchor", func(x *aatToken) { x.key, x.claims["iss"] = second, "https://b.example" }, ""},
		{"another anchor for this issuer", func(x *aatToken) { x.key = second }, "3k"},
		{"an anchor of another algorithm", func(x *aatToken) {
			x.key, x.header["alg"], x.claims["iss"] = third, "ES256", "https://c.example"
		}, ""},
		{"the holder's own key", func(x *aatToken) { x.key = c.holders[0] }, "3b"},
	} {
		c.edit[0] = a.edit
		if got := c.verify(); got != a.step {
			t.Errorf("%s: step %q, not %q", a.name, got, a.step)
		}
	}
}

// Every mixture of both algorithms along a chain.
func TestStrictAlgorithms(t *testing.T) {
	for mask := range 16 {
		c := newAAT(t, 2)
		pick := func(bit int) agent.PrivateKey {
			if mask>>bit&1 == 1 {
				return es256Key(t)
			}
			return ed25519Key(t)
		}
		c.anchor = pick(3)
		c.verifier.Anchors[0].Key = c.anchor.Public()
		for i := range c.holders {
			c.holders[i] = pick(i)
		}
		if step := c.verify(); step != "" {
			t.Errorf("%04b: step %q", mask, step)
		}
		// A signature of the other algorithm under the name of this one.
		for i := range c.holders {
			c.edit[i] = func(x *aatToken) {
				if x.key.Alg() == agent.ES256 {
					x.key = ed25519Key(t)
				} else {
					x.key = es256Key(t)
				}
			}
			if want := map[bool]string{true: "3b", false: "4b"}[i == 0]; c.verify() != want {
				t.Errorf("%04b: token %d signed by another kind of key", mask, i)
			}
			delete(c.edit, i)
		}
	}
}
