package authz

import (
	"context"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// FlowStore holds what an authorization needs while it happens and while it
// lives: the pending request, the code, the grant, its refresh tokens and the
// memory of consent. There is no row per access token.
//
// Reads answer ErrNotFound for what is not there; any other error means that
// the storage failed. Writes are effects of a Change: conditional where the
// condition decides who wins, and never a read before it.
type FlowStore interface {
	// Grant reads one authorization or standing grant.
	Grant(ctx context.Context, id string) (Grant, error)
	// StandingGrant reads the standing grant of an agent.
	StandingGrant(ctx context.Context, agentID string) (Grant, error)
	// AgentStanding reads, in one query, the standing grant of an agent, also a
	// removed one, and what the agent stands on: itself, its owner, and what of
	// both, of the grant and of the key was revoked. jkt may be "".
	AgentStanding(ctx context.Context, agentID, jkt string, now time.Time) (Grant, Standing, error)
	// Code reads a code by the hash of its text, used and expired ones too.
	Code(ctx context.Context, hash string) (Code, error)
	// RefreshToken reads a refresh token, used and expired ones too, and the
	// grant it belongs to, in one round trip.
	RefreshToken(ctx context.Context, hash string) (RefreshToken, Grant, error)
	// Pending reads a pending request, decided and expired ones too.
	Pending(ctx context.Context, id string) (Pending, error)
	// Consents reads what a person approved for a client at a redirect URI.
	Consents(ctx context.Context, sub, clientID, redirectURI string) ([]Consent, error)

	// AddGrant adds a grant; its id must be new.
	AddGrant(g Grant) audit.Effect
	// PutStandingGrant sets the standing grant of g.ClientID, replacing the
	// scopes, depth and hours of the one before and keeping its id.
	PutStandingGrant(g Grant) audit.Effect
	// RevokeGrant ends a grant; hitting none is not an error.
	RevokeGrant(id string, now time.Time) audit.Effect
	// TouchGrant notes the use of a grant that is active and not past its end,
	// and is lost if it is not.
	TouchGrant(id string, now time.Time) audit.Effect

	// AddCode adds a code.
	AddCode(c Code) audit.Effect
	// UseCode marks an unused, unexpired code as used, and is lost if it is
	// not. The row stays until keep, so that a later use is recognised.
	UseCode(hash string, now, keep time.Time) audit.Effect

	// AddRefreshToken adds a refresh token.
	AddRefreshToken(t RefreshToken) audit.Effect
	// UseRefreshToken marks an unused, unexpired refresh token as used, and is
	// lost if it is not.
	UseRefreshToken(hash string, now time.Time) audit.Effect

	// AddPending adds a pending request.
	AddPending(p Pending) audit.Effect
	// DecidePending closes an open, unexpired request, and is lost if it is not.
	DecidePending(id string, now time.Time) audit.Effect

	// PutConsent remembers one approved scope.
	PutConsent(c Consent) audit.Effect
	// DropConsent forgets one approved scope, if it is remembered.
	DropConsent(c Consent) audit.Effect

	// Handle reads a handle by the hash of its text, used and expired ones too.
	Handle(ctx context.Context, hash string) (Handle, error)
	// AddHandle adds a handle.
	AddHandle(h Handle) audit.Effect
	// UseHandle marks an unused, unexpired handle that was not revoked as used
	// and forgets what it stands for, and is lost if it is not such a one.
	UseHandle(hash string, now time.Time) audit.Effect

	// ExpiredFlows are pending requests, codes, handles, refresh tokens and
	// grants that could decide nothing any more at the time.
	ExpiredFlows(ended time.Time) []audit.Expired
}

// GrantKind says what a grant is.
type GrantKind string

// The kinds of grants.
const (
	// GrantAuthorization is one authorization of a person for a client.
	GrantAuthorization GrantKind = "authorization"
	// GrantStanding is what an agent may get on its own authentication.
	GrantStanding GrantKind = "standing"
)

// A Grant is the authority that tokens with its id (`gid`) come from.
type Grant struct {
	// ID is the `gid` of every token below this grant.
	ID string
	// Kind tells an authorization from a standing grant.
	Kind GrantKind
	// Sub is the principal: the person, or for a standing grant the agent.
	Sub string
	// ClientID is the client, or the agent.
	ClientID string
	// RedirectURI is where the code went; empty for a standing grant.
	RedirectURI string
	// Scopes is what was approved, sorted.
	Scopes []string
	// Resources is what it was approved for, sorted; empty for a standing
	// grant, whose scopes name their resources.
	Resources []string
	// MaxDepth is how many levels may be derived below it.
	MaxDepth int
	// Hours is the window of the week in which a standing grant gives tokens;
	// empty is always.
	Hours string
	// Created and Used are times of the first and the latest token.
	Created, Used time.Time
	// Expires is the absolute end; zero is never.
	Expires time.Time
	// Revoked is when it ended early; zero is not.
	Revoked time.Time
}

// Live reports whether the grant still gives tokens at now.
func (g Grant) Live(now time.Time) bool {
	return g.Revoked.IsZero() && (g.Expires.IsZero() || now.Before(g.Expires))
}

// A Code is an authorization code and all that was decided when it was issued.
// The grant's row is made when the code is redeemed.
type Code struct {
	// Hash is the base64url SHA-256 of the code.
	Hash string
	// GrantID is the `gid` that its tokens will carry.
	GrantID string
	// ClientID, RedirectURI and Challenge are what a redemption must match.
	ClientID, RedirectURI, Challenge string
	// RedirectSent says that the request named the redirect URI, so that the
	// token request has to repeat it (RFC 6749 section 4.1.3).
	RedirectSent bool
	// Sub is the person.
	Sub string
	// Scopes and Resources are what was approved, sorted.
	Scopes, Resources []string
	// MaxDepth becomes the grant's.
	MaxDepth int
	// JKT is the thumbprint of the key whose proof a redemption needs, "" for
	// none (RFC 9449 section 10).
	JKT string
	// Created and Expires bound its life.
	Created, Expires time.Time
	// Used is when it was redeemed; zero is not.
	Used time.Time
}

// A RefreshToken is one member of a family; the family is its grant.
type RefreshToken struct {
	// Hash is the base64url SHA-256 of the token.
	Hash string
	// GrantID is the family.
	GrantID string
	// ClientID is who may use it.
	ClientID string
	// JKT is the thumbprint of the key whose proof a use needs, "" for none.
	JKT string
	// Created and Expires bound its idle life.
	Created, Expires time.Time
	// Used is when it was rotated; zero is not.
	Used time.Time
	// FamilyEnd is the absolute end of the family; used rows stay until then.
	FamilyEnd time.Time
}

// A Pending request waits for a person: across login and consent, bound to the
// browser session it began in, decided at most once.
type Pending struct {
	// ID is the hash of the transaction id that the pages carry.
	ID string
	// Browser is the hash of the browser session.
	Browser string
	// ClientID and RedirectURI are validated before the row is made.
	ClientID, RedirectURI string
	// RedirectSent says that the request named the redirect URI.
	RedirectSent bool
	// State is echoed; StateSent tells an empty one from none.
	State     string
	StateSent bool
	// Challenge is the PKCE challenge, S256.
	Challenge string
	// JKT becomes the code's.
	JKT string
	// Scopes and Resources are what was asked for, sorted.
	Scopes, Resources []string
	// Prompt is `consent`, `login` or empty.
	Prompt string
	// LoginHint fills the name field of the login page.
	LoginHint string
	// Created and Expires bound its life.
	Created, Expires time.Time
	// Decided is when it was closed; zero is open.
	Decided time.Time
}

// A Consent remembers one scope that a person approved.
type Consent struct {
	// Sub is the person.
	Sub string
	// ClientID and RedirectURI are the client and the registered redirect URI.
	ClientID, RedirectURI string
	// Resource and Scope are what was approved.
	Resource, Scope string
	// Fingerprint is the hash of the client's name and keys at that time: a
	// client that changed is asked again.
	Fingerprint string
	// Granted is when.
	Granted time.Time
}
