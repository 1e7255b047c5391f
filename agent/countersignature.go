package agent

import (
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// CountersignatureType is the typ of a countersignature, byte-exact.
const CountersignatureType = "agent-countersignature+jwt"

const (
	// CountersignaturePrefix begins the kid of every key that countersigns
	// (delegation.md §1).
	CountersignaturePrefix = "mf-"
	// MaxCountersignatureLife is the longest life of a countersignature. So long
	// a manifest that was replaced still verifies for who reads nothing else.
	MaxCountersignatureLife = time.Hour
)

// Countersignature is a server's word that a manifest is an agent's current
// one.
type Countersignature struct {
	// Issuer is the server.
	Issuer string
	// Agent and Seq are those of the manifest.
	Agent string
	Seq   int64
	// Manifest is its ManifestHash.
	Manifest string
	// IssuedAt and Expires are whole seconds, at most MaxCountersignatureLife
	// apart.
	IssuedAt time.Time
	Expires  time.Time
}

// Countersign signs c with a server's key and appends it to the manifest it is
// for. Agent, Seq and Manifest are filled in.
func Countersign(manifest string, c Countersignature, kid string, key PrivateKey) (string, error) {
	m, err := readManifest(manifest)
	if err != nil {
		return "", err
	}
	c.Agent, c.Seq, c.Manifest = m.ID, m.Seq, m.compact.hash()
	if err := c.check(); err != nil {
		return "", err
	}
	if !strings.HasPrefix(kid, CountersignaturePrefix) {
		return "", invalid("countersignature: kid is not of a key that countersigns")
	}
	payload, err := jcs.Marshal(map[string]any{
		"iss": c.Issuer, "sub": c.Agent, "seq": c.Seq, "manifest": c.Manifest,
		"iat": c.IssuedAt.Unix(), "exp": c.Expires.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("%w: countersignature: %w", ErrInvalid, err)
	}
	signed, err := SignCompact(key, map[string]any{"typ": CountersignatureType, "kid": kid}, payload)
	if err != nil {
		return "", err
	}
	return manifest + separator + signed, nil
}

func (c Countersignature) check() error {
	switch life := c.Expires.Unix() - c.IssuedAt.Unix(); {
	case !printable(c.Issuer, maxText):
		return invalid("countersignature: iss is missing")
	case c.IssuedAt.Unix() < 0 || life <= 0:
		return invalid("countersignature: exp must be after iat")
	case life > int64(MaxCountersignatureLife/time.Second):
		return invalid("countersignature: lives longer than %v", MaxCountersignatureLife)
	}
	return nil
}

// isCountersignature tells the two meanings of what follows "~" apart. It
// verifies nothing.
func isCountersignature(token string) bool {
	c, err := SplitCompact(token)
	return err == nil && c.checkTyp([]string{CountersignatureType}) == nil
}

// countersigned checks a manifest with the word of a server.
func (check ManifestCheck) countersigned(manifest, signed string) (Manifest, error) {
	m, err := readManifest(manifest)
	if err != nil {
		return Manifest{}, err
	}
	c, err := SplitCompact(signed)
	if err != nil {
		return Manifest{}, err
	}
	if check.Issuer == "" || check.Countersigner == nil {
		return Manifest{}, invalid("countersignature: no server is known whose word counts")
	}
	kid := c.UnverifiedHeader.Get("kid")
	if kid.Kind() != jcs.String || !strings.HasPrefix(kid.Str(), CountersignaturePrefix) {
		return Manifest{}, invalid("countersignature: kid is not of a key that countersigns")
	}
	key, ok := check.Countersigner(kid.Str())
	if !ok {
		return Manifest{}, invalid("countersignature: its key is not known")
	}
	payload, err := c.Verify(key, CountersignatureType)
	if err != nil {
		return Manifest{}, err
	}
	v, err := claims(payload)
	if err != nil {
		return Manifest{}, err
	}
	said, err := readCountersignature(v)
	if err != nil {
		return Manifest{}, err
	}
	now := check.Now.Unix()
	switch {
	case said.Issuer != check.Issuer:
		return Manifest{}, invalid("countersignature: of another server")
	case said.Agent != m.ID || said.Seq != m.Seq || said.Manifest != m.compact.hash():
		return Manifest{}, invalid("countersignature: for another manifest")
	case said.IssuedAt.Unix() > now+skewSeconds:
		return Manifest{}, invalid("countersignature: not yet valid")
	case said.Expires.Unix() <= now:
		return Manifest{}, invalid("countersignature: expired; the server gives a new one")
	}
	return m.Manifest, nil
}

func readCountersignature(v jcs.Value) (Countersignature, error) {
	var c Countersignature
	for _, member := range []struct {
		name string
		into *string
	}{{"iss", &c.Issuer}, {"sub", &c.Agent}, {"manifest", &c.Manifest}} {
		s := v.Get(member.name)
		if s.Kind() != jcs.String {
			return c, invalid("countersignature: %s is not a string", member.name)
		}
		*member.into = s.Str()
	}
	seq, ok := v.Get("seq").Int()
	if !ok {
		return c, invalid("countersignature: seq is not an integer")
	}
	iat, err := seconds(v, "iat")
	if err != nil {
		return c, fmt.Errorf("countersignature: %w", err)
	}
	exp, err := seconds(v, "exp")
	if err != nil {
		return c, fmt.Errorf("countersignature: %w", err)
	}
	c.Seq, c.IssuedAt, c.Expires = seq, time.Unix(iat, 0), time.Unix(exp, 0)
	return c, c.check()
}
