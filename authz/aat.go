package authz

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// TokenTypeAAT asks for the root of a chain that a verifier reads which knows
// only AAT (draft-niyikiza-oauth-attenuating-agent-tokens): typ aat+jwt.
//
// The draft's own request is that of client credentials with req_cnf and
// authorization_details; at a token exchange requested_token_type says it. The
// answer's token_type is "aat".
//
// Such a verifier reads tools and nothing else: no scope, no kavach_limits. So
// what is issued names tools. A resource that is kavach-aware looks at the
// scopes all the same. At any other a tool is granted only to who holds the
// scope of its name: an operator who registers such a resource declares its
// tools as scopes. And limits never go to it ("a resource that is not registered
// as kavach-aware never gets a token whose restriction lives only there",
// delegation.md §5).
const TokenTypeAAT = "urn:kavach:token-type:aat"

// aatScheme is the token_type of an answer with such a root. It is no HTTP
// authentication scheme: "its only valid use is as the root of an AAT delegation
// chain". Where chains are understood it is sent as any bound token.
const aatScheme = "aat"

// keyProofParameter holds a DPoP proof for this endpoint by the key of req_cnf,
// where the request's own is by another key: that of the subject.
const keyProofParameter = "req_cnf_proof"

// errConfirmation is the answer to a req_cnf that cannot be read.
var errConfirmation = badRequest("invalid_request", `req_cnf is {"jwk":…} with a public Ed25519 or P-256 key of kty, crv, x (and y) alone`)

// errUnproven is the answer to who asks for an AAT for a key that nobody
// showed to hold.
var errUnproven = badRequest("invalid_request", "an AAT is bound to the key of req_cnf, whose possession a DPoP proof by it shows, in the DPoP header or in "+keyProofParameter)

// keyProof verifies the proof that the key of req_cnf is held: the zero key
// without the parameter. The effect spends it.
func (s *Server) keyProof(form url.Values) (agent.PublicKey, []audit.Effect, error) {
	text := form.Get(keyProofParameter)
	if text == "" {
		return agent.PublicKey{}, nil, nil
	}
	p, err := agent.VerifyProof(text, agent.ProofCheck{
		Method: http.MethodPost, URL: s.cfg.Issuer + tokenEndpoint,
		Token: form.Get("subject_token"), TokenOptional: true, Now: s.cfg.Now(),
	})
	if err != nil {
		return agent.PublicKey{}, nil, errProof(keyProofParameter + " does not hold for this request, now")
	}
	return p.Key, []audit.Effect{s.cfg.Registry.cfg.Store.Once(p.ReplayKey(), p.Until())}, nil
}

// proveKey takes what an exchange shows of the key it brings.
func (s *Server) proveKey(form url.Values, f *flow, h *handover) error {
	key, once, err := s.keyProof(form)
	if err != nil || key.IsZero() {
		return err
	}
	if h.ask.KeyByProof || key != h.ask.Key {
		return badRequest("invalid_request", keyProofParameter+" is by another key than that of req_cnf")
	}
	h.keyProved = true
	f.proofOnce = slices.Concat(f.proofOnce, once)
	return nil
}

// proven says that whoever asks, or will use the result, showed its key.
func (h *handover) proven() bool {
	return h.card != "" || h.keyProved || h.proved != "" && h.proved == h.ask.Key.Thumbprint()
}

// aat holds a handover that asks for an AAT to what such a verifier needs.
func (h *handover) aat(cat *Catalog) error {
	ask := &h.ask
	if ask.Key.IsZero() || ask.KeyByProof || !h.proven() {
		return errUnproven
	}
	tools := ask.Tools
	if tools == nil {
		tools = h.parent.Tools()
	}
	limits := ask.Limits
	if limits.IsZero() {
		limits = h.parent.Limits() // any of them counts
	}
	granted, refused := aatTools(cat, tools, limits, ask.Scopes, ask.Audience)
	if refused != nil {
		return refused
	}
	ask.Tools = granted
	return nil
}

// aatTools are those of the tools asked for that can be granted: "the granted
// claims MUST attenuate the requested claims … If no requested tool can be
// granted, … invalid_authorization_details".
func aatTools(cat *Catalog, asked delegation.Tools, limits delegation.Limits, scopes, audience []string) (delegation.Tools, *Error) {
	granted := delegation.Tools{}
	for name, arguments := range asked {
		if cat.Aware(audience) || slices.Contains(scopes, name) {
			granted[name] = arguments
		}
	}
	switch {
	case !limits.IsZero() && !cat.Aware(audience):
		return nil, errTarget("the resource would not see kavach_limits")
	case len(audience) != 1 && !cat.Aware(audience):
		// A tool stands for the scope of its name, which only one resource
		// owns; at the others it would be granted by nobody.
		return nil, errTarget("an AAT for resources that are not kavach-aware names exactly one")
	case limits.MaxCalls != nil && len(audience) != 1:
		return nil, errDetails("max_calls needs exactly one resource: each would count for itself")
	case len(granted) == 0:
		return nil, errDetails("an AAT grants tools, and none of those asked for can be granted")
	}
	return granted, nil
}

// readCredentialsAAT reads the draft's request: client credentials with
// req_cnf, whose key the request proves, and authorization_details. Whoever
// sends req_cnf alone asks for a root of our own typ ("the client is an agent or
// sent req_cnf", delegation.md §3).
func (s *Server) readCredentialsAAT(r *http.Request, f *flow) *Error {
	form := r.PostForm
	cnf, details := form.Get("req_cnf"), form.Get("authorization_details")
	switch want := form.Get("requested_token_type"); want {
	case "", TokenTypeAccess, TokenTypeJWT:
		f.plan.aat = want == "" && cnf != "" && details != ""
	case TokenTypeAAT:
		f.plan.aat = true
	default:
		return badRequest("invalid_request", "requested_token_type is not one that is issued here")
	}
	if form.Has("authorization_details") && !f.plan.aat {
		return errGrantDetails
	}
	if cnf == "" && !f.plan.aat {
		return nil
	}
	if cnf == "" {
		return badRequest("invalid_request", "an AAT needs req_cnf, the key to bind it to")
	}
	key, err := delegation.ParseConfirmation([]byte(cnf))
	switch {
	case err != nil:
		return errConfirmation
	case f.proof == nil || f.proof.Key != key:
		return errUnproven
	}
	f.plan.keySent = true
	if !f.plan.aat {
		return nil
	}
	var refused *Error
	f.plan.tools, f.plan.limits, refused = readDetails(details)
	return refused
}

// errGrantDetails is the answer to authorization_details where no token takes
// any: to leave them out would hand out more than was asked for.
var errGrantDetails = errDetails("authorization_details restrict a token exchange, or ask for an AAT together with req_cnf; here they are not taken")

// planAAT holds the plan of a token to what a verifier needs that knows only
// AAT.
func (f *flow) planAAT(cat *Catalog, what ask) *Error {
	if !f.plan.aat {
		return nil
	}
	var refused *Error
	f.plan.tools, refused = aatTools(cat, f.plan.tools, f.plan.limits, what.scopes, what.resources)
	return refused
}
