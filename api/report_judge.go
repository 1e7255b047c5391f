package api

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	// reportAge is how long after a request its proof still makes an entry
	// evidence `proof`: as long as the longest token lives, and as long as the
	// use of a proof has to be remembered.
	reportAge = time.Hour
	// detailUnproved says why an entry with a credential is only asserted.
	detailUnproved = "unproved"
)

// Why an entry is only asserted, where the verifier's vocabulary has no word.
const (
	unprovedUnbound  = "unbound"  // a bearer token proves nothing about who sent it
	unprovedNoProof  = "no_proof" // a bound one without proof
	unprovedOutdated = "outdated" // reported too late, see reportAge
)

// claim is what a proof's use is remembered by.
type claim struct {
	proof, event string
	until        time.Time
}

// audienceOf finds what a reporter is registered for that covers the resource:
// the identifier of a resource server, or its own client_id.
func audienceOf(catalog *authz.Catalog, by, resource string) (audience string, ok bool) {
	if resource == by || strings.HasPrefix(resource, by+"/") {
		return by, true
	}
	introspector := ""
	for _, r := range catalog.Resources() {
		if resource != r.ID && !strings.HasPrefix(resource, strings.TrimSuffix(r.ID, "/")+"/") {
			continue
		}
		if len(r.ID) >= len(audience) { // the one that says most about the place
			audience, introspector = r.ID, r.Introspector
		}
	}
	return audience, audience != "" && introspector == by
}

// judge finds out what an entry is evidence of. "With a chain attached agent,
// sub, chain, grant are computed by the server, never read from the reporter's
// body; chain and proof are used and dropped" (audit.md §1). agent is left out
// where a bound token came without proof of its key: nobody knows who that was.
func (s *Server) judge(catalog *authz.Catalog, by string, r *report) told {
	e := r.entry
	e.By, e.Evidence = by, audit.EvidenceAsserted
	if r.credential == "" {
		if r.lid != "" {
			e.Chain = []audit.Party{{LID: r.lid}}
		}
		return told{asserted: fitting(e)}
	}
	now := s.cfg.Now()
	at := now
	if ms := cmp.Or(r.requested, e.Observed); ms != 0 {
		at = time.UnixMilli(ms)
	}
	if parts, err := delegation.Inspect(r.credential); err == nil {
		r.lid = parts[len(parts)-1].LID
	}
	chain, err := s.verifyAt(r, at)
	if err != nil {
		if r.lid != "" {
			e.Chain = []audit.Party{{LID: r.lid}}
		}
		return told{asserted: fitting(unproved(e, reasonOf(err)))}
	}
	e.Path, e.Sub, e.Grant, e.Anc, e.Chain = chain.Path(), chain.Principal(), chain.GrantID(), chain.Ancestry(), parties(chain)
	if !chain.Bound() {
		e.Agent = chain.Agent()
		return told{asserted: fitting(unproved(e, unprovedUnbound))}
	}
	proof, why := s.checkEither(catalog, by, r, chain, at, now)
	if why != "" {
		return told{asserted: fitting(unproved(e, why))}
	}
	proved := e
	proved.Evidence, proved.Agent = audit.EvidenceProof, chain.Agent()
	proved = fitting(proved)
	return told{
		asserted: fitting(unproved(e, string(delegation.Replayed))), proved: &proved,
		claim: claim{
			proof: claimKey(by, proof.replayKey), event: claimKey(by, proof.replayKey, r.event),
			until: proof.issuedAt.Add(reportAge + agent.ProofWindow + delegation.IatSkew + time.Second),
		},
	}
}

// verifyAt runs steps 0 to 12 as of the time of the request. A request that was
// refused because its token had expired is judged as of the token's last second:
// then the chain in the record is still a verified one.
func (s *Server) verifyAt(r *report, at time.Time) (*delegation.Chain, error) {
	chain, err := s.cfg.Verifier.Verify(r.credential, at)
	if delegation.ReasonOf(err) != delegation.Expired || r.entry.Result != audit.Denied || r.entry.Reason != string(delegation.Expired) {
		return chain, err
	}
	parts, inspectErr := delegation.Inspect(r.credential)
	if inspectErr != nil {
		return nil, err
	}
	first := int64(0)
	for _, p := range parts {
		if exp, ok := p.UnverifiedClaims.Get("exp").Int(); ok && (first == 0 || exp < first) {
			first = exp
		}
	}
	return s.cfg.Verifier.Verify(r.credential, time.Unix(first-1, 0))
}

// shown is a proof of either kind that held. Both kinds share their jtis.
type shown struct {
	replayKey string
	issuedAt  time.Time
}

// checkEither checks the proof of the request, or that of the call.
func (s *Server) checkEither(catalog *authz.Catalog, by string, r *report, chain *delegation.Chain, at, now time.Time) (shown, string) {
	if r.callProof != "" {
		proof, why := s.checkCallProof(catalog, by, r, chain, at, now)
		if why != "" {
			return shown{}, why
		}
		return shown{proof.ReplayKey(), proof.IssuedAt}, ""
	}
	proof, why := s.checkProof(catalog, by, r, chain, at, now)
	if why != "" {
		return shown{}, why
	}
	return shown{proof.ReplayKey(), proof.IssuedAt}, ""
}

// inTime says why a proof cannot be judged any more, or yet; "" if it can.
func inTime(chain *delegation.Chain, at, now time.Time) string {
	switch {
	case at.After(now.Add(delegation.IatSkew)):
		return string(delegation.NotYetValid)
	case at.Before(now.Add(-reportAge)) || chain.Expires().Before(now.Add(-reportAge)):
		return unprovedOutdated
	}
	return ""
}

// checkCallProof says why the AAT proof does not show that the holder of the
// chain meant some call at this reporter at that time; "" if it does. Which call
// it was the reporter does not say here, and the proof is dropped.
func (s *Server) checkCallProof(catalog *authz.Catalog, by string, r *report, chain *delegation.Chain, at, now time.Time) (agent.VerifiedAATProof, string) {
	var none agent.VerifiedAATProof
	if why := inTime(chain, at, now); why != "" {
		return none, why
	}
	audience, _ := audienceOf(catalog, by, r.entry.Resource)
	if audience == by || chain.For(audience) != nil {
		return none, string(delegation.AudienceMismatch)
	}
	proof, err := agent.VerifyAATProof(r.callProof, agent.AATCheck{
		Key: chain.Key(), LID: chain.LID(), LeafJTI: chain.JTI(), Audience: audience, UnmatchedCall: true, Now: at,
	})
	if err != nil {
		return none, string(delegation.HolderBindingFailed)
	}
	return proof, ""
}

// checkProof says why the proof does not show that the holder of the chain made
// a request to this reporter at that time; "" if it does.
func (s *Server) checkProof(catalog *authz.Catalog, by string, r *report, chain *delegation.Chain, at, now time.Time) (agent.VerifiedProof, string) {
	var none agent.VerifiedProof
	if r.proof == "" {
		return none, unprovedNoProof
	}
	if why := inTime(chain, at, now); why != "" {
		return none, why
	}
	audience, _ := audienceOf(catalog, by, r.entry.Resource)
	if audience == by {
		// What an agent refused itself: with its own token, whatever the place.
		if chain.ClientID() != by {
			return none, string(delegation.AudienceMismatch)
		}
	} else {
		refusedForIt := r.entry.Result == audit.Denied && r.entry.Reason == string(delegation.AudienceMismatch)
		if origin(r.url) != origin(audience) || chain.For(audience) != nil && !refusedForIt {
			return none, string(delegation.AudienceMismatch)
		}
	}
	proof, err := agent.VerifyProof(r.proof, agent.ProofCheck{
		Method: r.method, URL: r.url, Token: r.credential, JKT: chain.JKT(), Now: at,
	})
	if err != nil {
		return none, string(delegation.HolderBindingFailed)
	}
	return proof, ""
}

func reasonOf(err error) string {
	if reason := delegation.ReasonOf(err); reason != "" {
		return string(reason)
	}
	return string(delegation.StatusUnknown)
}

func unproved(e audit.Entry, why string) audit.Entry {
	detail := map[string]any{detailUnproved: why}
	for name, value := range e.Detail {
		detail[name] = value
	}
	e.Detail = detail
	return e
}

// fitting makes room: a chain may hold more of its delegators' words than a
// record does, and must not keep an entry out of the log for that.
func fitting(e audit.Entry) audit.Entry {
	if _, err := audit.NewDraft(longestLog, e); errors.Is(err, audit.ErrInvalid) {
		return e.Slim()
	}
	return e
}

// longestLog stands for the log's id, which is a host, a port and some hex.
var longestLog = strings.Repeat("x", 300)

// origin is scheme://host of a URL without the port that the scheme implies,
// "" if it is none.
func origin(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return ""
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	default:
		return ""
	}
	return u.Scheme + "://" + host
}

// claimKey hashes what a proof's use is remembered by; no two lists of parts
// give the same bytes, because none of them can hold a zero byte.
func claimKey(parts ...string) string {
	sum := sha256.Sum256([]byte("report\x00" + strings.Join(parts, "\x00")))
	return jcs.Base64URL(sum[:])
}
