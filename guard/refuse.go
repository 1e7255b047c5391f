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
	// challenge is the WWW-Authenticate header, "" for none.
	challenge string
	retry     bool
	refusal   delegation.Refusal
}

// answerTo is the one place where a refusal becomes HTTP (mcp.md §2).
func (g *guard) answerTo(v *visit, need delegation.Scope, err error) answer {
	var refusal *delegation.Refusal
	var tooLarge *http.MaxBytesError
	var bad *badNeed
	switch {
	case errors.Is(err, errNoCredentials):
		// RFC 6750 §3.1: no error code without authentication information.
		return answer{
			status: http.StatusUnauthorized, code: "invalid_token", description: "an access token is needed",
			challenge: g.challenge("", g.Baseline),
			refusal:   delegation.Refusal{Reason: NoCredentials, Part: -1},
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
		scopes := append(need.Names(), v.chain.Scopes()...)
		slices.Sort(scopes)
		a.status, a.code = http.StatusForbidden, "insufficient_scope"
		a.description = "the access token does not hold the scope that this needs"
		a.challenge = g.challenge(a.code, slices.Compact(scopes))
	case delegation.ConstraintViolated, delegation.NeedsCounter:
		a.status, a.code = http.StatusForbidden, "constraint_violated"
		a.description = refusal.Detail
		if a.description == "" {
			a.description = refusal.Dimension
		}
	default:
		// "one text for all": which step refused is for the log, not for
		// whoever sent the token.
		a.status, a.code = http.StatusUnauthorized, "invalid_token"
		a.description = "the access token is not valid here"
		a.challenge = g.challenge(a.code, g.Baseline)
	}
	return a
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
		g.report(r, v, a.status, a.refusal)
	}
	a.write(w)
}

func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.challenge != "" {
		h.Set("WWW-Authenticate", a.challenge)
	}
	if a.retry {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(a.status)
	body, err := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{a.code, a.description})
	if err == nil {
		_, _ = w.Write(body)
	}
}

// Refuse answers a refusal that a handler behind Authenticate or Require got
// from the chain, with the status and the challenge that belong to it, and
// reports it. need is what the handler asked for; it shapes the challenge. The
// body, if one is given, takes the place of the JSON error: for protocols that
// have an error form of their own. Content-Type must be set then.
func Refuse(w http.ResponseWriter, r *http.Request, need delegation.Request, err error, body []byte) {
	v := visitOf(r.Context())
	if v == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	a := v.guard.answerTo(v, need.Scope, err)
	v.guard.report(r, &visit{guard: v.guard, chain: v.chain, need: need}, a.status, a.refusal)
	if body == nil {
		a.write(w)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if a.challenge != "" {
		h.Set("WWW-Authenticate", a.challenge)
	}
	if a.retry {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}
