package agent

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// assertionTypes are the typ values of a client assertion (delegation.md §2:
// "absent, `JWT` or `client-authentication+jwt`").
var assertionTypes = []string{"", "JWT", "client-authentication+jwt"}

// An assertion proves the possession of a client's key (RFC 7523,
// private_key_jwt).

// Assertion is what a verified client assertion says.
type Assertion struct {
	// ClientID is who signed it.
	ClientID string
	// JTI identifies the assertion among those of the client; whoever takes an
	// assertion must take each only once.
	JTI string
	// Expires is when it ends; a jti must be remembered until then.
	Expires time.Time
}

// AssertionCheck is what a verifier demands of an assertion.
type AssertionCheck struct {
	// ClientID must be iss and sub.
	ClientID string
	// Audience must be the one and only aud: our issuer.
	Audience string
	// MaxLifetime is the longest life accepted; 0 means one minute.
	MaxLifetime time.Duration
	// Now is the time of the check.
	Now time.Time
}

// SignAssertion makes a client assertion for an audience, valid for ttl.
func SignAssertion(key PrivateKey, clientID, audience string, now time.Time, ttl time.Duration) (string, error) {
	payload, err := jcs.Marshal(map[string]any{
		"iss": clientID, "sub": clientID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(ttl).Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("making an assertion: %w", err)
	}
	return SignCompact(key, map[string]any{"typ": "client-authentication+jwt", "kid": key.Public().Thumbprint()}, payload)
}

// VerifyAssertion checks a client assertion under the client's key. It does not
// remember the jti: that is the caller's duty.
func VerifyAssertion(token string, key PublicKey, check AssertionCheck) (Assertion, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return Assertion{}, err
	}
	if err := c.checkTyp(assertionTypes); err != nil {
		return Assertion{}, err
	}
	if err := checkAlg(c.UnverifiedHeader, key); err != nil {
		return Assertion{}, err
	}
	payload, err := c.verifySignature(key)
	if err != nil {
		return Assertion{}, err
	}
	v, err := claims(payload)
	if err != nil {
		return Assertion{}, err
	}
	return readAssertion(v, check)
}

// UnverifiedAssertionClient returns the client that an assertion claims to be
// of, so that a server can find the key to verify it with (RFC 7521 §4.2: the
// client_id parameter may be left out).
func UnverifiedAssertionClient(token string) (string, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return "", err
	}
	if err := c.checkTyp(assertionTypes); err != nil {
		return "", err
	}
	v, err := claims(c.UnverifiedPayload)
	if err != nil {
		return "", err
	}
	iss, sub := v.Get("iss").Str(), v.Get("sub").Str()
	if !printable(iss, maxText) || iss != sub {
		return "", invalid("assertion: iss and sub are not one client")
	}
	return iss, nil
}

func readAssertion(v jcs.Value, check AssertionCheck) (Assertion, error) {
	if check.MaxLifetime == 0 {
		check.MaxLifetime = time.Minute
	}
	for _, name := range []string{"iss", "sub"} {
		if s := v.Get(name); s.Kind() != jcs.String || check.ClientID == "" || s.Str() != check.ClientID {
			return Assertion{}, invalid("assertion: %s is not the client", name)
		}
	}
	// A sole audience: an assertion that names several servers could be
	// replayed by one of them at another.
	aud := v.Get("aud")
	if aud.Kind() == jcs.Array && aud.Len() == 1 {
		aud = aud.Elements()[0]
	}
	if aud.Kind() != jcs.String || check.Audience == "" || aud.Str() != check.Audience {
		return Assertion{}, invalid("assertion: aud is not this issuer alone")
	}
	jti := v.Get("jti")
	if jti.Kind() != jcs.String || !printable(jti.Str(), maxJTI) {
		return Assertion{}, invalid("assertion: jti is missing")
	}
	now, life := check.Now.Unix(), int64(check.MaxLifetime/time.Second)
	exp, err := seconds(v, "exp")
	if err != nil {
		return Assertion{}, err
	}
	if exp <= now {
		return Assertion{}, invalid("assertion: expired")
	}
	// Whatever iat says, no jti need be remembered longer than this.
	if exp > now+life+skewSeconds {
		return Assertion{}, invalid("assertion: lives longer than %d s", life)
	}
	if v.Get("iat").Exists() {
		iat, err := seconds(v, "iat")
		if err != nil {
			return Assertion{}, err
		}
		if iat > now+skewSeconds {
			return Assertion{}, invalid("assertion: not yet valid")
		}
		if exp-iat > life || exp <= iat {
			return Assertion{}, invalid("assertion: lives longer than %d s", life)
		}
	} else if exp > now+life {
		return Assertion{}, invalid("assertion: lives longer than %d s", life)
	}
	if v.Get("nbf").Exists() {
		nbf, err := seconds(v, "nbf")
		if err != nil {
			return Assertion{}, err
		}
		if nbf > now+skewSeconds {
			return Assertion{}, invalid("assertion: not yet valid")
		}
	}
	return Assertion{ClientID: check.ClientID, JTI: jti.Str(), Expires: time.Unix(exp, 0)}, nil
}
