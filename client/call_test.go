package client_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

// guarded is a resource server behind a guard that wants proofs of calls.
func guarded(t *testing.T, cred client.Credential, change func(*guard.Config), serve http.HandlerFunc) (*client.Transport, *reports) {
	t.Helper()
	anchor, err := serverKey.Anchor()
	if err != nil {
		t.Fatal(err)
	}
	cfg := guard.Config{
		Resource: gitURL, Verifier: &delegation.Verifier{Issuer: testIssuer, Anchors: delegation.AnchorSet(anchor)},
		Log: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	ca, r := newAuthority(t), &reports{}
	s := ca.serve(t, guard.Authenticate(cfg)(serve), gitHost)
	tr := &client.Transport{
		Source: cred, RootCAs: ca.pool, Report: r.report, Resolve: map[string]string{gitHost: s.Listener.Addr().String()},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr, r
}

func parsed(t *testing.T, text string) jcs.Value {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCallInHeader: a request that says what it calls is proved so, also when
// the server wants a nonce.
func TestCallInHeader(t *testing.T) {
	var ran []string
	tr, _ := guarded(t, held(t, network()), func(c *guard.Config) { c.Nonces = guard.NewNonces(guard.NoncesConfig{}) },
		func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			request := delegation.Request{
				Scope: delegation.NoScope(), Tool: delegation.Given(delegation.Call{Name: "comment", Arguments: parsed(t, string(body))}),
				Network: delegation.None[string](),
			}
			if err := guard.Allows(r.Context(), request); err != nil {
				guard.Refuse(w, r, request, err, nil)
				return
			}
			ran = append(ran, string(body))
		})
	send := func(ctx context.Context, body string) int {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, gitURL+"/comments", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	const body = `{"text":"fine"}`
	ctx := client.WithCall(t.Context(), "comment", parsed(t, body))
	for i, c := range []struct {
		ctx    context.Context
		body   string
		status int
	}{{ctx, body, 200}, {ctx, body, 200}, {ctx, `{"text":"bad"}`, 401}, {t.Context(), body, 401}} {
		if status := send(c.ctx, c.body); status != c.status {
			t.Errorf("%d: %d", i, status)
		}
	}
	if len(ran) != 2 {
		t.Errorf("it ran %v", ran)
	}
}

// TestCallInMessage: a chain that no header takes reaches an MCP server in the
// message, with every number and name of it as it was, and does so a second time
// where the server wants a nonce.
func TestCallInMessage(t *testing.T) {
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("repository/%0200d", i))
	}
	root := held(t, func(c *delegation.Claims) { c.Limits.Resources = many })
	key := newKey(t)
	chain, err := root.Derive(key.Public(), "reviewer", delegation.Narrow{Scopes: root.Scopes, Limits: delegation.Limits{Resources: many}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	long, err := client.Hold(chain, key)
	if err != nil || len(chain) <= delegation.MaxChainHeader {
		t.Fatalf("%d bytes, %v", len(chain), err)
	}
	const message = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"comment","arguments":{"n":1.0,"t":"é"},"_meta":{"progressToken":3}}}`
	for name, c := range map[string]struct {
		cred        client.Credential
		mcp, proved bool
		inMeta      bool
		refused     bool
	}{
		"long":                      {long, true, false, true, false},
		"long, not for MCP":         {long, false, false, false, true},
		"short":                     {root, true, false, false, false},
		"short, to be proved":       {root, true, true, true, false},
		"short, proved without MCP": {root, false, true, false, false},
	} {
		seen := ""
		tr, r := guarded(t, c.cred, func(cfg *guard.Config) {
			cfg.MCP, cfg.DPoPForWrites, cfg.Nonces = true, true, guard.NewNonces(guard.NoncesConfig{})
		}, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			m, err := delegation.ParseMessage(body)
			if err != nil {
				t.Fatal(err)
			}
			if inMeta := m.Presented != nil; inMeta != c.inMeta || inMeta == (r.Header.Get("Authorization") != "") {
				t.Errorf("%s: in the message: %v", name, inMeta)
			}
			text, err := m.Bare()
			if err != nil {
				t.Error(err)
			}
			seen = string(text)
		})
		tr.MCP, tr.ProveCalls = c.mcp, c.proved
		answer, err := (&http.Client{Transport: tr}).Post(gitURL, "application/json", strings.NewReader(message))
		if c.refused {
			wantRefused(t, err, r, delegation.TooLarge, "")
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = answer.Body.Close()
		want, err := jcs.Transform([]byte(message))
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != 200 || seen != string(want) {
			t.Errorf("%s: %d, the server read %s", name, answer.StatusCode, seen)
		}
	}
}

// TestProveCall: what cannot be proved is not sent.
func TestProveCall(t *testing.T) {
	bound := held(t, network())
	without := bound
	without.Key = agent.PrivateKey{}
	plainKey := newKey(t)
	plain, err := client.Hold(mint(t, plainKey, func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Limits = false, 0, delegation.Limits{} }), plainKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cred client.Credential
		call delegation.Call
	}{
		"without the key":      {without, delegation.Call{Name: "x"}},
		"a plain token":        {plain, delegation.Call{Name: "x"}},
		"without a name":       {bound, delegation.Call{}},
		"no object":            {bound, delegation.Call{Name: "x", Arguments: parsed(t, `[1]`)}},
		"a number of no value": {bound, delegation.Call{Name: "x", Arguments: parsed(t, `{"n":[9007199254740993]}`)}},
	} {
		if _, err := c.cred.ProveCall(c.call, gitURL, "", time.Now()); err == nil {
			t.Errorf("%s: proved", name)
		}
	}
	for _, message := range []string{`[]`, `{}`, `{"method":"tools/call","params":{}}`, `{"method":"ping","params":{"n":1e400}}`} {
		if _, err := bound.Present([]byte(message), gitURL, "", time.Now()); err == nil {
			t.Errorf("%s: presented", message)
		}
	}
}
