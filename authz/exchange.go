package authz

import (
	"net/http"
)

// GrantExchange is the grant type of RFC 8693.
const GrantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

// Types of tokens, as parameters of an exchange name them.
const (
	TokenTypeAccess   = "urn:ietf:params:oauth:token-type:access_token"
	TokenTypeJWT      = "urn:ietf:params:oauth:token-type:jwt"
	TokenTypeHandle   = "urn:kavach:token-type:handle"
	TokenTypeAgentKey = "urn:kavach:token-type:agent-key"
)

// exchange answers a token request of that grant type, whose form was read. It
// authenticates, decides, and commits what it issues together with everything
// that may be used once; an error that it has recorded is a recorded.
func (s *Server) exchange(r *http.Request, f *flow) (map[string]any, error) {
	return nil, badRequest("unsupported_grant_type", "token exchange is not served yet")
}
