package agent

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// How a manifest shows that it is the agent's (delegation.md §10, "Standing
// alone a manifest verifies with …"):
//
//	m1           the first one: its key makes the id
//	m1~m2~…~mn   the full history: every one follows the one before
//	mn~c         any one, with the countersignature c of a server
//
// At a key change one payload is signed twice: by the new key, as the manifest
// itself, and by the key before, whose signature stands in the header that the
// new key signs:
//
//	header   {"alg":…,"kid":id,"prev_sig":"<h>..<s>","typ":"agent-manifest+jwt"}
//	h        base64url of {"alg":…,"kid":id,"typ":"agent-rotation+jwt"}
//	s        base64url of the signature of the key before over h "." payload
//
// <h>..<s> is a JWS with detached content (RFC 7515 appendix F).

const (
	// RotationType is the typ of the signature of the key before.
	RotationType = "agent-rotation+jwt"
	// MaxHistory is how many manifests a history has at most. An agent that has
	// more shows a countersignature.
	MaxHistory = 256

	endorsementMember = "prev_sig"
	separator         = "~"
)

// ManifestCheck is what a reader demands of a manifest that stands alone.
type ManifestCheck struct {
	// Now is the time of the check.
	Now time.Time
	// Issuer is the server whose countersignature counts. Empty: none does.
	Issuer string
	// Countersigner finds a public key of that server by its kid.
	Countersigner func(kid string) (PublicKey, bool)
	// MinSeq is the highest seq of this agent that the reader has seen: an older
	// manifest, which its key signed before it was replaced, is refused.
	MinSeq int64
}

// VerifyManifest checks a manifest that stands alone, without a server: a first
// manifest, or a full history. It returns the last one. An expired manifest is
// refused; those it replaced may have expired.
func VerifyManifest(text string, now time.Time) (Manifest, error) {
	return ManifestCheck{Now: now}.Verify(text)
}

// Verify checks a manifest in any of the three forms and returns it, the last
// one of a history.
func (check ManifestCheck) Verify(text string) (Manifest, error) {
	m, err := check.find(text)
	if err != nil {
		return Manifest{}, err
	}
	if m.Seq < check.MinSeq {
		return Manifest{}, invalid("manifest: seq %d was replaced, %d is known", m.Seq, check.MinSeq)
	}
	return m, m.current(check.Now)
}

func (check ManifestCheck) find(text string) (Manifest, error) {
	if first, last, ok := strings.Cut(text, separator); ok && isCountersignature(last) {
		return check.countersigned(first, last)
	}
	list, err := VerifyHistory(text)
	if err != nil {
		return Manifest{}, err
	}
	return list[len(list)-1], nil
}

// VerifyHistory checks a full history, m1~…~mn, and returns its manifests. That
// the last one is not expired is not looked at.
func VerifyHistory(text string) ([]Manifest, error) {
	if n := strings.Count(text, separator); n >= MaxHistory {
		return nil, invalid("manifest: a history of more than %d", MaxHistory)
	}
	var list []Manifest
	var before oneManifest
	used := map[PublicKey]bool{}
	for part := range strings.SplitSeq(text, separator) {
		m, err := readManifest(part)
		if err != nil {
			return nil, err
		}
		switch {
		case len(list) > 0:
			if err := m.follows(before); err != nil {
				return nil, err
			}
		case m.Seq != 1:
			return nil, invalid("manifest: seq %d does not stand alone: send its history, or a countersignature", m.Seq)
		}
		// A key that was given up may be somebody else's by now.
		if m.Key != before.Key && used[m.Key] {
			return nil, invalid("manifest: its key was replaced before")
		}
		used[m.Key] = true
		list, before = append(list, m.Manifest), m
	}
	return list, nil
}

// VerifySuccessors checks manifests that are to replace last, one after the
// other; next is m~…~m. The caller knows last to be the agent's current one and
// its keys before that. Only the last of the new ones must not have expired.
func VerifySuccessors(last, next string, now time.Time) ([]Manifest, error) {
	before, err := readManifest(last)
	if err != nil {
		return nil, err
	}
	if strings.Count(next, separator) >= MaxHistory {
		return nil, invalid("manifest: a history of more than %d", MaxHistory)
	}
	var list []Manifest
	for part := range strings.SplitSeq(next, separator) {
		m, err := readManifest(part)
		if err != nil {
			return nil, err
		}
		if err := m.follows(before); err != nil {
			return nil, err
		}
		list, before = append(list, m.Manifest), m
	}
	return list, before.current(now)
}

// ManifestHash is what the manifest after names as prev, and what a
// countersignature is for: base64url SHA-256 of the signing input.
func ManifestHash(token string) (string, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return "", err
	}
	return c.hash(), nil
}

func (c Compact) hash() string {
	sum := sha256.Sum256([]byte(c.SigningInput))
	return jcs.Base64URL(sum[:])
}

// JoinHistory adds a manifest to a history, which is empty before the first.
func JoinHistory(history, next string) string {
	if history == "" {
		return next
	}
	return history + separator + next
}

// LastManifest is the last manifest of a history.
func LastManifest(history string) string {
	return history[strings.LastIndex(history, separator)+1:]
}

// follows checks one edge of a history.
func (m oneManifest) follows(before oneManifest) error {
	switch {
	case m.ID != before.ID:
		return invalid("manifest: of another agent than the one before")
	case m.Seq != before.Seq+1:
		return invalid("manifest: seq %d does not follow %d", m.Seq, before.Seq)
	case subtle.ConstantTimeCompare([]byte(m.Prev), []byte(before.compact.hash())) != 1:
		return invalid("manifest: prev is not the hash of the one before")
	case m.IssuedAt.Before(before.IssuedAt):
		return invalid("manifest: issued before the one it replaces")
	case m.Key == before.Key && m.endorsement != "":
		return invalid("manifest: %s without a key change", endorsementMember)
	case m.Key == before.Key:
		return nil
	case m.endorsement == "":
		return invalid("manifest: the key before did not sign the key change")
	}
	// "at a key change also by the previous key": over the very same payload.
	head, sig, ok := strings.Cut(m.endorsement, "..")
	if !ok {
		return invalid("manifest: %s is not a JWS with detached content", endorsementMember)
	}
	_, payload, _ := strings.Cut(m.compact.SigningInput, ".")
	c, err := SplitCompact(head + "." + payload + "." + sig)
	if err != nil {
		return err
	}
	if kid := c.UnverifiedHeader.Get("kid"); kid.Kind() != jcs.String || kid.Str() != m.ID {
		return invalid("manifest: kid of %s is not the agent id", endorsementMember)
	}
	_, err = c.Verify(before.Key, RotationType)
	return err
}

// NextManifest is what SignNextManifest needs beside the manifest.
type NextManifest struct {
	// Last is the manifest that is replaced, or the history that ends with it.
	Last string
	// Key signs: the agent's key from now on.
	Key PrivateKey
	// Previous is the key of Last. It is needed at a key change only.
	Previous PrivateKey
}

// SignNextManifest makes the manifest that replaces another one, with the same
// key or with a new one. ID, Seq, Prev and Key are filled in, and lists are
// sorted. IssuedAt is not before that of the one it replaces.
func SignNextManifest(m Manifest, next NextManifest) (string, error) {
	last := LastManifest(next.Last)
	before, err := readManifest(last)
	if err != nil {
		return "", err
	}
	m.ID, m.Seq, m.Prev, m.Key = before.ID, before.Seq+1, before.compact.hash(), next.Key.Public()
	payload, err := m.payload()
	if err != nil {
		return "", err
	}
	endorsement := ""
	if m.Key != before.Key {
		if next.Previous.IsZero() {
			return "", invalid("manifest: a key change is signed by the key before, too")
		}
		full, err := SignCompact(next.Previous, map[string]any{"typ": RotationType, "kid": m.ID}, payload)
		if err != nil {
			return "", err
		}
		head, rest, _ := strings.Cut(full, ".")
		_, sig, _ := strings.Cut(rest, ".")
		endorsement = head + ".." + sig
	}
	token, err := signManifest(m.ID, payload, next.Key, endorsement)
	if err != nil {
		return "", err
	}
	// Whatever is wrong with the keys shows here.
	if _, err := VerifySuccessors(last, token, m.IssuedAt); err != nil {
		return "", err
	}
	return token, nil
}
