package api

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

// report is one entry as its reporter sent it. entry holds what a reporter may
// say; everything else about an entry is found out or decided here.
type report struct {
	entry audit.Entry
	// event is the id of the entry that this one belongs to, its own if none.
	event string
	// lid names the token: what the reporter sent, or that of the credential.
	lid string
	// credential, proof and callProof, which is an AAT proof, are looked at and
	// dropped; method and url are those of the request that the proof is about.
	credential, proof, callProof, method, url string
	// requested is the time they are judged as of, in Unix milliseconds; 0:
	// observed.
	requested int64
}

const (
	maxReportResource = 512
	maxReportURL      = 2048
)

var (
	uuid7      = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	httpMethod = regexp.MustCompile(`^[A-Z][A-Z0-9_-]{0,19}$`)
)

// parseReports reads {"entries": […]}.
func parseReports(body jcs.Value) ([]report, *badReport) {
	list := body.Get("entries")
	if body.Len() != 1 || list.Kind() != jcs.Array {
		return nil, &badReport{http.StatusBadRequest, "invalid_request", -1, `the body is {"entries": […]}`}
	}
	if n := list.Len(); n == 0 || n > maxReports {
		return nil, &badReport{http.StatusBadRequest, "invalid_request", -1, "a batch has 1 to 500 entries"}
	}
	reports := make([]report, 0, list.Len())
	seen := make(map[string]bool, list.Len())
	for v := range list.All() {
		r, problem := parseReport(v)
		if problem == "" && seen[r.entry.ID] {
			problem = "its id stands in this batch twice"
		}
		if problem != "" {
			return nil, &badReport{http.StatusBadRequest, "invalid_request", len(reports), problem}
		}
		seen[r.entry.ID] = true
		reports = append(reports, r)
	}
	return reports, nil
}

// parseReport reads one entry: members that the server decides about (by,
// evidence, agent, sub, chain, grant, path, seq, time) are unknown ones here.
func parseReport(v jcs.Value) (r report, problem string) {
	if v.Kind() != jcs.Object {
		return r, "it is no object"
	}
	texts := map[string]*string{
		"id": &r.entry.ID, "action": &r.entry.Action, "resource": &r.entry.Resource, "result": &r.entry.Result,
		"reason": &r.entry.Reason, "lid": &r.lid, "credential": &r.credential, "proof": &r.proof,
		"method": &r.method, "url": &r.url, "call_proof": &r.callProof,
	}
	for name, member := range v.Fields() {
		var ok bool
		switch {
		case texts[name] != nil:
			*texts[name], ok = member.Str(), member.Kind() == jcs.String && member.Str() != ""
		case name == "observed":
			r.entry.Observed, ok = member.Int()
			ok = ok && r.entry.Observed > 0
		case name == "requested":
			r.requested, ok = member.Int()
			ok = ok && r.requested > 0
		case name == "detail":
			r.entry.Detail, ok = parseDetail(member)
		default:
			return r, "there is no member " + quoted(name)
		}
		if !ok {
			return r, quoted(name) + " is not what it should be"
		}
	}
	r.event = r.entry.ID
	if of, ok := r.entry.Detail["of"].(string); ok {
		r.event = of
	}
	return r, r.check()
}

func (r *report) check() (problem string) {
	e := &r.entry
	switch {
	case !uuid7.MatchString(e.ID):
		return "id is not a lower-case UUIDv7"
	case !strings.HasPrefix(e.Action, audit.ReporterPrefix) || !audit.KnownAction(e.Action):
		return `action is not "rs." and a dotted verb`
	case e.Result != audit.Allowed && e.Result != audit.Denied && e.Result != audit.Failed:
		return "result is allowed, denied or failed"
	case e.Result == audit.Allowed && e.Reason != "":
		return "what is allowed has no reason"
	case e.Result == audit.Denied && e.Reason == "" || e.Reason != "" && !knownReason(e.Reason):
		return "reason is not one of the verifier's vocabulary or an OAuth error"
	case !canonicalResource(e.Resource):
		return "resource is not a canonical identifier"
	case r.requested > e.Observed:
		return "requested is later than observed"
	case r.event == e.ID && e.Detail["of"] != nil:
		return "of names the entry itself"
	case r.lid != "" && (!lidPattern.MatchString(r.lid) || r.credential != ""):
		return "lid has 43 base64url characters and stands in the place of a credential"
	case r.proof != "" && (r.credential == "" || r.method == "" || r.url == ""):
		return "a proof comes with credential, method and url"
	case r.proof == "" && (r.method != "" || r.url != ""):
		return "method and url come with a proof"
	case r.callProof != "" && (r.credential == "" || r.proof != ""):
		return "call_proof comes with a credential and in the place of a proof"
	case r.method != "" && !httpMethod.MatchString(r.method):
		return "method is not one"
	case len(r.url) > maxReportURL || len(r.credential) > delegation.MaxChainBody || len(r.proof) > delegation.MaxToken || len(r.callProof) > agent.MaxAATProof:
		return "credential, proof or url is too long"
	}
	return ""
}

// parseDetail reads the closed object. There is no free text in it.
func parseDetail(v jcs.Value) (map[string]any, bool) {
	if v.Kind() != jcs.Object {
		return nil, false
	}
	detail := make(map[string]any, v.Len())
	for name, member := range v.Fields() {
		text, isText := member.Str(), member.Kind() == jcs.String
		n, isNumber := member.Int()
		ok := false
		switch name {
		case "phase":
			ok = isText && (text == guard.Before || text == guard.After)
		case "of":
			ok = isText && uuid7.MatchString(text)
		case "method":
			ok = isText && httpMethod.MatchString(text)
		case "dimension":
			ok = isText && delegation.KnownDimension(text)
		case "status":
			ok = isNumber && n >= 100 && n <= 599
		case "count", "first", "last":
			ok = isNumber && n > 0
		}
		if !ok {
			return nil, false
		}
		if isText {
			detail[name] = text
		} else {
			detail[name] = n
		}
	}
	return detail, true
}

// canonicalResource: the grammar of delegation.md §5 ("no `.`, `..`, `//`,
// percent-encoding"), and neither query nor fragment, where secrets travel.
func canonicalResource(id string) bool {
	if id == "" || len(id) > maxReportResource {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || strings.IndexByte(`%?#"\<>`, c) >= 0 {
			return false
		}
	}
	rest := id
	if scheme, after, isURL := strings.Cut(id, "://"); isURL && !strings.Contains(scheme, "/") {
		rest = after
	}
	for i, segment := range strings.Split(rest, "/") {
		if segment == "." || segment == ".." || segment == "" && i > 0 {
			return false
		}
	}
	return true
}

// knownReason: "the verifier's vocabulary, OAuth error code" (audit.md §1).
func knownReason(reason string) bool {
	return delegation.Reason(reason).Known() || delegation.Reason(reason) == guard.NoCredentials || slices.Contains(oauthErrors, reason)
}

var oauthErrors = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope", "invalid_target",
	"access_denied", "server_error", "temporarily_unavailable", "invalid_token", "insufficient_scope",
	"invalid_dpop_proof", "use_dpop_nonce",
}
