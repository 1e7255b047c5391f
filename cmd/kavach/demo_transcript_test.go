package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/demo"
)

// TestDemoTranscript tries every string of the story's MCP transcript as a
// credential, and of what else an assistant may have in one: a handle that is
// still good, a token that was verified, a page of the log. Whoever reads what a
// model saw must get nothing with it.
func TestDemoTranscript(t *testing.T) {
	var transcript bytes.Buffer
	tried := map[string]bool{}
	tokens := 0
	status, stdout, stderr := playDemo(t, demoCmd{change: func(c *demo.Config) {
		server := c.Kavach.(*demoServer)
		c.Transcript = &transcript
		c.Last = func(ctx context.Context, scene demo.Scene) error {
			thief := newThief(t, server, scene)
			try := func() {
				for _, text := range stringsOf(t, transcript.Bytes()) {
					if tried[text] {
						continue
					}
					tried[text] = true
					if worked := thief.try(t, text); len(worked) > 0 {
						t.Errorf("%.60q is good for %q", text, worked)
					}
					if parts, err := delegation.Inspect(text); err == nil {
						// One that is over would prove nothing.
						if exp, _ := parts[len(parts)-1].UnverifiedClaims.Get("exp").Int(); exp > time.Now().Unix() {
							tokens++
						}
					}
				}
			}
			try()
			giver := newParty(t, server, scene, "giver", demo.ReadPull, "kavach:delegate", "kavach:verify", "kavach:audit")
			taker := newParty(t, server, scene, "taker", demo.ReadPull)
			handle := giver.assist(t, scene, &transcript, taker)
			try()
			if !tried[handle] {
				t.Error("the handle was not tried")
			}
			// It was good all the time, for whom it is meant.
			holder, err := agent.GenerateKey()
			if err != nil {
				return err
			}
			if _, err := taker.client.Redeem(ctx, handle, holder); err != nil {
				t.Errorf("the one that the handle is for: %v", err)
			}
			thief.notices(t, giver, scene)
			return nil
		}
	}})
	// The thief's attempts are refusals that nobody was told of.
	if status != exitFailed || !strings.Contains(stdout, "is a refusal that nobody was told of") || stderr != "" {
		t.Errorf("exit status %d, stderr %q", status, stderr)
	}
	if len(tried) < 150 || tokens < 3 {
		t.Errorf("the transcript has %d strings and %d live tokens:\n%s", len(tried), tokens, transcript.String())
	}
}

// notices: a thief who finds something does see that it works. What is handed to
// the thief by name, or bound to nobody, works.
func (th *thief) notices(t *testing.T, giver *party, scene demo.Scene) {
	t.Helper()
	handle := giver.assist(t, scene, io.Discard, &th.party)
	if worked := th.try(t, handle); !slices.Equal(worked, []string{"handle"}) {
		t.Errorf("a handle for the thief is good for %q", worked)
	}
	plain := giver.plainToken(t, th, scene)
	if worked := th.try(t, plain); !slices.Contains(worked, "Bearer at /mcp") || slices.Contains(worked, "DPoP at /mcp") {
		t.Errorf("a plain token is good for %q", worked)
	}
}

// party is an agent that the test registered.
type party struct {
	id     string
	key    agent.PrivateKey
	client *client.Agent
}

func newParty(t *testing.T, server *demoServer, scene demo.Scene, name string, scopes ...string) *party {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	p := &party{id: key.Public().Thumbprint(), key: key}
	cast := demo.Candidate{ID: p.id, Assertion: p.assertion(t, scene.Issuer), Agent: demo.Agent{Granted: scopes, Depth: 3, Manifest: agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Has a part in the test.", Scopes: scopes, Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 3,
		IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
	}}}
	if cast.Signed, err = agent.SignManifest(cast.Manifest, key); err != nil {
		t.Fatal(err)
	}
	if err := server.Prepare(t.Context(), []demo.Candidate{cast}); err != nil {
		t.Fatal(err)
	}
	if p.client, err = client.New(client.Config{Issuer: scene.Issuer, Key: key}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *party) assertion(t *testing.T, issuer string) string {
	t.Helper()
	assertion, err := agent.SignAssertion(p.key, p.id, issuer, time.Now(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return assertion
}

// assist plays an assistant that delegates without a key, verifies its own token
// and reads the log. What it said and heard goes into the transcript; the handle
// in it is returned.
func (p *party) assist(t *testing.T, scene demo.Scene, transcript io.Writer, to *party) (handle string) {
	t.Helper()
	held, err := p.client.Token(t.Context(), client.Ask{
		Resources: []string{scene.Issuer + "/mcp", demo.Resource}, Scopes: []string{demo.ReadPull, "kavach:delegate", "kavach:verify", "kavach:audit"},
	})
	if err != nil {
		t.Fatal(err)
	}
	transport := &client.Transport{Source: held}
	defer transport.CloseIdleConnections()
	for _, one := range []struct {
		tool      string
		arguments map[string]any
	}{
		{"delegate", map[string]any{"agent": to.id, "scopes": []string{demo.ReadPull}, "audience": demo.Resource, "ttl_seconds": 120}},
		{"verify", map[string]any{"token": string(held.Token), "audience": scene.Issuer + "/mcp"}},
		{"audit", map[string]any{"limit": 3}},
	} {
		body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": one.tool, "arguments": one.arguments}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scene.Issuer+"/mcp", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("MCP-Protocol-Version", "2025-11-25")
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		heard, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v %s", one.tool, resp.StatusCode, err, heard)
		}
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			_, heard, _ = bytes.Cut(heard, []byte("data:"))
		}
		var answer struct {
			Result struct {
				StructuredContent struct{ Handle string }
			}
		}
		if err := json.Unmarshal(heard, &answer); err != nil {
			t.Fatalf("%s: %v %s", one.tool, err, heard)
		}
		handle = cmp.Or(handle, answer.Result.StructuredContent.Handle)
		_, _ = transcript.Write(slices.Concat(body, []byte("\n"), bytes.TrimSpace(heard), []byte("\n")))
	}
	if handle == "" {
		t.Fatal("no handle was given")
	}
	return handle
}

// stringsOf returns every string of a stream of JSON values, the longest first
// because tokens end: members, values, their words, those of the JSON that
// stands in strings, the links of a chain, and the parts of a JWT with what is
// written in them.
func stringsOf(t *testing.T, stream []byte) []string {
	t.Helper()
	all := map[string]bool{}
	var text func(string)
	var value func(any)
	text = func(s string) {
		if s == "" || all[s] {
			return
		}
		all[s] = true
		for _, separators := range []string{" \t\n,;:\"'()[]{}<>=", "~", "."} {
			for piece := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
				text(piece)
			}
		}
		var inner any
		if json.Unmarshal([]byte(s), &inner) == nil {
			value(inner)
		}
		if raw, err := base64.RawURLEncoding.DecodeString(s); err == nil && json.Unmarshal(raw, &inner) == nil {
			value(inner)
		}
	}
	value = func(v any) {
		switch v := v.(type) {
		case string:
			text(v)
		case []any:
			for _, one := range v {
				value(one)
			}
		case map[string]any:
			for name, one := range v {
				text(name)
				value(one)
			}
		}
	}
	for line := range bytes.Lines(stream) {
		var v any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("the transcript has a line that is no JSON: %v: %s", err, line)
		}
		value(v)
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
}

// TestStringsOf: nothing that could be cut out is left in.
func TestStringsOf(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	root, leaf := part(`{"kid":"at-1"}`)+"."+part(`{"cnf":{"jkt":"thumb"}}`)+".c2ln", part(`{"typ":"aat+jwt"}`)+"."+part(`{"aud":["here"]}`)+".c2lnMg"
	inner, err := json.Marshal(map[string]any{"token": root + "~" + leaf, "said": `use handle=abc-_9, "now"`})
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(map[string]any{"content": []any{map[string]any{"text": string(inner)}}})
	if err != nil {
		t.Fatal(err)
	}
	got := stringsOf(t, line)
	for _, want := range []string{
		"content", string(inner), "token", root + "~" + leaf, root, leaf, part(`{"cnf":{"jkt":"thumb"}}`), "c2ln", "c2lnMg",
		"kid", "at-1", "jkt", "thumb", "aat+jwt", "here", `use handle=abc-_9, "now"`, "handle", "abc-_9", "now",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not among them", want)
		}
	}
	if got[0] != string(inner) {
		t.Errorf("the first is %q", got[0])
	}
}
