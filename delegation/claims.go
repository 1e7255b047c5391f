package delegation

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	maxString    = 1024 // bytes of a string
	maxClientID  = 256
	maxJTI       = 128
	maxArguments = 32
)

// part is one token of a chain whose shape holds.
type part struct {
	lid string
	alg string
	typ string

	iss, sub, clientID, jti, gid string
	aud                          []string
	iat, exp                     int64
	hasIAT, hasExp               bool
	nbf                          *int64
	scopes                       []string // sorted
	depth, maxDepth              *int64
	parHash                      string

	key agent.PublicKey // cnf.jwk
	jkt string          // cnf.jkt; without key in a bound plain token

	details   bool // authorization_details is there
	hasLimits bool // with a kavach_limits entry
	tools     Tools
	limits    Limits

	anc  []string
	act  []Party // outermost first
	hops *int64
	// mayAct is the sub of may_act (RFC 8693 §4.4), if it says nothing else.
	mayAct string
}

// chained reports whether the token is the root of a chain, or meant to be
// one; without del_depth it is a plain token.
func (p *part) chained() bool { return p.depth != nil || p.maxDepth != nil }

func (p *part) hasScope(scope string) bool {
	_, found := slices.BinarySearch(p.scopes, scope)
	return found
}

// parsePart is parse for a token that is not in a chain yet.
func parsePart(payload []byte, first bool) (*part, *Refusal) {
	p := &part{}
	if refusal := p.parse(new(jcs.Reader), payload, first); refusal != nil {
		return nil, refusal
	}
	return p, nil
}

// parse is step 3: "strict parse, shapes, forbidden claims, key import, jkt
// (malformed); constraint trees (unknown_constraint for an unknown type, else
// malformed)". first is the root or the plain token. Nothing of the part holds on
// to the values that json reads.
func (p *part) parse(json *jcs.Reader, payload []byte, first bool) *Refusal {
	v, err := json.Parse(payload, jcs.Limits{})
	if err != nil || v.Kind() != jcs.Object {
		return refuse(Malformed, "", "claims are not strict JSON")
	}
	var details jcs.Value
	for name, claim := range v.Fields() {
		if !p.read(name, claim, first) {
			return refuse(Malformed, "", "claim "+quoteShort(name))
		}
		if name == "authorization_details" {
			details, p.details = claim, true
		}
	}
	if missing := p.missing(first); missing != "" {
		return refuse(Malformed, "", "claim "+missing+" is missing")
	}
	if first && !p.chained() && !p.key.IsZero() {
		return refuse(Malformed, "", "cnf of a plain token is jkt alone")
	}
	if p.details {
		return p.readDetails(details)
	}
	return nil
}

// read takes one claim. Claims it does not know carry no authority.
func (p *part) read(name string, claim jcs.Value, first bool) (ok bool) {
	switch name {
	case "iss":
		p.iss, ok = text(claim, maxString)
	case "sub":
		p.sub, ok = text(claim, maxString)
	case "client_id":
		p.clientID, ok = text(claim, maxClientID)
		ok = ok && printable(p.clientID)
	case "jti":
		p.jti, ok = text(claim, maxJTI)
		ok = ok && printable(p.jti)
	case "aud":
		p.aud, ok = audience(claim, first)
	case "iat":
		p.iat, ok = integer(claim)
		p.hasIAT = true
	case "exp":
		p.exp, ok = integer(claim)
		p.hasExp = true
	case "nbf":
		p.nbf, ok = optionalInteger(claim)
	case "scope":
		p.scopes, ok = parseScopes(claim)
	case "cnf":
		p.key, p.jkt, ok = confirmation(claim, first)
	case "del_depth":
		p.depth, ok = optionalInteger(claim)
	case "del_max_depth":
		p.maxDepth, ok = optionalInteger(claim)
	case "par_hash":
		p.parHash, ok = text(claim, maxString)
		ok = ok && !first
	case "authorization_details":
		ok = claim.Kind() == jcs.Array // readDetails has the rest
	case "gid":
		p.gid, ok = text(claim, maxJTI)
		ok = ok && first && printable(p.gid)
	case "anc":
		p.anc, ok = ancestry(claim)
		ok = ok && first
	case "act":
		p.act, ok = actors(claim)
		ok = ok && first
	case "status":
		ok = first && claim.Kind() != jcs.Null
	case "may_act":
		ok = first && claim.Kind() != jcs.Null
		if claim.Len() == 1 {
			p.mayAct = claim.Get("sub").Str()
		}
	case "card": // a label, of links
		ok = first && claim.Kind() != jcs.Null || claim.Kind() == jcs.String && agent.IsID(claim.Str())
	case claimHops:
		if !first {
			return true
		}
		p.hops, ok = optionalInteger(claim)
		ok = ok && *p.hops >= 0
	default:
		ok = true
	}
	return ok
}

// missing names a claim that has to be there. del_depth and del_max_depth are
// of step 7.
func (p *part) missing(first bool) string {
	switch {
	case p.iss == "":
		return "iss"
	case p.sub == "":
		return "sub"
	case p.clientID == "":
		return "client_id"
	case p.aud == nil:
		return "aud"
	case !p.hasIAT:
		return "iat"
	case !p.hasExp:
		return "exp"
	case p.jti == "":
		return "jti"
	case p.scopes == nil:
		return "scope"
	case first && p.gid == "":
		return "gid"
	case !first && p.parHash == "":
		return "par_hash"
	}
	if first && !p.chained() {
		return ""
	}
	if p.key.IsZero() {
		return "cnf.jwk"
	}
	if !p.details {
		return "authorization_details"
	}
	return ""
}

func text(v jcs.Value, limit int) (string, bool) {
	s := v.Str()
	return s, v.Kind() == jcs.String && s != "" && len(s) <= limit
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// integer is the grammar of integer claims. "-0" is a second spelling of 0 and
// refused.
func integer(v jcs.Value) (int64, bool) {
	n, ok := v.Int()
	return n, ok && v.Number() != "-0"
}

func optionalInteger(v jcs.Value) (*int64, bool) {
	n, ok := integer(v)
	return &n, ok
}

// audience takes the string or array of RFC 7519 §4.1.3; members are distinct.
func audience(v jcs.Value, first bool) ([]string, bool) {
	if one, ok := text(v, maxString); ok {
		return []string{one}, true
	}
	list, ok := v.Strings()
	if !ok || len(list) == 0 || first && len(list) > MaxAudience {
		return nil, false
	}
	for i, one := range list {
		if one == "" || len(one) > maxString || slices.Contains(list[:i], one) {
			return nil, false
		}
	}
	return list, true
}

// parseScopes is never nil for a scope claim: an empty one grants nothing, an
// absent one is malformed.
func parseScopes(v jcs.Value) ([]string, bool) {
	if v.Kind() != jcs.String {
		return nil, false
	}
	if v.Str() == "" {
		return []string{}, true
	}
	scopes := strings.Split(v.Str(), " ")
	if !slices.IsSorted(scopes) {
		slices.Sort(scopes)
	}
	for i, scope := range scopes {
		if !agent.IsScope(scope) || i > 0 && scopes[i-1] == scope {
			return nil, false
		}
	}
	return scopes, true
}

// confirmation reads {"jwk":…,"jkt":…}, or {"jkt"} alone where a plain token
// may stand. Closed: an unknown member is refused.
func confirmation(v jcs.Value, first bool) (key agent.PublicKey, jkt string, ok bool) {
	jkt, ok = text(v.Get("jkt"), maxString)
	if !ok || v.Kind() != jcs.Object {
		return key, "", false
	}
	jwk := v.Get("jwk")
	if !jwk.Exists() {
		return key, jkt, first && v.Len() == 1 && agent.IsID(jkt)
	}
	key, err := agent.ParsePublicKey(jwk)
	return key, jkt, err == nil && v.Len() == 2 && key.IsThumbprint(jkt)
}

func ancestry(v jcs.Value) ([]string, bool) {
	list, ok := v.Strings()
	if !ok || len(list) == 0 || len(list) > MaxAncestry {
		return nil, false
	}
	for _, id := range list {
		if id == "" || len(id) > maxJTI || !printable(id) {
			return nil, false
		}
	}
	return list, true
}

// actors unfolds the nested act of RFC 8693 §4.1, outermost first.
func actors(v jcs.Value) ([]Party, bool) {
	var list []Party
	for v.Exists() {
		id, ok := text(v.Get("sub"), maxString)
		if !ok || v.Kind() != jcs.Object {
			return nil, false
		}
		proved := v.Get("proved")
		if proved.Exists() && proved.Kind() != jcs.Bool {
			return nil, false
		}
		list = append(list, Party{ID: id, Proved: !proved.Exists() || proved.Bool()})
		v = v.Get("act")
	}
	return list, true
}
