package mcpguard

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	issuer   = "https://kavach.example"
	resource = "https://wiki.example/mcp"
)

// bench is a guarded server that counts what reaches the library behind.
type bench struct {
	handler http.Handler
	holder  client.Credential
	reached int
	read    string // what reached it last
}

func newBench(t *testing.T, limits delegation.Limits) *bench {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := delegation.NewAnchor("at-test", public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: "alice", ClientID: "writer", Audience: []string{resource}, Scopes: []string{"wiki:read"}, GrantID: "g-1",
		IssuedAt: now, Expires: now.Add(time.Minute), Root: true, MaxDepth: 1, Key: key.Public(), Limits: limits,
	}, delegation.ServerKey{KID: "at-test", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	if b.holder, err = client.Hold(root.Token, key); err != nil {
		t.Fatal(err)
	}
	b.handler = Handler(Config{
		Issuer: issuer, Resource: resource, Verifier: &delegation.Verifier{Issuer: issuer, Anchors: delegation.AnchorSet(anchor)},
		Baseline: []string{"wiki:read"},
		Tools: map[string]Tool{"read_page": {Scope: "wiki:read", Resource: func(arguments jcs.Value) string {
			return "page/" + arguments.Get("page").Str()
		}}},
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.reached++
		text, err := io.ReadAll(r.Body)
		if err != nil || int64(len(text)) != r.ContentLength {
			t.Errorf("%d bytes instead of %d: %v", len(text), r.ContentLength, err)
		}
		b.read = string(text)
		fmt.Fprint(w, "{}")
	}))
	return b
}

// request is a message with a fresh proof.
func (b *bench) request(t *testing.T, message string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, resource, strings.NewReader(message))
	if err := b.holder.Authorize(r, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) send(r *http.Request) int {
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w.Code
}

const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_page","arguments":{"page":"home"}}}`

// TestHandler: what reaches the library.
func TestHandler(t *testing.T) {
	demanding := delegation.Limits{AuditRequired: new(true)}
	elsewhere := delegation.Limits{Resources: []string{"page/plans"}}
	for name, test := range map[string]struct {
		limits  delegation.Limits
		message string
		status  int
	}{
		"a call":               {delegation.Limits{}, call, 200},
		"the list":             {elsewhere, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, 200},
		"another page":         {elsewhere, call, 403},
		"a tool nobody listed": {delegation.Limits{}, strings.Replace(call, "read_page", "drop_all", 1), 404},
		"another method":       {delegation.Limits{}, `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x"}}`, 404},
		"a batch":              {delegation.Limits{}, "[" + call + "]", 400},
		"a record is demanded": {demanding, call, 403},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, test.limits)
			if status := b.send(b.request(t, test.message)); status != test.status || b.reached != map[bool]int{true: 1}[status == 200] {
				t.Errorf("%d, and %d messages reached the library", status, b.reached)
			}
		})
	}
}

// TestProofOnce: a proof is over method and URL, which all messages share, so it
// must not serve for a second one, whatever the first was.
func TestProofOnce(t *testing.T) {
	for _, first := range []string{`{"jsonrpc":"2.0","id":1,"method":"ping"}`, call} {
		b := newBench(t, delegation.Limits{})
		captured := b.request(t, first)
		again := httptest.NewRequest(http.MethodPost, resource, strings.NewReader(call))
		again.Header = captured.Header.Clone()
		if status := b.send(captured); status != 200 {
			t.Fatalf("%s: %d", first, status)
		}
		if status := b.send(again); status != 401 || b.reached != 1 {
			t.Errorf("the proof of %s again: %d, and %d messages reached the library", first, status, b.reached)
		}
	}
}

// TestMeta: chain and proof in the message are for the guard, and the library
// reads the rest of it.
func TestMeta(t *testing.T) {
	b := newBench(t, delegation.Limits{MaxCalls: new(int64(2))})
	present := func(message string) *http.Request {
		text, err := b.holder.Present([]byte(message), resource, "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewRequest(http.MethodPost, resource, strings.NewReader(string(text)))
	}
	want, err := jcs.Transform([]byte(call))
	if err != nil {
		t.Fatal(err)
	}
	if status := b.send(present(call)); status != 200 || b.read != string(want) {
		t.Errorf("%d, the library read %s", status, b.read)
	}
	tampered := present(call)
	text, err := io.ReadAll(tampered.Body)
	if err != nil {
		t.Fatal(err)
	}
	tampered.Body = io.NopCloser(strings.NewReader(strings.Replace(string(text), `"home"`, `"plan"`, 1)))
	if status := b.send(tampered); status != 401 || b.reached != 1 {
		t.Errorf("another page than proved: %d", status)
	}
	// Two carriers are none, and the budget of two is for both ways together.
	both := present(call)
	if err := b.holder.Authorize(both, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	if status := b.send(both); status != 400 {
		t.Errorf("two carriers: %d", status)
	}
	for i, status := range []int{200, 403} {
		if got := b.send(b.request(t, call)); got != status {
			t.Errorf("%d: %d", i, got)
		}
	}
}
