package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// slot is where something that callers sign themselves is taken. A forgery of a
// token of kavach fails at its signature, whatever else is wrong with it; here
// the signature is good and the rest is what is judged.
type slot struct {
	name string
	// key signs; header and claims are what is right, made anew each time.
	key    signingKey
	header func() map[string]any
	claims func() map[string]any
	// taken says whether a document is taken, and checks how it is refused.
	taken func(t *testing.T, what, text string) bool
}

// signedSlots are assertion, proof and link, each with both kinds of keys.
func (a *attack) signedSlots(t *testing.T) []slot {
	t.Helper()
	var out []slot
	for _, who := range []*agent{a.agent, a.keyed} {
		out = append(out, slot{
			"assertion by " + who.Key.alg(), who.Key,
			func() map[string]any { return decodePart(strings.Split(who.Key.assertion(who.ID, a.Issuer), ".")[0]) },
			func() map[string]any { return decodePart(strings.Split(who.Key.assertion(who.ID, a.Issuer), ".")[1]) },
			func(t *testing.T, what, text string) bool {
				got := a.authenticate(t, "/oauth/token", text)
				if got.status == http.StatusOK {
					return true
				}
				wantOAuth(t, what, got, 401, "invalid_client")
				return false
			},
		})
	}
	for _, holder := range []signingKey{newEd25519(), newES256()} {
		who := a.agent.at(a.server, holder)
		out = append(out, slot{
			"proof by " + holder.alg(), holder,
			func() map[string]any { return decodePart(strings.Split(who.proof(""), ".")[0]) },
			func() map[string]any { return decodePart(strings.Split(who.proof(""), ".")[1]) },
			func(t *testing.T, what, text string) bool {
				got := a.form(t, "/oauth/token", who.authenticated(url.Values{"grant_type": {"client_credentials"}}).Encode(), "DPoP", text)
				if got.status == http.StatusOK {
					return true
				}
				wantOAuth(t, what, got, 400, "invalid_dpop_proof")
				return false
			},
		})
		root, next := who.signedIn("kavach:verify kavach:delegate", nil).Access, newEd25519()
		last := func() []string {
			chain := holder.link(root, next, "somebody")
			return strings.Split(chain[strings.IndexByte(chain, '~')+1:], ".")
		}
		out = append(out, slot{
			"link by " + holder.alg(), holder,
			func() map[string]any { return decodePart(last()[0]) },
			func() map[string]any { return decodePart(last()[1]) },
			func(t *testing.T, what, text string) bool {
				argument, _ := json.Marshal(map[string]any{"token": root + "~" + text, "audience": a.Issuer + "/mcp"})
				got := a.rpc(t, "verify", string(argument), "Authorization", "Bearer "+a.machine)
				if got.status != http.StatusOK {
					t.Errorf("%s: %d %s", what, got.status, got.body)
				}
				return strings.Contains(got.body, `"valid":true`)
			},
		})
	}
	return out
}

// refused runs f for every slot and, before and after it, shows that what is
// right is taken.
func (a *attack) refused(t *testing.T, f func(t *testing.T, s slot, refuse func(what, text string))) {
	for _, s := range a.signedSlots(t) {
		t.Run(s.name, func(t *testing.T) {
			good := func() {
				if !s.taken(t, "good", s.key.sign(s.header(), s.claims())) {
					t.Errorf("what is right was refused")
				}
			}
			good()
			f(t, s, func(what, text string) {
				t.Helper()
				if s.taken(t, what, text) {
					t.Errorf("%s was taken", what)
				}
			})
			good()
		})
	}
}

// Documents that callers sign.
var signedForgeries = []attackRow{
	{"A-51 A-53 algorithms that do not belong to the key", func(t *testing.T, a *attack) {
		a.refused(t, func(t *testing.T, s slot, refuse func(what, text string)) {
			foreign := []any{"none", "None", "NONE", "nOnE", "", "RS256", "PS256", "ES256K", "ES384", "HS256", "Ed448", "eddsa", "es256", "EDDSA", []string{s.key.alg()}, 0, true, map[string]any{}, s.key.alg() + " ", s.key.alg() + "\x00"}
			if s.key.ed != nil {
				foreign = append(foreign, "ES256")
			} else {
				foreign = append(foreign, "Ed25519", "EdDSA")
			}
			if strings.HasPrefix(s.name, "link") {
				foreign = append(foreign, "EdDSA") // only what other people's libraries write may say so
			}
			for _, alg := range foreign {
				header := s.header()
				header["alg"] = alg
				refuse(encode(alg), s.key.sign(header, s.claims()))
			}
			header := s.header()
			delete(header, "alg")
			refuse("no alg", s.key.signText(encode(header), encode(s.claims())))
			if jwk, ok := header["jwk"].(map[string]any); ok { // of a proof: the key says itself what it is
				for name, value := range map[string]any{"crv": "X25519", "kty": "RSA", "x": "AAAA", "y": jwk["x"], "d": jwk["x"], "k": "AAAA"} {
					header := s.header()
					header["jwk"].(map[string]any)[name] = value
					if name != "y" || s.key.ed == nil {
						refuse("jwk with another "+name, s.key.sign(header, s.claims()))
					}
				}
			}
			for name, secret := range s.key.spellings(t) {
				refuse("HS256 over "+name, hs256(s.header(), encode(s.claims()), secret))
			}
		})
	}},
	{"A-54 A-55 what else a header may say", func(t *testing.T, a *attack) {
		address, hits := canary(t)
		a.refused(t, func(t *testing.T, s slot, refuse func(what, text string)) {
			for name, values := range map[string][]any{
				"jku": {address}, "x5u": {address}, "x5c": {[]string{"AAAA"}}, "jwk": {newES256().jwk(), newEd25519().jwk()},
				"kid": {"../../etc/passwd", "' OR 1=1--", "/dev/null", "\x00", "", []string{}, 1, strings.Repeat("x", 8<<10), address},
			} {
				for _, value := range values {
					evil := newEd25519()
					if s.key.ec != nil {
						evil = newES256()
					}
					header := s.header()
					header[name] = value
					text := evil.sign(header, s.claims())
					if strings.HasPrefix(s.name, "proof") && name == "jwk" {
						continue // a proof names its own key
					}
					refuse(name, text)
				}
			}
			for name, value := range map[string]any{"crit": []string{"exp"}, "b64": false, "typ": "application/json"} {
				header := s.header()
				header[name] = value
				refuse(name, s.key.sign(header, s.claims()))
			}
		})
		if n := hits.Load(); n != 0 {
			t.Errorf("the server fetched %d times what a header named", n)
		}
	}},
	{"A-57 JSON that two readers read differently", func(t *testing.T, a *attack) {
		t.Log("left out: the same verdict in a JavaScript verifier is the vectors' to show")
		a.refused(t, func(t *testing.T, s slot, refuse func(what, text string)) {
			header, claims := s.header(), s.claims()
			header["alg"] = s.key.alg()
			h, c := encode(header), encode(claims)
			fresh := func() string { return encode(s.claims()) } // each with a jti of its own
			with := func(text, more string) string { return text[:len(text)-1] + more + "}" }
			for _, more := range []string{
				`,"jti":"x"`, `,"iat":1`, `,"iat":` + encode(claims["iat"]), `,"x":"\ud800"`, `,"x":{"a":1,"a":1}`, `,"x":01`, `,"x":NaN`, `,"x":'a'`,
				`,"x":"` + "\x01" + `"`, `,"x":"` + "\xff" + `"`, `,`, `,"x":1//`, `,"` + "\\u006ati" + `":"y"`,
			} {
				refuse("claims with "+more, s.key.signText(h, with(fresh(), more)))
			}
			for _, more := range []string{`,"typ":"` + header["typ"].(string) + `"`, `,"alg":"none"`, `,"\u0061lg":"none"`, `,"x":{"a":1,"a":1}`, `,"x":"\ud800"`, `,`} {
				refuse("header with "+more, s.key.signText(with(h, more), fresh()))
			}
			for _, text := range []string{"\ufeff" + c, c + "x", c + c, "[" + c + "]", "null", "", `"x"`, strings.Repeat("[", 4<<10), utf16(c), c + "\x00", "\x00" + c} {
				refuse("claims "+text[:min(len(text), 20)], s.key.signText(h, text))
				if text != "" && strings.Contains(text, c) {
					refuse("header around", s.key.signText(strings.Replace(text, c, h, 1), fresh()))
				}
			}
			for _, name := range []string{"iat", "exp"} {
				if claims[name] == nil {
					continue
				}
				for _, value := range []string{`"` + encode(claims[name]) + `"`, "-1", "9223372036854775808", "1.5", "1e10", "null", "true", "[1]", `""`, "-0", "1e400"} {
					refuse(name+" as "+value, s.key.signText(h, replaceMember(s.claims(), name, value)))
				}
			}
		})
	}},
	{"A-58 A-59 A-65 other spellings of what callers sign", func(t *testing.T, a *attack) {
		a.refused(t, func(t *testing.T, s slot, refuse func(what, text string)) {
			good := func() (string, []string) {
				text := s.key.sign(s.header(), s.claims())
				return text, strings.Split(text, ".")
			}
			_, other := good()
			for i := range 14 {
				text, p := good()
				last := p[2][len(p[2])-1:]
				spoilt := []string{
					text + "=", text + "==", p[0] + "=." + p[1] + "." + p[2], text + ".", text + ".x", "." + text, p[0] + ".." + p[2], p[0] + "." + p[1],
					text[:len(text)-1] + nextUnused(last), text[:len(text)-8], p[0] + "." + p[1] + "." + other[2], p[0] + "." + other[1] + "." + p[2],
					p[0] + "." + p[1] + "." + strings.Repeat("A", len(p[2])), `{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `"}`,
				}[i]
				refuse(spoilt[:min(40, len(spoilt))], spoilt)
			}
			for _, at := range []int{0, 1, 21, 42, 43, 84} { // r and s, or R and S
				text, p := good()
				refuse("flipped", text[:len(text)-len(p[2])+at]+flip(p[2][at:at+1])+p[2][at+1:])
			}
			for _, white := range []string{"\n", "\t"} { // a header or parameter keeps it inside
				_, p := good()
				if strings.HasPrefix(s.name, "proof") {
					continue // HTTP allows no line feed in a header
				}
				refuse("white space", p[0]+"."+p[1][:8]+white+p[1][8:]+"."+p[2])
			}
			_, p := good()
			refuse("alphabet of base64", strings.NewReplacer("-", "+", "_", "/").Replace(p[0]+"."+p[1]+"."+p[2][:len(p[2])-4]+"+/+/"))
			refuse("an encrypted one", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA")
			refuse("dots", strings.Repeat(".", 8<<10))
			refuse("nested", s.key.signText(encode(map[string]any{"alg": s.key.alg(), "typ": s.header()["typ"], "cty": "JWT"}), s.key.sign(s.header(), s.claims())))
		})
	}},
	{"A-61 times of what callers sign", func(t *testing.T, a *attack) {
		a.refused(t, func(t *testing.T, s slot, refuse func(what, text string)) {
			now := time.Now().Unix()
			bad := map[string]map[string]any{"iat a day ahead": {"iat": now + 86400, "exp": now + 86460}, "iat an hour ahead": {"iat": now + 3600, "exp": now + 3660}}
			switch {
			case strings.HasPrefix(s.name, "proof"):
				bad["31 s old"], bad["a minute ahead"], bad["no iat"] = map[string]any{"iat": now - 33}, map[string]any{"iat": now + 60}, map[string]any{"iat": nil}
			default:
				bad["expired by 1 s"] = map[string]any{"iat": now - 60, "exp": now - 1}
				bad["expires now"] = map[string]any{"iat": now - 60, "exp": now}
				bad["long expired"] = map[string]any{"iat": 1, "exp": 2}
				bad["no exp"] = map[string]any{"exp": nil}
				bad["exp before iat"] = map[string]any{"iat": now + 20, "exp": now + 10}
				bad["for ever"] = map[string]any{"exp": now + 10*365*86400}
				if strings.HasPrefix(s.name, "assertion") {
					bad["nbf in an hour"], bad["longer than 5 min"] = map[string]any{"nbf": now + 3600}, map[string]any{"iat": now, "exp": now + 301}
				}
			}
			for name, times := range bad {
				claims := s.claims()
				for member, value := range times {
					if _, has := claims[member]; has || member == "nbf" {
						put(claims, member, value)
					}
				}
				refuse(name, s.key.sign(s.header(), claims))
			}
		})
	}},
}

func utf16(text string) string {
	out := []byte{0xfe, 0xff}
	for _, r := range []byte(text) {
		out = append(out, 0, r)
	}
	return string(out)
}

// replaceMember writes claims with one member as that text.
func replaceMember(claims map[string]any, name, text string) string {
	raw := map[string]json.RawMessage{}
	for member, value := range claims {
		raw[member] = json.RawMessage(encode(value))
	}
	delete(raw, name)
	rest := encode(raw)
	return `{"` + name + `":` + text + "," + rest[1:]
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// nextUnused is the last letter of 64 bytes with other unused bits: the same
// bytes to a lax decoder.
func nextUnused(last string) string {
	at := strings.Index(base64Alphabet, last)
	return base64Alphabet[at&^15|(at+1)&15:][:1]
}

// flip is another letter of the alphabet.
func flip(letter string) string {
	return base64Alphabet[(strings.Index(base64Alphabet, letter)+32)%64:][:1]
}
