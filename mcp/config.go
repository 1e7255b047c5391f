package mcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// Names of kavach's own scopes. What each permits is in the resource registry;
// they are here because the tools ask for them.
const (
	ScopeDelegate  = "kavach:delegate"
	ScopeVerify    = "kavach:verify"
	ScopeAudit     = "kavach:audit"
	ScopeAuditRead = "audit:read"
)

// Path is where the endpoint is mounted below the issuer.
const Path = "/mcp"

// Delegator hands authority on: the one deriving function.
type Delegator interface {
	// Delegate narrows what parent may do as ask says, records the decision,
	// whichever it is, and returns the new token. Its error is a
	// *delegation.Refusal, audit.ErrUnavailable, or one with
	// OAuthError() (code, description string).
	Delegate(ctx context.Context, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error)
	// DelegateHandle decides the same and returns, instead of the token, a
	// handle that the named agent redeems once, with its own key. credential is
	// the text that parent was verified from. The Token of what is returned is
	// the handle, its times are those of the handle, and the rest says what the
	// token will be.
	DelegateHandle(ctx context.Context, credential string, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error)
}

// Revocation names what shall no longer work; exactly one member is set.
type Revocation struct{ TokenID, Agent, Chain string }

// Revoked says what no longer works.
type Revoked struct {
	// Revoked holds the token ids that were named by the revocation.
	Revoked []string
	// Below counts unexpired delegations below them.
	Below int
	// Recorded is false when the log refused; the revocation stands.
	Recorded bool
}

// Revoker takes authority away.
type Revoker interface {
	// Revoke revokes what lies below caller, records the decision, whichever
	// it is, and tells what was hit. Its errors are those of a Delegator; one
	// beside a Revoked that names something means that it is revoked and only
	// Below is not known.
	Revoke(ctx context.Context, caller *delegation.Chain, what Revocation) (Revoked, error)
}

// Verifier judges tokens: steps 0 to 12. A *delegation.Verifier is one.
type Verifier interface {
	Verify(token string, now time.Time) (*delegation.Chain, error)
}

// Revocations says whether a chain was revoked.
type Revocations interface {
	Revoked(ctx context.Context, chain *delegation.Chain) (bool, error)
}

// Auditor reads the log. A *audit.Reader is one.
type Auditor interface {
	Entries(ctx context.Context, q audit.Query) (audit.Page, error)
	Entry(ctx context.Context, sight audit.Sight, id string) (audit.Stored, error)
}

// Refusals takes refusals to callers that did not authenticate. A *audit.Log is
// one.
type Refusals interface {
	Refuse(source, endpoint string, e audit.Entry)
}

// Agents knows which agents a caller can delegate to.
type Agents interface {
	// AgentNames returns at most limit names, sorted, of active agents of the
	// person behind the principal that begin with prefix.
	AgentNames(ctx context.Context, principal, prefix string, limit int) ([]string, error)
}

// Config is what a Server is made of.
type Config struct {
	// Issuer is the configured issuer URL, without a trailing slash. The
	// endpoint is Issuer + Path.
	Issuer string
	// Version is this build's, shown to clients.
	Version string
	// Verifier and Revocations authenticate callers, and answer the tool
	// verify. Without Revocations tokens live until they expire, and verify
	// lists revocation as unchecked.
	Verifier    Verifier
	Revocations Revocations
	// Replays remembers used proofs for every process that serves the endpoint.
	// Nil: in memory.
	Replays guard.Replays
	// Nonces, if set, makes every proof carry a nonce of this server.
	Nonces guard.Nonces
	// Counters debits the budgets of tokens with max_calls for every process that
	// serves the endpoint. Nil: such tokens are refused.
	Counters guard.Counters
	// Baseline are the scopes the first challenge names. Nil: kavach:audit,
	// kavach:delegate and kavach:verify.
	Baseline []string
	// Delegator, Revoker, Auditor stand behind the tools.
	Delegator Delegator
	Revoker   Revoker
	Auditor   Auditor
	// Agents completes names of agents. Nil: none are offered.
	Agents Agents
	// Commit records tool calls before they are answered.
	Commit audit.Committer
	// Refusals records refusals to callers without a usable token.
	Refusals Refusals
	// Source names who sent a request, for Refusals. Nil: the host of the
	// connection's other end.
	Source func(*http.Request) string
	// Origins are web origins (scheme://host[:port]) whose pages may call,
	// beside the issuer's own. On a loopback issuer every loopback origin may.
	Origins []string
	// Hosts are names (host[:port]) under which this server may be addressed,
	// beside the issuer's. On a loopback issuer every loopback name will do.
	Hosts []string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: discarded.
	Log *slog.Logger
}

func (cfg *Config) complete() error {
	for _, missing := range []struct {
		absent bool
		name   string
	}{
		{cfg.Issuer == "", "Issuer"}, {cfg.Delegator == nil, "Delegator"},
		{cfg.Revoker == nil, "Revoker"}, {cfg.Verifier == nil, "Verifier"}, {cfg.Auditor == nil, "Auditor"},
		{cfg.Commit == nil, "Commit"}, {cfg.Refusals == nil, "Refusals"},
	} {
		if missing.absent {
			return errors.New("mcp: Config." + missing.name + " is missing")
		}
	}
	if cfg.Version == "" {
		cfg.Version = "devel"
	}
	if cfg.Baseline == nil {
		cfg.Baseline = []string{ScopeAudit, ScopeDelegate, ScopeVerify}
	}
	if cfg.Source == nil {
		cfg.Source = func(r *http.Request) string {
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			if err != nil {
				return r.RemoteAddr
			}
			return host
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
