package delegation

import (
	"container/list"
	"slices"
	"strings"
	"sync"
)

// Cache remembers prefixes of chains that were verified, so that the next chain
// that begins with the same bytes costs the signatures behind them only. Make
// one with NewCache and give it to one Verifier; it is safe for several
// goroutines.
//
// It never changes a verdict or a reason. What is remembered are tokens that
// passed steps 0 to 12, and it is found by all their bytes, signatures included:
// one that differs in a bit is another token. What may have changed since is
// looked at again: the times of every token against the clock of this request,
// and the anchor that the kid of the root means now. If that is another one the
// whole cache is emptied. Steps 13 to 17 run on what Verify returns as they do
// without a cache.
//
// Nothing enters before a whole request was permitted, see Chain.Remember, so
// whoever can do no more than send bytes cannot fill it. It is bounded: 64
// prefixes below one root, 4096 in all, the least recently used leave. One keeps
// the text of its last token, at most MaxToken bytes, and what was read from it
// and those above.
type Cache struct {
	mu    sync.Mutex
	roots map[string]*list.Element // of *family, by the text of the root
	order *list.List               // the family used last is in front
	size  int                      // prefixes in all families
	clock uint64                   // counts uses
}

const (
	maxFamily = 64   // prefixes below one root, itself included
	maxCached = 4096 // prefixes in all
)

// family holds the prefixes of one root.
type family struct {
	root     string
	anchor   Anchor // what the root was verified under
	prefixes map[step]*prefix
}

// step names a prefix by what it adds to another, nil for a root: the text of one
// token. So two prefixes are the same if and only if all their bytes are, and to
// compare them costs less than to hash them.
type step struct {
	above *prefix
	token string
}

// prefix is one that is remembered, and so is every prefix of it: whoever uses
// one uses those too, and they leave after it.
type prefix struct {
	parts []part // never written to again
	used  uint64
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{roots: map[string]*list.Element{}, order: list.New()}
}

// Len returns how many prefixes are remembered.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// Clear forgets everything.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.roots)
	c.order.Init()
	c.size = 0
}

// memory is how a Chain finds its way back to the cache of its verifier.
type memory struct {
	cache  *Cache
	anchor Anchor
	token  string
}

// recall returns the tokens that a chain begins with and the cache knows, where
// in the text what stands behind them begins, and what Remember will need; all
// zero without a cache. It reads a token that nobody looked at yet, but for what
// equals one that passed.
func (v *Verifier) recall(token string) (known []part, behind int, m *memory) {
	if v.Cache == nil || len(token) > MaxChainBody {
		return nil, 0, nil
	}
	m = &memory{cache: v.Cache, token: token}
	known, behind, anchor := v.Cache.lookup(token)
	if known == nil || known[0].iss != v.Issuer {
		return nil, 0, m
	}
	// "A hit counts only if its anchor is still current for its kid; any change
	// of anchors empties it."
	if current, ok := v.Anchors(anchor.kid); !ok || !current.Equal(anchor) {
		v.Cache.Clear()
		return nil, 0, m
	}
	m.anchor = anchor
	return known, behind, m
}

// lookup returns the tokens of the longest prefix that is remembered, the place
// behind it and the tilde that follows, and the anchor that the root was verified
// under; nil if there is none.
func (c *Cache) lookup(token string) (known []part, behind int, anchor Anchor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root, _, more := strings.Cut(token, "~")
	e, ok := c.roots[root]
	if !ok {
		return nil, 0, Anchor{}
	}
	of := e.Value.(*family)
	c.clock++
	c.order.MoveToFront(e)
	var last *prefix
	for text := range strings.SplitSeq(token, "~") {
		next, ok := of.prefixes[step{last, text}]
		// A plain token alone is the whole credential or nothing: no link
		// stands below it, and that is for the verifier to say.
		if !ok || more && !next.parts[0].chained() {
			break
		}
		next.used = c.clock
		known, behind, last = next.parts, behind+len(text)+1, next
	}
	return known, behind, of.anchor
}

// Remember puts the chain and its prefixes into the cache of the verifier that
// verified it, if that has one. Call it when the whole request was permitted
// (delegation.md §6: "positive results only; filled only after the whole
// request was permitted"), and never before.
func (c *Chain) Remember() {
	if c == nil || c.memory == nil {
		return
	}
	c.memory.cache.add(c.memory, c.parts)
}

func (c *Cache) add(m *memory, parts []part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	root, _, _ := strings.Cut(m.token, "~")
	var of *family
	if e, ok := c.roots[root]; ok {
		of = e.Value.(*family)
		c.order.MoveToFront(e)
	} else {
		of = &family{root: strings.Clone(root), prefixes: map[step]*prefix{}}
		c.roots[of.root] = c.order.PushFront(of)
	}
	of.anchor = m.anchor
	var last *prefix
	n := 0
	for text := range strings.SplitSeq(m.token, "~") {
		n++
		next, ok := of.prefixes[step{last, text}]
		if !ok {
			if len(of.prefixes) == maxFamily {
				of.forgetOne()
				c.size--
			}
			// Copies: a short prefix does not keep what stood below it.
			next = &prefix{parts: slices.Clone(parts[:n])}
			of.prefixes[step{last, strings.Clone(text)}] = next
			c.size++
		}
		next.used = c.clock
		last = next
	}
	for c.size > maxCached {
		c.forget(c.order.Back())
	}
}

// forgetOne drops the prefix that was used longest ago, of several the longest.
func (f *family) forgetOne() {
	var oldest step
	var of *prefix
	for at, p := range f.prefixes {
		if of == nil || p.used < of.used || p.used == of.used && len(p.parts) > len(of.parts) {
			oldest, of = at, p
		}
	}
	delete(f.prefixes, oldest)
}

func (c *Cache) forget(e *list.Element) {
	of := c.order.Remove(e).(*family)
	delete(c.roots, of.root)
	c.size -= len(of.prefixes)
}
