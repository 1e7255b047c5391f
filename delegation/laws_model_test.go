package delegation_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/delegation"
)

// A model of verification, written from delegation.md §3 to §6 and from nothing
// in the package. It reads tokens with encoding/json, never checks a signature
// (it is told who signed) and says which reason the verifier has to give.

// unsure is the model's answer where it does not know the grammar of something
// that a random edit has made.
const unsure delegation.Reason = "unsure"

// sheet is one token as the model sees it.
type sheet struct {
	header, claims object
	// by is who signed, an index of someHolders; to is whose key is in cnf.
	by, to int
	lid    string
	shape  delegation.Reason // of step 3

	iat, exp, depth, maxDepth int64
	nbf                       *int64
	sub                       string
	scopes, aud               []string
	tools                     worlds
	limits                    bounds
}

// bounds is a kavach_limits entry. there says that the token has one.
type bounds struct {
	there              bool
	resources, network []string
	size, calls        *int64
	audit              *bool
}

// What is known of someHolders, computed once.
var (
	holderJKT = each(someHolders, holder.jkt)
	holderJWK = each(someHolders, holder.jwk)
	holderOf  = func() map[string]int {
		m := map[string]int{}
		for i, jkt := range holderJKT {
			m[jkt] = i
		}
		return m
	}()
)

func each[T, U any](list []T, f func(T) U) []U {
	var out []U
	for _, one := range list {
		out = append(out, f(one))
	}
	return out
}

// decode is encoding/json with, for a text that it did not write itself, what
// it does not refuse: duplicate members, text that is not UTF-8, trailing data.
func decode(data []byte, edited bool) (object, bool) {
	if edited && (!utf8.Valid(data) || !json.Valid(data) || loneSurrogate.Match(data) || repeats(data)) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	m, ok := v.(object)
	return m, ok
}

// The edits below write no pair of surrogates, so one escape is a lone one.
var loneSurrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

func repeats(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	type level struct {
		names map[string]bool
		value bool // the next token is the value of a member
	}
	stack := []level{{}}
	for {
		token, err := d.Token()
		if err == io.EOF {
			return false
		}
		if err != nil {
			return true
		}
		top := &stack[len(stack)-1]
		name, isText := token.(string)
		if isText && top.names != nil && !top.value {
			if top.names[name] {
				return true
			}
			top.names[name], top.value = true, true
			continue
		}
		switch token {
		case json.Delim('{'):
			top.value = false
			stack = append(stack, level{names: map[string]bool{}})
		case json.Delim('['):
			top.value = false
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		default:
			top.value = false
		}
	}
}

// sheetOf reads a compact token. by is who really signed it; edited says that
// its claims are not as encoding/json or the package wrote them.
func sheetOf(token string, by int, root, edited bool) sheet {
	signed := token[:strings.LastIndexByte(token, '.')]
	head, payload, _ := strings.Cut(signed, ".")
	s := sheet{by: by, to: -1, lid: hash(signed), shape: delegation.Malformed}
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err == nil {
		s.header, _ = decode(text, false)
	}
	text, err = base64.RawURLEncoding.DecodeString(payload)
	if claims, ok := decode(text, edited); err == nil && ok {
		s.claims = claims
		s.shape = s.read(root)
	}
	return s
}

func integerOf(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok || n == "-0" || strings.ContainsAny(string(n), ".eE") {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	return i, err == nil && i <= 1<<53-1 && i >= -(1<<53-1)
}

var (
	scopeToken  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`)
	visible     = regexp.MustCompile(`^[ -~]+$`)
	digest      = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	notInLinks  = []string{"gid", "anc", "act", "status", "may_act"}
	mustBeThere = []string{"iss", "sub", "client_id", "aud", "iat", "exp", "jti", "scope", "authorization_details", "cnf"}
)

// read is step 3 and, for what the later steps need, their input.
func (s *sheet) read(root bool) delegation.Reason {
	_, chained := s.claims["del_depth"]
	plain := root && !chained // a plain token: what Exchange made, and no edit
	for _, name := range mustBeThere {
		if _, there := s.claims[name]; !there && !(plain && (name == "cnf" || name == "authorization_details")) {
			return delegation.Malformed
		}
	}
	s.depth, s.maxDepth = -1, -1
	for name, v := range s.claims {
		ok := true
		switch name {
		case "iss", "sub", "par_hash", "client_id", "jti":
			text, isText := v.(string)
			most := map[string]int{"client_id": 256, "jti": 128}[name]
			ok = isText && text != "" && len(text) <= max(most, 1024*(1-min(most, 1))) &&
				(most == 0 || visible.MatchString(text)) && !(root && name == "par_hash")
		case "iat":
			s.iat, ok = integerOf(v)
		case "exp":
			s.exp, ok = integerOf(v)
		case "nbf":
			var n int64
			n, ok = integerOf(v)
			s.nbf = &n
		case "del_depth":
			s.depth, ok = integerOf(v)
		case "del_max_depth":
			s.maxDepth, ok = integerOf(v)
		case "aud":
			s.aud, ok = audienceOf(v)
		case "scope":
			s.scopes, ok = scopesOf(v)
		case "cnf":
			s.to, ok = keyIn(v, plain)
		case "card":
			text, isText := v.(string)
			ok = root && v != nil || isText && digest.MatchString(text)
		default:
			ok = root && !(v == nil && slices.Contains(notInLinks, name)) || !root && !slices.Contains(notInLinks, name)
		}
		if !ok {
			return delegation.Malformed
		}
	}
	if _, there := s.claims["par_hash"]; !there && !root {
		return delegation.Malformed
	}
	s.sub, _ = s.claims["sub"].(string)
	if _, there := s.claims["authorization_details"]; !there {
		return "" // a plain token that is restricted by scope only
	}
	return s.details()
}

func audienceOf(v any) ([]string, bool) {
	if one, ok := v.(string); ok {
		return []string{one}, one != "" && len(one) <= 1024
	}
	list, ok := texts(v)
	for i, one := range list {
		if one == "" || slices.Contains(list[:i], one) {
			return nil, false
		}
	}
	return list, ok && len(list) > 0
}

func texts(v any) ([]string, bool) {
	list, ok := v.([]any)
	out := []string{}
	for _, one := range list {
		text, isText := one.(string)
		ok = ok && isText
		out = append(out, text)
	}
	return out, ok
}

func scopesOf(v any) ([]string, bool) {
	text, ok := v.(string)
	if !ok || text == "" {
		return nil, ok
	}
	list := strings.Split(text, " ")
	for i, scope := range list {
		if !scopeToken.MatchString(scope) || slices.Contains(list[:i], scope) {
			return nil, false
		}
	}
	return list, true
}

// keyIn knows the keys of someHolders alone: no random edit makes another key
// whose thumbprint it also makes.
func keyIn(v any, plain bool) (int, bool) {
	cnf, _ := v.(object)
	jkt, _ := cnf["jkt"].(string)
	i, known := holderOf[jkt]
	if plain {
		return i, known && len(cnf) == 1
	}
	return i, known && len(cnf) == 2 && same(cnf["jwk"], holderJWK[i])
}

func (s *sheet) details() delegation.Reason {
	list, ok := s.claims["authorization_details"].([]any)
	if !ok {
		return delegation.Malformed
	}
	result, doubt := fine, false
	for _, one := range list {
		entry, _ := one.(object)
		switch entry["type"] {
		case "attenuating_agent_token":
			tools, r := worldsOf(entry["tools"])
			if s.tools != nil || len(entry) != 2 {
				r = malformed
			}
			result = worse(result, r)
			s.tools = tools
		case "kavach_limits":
			limits, ok, known := boundsOf(entry)
			if s.limits.there || !ok {
				result = malformed
			}
			doubt = doubt || !known
			s.limits = limits
		default:
			result = malformed
		}
	}
	switch {
	case s.tools == nil || result == malformed:
		return delegation.Malformed
	case doubt:
		return unsure
	case result == unknownType:
		return delegation.UnknownConstraint
	}
	return ""
}

// boundsOf reads limits. known is false for entries of lists that are in none
// of the alphabets below: the model has no grammar of hosts.
func boundsOf(entry object) (b bounds, ok, known bool) {
	b.there, known = true, true
	count := func(v any, least int64) *int64 {
		n, isInteger := integerOf(v)
		if !isInteger || n < least {
			return nil
		}
		return &n
	}
	for name, v := range entry {
		ok = true
		switch name {
		case "type":
		case "resources", "allow_network":
			var list []string
			list, ok = texts(v)
			alphabet := someResources
			if name == "allow_network" {
				alphabet, b.network = someHosts, list
			} else {
				b.resources = list
			}
			for _, one := range list {
				if slices.Contains(badEntries, one) {
					return b, false, true
				}
				known = known && slices.Contains(alphabet, one)
			}
		case "max_file_size":
			b.size = count(v, 0)
			ok = b.size != nil
		case "max_calls":
			b.calls = count(v, 1)
			ok = b.calls != nil
		case "audit_required":
			truth, isTruth := v.(bool)
			b.audit, ok = &truth, isTruth
		default:
			ok = false
		}
		if !ok {
			return b, false, true
		}
	}
	return b, true, known
}

// badEntries are of no list.
var badEntries = []string{"/*", "*", "a/../b", "a//b", "pr/%38", "GIT.internal", "git.internal.", "127.1", "[::0001]", "git.internal:0"}

// under says what an entry of resources reaches, entries and ids alike.
func under(entry, id string) bool {
	if prefix, ok := strings.CutSuffix(entry, "/*"); ok {
		return len(id) > len(prefix)+1 && id[:len(prefix)+1] == prefix+"/"
	}
	return entry == id
}

// reaches says what an entry of allow_network reaches, entries and
// destinations alike.
func reaches(entry, target string) bool {
	cut := func(text string) (name, port string) {
		if at := strings.LastIndexByte(text, ':'); at > strings.LastIndexByte(text, ']') {
			return text[:at], text[at+1:]
		}
		return text, ""
	}
	name, port := cut(entry)
	to, toPort := cut(target)
	if port != "" && port != toPort {
		return false
	}
	if apex, ok := strings.CutPrefix(name, "*."); ok {
		return to == name || strings.HasSuffix(to, "."+apex) && to[0] != '['
	}
	return name == to
}

func someUnder(entries []string, id string, reach func(entry, id string) bool) bool {
	return slices.ContainsFunc(entries, func(entry string) bool { return reach(entry, id) })
}

// wider names the member in which a child is wider than its parent.
func (b bounds) wider(child bounds) string {
	lists := func(p, c []string, reach func(entry, id string) bool) bool {
		return p != nil && (c == nil || slices.ContainsFunc(c, func(one string) bool { return !someUnder(p, one, reach) }))
	}
	count := func(p, c *int64) bool { return p != nil && (c == nil || *c > *p) }
	switch {
	case lists(b.resources, child.resources, under):
		return delegation.DimensionResources
	case lists(b.network, child.network, reaches):
		return delegation.DimensionNetwork
	case count(b.size, child.size):
		return delegation.DimensionSize
	case count(b.calls, child.calls):
		return delegation.DimensionCalls
	case b.audit != nil && (child.audit == nil || *b.audit && !*child.audit):
		return delegation.DimensionAudit
	}
	return ""
}

func within(list, of []string) bool {
	return !slices.ContainsFunc(list, func(one string) bool { return !slices.Contains(of, one) })
}
