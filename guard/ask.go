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

	message    *delegation.Message     // in the body, where a proof speaks about it
	permit     *delegation.AATPermit   // by Config.Strict, in place of chain
	proof      *heldProof              // nil for a token that needs none
	call       *agent.VerifiedAATProof // nil unless the proof is of a call
	proofText  Secret
	dpopError  string    // what a client can do about holder_binding_failed
	using      sync.Once // step 17: the proof
	usedErr    error     // its outcome
	charging   sync.Once // step 17: the budgets
	chargedErr error     // its outcome

	mu       sync.Mutex // guards what follows
	matched  bool       // call is what the request does
	answered bool       // call was allowed
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

// Permit returns what Config.Strict permitted, and nil everywhere else.
func Permit(ctx context.Context) *delegation.AATPermit {
	if v := visitOf(ctx); v != nil {
		return v.permit
	}
	return nil
}

// Allows is what a handler behind Authenticate asks before it acts: step 16,
// every link of From(ctx), and at the first request allowed step 17, that the
// proof of possession was never used before and that every budget (max_calls)
// has a call left. It returns nil or a *delegation.Refusal; in addition to the
// reasons of step 16 that may be replayed, holder_binding_failed for a proof of
// another call, and status_unknown if it cannot be found out. It reports
// nothing: answer with Refuse, which does.
//
// Ask once for each call. A request that makes several calls of tools is debited
// for each of them, and a proof of a call serves for one.
func Allows(ctx context.Context, request delegation.Request) error {
	v := visitOf(ctx)
	if v == nil {
		return errUnguarded()
	}
	if err := v.speaks(request.Tool); err != nil {
		return err
	}
	for _, question := range []func(authority) error{
		func(a authority) error { return a.AllowsScope(request.Scope) },
		func(a authority) error { return a.AllowsTool(request.Tool) },
		func(a authority) error { return a.AllowsResource(request.Resource) },
		func(a authority) error { return a.AllowsNetwork(request.Network) },
		func(a authority) error { return a.AllowsSize(request.Size) },
	} {
		if err := question(v.authority()); err != nil {
			return err
		}
	}
	if err := v.countable(); err != nil {
		return err
	}
	if err := v.answerOnce(request.Tool); err != nil {
		return err
	}
	if err := v.once(ctx); err != nil {
		return err
	}
	_, call := request.Tool.Value()
	if err := v.charge(ctx, call); err != nil {
		return err
	}
	v.chain.Remember()
	return nil
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
		func(a authority) error { return a.AllowsScope(s) })
}

// Tool asks whether every link allows the call.
func Tool(ctx context.Context, call delegation.Call) error {
	d := delegation.Given(call)
	return ask(ctx, delegation.DimensionTools, delegation.Request{Tool: d},
		func(a authority) error { return a.AllowsTool(d) })
}

// Resource asks whether every link allows the resource: its canonical id here.
func Resource(ctx context.Context, id string) error {
	d := delegation.Given(id)
	return ask(ctx, delegation.DimensionResources, delegation.Request{Resource: d},
		func(a authority) error { return a.AllowsResource(d) })
}

// Network asks whether every link allows a connection that the action opens:
// "host:port" or "host".
func Network(ctx context.Context, destination string) error {
	d := delegation.Given(destination)
	return ask(ctx, delegation.DimensionNetwork, delegation.Request{Network: d},
		func(a authority) error { return a.AllowsNetwork(d) })
}

// Size asks whether every link allows that many bytes.
func Size(ctx context.Context, bytes int64) error {
	d := delegation.Given(bytes)
	return ask(ctx, delegation.DimensionSize, delegation.Request{Size: d},
		func(a authority) error { return a.AllowsSize(d) })
}

func ask(ctx context.Context, dimension string, need delegation.Request, question func(authority) error) error {
	v := visitOf(ctx)
	if v == nil {
		return errUnguarded()
	}
	err := error(nil)
	if dimension == delegation.DimensionTools {
		err = v.speaks(need.Tool)
	}
	if err == nil {
		err = question(v.authority())
	}
	if err == nil && v.discharge(dimension) {
		// Now the request may act, so now it is charged: not earlier, for what
		// may still be refused.
		if err = v.charge(ctx, false); err == nil {
			v.chain.Remember()
		}
	}
	if err == nil {
		return nil
	}
	a := v.guard.answerTo(v, need.Scope, err)
	v.report(v.request, need, a)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refused == nil {
		v.refused = &a
	}
	return err
}

// discharge notes that the handler asked about a dimension. It reports whether
// that was the last that it owed.
func (v *visit) discharge(dimension string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := len(v.owed)
	v.owed = slices.DeleteFunc(v.owed, func(d string) bool { return d == dimension })
	return before > 0 && len(v.owed) == 0
}
