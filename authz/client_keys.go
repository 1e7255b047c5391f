package authz

import (
	"encoding/json"
	"fmt"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// maxKeys bounds the keys of one client: each is tried for every assertion.
const maxKeys = 8

// keySet is a JWK Set (RFC 7517 §5) as it is echoed: public members only.
type keySet struct {
	Keys []json.RawMessage `json:"keys"`
}

func keySetOf(keys []agent.PublicKey) *keySet {
	if len(keys) == 0 {
		return nil
	}
	set := &keySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.AppendJWK(nil))
	}
	return set
}

// registeredKeys are the keys of a client that registers for private_key_jwt;
// to the other methods they mean nothing. Keys are taken inline: this server
// fetches nothing for a registration.
func registeredKeys(req registration, method Method) ([]agent.PublicKey, error) {
	inline := len(req.JWKS) > 0 && string(req.JWKS) != "null"
	switch {
	case inline && req.JWKSURI != "":
		return nil, badMetadata("jwks and jwks_uri exclude each other") // RFC 7591 §2
	case method != MethodKeyJWT:
		return nil, nil
	case req.JWKSURI != "":
		return nil, badMetadata("jwks_uri is not fetched here; register the keys themselves, as jwks")
	case !inline:
		return nil, badMetadata("private_key_jwt needs jwks")
	}
	keys, err := ParseClientKeys(req.JWKS)
	if err != nil {
		return nil, badMetadata("jwks must hold 1 to 8 public keys, OKP with Ed25519 or EC with P-256")
	}
	return keys, nil
}

// ParseClientKeys reads the JWK Set of a client: one to eight public keys for
// signatures. Errors are ErrInvalid.
func ParseClientKeys(text []byte) ([]agent.PublicKey, error) {
	v, err := jcs.Parse(text, jcs.Limits{Bytes: maxForm})
	if err != nil {
		return nil, invalid("a JWK Set: %v", err)
	}
	list := v.Get("keys")
	if list.Kind() != jcs.Array || list.Len() < 1 || list.Len() > maxKeys {
		return nil, invalid("a JWK Set with 1 to %d keys", maxKeys)
	}
	var keys []agent.PublicKey
	for i, jwk := range list.Elements() {
		key, err := agent.ParsePublicKeyExtra(jwk)
		if err != nil {
			return nil, refusedAs(fmt.Sprintf("keys[%d]", i), err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
