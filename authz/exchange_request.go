package authz

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// maxDetails bounds authorization_details, in bytes: what does not fit into a
// token need not be read.
const maxDetails = delegation.MaxToken

// exchangeRequest is what a token exchange asks for, as far as it can be
// understood without looking anything up.
type exchangeRequest struct {
	// subject is the token, chain or handle; subjectType says which.
	subject, subjectType string
	// card is the key card of actor_token, "" for none.
	card string
	// answers is the issued_token_type; handle says that a handle was asked for.
	answers string
	handle  bool
	// ask is what is asked of the subject.
	ask delegation.Ask
}

// narrows says whether anything was asked of the subject.
func (e exchangeRequest) narrows() bool {
	a := e.ask
	return e.card != "" || e.handle || a.Receiver != "" || !a.Key.IsZero() || len(a.Scopes) > 0 || len(a.Audience) > 0 ||
		a.TTL != 0 || a.AAT || a.Tools != nil || !a.Limits.IsZero() || a.MaxDepth != nil
}

// readExchange reads the parameters of authorization-server.md §5.
func readExchange(form url.Values) (exchangeRequest, *Error) {
	e := exchangeRequest{subject: form.Get("subject_token"), subjectType: form.Get("subject_token_type"), answers: TokenTypeAccess}
	bad := func(text string) (exchangeRequest, *Error) {
		return exchangeRequest{}, badRequest("invalid_request", text)
	}
	switch {
	case e.subject == "":
		return bad("subject_token is missing")
	case e.subjectType != TokenTypeAccess && e.subjectType != TokenTypeHandle:
		// Refresh tokens, ID tokens and assertions are no subjects.
		return bad("subject_token_type is " + TokenTypeAccess + " or " + TokenTypeHandle)
	}
	switch want := form.Get("requested_token_type"); want {
	case "", TokenTypeAccess:
	case TokenTypeJWT:
		e.answers = TokenTypeJWT
	case TokenTypeAAT:
		e.answers, e.ask.AAT = TokenTypeAAT, true
	case TokenTypeHandle:
		e.handle = true
	default:
		return bad("requested_token_type is not one that is issued")
	}
	if e.card = form.Get("actor_token"); form.Get("actor_token_type") != "" && form.Get("actor_token_type") != TokenTypeAgentKey ||
		(e.card == "") != (form.Get("actor_token_type") == "") {
		// RFC 8693 section 2.1: required with an actor_token and not to be sent
		// without one.
		return bad("actor_token is a key card, and actor_token_type " + TokenTypeAgentKey)
	}
	if e.ask.Receiver = form.Get("agent"); e.ask.Receiver != "" &&
		(e.card != "" || !agent.IsID(e.ask.Receiver) && !agent.IsName(e.ask.Receiver)) {
		return bad("agent is the id or name of an agent, and not sent with an actor_token")
	}
	var err error
	if text := form.Get("req_cnf"); text != "" {
		if e.ask.Key, err = delegation.ParseConfirmation([]byte(text)); err != nil {
			return exchangeRequest{}, errConfirmation
		}
	}
	if e.handle && (e.ask.Receiver == "" || !e.ask.Key.IsZero()) {
		return bad("a handle is for the agent that agent names, which brings its own key")
	}
	e.ask.Scopes = splitScope(form.Get("scope"))
	e.ask.Audience = slices.Concat(form["resource"], form["audience"])
	if text := form.Get("requested_expires_in"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || text != strconv.Itoa(n) || n < 1 || n > int(delegation.MaxRootTTL/time.Second) {
			return bad("requested_expires_in is a number of seconds from 1 to 3600")
		}
		e.ask.TTL = time.Duration(n) * time.Second
	}
	var refused *Error
	if e.ask.MaxDepth, refused = askedDepth(form.Get("del_max_depth")); refused != nil {
		return exchangeRequest{}, refused
	}
	if e.ask.Tools, e.ask.Limits, refused = readDetails(form.Get("authorization_details")); refused != nil {
		return exchangeRequest{}, refused
	}
	return e, nil
}

// readDetails reads the authorization_details of a request, "" for none.
func readDetails(text string) (delegation.Tools, delegation.Limits, *Error) {
	if text == "" {
		return nil, delegation.Limits{}, nil
	}
	if len(text) > maxDetails {
		return nil, delegation.Limits{}, errDetails("more than a token has room for")
	}
	tools, limits, err := delegation.ParseDetails([]byte(text))
	if err != nil {
		return nil, delegation.Limits{}, errDetails("not one attenuating_agent_token and one kavach_limits at most, in their exact form" + about(err))
	}
	return tools, limits, nil
}

// about says what of the details is not in its form. It names what the request
// named, cut short.
func about(err error) string {
	var refused *delegation.Refusal
	if !errors.As(err, &refused) || refused.Detail == "" {
		return ""
	}
	return ": " + strings.TrimSpace(refused.Dimension+" "+refused.Detail)
}

// errDetails is the answer of RFC 9396 section 5.
func errDetails(text string) *Error { return badRequest("invalid_authorization_details", text) }

// errCardReplayed is the answer to a key card that was used before.
var errCardReplayed = badRequest("invalid_request", "the key card was used before")

// exchangeError is the one map from refusals of an exchange to answers. The
// record says why; it is f's.
func exchangeError(f *flow, h *handover, err error) error {
	entry := h.entry()
	if !refusalOf(&entry, err) {
		return err
	}
	*f.entry = entry
	var refused *delegation.Refusal
	if !errors.As(err, &refused) {
		return reasonedBy(err, entry.Reason)
	}
	return reasonedBy(answerTo(refused), string(refused.Reason))
}

// reasonedBy adds to an answer what its record says.
func reasonedBy(err error, reason string) error {
	var answer *Error
	if errors.As(err, &answer) && answer.Code != reason {
		return reasoned{answer, reason}
	}
	return err
}

// answerTo puts a refusal of the evaluator into the words of RFC 8693 section
// 2.2.2, RFC 8707 section 2 and RFC 9396 section 5.
func answerTo(r *delegation.Refusal) *Error {
	about := strings.TrimSpace(r.Dimension + " " + r.Detail)
	switch {
	case r.Reason == delegation.NotNarrower && r.Dimension == delegation.DimensionScope:
		return errScope("the subject_token does not hold scope " + r.Detail)
	case r.Reason == delegation.AudienceWidened:
		return errTarget("the subject_token is not for that: " + about)
	case r.Reason == delegation.NotNarrower && r.Detail == "" ||
		r.Reason == delegation.NotNarrower && r.Dimension == delegation.DimensionTools,
		r.Reason == delegation.Malformed:
		return errDetails("not within the limits of the subject_token: " + about)
	}
	return badRequest("invalid_request", "the exchange is refused: "+strings.TrimSpace(string(r.Reason)+" "+about))
}
