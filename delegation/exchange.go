package delegation

import (
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Ask is what somebody wants derived online from a verified subject.
type Ask struct {
	// Caller is the client that the server authenticated; empty is the
	// subject's own last party.
	Caller string
	// Receiver is the agent named to use the result; empty is the caller.
	Receiver string
	// ReceiverProved says that Receiver showed a key card or that Key is its
	// registered key. Otherwise its act object carries "proved": false.
	ReceiverProved bool
	// Key is the receiver's key; zero asks for an unbound token, which a
	// bound subject never yields. For the caller itself a zero Key keeps the
	// subject's.
	Key agent.PublicKey
	// AAT asks for a root of typ aat+jwt, for verifiers that know only AAT. It
	// is bound to a key that was sent and is not the subject's, names the tools
	// it grants, and where the audience is not kavach-aware holds no limits,
	// which such a verifier would not see.
	AAT bool
	// KeyByProof says that nobody sent Key to be bound: it is only the key that
	// the request itself was proved with, and whoever uses the result is no
	// agent. Then the result is plain.
	KeyByProof bool

	// Scopes may be empty, which grants none.
	Scopes []string
	// Audience is required.
	Audience []string
	// AudienceAware says that every resource in Audience is registered as
	// kavach-aware.
	AudienceAware bool
	// TTL 0 means DefaultLinkTTL; MaxRootTTL is the most. It is cut to what
	// the subject has left.
	TTL time.Duration
	// Tools nil keeps the subject's.
	Tools Tools
	// Limits keeps of the subject's what it leaves absent.
	Limits Limits
	// MaxDepth is how many more hand-overs the result may allow; nil is all
	// that is left. The server puts 0 for an agent that may not delegate.
	MaxDepth *int
	// GrantDepth is the depth of the grant behind a plain subject. Zero means
	// that it allows no hand-over.
	GrantDepth int
}

// Draft is what Exchange decided, ready to be signed.
type Draft struct {
	Claims Claims
	// Clamped says that Expires is earlier than asked.
	Clamped bool
	// Parties are those who act, from the principal to the user of the token.
	Parties []Party
}

// Issued is a signed Draft.
type Issued struct {
	Signed
	Scopes    []string
	Audience  []string
	Tools     Tools
	Limits    Limits
	ExpiresIn time.Duration
	Expires   time.Time
	Clamped   bool
	// Root says that links can be appended.
	Root bool
	// Path is the ids of Draft.Parties.
	Path []string
	// Proved says of the last of them, who uses the token, that it is more than
	// a name that somebody said.
	Proved bool
}

// Sign signs the draft.
func (d Draft) Sign(key ServerKey) (Issued, error) {
	signed, err := Sign(d.Claims, key)
	if err != nil {
		return Issued{}, err
	}
	issued := Issued{
		Signed: signed, Scopes: d.Claims.Scopes, Audience: d.Claims.Audience,
		Tools: d.Claims.Tools, Limits: d.Claims.Limits,
		Expires:   time.Unix(d.Claims.Expires.Unix(), 0),
		ExpiresIn: time.Duration(d.Claims.Expires.Unix()-d.Claims.IssuedAt.Unix()) * time.Second,
		Clamped:   d.Clamped, Root: d.Claims.Root,
	}
	for _, party := range d.Parties {
		issued.Path, issued.Proved = append(issued.Path, party.ID), party.Proved
	}
	return issued, nil
}

// Exchange is the one function that derives online (delegation.md §7): token
// exchange and the MCP tool delegate. It computes the claims of a new root or
// plain token whose authority is covered by every link of the subject. It is
// pure: the caller has checked proof (14) and revocation (15) of the subject.
//
// Its refusals: audience_widened, not_narrower (with the dimension),
// depth_invalid, party_repeated, key_reuse, holder_binding_failed (a bound
// subject, a receiver without a key), expired, too_large (anc), malformed.
func (c *Chain) Exchange(ask Ask, now time.Time) (Draft, error) {
	draft, refusal := c.exchange(ask, now)
	if refusal != nil {
		return Draft{}, refusal
	}
	return draft, nil
}

func (c *Chain) exchange(ask Ask, now time.Time) (Draft, *Refusal) {
	if c.empty() {
		return Draft{}, refuse(Malformed, "", "not a verified chain")
	}
	// "A token that carries it on any link is not exchangeable": the new root
	// would start a budget of its own.
	if c.Restricts(DimensionCalls) {
		return Draft{}, refuse(NotNarrower, DimensionCalls, "a token with a budget of calls cannot be exchanged")
	}
	parties, self, refusal := c.user(ask)
	if refusal != nil {
		return Draft{}, refusal
	}
	jkt, same, refusal := c.receiverKey(ask, self)
	if refusal != nil {
		return Draft{}, refusal
	}
	depth, refusal := c.depthFor(ask, self && same, jkt != "" && same)
	if refusal != nil {
		return Draft{}, refusal
	}
	claims, refusal := c.authority(ask)
	if refusal != nil {
		return Draft{}, refusal
	}
	exp, clamped, refusal := clampTTL(ask.TTL, MaxRootTTL, now, c.leaf().exp)
	if refusal != nil {
		return Draft{}, refusal
	}
	if exp-now.Unix() < 1 {
		return Draft{}, refuse(Expired, DimensionTTL, "less than a second is left")
	}
	claims.Ancestry, refusal = c.ancestors()
	if refusal != nil {
		return Draft{}, refusal
	}
	root := c.root()
	claims.Issuer, claims.Subject, claims.GrantID = root.iss, root.sub, root.gid
	claims.ClientID = parties[len(parties)-1].ID
	claims.IssuedAt, claims.Expires = time.Unix(now.Unix(), 0), time.Unix(exp, 0)
	claims.JTI = NewJTI(now)
	claims.Act = c.actors(parties)
	form := Form{AudienceAware: ask.AudienceAware, Key: ask.Key, KeySent: !ask.KeyByProof, Depth: depth, AAT: ask.AAT}
	// "For the same key: always allowed, result without del_*."
	if claims.Root = form.Root() && !same; claims.Root {
		claims.Key, claims.MaxDepth, claims.AAT = ask.Key, depth, ask.AAT
	} else if ask.AAT {
		return Draft{}, refuse(HolderBindingFailed, DimensionKey, "an AAT is bound to a key of its own that is sent with the request")
	} else {
		claims.JKT, claims.Hops = jkt, &depth
	}
	return Draft{Claims: claims, Clamped: clamped, Parties: parties}, nil
}

// user decides "Who acts": the path that the result will have, and whether its
// user is the subject's own last party.
func (c *Chain) user(ask Ask) (parties []Party, self bool, refusal *Refusal) {
	parties = c.Parties()
	last := parties[len(parties)-1].ID
	if ask.Caller != "" {
		if ask.Caller != last && c.stands(ask.Caller) {
			return nil, false, refuse(PartyRepeated, DimensionAgent, quoteShort(ask.Caller))
		}
		parties = appendParty(parties, Party{ID: ask.Caller, Proved: true})
	}
	if ask.Receiver == "" {
		return parties, ask.Caller == "" || ask.Caller == last, nil
	}
	// "Naming a party that already stands in sub, act or the confirmed path →
	// refused; narrowing for oneself is exchange that names nobody."
	if c.stands(ask.Receiver) || parties[len(parties)-1].ID == ask.Receiver {
		return nil, false, refuse(PartyRepeated, DimensionAgent, quoteShort(ask.Receiver))
	}
	return appendParty(parties, Party{ID: ask.Receiver, Proved: ask.ReceiverProved}), false, nil
}

// stands reports whether a party stands in sub, act or the confirmed path.
func (c *Chain) stands(id string) bool {
	root := c.root()
	return id == root.sub || id == root.clientID ||
		slices.ContainsFunc(root.act, func(p Party) bool { return p.ID == id })
}

// receiverKey returns the thumbprint the result is bound to ("" for none) and
// whether that is the subject's.
func (c *Chain) receiverKey(ask Ask, self bool) (jkt string, same bool, refusal *Refusal) {
	held := c.JKT()
	switch {
	case !ask.Key.IsZero():
		jkt = ask.Key.Thumbprint()
	case self:
		jkt = held
	case held != "":
		return "", false, refuse(HolderBindingFailed, DimensionKey,
			"a bound token yields no unbound one: the receiver's public key is needed")
	}
	// Whoever names nobody and keeps the key holds it: the caller proved it.
	if jkt == held && (ask.Receiver == "" || jkt == "") {
		return jkt, true, nil
	}
	if c.keyOf(jkt) || slices.Contains(c.root().anc, jkt) {
		return "", false, refuse(KeyReuse, DimensionKey, "")
	}
	return jkt, false, nil
}

// depthFor is what the result may hand on. keep says that neither the user nor
// the key changes, which is no hand-over; held that the holder's key stays,
// which is always allowed.
func (c *Chain) depthFor(ask Ask, keep, held bool) (int, *Refusal) {
	left := min(c.DepthLeft(ask.GrantDepth), MaxDepth)
	if !keep {
		if left < 1 && !held {
			return 0, refuse(DepthInvalid, DimensionDepth, "no hand-over is left")
		}
		left = max(left-1, 0)
	}
	if ask.MaxDepth == nil {
		return left, nil
	}
	if *ask.MaxDepth < 0 {
		return 0, refuse(Malformed, DimensionDepth, "negative")
	}
	return min(left, *ask.MaxDepth), nil
}

// authority is what the result may do: "covered by every link".
func (c *Chain) authority(ask Ask) (Claims, *Refusal) {
	leaf := c.leaf()
	claims := Claims{Scopes: []string{}, Audience: slices.Clone(ask.Audience), Tools: cloneTools(ask.Tools)}
	if len(ask.Audience) == 0 || len(ask.Audience) > MaxAudience {
		return claims, refuse(Malformed, DimensionAudience, "1 to 8 resources")
	}
	for _, scope := range ask.Scopes {
		if !slices.Contains(claims.Scopes, scope) {
			claims.Scopes = append(claims.Scopes, scope)
		}
	}
	slices.Sort(claims.Scopes)
	if ask.Tools == nil {
		claims.Tools = cloneTools(leaf.tools)
	}
	claims.Limits = ask.Limits.within(leaf.limits)
	if refusal := claims.Tools.validate(); refusal != nil {
		return claims, refusal
	}
	if refusal := claims.Limits.validate(); refusal != nil {
		return claims, refusal
	}
	restricted := c.Restricts(DimensionTools)
	if (restricted || ask.AAT) && len(claims.Tools) == 0 {
		return claims, refuse(NotNarrower, DimensionTools, "no tool is left")
	}
	for i := range c.parts {
		p := &c.parts[i]
		for _, aud := range claims.Audience {
			if !slices.Contains(p.aud, aud) {
				return claims, refuse(AudienceWidened, DimensionAudience, quoteShort(aud)).at(i)
			}
		}
		for _, scope := range claims.Scopes {
			if !p.hasScope(scope) {
				return claims, refuse(NotNarrower, DimensionScope, quoteShort(scope)).at(i)
			}
		}
		if restricted {
			if gap := p.tools.gap(claims.Tools); gap != nil {
				return claims, refuse(NotNarrower, DimensionTools, gap.String()).at(i)
			}
		}
		if dimension := p.limits.covers(claims.Limits); dimension != "" {
			return claims, refuse(NotNarrower, dimension, "").at(i)
		}
	}
	if claims.Limits.MaxCalls != nil && len(claims.Audience) != 1 {
		return claims, refuse(NotNarrower, DimensionCalls, "needs exactly one audience")
	}
	// "A resource that is not registered as kavach-aware never gets a token
	// whose restriction lives only there."
	if !ask.AudienceAware && (len(claims.Tools) > 0 && !ask.AAT || !claims.Limits.IsZero()) {
		return claims, refuse(AudienceWidened, DimensionAudience, "the resource would not see the restriction")
	}
	return claims, nil
}

// ancestors is "the lid and cnf.jkt of every token of the subject, after the
// subject's own anc; more than 32 → refused".
func (c *Chain) ancestors() ([]string, *Refusal) {
	list := c.Ancestry()
	for i := range c.parts {
		list = append(list, c.parts[i].lid)
		if jkt := c.parts[i].jkt; jkt != "" {
			list = append(list, jkt)
		}
	}
	if len(list) > MaxAncestry {
		return nil, refuse(TooLarge, "", "too many exchanges one after another")
	}
	return list, nil
}

// actors is the act of the result: its path without the principal, outermost
// first. Narrowing a single token for its own holder adds nobody, and then act
// stays what it was, so that it does not cost depth.
func (c *Chain) actors(parties []Party) []Party {
	if c.Len() == 1 && len(parties) == len(c.Parties()) {
		act := slices.Clone(c.root().act)
		if last := parties[len(parties)-1]; len(act) > 0 && act[0].ID == last.ID {
			act[0].Proved = last.Proved // it has shown now that it is the one
		}
		return act
	}
	act := slices.Clone(parties[1:])
	slices.Reverse(act)
	return act
}
