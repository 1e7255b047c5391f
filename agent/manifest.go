package agent

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/jcs"
)

// ManifestType is the typ of a manifest, byte-exact.
const ManifestType = "agent-manifest+jwt"

// Limits of a manifest (delegation.md §1, §10).
const (
	// MaxManifestLife is the longest life of a manifest, one year.
	MaxManifestLife = 365 * 24 * time.Hour
	// MaxDepth is the deepest chain: depths 0 to 8.
	MaxDepth = 8

	maxName     = 64
	maxPurpose  = 1024
	maxScopes   = 64
	maxTools    = 64
	maxMetadata = 32
	maxText     = 1024
)

// The capabilities that a manifest may declare. Only CapabilityDelegate is
// enforced: without it the server issues nothing that can be handed on.
const (
	CapabilityRead     = "read"
	CapabilityWrite    = "write"
	CapabilityDelegate = "delegate"
)

// Manifest declares an agent: who it is, what it is for, and what it may ask
// for. It is signed by the agent's own key.
type Manifest struct {
	// ID is the RFC 7638 thumbprint of the agent's first key.
	ID string
	// Seq counts the manifests of an agent from 1. Standing alone only the
	// first verifies: it is signed by the key that makes the id.
	Seq int64
	// Prev is the Hash of the manifest before; empty in the first.
	Prev string
	// Name is a label, unique per owner at a server.
	Name string
	// Version is a semantic version of the agent.
	Version string
	// Purpose is one or two sentences for people.
	Purpose string
	// Scopes are what the agent may ask for.
	Scopes []string
	// Tools are the tools it says it calls; nil says nothing.
	Tools []string
	// Capabilities are any of read, write, delegate.
	Capabilities []string
	// MaxDepth bounds the depth of chains below the agent's tokens.
	MaxDepth int
	// Origin says where the agent comes from; declared and shown only.
	Origin string
	// TrustLevel is declared and shown only.
	TrustLevel string
	// Metadata are up to 32 pairs, declared and shown only.
	Metadata map[string]string
	// Key is the agent's identity key.
	Key PublicKey
	// IssuedAt and Expires are whole seconds; at most a year lies between.
	IssuedAt time.Time
	Expires  time.Time
}

// Can reports whether the manifest declares a capability.
func (m Manifest) Can(capability string) bool {
	return slices.Contains(m.Capabilities, capability)
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	// semverPattern is the grammar of semver.org 2.0.0.
	semverPattern = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
		`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
)

// IsName reports whether s can be the name of an agent: 1 to 64 characters of
// A-Z a-z 0-9 . _ -, the first a letter or digit, and not of the form of an
// agent id, because commands and tools accept either.
func IsName(s string) bool {
	return len(s) <= maxName && namePattern.MatchString(s) && !IsID(s)
}

// IsScope reports whether s is a scope token (delegation.md §1):
// ^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$. Every scope of every token comes through
// here, so it is no pattern.
func IsScope(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == ':' || c == '/' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// SignManifest makes the first manifest of the key's agent. ID, Seq, Prev and
// Key are filled in, and lists are sorted; the rest is the caller's and is
// checked as a verifier would.
func SignManifest(m Manifest, key PrivateKey) (string, error) {
	m.Key = key.Public()
	m.ID, m.Seq, m.Prev = m.Key.Thumbprint(), 1, ""
	payload, err := m.payload()
	if err != nil {
		return "", err
	}
	return signManifest(m.ID, payload, key, "")
}

// payload is the claims of a manifest, which is checked first.
func (m Manifest) payload() ([]byte, error) {
	m.Scopes = sorted(m.Scopes)
	m.Tools = sorted(m.Tools)
	m.Capabilities = sorted(m.Capabilities)
	if err := m.check(); err != nil {
		return nil, err
	}
	c := map[string]any{
		"id": m.ID, "seq": m.Seq, "name": m.Name, "version": m.Version, "purpose": m.Purpose,
		"scopes": m.Scopes, "capabilities": m.Capabilities, "max_depth": m.MaxDepth,
		"jwk": m.Key.JWK(), "iat": m.IssuedAt.Unix(), "exp": m.Expires.Unix(),
	}
	if len(m.Tools) > 0 {
		c["tools"] = m.Tools
	}
	if len(m.Metadata) > 0 {
		c["metadata"] = m.Metadata
	}
	for name, value := range map[string]string{"prev": m.Prev, "origin": m.Origin, "trust_level": m.TrustLevel} {
		if value != "" {
			c[name] = value
		}
	}
	payload, err := jcs.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	return payload, nil
}

// signManifest signs claims with the agent's key; endorsement is the signature
// of the key before, at a key change.
func signManifest(id string, payload []byte, key PrivateKey, endorsement string) (string, error) {
	header := map[string]any{"typ": ManifestType, "kid": id}
	if endorsement != "" {
		header[endorsementMember] = endorsement
	}
	token, err := SignCompact(key, header, payload)
	if err != nil {
		return "", err
	}
	if len(token) > MaxToken {
		return "", invalid("manifest: more than %d bytes", MaxToken)
	}
	return token, nil
}

func sorted(list []string) []string {
	out := append(make([]string, 0, len(list)), list...)
	slices.Sort(out)
	return out
}

// oneManifest is a manifest whose own signature held: its claims are those of
// whoever has its key. That this key is the agent's is not known yet.
type oneManifest struct {
	Manifest
	compact Compact
	// endorsement is the signature of the key before, "" for none.
	endorsement string
}

// readManifest takes one manifest apart. Time is not looked at.
func readManifest(token string) (oneManifest, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return oneManifest{}, err
	}
	// The key is inside what it signs, so the payload is read before the
	// signature; what was read counts only if the signature then holds under
	// it.
	v, err := claims(c.UnverifiedPayload)
	if err != nil {
		return oneManifest{}, err
	}
	m := oneManifest{compact: c}
	if m.Key, err = ParsePublicKey(v.Get("jwk")); err != nil {
		return oneManifest{}, err
	}
	if _, err := c.Verify(m.Key, ManifestType); err != nil {
		return oneManifest{}, err
	}
	if err := m.read(v); err != nil {
		return oneManifest{}, err
	}
	if kid := c.UnverifiedHeader.Get("kid"); kid.Kind() != jcs.String || kid.Str() != m.ID {
		return oneManifest{}, invalid("manifest: kid is not the agent id")
	}
	if e := c.UnverifiedHeader.Get(endorsementMember); e.Exists() {
		if e.Kind() != jcs.String || e.Str() == "" || m.Seq == 1 {
			return oneManifest{}, invalid("manifest: %s has no place in it", endorsementMember)
		}
		m.endorsement = e.Str()
	}
	return m, m.check()
}

// current refuses a manifest that is not of this time.
func (m Manifest) current(now time.Time) error {
	if m.IssuedAt.Unix() > now.Unix()+skewSeconds {
		return invalid("manifest: not yet valid")
	}
	if m.Expires.Unix() <= now.Unix() {
		return invalid("manifest: expired")
	}
	return nil
}

// read takes the claims over; their types must be exact, null is refused for
// every member that is known (delegation.md §8).
func (m *Manifest) read(v jcs.Value) error {
	var err error
	text := func(name string, required bool) string {
		e := v.Get(name)
		if err == nil && (e.Exists() || required) && e.Kind() != jcs.String {
			err = invalid("manifest: %s is not a string", name)
		}
		return e.Str()
	}
	list := func(name string, required bool) []string {
		e := v.Get(name)
		l, ok := e.Strings()
		if err == nil && !ok && (e.Exists() || required) {
			err = invalid("manifest: %s is not a list of strings", name)
		}
		return l
	}
	number := func(name string) int64 {
		n, ok := v.Get(name).Int()
		if err == nil && !ok {
			err = invalid("manifest: %s is not an integer", name)
		}
		return n
	}
	m.ID, m.Name, m.Version, m.Purpose = text("id", true), text("name", true), text("version", true), text("purpose", true)
	m.Origin, m.TrustLevel, m.Prev = text("origin", false), text("trust_level", false), text("prev", false)
	m.Scopes, m.Tools, m.Capabilities = list("scopes", true), list("tools", false), list("capabilities", true)
	m.Seq = number("seq")
	m.MaxDepth = int(max(min(number("max_depth"), MaxDepth+1), -1))
	m.IssuedAt, m.Expires = time.Unix(number("iat"), 0), time.Unix(number("exp"), 0)
	if meta := v.Get("metadata"); err == nil && meta.Exists() {
		if meta.Kind() != jcs.Object {
			return invalid("manifest: metadata is not an object")
		}
		m.Metadata = make(map[string]string, min(meta.Len(), maxMetadata))
		for name, e := range meta.Fields() {
			if e.Kind() != jcs.String {
				return invalid("manifest: metadata holds more than strings")
			}
			m.Metadata[name] = e.Str()
		}
	}
	if err == nil && v.Get("prev").Exists() && m.Prev == "" {
		return invalid("manifest: prev is empty")
	}
	return err
}

// check holds for making and for verifying alike.
func (m Manifest) check() error {
	switch {
	case !IsID(m.ID) || m.Seq == 1 && m.ID != m.Key.Thumbprint():
		return invalid("manifest: id is not the thumbprint of the first key")
	case m.Seq < 1:
		return invalid("manifest: seq %d is not a number from 1", m.Seq)
	case (m.Seq == 1) != (m.Prev == ""):
		return invalid("manifest: prev belongs into every manifest but the first")
	case m.Prev != "" && !IsID(m.Prev):
		return invalid("manifest: prev is not a SHA-256 in base64url")
	case !IsName(m.Name):
		return invalid("manifest: name must be 1 to %d characters of A-Z a-z 0-9 . _ - and not look like an id", maxName)
	case len(m.Version) > 128 || !semverPattern.MatchString(m.Version):
		return invalid("manifest: version is not a semantic version such as 1.0.0")
	case m.Purpose == "" || !plainText(m.Purpose, maxPurpose):
		return invalid("manifest: purpose must be 1 to %d bytes of plain text", maxPurpose)
	case m.MaxDepth < 0 || m.MaxDepth > MaxDepth:
		return invalid("manifest: max_depth must be 0 to %d", MaxDepth)
	case !plainText(m.Origin, maxText) || !plainText(m.TrustLevel, maxText):
		return invalid("manifest: origin and trust_level must be plain text of at most %d bytes", maxText)
	case len(m.Metadata) > maxMetadata:
		return invalid("manifest: metadata has more than %d pairs", maxMetadata)
	case m.IssuedAt.Unix() < 0 || m.Expires.Unix() <= m.IssuedAt.Unix():
		return invalid("manifest: exp must be after iat")
	case m.Expires.Unix()-m.IssuedAt.Unix() > int64(MaxManifestLife/time.Second):
		return invalid("manifest: lives longer than a year")
	}
	for name, value := range m.Metadata {
		if name == "" || !plainText(name, maxText) || !plainText(value, maxText) {
			return invalid("manifest: metadata must be plain text")
		}
	}
	if err := set("scopes", m.Scopes, maxScopes, IsScope); err != nil {
		return err
	}
	if err := set("tools", m.Tools, maxTools, func(s string) bool { return s != "" && plainText(s, maxText) }); err != nil {
		return err
	}
	return set("capabilities", m.Capabilities, 3, func(s string) bool {
		return s == CapabilityRead || s == CapabilityWrite || s == CapabilityDelegate
	})
}

func set(name string, list []string, limit int, valid func(string) bool) error {
	if len(list) > limit {
		return invalid("manifest: more than %d %s", limit, name)
	}
	for i, s := range list {
		if !valid(s) {
			return invalid("manifest: %s holds %s", name, strconv.QuoteToASCII(shortened(s)))
		}
		if slices.Contains(list[:i], s) {
			return invalid("manifest: %s holds %s twice", name, s)
		}
	}
	return nil
}

func shortened(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// plainText refuses control characters, and the invisible ones that change how
// a line reads to a person.
func plainText(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
}
