package delegation

import (
	"strconv"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// linkClaims is what a link says, before it is written.
type linkClaims struct {
	holder string // thumbprint of the key that signs
	to     agent.PublicKey

	sub, clientID, jti, parHash, card string
	audience, scopes                  []string
	iat, exp, depth, maxDepth         int64

	tools   Tools
	limits  Limits
	limited bool // whether there is a kavach_limits entry, which may have no member
}

// append writes the claims as RFC 8785 has them: members in the order of their
// names, no space. It leaves to the parser to refuse text that is not UTF-8.
func (c *linkClaims) append(dst []byte) ([]byte, error) {
	dst = appendStrings(append(dst, `{"aud":`...), c.audience)
	dst = append(dst, `,"authorization_details":[{"tools":`...)
	dst, err := appendTools(dst, c.tools)
	if err != nil {
		return dst, err
	}
	dst = append(dst, `,"type":"`+toolsType+`"}`...)
	if c.limited {
		dst = c.limits.append(append(dst, ','))
	}
	dst = append(dst, ']')
	if c.card != "" {
		dst = jcs.AppendString(append(dst, `,"card":`...), c.card)
	}
	dst = jcs.AppendString(append(dst, `,"client_id":`...), c.clientID)
	dst = jcs.AppendString(append(dst, `,"cnf":{"jkt":`...), c.to.Thumbprint())
	dst = c.to.AppendJWK(append(dst, `,"jwk":`...))
	dst = strconv.AppendInt(append(dst, `},"del_depth":`...), c.depth, 10)
	dst = strconv.AppendInt(append(dst, `,"del_max_depth":`...), c.maxDepth, 10)
	dst = strconv.AppendInt(append(dst, `,"exp":`...), c.exp, 10)
	dst = strconv.AppendInt(append(dst, `,"iat":`...), c.iat, 10)
	dst = append(append(append(dst, `,"iss":"`+thumbprintURI...), c.holder...), '"')
	dst = jcs.AppendString(append(dst, `,"jti":`...), c.jti)
	dst = jcs.AppendString(append(dst, `,"par_hash":`...), c.parHash)
	dst = jcs.AppendString(append(dst, `,"scope":`...), joinScopes(c.scopes))
	dst = jcs.AppendString(append(dst, `,"sub":`...), c.sub)
	return append(dst, '}'), nil
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = jcs.AppendString(dst, s)
	}
	return append(dst, ']')
}

func appendTools(dst []byte, tools Tools) ([]byte, error) {
	if len(tools) == 0 {
		return append(dst, `{}`...), nil
	}
	wire, err := jcs.Marshal(tools.Map())
	return append(dst, wire...), err
}

// append writes the kavach_limits entry.
func (l Limits) append(dst []byte) []byte {
	dst = append(dst, '{')
	if l.AllowNetwork != nil {
		dst = append(appendStrings(append(dst, `"allow_network":`...), l.AllowNetwork), ',')
	}
	if l.AuditRequired != nil {
		dst = append(strconv.AppendBool(append(dst, `"audit_required":`...), *l.AuditRequired), ',')
	}
	if l.MaxCalls != nil {
		dst = append(strconv.AppendInt(append(dst, `"max_calls":`...), *l.MaxCalls, 10), ',')
	}
	if l.MaxFileSize != nil {
		dst = append(strconv.AppendInt(append(dst, `"max_file_size":`...), *l.MaxFileSize, 10), ',')
	}
	if l.Resources != nil {
		dst = append(appendStrings(append(dst, `"resources":`...), l.Resources), ',')
	}
	return append(dst, `"type":"`+limitsType+`"}`...)
}
