package authz

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
)

const redacted = "[redacted]"

// DeploymentSecret is the one secret a deployment keeps outside its database;
// it seals the keys inside.
type DeploymentSecret struct{ key [32]byte }

// NewDeploymentSecret makes a random one.
func NewDeploymentSecret() DeploymentSecret {
	var s DeploymentSecret
	rand.Read(s.key[:]) // never fails: crypto/rand aborts the program instead
	return s
}

// ErrMalformedSecret says that a text is not a deployment secret.
var ErrMalformedSecret = errors.New("authz: a deployment secret is 32 bytes, as unpadded base64url, as hex, or raw")

// ParseDeploymentSecret reads the content of a secret file: 32 bytes as
// unpadded base64url, as hex, or raw. White space around text is ignored.
func ParseDeploymentSecret(content []byte) (DeploymentSecret, error) {
	var s DeploymentSecret
	if len(content) == len(s.key) {
		copy(s.key[:], content)
		return s, nil
	}
	text := string(bytes.TrimSpace(content))
	var raw []byte
	var err error
	switch len(text) {
	case 43:
		raw, err = base64.RawURLEncoding.Strict().DecodeString(text)
	case 64:
		raw, err = hex.DecodeString(text)
	}
	if err != nil || len(raw) != len(s.key) {
		return s, ErrMalformedSecret
	}
	copy(s.key[:], raw)
	return s, nil
}

// Reveal returns the text that goes into a secret file, and nowhere else.
func (s DeploymentSecret) Reveal() string { return base64.RawURLEncoding.EncodeToString(s.key[:]) }

// String redacts.
func (DeploymentSecret) String() string { return redacted }

// GoString redacts.
func (DeploymentSecret) GoString() string { return redacted }

// LogValue redacts.
func (DeploymentSecret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON redacts.
func (DeploymentSecret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Secret is a client's secret on its one way out to whoever asked for it.
type Secret struct{ text string }

// newSecret makes one of 256 random bits, so that a single SHA-256 stores it:
// there is nothing to guess that a slow hash would protect.
func newSecret() Secret {
	var b [32]byte
	rand.Read(b[:])
	return Secret{base64.RawURLEncoding.EncodeToString(b[:])}
}

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.text }

// IsZero says that there is none.
func (s Secret) IsZero() bool { return s.text == "" }

// String redacts.
func (Secret) String() string { return redacted }

// GoString redacts.
func (Secret) GoString() string { return redacted }

// LogValue redacts.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON redacts.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// HashSecret is how a secret or token of 256 random bits is stored: base64url
// SHA-256, every byte of it counting.
func HashSecret(text string) string {
	h := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// secretMatches compares in constant time.
func secretMatches(hash, presented string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(HashSecret(presented))) == 1
}

// randomID makes an identifier of n random bytes from [A-Za-z0-9_-].
func randomID(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}
