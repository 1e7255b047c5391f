package delegation_test

import (
	"slices"

	"github.com/kavach-dev/kavach/delegation"
)

// verdict is what the verifier has to say of a chain, and of which part.
func verdict(chain []sheet, now int64) (delegation.Reason, int) {
	if len(chain) > 9 {
		return delegation.TooLarge, -1
	}
	for i := range chain {
		reason := chain[i].rootVerdict(now)
		if i > 0 {
			reason = chain[i].linkVerdict(chain[:i], now)
		}
		if reason != "" {
			return reason, i
		}
	}
	return "", -1
}

// rootVerdict is that of a root, which Sign or an edit has made: what only a
// link can be was never written into one.
func (s *sheet) rootVerdict(now int64) delegation.Reason {
	switch {
	case s.header == nil:
		return delegation.Malformed
	case s.header["typ"] != "at+jwt" && s.header["typ"] != "aat+jwt":
		return delegation.BadType
	case s.header["alg"] != "Ed25519" && s.header["alg"] != "ES256":
		return delegation.AlgNotAllowed
	case s.header["kid"] != "at-ed" && s.header["kid"] != "at-es":
		return delegation.UnknownRoot
	case s.header["alg"] != map[any]string{"at-ed": "Ed25519", "at-es": "ES256"}[s.header["kid"]]:
		return delegation.AlgNotAllowed
	case s.by != map[any]int{"at-ed": byServer, "at-es": byServerES}[s.header["kid"]]:
		return delegation.SignatureInvalid
	case s.shape != "":
		return s.shape
	case s.claims["iss"] != issuer:
		return delegation.IssuerMismatch
	case s.depth != 0 || s.maxDepth < 0 || s.maxDepth > 8:
		return delegation.DepthInvalid
	}
	return s.timesVerdict(nil, now)
}

// These stand for the keys of the server among the signers.
const (
	byServer   = -1
	byServerES = -2
)

func (s *sheet) timesVerdict(parent *sheet, now int64) delegation.Reason {
	switch {
	case s.iat > now+30 || s.nbf != nil && *s.nbf > now+30:
		return delegation.NotYetValid
	case s.exp <= s.iat || s.nbf != nil && *s.nbf >= s.exp || parent == nil && s.exp-s.iat > 3600:
		return delegation.Malformed
	case parent != nil && (s.iat < parent.iat || s.exp > parent.exp):
		return delegation.OutlivesParent
	case s.exp <= now:
		return delegation.Expired
	}
	return ""
}

// linkVerdict is steps 1 to 12 for the link below a chain.
func (s *sheet) linkVerdict(chain []sheet, now int64) delegation.Reason {
	parent := &chain[len(chain)-1]
	switch {
	case s.header == nil:
		return delegation.Malformed
	case s.header["crit"] != nil || s.header["b64"] != nil:
		return delegation.Malformed
	case s.header["typ"] != "aat+jwt":
		return delegation.BadType
	case s.header["alg"] != someHolders[parent.to].alg:
		return delegation.AlgNotAllowed
	case s.by != parent.to:
		return delegation.SignatureInvalid
	case s.shape != "":
		return s.shape
	case s.claims["iss"] != "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"+holderJKT[parent.to]:
		return delegation.IssMismatch
	case slices.ContainsFunc(chain, func(p sheet) bool { return p.claims["jti"] == s.claims["jti"] }):
		return delegation.DuplicateJTI
	case s.claims["par_hash"] != parent.lid:
		return delegation.ParHashMismatch
	case s.depth != parent.depth+1 || s.maxDepth < s.depth || s.maxDepth > parent.maxDepth:
		return delegation.DepthInvalid
	case s.sub != parent.sub:
		return delegation.PrincipalAltered
	case !within(s.aud, parent.aud):
		return delegation.AudienceWidened
	}
	if reason := s.timesVerdict(parent, now); reason != "" {
		return reason
	}
	if !s.narrowerThan(&chain[0], parent) {
		return delegation.NotNarrower
	}
	if slices.ContainsFunc(chain, func(p sheet) bool { return p.to == s.to }) {
		return delegation.KeyReuse
	}
	return ""
}

func (s *sheet) narrowerThan(root, parent *sheet) bool {
	budget := s.limits.calls != nil && parent.limits.calls == nil
	return within(s.scopes, parent.scopes) && parent.tools.covers(s.tools) &&
		(s.limits.there || !parent.limits.there) &&
		!(root.header["typ"] == "aat+jwt" && s.limits.there && !root.limits.there) &&
		parent.limits.wider(s.limits) == "" && (!budget || len(s.aud) == 1)
}

// permits is what one token alone says to a request, calls not counted. An
// empty map of tools is no restriction, unless a token above it named some.
func (s *sheet) permits(w wish, restricted bool) bool {
	if !within(w.scopes, s.scopes) {
		return false
	}
	if len(s.tools) > 0 || restricted {
		tool, known := s.tools[w.tool]
		if w.toolState != given || !known || w.inadmissible || !tool.takes(w.plain) {
			return false
		}
	}
	l := s.limits
	return (l.resources == nil || w.resourceState == given && someUnder(l.resources, w.resource, under)) &&
		(l.network == nil || w.networkState == none || w.networkState == given && someUnder(l.network, w.network, reaches)) &&
		(l.size == nil || w.sizeState == none || w.sizeState == given && w.size <= *l.size)
}
