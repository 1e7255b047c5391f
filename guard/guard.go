// Package guard is the middleware of a resource server: a token or chain comes
// in, a verified chain is in the context when the handler runs, and everything
// else is answered with the challenge that tells a client what to do.
//
// What the package guarantees:
//
//   - A handler behind Require runs only after the steps of delegation.md §6
//     held for this request, in their order: signature, issuer, audience
//     exactly this resource, time, holder binding, revocation, what the route
//     needs against every link of the chain, and last that the proof was not
//     seen before.
//   - A bound token or a chain passes only with one proof by the key of its last
//     link: "Authorization: DPoP" and a DPoP proof over this method, this URL and
//     the whole credential, or an AAT proof over the call, in a header or in the
//     message of an MCP server. There is no way back to Bearer.
//   - A dimension that the token restricts and the route does not speak about
//     refuses the request. One that the route declares for later must be asked
//     (Tool, Resource, Network, Size) and allowed before the first byte of the
//     answer; otherwise the answer is replaced by 403.
//   - The budget of every link that has one (max_calls) is debited before the
//     handler acts, all of them or none, or the request is refused.
//   - One credential per request, from one Authorization header or, with
//     Config.MCP, from one message. Query strings, cookies and other bodies are
//     never looked at.
//   - Every answer of its own is JSON, says nothing internal, and carries the
//     challenge of RFC 6750 with the metadata of RFC 9728.
//
// The URL that a proof must name is made of the configured Resource and the
// path that the client asked for, never of the Host header; where a proxy in
// front changes paths, set Config.URL. Proofs are remembered in memory; with
// more than one replica give Config.Replays a store that they share.
//
//	keys := guard.NewJWKS(guard.JWKSConfig{Issuer: issuer, URL: issuer + "/.well-known/jwks.json"})
//	defer keys.Close()
//	protect := guard.Require(guard.Config{
//		Resource: "https://git.example", Verifier: keys,
//		Need: guard.Need{Request: delegation.Request{Scope: delegation.AllOf("repository:read")}},
//	})
//	http.Handle("/diff", protect(handler))
//
// The middleware starts no goroutine; a JWKS, a Feed and a Reporter own one each.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

// NoCredentials is the reason of a Decision about a request that carried none.
// It is no refusal of a token, so it is not in the verifier's vocabulary.
const NoCredentials delegation.Reason = "no_credentials"

// Verifier runs steps 0 to 12. *delegation.Verifier and *JWKS are such.
type Verifier interface {
	// Verify returns the chain, or a *delegation.Refusal. Any other error is a
	// failure to decide and is answered with 503.
	Verify(token string, now time.Time) (*delegation.Chain, error)
}

// Revocations is step 15: whether anything the chain names or came from was
// revoked. *Feed is such. An error means that it is unknown, and is answered
// with 503; a *StaleError says for which requests.
type Revocations interface {
	Revoked(ctx context.Context, chain *delegation.Chain) (bool, error)
}

// Need is what one request needs.
type Need struct {
	// Request holds the scope and the dimensions as far as they are known
	// before the handler runs.
	Request delegation.Request
	// Later names dimensions (delegation.DimensionTools, …Resources, …Network,
	// …Size, …Scope) that the handler will ask about itself. What Request
	// already states need not stand here.
	Later []string
	// ReadOnly says that the request changes nothing although its method is
	// not GET, HEAD or OPTIONS, a search by POST for example.
	ReadOnly bool
}

// Config says what is protected and how. Resource and Verifier are needed, or
// Strict.
type Config struct {
	// Resource is this resource server's identifier: what aud must be, byte
	// for byte.
	Resource string
	// Verifier verifies tokens of the authorization server.
	Verifier Verifier
	// MetadataURL is what challenges name as resource_metadata. Empty: the
	// place that RFC 9728 gives it for Resource.
	MetadataURL string
	// Baseline are the scopes named by the challenge to a request without a
	// usable token: the smallest useful set. Nil: those of Need.
	Baseline []string
	// Need is what every request here needs. The zero Need refuses: a scope
	// must be stated, if only as delegation.NoScope().
	Need Need
	// NeedOf, if set, computes the need from the request instead. It runs only
	// for a genuine token, or with Strict for anything that may be one. If it
	// reads the body it must put it back. An error is answered with 400.
	NeedOf func(*http.Request) (Need, error)
	// SharedAudience takes tokens that name further resources. It is for
	// kavach's own endpoints and for nobody else: any of the resources that
	// such a token names could present it here.
	SharedAudience bool
	// Revocations is asked for every token, see NewFeed. Nil: tokens live until
	// they expire, and Decision.Unchecked says "revocation".
	Revocations Revocations
	// DPoPForWrites takes DPoP proofs for requests with side effects that come
	// with a chain. Such a proof does not cover the body, so it is for servers
	// where TLS ends. Without it they need an AAT proof, which is over the call
	// itself: its tool and arguments must be those of Need.
	DPoPForWrites bool
	// MCP says that this resource is an MCP endpoint (Streamable HTTP). Then the
	// body of a POST is looked at, up to 1 MiB of it: an AAT proof must be of the
	// message in it, and chain and proof may stand in its _meta instead of in
	// headers. See delegation.Message.
	MCP bool
	// Counters debits the budgets of tokens with max_calls, as the last thing
	// before the handler acts; see NewCounters. Nil: such tokens are refused
	// with needs_counter.
	Counters Counters
	// Strict, in place of Verifier, takes chains of the pure AAT draft and
	// nothing else; see there for what it leaves out. Such a chain names no
	// scope, so Need must state NoScope, and the tool must be known before the
	// handler runs: from Need or, with MCP, from the message. Audience is
	// Resource; Nonce and Seen are those of the guard.
	Strict *delegation.AATStrict
	// RequireAATAud makes every AAT proof name this resource server. Proofs for
	// a Verifier must anyway; Strict is not taken without it, because another
	// server that takes the same chains could send the proof on to this one.
	RequireAATAud bool
	// Replays is where used proofs are remembered. Nil: in memory.
	Replays Replays
	// Replicas is how many processes serve this resource, if more than one.
	// Then Replays is needed.
	Replicas int
	// Nonces, if set, makes every proof carry a nonce of this server; see
	// NewNonces.
	Nonces Nonces
	// URL returns the URL that a proof for the request must name, as clients
	// write it. Nil: the origin of Resource and the path of the request line.
	// It must never come from Host or a forwarding header.
	URL func(*http.Request) string
	// Report is told every decision before it takes effect. It returns when
	// the record is as durable as it must be. If it fails for a request that
	// was allowed, the request is refused with 503. A token with
	// audit_required is refused where there is no Report.
	Report func(context.Context, Decision) error
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

type guard struct {
	Config
	stopAfterAuthentication bool
	origin                  string // of Resource
	used                    *usedProofs
}

// Require returns the middleware. A Config without Resource or Verifier, or
// with several Replicas and no Replays that they share, is a mistake of the
// program and panics.
func Require(cfg Config) func(http.Handler) http.Handler {
	return newGuard(cfg, false)
}

// Authenticate is Require without steps 16 and 17, for a handler that learns
// what a request needs only by dispatching it. The handler has to ask Allows
// for everything it does, before it does it, and can answer a refusal with
// Refuse:
//
//	if err := guard.Allows(r.Context(), request); err != nil {
//		guard.Refuse(w, r, request, err, nil)
//		return
//	}
//
// Allows is step 16 and, at the first request it allows, step 17: the proof is
// used up and the budgets are debited. Should a handler forget to ask, the proof
// is used up when an answer below status 400 begins, and one that was used
// before gets 401 in its place; a side effect would have happened by then. Of
// Need and NeedOf only ReadOnly counts, and the duty of audit_required is the
// handler's. Without Config.DPoPForWrites a chain passes for side effects with
// an AAT proof only.
func Authenticate(cfg Config) func(http.Handler) http.Handler {
	return newGuard(cfg, true)
}

func newGuard(cfg Config, stopAfterAuthentication bool) func(http.Handler) http.Handler {
	if cfg.Resource == "" {
		panic("guard: Config.Resource is missing")
	}
	if cfg.Verifier == nil && cfg.Strict == nil {
		panic("guard: Config.Verifier is missing")
	}
	if cfg.MetadataURL == "" {
		var err error
		if cfg.MetadataURL, err = wellknown.ResourceURLOf(cfg.Resource); err != nil {
			panic("guard: Config.Resource is not an absolute URL without a fragment")
		}
	}
	if cfg.Baseline == nil {
		cfg.Baseline = cfg.Need.Request.Scope.Names()
	}
	cfg.Baseline = slices.Clone(cfg.Baseline)
	slices.Sort(cfg.Baseline)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	g := &guard{Config: cfg, stopAfterAuthentication: stopAfterAuthentication}
	g.prepareProofs()
	g.prepareStrict()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}
}

func (g *guard) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	v := &visit{guard: g, now: g.Now()} // delegation.md §6: "now := read once"
	c, err := g.carried(r)
	if err == nil {
		v.message = c.message
		err = v.authenticate(r, c)
	}
	if err != nil {
		g.refuse(w, r, v, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), contextKey{}, v))
	v.request = r
	v.offerNonce(w.Header())
	if g.stopAfterAuthentication {
		if v.proof == nil { // a bearer token: nothing is left to watch over
			next.ServeHTTP(w, r)
		} else {
			v.run(w, r, next)
		}
		return
	}
	if err := v.authorize(r); err != nil {
		g.refuse(w, r, v, err)
		return
	}
	v.run(w, r, next)
}

// authenticate runs steps 0 to 15.
func (v *visit) authenticate(r *http.Request, c carried) error {
	g := v.guard
	if g.Strict != nil {
		return v.strictly(r, c)
	}
	chain, err := g.Verifier.Verify(c.credential, v.now)
	if err != nil {
		return err
	}
	// Step 13: "the last token is for exactly this resource and no other".
	if g.SharedAudience {
		err = chain.ForAmong(g.Resource)
	} else {
		err = chain.For(g.Resource)
	}
	if err != nil {
		return err
	}
	v.chain, v.credential = chain, Secret(c.credential)
	if err := v.possession(r, c); err != nil { // step 14
		return err
	}
	return v.standing(r) // step 15
}

// needs computes, once, what the request needs.
func (v *visit) needs(r *http.Request) (Need, error) {
	if v.needed == nil {
		v.needed, v.needErr = &v.guard.Need, nil
		if v.guard.NeedOf != nil {
			need, err := v.guard.NeedOf(r)
			v.needed = &need
			if err != nil {
				v.needErr = &badNeed{err}
			}
		}
	}
	return *v.needed, v.needErr
}

// authorize runs step 16 for what is known of the request, notes what the
// handler owes, runs step 17, and reports.
func (v *visit) authorize(r *http.Request) error {
	need, err := v.needs(r)
	if err != nil {
		return err
	}
	v.need = need.Request
	q, of := need.Request, v.authority()
	for _, check := range []struct {
		dimension string
		set       bool
		ask       func() error
	}{
		{delegation.DimensionScope, q.Scope.Set(), func() error { return of.AllowsScope(q.Scope) }},
		{delegation.DimensionTools, q.Tool.Set(), func() error { return of.AllowsTool(q.Tool) }},
		{delegation.DimensionResources, q.Resource.Set(), func() error { return of.AllowsResource(q.Resource) }},
		{delegation.DimensionNetwork, q.Network.Set(), func() error { return of.AllowsNetwork(q.Network) }},
		{delegation.DimensionSize, q.Size.Set(), func() error { return of.AllowsSize(q.Size) }},
	} {
		if !check.set && slices.Contains(need.Later, check.dimension) {
			if check.dimension == delegation.DimensionScope || of.Restricts(check.dimension) ||
				check.dimension == delegation.DimensionTools && v.unmatched() {
				v.owed = append(v.owed, check.dimension)
			}
			continue
		}
		if err := check.ask(); err != nil {
			return err
		}
	}
	if given, ok := q.Tool.Value(); ok && v.call != nil {
		// What was proved is what was evaluated, whoever put the need together.
		if err := v.match(given); err != nil {
			return err
		}
	}
	if err := v.countable(); err != nil {
		return err
	}
	if err := v.recordable(); err != nil {
		return err
	}
	if err := v.once(r.Context()); err != nil {
		return err
	}
	if len(v.owed) == 0 { // else when the last question is answered
		if err := v.charge(r.Context(), false); err != nil {
			return err
		}
	}
	if err := v.reportAllowed(r); err != nil {
		return err
	}
	if len(v.owed) == 0 {
		v.chain.Remember()
	}
	return nil
}

// badNeed: NeedOf could not make sense of the request.
type badNeed struct{ err error }

func (e *badNeed) Error() string { return "computing what the request needs: " + e.err.Error() }
func (e *badNeed) Unwrap() error { return e.err }

var errNoCredentials = errors.New("no credentials")
