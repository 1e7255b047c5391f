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
	n := nonces{secret: cfg.Secret, seconds: max(1, int64(cfg.Period/time.Second))}
	if cfg.Period == 0 {
		n.seconds = 120
	}
	if n.secret == nil {
		n.secret = make([]byte, 32)
		_, _ = rand.Read(n.secret) // never fails
	}
	if len(n.secret) < 32 {
		panic("guard: NoncesConfig.Secret is shorter than 32 bytes")
	}
	return n
}

type nonces struct {
	secret  []byte
	seconds int64
}

// Nonce implements Nonces.
func (n nonces) Nonce(jkt string, now time.Time) string { return n.of(jkt, now.Unix()/n.seconds) }

// Valid implements Nonces.
func (n nonces) Valid(nonce, jkt string, now time.Time) bool {
	period := now.Unix() / n.seconds
	// A replica whose clock runs ahead may be in the next period already.
	for _, p := range []int64{period, period - 1, period + 1} {
		if hmac.Equal([]byte(nonce), []byte(n.of(jkt, p))) {
			return true
		}
	}
	return false
}

func (n nonces) of(jkt string, period int64) string {
	mac := hmac.New(sha256.New, n.secret)
	mac.Write(binary.BigEndian.AppendUint64([]byte("kavach dpop nonce"), uint64(period)))
	mac.Write([]byte(jkt))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
