package guard

import (
	"net"
	"net/http"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// wireEntry is an entry as the log takes it. Members that are not here (by,
// evidence, agent, sub, chain, grant) are found out by the log.
type wireEntry struct {
	ID       string `json:"id"`
	Observed int64  `json:"observed,omitempty"`
	// Requested is when the request was judged, where that is not Observed:
	// credential and proof are judged as of then.
	Requested int64  `json:"requested,omitempty"`
	Action    string `json:"action"`
	Resource  string `json:"resource"`
	Result    string `json:"result"`
	Reason    string `json:"reason,omitempty"`
	// LID names the token where the credential itself is not sent.
	LID        string `json:"lid,omitempty"`
	Credential string `json:"credential,omitempty"`
	Proof      string `json:"proof,omitempty"`
	Method     string `json:"method,omitempty"`
	URL        string `json:"url,omitempty"`
	// CallProof is an AAT proof, which is over a call and not over a method and
	// a URL.
	CallProof string     `json:"call_proof,omitempty"`
	Detail    wireDetail `json:"detail,omitzero"`

	// bearer is the lid of a credential that anybody could use.
	bearer string
}

// length is about how many bytes the entry takes in a batch.
func (e *wireEntry) length() int {
	return 400 + len(e.Resource) + len(e.Credential) + len(e.Proof) + len(e.CallProof) + len(e.URL)
}

type wireDetail struct {
	Phase     string `json:"phase,omitempty"`
	Of        string `json:"of,omitempty"`
	Status    int    `json:"status,omitempty"`
	Method    string `json:"method,omitempty"`
	Dimension string `json:"dimension,omitempty"`
	Count     int64  `json:"count,omitempty"`
	First     int64  `json:"first,omitempty"`
	Last      int64  `json:"last,omitempty"`
}

// The results of an entry.
const (
	resultAllowed = "allowed"
	resultDenied  = "denied"
	resultFailed  = "failed"
)

// stored is the entry as it may lie on a disk: without what a finder could use,
// and without the arguments of a call, which its proof repeats.
func (e wireEntry) stored() wireEntry {
	e.CallProof = ""
	if e.bearer != "" {
		e.LID, e.Credential, e.bearer = e.bearer, "", ""
	}
	return e
}

// entryOf makes an entry of a decision.
func (r *Reporter) entryOf(d Decision) wireEntry {
	now := r.cfg.Now()
	e := wireEntry{
		ID: delegation.NewJTI(now), Observed: now.UnixMilli(), Requested: d.Time.UnixMilli(), Action: r.cfg.Action(d),
		Resource: r.resourceOf(d), Result: resultDenied, Reason: string(d.Reason),
		Detail: wireDetail{Phase: d.Phase, Status: d.Status, Dimension: d.Dimension},
	}
	if d.Time.IsZero() || e.Requested == e.Observed {
		e.Requested = 0
	}
	if plainMethod(d.Request.Method) {
		e.Detail.Method = d.Request.Method
	}
	switch {
	case d.Allowed && d.Status >= http.StatusInternalServerError:
		e.Result, e.Reason = resultFailed, "server_error"
	case d.Allowed:
		e.Result, e.Reason = resultAllowed, ""
	case d.Reason == delegation.StatusUnknown:
		e.Result = resultFailed
	}
	r.attach(&e, d)
	return e
}

// attach adds what shows who sent the request. The log's owner is who issued the
// token; still, only what the guard took for genuine goes to it, and of
// everything else what it is called.
func (r *Reporter) attach(e *wireEntry, d Decision) {
	credential, proof := string(d.Credential), string(d.Proof)
	bound := d.Chain != nil && d.Chain.Bound()
	if credential == "" {
		_, sent, err := credentials(d.Request.Header)
		if err != nil {
			return
		}
		parts, err := delegation.Inspect(sent)
		if err != nil {
			return
		}
		last := parts[len(parts)-1]
		if d.Reason != delegation.Expired || !last.UnverifiedClaims.Get("cnf").Exists() {
			e.LID = last.LID
			return
		}
		// The log can still verify a chain that has run out, and whether its
		// holder sent it.
		bound = true
		if credential = sent; len(d.Request.Header.Values("DPoP")) == 1 {
			proof = d.Request.Header.Get("DPoP")
		}
	}
	e.Credential = credential
	if !bound {
		e.bearer = d.Chain.LID()
		return
	}
	if d.ProofOfCall {
		e.CallProof = proof
		return
	}
	if proof != "" && e.Detail.Method != "" && d.URL != "" {
		e.Proof, e.Method = proof, e.Detail.Method
		e.URL, _, _ = strings.Cut(d.URL, "?")
	}
}

// resourceOf names what the request was about: this resource server, or the
// thing in it that the route named, if the log can take the name.
func (r *Reporter) resourceOf(d Decision) string {
	id, given := d.Need.Resource.Value()
	if !given || id == "" || len(r.cfg.Resource)+1+len(id) > 512 {
		return r.cfg.Resource
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || strings.IndexByte(`%?#"\<>`, c) >= 0 {
			return r.cfg.Resource
		}
	}
	for segment := range strings.SplitSeq(id, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return r.cfg.Resource
		}
	}
	return strings.TrimSuffix(r.cfg.Resource, "/") + "/" + id
}

// plainMethod: the log takes methods of this grammar, [A-Z][A-Z0-9_-]{0,19}.
func plainMethod(method string) bool {
	if method == "" || len(method) > 20 || method[0] < 'A' || method[0] > 'Z' {
		return false
	}
	for i := range len(method) {
		if c := method[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func remoteHost(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
