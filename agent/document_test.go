package agent_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

var now = time.Unix(1_795_000_000, 0)

func example() agent.Manifest {
	return agent.Manifest{
		Name: "code-reviewer", Version: "1.2.0-rc.1+build.5", Purpose: "Reviews pull requests.",
		Scopes: []string{"repository:read", "comment:write", "pullrequest:read"}, Tools: []string{"get_diff"},
		Capabilities: []string{"read", "delegate"}, MaxDepth: 3, Origin: "https://agents.example/reviewer",
		TrustLevel: "internal", Metadata: map[string]string{"team": "platform"},
		IssuedAt: now, Expires: now.Add(agent.MaxManifestLife),
	}
}

func TestManifest(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		token, err := agent.SignManifest(example(), key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := agent.VerifyManifest(token, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		want := example()
		want.ID, want.Seq, want.Key = key.Public().Thumbprint(), 1, key.Public()
		want.Scopes = []string{"comment:write", "pullrequest:read", "repository:read"}
		want.Capabilities = []string{"delegate", "read"}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if !got.Can(agent.CapabilityDelegate) || got.Can(agent.CapabilityWrite) {
			t.Error("capabilities")
		}
		c, err := agent.SplitCompact(token)
		if err != nil {
			t.Fatal(err)
		}
		if canonical, err := jcs.Transform(c.UnverifiedPayload); err != nil || string(canonical) != string(c.UnverifiedPayload) {
			t.Errorf("the manifest is not canonical: %s", c.UnverifiedPayload)
		}
		for i := range token {
			for _, b := range []byte{'A', 'B', '.', '~', ' '} {
				if token[i] == b {
					continue
				}
				if _, err := agent.VerifyManifest(token[:i]+string(b)+token[i+1:], now); !errors.Is(err, agent.ErrInvalid) {
					t.Fatalf("accepted with byte %d changed to %q", i, b)
				}
			}
		}
		for _, when := range []time.Time{now.Add(-31 * time.Second), now.Add(agent.MaxManifestLife), now.Add(2 * agent.MaxManifestLife)} {
			if _, err := agent.VerifyManifest(token, when); !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("accepted at %v", when)
			}
		}
		for _, when := range []time.Time{now.Add(-30 * time.Second), now.Add(agent.MaxManifestLife - time.Second)} {
			if _, err := agent.VerifyManifest(token, when); err != nil {
				t.Errorf("at %v: %v", when, err)
			}
		}
	}
}

func TestSignManifestRefuses(t *testing.T) {
	key := newEd25519(t)
	for name, change := range map[string]func(*agent.Manifest){
		"no name":           func(m *agent.Manifest) { m.Name = "" },
		"name with space":   func(m *agent.Manifest) { m.Name = "code reviewer" },
		"name with a path":  func(m *agent.Manifest) { m.Name = "../x" },
		"name like an id":   func(m *agent.Manifest) { m.Name = strings.Repeat("a", 43) },
		"long name":         func(m *agent.Manifest) { m.Name = strings.Repeat("a", 65) },
		"version":           func(m *agent.Manifest) { m.Version = "1.2" },
		"version with zero": func(m *agent.Manifest) { m.Version = "01.2.3" },
		"no purpose":        func(m *agent.Manifest) { m.Purpose = "" },
		"purpose in lines":  func(m *agent.Manifest) { m.Purpose = "a\nb" },
		"purpose reversed":  func(m *agent.Manifest) { m.Purpose = "a\u202eb" },
		"scope":             func(m *agent.Manifest) { m.Scopes = []string{"a b"} },
		"wildcard scope":    func(m *agent.Manifest) { m.Scopes = []string{"repository:*"} },
		"scope twice":       func(m *agent.Manifest) { m.Scopes = []string{"a", "a"} },
		"many scopes":       func(m *agent.Manifest) { m.Scopes = numbered(65) },
		"tool twice":        func(m *agent.Manifest) { m.Tools = []string{"a", "a"} },
		"empty tool":        func(m *agent.Manifest) { m.Tools = []string{""} },
		"capability":        func(m *agent.Manifest) { m.Capabilities = []string{"admin"} },
		"depth":             func(m *agent.Manifest) { m.MaxDepth = 9 },
		"negative depth":    func(m *agent.Manifest) { m.MaxDepth = -1 },
		"expires first":     func(m *agent.Manifest) { m.Expires = m.IssuedAt },
		"lives long":        func(m *agent.Manifest) { m.Expires = m.IssuedAt.Add(agent.MaxManifestLife + time.Second) },
		"no time":           func(m *agent.Manifest) { m.IssuedAt = time.Time{} },
		"much metadata": func(m *agent.Manifest) {
			m.Metadata = map[string]string{}
			for _, n := range numbered(33) {
				m.Metadata[n] = n
			}
		},
		"metadata not text": func(m *agent.Manifest) { m.Metadata = map[string]string{"a": "\x00"} },
		"too big for a token": func(m *agent.Manifest) {
			m.Metadata = map[string]string{}
			for _, n := range numbered(30) {
				m.Metadata[n] = strings.Repeat("x", 1000)
			}
		},
	} {
		m := example()
		change(&m)
		if _, err := agent.SignManifest(m, key); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func numbered(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("n%d", i)
	}
	return list
}

// claimsOf are the claims of a good manifest, to be spoiled one by one.
func claimsOf(t testing.TB, key agent.PrivateKey) map[string]any {
	t.Helper()
	token, err := agent.SignManifest(example(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := agent.SplitCompact(token)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jcs.Parse(c.UnverifiedPayload, jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	for name, e := range v.Fields() {
		claims[name] = e
	}
	return claims
}

func signed(t testing.TB, key agent.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	payload, err := jcs.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := agent.SignCompact(key, header, payload)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerifyManifestRefuses(t *testing.T) {
	key, other := newEd25519(t), newEd25519(t)
	id := key.Public().Thumbprint()
	good := map[string]any{"typ": agent.ManifestType, "kid": id}
	if _, err := agent.VerifyManifest(signed(t, key, good, claimsOf(t, key)), now); err != nil {
		t.Fatalf("the unspoiled one: %v", err)
	}
	for name, header := range map[string]map[string]any{
		"no typ": {"kid": id}, "typ of a link": {"typ": "aat+jwt", "kid": id}, "typ of a token": {"typ": "at+jwt", "kid": id},
		"typ of an assertion": {"typ": "client-authentication+jwt", "kid": id}, "typ JWT": {"typ": "JWT", "kid": id},
		"typ in capitals": {"typ": "Agent-Manifest+JWT", "kid": id}, "media type": {"typ": "application/agent-manifest+jwt", "kid": id},
		"no kid": {"typ": agent.ManifestType}, "other kid": {"typ": agent.ManifestType, "kid": other.Public().Thumbprint()},
		"crit": {"typ": agent.ManifestType, "kid": id, "crit": []string{"exp"}}, "b64": {"typ": agent.ManifestType, "kid": id, "b64": false},
		"typ list": {"typ": []string{agent.ManifestType}, "kid": id},
	} {
		if _, err := agent.VerifyManifest(signed(t, key, header, claimsOf(t, key)), now); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is accepted: %v", name, err)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"key of another": func(c map[string]any) { c["jwk"] = other.Public().JWK() },
		"key and id of another": func(c map[string]any) {
			c["jwk"], c["id"] = other.Public().JWK(), other.Public().Thumbprint()
		},
		"no key":             func(c map[string]any) { delete(c, "jwk") },
		"private key":        func(c map[string]any) { j := key.Public().JWK(); j["d"] = j["x"]; c["jwk"] = j },
		"id of another":      func(c map[string]any) { c["id"] = other.Public().Thumbprint() },
		"no id":              func(c map[string]any) { delete(c, "id") },
		"seq 2":              func(c map[string]any) { c["seq"] = 2 },
		"seq 0":              func(c map[string]any) { c["seq"] = 0 },
		"seq as text":        func(c map[string]any) { c["seq"] = "1" },
		"prev":               func(c map[string]any) { c["prev"] = id },
		"prev null":          func(c map[string]any) { c["prev"] = nil },
		"origin null":        func(c map[string]any) { c["origin"] = nil },
		"tools null":         func(c map[string]any) { c["tools"] = nil },
		"metadata null":      func(c map[string]any) { c["metadata"] = nil },
		"metadata of number": func(c map[string]any) { c["metadata"] = map[string]any{"a": 1} },
		"metadata list":      func(c map[string]any) { c["metadata"] = []string{"a"} },
		"scopes as text":     func(c map[string]any) { c["scopes"] = "a b" },
		"no scopes":          func(c map[string]any) { delete(c, "scopes") },
		"no capabilities":    func(c map[string]any) { delete(c, "capabilities") },
		"scopes of numbers":  func(c map[string]any) { c["scopes"] = []any{1} },
		"name number":        func(c map[string]any) { c["name"] = 1 },
		"exp text":           func(c map[string]any) { c["exp"] = "1" },
		"iat true":           func(c map[string]any) { c["iat"] = true },
		"no exp":             func(c map[string]any) { delete(c, "exp") },
		"depth huge":         func(c map[string]any) { c["max_depth"] = int64(1 << 40) },
		"depth negative":     func(c map[string]any) { c["max_depth"] = -1 },
		"no depth":           func(c map[string]any) { delete(c, "max_depth") },
	} {
		claims := maps.Clone(claimsOf(t, key))
		change(claims)
		if _, err := agent.VerifyManifest(signed(t, key, good, claims), now); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is accepted: %v", name, err)
		}
	}
	claims := claimsOf(t, key)
	claims["future"] = map[string]any{"x": 1}
	if _, err := agent.VerifyManifest(signed(t, key, good, claims), now); err != nil {
		t.Errorf("a claim that is not known: %v", err)
	}
	plain, err := jcs.Marshal(claimsOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	exp := fmt.Sprintf(`"exp":%d`, example().Expires.Unix())
	for name, payload := range map[string]string{
		"exp float":    strings.Replace(string(plain), exp, exp+".0", 1),
		"exp exponent": strings.Replace(string(plain), exp, `"exp":18e8`, 1),
		"exp huge":     strings.Replace(string(plain), exp, `"exp":9007199254740993`, 1),
		"seq float":    strings.Replace(string(plain), `"seq":1`, `"seq":1.0`, 1),
		"seq twice":    strings.Replace(string(plain), `"seq":1`, `"seq":1,"seq":1`, 1),
		"trailing":     string(plain) + "{}",
		"duplicate":    `{"id":"a","id":"b"}`, "array": `[]`, "no JSON": `x`, "empty": ``,
	} {
		token, err := agent.SignCompact(key, good, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agent.VerifyManifest(token, now); !errors.Is(err, agent.ErrInvalid) || payload == string(plain) {
			t.Errorf("%s is accepted", name)
		}
	}
}

const issuer = "https://kavach.example"

func TestAssertion(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		id := key.Public().Thumbprint()
		check := agent.AssertionCheck{ClientID: id, Audience: issuer, Now: now}
		token, err := agent.SignAssertion(key, id, issuer, now, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		got, err := agent.VerifyAssertion(token, key.Public(), check)
		if err != nil || got.ClientID != id || got.JTI == "" || !got.Expires.Equal(now.Add(time.Minute)) {
			t.Fatalf("%+v %v", got, err)
		}
		second, err := agent.SignAssertion(key, id, issuer, now, time.Minute)
		if err != nil || second == token {
			t.Error("two assertions are the same")
		}
		for name, change := range map[string]func(*agent.AssertionCheck){
			"other client":   func(c *agent.AssertionCheck) { c.ClientID = newEd25519(t).Public().Thumbprint() },
			"no client":      func(c *agent.AssertionCheck) { c.ClientID = "" },
			"other audience": func(c *agent.AssertionCheck) { c.Audience = issuer + "/" },
			"no audience":    func(c *agent.AssertionCheck) { c.Audience = "" },
			"expired":        func(c *agent.AssertionCheck) { c.Now = now.Add(time.Minute) },
			"too early":      func(c *agent.AssertionCheck) { c.Now = now.Add(-31 * time.Second) },
			"too long":       func(c *agent.AssertionCheck) { c.MaxLifetime = 59 * time.Second },
		} {
			c := check
			change(&c)
			if _, err := agent.VerifyAssertion(token, key.Public(), c); !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("%s is accepted", name)
			}
		}
		if _, err := agent.VerifyAssertion(token, newEd25519(t).Public(), check); !errors.Is(err, agent.ErrInvalid) {
			t.Error("another key verifies it")
		}
		if _, err := agent.VerifyAssertion(token, agent.PublicKey{}, check); !errors.Is(err, agent.ErrInvalid) {
			t.Error("no key verifies it")
		}
	}
}

func TestAssertionForms(t *testing.T) {
	key := newEd25519(t)
	id := key.Public().Thumbprint()
	check := agent.AssertionCheck{ClientID: id, Audience: issuer, Now: now}
	good := func() map[string]any {
		return map[string]any{"iss": id, "sub": id, "aud": issuer, "jti": "j", "iat": now.Unix(), "exp": now.Unix() + 60}
	}
	for _, header := range []map[string]any{nil, {"typ": "JWT"}, {"typ": "client-authentication+jwt"}, {"kid": "anything"}} {
		if _, err := agent.VerifyAssertion(signed(t, key, header, good()), key.Public(), check); err != nil {
			t.Errorf("%v: %v", header, err)
		}
	}
	for _, header := range []map[string]any{
		{"typ": "at+jwt"}, {"typ": "aat+jwt"}, {"typ": "dpop+jwt"}, {"typ": "agent-manifest+jwt"}, {"typ": "agent-key+jwt"},
		{"typ": "jwt"}, {"typ": ""}, {"typ": nil}, {"crit": []string{"x"}},
	} {
		if _, err := agent.VerifyAssertion(signed(t, key, header, good()), key.Public(), check); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%v is accepted", header)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"aud list":        func(c map[string]any) { c["aud"] = []string{issuer} },
		"no iat":          func(c map[string]any) { delete(c, "iat") },
		"nbf":             func(c map[string]any) { c["nbf"] = now.Unix() },
		"iat a bit ahead": func(c map[string]any) { c["iat"], c["exp"] = now.Unix()+30, now.Unix()+90 },
	} {
		c := good()
		change(c)
		if _, err := agent.VerifyAssertion(signed(t, key, nil, c), key.Public(), check); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"two aud":            func(c map[string]any) { c["aud"] = []string{issuer, "https://other.example"} },
		"aud twice":          func(c map[string]any) { c["aud"] = []string{issuer, issuer} },
		"no aud":             func(c map[string]any) { delete(c, "aud") },
		"empty aud":          func(c map[string]any) { c["aud"] = []string{} },
		"token endpoint":     func(c map[string]any) { c["aud"] = issuer + "/oauth/token" },
		"sub of another":     func(c map[string]any) { c["sub"] = "x" },
		"no sub":             func(c map[string]any) { delete(c, "sub") },
		"iss list":           func(c map[string]any) { c["iss"] = []string{id} },
		"no jti":             func(c map[string]any) { delete(c, "jti") },
		"empty jti":          func(c map[string]any) { c["jti"] = "" },
		"long jti":           func(c map[string]any) { c["jti"] = strings.Repeat("j", 129) },
		"jti not printable":  func(c map[string]any) { c["jti"] = "é" },
		"no exp":             func(c map[string]any) { delete(c, "exp") },
		"61 s":               func(c map[string]any) { c["exp"] = now.Unix() + 61 },
		"61 s without iat":   func(c map[string]any) { delete(c, "iat"); c["exp"] = now.Unix() + 61 },
		"iat far ahead":      func(c map[string]any) { c["iat"], c["exp"] = now.Unix()+31, now.Unix()+60 },
		"iat after exp":      func(c map[string]any) { c["iat"] = now.Unix() + 20; c["exp"] = now.Unix() + 10 },
		"iat text":           func(c map[string]any) { c["iat"] = "0" },
		"iat null":           func(c map[string]any) { c["iat"] = nil },
		"nbf ahead":          func(c map[string]any) { c["nbf"] = now.Unix() + 31 },
		"nbf null":           func(c map[string]any) { c["nbf"] = nil },
		"negative exp":       func(c map[string]any) { c["exp"] = -1 },
		"exp far beyond all": func(c map[string]any) { c["exp"] = int64(jcs.MaxInt) },
	} {
		c := good()
		change(c)
		if _, err := agent.VerifyAssertion(signed(t, key, nil, c), key.Public(), check); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestEdDSAIsForAssertionsAndProofs: a header that says EdDSA is what many libraries
// write; nothing that kavach defines itself takes it.
func TestEdDSAIsForAssertionsAndProofs(t *testing.T) {
	key := newEd25519(t)
	id := key.Public().Thumbprint()
	eddsa := func(key agent.PrivateKey, typ string, claims map[string]any) string {
		header, err := jcs.Marshal(map[string]any{"alg": "EdDSA", "typ": typ, "kid": id})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jcs.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		input := jcs.Base64URL(header) + "." + jcs.Base64URL(payload)
		sig, err := key.Sign([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + jcs.Base64URL(sig)
	}
	assertion := map[string]any{"iss": id, "sub": id, "aud": issuer, "jti": "j", "exp": now.Unix() + 60}
	check := agent.AssertionCheck{ClientID: id, Audience: issuer, Now: now}
	if _, err := agent.VerifyAssertion(eddsa(key, "JWT", assertion), key.Public(), check); err != nil {
		t.Errorf("assertion: %v", err)
	}
	if _, err := agent.VerifyManifest(eddsa(key, agent.ManifestType, claimsOf(t, key)), now); !errors.Is(err, agent.ErrInvalid) {
		t.Error("a manifest with alg EdDSA is accepted")
	}
	ec := newP256(t)
	if _, err := agent.VerifyAssertion(eddsa(ec, "JWT", assertion), ec.Public(), check); !errors.Is(err, agent.ErrInvalid) {
		t.Error("an ES256 key takes alg EdDSA")
	}
}

func TestSplitCompact(t *testing.T) {
	token := signed(t, newEd25519(t), map[string]any{"typ": "x"}, map[string]any{"a": 1})
	parts := strings.Split(token, ".")
	for name, bad := range map[string]string{
		"empty": "", "two parts": parts[0] + "." + parts[1], "four parts": token + ".", "padding": token + "=", "space": " " + token,
		"line break": token[:20] + "\n" + token[20:], "other alphabet": strings.Replace(token, parts[1], "+/+/", 1),
		"loose bits": parts[0] + "." + parts[1] + "." + parts[2][:85] + "B", "header no object": jcs.Base64URL([]byte("[]")) + "." + parts[1] + "." + parts[2],
		"header no JSON": jcs.Base64URL([]byte("{")) + "." + parts[1] + "." + parts[2],
		"alg twice":      jcs.Base64URL([]byte(`{"alg":"Ed25519","alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"too big":        parts[0] + "." + strings.Repeat("A", agent.MaxToken) + "." + parts[2], "JSON serialisation": `{"payload":"","signatures":[]}`,
	} {
		if _, err := agent.SplitCompact(bad); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := agent.SplitCompact(token)
	if err != nil || string(c.UnverifiedPayload) != `{"a":1}` || c.SigningInput != parts[0]+"."+parts[1] || len(c.Signature) != 64 {
		t.Errorf("%+v %v", c, err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"orchestrator": true, "a": true, "A.b_c-1": true, "": false, "-a": false, "a/b": false, "a b": false, "é": false, "a\n": false,
	} {
		if agent.IsName(name) != want {
			t.Errorf("name %q: %v", name, !want)
		}
	}
	for scope, want := range map[string]bool{
		"kavach:verify": true, "a/b.c_d-e": true, "": false, "*": false, ":a": false, "a b": false, "a\"": false, "a\n": false, strings.Repeat("a", 129): false,
	} {
		if agent.IsScope(scope) != want {
			t.Errorf("scope %q: %v", scope, !want)
		}
	}
}

func FuzzVerifyManifest(f *testing.F) {
	key := newEd25519(f)
	token, err := agent.SignManifest(example(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add(signed(f, key, map[string]any{"typ": agent.ManifestType}, map[string]any{"jwk": key.Public().JWK()}))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		m, err := agent.VerifyManifest(token, now)
		if err != nil {
			if !errors.Is(err, agent.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if m.ID != m.Key.Thumbprint() || m.Seq != 1 || !agent.IsName(m.Name) {
			t.Fatalf("accepted %+v", m)
		}
	})
}

// FuzzManifestClaims signs whatever claims it is given, so that the reader
// behind the signature is reached.
func FuzzManifestClaims(f *testing.F) {
	key := newEd25519(f)
	claims, err := jcs.Marshal(claimsOf(f, key))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(claims)
	f.Add([]byte(`{"jwk":{}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		token, err := agent.SignCompact(key, map[string]any{"typ": agent.ManifestType, "kid": key.Public().Thumbprint()}, payload)
		if err != nil {
			t.Fatal(err)
		}
		m, err := agent.VerifyManifest(token, now)
		if err != nil {
			return
		}
		if again, err := agent.SignManifest(m, key); err != nil {
			t.Fatalf("accepted, but cannot be written again: %v", err)
		} else if _, err := agent.VerifyManifest(again, now); err != nil {
			t.Fatalf("accepted, but not when written again: %v", err)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(newEd25519(f).Public().AppendJWK(nil))
	f.Add(newP256(f).Public().AppendJWK(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := agent.ParsePrivateKey(text); err == nil && key.IsZero() {
			t.Fatal("no private key and no error")
		}
		v, err := jcs.Parse(text, jcs.Limits{})
		if err != nil {
			return
		}
		k, err := agent.ParsePublicKey(v)
		if err != nil {
			return
		}
		if canonical := jcs.Canonical(v); string(canonical) != string(k.AppendJWK(nil)) {
			t.Fatalf("%s was read as %s", canonical, k.AppendJWK(nil))
		}
		k.Verify(nil, make([]byte, 64))
	})
}
