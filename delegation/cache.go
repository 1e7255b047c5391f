package delegation

import (
	"container/list"
	"crypto/sha256"
	"slices"
	"sync"
)

// Cache remembers prefixes of chains that were verified, so that the next chain
// that begins with the same bytes costs the signatures behind them only. Make
// one with NewCache and give it to one Verifier; it is safe for several
// goroutines.
//
// It never changes a verdict or a reason. What is remembered are tokens that
// passed steps 0 to 12, under a key made of all their bytes, signatures
// included. What may have changed since is looked at again: the times of every
// token against the clock of this request, and the anchor that the kid of the
// root means now. If that is another one the whole cache is emptied. Steps 13 to
// 17 run on what Verify returns as they do without a cache.
//
// Nothing enters before a whole request was permitted, see Chain.Remember, so
// whoever can do no more than send bytes cannot fill it. It is bounded: 64
// prefixes below one root, 4096 in all, the least recently used leave.
type Cache struct {
	mu    sync.Mutex
	roots map[prefixKey]*list.Element // of *family, by the key of the root
	order *list.List                  // the family used last is in front
	size  int                         // prefixes in all families
	clock uint64                      // counts uses
}

const (
	maxFamily = 64   // prefixes below one root, itself included
	maxCached = 4096 // prefixes in all
)

// prefixKey is the SHA-256 of a prefix: root, or root~link, and so on.
type prefixKey [sha256.Size]byte

// family holds the prefixes of one root.
type family struct {
	root     prefixKey
	anchor   Anchor // what the root was verified under
	prefixes map[prefixKey]*prefix
}

type prefix struct {
	parts []part // never written to again
	used  uint64
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{roots: map[prefixKey]*list.Element{}, order: list.New()}
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
	keys   []prefixKey // of every prefix, shortest first
}

// recall returns the tokens that a chain begins with and the cache knows, and
// what Remember will need; both nil without a cache.
func (v *Verifier) recall(token []byte, texts []compact) ([]part, *memory) {
	if v.Cache == nil {
		return nil, nil
	}
	m := &memory{cache: v.Cache, keys: make([]prefixKey, len(texts))}
	hash, from := sha256.New(), 0
	for i := range texts {
		hash.Write(token[from:texts[i].end])
		hash.Sum(m.keys[i][:0])
		from = texts[i].end
	}
	parts, anchor := v.Cache.lookup(m.keys)
	if parts == nil || parts[0].iss != v.Issuer {
		return nil, m
	}
	// "A hit counts only if its anchor is still current for its kid; any change
	// of anchors empties it."
	if current, known := v.Anchors(anchor.kid); !known || !current.Equal(anchor) {
		v.Cache.Clear()
		return nil, m
	}
	m.anchor = anchor
	return parts, m
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
	var of *family
	if e, ok := c.roots[m.keys[0]]; ok {
		of = e.Value.(*family)
		c.order.MoveToFront(e)
	} else {
		of = &family{root: m.keys[0], prefixes: map[prefixKey]*prefix{}}
		c.roots[of.root] = c.order.PushFront(of)
	}
	of.anchor = m.anchor
	for n, key := range m.keys {
		if old, ok := of.prefixes[key]; ok {
			old.used = c.clock
			continue
		}
		if len(of.prefixes) == maxFamily {
			of.forgetOne()
			c.size--
		}
		// A copy: a short prefix does not keep what stood below it.
		of.prefixes[key] = &prefix{parts: slices.Clone(parts[:n+1]), used: c.clock}
		c.size++
	}
	for c.size > maxCached {
		c.forget(c.order.Back())
	}
}

// forgetOne drops the prefix that was used longest ago.
func (f *family) forgetOne() {
	var oldest prefixKey
	first := true
	for key, p := range f.prefixes {
		if first || p.used < f.prefixes[oldest].used {
			oldest, first = key, false
		}
	}
	delete(f.prefixes, oldest)
}

func (c *Cache) forget(e *list.Element) {
	of := c.order.Remove(e).(*family)
	delete(c.roots, of.root)
	c.size -= len(of.prefixes)
}

// lookup returns the tokens of the longest prefix that is remembered, and the
// anchor that the root was verified under; nil if there is none. keys are those
// of every prefix, shortest first.
func (c *Cache) lookup(keys []prefixKey) ([]part, Anchor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.roots[keys[0]]
	if !ok {
		return nil, Anchor{}
	}
	of := e.Value.(*family)
	for n := len(keys); n > 0; n-- {
		p, ok := of.prefixes[keys[n-1]]
		// A plain token alone is the whole credential or nothing: no link
		// stands below it, and that is for the verifier to say.
		if !ok || n < len(keys) && !p.parts[0].chained() {
			continue
		}
		c.clock++
		p.used = c.clock
		c.order.MoveToFront(e)
		return p.parts, of.anchor
	}
	return nil, Anchor{}
}
