package delegation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// Step 3: strict parse, shapes, forbidden claims, keys; constraint trees.
func TestStep3Claims(t *testing.T) {
	plain := func(claims object) string { return plainToken().with(claims).String() }
	root := func(claims object) string { return rootToken().with(claims).String() }
	link := func(claims object) string { return join(rootToken(), linkUnder(rootToken(), reviewerKey).with(claims)) }
	raw := func(old, new string) string {
		f := rootToken()
		f.payload = func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("%s is not in %s", old, s)
			}
			return strings.Replace(s, old, new, 1)
		}
		return f.String()
	}
	smallOrder := object{"kty": "OKP", "crv": "Ed25519", "x": b64(append([]byte{1}, make([]byte, 31)...))}
	offCurve := object{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(append(make([]byte, 31), 7))}
	withMember := func(name string, value any) object {
		cnf := orchKey.cnf()
		cnf["jwk"].(object)[name] = value
		return object{"cnf": cnf}
	}
	var attacks []attack
	add := func(name, token string) { attacks = append(attacks, attack{name, token, delegation.Malformed}) }

	add("no JSON", raw(`{"`, `{`))
	add("trailing data", raw(`{"aud"`, `{}{"aud"`))
	add("duplicate member", raw(`{"aud"`, `{"sub":"user-mallory","aud"`))
	add("duplicate member, escaped", raw(`{"aud"`, `{"s\u0075b":"user-mallory","aud"`))
	add("duplicate member, deep", raw(`"cnf":{`, `"cnf":{"jkt":"x",`))
	add("bad UTF-8", raw("user-alice", "user-\xff"))
	add("lone surrogate", raw("user-alice", `user-\ud800`))
	add("byte order mark", raw(`{"aud"`, "\ufeff"+`{"aud"`))
	add("claims are an array", func() string {
		f := rootToken()
		f.payload = func(s string) string { return "[" + s + "]" }
		return f.String()
	}())
	add("nested 97 deep", root(object{"x": nested(97)}))
	add("exp 1.0", raw(`"exp":1800000290`, `"exp":1800000290.0`))
	add("exp 1e9", raw(`"exp":1800000290`, `"exp":18e8`))
	add("exp a string", root(object{"exp": "1800000290"}))
	add("exp true", root(object{"exp": true}))
	add("exp null", root(object{"exp": nil}))
	add("exp 2^53", raw(`"exp":1800000290`, `"exp":9007199254740992`))
	add("exp beyond int64", raw(`"exp":1800000290`, `"exp":18446744073709551616`))
	add("del_depth -0", raw(`"del_depth":0`, `"del_depth":-0`))
	add("del_depth 0.0", raw(`"del_depth":0`, `"del_depth":0.0`))
	add("del_depth false", root(object{"del_depth": false}))
	add("del_max_depth null", root(object{"del_max_depth": nil}))
	add("nbf null", root(object{"nbf": nil}))

	for _, name := range []string{"iss", "sub", "client_id", "aud", "iat", "exp", "jti", "scope"} {
		add("plain without "+name, plain(object{name: drop}))
		add("root without "+name, root(object{name: drop}))
		add("link without "+name, link(object{name: drop}))
		add("root with null "+name, root(object{name: nil}))
		add("link with an object as "+name, link(object{name: object{}}))
	}
	add("plain without gid", plain(object{"gid": drop}))
	add("root without gid", root(object{"gid": drop}))
	add("link without par_hash", link(object{"par_hash": drop}))
	add("root without cnf", root(object{"cnf": drop}))
	add("link without cnf", link(object{"cnf": drop}))
	add("root without authorization_details", root(object{"authorization_details": drop}))
	add("link without authorization_details", link(object{"authorization_details": drop}))

	add("par_hash in a root", root(object{"par_hash": hash("x")}))
	add("par_hash in a plain token", plain(object{"par_hash": hash("x")}))
	for name, value := range map[string]any{
		"gid": "grant-1", "anc": []string{"x"}, "act": object{"sub": "boss"}, "status": object{}, "may_act": object{"sub": reviewer},
	} {
		add(name+" in a link", link(object{name: value}))
	}

	add("aud empty", root(object{"aud": []string{}}))
	add("aud of an empty string", root(object{"aud": []string{""}}))
	add("aud twice the same", root(object{"aud": []string{gitHost, gitHost}}))
	add("aud of nine", root(object{"aud": strings.Split("a b c d e f g h i", " ")}))
	add("aud of numbers", root(object{"aud": []any{1}}))
	add("scope an array", root(object{"scope": []string{"repository:read"}}))
	add("scope twice the same", root(object{"scope": "a b a"}))
	add("scope with two spaces", root(object{"scope": "a  b"}))
	add("scope with a tab", root(object{"scope": "a\tb"}))
	add("scope wildcard", root(object{"scope": "repository:*"}))
	add("scope not ASCII", root(object{"scope": "repositor\u0443:read"}))
	add("scope too long", root(object{"scope": strings.Repeat("a", 129)}))
	add("jti too long", root(object{"jti": strings.Repeat("a", 129)}))
	add("jti empty", root(object{"jti": ""}))
	add("jti with a newline", root(object{"jti": "a\nb"}))
	add("client_id too long", root(object{"client_id": strings.Repeat("a", 257)}))
	add("client_id not ASCII", link(object{"client_id": "c\u043ede-reviewer"}))
	add("sub too long", root(object{"sub": strings.Repeat("a", 1025)}))
	add("anc empty", root(object{"anc": []string{}}))
	add("anc of 33", root(object{"anc": strings.Split(strings.Repeat("x ", 32)+"x", " ")}))
	add("anc of numbers", root(object{"anc": []int{1}}))
	add("act a string", root(object{"act": "boss"}))
	add("act without sub", root(object{"act": object{"act": object{"sub": "boss"}}}))
	add("act with a mistyped act", root(object{"act": object{"sub": "boss", "act": []any{}}}))
	add("hops negative", plain(object{"hops": -1}))
	for _, name := range []string{"card", "status", "may_act"} { // "`null` for a known member"
		add(name+" null in a root", root(object{name: nil}))
		add(name+" null in a plain token", plain(object{name: nil}))
		add(name+" null in a link", link(object{name: nil}))
	}
	add("card a number", link(object{"card": 1}))
	add("card an object", link(object{"card": object{}}))
	add("card no SHA-256", link(object{"card": "x"}))

	add("cnf a string", root(object{"cnf": orchKey.jkt()}))
	add("cnf without jkt", root(object{"cnf": object{"jwk": orchKey.jwk()}}))
	add("cnf without jwk", root(object{"cnf": object{"jkt": orchKey.jkt()}}))
	add("cnf with jku", root(object{"cnf": object{"jwk": orchKey.jwk(), "jkt": orchKey.jkt(), "jku": "https://x"}}))
	add("cnf with kid beside jkt", plain(object{"cnf": object{"jkt": orchKey.jkt(), "kid": "x"}}))
	add("cnf with jwk in a plain token", plain(object{"cnf": orchKey.cnf()}))
	add("cnf with jkt no thumbprint", plain(object{"cnf": object{"jkt": "short"}}))
	add("jkt of another key", root(object{"cnf": object{"jwk": orchKey.jwk(), "jkt": reviewerKey.jkt()}}))
	add("jkt of another key in a link", link(object{"cnf": object{"jwk": orchKey.jwk(), "jkt": reviewerKey.jkt()}}))
	add("jwk with a private member", root(withMember("d", b64(make([]byte, 32)))))
	add("jwk with kid", root(withMember("kid", "x")))
	add("jwk with alg", root(withMember("alg", "Ed25519")))
	add("jwk of small order", root(object{"cnf": object{"jwk": smallOrder, "jkt": hash(text(smallOrder))}}))
	add("jwk off the curve", root(object{"cnf": object{"jwk": offCurve, "jkt": hash(text(offCurve))}}))
	add("jwk symmetric", root(object{"cnf": object{"jwk": object{"kty": "oct", "k": "AAAA"}, "jkt": hash("x")}}))
	add("aat+jwt without depth", plainToken().signedBy(server).under(object{"kid": "at-ed", "typ": "aat+jwt"}).String())
	runAttacks(t, attacks)
}

func TestStep3Details(t *testing.T) {
	details := func(entries ...any) string {
		return rootToken().with(object{"authorization_details": entries}).String()
	}
	inLink := func(entries ...any) string {
		return join(rootToken(), linkUnder(rootToken(), reviewerKey).with(object{"authorization_details": entries}))
	}
	argument := func(constraint any) object {
		return object{"type": "attenuating_agent_token", "tools": object{"get": object{}, "other": object{"path": constraint}}}
	}
	limit := func(name string, value any) string { return details(tools(), limits(object{name: value})) }
	many := object{}
	for _, name := range strings.Fields(strings.Repeat("x ", 65)) {
		many[name+strings.Repeat("y", len(many))] = object{}
	}
	attacks := []attack{
		{"in a link too", inLink(argument(object{"constraint_type": "Wildcard"})), delegation.UnknownConstraint},
		{"an unknown type", details(argument(object{"constraint_type": "regex", "pattern": ".*"})), delegation.UnknownConstraint},
		{"malformed beside unknown", details(object{"type": "attenuating_agent_token", "tools": object{
			"a": object{"x": object{"constraint_type": "regex"}}, "b": object{"x": 1}}}), delegation.Malformed},
	}
	add := func(name, token string) { attacks = append(attacks, attack{name, token, delegation.Malformed}) }
	add("constraint without a type", details(argument(object{})))
	add("constraint a string", details(argument("x")))
	add("arguments null", details(object{"type": "attenuating_agent_token", "tools": object{"get": nil}}))
	add("arguments an array", details(object{"type": "attenuating_agent_token", "tools": object{"get": []any{}}}))
	add("tools an array", details(object{"type": "attenuating_agent_token", "tools": []any{}}))
	add("tools null", details(object{"type": "attenuating_agent_token", "tools": nil}))
	add("tools absent", details(object{"type": "attenuating_agent_token", "tolls": object{}}))
	add("a tool without a name", details(tools("")))
	add("65 tools", details(object{"type": "attenuating_agent_token", "tools": many}))
	add("a further member", details(object{"type": "attenuating_agent_token", "tools": object{}, "locations": []any{}}))
	add("no entry", details())
	add("limits alone", details(limits(object{})))
	add("a second authority entry", details(tools("get"), tools("merge")))
	add("a second authority entry in a link", inLink(tools(), tools("merge")))
	add("a second limits entry", details(tools(), limits(object{}), limits(object{})))
	add("an entry of another type", details(tools(), object{"type": "payment_initiation"}))
	add("an entry without a type", details(tools(), object{}))
	add("an entry that is a string", details(tools(), "kavach_limits"))
	add("not an array", rootToken().with(object{"authorization_details": tools()}).String())
	add("null in a plain token", plainToken().with(object{"authorization_details": nil}).String())

	add("unknown limit", limit("max_cost", 1))
	add("limit in another case", limit("Resources", []string{"a"}))
	add("resources null", limit("resources", nil))
	add("resources a string", limit("resources", "a"))
	add("resources of numbers", limit("resources", []any{1}))
	add("resources of 33", limit("resources", strings.Fields(strings.Repeat("a ", 33))))
	add("network null", limit("allow_network", nil))
	add("network of 33", limit("allow_network", strings.Fields(strings.Repeat("a ", 33))))
	add("size negative", limit("max_file_size", -1))
	add("size -0", details(tools(), json.RawMessage(`{"type":"kavach_limits","max_file_size":-0}`)))
	add("size 0.5", limit("max_file_size", 0.5))
	add("size a string", limit("max_file_size", "5MB"))
	add("size 2^53", limit("max_file_size", uint64(1<<53)))
	add("calls 0", limit("max_calls", 0))
	add("calls null", limit("max_calls", nil))
	add("audit null", limit("audit_required", nil))
	add("audit 1", limit("audit_required", 1))
	add("audit a string", limit("audit_required", "true"))
	runAttacks(t, attacks)
}

func nested(depth int) any {
	var v any = 1
	for range depth {
		v = []any{v}
	}
	return v
}
