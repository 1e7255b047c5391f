package authz

import (
	"context"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// flow is one authorization or token request on its way: what the pre-filter
// loaded and decided, and the effects that will be committed with its answer.
// It belongs to the goroutine of its request.
type flow struct {
	now    time.Time
	client Client
	// grantType is that of a token request.
	grantType string
	// assertion spends the client assertion of a token request, proofOnce its
	// DPoP proof, if it came with one: commitToken spends both together with
	// what the answer needs.
	assertion []audit.Effect
	proof     *agent.VerifiedProof
	proofOnce []audit.Effect
	// entry begins the record, for a grant whose record is not that of a token
	// request (token exchange); lost answers when an effect of the grant's own
	// is lost. Nil: the usual ones.
	entry *audit.Entry
	lost  *Error
	// handle is the hash of the handle that was presented, if there is such a
	// one: a refusal names it.
	handle string
	// code is the one being issued, or the one that was presented.
	code Code
	// refresh is the token that was presented, reuse says that its family has
	// to end.
	refresh RefreshToken
	reuse   bool
	// grant is what tokens come from: stored, or about to be.
	grant Grant
	// plan is the access token to be signed.
	plan plan
	// lid identifies the signed token in records.
	lid string
	// effects are what the answer needs to be true; notes go with them, and
	// cannot be lost.
	effects []audit.Effect
	notes   []audit.Effect
	// revocations are what the reuse of a code or a refresh token ends.
	revocations []Revocation
}

// plan is an access token before it is signed.
type plan struct {
	sub       string
	gid       string
	alg       string
	scopes    []string
	resources []string
	expires   time.Time
	// root makes the root of a chain, below which depth levels may be derived.
	root  bool
	depth int
	// hops, of a plain token, is how many hand-overs it allows if that is less
	// than its grant does.
	hops *int
	// aat gives a root the typ aat+jwt, tools and limits are what it holds then.
	aat    bool
	tools  delegation.Tools
	limits delegation.Limits
	// keySent says that the proved key was sent to be bound, too.
	keySent bool
}

// jkt is the thumbprint of the key that the request proved, "" for none.
func (f *flow) jkt() string {
	if f.proof == nil {
		return ""
	}
	return f.proof.Key.Thumbprint()
}

type flowKey struct{}

func withFlow(ctx context.Context, f *flow) context.Context {
	return context.WithValue(ctx, flowKey{}, f)
}

// flowFrom returns the flow of a request that this package started.
func flowFrom(ctx context.Context) *flow {
	f, _ := ctx.Value(flowKey{}).(*flow)
	if f == nil {
		panic("authz: no flow in the context") // only our own handlers call fosite
	}
	return f
}

// scopes are those the request may be about, as fosite asks for them.
func (f *flow) scopes() []string {
	switch f.grantType {
	case GrantRefresh:
		return f.grant.Scopes
	case GrantClientCredentials:
		return f.plan.scopes
	default:
		return f.code.Scopes
	}
}

// resources are those the request may be about.
func (f *flow) resources() []string {
	switch f.grantType {
	case GrantRefresh:
		return f.grant.Resources
	case GrantClientCredentials:
		return f.plan.resources
	default:
		return f.code.Resources
	}
}
