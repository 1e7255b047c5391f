package delegation

import (
	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// readDetails reads "exactly one attenuating_agent_token entry (its tools may
// be {}), at most one kavach_limits, nothing else".
func (p *part) readDetails(details jcs.Value) *Refusal {
	tools, limits, refusal := parseDetails(details)
	if refusal != nil {
		return refusal
	}
	if tools == nil {
		return refuse(Malformed, DimensionTools, "authorization_details without "+toolsType)
	}
	p.tools = tools
	if limits != nil {
		p.limits, p.hasLimits = *limits, true
	}
	return nil
}

// ParseDetails reads the authorization_details of a request (RFC 9396 §2), the
// text of a JSON array: at most one attenuating_agent_token entry, at most one
// kavach_limits, nothing else. Tools is nil without the former.
func ParseDetails(text []byte) (Tools, Limits, error) {
	v, err := jcs.Parse(text, jcs.Limits{})
	if err != nil || v.Kind() != jcs.Array {
		return nil, Limits{}, refuse(Malformed, "", "authorization_details is not an array in strict JSON")
	}
	tools, limits, refusal := parseDetails(v)
	switch {
	case refusal != nil:
		return nil, Limits{}, refusal
	case limits == nil:
		return tools, Limits{}, nil
	}
	return tools, *limits, nil
}

// DetailsTypes are the types that ParseDetails takes, for metadata (RFC 9396
// §10).
func DetailsTypes() []string { return []string{toolsType, limitsType} }

// Details is what ParseDetails reads, for jcs. There is an entry for tools that
// are not nil, and one for limits of which there is any.
func Details(tools Tools, limits Limits) []any {
	var list []any
	if tools != nil {
		list = append(list, map[string]any{"type": toolsType, "tools": tools.Map()})
	}
	if !limits.IsZero() {
		list = append(list, limitsEntry(limits))
	}
	return list
}

// parseDetails takes the first refusal in the order of the entries. What is not
// there is nil.
func parseDetails(details jcs.Value) (tools Tools, limits *Limits, refusal *Refusal) {
	wire := jcs.Value{}
	for entry := range details.All() {
		switch entry.Get("type").Str() {
		case toolsType:
			if wire.Exists() || entry.Len() != 2 || !entry.Get("tools").Exists() {
				return nil, nil, refuse(Malformed, DimensionTools, "authorization_details")
			}
			wire = entry.Get("tools")
		case limitsType:
			if limits != nil {
				return nil, nil, refuse(Malformed, "", "a second "+limitsType)
			}
			parsed, refusal := parseLimits(entry)
			if refusal != nil {
				return nil, nil, refusal
			}
			limits = &parsed
		default:
			return nil, nil, refuse(Malformed, "", "authorization_details of another type")
		}
	}
	if wire.Exists() {
		if tools, refusal = parseTools(wire); refusal != nil {
			return nil, nil, refusal
		}
	}
	return tools, limits, nil
}

// details writes the authorization_details of a token, where tools always
// stand. limited says whether there is a kavach_limits entry, which may have no
// member.
func details(tools Tools, limits Limits, limited bool) []any {
	list := []any{map[string]any{"type": toolsType, "tools": tools.Map()}}
	if limited {
		list = append(list, limitsEntry(limits))
	}
	return list
}

func limitsEntry(limits Limits) map[string]any {
	entry := limits.Map()
	entry["type"] = limitsType
	return entry
}

// ParseConfirmation reads the key that a request wants its token bound to
// (req_cnf), the text of {"jwk":…}: closed, with the required public members
// only.
func ParseConfirmation(text []byte) (agent.PublicKey, error) {
	v, err := jcs.Parse(text, jcs.Limits{})
	if err != nil || v.Kind() != jcs.Object || v.Len() != 1 {
		return agent.PublicKey{}, refuse(Malformed, DimensionKey, "not {\"jwk\":…} in strict JSON")
	}
	key, err := agent.ParsePublicKey(v.Get("jwk"))
	if err != nil {
		return agent.PublicKey{}, refuse(Malformed, DimensionKey, "jwk is no Ed25519 or P-256 key of kty, crv, x (and y) alone")
	}
	return key, nil
}
