package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

type clientCmds struct {
	Add  clientAddCmd  `cmd:"" help:"Add a client; prints its id, and its secret once."`
	List clientListCmd `cmd:"" help:"List static and registered clients."`
}

// clientAddCmd adds a static client (authorization-server.md §3b).
type clientAddCmd struct {
	Name        string   `arg:"" help:"Name for people."`
	ID          string   `name:"id" placeholder:"ID" help:"Client id (a random one)."`
	Method      string   `enum:"client_secret_basic,client_secret_post,private_key_jwt,none" default:"client_secret_basic" help:"How it authenticates: ${enum} (${default})."`
	RedirectURI []string `name:"redirect-uri" sep:"none" placeholder:"URL" help:"Where codes may go; repeatable."`
	Grant       []string `sep:"," placeholder:"TYPE" help:"authorization_code, refresh_token, client_credentials or urn:ietf:params:oauth:grant-type:token-exchange; repeatable (what redirect URIs and scopes suggest)."`
	Scope       string   `placeholder:"SCOPES" help:"What client_credentials and token exchange may give it, separated by spaces."`
	JWKSFile    string   `name:"jwks-file" placeholder:"FILE" help:"Its public keys, a JWK Set, for private_key_jwt."`
	DPoP        bool     `name:"dpop" help:"Give it only tokens that are bound to a key by DPoP."`
	placeFlags
	jsonFlag
}

// clientView is a client as the commands print it.
type clientView struct {
	ID           string   `json:"client_id"`
	Secret       string   `json:"client_secret,omitempty"`
	Name         string   `json:"client_name"`
	Kind         string   `json:"kind"`
	Method       string   `json:"token_endpoint_auth_method"`
	GrantTypes   []string `json:"grant_types"`
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	Scope        string   `json:"scope,omitempty"`
	Keys         []string `json:"keys,omitempty"` // thumbprints
	BoundTokens  bool     `json:"dpop_bound_access_tokens,omitempty"`
	Disabled     bool     `json:"disabled,omitempty"`
	Created      string   `json:"created"`
}

func viewClient(c authz.Client) clientView {
	var keys []string
	for _, k := range c.Keys {
		keys = append(keys, k.Thumbprint())
	}
	return clientView{
		Keys: keys, BoundTokens: c.BoundTokens,
		ID: c.ID, Name: c.Name, Kind: string(c.Kind), Method: string(c.Method), GrantTypes: append([]string{}, c.GrantTypes...),
		RedirectURIs: c.RedirectURIs, Scope: strings.Join(c.Scopes, " "), Disabled: c.Disabled, Created: when(c.Created),
	}
}

// keys reads --jwks-file.
func (c *clientAddCmd) keys(w *world) ([]agent.PublicKey, error) {
	if (c.JWKSFile != "") != (c.Method == string(authz.MethodKeyJWT)) {
		return nil, usagef("give both or neither", "--jwks-file and --method private_key_jwt belong together")
	}
	if c.JWKSFile == "" {
		return nil, nil
	}
	text, err := w.read(c.JWKSFile)
	if err != nil {
		return nil, err
	}
	keys, err := authz.ParseClientKeys(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.JWKSFile, operatorError(err))
	}
	return keys, nil
}

func (c *clientAddCmd) Run(w *world) error {
	keys, err := c.keys(w)
	if err != nil {
		return err
	}
	d, err := c.makeRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	client, secret, err := d.registry.AddClient(w.ctx, byOperator, authz.NewClient{
		ID: c.ID, Name: c.Name, Method: authz.Method(c.Method),
		RedirectURIs: c.RedirectURI, GrantTypes: c.Grant, Scopes: words(c.Scope),
		Keys: keys, BoundTokens: c.DPoP,
	})
	if err != nil {
		return fmt.Errorf("adding client %s: %w", c.Name, operatorError(err))
	}
	view := viewClient(client)
	view.Secret = secret.Reveal()
	if len(client.GrantTypes) == 0 {
		w.note("hint: it can introspect, and get no token: --redirect-uri or --scope give it a grant")
	}
	if c.JSON {
		return w.printJSON(view)
	}
	pairs := []string{"client_id", view.ID}
	if view.Secret != "" {
		pairs = append(pairs, "client_secret", view.Secret)
		defer w.note("hint: keep the secret now, it is not shown again")
	}
	return w.fields(pairs...)
}

type clientListCmd struct {
	placeFlags
	jsonFlag
}

// listPage is how many rows a list command reads at a time.
const listPage = 200

func (c *clientListCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	views := []clientView{}
	for after := ""; ; {
		page, err := d.registry.ListClients(w.ctx, after, listPage)
		if err != nil {
			return fmt.Errorf("listing clients: %w", err)
		}
		for _, client := range page {
			views = append(views, viewClient(client))
		}
		if len(page) < listPage {
			break
		}
		after = page[len(page)-1].ID
	}
	if c.JSON {
		return w.printJSON(views)
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		rows[i] = []string{v.ID, v.Name, v.Kind, v.Method, strings.Join(v.GrantTypes, ","), v.Created}
	}
	return w.table([]string{"CLIENT", "NAME", "KIND", "METHOD", "GRANTS", "CREATED"}, rows)
}

// byOperator is who administers on the command line.
var byOperator = authz.Actor{Agent: "operator", Via: "cli"}

// operatorError makes an answer of the server's own packages fit for a
// terminal: an operator may know what exactly was wrong.
func operatorError(err error) error {
	var oauth *authz.Error
	if errors.As(err, &oauth) && oauth.Description != "" {
		return errors.New(oauth.Description)
	}
	return &plainError{err: err, text: strings.NewReplacer("authz: invalid: ", "", "authz: ", "").Replace(err.Error())}
}
