package guard

import (
	"errors"
	"net/http"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// errTwoCredentials: RFC 6750 §3.1 invalid_request, "uses more than one method
// for including an access token"; delegation.md §6, "Exactly one carrier".
var errTwoCredentials = errors.New("more than one Authorization header")

// credentials reads the one Authorization header:
//
//	Authorization: Bearer token
//	Authorization: DPoP token
//
// The scheme is returned in delegation's spelling. A header of another scheme
// is no credential here. What follows the scheme is the token as it stands,
// spaces, commas and all: a second "Bearer" makes it malformed.
func credentials(h http.Header) (scheme, token string, err error) {
	values := h.Values("Authorization")
	if len(values) > 1 {
		return "", "", errTwoCredentials
	}
	if len(values) == 0 {
		return "", "", errNoCredentials
	}
	name, rest, _ := strings.Cut(values[0], " ")
	switch {
	case strings.EqualFold(name, delegation.Bearer): // RFC 9110 §11.1: case-insensitive
		scheme = delegation.Bearer
	case strings.EqualFold(name, delegation.DPoP):
		scheme = delegation.DPoP
	default:
		return "", "", errNoCredentials
	}
	return scheme, strings.TrimLeft(rest, " "), nil
}

func isChain(token string) bool { return strings.Contains(token, "~") }
