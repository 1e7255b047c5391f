package guard

import (
	"net/http"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

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
		// delegation.md §6: "One chain per request", never a choice between two.
		return "", "", &delegation.Refusal{Reason: delegation.Malformed, Part: -1, Detail: "more than one Authorization header"}
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
