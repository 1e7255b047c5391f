package e2e

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What an agent signs, written once more from the specifications and not with
// kavach's own code: what both sides get wrong in the same way is found here.

// signingKey is an agent's or a holder's private key: one of the two is set.
type signingKey struct {
	ed *ed25519.PrivateKey
	ec *ecdsa.PrivateKey
	// alg is what headers say, if not the name that belongs to the key.
	named string
}

func newEd25519() signingKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return signingKey{ed: &key}
}

func newES256() signingKey {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return signingKey{ec: key}
}

// readKey reads the private JWK that `kavach agent create` or `holder new` wrote.
func readKey(t *testing.T, file string) signingKey {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var jwk struct{ Kty, Crv, X, Y, D string }
	if err := json.Unmarshal(raw, &jwk); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	d, err := base64.RawURLEncoding.DecodeString(jwk.D)
	if err != nil || len(d) != 32 {
		t.Fatalf("%s is no private JWK", file)
	}
	if jwk.Kty == "OKP" {
		key := ed25519.NewKeyFromSeed(d)
		return signingKey{ed: &key}
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{ec: key}
}

// as has the headers name another algorithm, such as EdDSA.
func (k signingKey) as(alg string) signingKey {
	k.named = alg
	return k
}

func (k signingKey) alg() string {
	switch {
	case k.named != "":
		return k.named
	case k.ed != nil:
		return "Ed25519"
	}
	return "ES256"
}

// jwk is the public key, with the required members and nothing else.
func (k signingKey) jwk() map[string]any {
	if k.ed != nil {
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64url(k.ed.Public().(ed25519.PublicKey))}
	}
	point, err := k.ec.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "x": base64url(point[1:33]), "y": base64url(point[33:])}
}

// private is the JWK with its secret, for scripts that get it in a file or on stdin.
func (k signingKey) private() map[string]any {
	jwk := k.jwk()
	if k.ed != nil {
		jwk["d"] = base64url(k.ed.Seed())
		return jwk
	}
	d, err := k.ec.Bytes()
	if err != nil {
		panic(err)
	}
	jwk["d"] = base64url(d)
	return jwk
}

// thumbprint is RFC 7638 with SHA-256: the required members in the order of
// their names, which is how encoding/json writes a map.
func (k signingKey) thumbprint() string {
	canonical, _ := json.Marshal(k.jwk())
	return hashed(string(canonical))
}

// sign makes a compact JWS of any header and claims. An alg is added unless the
// header has one.
func (k signingKey) sign(header, claims map[string]any) string {
	header = maps.Clone(header)
	if _, ok := header["alg"]; !ok {
		header["alg"] = k.alg()
	}
	return k.signText(encode(header), encode(claims))
}

// signText is sign for parts that are no JSON, or not any encoder's.
func (k signingKey) signText(header, claims string) string {
	signed := base64url([]byte(header)) + "." + base64url([]byte(claims))
	if k.ed != nil {
		return signed + "." + base64url(ed25519.Sign(*k.ed, []byte(signed)))
	}
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, k.ec, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + base64url(append(fixed(r), fixed(s)...))
}

// change is what an attacker does to what would be right.
type change func(header, claims map[string]any)

// set puts another value in a claim; nil takes the claim away.
func set(name string, value any) change {
	return func(_, claims map[string]any) { put(claims, name, value) }
}

// setHeader is set for a member of the header.
func setHeader(name string, value any) change {
	return func(header, _ map[string]any) { put(header, name, value) }
}

func put(members map[string]any, name string, value any) {
	if value == nil {
		delete(members, name)
		return
	}
	members[name] = value
}

func (k signingKey) changed(header, claims map[string]any, changes []change) string {
	for _, c := range changes {
		c(header, claims)
	}
	return k.sign(header, claims)
}

// proof is a DPoP proof (RFC 9449) of a request. token, if there is one, is the
// credential that ath hashes.
func (k signingKey) proof(method, url, token string, changes ...change) string {
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": url, "iat": time.Now().Unix()}
	if token != "" {
		claims["ath"] = hashed(token)
	}
	return k.changed(map[string]any{"typ": "dpop+jwt", "jwk": k.jwk()}, claims, changes)
}

// assertion is a client assertion (RFC 7523, private_key_jwt).
func (k signingKey) assertion(client, audience string, changes ...change) string {
	now := time.Now().Unix()
	return k.changed(map[string]any{"typ": "client-authentication+jwt"}, map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": rand.Text(), "iat": now, "exp": now + 60,
	}, changes)
}

// card is a key card: the agent says, with its identity key, that holder is its
// delegation key.
func (k signingKey) card(agent, audience string, holder signingKey, changes ...change) string {
	now := time.Now().Unix()
	return k.changed(map[string]any{"typ": "agent-key+jwt", "kid": agent}, map[string]any{
		"iss": agent, "aud": audience, "jwk": holder.jwk(), "jti": rand.Text(), "iat": now, "exp": now + 300,
	}, changes)
}

// manifest declares an agent whose first key this is.
func (k signingKey) manifest(name, scopes string, capabilities ...string) string {
	now := time.Now().Unix()
	listed := strings.Fields(scopes)
	slices.Sort(listed)
	depth := 0
	if slices.Contains(capabilities, "delegate") {
		depth = 3
	}
	if capabilities == nil {
		capabilities = []string{}
	}
	return k.sign(map[string]any{"typ": "agent-manifest+jwt", "kid": k.thumbprint()}, map[string]any{
		"id": k.thumbprint(), "seq": 1, "name": name, "version": "1.0.0", "purpose": "End-to-end tests", "scopes": listed,
		"capabilities": capabilities, "max_depth": depth, "jwk": k.jwk(), "iat": now, "exp": now + 3600,
	})
}

// link appends a link to a chain as `kavach delegate` does, or as it never
// would: it checks nothing, and k need not be the holder's key. Without a change
// the child has all that its parent has, one level deeper, for a minute.
func (k signingKey) link(parent string, to signingKey, client string, changes ...change) string {
	last := parent[strings.LastIndexByte(parent, '~')+1:]
	part := strings.Split(last, ".")
	p := decodePart(part[1])
	now := time.Now().Unix()
	exp := now + 60
	if end, ok := p["exp"].(float64); ok {
		exp = min(exp, int64(end))
	}
	depth, _ := p["del_depth"].(float64)
	claims := map[string]any{
		"iss": "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + k.thumbprint(), "sub": p["sub"], "client_id": client, "aud": p["aud"],
		"iat": now, "exp": exp, "jti": rand.Text(), "scope": p["scope"], "authorization_details": p["authorization_details"],
		"cnf": map[string]any{"jwk": to.jwk(), "jkt": to.thumbprint()}, "del_depth": int(depth) + 1, "del_max_depth": p["del_max_depth"],
		"par_hash": hashed(part[0] + "." + part[1]),
	}
	return parent + "~" + k.changed(map[string]any{"typ": "aat+jwt"}, claims, changes)
}

// lid is the link id of the last token of a credential.
func lid(credential string) string {
	last := credential[strings.LastIndexByte(credential, '~')+1:]
	return hashed(last[:strings.LastIndexByte(last, '.')])
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// unbase64 is the opposite; what is no base64url is nothing.
func unbase64(text string) []byte {
	raw, _ := base64.RawURLEncoding.DecodeString(text)
	return raw
}

// hashed is base64url(SHA-256(text)): ath, par_hash, lid and thumbprints.
func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64url(sum[:])
}

func fixed(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }

func encode(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
