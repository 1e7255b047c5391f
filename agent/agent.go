// Package agent says who: an agent's keys and the signed documents that speak
// for the agent itself: its manifest, its key cards, its client assertions and
// its DPoP proofs.
//
// What the package guarantees:
//
//   - A PublicKey that is not zero is usable and safe: a P-256 point on its
//     curve, or an Ed25519 key in canonical form that is not of small order.
//     Nothing else can be built (delegation.md §3, "Validate keys on import").
//   - A signature is checked under the algorithm of the key, never under one
//     that a header names: the header must agree with the key.
//   - Every kind of document demands its own typ, so none is taken for another.
//   - A proof (VerifyProof) speaks for one key, one method, one URL, one
//     credential and one minute. That it comes only once is the caller's duty:
//     VerifiedProof says what to remember and until when.
//   - An AAT proof (VerifyAATProof) speaks for one key, one leaf, one resource
//     server, one tool with its arguments and one minute, and likewise once.
//   - A private key never prints: String, GoString and LogValue are
//     "[redacted]".
//
// An agent's id is the RFC 7638 thumbprint of its first key, 43 characters of
// base64url. Formats are in delegation.md §10; all functions are pure, take the
// time as a parameter and do no I/O.
package agent

import (
	"errors"
	"fmt"
)

// ErrInvalid is the root of every refusal of this package: a key, manifest,
// card, assertion, proof or token that is not what it must be.
var ErrInvalid = errors.New("invalid")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Sizes and times that hold for everything here (delegation.md §1).
const (
	// MaxToken is the size of one compact JWT in bytes.
	MaxToken = 8192
	// skewSeconds is how far a clock that signs may run ahead of ours.
	skewSeconds = 30
)

// IsID reports whether s has the form of an agent id, 43 characters of
// base64url.
func IsID(s string) bool {
	if len(s) != 43 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
