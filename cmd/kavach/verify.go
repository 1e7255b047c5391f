package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/wellknown"
)

// verifyCmd verifies offline: the keys come from a file, and what needs a
// server is listed as unchecked.
type verifyCmd struct {
	Token     string   `arg:"" placeholder:"FILE" help:"File with the token or chain; - is standard input."`
	JWKS      string   `name:"jwks" required:"" placeholder:"FILE" help:"The issuer's key set, saved from ISSUER/.well-known/jwks.json."`
	Issuer    string   `required:"" placeholder:"URL" help:"Whose tokens are accepted."`
	Audience  string   `required:"" placeholder:"URL" help:"The resource server it must be for."`
	Scope     string   `placeholder:"SCOPES" help:"Ask whether it allows an action that needs all of these, separated by spaces."`
	Tool      string   `placeholder:"NAME" help:"… that calls this tool."`
	Arguments string   `placeholder:"JSON" help:"… with these arguments, an object (none)."`
	Resource  string   `placeholder:"ID" help:"… on this resource."`
	Host      string   `placeholder:"HOST[:PORT]" help:"… that connects to this host."`
	Size      string   `placeholder:"N" help:"… that reads or writes this many bytes (5MB, 5MiB)."`
	Proof     string   `placeholder:"FILE" help:"File with the proof that came with it, DPoP or AAT; - is standard input."`
	Method    string   `placeholder:"METHOD" help:"… a DPoP proof, which must be for a request of this method."`
	URL       string   `name:"url" placeholder:"URL" help:"… and for this URL. An AAT proof must be for --tool and --arguments."`
	Feed      string   `name:"revocations" placeholder:"FILE" help:"The issuer's revocation feed, saved from ISSUER/revocations within the last minute."`
	Without   []string `sep:"," enum:"network,size" placeholder:"DIMENSION" help:"… that opens no connection (network) or moves no bytes (size); repeatable. What is restricted and neither given nor named here is refused."`
	jsonFlag
}

func (c *verifyCmd) Run(w *world) error {
	if err := onceStdin(c.Token, c.JWKS, c.Proof, c.Feed); err != nil {
		return err
	}
	if err := c.checkProof(); err != nil {
		return err
	}
	request, asked, err := c.request()
	if err != nil {
		return err
	}
	token, err := w.readLine(c.Token)
	if err != nil {
		return err
	}
	proof := ""
	if c.Proof != "" {
		if proof, err = w.readLine(c.Proof); err != nil {
			return err
		}
	}
	keys, err := c.keySet(w)
	if err != nil {
		return err
	}
	anchors, err := c.anchors(keys)
	if err != nil {
		return err
	}
	v := verdict{now: w.now(), unchecked: []string{"revocation"}}
	if c.Feed != "" {
		if v.feed, err = c.feed(w, keys, v.now); err != nil {
			return err
		}
		v.unchecked = []string{}
	}
	v.judge(&delegation.Verifier{Issuer: c.Issuer, Anchors: anchors}, c.Audience,
		delegation.Shown{Token: token, Proof: proof, Method: c.Method, URL: c.URL, Audience: c.Audience, Call: request.Tool, Now: v.now})
	if asked && v.chain != nil {
		v.decide(request)
	} else {
		v.unchecked = append(v.unchecked, "request")
	}
	slices.Sort(v.unchecked)
	if c.JSON {
		err = w.printJSON(v.content())
	} else {
		err = v.print(w)
	}
	switch {
	case err != nil:
		return err
	case v.refusal != nil && c.JSON:
		return &silentError{v.refusal}
	case v.refusal != nil && strings.HasPrefix(v.refusal.Detail, "unhandled:"):
		return withHint(v.refusal, "say what the request does there: --tool, --resource, --host, --size, or --without network,size")
	case v.refusal != nil && v.refusal.Reason == delegation.NeedsCounter:
		return withHint(v.refusal, "everything else allows it: how many calls are left is known where they are counted, at the resource server")
	case v.refusal != nil:
		return v.refusal
	}
	return nil
}

// checkProof checks the flags about the proof of possession, and puts the method
// into the spelling of a request.
func (c *verifyCmd) checkProof() (err error) {
	if c.Proof == "" && (c.Method != "" || c.URL != "") {
		return usagef("", "--method and --url say what --proof must be for")
	}
	if c.Method != "" {
		if c.Method, err = checkMethod(c.Method); err != nil {
			return err
		}
	}
	if c.URL != "" {
		return checkHTTP("--url", c.URL)
	}
	return nil
}

// request puts together what is asked about.
func (c *verifyCmd) request() (r delegation.Request, asked bool, err error) {
	r.Scope = delegation.NoScope()
	if c.Scope != "" {
		r.Scope, asked = delegation.AllOf(words(c.Scope)...), true
	}
	if c.Arguments != "" && c.Tool == "" {
		return r, false, usagef("", "--arguments needs --tool")
	}
	if c.Tool != "" {
		arguments, err := jcs.Parse([]byte(cmp.Or(c.Arguments, "{}")), jcs.Limits{})
		if err != nil || arguments.Kind() != jcs.Object {
			return r, false, usagef(`write it like '{"pull": 847}'`, "--arguments is not an object in strict JSON")
		}
		r.Tool, asked = delegation.Given(delegation.Call{Name: c.Tool, Arguments: arguments}), true
	}
	if c.Resource != "" {
		r.Resource, asked = delegation.Given(c.Resource), true
	}
	if c.Host != "" {
		r.Network, asked = delegation.Given(c.Host), true
	}
	if c.Size != "" {
		n, err := parseSize(c.Size)
		if err != nil {
			return r, false, usage(err, "")
		}
		r.Size, asked = delegation.Given(n), true
	}
	for _, dimension := range c.Without {
		asked = true
		switch {
		case dimension == "network" && c.Host == "":
			r.Network = delegation.None[string]()
		case dimension == "size" && c.Size == "":
			r.Size = delegation.None[int64]()
		default:
			return r, false, usagef("", "--without %s contradicts the flag that gives it", dimension)
		}
	}
	return r, asked, nil
}

// keySet reads the issuer's keys.
func (c *verifyCmd) keySet(w *world) ([]wellknown.Key, error) {
	data, err := w.read(c.JWKS)
	if err != nil {
		return nil, err
	}
	keys, err := wellknown.ParseJWKS(data)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the key set %s: %w", c.JWKS, err), "save it from ISSUER/.well-known/jwks.json")
	}
	return keys, nil
}

// anchors reads the key set. Keys of other purposes are left out: a chain
// anchor is a key whose kid starts with at-.
func (c *verifyCmd) anchors(keys []wellknown.Key) (func(string) (delegation.Anchor, bool), error) {
	var set []delegation.Anchor
	for _, k := range keys {
		if a, err := delegation.NewAnchor(k.KID, k.Public); err == nil && a.Alg() == k.Alg {
			set = append(set, a)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("the key set %s holds no key for access tokens", c.JWKS)
	}
	return delegation.AnchorSet(set...), nil
}

// verdict is what came of verifying.
type verdict struct {
	now       time.Time
	chain     *delegation.Chain // nil if the token itself was refused
	refusal   *delegation.Refusal
	valid     bool
	allowed   *bool
	unchecked []string
	feed      *delegation.Feed // nil without
}

// judge runs steps 0 to 15 of delegation.md §6 on a token, shown.Token. Without
// a feed 15 cannot be decided here and stays unchecked, and so does 14 as far as
// nothing is at hand for it.
func (v *verdict) judge(verifier *delegation.Verifier, audience string, shown delegation.Shown) {
	chain, err := verifier.Verify(shown.Token, v.now)
	if err != nil {
		v.unchecked = append(v.unchecked, "proof")
		v.refuse(err)
		return
	}
	v.chain = chain
	// "only ISSUER/mcp and ISSUER/api take a token that names several"
	check := chain.For
	if audience == verifier.Issuer+"/mcp" || audience == verifier.Issuer+"/api" {
		check = chain.ForAmong
	}
	if err := check(audience); err != nil {
		if chain.Bound() {
			v.unchecked = append(v.unchecked, "proof")
		}
		v.refuse(err)
		return
	}
	unchecked, err := chain.CheckProof(shown)
	v.unchecked = append(v.unchecked, unchecked...)
	if err != nil {
		v.refuse(err)
		return
	}
	if v.feed.Revokes(chain) {
		v.refuse(&delegation.Refusal{Reason: delegation.Revoked, Part: -1})
		return
	}
	v.valid = true
}

// decide is step 16.
func (v *verdict) decide(request delegation.Request) {
	allowed := v.valid
	if v.valid {
		if err := v.chain.Allows(request); err != nil {
			allowed = false
			errors.As(err, &v.refusal)
		}
	}
	v.allowed = &allowed
}

// refuse notes why the token is not valid.
func (v *verdict) refuse(err error) {
	v.valid = false
	if !errors.As(err, &v.refusal) {
		v.refusal = &delegation.Refusal{Reason: delegation.Malformed, Part: -1}
	}
}

// content is the verdict as the MCP tool verify answers it.
func (v *verdict) content() map[string]any {
	m := map[string]any{"valid": v.valid, "unchecked": v.unchecked}
	if v.allowed != nil {
		m["allowed"] = *v.allowed
	}
	if v.refusal != nil {
		m["reason"] = string(v.refusal.Reason)
		if detail := v.refusal.Detail; detail != "" {
			m["detail"] = detail
		} else if v.refusal.Dimension != "" {
			m["detail"] = v.refusal.Dimension
		}
	}
	if v.chain == nil {
		return m
	}
	links := []map[string]any{}
	for _, l := range v.chain.Links() {
		links = append(links, map[string]any{
			"token_id": l.LID, "client_id": l.ClientID, "confirmed": l.Confirmed,
			"scopes": l.Scopes, "expires_in": secondsLeft(l.Expires, v.now),
		})
	}
	constraints := v.chain.Limits().Map()
	if tools := v.chain.Tools(); len(tools) > 0 {
		constraints["tools"] = tools.Map()
	}
	m["subject"], m["audience"], m["scopes"] = v.chain.Principal(), v.chain.Audience(), v.chain.Scopes()
	m["expires_in"], m["path"], m["chain"] = secondsLeft(v.chain.Expires(), v.now), v.chain.Path(), links
	m["constraints"] = constraints
	return m
}

// print shows the verdict to a person.
func (v *verdict) print(w *world) error {
	switch {
	case v.refusal != nil && v.valid:
		fmt.Fprintf(w.stdout, "valid, and does not allow the request\n")
	case v.refusal != nil:
		fmt.Fprintf(w.stdout, "not valid\n")
	case v.allowed != nil:
		fmt.Fprintf(w.stdout, "valid, and allows the request\n")
	default:
		fmt.Fprintf(w.stdout, "valid\n")
	}
	pairs := []string{"unchecked", strings.Join(v.unchecked, ", ")}
	if v.chain == nil {
		return w.fields(pairs...)
	}
	pairs = append([]string{
		"subject", v.chain.Principal(),
		"path", strings.Join(v.chain.Path(), " → "),
		"audience", strings.Join(v.chain.Audience(), " "),
	}, pairs...)
	if err := w.fields(pairs...); err != nil {
		return err
	}
	fmt.Fprintln(w.stdout)
	rows := [][]string{}
	for _, l := range v.chain.Links() {
		rows = append(rows, []string{
			strconv.Itoa(l.Depth), l.LID, l.ClientID, strings.Join(l.Scopes, " "), limitsText(l.Limits, l.Tools), left(l.Expires.Sub(v.now)),
		})
	}
	return w.table([]string{"DEPTH", "LINK", "CLIENT", "SCOPES", "LIMITS", "TIME"}, rows)
}

// limitsText shows limits on one line.
func limitsText(l delegation.Limits, tools delegation.Tools) string {
	var parts []string
	if len(tools) > 0 {
		parts = append(parts, "tools="+toolsText(tools))
	}
	if l.Resources != nil {
		parts = append(parts, "resources="+orNone(l.Resources))
	}
	if l.AllowNetwork != nil {
		parts = append(parts, "network="+orNone(l.AllowNetwork))
	}
	if l.MaxFileSize != nil {
		parts = append(parts, fmt.Sprintf("size≤%d", *l.MaxFileSize))
	}
	if l.MaxCalls != nil {
		parts = append(parts, fmt.Sprintf("calls≤%d", *l.MaxCalls))
	}
	if l.AuditRequired != nil && *l.AuditRequired {
		parts = append(parts, "audited")
	}
	return strings.Join(parts, " ")
}

// orNone shows an empty list, which allows nothing, as "none".
func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}

// secondsLeft is whole seconds until t, 0 if it is past.
func secondsLeft(t, now time.Time) int64 { return max(0, int64(t.Sub(now)/time.Second)) }
