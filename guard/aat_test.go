package guard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

func object(t testing.TB, text string) jcs.Value {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// ofCall makes an AAT proof for a call, after change.
func (b bound) ofCall(tool, arguments string, change ...func(*agent.AATProof)) string {
	b.w.t.Helper()
	parts, err := delegation.Inspect(b.token)
	if err != nil {
		b.w.t.Fatal(err)
	}
	leaf := parts[len(parts)-1]
	p := agent.AATProof{
		LID: leaf.LID, LeafJTI: leaf.UnverifiedClaims.Get("jti").Str(), Tool: tool, Arguments: object(b.w.t, arguments),
		Audience: resource, IssuedAt: b.w.clock(),
	}
	for _, f := range change {
		f(&p)
	}
	text, err := agent.SignAATProof(b.key, p)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return text
}

// called is a POST with the chain and an AAT proof in headers.
func (b bound) called(proof, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, resource+"/diff", strings.NewReader(body))
	r.Header.Set("Authorization", "DPoP "+b.token)
	r.Header.Set("AAT-Proof", proof)
	return r
}

// comments is a route whose tool and arguments come out of the body.
func (w *world) comments() guard.Config {
	cfg := w.config()
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return guard.Need{}, err
		}
		v, err := jcs.Parse(body, jcs.Limits{})
		if err != nil {
			return guard.Need{}, err
		}
		return guard.Need{Request: delegation.Request{
			Scope: delegation.AllOf("repository:read"), Tool: delegation.Given(delegation.Call{Name: "comment", Arguments: v}),
		}}, nil
	}
	return cfg
}

// TestProofOfCall: a side effect with a chain passes with an AAT proof over
// exactly this call, and with nothing else.
func TestProofOfCall(t *testing.T) {
	w := newWorld(t)
	leaf, other := w.root().derive(), w.root().derive()
	const body = `{"text":"fine","line":7}`
	for name, c := range map[string]struct {
		proof string
		body  string
		code  string // "" is 200
	}{
		"the call":                       {leaf.ofCall("comment", body), body, ""},
		"another order, another 7":       {leaf.ofCall("comment", `{"line":7.0,"text":"fine"}`), body, ""},
		"other arguments":                {leaf.ofCall("comment", `{"text":"bad","line":7}`), body, "invalid_dpop_proof"},
		"an argument more":               {leaf.ofCall("comment", body), `{"text":"fine","line":7,"force":true}`, "invalid_dpop_proof"},
		"another tool":                   {leaf.ofCall("merge", body), body, "invalid_dpop_proof"},
		"the tool in another case":       {leaf.ofCall("Comment", body), body, "invalid_dpop_proof"},
		"a number nobody can say":        {leaf.ofCall("comment", `{"n":9007199254740992}`), `{"n":9007199254740993}`, "invalid_dpop_proof"},
		"of another chain":               {other.ofCall("comment", body), body, "invalid_dpop_proof"},
		"for another server":             {leaf.ofCall("comment", body, func(p *agent.AATProof) { p.Audience = "https://wiki.example" }), body, "invalid_dpop_proof"},
		"for nobody":                     {leaf.ofCall("comment", body, func(p *agent.AATProof) { p.Audience = "" }), body, "invalid_dpop_proof"},
		"too old":                        {leaf.ofCall("comment", body, func(p *agent.AATProof) { p.IssuedAt = start.Add(-31 * time.Second) }), body, "invalid_dpop_proof"},
		"too new":                        {leaf.ofCall("comment", body, func(p *agent.AATProof) { p.IssuedAt = start.Add(31 * time.Second) }), body, "invalid_dpop_proof"},
		"a DPoP proof in its place":      {leaf.proof(post), body, "invalid_dpop_proof"},
		"no proof at all":                {"", body, "invalid_dpop_proof"},
		"what the route cannot be about": {leaf.ofCall("comment", body), `{`, "invalid_request"},
	} {
		r := leaf.called(c.proof, c.body)
		if c.proof == "" {
			r.Header.Del("AAT-Proof")
		}
		got := do(guard.Require(w.comments())(ok), r)
		if (got.status == 200) != (c.code == "") || got.code != c.code {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		for _, d := range w.decided() {
			if c.code == "" && (!d.Allowed || !d.ProofOfCall || string(d.Proof) != c.proof) {
				t.Errorf("%s: reported %+v", name, d)
			}
			if c.code == "invalid_dpop_proof" && d.Reason != delegation.HolderBindingFailed {
				t.Errorf("%s: %s", name, d.Reason)
			}
		}
	}
}

// TestProofOfCallForms: one proof, in one header, for a key that the token holds.
func TestProofOfCallForms(t *testing.T) {
	w := newWorld(t)
	leaf, plain := w.root().derive(), w.plainBound()
	const body = `{"text":"fine"}`
	handler := guard.Require(w.comments())(ok)
	for name, c := range map[string]struct {
		change func(r *http.Request)
		code   string
		status int
	}{
		"two AAT proofs":      {func(r *http.Request) { r.Header.Add("AAT-Proof", leaf.ofCall("comment", body)) }, "malformed", 400},
		"an empty one more":   {func(r *http.Request) { r.Header.Add("AAT-Proof", "") }, "malformed", 400},
		"a DPoP proof, too":   {func(r *http.Request) { r.Header.Set("DPoP", leaf.proof(post)) }, "malformed", 400},
		"as Bearer":           {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+leaf.token) }, "invalid_token", 401},
		"a plain token":       {func(r *http.Request) { r.Header.Set("Authorization", "DPoP "+plain.token) }, "invalid_dpop_proof", 401},
		"an unbound token":    {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.token()) }, "invalid_dpop_proof", 401},
		"no chain":            {func(r *http.Request) { r.Header.Del("Authorization") }, "invalid_token", 401},
		"only in the body":    {func(r *http.Request) { r.Header.Del("Authorization"); r.Header.Del("AAT-Proof") }, "invalid_token", 401},
		"nothing was changed": {func(*http.Request) {}, "", 200},
	} {
		r := leaf.called(leaf.ofCall("comment", body), body)
		c.change(r)
		if got := do(handler, r); got.status != c.status || got.code != c.code {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

// TestProofOfCallNeedsACall: a route that names no tool has nothing that an AAT
// proof could speak for.
func TestProofOfCallNeedsACall(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	for name, tool := range map[string]delegation.Dimension[delegation.Call]{"unset": {}, "none": delegation.None[delegation.Call]()} {
		cfg := w.config()
		cfg.Need.Request.Tool = tool
		if got := do(guard.Require(cfg)(ok), leaf.called(leaf.ofCall("comment", `{}`), "")); got.code != "invalid_dpop_proof" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

// TestProofOfCallLater: where the handler learns what is called, its question is
// held to the proof, and must come.
func TestProofOfCallLater(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	call := func(arguments string) delegation.Call {
		return delegation.Call{Name: "comment", Arguments: object(t, arguments)}
	}
	cfg := w.config()
	cfg.Need.Later = []string{delegation.DimensionTools}
	authenticated := w.config()
	ask := func(arguments ...string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			for _, a := range arguments {
				if guard.Tool(r.Context(), call(a)) != nil {
					return
				}
			}
			_, _ = rw.Write([]byte("done"))
		})
	}
	allow := func(d ...delegation.Dimension[delegation.Call]) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			for _, tool := range d {
				request := delegation.Request{Scope: delegation.AllOf("repository:read"), Tool: tool}
				if err := guard.Allows(r.Context(), request); err != nil {
					guard.Refuse(rw, r, request, err, nil)
					return
				}
			}
			_, _ = rw.Write([]byte("done"))
		})
	}
	given := func(a string) delegation.Dimension[delegation.Call] { return delegation.Given(call(a)) }
	for name, c := range map[string]struct {
		handler http.Handler
		status  int
		reason  delegation.Reason
	}{
		"asked":                     {guard.Require(cfg)(ask(`{"n":1}`)), 200, ""},
		"asked about another":       {guard.Require(cfg)(ask(`{"n":2}`)), 401, delegation.HolderBindingFailed},
		"asked about another, too":  {guard.Require(cfg)(ask(`{"n":1}`, `{"n":2}`)), 401, delegation.HolderBindingFailed},
		"not asked":                 {guard.Require(cfg)(ask()), 403, delegation.ConstraintViolated},
		"allowed":                   {guard.Authenticate(authenticated)(allow(given(`{"n":1}`))), 200, ""},
		"another was to be allowed": {guard.Authenticate(authenticated)(allow(given(`{"n":2}`))), 401, delegation.HolderBindingFailed},
		"no call was named":         {guard.Authenticate(authenticated)(allow(delegation.None[delegation.Call]())), 401, delegation.HolderBindingFailed},
		"the same call twice":       {guard.Authenticate(authenticated)(allow(given(`{"n":1}`), given(`{"n":1}`))), 401, delegation.Replayed},
		"nothing was allowed":       {guard.Authenticate(authenticated)(allow()), 401, delegation.HolderBindingFailed},
	} {
		w.decided()
		got := do(c.handler, leaf.called(leaf.ofCall("comment", `{"n":1}`), ""))
		if got.status != c.status || (got.body == "done") != (c.status == 200) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		refused := false
		for _, d := range w.decided() {
			refused = refused || d.Reason != "" && d.Reason == c.reason
		}
		if refused != (c.reason != "") {
			t.Errorf("%s: not reported as %s", name, c.reason)
		}
	}
}

// TestProofsShareTheirJTIs: "replay over the two proof kinds".
func TestProofsShareTheirJTIs(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	cfg := w.comments()
	cfg.DPoPForWrites = true
	handler := guard.Require(cfg)(ok)
	const body = `{"text":"fine"}`
	of := leaf.ofCall("comment", body, func(p *agent.AATProof) { p.JTI = "one" })
	dpop := leaf.called("", body)
	dpop.Header.Del("AAT-Proof")
	dpop.Header.Set("DPoP", leaf.proof(post, func(p *agent.Proof) { p.JTI = "one" }))
	for i, c := range []struct {
		r      *http.Request
		status int
	}{{leaf.called(of, body), 200}, {leaf.called(of, body), 401}, {dpop, 401}} {
		if got := do(handler, c.r); got.status != c.status {
			t.Errorf("%d: %d %s", i, got.status, got.body)
		}
	}
	d := w.decided()
	if d[1].Reason != delegation.Replayed || d[2].Reason != delegation.Replayed {
		t.Errorf("%s, %s", d[1].Reason, d[2].Reason)
	}
}

// TestRefusedCallKeepsItsProof: "jti tracking is the last, atomic act of a
// permitted call; a refused call consumes none".
func TestRefusedCallKeepsItsProof(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	refusing := w.comments()
	needOf := refusing.NeedOf
	scope := "comment:write"
	refusing.NeedOf = func(r *http.Request) (guard.Need, error) {
		need, err := needOf(r)
		need.Request.Scope = delegation.AllOf(scope)
		return need, err
	}
	handler := guard.Require(refusing)(ok)
	proof := leaf.ofCall("comment", `{}`)
	if got := do(handler, leaf.called(proof, `{}`)); got.status != 403 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	scope = "repository:read"
	if got := do(handler, leaf.called(proof, `{}`)); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestNonceInProofOfCall: an AAT proof carries the nonce like a DPoP proof does.
func TestNonceInProofOfCall(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	cfg := w.comments()
	cfg.Nonces = guard.NewNonces(guard.NoncesConfig{})
	handler := guard.Require(cfg)(ok)
	got := do(handler, leaf.called(leaf.ofCall("comment", `{}`), `{}`))
	nonce := got.header.Get("DPoP-Nonce")
	if got.code != "use_dpop_nonce" || nonce == "" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got = do(handler, leaf.called(leaf.ofCall("comment", `{}`, func(p *agent.AATProof) { p.Nonce = nonce }), `{}`)); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// presented is an MCP message with the chain and a proof in its _meta.
func (b bound) presented(message, proof string) string {
	b.w.t.Helper()
	m, err := delegation.ParseMessage([]byte(message))
	if err != nil {
		b.w.t.Fatal(err)
	}
	text, err := m.With(delegation.Present(b.token, proof))
	if err != nil {
		b.w.t.Fatal(err)
	}
	return string(text)
}

func posted(body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, resource, strings.NewReader(body))
}

const (
	callMessage = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"comment","arguments":{"n":1}}}`
	listMessage = `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":""}}`
)

// TestMeta: the chain in _meta, with a proof of the message that it stands in.
func TestMeta(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	cfg := w.config()
	cfg.MCP = true
	ran := ""
	handler := guard.Authenticate(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		m, err := delegation.ParseMessage(body)
		if err != nil {
			t.Fatal(err)
		}
		if m.Method == "tools/call" {
			request := delegation.Request{Scope: delegation.AllOf("repository:read"), Tool: delegation.Given(m.Call)}
			if err := guard.Allows(r.Context(), request); err != nil {
				guard.Refuse(rw, r, request, err, nil)
				return
			}
		}
		ran = m.Method + " of " + string(guard.From(r.Context()).ClientID())
		_, _ = rw.Write([]byte("{}"))
	}))
	of := func(tool, arguments string) string { return leaf.ofCall(tool, arguments) }
	call := func() string { return leaf.presented(callMessage, of("comment", `{"n":1}`)) }
	escaped := func(text string) string { return strings.ReplaceAll(text, `"kavach/aat"`, `"kavach\/\u0061at"`) }
	authorized := func(body, header string) *http.Request {
		r := posted(body)
		r.Header.Set("Authorization", header)
		return r
	}
	with := func(r *http.Request, name, value string) *http.Request {
		r.Header.Set(name, value)
		return r
	}
	chain, err := json.Marshal(strings.Split(leaf.token, "~"))
	if err != nil {
		t.Fatal(err)
	}
	meta := func(text string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"comment","arguments":{"n":1},"_meta":{"kavach/aat":` + text + `}}}`
	}
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		code   string
	}{
		"a call":                                 {posted(call()), 200, ""},
		"a call, the name of the member escaped": {posted(escaped(call())), 200, ""},
		"the same chain in the header":           {authorized(call(), "DPoP "+leaf.token), 200, ""},
		"the list":                               {posted(leaf.presented(listMessage, of("mcp:tools/list", `{"cursor":""}`))), 200, ""},
		"the proof of a call for the list":       {posted(leaf.presented(listMessage, of("comment", `{"n":1}`))), 401, "invalid_dpop_proof"},
		"the proof of the list for a call":       {posted(leaf.presented(callMessage, of("mcp:tools/list", `{"cursor":""}`))), 401, "invalid_dpop_proof"},
		"a proof of other arguments":             {posted(leaf.presented(callMessage, of("comment", `{"n":2}`))), 401, "invalid_dpop_proof"},
		"another chain in the header":            {authorized(call(), "DPoP "+w.root().token), 400, "malformed"},
		"another chain, escaped":                 {authorized(escaped(call()), "DPoP "+w.root().token), 400, "malformed"},
		"a bearer token in the header":           {authorized(call(), "Bearer "+w.token()), 400, "malformed"},
		"the same chain as Bearer":               {authorized(call(), "Bearer "+leaf.token), 401, "invalid_token"},
		"another scheme in the header":           {authorized(call(), "Basic eDp5"), 400, "malformed"},
		"a DPoP proof, too":                      {with(authorized(call(), "DPoP "+leaf.token), "DPoP", leaf.proof(post)), 400, "malformed"},
		"an AAT proof in a header, too":          {with(authorized(call(), "DPoP "+leaf.token), "AAT-Proof", of("comment", `{"n":1}`)), 400, "malformed"},
		"two tokens in one string":               {posted(meta(`{"aat_chain":["` + leaf.token + `"],"aat_pop":"` + of("comment", `{"n":1}`) + `"}`)), 400, "malformed"},
		"no proof":                               {posted(meta(`{"aat_chain":` + string(chain) + `}`)), 400, "malformed"},
		"null":                                   {posted(meta(`null`)), 400, "malformed"},
		"twice":                                  {posted(strings.Replace(call(), `"_meta":{`, `"_meta":{"kavach/aat":{},`, 1)), 400, "malformed"},
		"two calls in one":                       {posted("[" + call() + "]"), 400, "malformed"},
		"a second name in another case":          {posted(strings.Replace(call(), `"name":`, `"Name":"merge","name":`, 1)), 400, "malformed"},
		"a second message around it":             {posted(strings.Replace(call(), `"method":`, `"Method":"tools/list","method":`, 1)), 400, "malformed"},
		"too many tokens":                        {posted(meta(`{"aat_chain":["a","b","c","d","e","f","g","h","i","j"],"aat_pop":"x"}`)), 401, "invalid_token"},
		"a proof in headers for the call":        {with(authorized(callMessage, "DPoP "+leaf.token), "AAT-Proof", of("comment", `{"n":1}`)), 200, ""},
		"a proof in headers for another call":    {with(authorized(callMessage, "DPoP "+leaf.token), "AAT-Proof", of("comment", `{"n":3}`)), 401, "invalid_dpop_proof"},
		"a proof in headers for no message":      {with(authorized("[]", "DPoP "+leaf.token), "AAT-Proof", of("comment", `{"n":1}`)), 401, "invalid_dpop_proof"},
	} {
		ran = ""
		w.decided()
		got := do(handler, c.r)
		if got.status != c.status || got.code != c.code || (ran != "") != (c.status == 200) {
			t.Errorf("%s: %d %s, ran %q", name, got.status, got.body, ran)
		}
		if c.status == 400 {
			if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.Malformed {
				t.Errorf("%s: reported %+v", name, d)
			}
		}
	}
	cfg.MCP = false
	if got := do(guard.Authenticate(cfg)(ok), posted(call())); got.status != 401 || got.code != "invalid_token" {
		t.Errorf("where nothing is expected in bodies: %d %s", got.status, got.body)
	}
}

// TestMetaTakesLongChains: what is too long for a header passes in _meta.
func TestMetaTakesLongChains(t *testing.T) {
	w := newWorld(t)
	var many []string
	for i := range 16 {
		many = append(many, fmt.Sprintf("repository/%0200d", i))
	}
	leaf := w.root(limited(delegation.Limits{Resources: many})).derive(many...)
	if len(leaf.token) < delegation.MaxChainHeader {
		t.Fatalf("only %d bytes", len(leaf.token))
	}
	cfg := w.config()
	cfg.MCP, cfg.DPoPForWrites = true, true
	cfg.Need.Request.Tool = delegation.Given(delegation.Call{Name: "comment", Arguments: object(t, `{"n":1}`)})
	cfg.Need.Request.Resource = delegation.Given(many[0])
	handler := guard.Require(cfg)(ok)
	if got := do(handler, posted(leaf.presented(callMessage, leaf.ofCall("comment", `{"n":1}`)))); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	w.decided()
	r := leaf.called(leaf.ofCall("comment", `{"n":1}`), callMessage)
	if got := do(handler, r); got.status != 401 || w.decided()[0].Reason != delegation.TooLarge {
		t.Errorf("in a header: %d %s", got.status, got.body)
	}
}

// TestStrangersSendLittle: of a message that may carry its own chain only so
// much is kept until somebody is known.
func TestStrangersSendLittle(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.MCP = true
	handler := guard.Require(cfg)(ok)
	long := callMessage + strings.Repeat(" ", 256<<10)
	for _, c := range []struct {
		name, authorization, body string
		status                    int
	}{
		{"nobody", "", long, 413},
		{"nobody, briefly", "", callMessage, 401},
		{"a token that does not hold", "Bearer " + w.token() + "x", long, 413},
		{"a token", "Bearer " + w.token(), long, 200},
	} {
		for _, announced := range []bool{true, false} {
			r := posted(c.body)
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			if !announced {
				r.ContentLength = -1
			}
			if got := do(handler, r); got.status != c.status {
				t.Errorf("%s, announced %v: %d %s", c.name, announced, got.status, got.body)
			}
		}
	}
}
