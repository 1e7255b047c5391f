package delegation_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// edits of one link, each by the hand that may sign it. The model reads the
// outcome; none of them has a verdict written beside it.
var edits = []struct {
	name string
	edit func(f *forest, n *node, link *forged)
}{
	{"drop", func(f *forest, _ *node, link *forged) { link.claims[pick(f.r, sortedKeys(link.claims))] = drop }},
	{"null", func(f *forest, _ *node, link *forged) { link.claims[pick(f.r, sortedKeys(link.claims))] = nil }},
	{"type", func(f *forest, _ *node, link *forged) {
		link.claims[pick(f.r, sortedKeys(link.claims))] = pick(f.r, []any{true, "", "0", json.Number("1.0"), json.Number("1e0"), json.Number("-0"),
			json.Number("9007199254740993"), -1, []any{}, object{}, []any{1}, strings.Repeat("x", 1025)})
	}},
	{"unknown", func(f *forest, _ *node, link *forged) {
		link.claims[pick(f.r, []string{"gid", "anc", "act", "status", "may_act", "Sub", "SCOPE", "Aud", "Exp", "hops", "card", "note"})] =
			pick(f.r, []any{"x", nil, object{}, []any{"x"}, someAudiences, strings.Join(someScopes, " "), now.Unix() + 3000})
	}},
	{"copied", func(f *forest, n *node, link *forged) { // a claim of some ancestor
		name := pick(f.r, []string{"jti", "iss", "sub", "aud", "iat", "exp", "scope", "cnf", "par_hash", "del_depth", "del_max_depth", "authorization_details"})
		if v, there := pick(f.r, n.sheets).claims[name]; there {
			link.claims[name] = v
		}
	}},
	{"iat", func(f *forest, n *node, link *forged) {
		link.claims["iat"] = pick(f.r, []int64{now.Unix() + 30, now.Unix() + 31, n.leaf().iat - 1, n.leaf().iat, n.leaf().exp, now.Unix() - 4000})
	}},
	{"exp", func(f *forest, n *node, link *forged) {
		link.claims["exp"] = pick(f.r, []int64{now.Unix(), now.Unix() + 1, n.leaf().exp + 1, n.leaf().exp, n.leaf().iat, now.Unix() - 1})
	}},
	{"nbf", func(f *forest, n *node, link *forged) {
		link.claims["nbf"] = pick(f.r, []any{now.Unix() + 30, now.Unix() + 31, n.leaf().exp, n.leaf().exp + 1, 0, "0", nil, -5})
	}},
	{"depth", func(f *forest, n *node, link *forged) {
		link.claims[pick(f.r, []string{"del_depth", "del_max_depth"})] = n.leaf().depth + int64(f.r.IntN(4)) - 1
	}},
	{"max depth", func(f *forest, n *node, link *forged) { link.claims["del_max_depth"] = n.leaf().maxDepth + 1 }},
	{"sub", func(f *forest, n *node, link *forged) {
		link.claims["sub"] = pick(f.r, []string{n.leaf().sub + " ", strings.ToUpper(n.leaf().sub), "ａ"})
	}},
	{"aud", func(f *forest, n *node, link *forged) {
		link.claims["aud"] = pick(f.r, []any{gitHost, gitHost + "/", []string{gitHost, gitHost}, []string{}, someAudiences, []string{""}, strings.ToUpper(gitHost)})
	}},
	{"scope", func(f *forest, n *node, link *forged) {
		link.claims["scope"] = pick(f.r, []string{"", "repository:read repository:read", "repository:read  repository:write", " repository:read", "*", "repository:*",
			"repository:Read", "repository", strings.Join(someScopes, " ")})
	}},
	{"jti", func(f *forest, n *node, link *forged) {
		link.claims["jti"] = pick(f.r, []string{"é", strings.Repeat("j", 128), strings.Repeat("j", 129), "\x7f", " "})
	}},
	{"client", func(f *forest, n *node, link *forged) {
		link.claims["client_id"] = pick(f.r, []string{"é", strings.Repeat("c", 256), strings.Repeat("c", 257), "a\nb"})
	}},
	{"cnf", func(f *forest, n *node, link *forged) {
		other := f.r.IntN(len(someHolders))
		jwk := object{"d": b64(make([]byte, 32))}
		for name, v := range holderJWK[other] {
			jwk[name] = v
		}
		link.claims["cnf"] = pick(f.r, []any{
			object{"jwk": holderJWK[other], "jkt": holderJKT[(other+1)%len(someHolders)]},
			object{"jwk": holderJWK[other], "jkt": holderJKT[other], "kid": "k"},
			object{"jwk": jwk, "jkt": holderJKT[other]}, object{"jkt": holderJKT[other]}, object{"jwk": holderJWK[other]},
			object{"jwk": holderJWK[other], "jkt": holderJKT[other]},
		})
	}},
	{"details", func(f *forest, n *node, link *forged) {
		list, _ := link.claims["authorization_details"].([]any)
		if list = slices.Clone(list); len(list) == 0 {
			return // another edit was here
		}
		switch f.r.IntN(6) {
		case 0:
			list = append(list, list[0])
		case 1:
			list = list[1:]
		case 2:
			list = append(list, object{"type": "payment_initiation"})
		case 3:
			list = append(list, object{"type": "kavach_limits", pick(f.r, []string{"note", "max_files", "resources"}): nil})
		case 4:
			list = append(list, object{"type": "kavach_limits", "allow_network": []string{pick(f.r, badEntries)}})
		case 5:
			list = append(list, object{"type": "kavach_limits", "resources": []string{pick(f.r, badEntries[:5])}})
		}
		link.claims["authorization_details"] = list
	}},
	{"spoilt", func(f *forest, n *node, link *forged) {
		c := someRule(f.r, 1)
		spoil(f.r, c)
		link.claims["authorization_details"] = detailsOf(object{pick(f.r, someTools): object{pick(f.r, someArguments): c}}, nil)
	}},
	{"header", func(f *forest, n *node, link *forged) {
		h := pick(f.r, []object{
			{"typ": "at+jwt"}, {"typ": "AAT+JWT"}, {"typ": "application/aat+jwt"}, {"typ": "dpop+jwt"}, {"typ": "aat-pop+jwt"}, {"typ": drop}, {"typ": nil},
			{"alg": "none"}, {"alg": "EdDSA"}, {"alg": "HS256"}, {"alg": "RS256"}, {"alg": "ES256"}, {"alg": "Ed25519"}, {"alg": drop},
			{"kid": "at-ed"}, {"jwk": holderJWK[0]}, {"x5c": []string{"x"}}, {"crit": []string{"exp"}}, {"b64": true},
		})
		*link = link.under(h)
	}},
}

func (f *forest) editClaims(n *node) {
	link := f.child(n)
	// Several, so that the order of the steps shows.
	for range 1 + max(f.r.IntN(5)-2, 0) {
		e := edits[f.r.IntN(len(edits))]
		f.saw("edit/" + e.name)
		e.edit(f, n, &link)
	}
	f.signed(n, link, n.leaf().to)
}

// oneByte changes one byte of a chain that is accepted.
func (f *forest) oneByte(n *node) {
	text := []byte(n.text)
	at, to := f.r.IntN(len(text)), byte(f.r.IntN(256))
	if !rarely(f.r, 3) { // one that a token may have
		to = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"[f.r.IntN(66)]
	}
	if text[at] == to {
		to ^= 1
	}
	text[at] = to
	f.judged = n.sheets
	if _, err := f.warm.Verify(string(text), now); err == nil {
		broken("any byte changed → refused", "byte %d to %q: with the cache it verifies", at, to)
	}
	if _, err := f.cold.Verify(string(text), now); err == nil {
		broken("any byte changed → refused", "byte %d to %q: it verifies", at, to)
	}
	f.saw("refused/a byte")
}

// oneText edits the JSON of a link before the right key signs it.
func (f *forest) oneText(n *node) {
	link := f.child(n)
	link.payload = func(payload string) string {
		at := f.r.IntN(len(payload))
		switch f.r.IntN(10) {
		case 0: // one character
			to := pick(f.r, []byte(`"{}[]:,0123456789abet.-~\u`))
			if payload[at] == to {
				to = '!'
			}
			return payload[:at] + string(to) + payload[at+1:]
		case 1:
			return payload[:at] + payload[at+1:]
		case 2: // a copy of a member that stands there
			name := pick(f.r, sortedKeys(link.claims))
			value, _ := json.Marshal(link.claims[name])
			if value == nil || link.claims[name] == any(drop) {
				return payload
			}
			return `{"` + name + `":` + string(value) + "," + payload[1:]
		case 3: // the same text, written another way
			return strings.NewReplacer(`"scope"`, `"sco\u0070e"`, ":", " : ", ",", ",\n").Replace(payload)
		case 4: // the same number, written another way
			return strings.Replace(payload, `"del_depth":`, `"del_depth":`+pick(f.r, []string{"-", "0", "1", ""}), 1)
		case 5:
			return payload + pick(f.r, []string{" ", "\n", "{}", "x", "\x00", ","})
		case 6:
			return payload[:at] + pick(f.r, []string{"\xff", "\x00", "\t", "é", `\ud800`, "\xed\xa0\x80"}) + payload[at:]
		case 7:
			return strings.Replace(payload, pick(f.r, []string{`"min":`, `"value":`, `"max":`, `"iat":`, `"exp":`}), pick(f.r, []string{`"max":`, `"min":1,"min":`, `"x":`}), 1)
		case 8: // the same character, written another way
			return payload[:at] + fmt.Sprintf(`\u%04x`, payload[at]) + payload[at+1:]
		}
		return strings.Repeat("[", 97) + payload
	}
	f.signed(n, link, n.leaf().to)
}

// restructure makes a chain of the tokens of one or two others.
func (f *forest) restructure(n *node) {
	r := f.r
	texts, sheets := strings.Split(n.text, "~"), slices.Clone(n.sheets)
	at, to := r.IntN(len(texts)), r.IntN(len(texts))
	switch kind := r.IntN(8); kind {
	case 0: // skipped
		texts, sheets = slices.Delete(texts, at, at+1), slices.Delete(sheets, at, at+1)
	case 1: // duplicated
		texts, sheets = slices.Insert(texts, to, texts[at]), slices.Insert(sheets, to, sheets[at])
	case 2: // reordered
		texts[at], texts[to], sheets[at], sheets[to] = texts[to], texts[at], sheets[to], sheets[at]
	case 3: // truncated, which is a chain of its own
		texts, sheets = texts[:at+1], sheets[:at+1]
	case 4: // suffix alone
		texts, sheets = texts[at:], sheets[at:]
	case 5: // spliced below another parent
		other := pick(r, f.nodes)
		if other.plain {
			return
		}
		cut := r.IntN(len(other.sheets))
		texts = append(texts[:at+1:at+1], strings.Split(other.text, "~")[cut:]...)
		sheets = append(sheets[:at+1:at+1], other.sheets[cut:]...)
	case 6: // more than there may be
		for len(texts) < 10 {
			texts, sheets = append(texts, texts[at]), append(sheets, sheets[at])
		}
	case 7: // what is no chain at all
		text := pick(r, []string{"~" + n.text, n.text + "~", n.text + "~" + texts[at] + ".", "", ".", strings.Replace(n.text, "~", "~~", 1) + "~",
			strings.Replace(n.text, "~", " ", 1) + " ", n.text + "\n", n.text + "~.."})
		f.judged = n.sheets
		for _, v := range f.both() {
			if _, err := v.Verify(text, now); err == nil {
				broken("a chain is compact tokens and ~", "%q verifies", text)
			}
		}
		return
	}
	if len(texts) == 0 {
		return
	}
	f.judge(strings.Join(texts, "~"), sheets, nil)
}

// otherTime looks at a chain at another time of day.
func (f *forest) otherTime(n *node) {
	at := now.Add(time.Duration(f.r.IntN(700)-320) * time.Second)
	if rarely(f.r, 2) { // or at an edge
		s := pick(f.r, n.sheets)
		at = time.Unix(pick(f.r, []int64{s.exp, s.exp - 1, s.iat - 30, s.iat - 31}), 0)
	}
	f.judged = n.sheets
	want, part := verdict(n.sheets, at.Unix())
	for _, v := range f.both() {
		_, err := v.Verify(n.text, at)
		f.compare(want, part, err)
	}
	f.saw("reason/" + string(want))
}

// Keys that the server may come to have instead of its own.
var (
	theAnchors   = delegation.AnchorSet(anchorOf(serverKey.KID, server), anchorOf("at-es", serverES))
	otherAnchors = []struct {
		anchors func(kid string) (delegation.Anchor, bool)
		reason  delegation.Reason
	}{
		{delegation.AnchorSet(), delegation.UnknownRoot},
		{delegation.AnchorSet(anchorOf(serverKey.KID, ed("another server"))), delegation.SignatureInvalid},
		{delegation.AnchorSet(anchorOf(serverKey.KID, p256("another server"))), delegation.AlgNotAllowed},
	}
)

func anchorOf(kid string, h holder) delegation.Anchor {
	anchor, err := delegation.NewAnchor(kid, h.signer.Public())
	if err != nil {
		panic(err)
	}
	return anchor
}

// otherAnchors changes the keys of the server, looks at a chain, and changes
// them back.
func (f *forest) otherAnchors(n *node) {
	other := pick(f.r, otherAnchors)
	if n.sheets[0].by != byServer {
		other = otherAnchors[0]
	}
	f.judged, f.anchors = n.sheets, other.anchors
	for _, v := range f.both() {
		_, err := v.Verify(n.text, now)
		f.compare(other.reason, 0, err)
	}
	f.anchors = theAnchors
	for _, v := range f.both() {
		_, err := v.Verify(n.text, now)
		f.compare("", -1, err)
	}
}
