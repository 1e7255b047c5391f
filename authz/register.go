package authz

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/kavach-dev/kavach/audit"
)

const (
	registerEndpoint = "/oauth/register"
	maxRedirects     = 32
)

// registration is a request of RFC 7591 §3.1. Members that are not here are
// accepted and ignored: client_id (the server chooses it), scope (a client is
// not locked to what it wrote here), contacts, software_id and the like.
type registration struct {
	RedirectURIs      []string        `json:"redirect_uris"`
	Method            *string         `json:"token_endpoint_auth_method"`
	GrantTypes        []string        `json:"grant_types"`
	ResponseTypes     []string        `json:"response_types"`
	Name              string          `json:"client_name"`
	URI               string          `json:"client_uri"`
	LogoURI           string          `json:"logo_uri"`
	ApplicationType   string          `json:"application_type"`
	JWKS              json.RawMessage `json:"jwks"`
	JWKSURI           string          `json:"jwks_uri"`
	BoundTokens       bool            `json:"dpop_bound_access_tokens"`
	SoftwareStatement json.RawMessage `json:"software_statement"`
}

// registered is the answer of RFC 7591 §3.2.1: what the client got, whatever
// it asked for. No registration_client_uri: there is no management endpoint.
type registered struct {
	ClientID        string   `json:"client_id"`
	IssuedAt        int64    `json:"client_id_issued_at"`
	Secret          string   `json:"client_secret,omitempty"`
	SecretExpires   *int64   `json:"client_secret_expires_at,omitempty"` // "REQUIRED if client_secret is issued"; 0 is never
	RedirectURIs    []string `json:"redirect_uris"`
	Method          Method   `json:"token_endpoint_auth_method"`
	GrantTypes      []string `json:"grant_types"`
	ResponseTypes   []string `json:"response_types"`
	Name            string   `json:"client_name,omitempty"`
	URI             string   `json:"client_uri,omitempty"`
	LogoURI         string   `json:"logo_uri,omitempty"`
	ApplicationType string   `json:"application_type,omitempty"`
	JWKS            *keySet  `json:"jwks,omitempty"`
	BoundTokens     bool     `json:"dpop_bound_access_tokens,omitempty"` // RFC 9449 §5.2
}

// HandleRegister is POST /oauth/register (RFC 7591).
func (g *Registry) HandleRegister(w http.ResponseWriter, r *http.Request) {
	allowCORS(http.HandlerFunc(g.serveRegister)).ServeHTTP(w, r)
}

func (g *Registry) serveRegister(w http.ResponseWriter, r *http.Request) {
	if g.cfg.Registration == RegistrationOff {
		WriteError(w, &Error{Status: http.StatusNotFound, Code: "not_found", Description: "clients are added by the operator here"})
		return
	}
	if r.Method != http.MethodPost {
		WriteError(w, methodNotAllowed(w, "POST"))
		return
	}
	source := addressKey(ClientAddress(r, g.cfg.TrustedProxies))
	answer, err := g.register(w, r, source)
	if err != nil {
		g.cfg.Refusals.Refuse(source, registerEndpoint, audit.Entry{
			Action: audit.ClientRefuse, Resource: registerEndpoint, Result: resultOf(err), Reason: oauthError(err).Code,
		})
		g.logFailure(r.Context(), "registering a client", err)
		WriteError(w, err)
		return
	}
	WriteJSON(w, http.StatusCreated, answer)
}

func (g *Registry) register(w http.ResponseWriter, r *http.Request, source string) (registered, error) {
	// Before anything is read: a flood costs an address its bucket and us
	// nothing.
	left, wait, ok := g.limiter.take(source, g.now())
	h := w.Header()
	h.Set("RateLimit-Policy", fmt.Sprintf(`"register";q=%d;w=60`, g.cfg.RegistrationRate))
	h.Set("RateLimit", fmt.Sprintf(`"register";r=%d;t=%d`, left, max(wait, 1)))
	if !ok {
		return registered{}, &Error{
			Status: http.StatusTooManyRequests, Code: "temporarily_unavailable",
			Description: "too many registrations from this address; try again in " + strconv.Itoa(wait) + " s", RetryAfter: wait,
		}
	}
	if g.cfg.Registration == RegistrationToken {
		if err := g.checkInitialToken(r); err != nil {
			return registered{}, err
		}
	}
	if !contentType(r, "application/json") {
		return registered{}, badMetadata("Content-Type must be application/json")
	}
	body, err := readBody(w, r)
	if err != nil {
		return registered{}, err
	}
	c, err := g.parseRegistration(body)
	if err != nil {
		return registered{}, err
	}
	var secret Secret
	if c.hasSecret() {
		secret = newSecret()
		c.SecretHash = HashSecret(secret.text)
	}
	return g.commitRegistration(r.Context(), c, secret, source)
}

func (g *Registry) commitRegistration(ctx context.Context, c Client, secret Secret, source string) (registered, error) {
	err := g.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{g.cfg.Store.InsertClient(c)},
		Entries: []audit.Entry{{
			Action: audit.ClientRegister, Resource: c.ID, Result: audit.Allowed,
			Detail: map[string]any{
				"method": string(c.Method), "grant_types": c.GrantTypes, "redirect_hosts": hostsOf(c.RedirectURIs),
			},
		}},
	})
	if err != nil {
		return registered{}, fmt.Errorf("storing a registration: %w", err)
	}
	answer := registered{
		ClientID: c.ID, IssuedAt: c.Created.Unix(), RedirectURIs: c.RedirectURIs, Method: c.Method,
		GrantTypes: c.GrantTypes, ResponseTypes: []string{"code"},
		Name: c.Name, URI: c.URI, LogoURI: c.LogoURI, ApplicationType: c.ApplicationType,
		JWKS: keySetOf(c.Keys), BoundTokens: c.BoundTokens,
	}
	if !secret.IsZero() {
		answer.Secret, answer.SecretExpires = secret.Reveal(), new(int64)
	}
	return answer, nil
}

// hostsOf is what the record says of redirect URIs: their hosts, each once, as
// many as a record has room for.
func hostsOf(uris []string) []string {
	hosts := []string{}
	for _, uri := range uris[:min(len(uris), 16)] {
		if u, err := url.Parse(uri); err == nil && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// checkInitialToken asks for the initial access token of RFC 7591 §3.
func (g *Registry) checkInitialToken(r *http.Request) error {
	header := r.Header.Values("Authorization")
	if len(header) == 1 {
		scheme, token, _ := strings.Cut(header[0], " ")
		if strings.EqualFold(scheme, "Bearer") && secretMatches(g.cfg.RegistrationTokenHash, token) {
			return nil
		}
		return &Error{
			Status: http.StatusUnauthorized, Code: "invalid_token", Description: "the initial access token is not valid",
			Challenge: `Bearer realm="kavach", error="invalid_token"`,
		}
	}
	return &Error{
		Status: http.StatusUnauthorized, Code: "invalid_token", Description: "an initial access token is needed",
		Challenge: `Bearer realm="kavach"`,
	}
}

func badMetadata(description string) *Error {
	return badRequest("invalid_client_metadata", description)
}

func (g *Registry) parseRegistration(body []byte) (Client, error) {
	var req registration
	// The decoder refuses duplicate members and compares names exactly; bad
	// UTF-8 it would replace.
	if !utf8.Valid(body) || json.Unmarshal(body, &req) != nil {
		return Client{}, badMetadata("the body is not a JSON object of client metadata")
	}
	method := MethodBasic // RFC 7591 §2: "If unspecified or omitted, the default is client_secret_basic"
	if req.Method != nil {
		method = Method(*req.Method)
	}
	switch method {
	case MethodNone, MethodBasic, MethodPost, MethodKeyJWT:
	default:
		return Client{}, badMetadata("token_endpoint_auth_method must be none, client_secret_basic, client_secret_post or private_key_jwt")
	}
	keys, err := registeredKeys(req, method)
	if err != nil {
		return Client{}, err
	}
	grants, err := registeredGrants(req)
	if err != nil {
		return Client{}, err
	}
	if err := g.checkRegisteredRedirects(req.RedirectURIs); err != nil {
		return Client{}, err
	}
	switch {
	case len(req.SoftwareStatement) > 0 && string(req.SoftwareStatement) != "null":
		// Ignoring it would let a client believe that it was vouched for.
		return Client{}, badMetadata("software statements are not accepted here")
	case len(req.Name) > 200 || strings.ContainsFunc(req.Name, hidden) || req.Name != "" && !strings.ContainsFunc(req.Name, visible):
		return Client{}, badMetadata("client_name is at most 200 bytes of visible text")
	case !webPage(req.URI) || !webPage(req.LogoURI):
		return Client{}, badMetadata("client_uri and logo_uri are http(s) URLs of at most 2048 bytes")
	case req.ApplicationType != "" && req.ApplicationType != "web" && req.ApplicationType != "native":
		return Client{}, badMetadata("application_type must be web or native")
	}
	return Client{
		ID: newClientID(), Name: req.Name, Kind: KindRegistered, Method: method,
		RedirectURIs: req.RedirectURIs, GrantTypes: grants, ApplicationType: req.ApplicationType,
		URI: req.URI, LogoURI: req.LogoURI, Keys: keys, BoundTokens: req.BoundTokens, Created: g.now(),
	}, nil
}

// registeredGrants drops what registered clients do not get; the echo says so
// (§3b).
func registeredGrants(req registration) ([]string, error) {
	if req.ResponseTypes != nil && !slices.Contains(req.ResponseTypes, "code") {
		return nil, badMetadata("response_types must contain code")
	}
	if req.GrantTypes == nil {
		return []string{GrantCode}, nil // the default of RFC 7591 §2
	}
	if !slices.Contains(req.GrantTypes, GrantCode) {
		return nil, badMetadata("grant_types must contain authorization_code: registered clients get that and refresh_token only")
	}
	grants := []string{GrantCode}
	if slices.Contains(req.GrantTypes, GrantRefresh) {
		grants = append(grants, GrantRefresh)
	}
	return grants, nil
}

func (g *Registry) checkRegisteredRedirects(uris []string) error {
	if len(uris) == 0 {
		return badRequest("invalid_redirect_uri", "redirect_uris is missing")
	}
	if len(uris) > maxRedirects {
		return badMetadata("at most 32 redirect_uris")
	}
	for i, uri := range uris {
		if problem := g.checkRedirect(uri); problem != "" {
			return badRequest("invalid_redirect_uri", fmt.Sprintf("redirect_uris[%d]: %s", i, problem))
		}
	}
	return nil
}

// hidden says that a rune cannot be seen, or turns or breaks the line that
// others stand in. The two joiners may stay: emoji and Persian need them.
func hidden(r rune) bool {
	switch r {
	case '\u200c', '\u200d':
		return false
	case '\u2800', utf8.RuneError: // the first is a Braille pattern without dots
		return true
	}
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp,
		unicode.Bidi_Control, unicode.Other_Default_Ignorable_Code_Point)
}

// visible says that a rune alone shows something.
func visible(r rune) bool { return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) }

// webPage says that text is empty or an address a person may be shown.
func webPage(text string) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && len(text) <= maxRedirect && (u.Scheme == "https" || u.Scheme == "http") &&
		u.Hostname() != "" && u.User == nil
}
