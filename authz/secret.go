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
// it seals the keys inside. While it is being changed it has older ones beside
// it, which still open.
type DeploymentSecret struct {
	key   [32]byte
	older [][32]byte
}

// NewDeploymentSecret makes a random one.
func NewDeploymentSecret() DeploymentSecret { return DeploymentSecret{key: [32]byte(randomBytes(32))} }

// ErrMalformedSecret says that a text is not a deployment secret.
var ErrMalformedSecret = errors.New("authz: a deployment secret is 32 bytes, as unpadded base64url, as hex, or raw")

// maxSecretLines bounds a secret file.
const maxSecretLines = 8

// ParseDeploymentSecret reads the content of a secret file: 32 bytes as
// unpadded base64url, as hex, or raw. White space around text is ignored. There
// may be several as text, one a line: the first seals, all open.
func ParseDeploymentSecret(content []byte) (DeploymentSecret, error) {
	if len(content) == 32 {
		return DeploymentSecret{key: [32]byte(content)}, nil
	}
	var lines [][32]byte
	for line := range bytes.Lines(content) {
		text := string(bytes.TrimSpace(line))
		if text == "" {
			continue
		}
		var raw []byte
		var err error
		switch len(text) {
		case 43:
			raw, err = base64.RawURLEncoding.Strict().DecodeString(text)
		case 64:
			raw, err = hex.DecodeString(text)
		}
		if err != nil || len(raw) != 32 || len(lines) == maxSecretLines {
			return DeploymentSecret{}, ErrMalformedSecret
		}
		lines = append(lines, [32]byte(raw))
	}
	if len(lines) == 0 {
		return DeploymentSecret{}, ErrMalformedSecret
	}
	return DeploymentSecret{key: lines[0], older: lines[1:]}, nil
}

// lines are the secrets, the one that seals first.
func (s DeploymentSecret) lines() [][32]byte { return append([][32]byte{s.key}, s.older...) }

// Reveal returns the text of the one that seals, which goes into a secret file
// and nowhere else.
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
	return Secret{randomID(32)}
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
func randomID(n int) string { return base64.RawURLEncoding.EncodeToString(randomBytes(n)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand aborts the program instead
	return b
}
