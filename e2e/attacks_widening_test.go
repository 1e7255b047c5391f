package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// limits is what a link is held to. /mcp's own tools are named because a
// restricted token that shall use them names them (mcp.md §3).
func limits() map[string]any {
	return map[string]any{
		"type": "kavach_limits", "resources": []string{"kavach/delegate", "kavach/verify", "repo/1", "repo/2/*"},
		"allow_network": []string{"git.internal", "*.pkg.example", "10.0.0.1", "api.example:8443"}, "max_file_size": 5000000, "audit_required": true,
	}
}

// details is authorization_details with these entries.
func details(entries ...any) []any {
	return append([]any{map[string]any{"type": "attenuating_agent_token", "tools": map[string]any{}}}, entries...)
}

// wider is what a child of limits() may not have. Text of JSON stands for what
// no encoder writes.
var wider = map[string][]string{
	"resources": {
		`["repo/10"]`, `["repo"]`, `["repo/*"]`, `["/*"]`, `["*"]`, `["repo/1/*"]`, `["repo/1/x"]`, `["repo/2"]`, `["repo/2*"]`, `["repo/20/*"]`, `["repo/1/"]`, `["repo//1"]`,
		`["repo/2/../1"]`, `["repo/2/./x"]`, `["repo/2/.."]`, `["repo/%31"]`, `["repo/2/%2e%2e"]`, `["Repo/1"]`, `["repo/1","repo/3"]`, `["repo/\u0031 "]`, `["repo/１"]`, `[""]`, `["repo/1\u0000"]`, `["repo\\1"]`,
		`"repo/1"`, `null`, `{}`, `1`, `[1]`, `[["repo/1"]]`, `[` + strings.Repeat(`"repo/2/x",`, 33) + `"repo/1"]`, `["` + strings.Repeat("x", 300) + `"]`,
	},
	"allow_network": {
		`["evil.example"]`, `["git.internal","evil.example"]`, `["*"]`, `["*.internal"]`, `["*.example"]`, `["pkg.example"]`, `["*.pkg.example.evil"]`, `["x.pkg.example.evil"]`, `["xpkg.example"]`, `["GIT.internal"]`,
		`["git.internal."]`, `["git.internal:0"]`, `["git.internal:65536"]`, `["git.internal:"]`, `["git.internal:080"]`, `["*git.internal"]`, `["*.*.pkg.example"]`, `["g*t.internal"]`, `["git.internal@evil.example"]`,
		`["https://git.internal"]`, `["git.internal/x"]`, `["g\u0456t.internal"]`, `["ｇit.internal"]`, `["xn--gt-jdc.internal"]`, `["git。internal"]`, `["10.0.0.2"]`, `["10.0.0.1."]`, `["10.1"]`, `["0x0a.0.0.1"]`, `["167772161"]`,
		`["[::ffff:10.0.0.1]"]`, `["[::ffff:a00:1]"]`, `["api.example"]`, `["api.example:443"]`, `["api.example:8443x"]`, `["api.example:+8443"]`, `"git.internal"`, `null`, `{}`, `[1]`, `[""]`, `[" git.internal"]`,
	},
	"max_file_size": {
		`5000001`, `"5MB"`, `"5mb"`, `"5000000"`, `5e6`, `5E6`, `5000000.0`, `-1`, `-0`, `9007199254740992`, `18446744073709551616`, `18446744073709551621`, `1e400`, `0x10`, `05`, `null`, `true`, `[]`, `""`,
	},
	"audit_required": {`false`, `"true"`, `1`, `null`, `[]`},
	"max_calls":      {`0`, `-1`, `"1"`, `1.5`, `null`, `9007199254740992`},
	"allowNetwork":   {`[]`}, "AllowNetwork": {`[]`}, "hosts": {`[]`}, "Resources": {`["repo/1"]`}, "resource": {`"repo/1"`}, "MAX_FILE_SIZE": {`1`}, "max_file_size ": {`1`}, "__proto__": {`{}`}, "deny": {`true`}, "not_before": {`1`},
}

// limited is authorization_details with limits(), and one member of it other or
// gone. Where an encoder would not write it, it is text.
func limited(member, value string) json.RawMessage {
	l := limits()
	delete(l, member)
	text := strings.TrimSuffix(encode(l), "}")
	if value != "" {
		text += `,` + encode(member) + `:` + value
	}
	return json.RawMessage(`[{"type":"attenuating_agent_token","tools":{}},` + text + `}]`)
}

// rawLink is link with text as authorization_details.
func (k signingKey) rawLink(parent string, to signingKey, client string, details json.RawMessage) string {
	var header, payload string
	_ = k.link(parent, to, client, func(h, claims map[string]any) {
		h["alg"] = k.alg()
		claims["authorization_details"] = "HERE"
		header, payload = encode(h), strings.Replace(encode(claims), `"HERE"`, string(details), 1)
	})
	return parent + "~" + k.signText(header, payload)
}

// Constraints that a child would like to lose.
var wideningAttacks = []crewRow{
	{"A-101 wider constraints in a link", func(t *testing.T, c *crew) {
		parent := c.handed(c.rev, set("authorization_details", details(limits())))
		child := c.hand
		try := func(what string, d json.RawMessage) {
			t.Helper()
			c.invalidEverywhere(t, what, child, c.rev.Holder.rawLink(parent, child.Holder, child.ID, d), "not_narrower", "malformed", "unknown_constraint")
		}
		for member, values := range wider {
			for i, value := range values {
				d := limited(member, value)
				if i == 0 && strings.Contains("resources allow_network max_file_size audit_required allowNetwork", member) {
					forged := c.rev.Holder.rawLink(parent, child.Holder, child.ID, d)
					c.invalidOffline(t, member+" "+value, child, forged, "not_narrower", "malformed", "unknown_constraint")
				}
				try(member+" "+value, d)
			}
		}
		for member := range limits() {
			try("without "+member, limited(member, ""))
		}
		entry := string(limited("", ""))
		open := strings.TrimSuffix(entry, "]")
		agentEntry, _, _ := strings.Cut(entry, ",{")
		for name, text := range map[string]string{
			"limits gone": agentEntry + "]", "limits alone": "[" + entry[len(agentEntry)+1:], "limits twice": open + "," + encode(limits()) + "]", "another entry": open + `,{"type":"payment"}]`,
			"agent entry twice": open + "," + agentEntry[1:] + "]", "none": "[]", "null": "null", "an object": "{}", "no type": `[{"tools":{}},` + entry[len(agentEntry)+1:],
			"a member twice": strings.Replace(entry, `"resources":`, `"resources":["/*"],"resources":`, 1), "an escaped twin": strings.Replace(entry, `"resources":`, `"r\u0065sources":["/*"],"resources":`, 1),
			"tools": strings.Replace(entry, `"tools":{}`, `"tools":{"x":{"a":{"type":"any_of_these"}}}`, 1), "member of the agent entry": strings.Replace(entry, `"tools":{}`, `"tools":{},"x":1`, 1),
			"type in capitals": strings.Replace(entry, "kavach_limits", "KAVACH_LIMITS", 1), "tools null": strings.Replace(entry, `"tools":{}`, `"tools":null`, 1), "trailing": entry + " x",
		} {
			try(name, json.RawMessage(text))
		}
		// The same and tighter ones hold; an empty list is nothing, not everything.
		same := c.rev.Holder.rawLink(parent, child.Holder, child.ID, limited("", ""))
		if got := c.shows(t, child, same); got.status != http.StatusOK || c.verdict(t, same, c.Issuer+"/mcp") != "" {
			t.Errorf("the same limits: %d %s", got.status, got.body)
		}
		empty := c.rev.Holder.rawLink(parent, child.Holder, child.ID, limited("resources", "[]"))
		if got := c.shows(t, child, empty); got.status != http.StatusForbidden || !strings.Contains(got.body, "constraint_violated") || got.header.Get("Www-Authenticate") != "" {
			t.Errorf("no resource at all: %d %s", got.status, got.body)
		}
		c.invalidEverywhere(t, "back from none", c.rev, child.Holder.rawLink(empty, c.rev.holding(newEd25519()).Holder, "x", limited("", "")), "not_narrower", "holder_binding_failed")
	}},
	{"A-101 wider constraints by exchange and delegate", func(t *testing.T, c *crew) {
		parent := c.handed(c.rev, set("authorization_details", details(limits())))
		for member, values := range wider {
			for i, value := range values {
				if member == "max_calls" && value == "0" {
					continue
				}
				got := c.trade(t, c.rev, parent, "authorization_details", string(limited(member, value)))
				wantOAuth(t, member+" "+value, got, 400, "invalid_authorization_details", "invalid_request", "invalid_target")
				if i > 20 {
					continue // the same reader as above
				}
				body := `{"agent":"` + c.hand.ID + `","scopes":["archive:read"],"constraints":{` + encode(member) + `:` + value + `}}`
				got = c.rpc(t, "delegate", body, "Authorization", "DPoP "+parent, "DPoP", c.rev.Holder.proof("POST", c.Issuer+"/mcp", parent))
				if got.status == http.StatusOK && !strings.Contains(got.body, `"isError":true`) && !strings.Contains(got.body, `"error":{`) || got.status != http.StatusOK && got.status != http.StatusBadRequest {
					t.Errorf("delegate %s %s: %d %s", member, value, got.status, got.body)
				}
			}
		}
		want := limits()
		delete(want, "type")
		for member := range want {
			// What is left out is kept.
			token := c.traded(t, c.rev, parent, "authorization_details", string(limited(member, "")))
			if got := limitsOf(token); encode(got) != encode(want) {
				t.Errorf("without %s the token has %v", member, got)
			}
		}
		for name, text := range map[string]string{
			"twice": `[{"type":"kavach_limits"},{"type":"kavach_limits"}]`, "unknown": `[{"type":"payment"}]`, "object": `{"type":"kavach_limits"}`, "torn": `[{`, "null": "null", "text": `"x"`, "deep": strings.Repeat("[", 5000),
			"twin": `[{"type":"kavach_limits","resources":["repo/1"],"resources":["/*"]}]`, "BOM": "\ufeff[]", "trailing": `[] x`, "unknown tool rule": `[{"type":"attenuating_agent_token","tools":{"x":{"a":{"type":"y"}}}}]`,
		} {
			wantOAuth(t, name, c.trade(t, c.rev, parent, "authorization_details", text), 400, "invalid_authorization_details", "invalid_request")
		}
		made := content(t, c.tool(t, c.rev, parent, "delegate", map[string]any{"agent": c.hand.ID, "scopes": []string{"archive:read"}, "constraints": map[string]any{"resources": []string{}}}))
		if got, _ := made["constraints"].(map[string]any); encode(got["resources"]) != "[]" || encode(got["allow_network"]) != encode(want["allow_network"]) {
			t.Errorf("an empty list became %v", got)
		}
		// A resource that would not see the restriction gets no such token.
		both := c.orch.signedIn("kavach:delegate wiki:read", nil)
		if both.Access != "" {
			wantOAuth(t, "not kavach-aware", c.trade(t, c.orch, both.Access, "resource", wiki, "authorization_details", string(limited("", ""))), 400, "invalid_target")
		}
	}},
	{"A-101 tools in a link", func(t *testing.T, c *crew) {
		tools := func(text string) json.RawMessage {
			return json.RawMessage(`[{"type":"attenuating_agent_token","tools":` + text + `}]`)
		}
		wantProof(t, "named below none", c.shows(t, c.rev, c.orch.Holder.rawLink(c.root, c.rev.Holder, c.rev.ID, tools(`{"verify":{}}`))))
		parent := c.traded(t, c.orch, c.root, "agent", c.rev.ID, "req_cnf", cnf(c.rev.Holder), "resource", c.Issuer+"/mcp", "authorization_details", string(tools(`{"verify":{},"audit":{}}`)))
		if got := c.shows(t, c.rev, parent); got.status != http.StatusOK {
			t.Errorf("a tool that is named: %d %s", got.status, got.body)
		}
		if got := c.tool(t, c.rev, parent, "delegate", map[string]any{"agent": c.hand.ID}); got.status != http.StatusForbidden || !strings.Contains(got.body, "constraint_violated") {
			t.Errorf("a tool that is not named: %d %s", got.status, got.body)
		}
		none := c.rev.Holder.rawLink(parent, c.hand.Holder, c.hand.ID, tools(`{}`))
		if got := c.shows(t, c.hand, none); got.status != http.StatusForbidden || !strings.Contains(got.body, "constraint_violated") {
			t.Errorf("no tool is left: %d %s", got.status, got.body)
		}
		for _, text := range []string{`{"delegate":{}}`, `{"verify":{},"delegate":{}}`, `{"*":{}}`, `{"Verify":{}}`, `{"verify ":{}}`, `{"constructor":{}}`, `{"__proto__":{}}`, `{"verify":[]}`, `{"verify":null}`, `{"verify":{"*":{"type":"nope"}}}`} {
			c.invalidEverywhere(t, text, c.hand, c.rev.Holder.rawLink(parent, c.hand.Holder, c.hand.ID, tools(text)), "not_narrower", "malformed", "unknown_constraint")
		}
		wantOAuth(t, "by exchange", c.trade(t, c.rev, parent, "authorization_details", string(tools(`{"delegate":{}}`))), 400, "invalid_authorization_details", "invalid_request")
	}},
}

// limitsOf reads kavach_limits of a token.
func limitsOf(token string) map[string]any {
	list, _ := claim(token, "authorization_details").([]any)
	for _, entry := range list {
		if e, _ := entry.(map[string]any); e["type"] == "kavach_limits" {
			out := maps.Clone(e)
			delete(out, "type")
			return out
		}
	}
	return nil
}

// Chains that were put together by somebody else.
var spliceAttacks = []crewRow{
	{"A-102 links that do not belong together", func(t *testing.T, c *crew) {
		k2 := newEd25519()
		last := c.hand.holding(k2)
		root := c.root
		narrow := c.handed(c.rev, set("scope", "kavach:verify"))
		wide := c.handed(c.rev)
		child := c.rev.Holder.link(narrow, k2, last.ID)
		part := func(chain string, i ...int) string {
			all := strings.Split(chain, "~")
			var out []string
			for _, n := range i {
				out = append(out, all[n])
			}
			return strings.Join(out, "~")
		}
		if got := c.shows(t, last, child); got.status != http.StatusOK || c.verdict(t, child, c.Issuer+"/mcp") != "" {
			t.Fatalf("the chain that the others are made of: %d %s", got.status, got.body)
		}
		other := c.orch.signedIn("", map[string][]string{"resource": {c.Issuer + "/mcp", archive}}).Access
		thief := newEd25519()
		owned := func(text string) string { // with the thief's key in the claims of a link
			p := strings.Split(text, ".")
			claims := decodePart(p[1])
			claims["cnf"] = map[string]any{"jwk": k2.jwk(), "jkt": k2.thumbprint()}
			return p[0] + "." + encode64(encode(claims)) + "." + p[2]
		}
		rows := map[string]struct {
			chain   string
			reasons []string
		}{
			"another signer":                      {thief.link(narrow, k2, last.ID), []string{"signature_invalid"}},
			"another signer that says it is not":  {thief.link(narrow, k2, last.ID, set("iss", "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"+c.rev.Holder.thumbprint())), []string{"signature_invalid"}},
			"signed by the root's holder":         {c.orch.Holder.link(narrow, k2, last.ID), []string{"signature_invalid"}},
			"signed by an identity key":           {c.rev.Key.link(narrow, k2, last.ID), []string{"signature_invalid"}},
			"another algorithm than the key's":    {newES256().link(narrow, k2, last.ID), []string{"alg_not_allowed"}},
			"a wider parent":                      {part(wide, 0, 1) + "~" + part(child, 2), []string{"par_hash_mismatch"}},
			"the link under another root":         {other + "~" + part(child, 1, 2), []string{"par_hash_mismatch"}},
			"the last under another root":         {other + "~" + part(child, 2), []string{"signature_invalid", "iss_mismatch", "par_hash_mismatch"}},
			"order swapped":                       {part(child, 0, 2, 1), []string{"signature_invalid", "par_hash_mismatch", "iss_mismatch"}},
			"a link twice":                        {part(child, 0, 1, 1, 2), []string{"signature_invalid", "duplicate_jti", "par_hash_mismatch", "iss_mismatch"}},
			"the last twice":                      {child + "~" + part(child, 2), []string{"signature_invalid", "duplicate_jti", "par_hash_mismatch", "iss_mismatch"}},
			"the root twice":                      {root + "~" + child, []string{"bad_typ"}},
			"the root last":                       {part(child, 1, 2, 0), []string{"unknown_root"}},
			"a hop left out":                      {part(child, 0, 2), []string{"signature_invalid", "par_hash_mismatch", "iss_mismatch"}},
			"without root":                        {part(child, 1, 2), []string{"unknown_root"}},
			"the last alone":                      {part(child, 2), []string{"unknown_root"}},
			"a plain token as root":               {c.orch.Holder.link(c.machine, k2, last.ID), []string{"depth_invalid", "malformed", "signature_invalid", "alg_not_allowed"}},
			"the parent's claims edited":          {root + "~" + owned(part(narrow, 1)), []string{"signature_invalid"}},
			"the root's claims edited":            {owned(root) + "~" + part(child, 1, 2), []string{"signature_invalid"}},
			"a proof as link":                     {narrow + "~" + c.rev.Holder.proof("POST", c.Issuer+"/mcp", narrow), []string{"bad_typ", "malformed"}},
			"a manifest as link":                  {narrow + "~" + c.rev.Key.manifest("rev", "kavach:verify"), []string{"bad_typ", "malformed"}},
			"a card as link":                      {narrow + "~" + c.rev.Holder.card(c.rev.ID, c.Issuer, k2), []string{"bad_typ", "malformed"}},
			"an assertion as link":                {narrow + "~" + c.rev.Holder.assertion(c.rev.ID, c.Issuer), []string{"bad_typ", "malformed"}},
			"nothing at the end":                  {child + "~", []string{"malformed"}},
			"nothing in the middle":               {root + "~~" + part(child, 1, 2), []string{"malformed"}},
			"another separator":                   {strings.ReplaceAll(child, "~", ","), []string{"malformed"}},
			"the signature of another link":       {narrow + "~" + strings.Join(append(strings.Split(part(child, 2), ".")[:2], strings.Split(part(narrow, 1), ".")[2]), "."), []string{"signature_invalid"}},
			"no signature":                        {child[:strings.LastIndexByte(child, '.')+1], []string{"signature_invalid", "malformed"}},
			"the root's signature by another key": {strings.Join(append(strings.Split(root, ".")[:2], base64url(make([]byte, 64))), ".") + "~" + part(child, 1, 2), []string{"signature_invalid"}},
		}
		// A command for each takes a while.
		offline := []string{"another signer", "a wider parent", "the link under another root", "the last under another root", "order swapped", "a link twice", "a hop left out", "the parent's claims edited"}
		for name, row := range rows {
			if slices.Contains(offline, name) {
				c.invalidOffline(t, name, last, row.chain, row.reasons...)
				continue
			}
			c.invalidEverywhere(t, name, last, row.chain, row.reasons...)
		}
		// A chain that was cut is valid, for whom it was made: not for who cut it.
		for name, cut := range map[string]string{"to the root": root, "to the link": narrow} {
			wantProof(t, "cut "+name, c.shows(t, last, cut))
			wantOAuth(t, "cut "+name, c.trade(t, last, cut), 400, "invalid_request")
			if got := c.verdict(t, cut, c.Issuer+"/mcp"); got != "" {
				t.Errorf("cut %s: %s", name, got)
			}
		}
	}},
	{"A-102 links that say what they may not", func(t *testing.T, c *crew) {
		parent := c.handed(c.rev, set("scope", "kavach:verify"), set("aud", []string{c.Issuer + "/mcp"}), set("del_max_depth", 2))
		k2 := newEd25519()
		last := c.hand.holding(k2)
		later := func(claim string, n int64) change {
			return func(_, claims map[string]any) { claims[claim] = claims["exp"].(int64) + n }
		}
		for name, row := range map[string]struct {
			change change
			reason string
		}{
			"wider scope": {set("scope", "archive:read kavach:verify"), "not_narrower"}, "scope twice": {set("scope", "kavach:verify kavach:verify"), "malformed"}, "no scope": {set("scope", nil), "malformed"},
			"wider audience": {set("aud", []string{c.Issuer + "/mcp", archive}), "audience_widened"}, "another audience": {set("aud", archive), "audience_widened"}, "no audience": {set("aud", []string{}), "malformed"},
			"another principal": {set("sub", "root"), "principal_altered"}, "no principal": {set("sub", nil), "malformed"}, "lives longer": {later("exp", 1000), "outlives_parent"},
			"older than its parent": {set("iat", 1), "outlives_parent"}, "from tomorrow": {set("iat", 4102444800), "not_yet_valid"}, "nbf tomorrow": {set("nbf", 4102444800), "not_yet_valid"}, "ends before it begins": {later("iat", 1), "not_yet_valid"},
			"exp with a fraction": {set("exp", 4102444800.5), "malformed"}, "exp as text": {set("exp", "4102444800"), "malformed"}, "no exp": {set("exp", nil), "malformed"}, "exp null": {setNull("exp"), "malformed"},
			"a level left out": {set("del_depth", 3), "depth_invalid"}, "its parent's level": {set("del_depth", 1), "depth_invalid"}, "negative level": {set("del_depth", -1), "depth_invalid"}, "deeper": {set("del_max_depth", 3), "depth_invalid"},
			"no levels": {set("del_max_depth", nil), "depth_invalid"}, "another issuer": {set("iss", c.Issuer), "iss_mismatch"}, "no par_hash": {set("par_hash", nil), "malformed"}, "another par_hash": {set("par_hash", hashed("x")), "par_hash_mismatch"},
			"gid": {set("gid", "x"), "malformed"}, "anc": {set("anc", []string{}), "malformed"}, "may_act": {set("may_act", map[string]any{"sub": c.hand.ID}), "malformed"}, "status": {set("status", map[string]any{}), "malformed"},
			"the parent's jti": {set("jti", claim(parent, "jti")), "duplicate_jti"}, "no jti": {set("jti", nil), "malformed"}, "typ of a root": {setHeader("typ", "at+jwt"), "bad_typ"}, "typ JWT": {setHeader("typ", "JWT"), "bad_typ"}, "no typ": {setHeader("typ", nil), "bad_typ"},
			"alg none": {setHeader("alg", "none"), "alg_not_allowed"}, "alg EdDSA": {setHeader("alg", "EdDSA"), "alg_not_allowed"}, "alg HS256": {setHeader("alg", "HS256"), "alg_not_allowed"}, "alg ES256": {setHeader("alg", "ES256"), "alg_not_allowed"},
			"crit": {setHeader("crit", []string{"x"}), "malformed"}, "client_id with a space": {set("client_id", "a\nb"), "malformed"}, "the root's key again": {set("cnf", confirms(c.orch.Holder)), "key_reuse"}, "the parent's key again": {set("cnf", confirms(c.rev.Holder)), "key_reuse"},
		} {
			who := last
			if row.reason == "key_reuse" {
				who = c.rev
				if strings.HasPrefix(name, "the root") {
					who = c.orch
				}
			}
			c.invalidEverywhere(t, name, who, c.rev.Holder.link(parent, k2, last.ID, row.change), row.reason, "malformed")
		}
		sealed := c.handed(c.rev, set("del_max_depth", 1))
		c.invalidEverywhere(t, "below what is sealed", last, c.rev.Holder.link(sealed, k2, last.ID), "depth_invalid")
		c.invalidEverywhere(t, "below what is sealed, says it is not", last, c.rev.Holder.link(sealed, k2, last.ID, set("del_max_depth", 2)), "depth_invalid")
		chain, holder := c.root, c.orch.Holder
		for range 9 {
			next := newEd25519()
			chain, holder = holder.link(chain, next, last.ID, set("del_max_depth", 8)), next
		}
		wantProof(t, "ten tokens", c.shows(t, last.holding(holder), chain))
		if got := c.verdict(t, chain, c.Issuer+"/mcp"); !strings.HasPrefix(got, "too_large") {
			t.Errorf("ten tokens: %s", got)
		}
	}},
}

// confirms is the cnf of a link.
func confirms(k signingKey) map[string]any {
	return map[string]any{"jwk": k.jwk(), "jkt": k.thumbprint()}
}

// setNull makes a claim null.
func setNull(name string) change {
	return func(_, claims map[string]any) { claims[name] = nil }
}
