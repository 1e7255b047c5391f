package delegation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// The tokens of these tests are forged by hand, with encoding/json and the
// standard library alone: a mistake shared by Sign and Verify would show.

const (
	issuer   = "https://auth.example"
	gitHost  = "https://git.example"
	mcpHost  = issuer + "/mcp"
	alice    = "user-alice"
	orch     = "orchestrator"
	reviewer = "code-reviewer"
)

var now = time.Unix(1_800_000_000, 0)

// object is JSON; a member set to drop is removed.
type object = map[string]any

var drop = new(int)

// holder is a key pair in the hands of an agent, or of the server.
type holder struct {
	signer crypto.Signer
	alg    string
}

func ed(name string) holder {
	seed := sha256.Sum256([]byte(name))
	return holder{ed25519.NewKeyFromSeed(seed[:]), "Ed25519"}
}

func p256(name string) holder {
	seed := sha256.Sum256([]byte(name))
	d := new(big.Int).Mod(new(big.Int).SetBytes(seed[:]), elliptic.P256().Params().N)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
	if err != nil {
		panic(err)
	}
	return holder{key, "ES256"}
}

var rsaHolder = sync.OnceValue(func() holder {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return holder{key, "RS256"}
})

func (h holder) sign(message string) []byte {
	digest := sha256.Sum256([]byte(message))
	switch key := h.signer.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(message))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	default:
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			panic(err)
		}
		return signature
	}
}

func (h holder) jwk() object {
	switch key := h.signer.Public().(type) {
	case ed25519.PublicKey:
		return object{"kty": "OKP", "crv": "Ed25519", "x": b64(key)}
	case *ecdsa.PublicKey:
		raw, err := key.Bytes()
		if err != nil {
			panic(err)
		}
		return object{"kty": "EC", "crv": "P-256", "x": b64(raw[1:33]), "y": b64(raw[33:])}
	}
	panic("not a holder's key")
}

func (h holder) jkt() string {
	text, err := json.Marshal(h.jwk()) // member names come sorted
	if err != nil {
		panic(err)
	}
	return hash(string(text))
}

func (h holder) cnf() object { return object{"jwk": h.jwk(), "jkt": h.jkt()} }

func (h holder) public() agent.PublicKey {
	key, err := agent.NewPublicKey(h.signer.Public())
	if err != nil {
		panic(err)
	}
	return key
}

func (h holder) private() agent.PrivateKey {
	key, err := agent.NewPrivateKey(h.signer)
	if err != nil {
		panic(err)
	}
	return key
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return b64(sum[:])
}

// forged is a token in the making.
type forged struct {
	header, claims object
	by             holder
	// payload, if set, edits the JSON of the claims, and header text likewise.
	payload, head func(string) string
	// signature, if set, replaces the signature.
	signature func([]byte) []byte
}

func text(o object) string {
	kept := maps.Clone(o)
	maps.DeleteFunc(kept, func(_ string, v any) bool { return v == any(drop) })
	data, err := json.Marshal(kept)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func (f forged) String() string {
	head, payload := text(f.header), text(f.claims)
	if f.head != nil {
		head = f.head(head)
	}
	if f.payload != nil {
		payload = f.payload(payload)
	}
	signed := b64([]byte(head)) + "." + b64([]byte(payload))
	signature := f.by.sign(signed)
	if f.signature != nil {
		signature = f.signature(signature)
	}
	return signed + "." + b64(signature)
}

func (f forged) lid() string {
	token := f.String()
	return hash(token[:strings.LastIndexByte(token, '.')])
}

// with overrides claims.
func (f forged) with(claims object) forged {
	f.claims = maps.Clone(f.claims)
	maps.Copy(f.claims, claims)
	return f
}

// under overrides header members.
func (f forged) under(header object) forged {
	f.header = maps.Clone(f.header)
	maps.Copy(f.header, header)
	return f
}

// signedBy changes the key and says so in the header.
func (f forged) signedBy(h holder) forged {
	f.by = h
	return f.under(object{"alg": h.alg})
}

func tools(names ...string) object {
	m := object{}
	for _, name := range names {
		m[name] = object{}
	}
	return object{"type": "attenuating_agent_token", "tools": m}
}

func limits(members object) object {
	l := maps.Clone(members)
	l["type"] = "kavach_limits"
	return l
}

var (
	server      = ed("server")
	serverES    = p256("server")
	orchKey     = ed("orchestrator")
	reviewerKey = ed("reviewer")
	helperKey   = ed("helper")
)

func plainToken() forged {
	return forged{by: serverES, header: object{"alg": "ES256", "typ": "at+jwt", "kid": "at-es"}, claims: object{
		"iss": issuer, "sub": alice, "client_id": orch, "aud": []string{mcpHost, gitHost},
		"iat": now.Unix() - 10, "exp": now.Unix() + 290, "jti": "plain-1", "gid": "grant-1",
		"scope": "comment:write repository:read",
	}}
}

func rootToken() forged {
	return forged{by: server, header: object{"alg": "Ed25519", "typ": "at+jwt", "kid": "at-ed"}, claims: object{
		"iss": issuer, "sub": alice, "client_id": orch, "aud": []string{mcpHost, gitHost},
		"iat": now.Unix() - 10, "exp": now.Unix() + 290, "jti": "root-1", "gid": "grant-1",
		"scope":                 "comment:write repository:read",
		"authorization_details": []any{tools()},
		"cnf":                   orchKey.cnf(), "del_depth": 0, "del_max_depth": 3,
	}}
}

// linkUnder makes the link that follows a parent, from its key to another's.
func linkUnder(parent forged, to holder) forged {
	from := map[string]holder{}
	for _, h := range []holder{orchKey, reviewerKey, helperKey, p256("p256 holder")} {
		from[h.jkt()] = h
	}
	by := from[parent.claims["cnf"].(object)["jkt"].(string)]
	depth := parent.claims["del_depth"].(int)
	return forged{by: by, header: object{"alg": by.alg, "typ": "aat+jwt"}, claims: object{
		"iss": "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + by.jkt(),
		"sub": alice, "client_id": reviewer, "aud": []string{gitHost},
		"iat": now.Unix() - 5, "exp": now.Unix() + 115, "jti": "link-" + to.jkt(),
		"scope":                 "repository:read",
		"authorization_details": parent.claims["authorization_details"],
		"cnf":                   to.cnf(), "del_depth": depth + 1, "del_max_depth": parent.claims["del_max_depth"],
		"par_hash": parent.lid(),
	}}
}

func verifier(t testing.TB) *delegation.Verifier {
	t.Helper()
	var anchors []delegation.Anchor
	for kid, key := range map[string]crypto.PublicKey{
		"at-ed": server.signer.Public(), "at-es": serverES.signer.Public(), "at-rs": rsaHolder().signer.Public(),
	} {
		anchor, err := delegation.NewAnchor(kid, key)
		if err != nil {
			t.Fatal(err)
		}
		anchors = append(anchors, anchor)
	}
	return &delegation.Verifier{Issuer: issuer, Anchors: delegation.AnchorSet(anchors...)}
}

func verified(t testing.TB, token string) *delegation.Chain {
	t.Helper()
	chain, err := verifier(t).Verify(token, now)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return chain
}

// wantRefusal demands a refusal with this reason, and the dimension if given.
func wantRefusal(t testing.TB, err error, reason delegation.Reason, dimension ...string) {
	t.Helper()
	var refusal *delegation.Refusal
	if !errors.As(err, &refusal) || !errors.Is(err, delegation.ErrRefused) {
		t.Fatalf("got %v, want a refusal %s", err, reason)
	}
	if refusal.Reason != reason {
		t.Fatalf("got %v, want the reason %s", err, reason)
	}
	if len(dimension) > 0 && refusal.Dimension != dimension[0] {
		t.Fatalf("got %v, want the dimension %s", err, dimension[0])
	}
}

func join(tokens ...forged) string {
	var list []string
	for _, token := range tokens {
		list = append(list, token.String())
	}
	return strings.Join(list, "~")
}
