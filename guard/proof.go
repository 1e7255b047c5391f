package guard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// What a client is told about its proof (RFC 9449 §7.1, §9).
const (
	invalidProof = "invalid_dpop_proof"
	useNonce     = "use_dpop_nonce"
	nonceHeader  = "DPoP-Nonce"
)

// Replays remembers used proofs.
type Replays interface {
	// Once reports whether the key was never given before, and remembers it
	// until the time. Of any number of parallel calls with one key exactly one
	// gets true, also on other replicas.
	Once(ctx context.Context, key string, until time.Time) (bool, error)
}

// Nonces makes and knows the nonces of this server (RFC 9449 §9). A nonce shows
// that a proof was made recently, whatever the clock of its maker says.
type Nonces interface {
	// Nonce returns the nonce that a holder should use now.
	Nonce(jkt string, now time.Time) string
	// Valid reports whether a nonce was made for the holder not long ago.
	Valid(nonce, jkt string, now time.Time) bool
}

// Secret is a credential or a proof. It prints as "[redacted]"; string(s) is
// the text.
type Secret string

const redacted = "[redacted]"

// String hides the text.
func (Secret) String() string { return redacted }

// GoString hides the text.
func (Secret) GoString() string { return redacted }

// Format hides the text from every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the text.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the text from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// prepareProofs completes the configuration of steps 14 and 17.
func (g *guard) prepareProofs() {
	if g.Replicas > 1 && g.Replays == nil {
		// delegation.md §6: "shared store when there is more than one replica
		// (memory otherwise, and `guard` refuses to start with Replicas > 1)".
		panic("guard: Config.Replicas is more than one, and Config.Replays is missing")
	}
	if _, memory := g.Counters.(*counters); memory && g.Replicas > 1 {
		panic("guard: Config.Replicas is more than one, and each would give every token a budget of its own: Config.Counters must be shared")
	}
	g.used = newUsedProofs(g.Replays)
	if u, err := url.Parse(g.Resource); err == nil {
		g.origin = u.Scheme + "://" + u.Host
	}
	if g.URL == nil {
		g.URL = g.urlOf
	}
}

// urlOf is the default of Config.URL. The request line is what the client
// wrote; r.URL may have been cut by http.StripPrefix.
func (g *guard) urlOf(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return g.origin + r.RequestURI
	}
	// RFC 9112 §3.2.2: a request line may also hold a whole URL. Its host
	// counts as little as the Host header.
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		u = r.URL
	}
	return g.origin + u.EscapedPath()
}

func bindingFailed(detail string) error {
	return &delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1, Detail: detail}
}

// possession is step 14: "proof: scheme, form, key, binding, time".
func (v *visit) possession(r *http.Request, c carried) error {
	if err := v.chain.CheckScheme(c.scheme); err != nil {
		return err // never the other scheme instead
	}
	if c.scheme == delegation.Bearer {
		if c.proof != "" { // "No cnf → Bearer only": it proves nothing
			v.dpopError = invalidProof
			return bindingFailed("no key to prove")
		}
		return nil
	}
	if c.proof != "" {
		return v.possessionOfCall(r, c.proof)
	}
	g, jkt := v.guard, v.chain.JKT()
	v.dpopError = invalidProof
	// RFC 9449 §4.3: "There is not more than one DPoP HTTP request header field."
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return bindingFailed(fmt.Sprintf("%d DPoP headers", len(proofs)))
	}
	if jkt == "" {
		return bindingFailed("no key to prove")
	}
	proof, err := agent.VerifyProof(proofs[0], agent.ProofCheck{
		Method: r.Method, URL: g.URL(r), Token: string(v.credential), JKT: jkt, Now: v.now,
	})
	if err != nil {
		return bindingFailed(strings.TrimPrefix(err.Error(), "invalid: "))
	}
	held := heldDPoP(proof)
	if err := v.fresh(held); err != nil {
		return err
	}
	v.proof, v.proofText = held, Secret(proofs[0])
	return v.sideEffect(r)
}

// fresh checks the nonce of a proof, where this server gives them out.
func (v *visit) fresh(p *heldProof) error {
	if g := v.guard; g.Nonces != nil && !g.Nonces.Valid(p.nonce, p.jkt, v.now) {
		v.dpopError = useNonce
		return bindingFailed("proof: nonce")
	}
	return nil
}

// sideEffect refuses what a DPoP proof is too little for (delegation.md §6:
// "Side effects … need an AAT proof for chains, or DPoP where the guard is told
// `DPoPForWrites`").
func (v *visit) sideEffect(r *http.Request) error {
	if v.guard.DPoPForWrites || v.chain.Plain() {
		return nil
	}
	if !v.changes(r) {
		return nil
	}
	return bindingFailed("a DPoP proof is not enough for a side effect here")
}

// offerNonce hands the next nonce to a holder who used an older one (RFC 9449
// §8.2), before it is told to.
func (v *visit) offerNonce(h http.Header) {
	if v.proof == nil || v.guard.Nonces == nil {
		return
	}
	if next := v.guard.Nonces.Nonce(v.proof.jkt, v.now); next != v.proof.nonce {
		h.Set(nonceHeader, next)
		h.Set("Cache-Control", "no-store") // a cached answer would hand out an old one
	}
}
