package authz

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

const (
	// nonceLife is how long a nonce is taken.
	nonceLife = 5 * time.Minute
	// nonceSkew is how far the clocks of two replicas may be apart.
	nonceSkew = 30 * time.Second
	// nonceMAC is how much of the HMAC a nonce carries.
	nonceMAC = 16
)

// Nonces makes and checks the nonces of DPoP (RFC 9449 section 8) without
// keeping any: a nonce is the time it was made and an HMAC over that time and
// the key it was made for. All replicas share the secret, so each takes what
// another handed out; a nonce is worth nothing to another key.
//
//	nonce = base64url(time ‖ HMAC-SHA256(secret, "dpop nonce v1" ‖ time ‖ jkt)[:16])
type Nonces struct{ secret []byte }

// NewNonces makes Nonces from the server's secret for them: [Keyring.Nonce].
func NewNonces(secret []byte) *Nonces { return &Nonces{secret} }

// Nonce returns a nonce for the key with that thumbprint.
func (n *Nonces) Nonce(jkt string, now time.Time) string {
	stamp := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	return base64.RawURLEncoding.EncodeToString(n.seal(stamp, jkt))
}

// Valid reports whether nonce was made for that key, not long ago.
func (n *Nonces) Valid(nonce, jkt string, now time.Time) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != 8+nonceMAC || !hmac.Equal(raw, n.seal(raw[:8:8], jkt)) {
		return false
	}
	age := now.Sub(time.Unix(int64(binary.BigEndian.Uint64(raw)), 0))
	return age >= -nonceSkew && age < nonceLife
}

// seal appends the HMAC to a time.
func (n *Nonces) seal(stamp []byte, jkt string) []byte {
	mac := hmac.New(sha256.New, n.secret)
	mac.Write([]byte("dpop nonce v1"))
	mac.Write(stamp)
	mac.Write([]byte(jkt))
	return append(stamp, mac.Sum(nil)[:nonceMAC]...)
}
