// Command orchestrator is a program that works with agents: it signs in to kavach
// with its own key, and has a helper proofread one document. The helper gets two
// tokens, one to read that document, one to comment on one paragraph of it, and
// can do nothing else with them, nor can anybody who finds them.
//
// With `kavach serve --dev` and ../handler running, and two agents of yours:
//
//	kavach agent create editor --version 1.0.0 --purpose 'Has documents edited' \
//	  --scope 'docs:read docs:comment' --capability delegate
//	kavach agent create proofreader --version 1.0.0 --purpose 'Proofreads' --scope 'docs:read docs:comment'
//	# register both as README.md of kavach says, then
//	kavach agent grant editor --scope 'docs:read docs:comment' --dev
//	go run ./orchestrator -agents ..   # where their keys are
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

func main() {
	issuer := flag.String("issuer", "http://127.0.0.1:8420", "the kavach to sign in to")
	host := flag.String("docs", "http://127.0.0.1:9000", "the document host")
	agents := flag.String("agents", ".", "folder with the keys and manifests of editor and proofreader")
	flag.Parse()
	log.SetFlags(0)
	if err := run(context.Background(), *issuer, *host, *agents); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, issuer, host, agents string) error {
	editor, err := newAgent(issuer, agents, "editor")
	if err != nil {
		return err
	}
	proofreader, err := newAgent(issuer, agents, "proofreader")
	if err != nil {
		return err
	}
	// The helper lives here for brevity. Elsewhere the two lines that matter
	// would be messages: a card goes one way, a chain the other, and no private
	// key either way.
	h, err := newHelper(proofreader, editor.ID())
	if err != nil {
		return err
	}

	// Signed in, and staying so: a session renews its token before it expires.
	// The token is bound to a key that was made for it and never leaves here.
	session := editor.Stay(client.Ask{Scopes: []string{"docs:read", "docs:comment"}, Resources: []string{host}})
	held, err := session.Credential(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("signed in as %s for %s\n", editor.ID(), strings.Join(held.Scopes, " "))

	// The card proves that the key is the helper's: it is signed with the
	// identity that the helper's manifest shows.
	manifest, err := os.ReadFile(filepath.Join(agents, "proofreader.manifest.jwt"))
	if err != nil {
		return err
	}
	known, err := agent.VerifyManifest(strings.TrimSpace(string(manifest)), time.Now())
	if err != nil {
		return err
	}
	card, err := agent.VerifyCard(h.card, known.Key, agent.CardCheck{Agent: known.ID, Audience: editor.ID(), Now: time.Now()})
	if err != nil {
		return err
	}

	// Both tokens are made here, without asking kavach. They can only be less
	// than what is held.
	read, err := held.Derive(card.Key, known.ID, delegation.Narrow{
		Card: h.card, Scopes: []string{"docs:read"}, TTL: 3 * time.Minute,
		Limits: delegation.Limits{Resources: []string{"docs/charter"}, AllowNetwork: []string{}},
	}, time.Now())
	if err != nil {
		return err
	}
	write, err := held.Derive(card.Key, known.ID, delegation.Narrow{
		Card: h.card, Scopes: []string{"docs:comment"}, TTL: time.Minute,
		Limits: delegation.Limits{Resources: []string{"docs/charter/paragraph/1"}, AllowNetwork: []string{}},
	}, time.Now())
	if err != nil {
		return err
	}
	if _, err := held.Derive(card.Key, known.ID, delegation.Narrow{Scopes: []string{"docs:write"}}, time.Now()); err == nil {
		return errors.New("more was handed on than is held")
	}
	return h.proofread(ctx, host, read, write)
}

// newAgent is an agent whose key lies in a folder, as `kavach agent create` left
// it there.
func newAgent(issuer, folder, name string) (*client.Agent, error) {
	text, err := os.ReadFile(filepath.Join(folder, name+".key.json"))
	if err != nil {
		return nil, err
	}
	key, err := agent.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Issuer: issuer, Key: key})
}

// helper is the agent that does the work.
type helper struct {
	key  agent.PrivateKey // made for this one delegation
	card string
}

func newHelper(identity *client.Agent, delegator string) (*helper, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return nil, err
	}
	card, err := identity.Card(delegator, key.Public())
	return &helper{key, card}, err
}

// proofread reads the document and comments on it, and then shows what else the
// tokens are good for.
func (h *helper) proofread(ctx context.Context, host, read, write string) error {
	reader, err := h.http(read)
	if err != nil {
		return err
	}
	writer, err := h.http(write)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		says   string
		client *http.Client
		method string
		url    string
		body   string
	}{
		{"reads the charter", reader, "GET", host + "/docs/charter", ""},
		{"comments on paragraph 1", writer, "POST", host + "/docs/charter/comments", `{"paragraph":"1","text":"Who are we?"}`},
		{"reads the minutes", reader, "GET", host + "/docs/minutes", ""},
		{"comments with the token to read", reader, "POST", host + "/docs/charter/comments", `{"paragraph":"1","text":"Me again."}`},
		{"comments on paragraph 2", writer, "POST", host + "/docs/charter/comments", `{"paragraph":"2","text":"Me again."}`},
		{"calls another host", reader, "GET", "https://elsewhere.example/", ""},
	} {
		answer, err := call(ctx, step.client, step.method, step.url, step.body)
		if err != nil {
			return err
		}
		fmt.Printf("the helper %s: %s\n", step.says, answer)
	}
	return nil
}

// http is a client that holds a token: it adds the token and a proof for the document
// host, and opens no connection that the token does not allow.
func (h *helper) http(chain string) (*http.Client, error) {
	held, err := client.Hold(chain, h.key)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &client.Transport{Source: held}}, nil
}

// call sends one request and says what came of it.
func call(ctx context.Context, c *http.Client, method, url, body string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := c.Do(r)
	if refused := new(client.Refused); errors.As(err, &refused) {
		return "refused before a byte left: " + refused.Destination, nil
	}
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %q", response.StatusCode, text), err
}
