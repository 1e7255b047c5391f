package guard

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// An answer is a refusal as HTTP says it.
type answer struct {
	status      int
	code        string
	description string
	// challenges are the WWW-Authenticate headers, Bearer first.
	challenges []string
	// nonce is the DPoP-Nonce header, "" for none.
	nonce   string
	retry   bool
	refusal delegation.Refusal
}

// algs says which proofs are taken (RFC 9449 §7.1).
const algs = `algs="Ed25519 ES256"`

// answerTo is the one place where a refusal becomes HTTP (mcp.md §2).
func (g *guard) answerTo(v *visit, need delegation.Scope, err error) answer {
	var refusal *delegation.Refusal
	var tooLarge *http.MaxBytesError
	var bad *badNeed
	var two *twoCarriers
	switch {
	case errors.Is(err, errNoCredentials):
		// RFC 6750 §3.1: no error code without authentication information.
		return answer{
			status: http.StatusUnauthorized, code: "invalid_token", description: "an access token is needed",
			challenges: []string{g.challenge("", g.Baseline), "DPoP " + algs},
			refusal:    delegation.Refusal{Reason: NoCredentials, Part: -1},
		}
	case errors.As(err, &two):
		return answer{
			status: http.StatusBadRequest, code: "malformed", description: two.refusal.Detail, refusal: *two.refusal,
		}
	case errors.As(err, &tooLarge):
		return answer{
			status: http.StatusRequestEntityTooLarge, code: "invalid_request", description: "the body is too large",
			refusal: delegation.Refusal{Reason: delegation.TooLarge, Part: -1, Detail: "body"},
		}
	case errors.As(err, &bad):
		return answer{
			status: http.StatusBadRequest, code: "invalid_request", description: "the request cannot be understood",
			refusal: delegation.Refusal{Reason: delegation.Malformed, Part: -1, Detail: "request"},
		}
	case !errors.As(err, &refusal):
		return answer{
			status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
			description: "this cannot be decided right now", retry: true,
			refusal: delegation.Refusal{Reason: delegation.StatusUnknown, Part: -1},
		}
	}
	a := answer{refusal: *refusal}
	switch refusal.Reason {
	case delegation.StatusUnknown:
		a.status, a.code, a.retry = http.StatusServiceUnavailable, "temporarily_unavailable", true
		a.description = "this cannot be decided right now"
	case delegation.ScopeNotGranted:
		// Older clients replace their scopes by the challenge's, newer ones
		// unite: with needed ∪ held both end with the same set.
		scopes := append(need.Names(), v.chain.Scopes()...) // none of a chain that is pure AAT
		slices.Sort(scopes)
		a.status, a.code = http.StatusForbidden, "insufficient_scope"
		a.description = "the access token does not hold the scope that this needs"
		a.challenges = []string{g.challenge(a.code, slices.Compact(scopes))}
	case delegation.ConstraintViolated, delegation.NeedsCounter:
		a.status, a.code = http.StatusForbidden, "constraint_violated"
		a.description = refusal.Detail
		if a.description == "" {
			a.description = refusal.Dimension
		}
	case delegation.Replayed:
		g.badProof(&a, v, invalidProof)
	case delegation.HolderBindingFailed:
		if v.dpopError != "" {
			g.badProof(&a, v, v.dpopError)
			break
		}
		// A scheme that the token must not be sent under: a bound token sent
		// as Bearer is no better than any other bad token.
		g.badToken(&a)
	default:
		g.badToken(&a)
	}
	return a
}

// badToken is the answer to a token that is not valid here.
func (g *guard) badToken(a *answer) {
	// "one text for all": which step refused is for the log, not for whoever
	// sent the token.
	a.status, a.code = http.StatusUnauthorized, "invalid_token"
	a.description = "the access token is not valid here"
	a.challenges = []string{g.challenge(a.code, g.Baseline), "DPoP " + algs}
}

// badProof is the answer to a good token with a proof that is not. Here too the
// step is for the log.
func (g *guard) badProof(a *answer, v *visit, code string) {
	a.status, a.code = http.StatusUnauthorized, code
	a.description = "the proof of possession is missing or does not hold for this request"
	if code == useNonce {
		a.description = "the proof of possession must hold the nonce of the DPoP-Nonce header"
		a.nonce = g.Nonces.Nonce(v.jkt(), v.now)
	}
	a.challenges = []string{g.challenge("", g.Baseline), `DPoP error="` + code + `", ` + algs}
}

// challenge writes a WWW-Authenticate header. Everything in it is configured or
// a scope of a verified token; what a quoted string cannot hold is left out.
func (g *guard) challenge(code string, scopes []string) string {
	params := make([]string, 0, 3)
	if code != "" {
		params = append(params, `error="`+code+`"`)
	}
	if len(scopes) > 0 {
		params = append(params, `scope="`+quotable(strings.Join(scopes, " "))+`"`)
	}
	params = append(params, `resource_metadata="`+quotable(g.MetadataURL)+`"`)
	return "Bearer " + strings.Join(params, ", ")
}

func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// refuse reports and answers.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	a := g.answerTo(v, v.need.Scope, err)
	if a.status == http.StatusServiceUnavailable && a.refusal.Reason == delegation.StatusUnknown && !errors.Is(err, delegation.ErrRefused) {
		g.Log.ErrorContext(r.Context(), "access could not be decided", "error", err)
	}
	var lost *unrecorded
	if !errors.As(err, &lost) { // the log that just failed is not asked again
		v.report(r, v.need, a)
	}
	a.write(w)
}

func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	a.begin(w)
	body, err := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{a.code, a.description})
	if err == nil {
		_, _ = w.Write(body)
	}
}

// begin writes what every form of the answer has in common.
func (a answer) begin(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if len(a.challenges) > 0 {
		h["Www-Authenticate"] = slices.Clone(a.challenges)
	}
	if a.nonce != "" {
		h.Set(nonceHeader, a.nonce)
	}
	if a.retry {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(a.status)
}

// Refuse answers a refusal that a handler behind Authenticate or Require got
// from the chain or from Allows, with the status and the challenge that belong
// to it, and reports it. need is what the handler asked for; it shapes the
// challenge. The body, if one is given, takes the place of the JSON error of a
// 403: for protocols that have an error form of their own. Content-Type must be
// set then. What has another status (a proof used before is 401) is answered
// with the JSON error all the same.
func Refuse(w http.ResponseWriter, r *http.Request, need delegation.Request, err error, body []byte) {
	v := visitOf(r.Context())
	if v == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	a := v.guard.answerTo(v, need.Scope, err)
	v.report(r, need, a)
	if body == nil || a.status != http.StatusForbidden {
		a.write(w)
		return
	}
	a.begin(w)
	_, _ = w.Write(body)
}
