package delegation_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cristalhq/jwt/v4"

	"github.com/kavach-dev/kavach/delegation"
)

// benchChain is a chain of n tokens with the limits of the case study.
func benchChain(b *testing.B, n int) string {
	b.Helper()
	root, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: alice, ClientID: orch, GrantID: "grant-1", Audience: []string{gitHost},
		IssuedAt: now, Expires: now.Add(300 * time.Second), Scopes: []string{"comment:write", "pullrequest:read", "repository:read"},
		Limits: delegation.Limits{Resources: []string{"pullrequest/*"}, AllowNetwork: []string{"git.internal"}, MaxFileSize: size(5_000_000)},
		Root:   true, Key: someHolder(0).public(), MaxDepth: 8,
	}, serverKey)
	if err != nil {
		b.Fatal(err)
	}
	chain := root.Token
	for i := 1; i < n; i++ {
		derived, err := delegation.Derive(chain, someHolder(i-1).private(), someHolder(i).public(), delegation.Narrow{
			ClientID: fmt.Sprintf("agent-%d", i), Scopes: []string{"pullrequest:read", "repository:read"},
			Limits: delegation.Limits{Resources: []string{"pullrequest/847"}},
		}, now)
		if err != nil {
			b.Fatal(err)
		}
		chain = derived.Chain
	}
	return chain
}

func someHolder(i int) holder { return ed(fmt.Sprintf("bench %d", i)) }

// BenchmarkVerify verifies chains of Ed25519 tokens; compare BenchmarkEd25519,
// the signatures alone over the same bytes.
func BenchmarkVerify(b *testing.B) {
	v := verifier(b)
	for _, n := range []int{1, 2, 4, 8} {
		chain := benchChain(b, n)
		b.Run(fmt.Sprintf("links=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(chain)))
			for b.Loop() {
				if _, err := v.Verify(chain, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEd25519(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8} {
		parts := strings.Split(benchChain(b, n), "~")
		messages, signatures, keys := make([][]byte, n), make([][]byte, n), make([]ed25519.PublicKey, n)
		for i, part := range parts {
			key := server.signer.(ed25519.PrivateKey)
			if i > 0 {
				key = someHolder(i - 1).signer.(ed25519.PrivateKey)
			}
			messages[i] = []byte(part[:strings.LastIndexByte(part, '.')])
			signatures[i], keys[i] = ed25519.Sign(key, messages[i]), key.Public().(ed25519.PublicKey)
		}
		b.Run(fmt.Sprintf("links=%d", n), func(b *testing.B) {
			for b.Loop() {
				for i := range n {
					if !ed25519.Verify(keys[i], messages[i], signatures[i]) {
						b.Fatal("a signature does not hold")
					}
				}
			}
		})
	}
}

// BenchmarkVerifyCached verifies chains whose last link is new each time, below a
// prefix that was permitted before: one signature. links=1 is the same token
// again, and so is the chain of whole=4: no signature at all.
func BenchmarkVerifyCached(b *testing.B) {
	run := func(name, prefix string, chains []string) {
		v := cached(b)
		remember(b, v, prefix)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Verify(chains[i%len(chains)], now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, n := range []int{1, 2, 4, 8} {
		prefix := benchChain(b, max(n-1, 1))
		chains := []string{prefix}
		if n > 1 {
			chains = nil
			for range 100 {
				chains = append(chains, below(b, prefix, n-1))
			}
		}
		run(fmt.Sprintf("links=%d", n), prefix, chains)
	}
	chain := benchChain(b, 4)
	run("whole=4", chain, []string{chain})
}

// BenchmarkJWTLibrary verifies as many tokens of the same claims with the
// cheapest JWT library of those that were tried (golang-jwt, go-jose,
// lestrrat-go/jwx and this), and reads the claims into a map. It looks at no
// time, no key, no edge.
func BenchmarkJWTLibrary(b *testing.B) {
	key := someHolder(0).signer.(ed25519.PrivateKey)
	library, err := jwt.NewVerifierEdDSA(key.Public().(ed25519.PublicKey))
	if err != nil {
		b.Fatal(err)
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"aat+jwt"}`))
	for _, n := range []int{1, 2, 4, 8} {
		var tokens [][]byte
		for _, part := range strings.Split(benchChain(b, n), "~") {
			signed := header + "." + strings.Split(part, ".")[1]
			signature := base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
			tokens = append(tokens, []byte(signed+"."+signature))
		}
		b.Run(fmt.Sprintf("links=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, text := range tokens {
					token, err := jwt.Parse(text, library)
					if err != nil {
						b.Fatal(err)
					}
					var claims map[string]any
					if err := json.Unmarshal(token.Claims(), &claims); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// benchNarrow is the link that BenchmarkDerive makes.
func benchNarrow() delegation.Narrow {
	return delegation.Narrow{
		ClientID: reviewer, Scopes: []string{"repository:read"},
		Limits: delegation.Limits{Resources: []string{"pullrequest/847"}},
	}
}

// BenchmarkDerive makes one link; compare BenchmarkEd25519Sign.
func BenchmarkDerive(b *testing.B) {
	chain, key, to := benchChain(b, 1), someHolder(0).private(), someHolder(1).public()
	narrow := benchNarrow()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := delegation.Derive(chain, key, to, narrow, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEd25519Sign is the signature alone, over the bytes of such a link.
func BenchmarkEd25519Sign(b *testing.B) {
	derived, err := delegation.Derive(benchChain(b, 1), someHolder(0).private(), someHolder(1).public(), benchNarrow(), now)
	if err != nil {
		b.Fatal(err)
	}
	link := derived.Chain[strings.IndexByte(derived.Chain, '~')+1:]
	message := []byte(link[:strings.LastIndexByte(link, '.')])
	key := someHolder(0).signer.(ed25519.PrivateKey)
	for b.Loop() {
		ed25519.Sign(key, message)
	}
}

// BenchmarkAllows decides about a request of a verified chain of four.
func BenchmarkAllows(b *testing.B) {
	chain, err := verifier(b).Verify(benchChain(b, 4), now)
	if err != nil {
		b.Fatal(err)
	}
	request := delegation.Request{
		Scope:    delegation.AllOf("repository:read"),
		Resource: delegation.Given("pullrequest/847"),
		Network:  delegation.Given("git.internal:443"),
		Size:     delegation.Given(int64(1000)),
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := chain.Allows(request); err != nil {
			b.Fatal(err)
		}
	}
}
