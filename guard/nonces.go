package guard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// NoncesConfig says how nonces are made.
type NoncesConfig struct {
	// Secret is at least 32 random bytes, the same for every replica. Nil:
	// made at start, for one process.
	Secret []byte
	// Secrets, in place of Secret, gives secrets that change, one or more: the
	// first makes nonces, all are accepted. It is asked with every nonce.
	Secrets func() [][]byte
	// Period is how often the nonce of a holder changes; one is good until the
	// next but one change. Zero: two minutes.
	Period time.Duration
}

// NewNonces makes nonces that need no store: the nonce of a holder is a MAC
// over its key and the current period.
//
//	base64url(HMAC-SHA256(secret, "kavach dpop nonce" ‖ period ‖ jkt))
//
// A secret that is too short is a mistake of the program and panics.
func NewNonces(cfg NoncesConfig) Nonces {
	n := nonces{secrets: cfg.Secrets, seconds: max(1, int64(cfg.Period/time.Second))}
	if cfg.Period == 0 {
		n.seconds = 120
	}
	if n.secrets == nil {
		secret := cfg.Secret
		if secret == nil {
			secret = make([]byte, 32)
			_, _ = rand.Read(secret) // never fails
		}
		n.secrets = func() [][]byte { return [][]byte{secret} }
	}
	for _, secret := range n.secrets() {
		if len(secret) < 32 {
			panic("guard: a secret of NoncesConfig is shorter than 32 bytes")
		}
	}
	return n
}

type nonces struct {
	secrets func() [][]byte
	seconds int64
}

// Nonce implements Nonces.
func (n nonces) Nonce(jkt string, now time.Time) string {
	return nonce(n.secrets()[0], jkt, now.Unix()/n.seconds)
}

// Valid implements Nonces.
func (n nonces) Valid(shown, jkt string, now time.Time) bool {
	period := now.Unix() / n.seconds
	// A replica whose clock runs ahead may be in the next period already.
	for _, secret := range n.secrets() {
		for _, p := range []int64{period, period - 1, period + 1} {
			if hmac.Equal([]byte(shown), []byte(nonce(secret, jkt, p))) {
				return true
			}
		}
	}
	return false
}

func nonce(secret []byte, jkt string, period int64) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(binary.BigEndian.AppendUint64([]byte("kavach dpop nonce"), uint64(period)))
	mac.Write([]byte(jkt))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
