package delegation_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// forest grows random chains and holds every step to the laws. Each case is one
// credential: a link below a chain that stands already, or a chain tampered
// with, or what an exchange made of one.
type forest struct {
	r     chance
	count map[string]int
	// warm has a cache, cold has none: they have to agree.
	warm, cold *delegation.Verifier
	nodes      []*node
	serial     int

	// anchors are the keys of the server that both know now.
	anchors func(kid string) (delegation.Anchor, bool)
	// judged is the credential that is being judged, for who has to look at a
	// violation.
	judged []sheet
}

// node is a chain that the verifier accepted.
type node struct {
	text   string
	sheets []sheet
	chain  *delegation.Chain
	parent *node
	// plain tokens come out of exchanges, and go into them alone.
	plain bool
}

func (n *node) leaf() *sheet { return &n.sheets[len(n.sheets)-1] }

// violation is what the laws panic with. Everything else that panics is one as
// well: verify never panics.
type violation struct{ law, what string }

func broken(law, format string, args ...any) { panic(violation{law, fmt.Sprintf(format, args...)}) }

func (f *forest) saw(kind string) { f.count[kind]++ }

// operations of a step, with their weights. The first is what everything
// shrinks to.
var operations = []struct {
	name   string
	weight int
	run    func(*forest, *node)
}{
	{"narrow", 40, (*forest).narrow},
	{"derive", 14, (*forest).derive},
	{"unrelated", 4, (*forest).unrelated},
	{"wrong key", 4, (*forest).wrongKey},
	{"claims", 14, (*forest).editClaims},
	{"byte", 8, (*forest).oneByte},
	{"text", 12, (*forest).oneText},
	{"structure", 7, (*forest).restructure},
	{"time", 4, (*forest).otherTime},
	{"exchange", 7, (*forest).exchange},
	{"anchors", 2, (*forest).otherAnchors},
	{"root", 2, func(f *forest, _ *node) { f.root() }},
}

var totalWeight = func() (sum int) {
	for _, o := range operations {
		sum += o.weight
	}
	return sum
}()

// grow runs the steps of one forest.
func (f *forest) grow(steps int) {
	f.root()
	for range steps {
		if rarely(f.r, 4) {
			f.pair()
			f.toolPair()
		}
		if len(f.nodes) == 0 {
			f.root()
			continue
		}
		n := f.choose()
		if n.plain {
			f.saw("op/exchange")
			f.exchange(n)
			continue
		}
		i, left := 0, f.r.IntN(totalWeight)
		for left >= operations[i].weight {
			left -= operations[i].weight
			i++
		}
		f.saw("op/" + operations[i].name)
		operations[i].run(f, n)
	}
}

// choose takes a young node, mostly the longest of three, so that chains get
// long.
func (f *forest) choose() *node {
	n := f.nodes[max(len(f.nodes)-1-f.r.IntN(5), 0)]
	if rarely(f.r, 4) {
		return pick(f.r, f.nodes)
	}
	for range 2 {
		if other := pick(f.r, f.nodes); len(other.sheets) > len(n.sheets) && other.leaf().depth < other.leaf().maxDepth {
			n = other
		}
	}
	return n
}

func (f *forest) jti() string {
	f.serial++
	return fmt.Sprintf("jti-%d", f.serial)
}

// root forges a root, mostly a good one.
func (f *forest) root() {
	r := f.r
	f.saw("op/root")
	kind := "at+jwt"
	if rarely(r, 5) {
		kind = "aat+jwt"
	}
	to := r.IntN(len(someHolders))
	token := rootToken().under(object{"typ": kind}).with(object{
		"sub": pick(r, somePeople), "client_id": pick(r, somePeople), "jti": f.jti(),
		"aud": append(subsetOf(r, someAudiences[1:]), gitHost),
		"cnf": object{"jwk": holderJWK[to], "jkt": holderJKT[to]}, "scope": strings.Join(someScopes[:len(someScopes)-r.IntN(2)], " "),
		"authorization_details": detailsOf(someToolMap(r), someLimitMap(r)), "del_max_depth": 8 - max(r.IntN(24)-16, 0),
	})
	if rarely(r, 30) {
		token = token.with(pick(r, []object{
			{"del_max_depth": 9}, {"exp": now.Unix() + 3600}, {"iss": issuer + "/"}, {"iat": now.Unix() + 31},
			{"exp": now.Unix()}, {"nbf": now.Unix() + 31}, {"exp": now.Unix() + 3590},
		}))
	}
	by := byServer
	if rarely(r, 4) {
		by, token = byServerES, token.signedBy(serverES).under(object{"kid": "at-es"})
		if rarely(r, 20) {
			token = token.under(pick(r, []object{{"kid": "at-ed"}, {"alg": "Ed25519"}, {"alg": "Ed25519", "kid": "at-ed"}, {"kid": "rv-es"}, {"kid": nil}}))
		}
	}
	text := token.String()
	f.judge(text, []sheet{sheetOf(text, by, true, false)}, nil)
}

func detailsOf(tools, limits object) []any {
	list := []any{object{"type": "attenuating_agent_token", "tools": tools}}
	if limits != nil {
		limits["type"] = "kavach_limits"
		list = append(list, limits)
	}
	return list
}

// entry finds an entry of the details of a token, as it was written.
func (s *sheet) entry(kind string) object {
	list, _ := s.claims["authorization_details"].([]any)
	for _, one := range list {
		if entry, ok := one.(object); ok && entry["type"] == kind {
			return entry
		}
	}
	return nil
}

func (s *sheet) toolMap() object {
	m, _ := s.entry("attenuating_agent_token")["tools"].(object)
	return m
}

func someLimitMap(r chance) object {
	if rarely(r, 4) {
		return nil
	}
	l := object{}
	if !rarely(r, 2) {
		l["resources"] = subsetOf(r, someResources)
	}
	if rarely(r, 2) {
		l["allow_network"] = subsetOf(r, someHosts)
	}
	if rarely(r, 2) {
		l["max_file_size"] = pick(r, someSizes)
	}
	if rarely(r, 5) {
		l["max_calls"] = 1 + r.IntN(3)
	}
	if rarely(r, 2) {
		l["audit_required"] = rarely(r, 2)
	}
	return l
}

// nearLimits draws the limits of a child: mostly equal or tighter.
func nearLimits(r chance, parent object) object {
	if parent == nil {
		if rarely(r, 4) {
			return someLimitMap(r)
		}
		return nil
	}
	if rarely(r, 25) {
		return nil
	}
	l := maps.Clone(parent)
	for _, name := range []string{"resources", "allow_network"} {
		list, there := l[name].([]any)
		switch {
		case there && rarely(r, 3):
			alphabet := someResources
			if name == "allow_network" {
				alphabet = someHosts
			}
			keep := subsetOf(r, list)
			for range 1 + r.IntN(2) {
				if one := pick(r, alphabet); !slices.Contains(keep, any(one)) {
					keep = append(keep, one)
				}
			}
			l[name] = keep
		case there && rarely(r, 3):
			l[name] = subsetOf(r, list)
		}
	}
	if l["max_file_size"] != nil && rarely(r, 2) || rarely(r, 12) {
		l["max_file_size"] = pick(r, someSizes)
	}
	if l["max_calls"] != nil && rarely(r, 2) || rarely(r, 25) {
		l["max_calls"] = 1 + r.IntN(3)
	}
	if l["audit_required"] != nil && rarely(r, 3) || rarely(r, 12) {
		l["audit_required"] = !rarely(r, 4)
	}
	if rarely(r, 25) && len(l) > 1 {
		delete(l, pick(r, sortedKeys(l)))
	}
	return l
}

// child forges a link below a node that narrows, or nearly.
func (f *forest) child(n *node) forged {
	r, p := f.r, n.leaf()
	by := someHolders[p.to]
	to := r.IntN(len(someHolders))
	for range someHolders { // mostly a key that is not in the chain yet
		if !slices.ContainsFunc(n.sheets, func(s sheet) bool { return s.to == to }) || rarely(r, 40) {
			break
		}
		to = (to + 1) % len(someHolders)
	}
	scopes := p.scopes
	if rarely(r, 3) {
		scopes = subsetOf(r, scopes)
	}
	aud := p.aud
	if rarely(r, 4) {
		aud = aud[r.IntN(len(aud)):]
	}
	most := p.maxDepth
	if rarely(r, 12) {
		most = p.depth + 1 + int64(r.IntN(3))
	}
	limits := p.entry("kavach_limits")
	return forged{by: by, header: object{"alg": by.alg, "typ": "aat+jwt"}, claims: object{
		"iss": "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + holderJKT[p.to], "sub": p.sub, "client_id": pick(r, somePeople),
		"aud": aud, "iat": p.iat + int64(r.IntN(3)), "exp": p.exp - int64(r.IntN(3)), "jti": f.jti(),
		"scope": strings.Join(scopes, " "), "authorization_details": detailsOf(nearTools(r, p.toolMap()), nearLimits(r, limits)),
		"cnf": object{"jwk": holderJWK[to], "jkt": holderJKT[to]}, "del_depth": p.depth + 1, "del_max_depth": most, "par_hash": p.lid,
	}}
}

// signed judges a forged link below a node.
func (f *forest) signed(n *node, link forged, by int) {
	text := link.String()
	f.judge(n.text+"~"+text, append(slices.Clone(n.sheets), sheetOf(text, by, false, link.payload != nil)), n)
}

func (f *forest) narrow(n *node) { f.signed(n, f.child(n), n.leaf().to) }

// unrelated says something of its own, with no look at the parent.
func (f *forest) unrelated(n *node) {
	link := f.child(n).with(object{
		"authorization_details": detailsOf(someToolMap(f.r), someLimitMap(f.r)),
		"scope":                 strings.Join(subsetOf(f.r, someScopes), " "), "aud": append(subsetOf(f.r, someAudiences[1:]), gitHost),
	})
	f.signed(n, link, n.leaf().to)
}

func (f *forest) wrongKey(n *node) {
	by := f.r.IntN(len(someHolders))
	link := f.child(n)
	link.by = someHolders[by]
	if rarely(f.r, 2) {
		link = link.signedBy(link.by)
	}
	f.signed(n, link, by)
}

// derive lets the package make the link: what Derive makes verifies.
func (f *forest) derive(n *node) {
	link := f.child(n).claims
	p := n.leaf()
	to := holderOf[link["cnf"].(object)["jkt"].(string)]
	narrow := delegation.Narrow{ClientID: link["client_id"].(string), Scopes: strings.Fields(link["scope"].(string))}
	details, _ := json.Marshal(link["authorization_details"])
	if !rarely(f.r, 3) {
		tools, limits, err := delegation.ParseDetails(details)
		if err != nil {
			f.saw("derive/not parsed")
			return // a malformed constraint; judge has those
		}
		narrow.Tools, narrow.Limits = tools, limits
	}
	if rarely(f.r, 4) {
		narrow.Audience = link["aud"].([]string)
	}
	if rarely(f.r, 4) {
		left := f.r.IntN(3)
		narrow.MaxDepth = &left
	}
	if rarely(f.r, 20) {
		to = f.r.IntN(len(someHolders))
	}
	derived, err := delegation.Derive(n.text, holderPrivate[p.to], holderPublic[to], narrow, now)
	if err != nil {
		f.saw("derive/refused " + string(delegation.ReasonOf(err)))
		if !delegation.ReasonOf(err).Known() {
			broken("a refusal has a reason", "Derive: %v", err)
		}
		return
	}
	f.saw("derive/made")
	f.judged = append(slices.Clone(n.sheets), sheetOf(derived.Chain[len(n.text)+1:], p.to, false, false))
	if reason, at := verdict(f.judged, now.Unix()); reason != "" && reason != unsure {
		broken("derive ∘ verify = ok", "the model refuses what Derive made: %s at %d", reason, at)
	}
	f.judge(derived.Chain, f.judged, n)
}

var (
	holderPrivate = each(someHolders, holder.private)
	holderPublic  = each(someHolders, holder.public)
)
