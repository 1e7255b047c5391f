package guard

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

type contextKey struct{}

// A visit is one request on its way through the guard.
type visit struct {
	guard      *guard
	now        time.Time
	chain      *delegation.Chain
	credential Secret // what chain was verified from
	need       delegation.Request
	needed     *Need // by needs, nil before
	needErr    error
	audited    bool
	unchecked  []string // Decision.Unchecked
	request    *http.Request

	proof     *agent.VerifiedProof // nil for a token that needs none
	proofText Secret
	dpopError string    // what a client can do about holder_binding_failed
	using     sync.Once // step 17
	usedErr   error     // its outcome

	mu       sync.Mutex // guards what follows
	owed     []string   // dimensions the handler still has to ask about
	refused  *answer    // to the first question that was refused
	reported string     // id of the first entry that a Reporter made of it
}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(contextKey{}).(*visit)
	return v
}

// From returns the verified chain of the request, and nil where no guard ran.
func From(ctx context.Context) *delegation.Chain {
	if v := visitOf(ctx); v != nil {
		return v.chain
	}
	return nil
}

// Credential returns the token or chain that From was verified from, "" where no
// guard ran: for a handler that has to hand it on.
func Credential(ctx context.Context) Secret {
	if v := visitOf(ctx); v != nil {
		return v.credential
	}
	return ""
}

// Allows is what a handler behind Authenticate asks before it acts: step 16,
// From(ctx).Allows, and at the first request allowed step 17, that the proof of
// possession was never used before. It returns nil or a *delegation.Refusal; in
// addition to the reasons of step 16 that may be replayed, and status_unknown
// if it cannot be found out. It reports nothing: answer with Refuse, which does.
func Allows(ctx context.Context, request delegation.Request) error {
	v := visitOf(ctx)
	if v == nil {
		return errUnguarded()
	}
	if err := v.chain.Allows(request); err != nil {
		return err
	}
	return v.once(ctx)
}

// errUnguarded is for questions of a handler that no guard stands in front of.
func errUnguarded() error {
	return &delegation.Refusal{Reason: delegation.Malformed, Part: -1, Detail: "no guard in front of this handler"}
}

// Scope asks whether every link holds the scopes. Like the four questions
// below it returns nil or a *delegation.Refusal, reports a refusal, and discharges
// the obligation of a route that declared the dimension for later. A handler
// that gets a refusal stops: whatever it answers below status 400, or nothing,
// becomes the refusal. To sift a list ask From(ctx).AllowsResource instead.
func Scope(ctx context.Context, s delegation.Scope) error {
	return ask(ctx, delegation.DimensionScope, delegation.Request{Scope: s},
		func(c *delegation.Chain) error { return c.AllowsScope(s) })
}

// Tool asks whether every link allows the call.
func Tool(ctx context.Context, call delegation.Call) error {
	d := delegation.Given(call)
	return ask(ctx, delegation.DimensionTools, delegation.Request{Tool: d},
		func(c *delegation.Chain) error { return c.AllowsTool(d) })
}

// Resource asks whether every link allows the resource: its canonical id here.
func Resource(ctx context.Context, id string) error {
	d := delegation.Given(id)
	return ask(ctx, delegation.DimensionResources, delegation.Request{Resource: d},
		func(c *delegation.Chain) error { return c.AllowsResource(d) })
}

// Network asks whether every link allows a connection that the action opens:
// "host:port" or "host".
func Network(ctx context.Context, destination string) error {
	d := delegation.Given(destination)
	return ask(ctx, delegation.DimensionNetwork, delegation.Request{Network: d},
		func(c *delegation.Chain) error { return c.AllowsNetwork(d) })
}

// Size asks whether every link allows that many bytes.
func Size(ctx context.Context, bytes int64) error {
	d := delegation.Given(bytes)
	return ask(ctx, delegation.DimensionSize, delegation.Request{Size: d},
		func(c *delegation.Chain) error { return c.AllowsSize(d) })
}

func ask(ctx context.Context, dimension string, need delegation.Request, question func(*delegation.Chain) error) error {
	v := visitOf(ctx)
	if v == nil {
		return errUnguarded()
	}
	if err := question(v.chain); err != nil {
		a := v.guard.answerTo(v, need.Scope, err)
		v.report(v.request, need, a)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.refused == nil {
			v.refused = &a
		}
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.owed = slices.DeleteFunc(v.owed, func(d string) bool { return d == dimension })
	return nil
}
