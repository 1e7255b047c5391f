package delegation_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

func claims() delegation.Claims {
	return delegation.Claims{
		Issuer: issuer, Subject: alice, ClientID: orch, Audience: []string{gitHost}, GrantID: "grant-1",
		IssuedAt: now, Expires: now.Add(5 * time.Minute), Scopes: []string{"repository:read", "comment:write"},
	}
}

func TestSignedTokensReadAsRFC9068(t *testing.T) {
	signed, err := delegation.Sign(claims(), delegation.ServerKey{KID: "at-es", Signer: serverES.signer})
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Split(signed.Token, ".")
	decoded := func(field string) string {
		raw, err := base64.RawURLEncoding.DecodeString(field)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := jcs.Transform(raw)
		if err != nil || string(canonical) != string(raw) {
			t.Errorf("not canonical: %s", raw)
		}
		return string(raw)
	}
	if got := decoded(fields[0]); got != `{"alg":"ES256","kid":"at-es","typ":"at+jwt"}` {
		t.Errorf("header %s", got)
	}
	want := `{"aud":["https://git.example"],"client_id":"orchestrator","exp":1800000300,"gid":"grant-1","iat":1800000000,` +
		`"iss":"https://auth.example","jti":"` + signed.JTI + `","scope":"comment:write repository:read","sub":"user-alice"}`
	if got := decoded(fields[1]); got != want {
		t.Errorf("claims %s", got)
	}
	if signed.LID != hash(fields[0]+"."+fields[1]) || signed.JKT != "" {
		t.Errorf("%+v", signed.LID)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(signed.JTI) {
		t.Errorf("jti %s is no UUIDv7", signed.JTI)
	}
}

func TestSignThenVerify(t *testing.T) {
	audit := true
	full := claims()
	full.Root, full.Key, full.MaxDepth = true, orchKey.public(), 2
	full.Tools = delegation.Tools{"get": delegation.AllowAnyArgs}
	full.Limits = delegation.Limits{Resources: []string{}, AllowNetwork: []string{"*.internal"}, MaxFileSize: size(5), MaxCalls: size(1), AuditRequired: &audit}
	full.Ancestry = []string{hash("x")}
	full.Act = []delegation.Party{{ID: orch, Proved: true}, {ID: "before", Proved: false}}
	bound := claims()
	bound.JKT = orchKey.jkt()
	byKey := claims()
	byKey.Key = orchKey.public()
	aat := full
	aat.AAT = true
	for name, c := range map[string]struct {
		claims delegation.Claims
		key    delegation.ServerKey
	}{
		"plain by Ed25519": {claims(), serverKey},
		"plain by ES256":   {claims(), delegation.ServerKey{KID: "at-es", Signer: serverES.signer}},
		"plain by RS256":   {claims(), delegation.ServerKey{KID: "at-rs", Signer: rsaHolder().signer}},
		"bound by jkt":     {bound, serverKey},
		"bound by key":     {byKey, serverKey},
		"root":             {full, serverKey},
		"root by ES256":    {full, delegation.ServerKey{KID: "at-es", Signer: serverES.signer}},
		"aat root":         {aat, serverKey},
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := delegation.Sign(c.claims, c.key)
			if err != nil {
				t.Fatal(err)
			}
			chain := verified(t, signed.Token)
			if chain.LID() != signed.LID || chain.JTI() != signed.JTI || chain.JKT() != signed.JKT || chain.Plain() == c.claims.Root {
				t.Errorf("%+v", chain.Links())
			}
			if c.claims.Root {
				got, err := json.Marshal(chain.Limits().Map())
				if err != nil || string(got) != `{"allow_network":["*.internal"],"audit_required":true,"max_calls":1,"max_file_size":5,"resources":[]}` {
					t.Errorf("limits %s", got)
				}
				if path := chain.Path(); !slices.Equal(path, []string{alice, "before", orch}) {
					t.Errorf("path %v", path)
				}
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]delegation.ServerKey{
		"no signer":          {KID: "at-x"},
		"no kid":             {Signer: server.signer},
		"another purpose":    {KID: "mf-x", Signer: server.signer},
		"kid with a slash":   {KID: "at-x/y", Signer: server.signer},
		"kid of the purpose": {KID: "at-", Signer: server.signer},
		"kid too long":       {KID: "at-" + strings.Repeat("x", 62), Signer: server.signer},
		"RSA of 1024 bits":   {KID: "at-x", Signer: small},
		"P-384":              {KID: "at-x", Signer: p384},
	} {
		if _, err := delegation.Sign(claims(), key); !errors.Is(err, delegation.ErrAnchor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*delegation.Claims){
		"no issuer":          func(c *delegation.Claims) { c.Issuer = "" },
		"no subject":         func(c *delegation.Claims) { c.Subject = "" },
		"no client":          func(c *delegation.Claims) { c.ClientID = "" },
		"no grant":           func(c *delegation.Claims) { c.GrantID = "" },
		"no audience":        func(c *delegation.Claims) { c.Audience = nil },
		"nine audiences":     func(c *delegation.Claims) { c.Audience = strings.Fields("a b c d e f g h i") },
		"no life":            func(c *delegation.Claims) { c.Expires = c.IssuedAt },
		"a life of 3601 s":   func(c *delegation.Claims) { c.Expires = c.IssuedAt.Add(3601 * time.Second) },
		"a scope with space": func(c *delegation.Claims) { c.Scopes = []string{"a b", "b"} },
		"a scope twice":      func(c *delegation.Claims) { c.Scopes = []string{"a", "a"} },
		"a scope wildcard":   func(c *delegation.Claims) { c.Scopes = []string{"*"} },
		"root without key":   func(c *delegation.Claims) { c.Root, c.MaxDepth = true, 1 },
		"root of depth 9":    func(c *delegation.Claims) { c.Root, c.Key, c.MaxDepth = true, orchKey.public(), 9 },
		"jkt of another key": func(c *delegation.Claims) { c.Key, c.JKT = orchKey.public(), reviewerKey.jkt() },
		"jkt no thumbprint":  func(c *delegation.Claims) { c.JKT = "x" },
		"hops below 0":       func(c *delegation.Claims) { c.Hops = deep(-1) },
		"any argument":       func(c *delegation.Claims) { c.Tools = delegation.Tools{"x": {}} },
		"limits misspelt":    func(c *delegation.Claims) { c.Limits.AllowNetwork = []string{"A"} },
		"budget 0":           func(c *delegation.Claims) { c.Limits.MaxCalls = size(0) },
		"33 ancestors":       func(c *delegation.Claims) { c.Ancestry = strings.Fields(strings.Repeat("x ", 33)) },
		"too large":          func(c *delegation.Claims) { c.Limits.AllowNetwork = longNetworks() },
		"not UTF-8":          func(c *delegation.Claims) { c.Subject = "\xff" },
	} {
		c := claims()
		edit(&c)
		if signed, err := delegation.Sign(c, serverKey); !errors.Is(err, delegation.ErrClaims) || signed.Token != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	root := claims()
	root.Root, root.Key, root.MaxDepth = true, orchKey.public(), 1
	if _, err := delegation.Sign(root, delegation.ServerKey{KID: "at-rs", Signer: rsaHolder().signer}); !errors.Is(err, delegation.ErrClaims) {
		t.Errorf("a root by RS256: %v", err)
	}
}

// A key of small order verifies every message under some signature: it must not
// become an anchor.
func TestAnchorOfSmallOrder(t *testing.T) {
	key := make(ed25519.PublicKey, 32)
	key[0] = 1
	if _, err := delegation.NewAnchor("at-x", key); !errors.Is(err, delegation.ErrAnchor) {
		t.Errorf("got %v", err)
	}
	var none delegation.Verifier
	_, err := none.Verify(plainToken().String(), now)
	wantRefusal(t, err, delegation.UnknownRoot)
	// The kid alone selects: an anchor of another kid is none.
	another, err := delegation.NewAnchor("at-other", serverES.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	confused := delegation.Verifier{Issuer: issuer, Anchors: func(string) (delegation.Anchor, bool) { return another, true }}
	_, err = confused.Verify(plainToken().String(), now)
	wantRefusal(t, err, delegation.UnknownRoot)
	zero := delegation.Verifier{Issuer: issuer, Anchors: func(string) (delegation.Anchor, bool) { return delegation.Anchor{}, true }}
	_, err = zero.Verify(plainToken().String(), now)
	wantRefusal(t, err, delegation.AlgNotAllowed)
}

func TestWhichFormIsIssued(t *testing.T) {
	all := delegation.Form{AudienceAware: true, Key: orchKey.public(), Agent: true, Depth: 1}
	if !all.Root() {
		t.Error("an agent with a key at resources that know chains gets a root")
	}
	for name, edit := range map[string]func(*delegation.Form){
		"one resource knows no chains": func(f *delegation.Form) { f.AudienceAware = false },
		"no key":                       func(f *delegation.Form) { f.Key = delegation.Form{}.Key },
		"no depth":                     func(f *delegation.Form) { f.Depth = 0 },
		"not an agent":                 func(f *delegation.Form) { f.Agent = false },
	} {
		f := all
		edit(&f)
		if f.Root() {
			t.Errorf("%s: a root", name)
		}
	}
	all.Agent, all.KeySent = false, true
	if !all.Root() {
		t.Error("a client that sent req_cnf gets a root")
	}
}

func TestInspect(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	link.by = ed("mallory")
	parts, err := delegation.Inspect(join(root, link))
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 || parts[0].LID != root.lid() || parts[1].UnverifiedClaims.Get("client_id").Str() != reviewer ||
		parts[1].UnverifiedHeader.Get("typ").Str() != "aat+jwt" {
		t.Errorf("%+v", parts)
	}
	_, err = delegation.Inspect("a.b.c")
	wantRefusal(t, err, delegation.Malformed)
}
