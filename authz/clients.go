package authz

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

// Method is how a client authenticates at the token, introspection and
// revocation endpoints. It uses exactly the one it is registered with.
type Method string

// The methods a client can be registered with.
const (
	MethodNone   Method = "none"
	MethodBasic  Method = "client_secret_basic"
	MethodPost   Method = "client_secret_post"
	MethodKeyJWT Method = "private_key_jwt" // agents, and clients with registered keys
)

// ClientKind is where a client comes from; it decides what it may do (§3b).
type ClientKind string

// The kinds of clients.
const (
	KindStatic     ClientKind = "static"     // added by an operator
	KindRegistered ClientKind = "registered" // by dynamic registration
	KindAgent      ClientKind = "agent"      // its id is the agent id
)

// Grant types as they are written in requests and metadata.
const (
	GrantCode              = "authorization_code"
	GrantRefresh           = "refresh_token"
	GrantClientCredentials = "client_credentials"
)

// Client is an OAuth client.
type Client struct {
	ID           string
	Name         string
	Kind         ClientKind
	Method       Method
	SecretHash   string // base64url SHA-256 of a secret of 256 random bits; empty for none
	RedirectURIs []string
	GrantTypes   []string
	Scopes       []string // client credentials and token exchange only: what it may get
	// Keys verify the assertions of private_key_jwt: for an agent its identity
	// key. They are authentication, never what a token is bound to.
	Keys []agent.PublicKey
	// BoundTokens says that it gets only tokens bound to a key by DPoP (RFC 9449
	// section 5.2: "dpop_bound_access_tokens").
	BoundTokens bool
	// Until, of an agent, is when its manifest expires: "an expired manifest gets
	// no new tokens" (delegation.md §10).
	Until time.Time
	// MaxDepth, of an agent, is how many levels its tokens may be handed on.
	MaxDepth        int
	ApplicationType string // "web" or "native", as registered; says nothing to us
	URI             string // client_uri, self-asserted
	LogoURI         string // logo_uri, never fetched
	Disabled        bool
	Created         time.Time
	Used            time.Time // zero until a person approved it or it got a token
}

// Public says that the client cannot keep a secret: its id is a name, not
// authentication.
func (c Client) Public() bool { return c.Method == MethodNone }

// hasSecret says that the client authenticates by a secret.
func (c Client) hasSecret() bool { return c.Method == MethodBasic || c.Method == MethodPost }

// May says whether the client may use a grant type (§3b).
func (c Client) May(grantType string) bool { return slices.Contains(c.GrantTypes, grantType) }

// MayIntrospect says whether the client may ask about tokens at all: static
// clients that authenticate, and agents (§3b).
func (c Client) MayIntrospect() bool { return !c.Public() && c.Kind != KindRegistered }

// NewClient is what AddClient needs to know of a static client.
type NewClient struct {
	ID           string // empty: a random one
	Name         string
	Method       Method // empty: client_secret_basic
	RedirectURIs []string
	GrantTypes   []string // empty: code and refresh with redirect URIs, client credentials with scopes
	Scopes       []string // what client credentials may get
	// Keys are those of private_key_jwt, which needs one and the others must
	// not have.
	Keys []agent.PublicKey
	// BoundTokens gives it only tokens bound to a key by DPoP.
	BoundTokens bool
}

// Actor is who administers: the command line, or a person or agent through the
// API.
type Actor struct {
	Agent string // audit.Operator, "user:<id>", or an agent id
	Sub   string // the person, if known
	Via   string // "cli", "api", "dev"
}

// entry begins the record of something an Actor did.
func (a Actor) entry(action, resource string, detail map[string]any) audit.Entry {
	if a.Via != "" {
		detail["via"] = a.Via
	}
	return audit.Entry{
		Agent: a.Agent, Sub: a.Sub, Action: action, Resource: resource,
		Result: audit.Allowed, Detail: detail,
	}
}

var (
	// ErrInvalid is the root of what is wrong with a client or resource that
	// somebody wants to add; its text says what.
	ErrInvalid = errors.New("authz: invalid")
	// ErrExists says that the id, or one of the scopes, is taken.
	ErrExists = errors.New("authz: it exists already")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// userPrefix begins the ids of people: a principal that has it is a person.
const userPrefix = "usr_"

// An agent id is 43 characters of base64url: a chosen id may not look like one.
var clientID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,41}$`)

// AddClient adds a static client and returns it with its secret, which exists
// nowhere else from then on. The record is committed with it.
func (g *Registry) AddClient(ctx context.Context, by Actor, n NewClient) (Client, Secret, error) {
	c := Client{
		ID: n.ID, Name: n.Name, Kind: KindStatic, Method: n.Method, RedirectURIs: n.RedirectURIs,
		GrantTypes: slices.Clone(n.GrantTypes), Scopes: slices.Clone(n.Scopes), Created: g.now(),
		Keys: slices.Clone(n.Keys), BoundTokens: n.BoundTokens,
	}
	if c.ID == "" {
		c.ID = newClientID()
	}
	if c.Method == "" {
		c.Method = MethodBasic
	}
	if len(c.GrantTypes) == 0 {
		if len(c.RedirectURIs) > 0 {
			c.GrantTypes = append(c.GrantTypes, GrantCode, GrantRefresh)
		}
		if len(c.Scopes) > 0 {
			c.GrantTypes = append(c.GrantTypes, GrantClientCredentials)
		}
	}
	slices.Sort(c.Scopes)
	c.Scopes = slices.Compact(c.Scopes)
	if err := g.checkStatic(ctx, c); err != nil {
		return Client{}, Secret{}, err
	}
	var secret Secret
	if c.hasSecret() {
		secret = newSecret()
		c.SecretHash = HashSecret(secret.text)
	}
	err := g.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{g.cfg.Store.InsertClient(c)},
		Entries: []audit.Entry{by.entry(audit.ClientAdd, c.ID, map[string]any{
			"method": string(c.Method), "grant_types": c.GrantTypes,
			"scopes": c.Scopes[:min(len(c.Scopes), recordedScopes)], "scope_count": len(c.Scopes),
		})},
	})
	if errors.Is(err, audit.ErrConflict) {
		return Client{}, Secret{}, fmt.Errorf("client %s: %w", c.ID, ErrExists)
	}
	if err != nil {
		return Client{}, Secret{}, fmt.Errorf("adding client: %w", err)
	}
	return c, secret, nil
}

func (g *Registry) checkStatic(ctx context.Context, c Client) error {
	if !clientID.MatchString(c.ID) || strings.HasPrefix(c.ID, userPrefix) {
		return invalid("a client id is 1 to 42 characters from A-Z a-z 0-9 . _ -, begins with a letter or digit and not with %s", userPrefix)
	}
	if c.ID == audit.Operator || c.ID == audit.ByServer {
		return invalid("the id %q would stand in the log for somebody else", c.ID)
	}
	if err := checkName(c.Name, "a client"); err != nil {
		return err
	}
	switch c.Method {
	case MethodNone, MethodBasic, MethodPost, MethodKeyJWT:
	default:
		return invalid("a client's method is none, client_secret_basic, client_secret_post or private_key_jwt")
	}
	if (c.Method == MethodKeyJWT) != (len(c.Keys) > 0) {
		return invalid("keys and private_key_jwt belong together")
	}
	if len(c.RedirectURIs) > maxRedirects || len(c.Scopes) > maxScopes {
		return invalid("a client has at most %d redirect URIs and %d scopes", maxRedirects, maxScopes)
	}
	for _, uri := range c.RedirectURIs {
		if problem := g.checkRedirect(uri); problem != "" {
			return invalid("redirect URI %q: %s", uri, problem)
		}
	}
	for _, grant := range c.GrantTypes {
		switch grant {
		case GrantCode:
			if len(c.RedirectURIs) == 0 {
				return invalid("authorization_code needs a redirect URI")
			}
		case GrantRefresh:
		case GrantClientCredentials, GrantExchange:
			if c.Public() {
				return invalid("%s needs a client that authenticates", grant)
			}
		default:
			return invalid("grant type %q is not served", grant)
		}
	}
	catalog, err := g.Catalog(ctx, c.Scopes...)
	if err != nil {
		return err
	}
	for _, name := range c.Scopes {
		if _, ok := catalog.Scope(name); !ok {
			return invalid("no resource has the scope %q", name)
		}
	}
	return nil
}

// checkName checks a name that is shown to people.
func checkName(name, of string) error {
	if name == "" || len(name) > 200 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return invalid("the name of %s is 1 to 200 bytes of text without control characters", of)
	}
	return nil
}

// newClientID cannot be taken for an agent id (43 characters) or a URL.
func newClientID() string { return "c-" + randomID(18) }

// ListClients lists static and registered clients by id, after the given one.
func (g *Registry) ListClients(ctx context.Context, after string, limit int) ([]Client, error) {
	return g.cfg.Store.Clients(ctx, after, limit)
}

// Client returns a client by id, whatever its kind, disabled ones too, or an
// error that is ErrNotFound.
func (g *Registry) Client(ctx context.Context, id string) (Client, error) {
	if id == "" || len(id) > 256 {
		return Client{}, ErrNotFound
	}
	if g.cfg.Agents == nil || !agent.IsID(id) { // no client id looks like an agent's
		return g.cfg.Store.Client(ctx, id)
	}
	found, err := g.cfg.Agents.Agent(ctx, id)
	if err != nil {
		return Client{}, err
	}
	return clientOf(found, g.now()), nil
}

// clientOf is an agent as the client it is (§3: "Agents are clients whose id is
// the agent id and whose method is private_key_jwt").
func clientOf(a Agent, now time.Time) Client {
	return Client{
		ID: a.ID, Name: a.Name, Kind: KindAgent, Method: MethodKeyJWT,
		GrantTypes: []string{GrantClientCredentials}, Scopes: a.Scopes,
		Keys: []agent.PublicKey{a.Key}, MaxDepth: a.Depth(), Disabled: !a.Active(now), Until: a.ManifestExpires, Created: a.Created,
	}
}

// UseClient is the effect that keeps a registered client from being reaped: it
// belongs into the Change that approves it or issues it a token.
func (g *Registry) UseClient(id string) audit.Effect { return g.cfg.Store.UseClient(id, g.now()) }
