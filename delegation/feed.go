package delegation

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// TypeFeed is the typ of the revocation feed.
const TypeFeed = "kavach-revocations+jwt"

// Sizes and times of delegation.md §9.
const (
	// FeedLife is how long a feed may be relied on: "exp = iat + 60 s".
	FeedLife = 60 * time.Second
	// FeedRetention is how long a link or a grant stays in the feed after it
	// was revoked: as long as any token can live.
	FeedRetention = MaxRootTTL
	// MaxFeed is the bytes of a feed: "fetch ≤ 1 MiB".
	MaxFeed = 1 << 20
	// MaxFeedLinks is how many links of one grant stand in the feed.
	MaxFeedLinks = 64
)

// feedEverything stands in `before` for every grant. No gid of kavach's is
// that short.
const feedEverything = "*"

// ErrFeed is the root of what is wrong with a feed, or cannot be signed as one.
var ErrFeed = errors.New("not a revocation feed")

// FeedClaims are what the server says is revoked. Each entry ends what it names
// and everything below it.
type FeedClaims struct {
	Issuer string
	// Seq is that of the latest revocation, and IssuedAt when it was read:
	// together they tell an older feed from a newer one. FeedLife after
	// IssuedAt the feed is stale.
	Seq      int64
	IssuedAt time.Time
	// Links are lids, Grants gids, Keys thumbprints.
	Links, Grants, Keys []string
	// Clients are ids of those who may not act: agents, people, clients. The
	// feed holds their hashes, so that it lists nobody.
	Clients []string
	// Before ends what was issued before a time, by gid; "*" is every grant.
	Before map[string]time.Time
}

// SignFeed makes the feed. The kid begins with rv-: no key of another purpose
// signs one. The key is Ed25519 or P-256.
func SignFeed(c FeedClaims, kid string, signer crypto.Signer) (string, error) {
	if !IsFeedKID(kid) {
		return "", fmt.Errorf("%w: kid %s", ErrFeed, quoteShort(kid))
	}
	key, err := agent.NewPrivateKey(signer)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrFeed, err)
	}
	iat := c.IssuedAt.Unix()
	claims := map[string]any{"iss": c.Issuer, "iat": iat, "exp": iat + int64(FeedLife/time.Second), "seq": c.Seq}
	hashed := make([]string, len(c.Clients))
	for i, id := range c.Clients {
		hashed[i] = digest(id)
	}
	for name, list := range map[string][]string{"tok": c.Links, "gid": c.Grants, "key": c.Keys, "agent": hashed} {
		if len(list) > 0 {
			sorted := slices.Clone(list)
			slices.Sort(sorted)
			claims[name] = slices.Compact(sorted)
		}
	}
	if len(c.Before) > 0 {
		before := make(map[string]any, len(c.Before))
		for gid, at := range c.Before {
			before[gid] = at.Unix()
		}
		claims["before"] = before
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrFeed, err)
	}
	token, err := agent.SignCompact(key, map[string]any{"typ": TypeFeed, "kid": kid}, payload)
	if err != nil {
		return "", fmt.Errorf("signing a feed with key %s: %w", kid, err)
	}
	if len(token) > MaxFeed {
		return "", fmt.Errorf("%w: larger than 1 MiB", ErrFeed)
	}
	return token, nil
}

// IsFeedKID reports whether a kid is one of the keys that sign feeds.
func IsFeedKID(kid string) bool {
	rest, ok := strings.CutPrefix(kid, "rv-")
	return ok && validKID("at-"+rest)
}

// Feed is a revocation feed that VerifyFeed accepted. It never changes.
type Feed struct {
	seq, iat, exp             int64
	links, grants, keys, hash map[string]bool
	before                    map[string]int64
}

// VerifyFeed verifies a feed of the issuer: keys returns the key of a kid, from
// the issuer's key set. It does not say whether the feed is still fresh, which
// changes while it is held: see Fresh.
func VerifyFeed(token, issuer string, keys func(kid string) (crypto.PublicKey, bool), now time.Time) (*Feed, error) {
	fail := func(what string) (*Feed, error) { return nil, fmt.Errorf("%w: %s", ErrFeed, what) }
	if len(token) > MaxFeed {
		return fail("larger than 1 MiB")
	}
	c, ok := splitFeed(token)
	if !ok {
		return fail("not a compact JWT")
	}
	h, refusal := c.parseHeader()
	switch {
	case refusal != nil:
		return fail("header")
	case h.typ != TypeFeed:
		return fail("typ")
	case !IsFeedKID(h.kid):
		return fail("kid")
	}
	public, ok := keys(h.kid)
	if !ok {
		return nil, fmt.Errorf("%w: %w", ErrFeed, ErrFeedKey)
	}
	key, err := agent.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFeed, err)
	}
	// The algorithm is pinned to the key.
	if h.alg != key.Alg() || !key.Verify([]byte(c.signed), c.signature) {
		return fail("signature")
	}
	v, err := jcs.Parse(c.payload, jcs.Limits{Bytes: MaxFeed, Depth: 8})
	if err != nil || v.Kind() != jcs.Object {
		return fail("claims")
	}
	if iss := v.Get("iss"); iss.Kind() != jcs.String || iss.Str() != issuer {
		return fail("iss")
	}
	f := &Feed{before: map[string]int64{}}
	for name, into := range map[string]*int64{"iat": &f.iat, "exp": &f.exp, "seq": &f.seq} {
		n, ok := v.Get(name).Int()
		if !ok || n < 0 {
			return fail(name)
		}
		*into = n
	}
	switch life := f.exp - f.iat; {
	case life <= 0 || life > int64(FeedLife/time.Second):
		return fail("exp")
	case f.iat > now.Add(IatSkew).Unix():
		return fail("not yet valid")
	}
	for name, into := range map[string]*map[string]bool{"tok": &f.links, "gid": &f.grants, "key": &f.keys, "agent": &f.hash} {
		if *into, ok = feedSet(v.Get(name)); !ok {
			return fail(name)
		}
	}
	before := v.Get("before")
	if before.Exists() && before.Kind() != jcs.Object {
		return fail("before")
	}
	for gid, at := range before.Fields() {
		n, ok := at.Int()
		if !ok || gid == "" {
			return fail("before")
		}
		f.before[gid] = n
	}
	return f, nil
}

// ErrFeedKey says that nobody knows the key that a feed names.
var ErrFeedKey = errors.New("its key is not in the issuer's key set")

// splitFeed takes the compact JWT of a feed apart: it is larger than a token
// may be.
func splitFeed(token string) (c compact, ok bool) {
	header, rest, ok := strings.Cut(token, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return c, false
	}
	c = compact{signed: []byte(token[:len(header)+1+len(payload)]), headerText: []byte(header)}
	var err1, err2, err3 error
	c.header, err1 = jcs.DecodeBase64URL(header)
	c.payload, err2 = jcs.DecodeBase64URL(payload)
	c.signature, err3 = jcs.DecodeBase64URL(signature)
	return c, errors.Join(err1, err2, err3) == nil
}

// feedSet reads a list of strings; an absent one is empty.
func feedSet(v jcs.Value) (map[string]bool, bool) {
	if !v.Exists() {
		return nil, true
	}
	list, ok := v.Strings()
	if !ok {
		return nil, false
	}
	set := make(map[string]bool, len(list))
	for _, s := range list {
		if s == "" {
			return nil, false
		}
		set[s] = true
	}
	return set, true
}

// Seq returns the number of the latest revocation in it.
func (f *Feed) Seq() int64 { return f.seq }

// IssuedAt returns when the server read what is in it.
func (f *Feed) IssuedAt() time.Time { return time.Unix(f.iat, 0) }

// Expires returns when it is stale.
func (f *Feed) Expires() time.Time { return time.Unix(f.exp, 0) }

// Fresh reports whether the feed may be relied on.
func (f *Feed) Fresh(now time.Time) bool { return f != nil && now.Before(f.Expires()) }

// Older reports whether the feed was made before another one: "a verifier
// accepts (seq, iat) not older than what it has".
func (f *Feed) Older(than *Feed) bool {
	if than == nil {
		return false
	}
	if f.seq != than.seq {
		return f.seq < than.seq
	}
	return f.iat < than.iat
}

// Revokes is step 15 of delegation.md §6: whether the feed names the grant, any
// link, any key, any client or any ancestor of the chain, or a time before
// which it was issued.
func (f *Feed) Revokes(c *Chain) bool {
	if f == nil || c.empty() {
		return false
	}
	r := c.Revocable()
	if f.grants[r.Grant] {
		return true
	}
	for _, lid := range r.LIDs {
		if f.links[lid] {
			return true
		}
	}
	for _, jkt := range r.Keys {
		if f.keys[jkt] {
			return true
		}
	}
	for _, id := range r.Ancestry {
		if f.links[id] || f.keys[id] {
			return true
		}
	}
	if len(f.hash) > 0 {
		for _, id := range r.Clients {
			if f.hash[digest(id)] {
				return true
			}
		}
	}
	// The root is the oldest: what is below it cannot be of an earlier time.
	iat := c.root().iat
	return iat < f.before[feedEverything] || iat < f.before[r.Grant]
}
