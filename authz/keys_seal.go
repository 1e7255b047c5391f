package authz

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// seals are the ciphers of a deployment secret, one for each line: the first
// seals, all open.
type seals struct {
	lines   [][32]byte
	ciphers []cipher.AEAD
}

func newSeals(secret DeploymentSecret) (*seals, error) {
	s := &seals{lines: secret.lines()}
	for _, line := range s.lines {
		kek, err := hkdf.Key(sha256.New, line[:], nil, "kavach keys at rest v1", 32)
		if err != nil {
			return nil, fmt.Errorf("deriving the sealing key: %w", err)
		}
		block, err := aes.NewCipher(kek)
		if err != nil {
			return nil, fmt.Errorf("making the sealing cipher: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("making the sealing cipher: %w", err)
		}
		s.ciphers = append(s.ciphers, aead)
	}
	return s, nil
}

// reread takes the secret as it is now. One that cannot be read changes
// nothing: the server beside a file that is being replaced goes on.
func (k *Keyring) reread() *seals {
	current := k.seals.Load()
	if k.cfg.Reread == nil {
		return current
	}
	secret, err := k.cfg.Reread()
	if err != nil || slices.Equal(secret.lines(), current.lines) {
		return current
	}
	s, err := newSeals(secret)
	if err != nil {
		return current
	}
	k.seals.Store(s)
	return s
}

// seal closes key material with the first line.
func (s *seals) seal(row SealedKey, material []byte) string {
	first := s.ciphers[0]
	nonce := randomBytes(first.NonceSize())
	return base64.RawURLEncoding.EncodeToString(first.Seal(nonce, nonce, material, row.binding()))
}

// unseal opens it with whichever line it was closed with, and says which.
func (s *seals) unseal(row SealedKey) (material []byte, line int, err error) {
	sealed, err := base64.RawURLEncoding.DecodeString(row.Sealed)
	if err == nil {
		for i, c := range s.ciphers {
			if n := c.NonceSize(); len(sealed) >= n {
				if material, err := c.Open(nil, sealed[:n], sealed[n:], row.binding()); err == nil {
					return material, i, nil
				}
			}
		}
	}
	return nil, 0, fmt.Errorf("opening key %s: %w", row.KID, ErrSecret)
}

// binding is what the seal is bound to: a database cannot pass one key off as
// another.
func (row SealedKey) binding() []byte {
	return []byte(row.KID + "\n" + row.Slot + "\n" + row.Purpose + "\n" + row.Alg)
}

// generate makes a key that signs from then on, and seals it with the secret as
// it is now.
func (k *Keyring) generate(s slot, generation int, signs time.Time) (SealedKey, error) {
	var material []byte
	var signer crypto.Signer
	var err error
	switch s.alg {
	case AlgES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case AlgEd25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case AlgRS256:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case algSecret:
		material = randomBytes(32)
	default:
		return SealedKey{}, fmt.Errorf("authz: no keys for algorithm %q", s.alg)
	}
	if err == nil && signer != nil {
		material, err = x509.MarshalPKCS8PrivateKey(signer)
	}
	if err != nil {
		return SealedKey{}, fmt.Errorf("making a key: %w", err)
	}
	row := SealedKey{
		KID: s.purpose + "-" + randomID(12), Slot: s.purpose + "/" + s.alg + "/" + strconv.Itoa(generation),
		Purpose: s.purpose, Alg: s.alg, Created: k.cfg.Now(), Signs: signs,
	}
	row.Sealed = k.reread().seal(row, material)
	return row, nil
}

// open opens a key; one that does not open may be sealed with a line that was
// added to the secret meanwhile.
func (k *Keyring) open(row SealedKey) (openKey, error) {
	material, line, err := k.seals.Load().unseal(row)
	if err != nil {
		material, line, err = k.reread().unseal(row)
	}
	if err != nil {
		return openKey{}, err
	}
	key := openKey{row: row, sealed: row.Sealed, stale: line > 0}
	if row.Alg == algSecret {
		key.secret = material
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return openKey{}, fmt.Errorf("opening key %s: it cannot sign", row.KID)
	}
	key.signer = signer
	if row.Purpose == purposeToken {
		if key.anchor, err = delegation.NewAnchor(row.KID, signer.Public()); err != nil {
			return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, err)
		}
	}
	return key, nil
}
