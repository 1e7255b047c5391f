package delegation_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// An attack is a credential that must be refused, with the reason that
// delegation.md §6 gives to the step that meets it first.
type attack struct {
	name   string
	token  string
	reason delegation.Reason
}

func runAttacks(t *testing.T, attacks []attack) {
	t.Helper()
	v := verifier(t)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			chain, err := v.Verify(a.token, now)
			if chain != nil {
				t.Error("a refused token must not come with a chain")
			}
			wantRefusal(t, err, a.reason)
		})
	}
}

func TestHonestTokensVerify(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	second := linkUnder(link, helperKey)
	esRoot := rootToken().signedBy(serverES).under(object{"kid": "at-es"}).with(object{"cnf": p256("p256 holder").cnf()})
	for name, token := range map[string]string{
		"plain ES256":       plainToken().String(),
		"plain Ed25519":     plainToken().signedBy(server).under(object{"kid": "at-ed"}).String(),
		"plain RS256":       plainToken().signedBy(rsaHolder()).under(object{"kid": "at-rs"}).String(),
		"plain, bound":      plainToken().with(object{"cnf": object{"jkt": orchKey.jkt()}}).String(),
		"plain, aud string": plainToken().with(object{"aud": gitHost}).String(),
		"root alone":        root.String(),
		"one link":          join(root, link),
		"two links":         join(root, link, second),
		"aat root":          rootToken().under(object{"typ": "aat+jwt"}).String(),
		"P-256 all along":   join(esRoot, linkUnder(esRoot, reviewerKey)),
		"unknown claims":    plainToken().with(object{"hello": nil, "roles": []any{1}}).String(),
		"kid in a link":     join(root, link.under(object{"kid": "at-ed", "jwk": helperKey.jwk()})),
		"iat 30 s ahead":    plainToken().with(object{"iat": now.Unix() + 30}).String(),
		"nbf in the past":   plainToken().with(object{"nbf": now.Unix() - 1}).String(),
		"a second left":     plainToken().with(object{"exp": now.Unix() + 1}).String(),
		"empty scope":       join(root, link.with(object{"scope": ""})),
	} {
		t.Run(name, func(t *testing.T) { verified(t, token) })
	}
}

// Step 0: charset, parts; sizes; base64url.
func TestStep0(t *testing.T) {
	root := rootToken()
	good := join(root, linkUnder(root, reviewerKey))
	token := root.String()
	long := rootToken().with(object{"x": strings.Repeat("y", 8200)}).String()
	// The last character of an Ed25519 signature carries four unused bits.
	loose := token[:len(token)-1] + string(token[len(token)-1]+1)
	if raw, err := base64.RawURLEncoding.DecodeString(loose[strings.LastIndexByte(loose, '.')+1:]); err != nil || len(raw) != 64 {
		t.Fatal("the example of loose bits is wrong")
	}
	runAttacks(t, []attack{
		{"nothing", "", delegation.Malformed},
		{"one word", "token", delegation.Malformed},
		{"two fields", "a.b", delegation.Malformed},
		{"four fields", token + ".x", delegation.Malformed},
		{"five fields, like a JWE", "a.b.c.d.e", delegation.Malformed},
		{"trailing tilde", token + "~", delegation.Malformed},
		{"leading tilde", "~" + token, delegation.Malformed},
		{"space", good + " ", delegation.Malformed},
		{"newline", token + "\n", delegation.Malformed},
		{"padding", token + "=", delegation.Malformed},
		{"standard base64", strings.Replace(token, "-", "+", 1) + "+", delegation.Malformed},
		{"not ASCII", token + "é", delegation.Malformed},
		{"NUL", token + "\x00", delegation.Malformed},
		{"JSON serialisation", `{"payload":"e30","signatures":[]}`, delegation.Malformed},
		{"a scheme in front", "DPoP " + token, delegation.Malformed},
		{"two in one header", token + "," + token, delegation.Malformed},
		{"trailing bits", loose, delegation.Malformed},
		{"impossible length", token + "AAA~" + token, delegation.Malformed},
		{"ten tokens", strings.Repeat(token+"~", 9) + token, delegation.TooLarge},
		{"a token above 8192", long, delegation.TooLarge},
		{"a chain above 57344", strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 8000)+".b.c~", 8), "~"), delegation.TooLarge},
		{"malformed comes before too large", strings.Repeat("a", 99999), delegation.Malformed},
	})
}

// Step 1: malformed → bad_typ → alg_not_allowed.
func TestStep1Header(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	typ := func(typ any) string { return root.under(object{"typ": typ}).String() }
	alg := func(alg any) string { return root.under(object{"alg": alg}).String() }
	second := func(f forged) string { return join(root, f) }
	head := func(f forged, edit func(string) string) forged { f.head = edit; return f }
	publicKey, err := x509.MarshalPKIXPublicKey(server.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	confused := root.under(object{"alg": "HS256"})
	signed := confused.String()[:strings.LastIndexByte(confused.String(), '.')]
	mac := hmac.New(sha256.New, publicKey)
	mac.Write([]byte(signed))
	attacks := []attack{
		{"header is no JSON", head(root, func(string) string { return "{" }).String(), delegation.Malformed},
		{"header is empty", head(root, func(string) string { return "" }).String(), delegation.Malformed},
		{"header is an array", head(root, func(s string) string { return "[" + s + "]" }).String(), delegation.Malformed},
		{"header repeats alg", head(root, func(s string) string { return `{"alg":"none",` + s[1:] }).String(), delegation.Malformed},
		{"header repeats alg, escaped", head(root, func(s string) string { return `{"\u0061lg":"none",` + s[1:] }).String(), delegation.Malformed},
		{"link repeats alg", second(head(link, func(s string) string { return `{"alg":"none",` + s[1:] })), delegation.Malformed},
		{"crit", root.under(object{"crit": []string{"exp"}}).String(), delegation.Malformed},
		{"crit in a link", second(link.under(object{"crit": []string{"exp"}})), delegation.Malformed},
		{"crit null", root.under(object{"crit": nil}).String(), delegation.Malformed},
		{"b64", root.under(object{"b64": false}).String(), delegation.Malformed},
		{"b64 in a link", second(link.under(object{"b64": true})), delegation.Malformed},

		{"typ absent", typ(drop), delegation.BadType},
		{"typ null", typ(nil), delegation.BadType},
		{"typ with a prefix", typ("application/at+jwt"), delegation.BadType},
		{"typ in capitals", typ("AT+JWT"), delegation.BadType},
		{"id token", typ("JWT"), delegation.BadType},
		{"DPoP proof as a token", typ("dpop+jwt"), delegation.BadType},
		{"AAT proof as a token", typ("aat-pop+jwt"), delegation.BadType},
		{"manifest as a token", typ("agent-manifest+jwt"), delegation.BadType},
		{"key card as a token", typ("agent-key+jwt"), delegation.BadType},
		{"client assertion as a token", typ("client-authentication+jwt"), delegation.BadType},
		{"revocation feed as a token", typ("kavach-revocations+jwt"), delegation.BadType},
		{"access token as a link", second(link.under(object{"typ": "at+jwt"})), delegation.BadType},
		{"manifest as a link", second(link.under(object{"typ": "agent-manifest+jwt"})), delegation.BadType},
		{"DPoP proof as a link", second(link.under(object{"typ": "dpop+jwt"})), delegation.BadType},
		{"typ before alg", root.under(object{"typ": "x", "alg": "none"}).String(), delegation.BadType},

		{"alg absent", alg(drop), delegation.AlgNotAllowed},
		{"alg a number", alg(256), delegation.AlgNotAllowed},
		{"EdDSA", alg("EdDSA"), delegation.AlgNotAllowed},
		{"Ed448", alg("Ed448"), delegation.AlgNotAllowed},
		{"case", alg("ed25519"), delegation.AlgNotAllowed},
		{"PS256", alg("PS256"), delegation.AlgNotAllowed},
		{"ES384", alg("ES384"), delegation.AlgNotAllowed},
		{"ES256 with an Ed25519 anchor", alg("ES256"), delegation.AlgNotAllowed},
		{"RS256 with an ES256 anchor", plainToken().under(object{"alg": "RS256"}).String(), delegation.AlgNotAllowed},
		{"ES256 with an RS256 anchor", plainToken().under(object{"kid": "at-rs"}).String(), delegation.AlgNotAllowed},
		{"a root by RS256", rootToken().signedBy(rsaHolder()).under(object{"kid": "at-rs"}).String(), delegation.AlgNotAllowed},
		{"an aat root by RS256", rootToken().signedBy(rsaHolder()).under(object{"kid": "at-rs", "typ": "aat+jwt"}).String(), delegation.AlgNotAllowed},
		{"HS256 with the public key", signed + "." + b64(mac.Sum(nil)), delegation.AlgNotAllowed},
		{"alg does not fit the parent's key", second(link.under(object{"alg": "ES256"})), delegation.AlgNotAllowed},
		{"EdDSA in a link", second(link.under(object{"alg": "EdDSA"})), delegation.AlgNotAllowed},
		{"RS256 in a link", second(link.signedBy(rsaHolder())), delegation.AlgNotAllowed},
		{"alg before kid", root.under(object{"alg": "none", "kid": "nobody"}).String(), delegation.AlgNotAllowed},
	}
	for _, name := range []string{"none", "None", "NONE", ""} {
		unsigned := root.under(object{"alg": name})
		unsigned.signature = func([]byte) []byte { return nil }
		attacks = append(attacks, attack{"alg " + name + ", no signature", unsigned.String(), delegation.AlgNotAllowed})
	}
	runAttacks(t, attacks)
}

// Step 2: the kid selects the anchor, alone; the signature.
func TestStep2Signature(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	kid := func(kid any) string { return root.under(object{"kid": kid}).String() }
	bySomebody := func(f forged, h holder) forged { f.by = h; return f }
	truncated := root
	truncated.signature = func(s []byte) []byte { return s[:63] }
	empty := root
	empty.signature = func([]byte) []byte { return nil }
	der := plainToken()
	der.signature = func(s []byte) []byte { return append([]byte{0x30, 0x44}, s...) }
	zero := plainToken()
	zero.signature = func([]byte) []byte { return make([]byte, 64) }
	stale := root
	stale.claims = object{}
	for name, value := range root.claims {
		stale.claims[name] = value
	}
	stale.claims["exp"] = now.Unix() - 100
	runAttacks(t, []attack{
		{"kid absent", kid(drop), delegation.UnknownRoot},
		{"kid of nobody", kid("at-nobody"), delegation.UnknownRoot},
		{"kid empty", kid(""), delegation.UnknownRoot},
		{"kid a number", kid(7), delegation.UnknownRoot},
		{"kid of a manifest key", kid("mf-ed"), delegation.UnknownRoot},
		{"kid of a revocation key", kid("rv-ed"), delegation.UnknownRoot},
		{"kid in another case", kid("AT-ed"), delegation.UnknownRoot},
		{"kid injection, path", kid("at-ed/../../etc/passwd"), delegation.UnknownRoot},
		{"kid injection, SQL", kid("at-ed' OR '1'='1"), delegation.UnknownRoot},
		{"kid injection, NUL", kid("at-ed\x00"), delegation.UnknownRoot},
		{"kid too long", kid("at-" + strings.Repeat("a", 62)), delegation.UnknownRoot},
		{"link alone", link.String(), delegation.UnknownRoot},
		{"suffix alone", join(link, linkUnder(link, helperKey)), delegation.UnknownRoot},

		{"root by another key", bySomebody(root, ed("mallory")).String(), delegation.SignatureInvalid},
		{"root by the holder", bySomebody(root, orchKey).String(), delegation.SignatureInvalid},
		{"key in the header", bySomebody(root, ed("mallory")).under(object{"jwk": ed("mallory").jwk()}).String(), delegation.SignatureInvalid},
		{"key by URL", bySomebody(root, ed("mallory")).under(object{"jku": "https://mallory.example"}).String(), delegation.SignatureInvalid},
		{"link by its own holder", join(root, bySomebody(link, reviewerKey)), delegation.SignatureInvalid},
		{"link by the server", join(root, bySomebody(link, server)), delegation.SignatureInvalid},
		{"link skipped", join(root, linkUnder(link, helperKey)), delegation.SignatureInvalid},
		{"links reordered", join(root, linkUnder(link, helperKey), link), delegation.SignatureInvalid},
		{"links duplicated", join(root, link, link), delegation.SignatureInvalid},
		{"root duplicated", join(root, root), delegation.BadType},
		{"signature cut", truncated.String(), delegation.SignatureInvalid},
		{"signature absent", empty.String(), delegation.SignatureInvalid},
		{"signature in DER", der.String(), delegation.SignatureInvalid},
		{"signature of zeros", zero.String(), delegation.SignatureInvalid},
		// "never expired before the signature check"
		{"expired and forged", bySomebody(stale, ed("mallory")).String(), delegation.SignatureInvalid},
		{"claims no JSON and forged", func() string {
			f := bySomebody(root, ed("mallory"))
			f.payload = func(string) string { return "{" }
			return f.String()
		}(), delegation.SignatureInvalid},
	})
}

// Steps 4 to 9 and 12: what a link must repeat of its parent.
func TestSteps4To9(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	other := root.with(object{"jti": "root-2"})
	edge := func(claims object) string { return join(root, link.with(claims)) }
	second := linkUnder(link, helperKey)
	sealed := root.with(object{"del_max_depth": 0})
	deep := func(claims object) string { return root.with(claims).String() }
	plain := plainToken().with(object{"cnf": object{"jkt": orchKey.jkt()}})
	runAttacks(t, []attack{
		{"another issuer", root.with(object{"iss": "https://other.example"}).String(), delegation.IssuerMismatch},
		{"issuer with a slash", root.with(object{"iss": issuer + "/"}).String(), delegation.IssuerMismatch},
		{"issuer in capitals", root.with(object{"iss": "https://AUTH.example"}).String(), delegation.IssuerMismatch},
		{"link in the server's name", edge(object{"iss": issuer}), delegation.IssMismatch},
		{"link in its own name", edge(object{"iss": "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + reviewerKey.jkt()}), delegation.IssMismatch},

		{"jti of the root again", edge(object{"jti": "root-1"}), delegation.DuplicateJTI},
		{"jti of a link again", join(root, link, second.with(object{"jti": link.claims["jti"]})), delegation.DuplicateJTI},

		{"spliced under a sibling root", join(other, link), delegation.ParHashMismatch},
		{"hash of the whole parent", edge(object{"par_hash": hash(root.String())}), delegation.ParHashMismatch},
		{"hash of the grandparent", join(root, link, second.with(object{"par_hash": root.lid()})), delegation.ParHashMismatch},
		{"hash in capitals", edge(object{"par_hash": strings.ToUpper(root.lid())}), delegation.ParHashMismatch},

		{"a plain token as parent", join(plainToken(), link), delegation.DepthInvalid},
		{"a bound plain token as parent", join(plain, link), delegation.DepthInvalid},
		{"root at depth 1", deep(object{"del_depth": 1}), delegation.DepthInvalid},
		{"root at depth −1", deep(object{"del_depth": -1}), delegation.DepthInvalid},
		{"root without max", deep(object{"del_max_depth": drop}), delegation.DepthInvalid},
		{"root without depth", deep(object{"del_depth": drop}), delegation.DepthInvalid},
		{"root with max 9", deep(object{"del_max_depth": 9}), delegation.DepthInvalid},
		{"root with max −1", deep(object{"del_max_depth": -1}), delegation.DepthInvalid},
		{"link at depth 0", edge(object{"del_depth": 0}), delegation.DepthInvalid},
		{"link skips a depth", edge(object{"del_depth": 2}), delegation.DepthInvalid},
		{"link without depth", edge(object{"del_depth": drop}), delegation.DepthInvalid},
		{"link without max", edge(object{"del_max_depth": drop}), delegation.DepthInvalid},
		{"link raises max", edge(object{"del_max_depth": 4}), delegation.DepthInvalid},
		{"link with max below its depth", edge(object{"del_max_depth": 0}), delegation.DepthInvalid},
		{"below a sealed root", join(sealed, linkUnder(sealed, reviewerKey).with(object{"del_max_depth": 1})), delegation.DepthInvalid},
		{"below a sealed link", join(root, link.with(object{"del_max_depth": 1}),
			linkUnder(link.with(object{"del_max_depth": 1}), helperKey).with(object{"del_max_depth": 2})), delegation.DepthInvalid},

		{"another principal", edge(object{"sub": "user-mallory"}), delegation.PrincipalAltered},
		{"principal in another case", edge(object{"sub": "USER-ALICE"}), delegation.PrincipalAltered},
		{"principal normalised", join(root.with(object{"sub": "ali\u0301ce"}),
			linkUnder(root.with(object{"sub": "ali\u0301ce"}), reviewerKey).with(object{"sub": "al\u00edce"})), delegation.PrincipalAltered},
		{"another audience", edge(object{"aud": []string{"https://elsewhere.example"}}), delegation.AudienceWidened},
		{"one audience more", edge(object{"aud": []string{gitHost, "https://elsewhere.example"}}), delegation.AudienceWidened},
		{"audience with a slash", edge(object{"aud": gitHost + "/"}), delegation.AudienceWidened},

		{"the parent's key again", edge(object{"cnf": orchKey.cnf()}), delegation.KeyReuse},
		{"the grandparent's key again", join(root, link, second.with(object{"cnf": orchKey.cnf()})), delegation.KeyReuse},
	})
}

// Step 10: not_yet_valid → malformed → outlives_parent → expired.
func TestStep10Times(t *testing.T) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	at := func(iat, exp int64, more ...object) string {
		f := root.with(object{"iat": now.Unix() + iat, "exp": now.Unix() + exp})
		for _, o := range more {
			f = f.with(o)
		}
		return f.String()
	}
	edge := func(iat, exp int64) string {
		return join(root, link.with(object{"iat": now.Unix() + iat, "exp": now.Unix() + exp}))
	}
	const huge = 1<<53 - 1
	runAttacks(t, []attack{
		{"iat 31 s ahead", at(31, 100), delegation.NotYetValid},
		{"iat at the end of time", root.with(object{"iat": huge}).String(), delegation.NotYetValid},
		{"nbf 31 s ahead", at(0, 100, object{"nbf": now.Unix() + 31}), delegation.NotYetValid},
		{"exp before iat", at(-10, -20), delegation.Malformed},
		{"exp at iat", at(0, 0), delegation.Malformed},
		{"nbf at exp", at(0, 20, object{"nbf": now.Unix() + 20}), delegation.Malformed},
		{"a root of 3601 s", at(-1, 3600), delegation.Malformed},
		{"a plain token of 3601 s", plainToken().with(object{"exp": now.Unix() + 3591}).String(), delegation.Malformed},
		{"exp at the end of time", root.with(object{"exp": huge}).String(), delegation.Malformed},
		{"iat 1 s before the parent's", edge(-11, 100), delegation.OutlivesParent},
		{"exp 1 s after the parent's", edge(-5, 291), delegation.OutlivesParent},
		{"expired now", at(-100, 0), delegation.Expired},
		{"expired long ago", at(-400, -200), delegation.Expired},
		{"link expired, root not", edge(-5, 0), delegation.Expired},
	})
	v := verifier(t)
	if _, err := v.Verify(at(-100, 0), now.Add(-time.Millisecond)); err != nil {
		t.Errorf("a token is good until its exp: %v", err)
	}
}

// Step 11: scope, tools, limits.
func TestStep11Narrower(t *testing.T) {
	entry := func(names ...string) []any { return []any{tools(names...)} }
	limited := func(members object) []any { return []any{tools(), limits(members)} }
	pair := func(parent, child []any, more object) string {
		root := rootToken().with(object{"authorization_details": parent})
		return join(root, linkUnder(root, reviewerKey).with(object{"authorization_details": child}).with(more))
	}
	aat := rootToken().under(object{"typ": "aat+jwt"})
	attacks := []attack{
		{"one scope more", pair(entry(), entry(), object{"scope": "repository:read repository:write"}), delegation.NotNarrower},
		{"scope in another case", pair(entry(), entry(), object{"scope": "Repository:read"}), delegation.NotNarrower},
		{"a tool where the parent names none", pair(entry(), entry("merge"), nil), delegation.NotNarrower},
		{"one tool more", pair(entry("get"), entry("get", "merge"), nil), delegation.NotNarrower},
		{"a tool with a prototype's name", pair(entry("get"), entry("constructor"), nil), delegation.NotNarrower},
		{"tool in another case", pair(entry("get"), entry("Get"), nil), delegation.NotNarrower},
		{"limits dropped", pair(limited(object{"resources": []string{"a"}}), entry(), nil), delegation.NotNarrower},
		{"empty limits dropped", pair(limited(object{}), entry(), nil), delegation.NotNarrower},
		{"limits added below an AAT root", join(aat, linkUnder(aat, reviewerKey).with(object{"authorization_details": limited(object{"resources": []string{"a"}})})), delegation.NotNarrower},
		{"a budget for two servers", pair(entry(), limited(object{"max_calls": 3}), object{"aud": []string{gitHost, mcpHost}}), delegation.NotNarrower},
	}
	for _, c := range []struct {
		parent object
		child  object
	}{
		{object{"resources": []string{"a"}}, object{}},
		{object{"resources": []string{"a"}}, object{"resources": []string{"b"}}},
		{object{"resources": []string{"a"}}, object{"resources": []string{"a/*"}}},
		{object{"resources": []string{"a"}}, object{"resources": []string{"a", "b"}}},
		{object{"resources": []string{}}, object{"resources": []string{"a"}}},
		{object{"resources": []string{"a/*"}}, object{"resources": []string{"ab"}}},
		{object{"resources": []string{"a/*"}}, object{"resources": []string{"a"}}},
		{object{"resources": []string{"a/b/*"}}, object{"resources": []string{"a/*"}}},
		{object{"allow_network": []string{"h"}}, object{}},
		{object{"allow_network": []string{"h:443"}}, object{"allow_network": []string{"h"}}},
		{object{"allow_network": []string{"h:443"}}, object{"allow_network": []string{"h:80"}}},
		{object{"allow_network": []string{"a.h"}}, object{"allow_network": []string{"*.a.h"}}},
		{object{"allow_network": []string{"*.a.h"}}, object{"allow_network": []string{"*.h"}}},
		{object{"allow_network": []string{"*.a.h"}}, object{"allow_network": []string{"a.h"}}},
		{object{"allow_network": []string{"*.a.h"}}, object{"allow_network": []string{"ba.h"}}},
		{object{"allow_network": []string{}}, object{"allow_network": []string{"h"}}},
		{object{"max_file_size": 5}, object{}},
		{object{"max_file_size": 5}, object{"max_file_size": 6}},
		{object{"max_calls": 5}, object{}},
		{object{"max_calls": 5}, object{"max_calls": 6}},
		{object{"audit_required": true}, object{}},
		{object{"audit_required": true}, object{"audit_required": false}},
		{object{"audit_required": false}, object{}},
	} {
		attacks = append(attacks, attack{
			fmt.Sprintf("%v over %v", c.parent, c.child), pair(limited(c.parent), limited(c.child), nil), delegation.NotNarrower,
		})
	}
	runAttacks(t, attacks)
}
