package delegation_test

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// rootOf signs a root for a holder.
func rootOf(t testing.TB, gid string, key holder) string {
	t.Helper()
	root, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: alice, ClientID: orch, GrantID: gid, Audience: []string{gitHost},
		IssuedAt: now, Expires: now.Add(300 * time.Second), Scopes: []string{"pullrequest:read", "repository:read"},
		Limits: delegation.Limits{Resources: []string{"pullrequest/*"}}, Root: true, Key: key.public(), MaxDepth: 8,
	}, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	return root.Token
}

// below appends a link for the holder of index i to a chain of i tokens.
func below(t testing.TB, chain string, i int) string {
	t.Helper()
	derived, err := delegation.Derive(chain, someHolder(i-1).private(), someHolder(i).public(), delegation.Narrow{
		ClientID: "agent-" + strconv.Itoa(i), Scopes: []string{"repository:read"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	return derived.Chain
}

func cached(t testing.TB) *delegation.Verifier {
	v := *verifier(t)
	v.Cache = delegation.NewCache()
	return &v
}

func remember(t testing.TB, v *delegation.Verifier, chain string) {
	t.Helper()
	c, err := v.Verify(chain, now)
	if err != nil {
		t.Fatal(err)
	}
	c.Remember()
}

func TestCacheIsFilledByRememberAlone(t *testing.T) {
	v := cached(t)
	chain := below(t, rootOf(t, "grant-1", someHolder(0)), 1)
	if _, err := v.Verify(chain, now); err != nil || v.Cache.Len() != 0 {
		t.Fatalf("%v, %d prefixes before the request was permitted", err, v.Cache.Len())
	}
	remember(t, v, chain)
	remember(t, v, chain)
	if n := v.Cache.Len(); n != 2 {
		t.Errorf("%d prefixes, want the root and the chain", n)
	}
	(&delegation.Chain{}).Remember() // no cache, nothing happens
	(*delegation.Chain)(nil).Remember()
}

// What is remembered is looked at again where it may have changed.
func TestCacheKeepsReasons(t *testing.T) {
	root := rootOf(t, "grant-1", someHolder(0))
	chain := below(t, below(t, root, 1), 2)
	anchor, err := serverKey.Anchor()
	if err != nil {
		t.Fatal(err)
	}
	other, err := delegation.NewAnchor(anchor.KID(), someHolder(7).public().Crypto())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(v *delegation.Verifier)
		token  string
		at     time.Time
		want   delegation.Reason
	}{
		{"nothing changed", nil, chain, now, ""},
		{"a new leaf", nil, below(t, below(t, root, 1), 2), now, ""},
		{"expired", nil, chain, now.Add(time.Hour), delegation.Expired},
		{"a clock that went back", nil, chain, now.Add(-time.Hour), delegation.NotYetValid},
		{"the kid means another key", func(v *delegation.Verifier) { v.Anchors = delegation.AnchorSet(other) }, chain, now, delegation.SignatureInvalid},
		{"the kid is gone", func(v *delegation.Verifier) { v.Anchors = delegation.AnchorSet() }, chain, now, delegation.UnknownRoot},
		{"another issuer", func(v *delegation.Verifier) { v.Issuer += "/" }, chain, now, delegation.IssuerMismatch},
		{"a broken signature behind the prefix", nil, chain[:len(chain)-4] + "AAAA", now, delegation.SignatureInvalid},
		{"no base64url behind the prefix", nil, chain + "~a.b.c", now, delegation.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := cached(t)
			remember(t, v, chain)
			if c.change != nil {
				c.change(v)
			}
			_, err := v.Verify(c.token, c.at)
			if got := delegation.ReasonOf(err); got != c.want || (err == nil) != (c.want == "") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			uncached := *v
			uncached.Cache = nil
			if _, cold := uncached.Verify(c.token, c.at); fmt.Sprint(cold) != fmt.Sprint(err) {
				t.Errorf("without the cache: %v", cold)
			}
		})
	}
}

// A token that is not byte for byte what is remembered is another token, wherever
// it stands.
func TestCacheTakesNothingThatDiffers(t *testing.T) {
	v := cached(t)
	chain := below(t, below(t, rootOf(t, "grant-1", someHolder(0)), 1), 2)
	remember(t, v, chain)
	for i := range len(chain) {
		other := []byte(chain)
		if other[i] = 'A'; chain[i] == 'A' {
			other[i] = 'B'
		}
		_, warm := v.Verify(string(other), now)
		_, cold := verifier(t).Verify(string(other), now)
		if warm == nil || !reflect.DeepEqual(warm, cold) {
			t.Fatalf("byte %d: with the cache %v, without %v", i, warm, cold)
		}
	}
	for _, part := range []string{chain + "~", chain + "~" + chain, "~" + chain, chain[:len(chain)-1], chain + "A"} {
		_, warm := v.Verify(part, now)
		_, cold := verifier(t).Verify(part, now)
		if warm == nil || !reflect.DeepEqual(warm, cold) {
			t.Errorf("%d bytes: with the cache %v, without %v", len(part), warm, cold)
		}
	}
	if _, err := v.Verify(chain, now); err != nil {
		t.Error(err)
	}
}

// What is used again stays, and with it what it stands below.
func TestCacheForgetsTheLeastUsed(t *testing.T) {
	v := cached(t)
	root := rootOf(t, "grant-1", someHolder(0))
	used := below(t, below(t, root, 1), 2)
	remember(t, v, used)
	for range 200 {
		remember(t, v, below(t, below(t, root, 1), 2))
		known, behind := v.Cache.Known(used)
		if known != 3 || behind != len(used)+1 {
			t.Fatalf("%d tokens are known, up to byte %d of %d", known, behind, len(used))
		}
		if n := v.Cache.Len(); n > 64 {
			t.Fatalf("%d prefixes below one root", n)
		}
	}
}

// Of those that were used together the longest leaves first, or the others could
// not be found any more.
func TestCacheForgetsFromTheEnd(t *testing.T) {
	v := cached(t)
	root := rootOf(t, "grant-1", someHolder(0))
	long := root
	for i := range 5 {
		long = below(t, long, i+1)
	}
	remember(t, v, long)
	for range 64 - 6 + 2 {
		remember(t, v, below(t, root, 1))
	}
	if known, _ := v.Cache.Known(long); known != 4 || v.Cache.Len() != 64 {
		t.Errorf("%d tokens of six are known when two prefixes had to leave, %d prefixes in all", known, v.Cache.Len())
	}
}

// A chain that is too long is too long whatever of it is known.
func TestCacheCountsWhatItKnows(t *testing.T) {
	v := cached(t)
	chain := rootOf(t, "grant-1", someHolder(0))
	for i := range delegation.MaxDepth {
		chain = below(t, chain, i+1)
	}
	remember(t, v, chain)
	_, err := v.Verify(chain+chain[strings.LastIndexByte(chain, '~'):], now)
	wantRefusal(t, err, delegation.TooLarge)
}

func TestCacheIsEmptiedByAnotherAnchor(t *testing.T) {
	v := cached(t)
	one, two := rootOf(t, "grant-1", someHolder(0)), rootOf(t, "grant-2", someHolder(0))
	remember(t, v, one)
	remember(t, v, two)
	anchors := v.Anchors
	v.Anchors = delegation.AnchorSet()
	if _, err := v.Verify(one, now); err == nil {
		t.Fatal("accepted without an anchor")
	}
	if n := v.Cache.Len(); n != 0 {
		t.Errorf("%d prefixes of anchors that are gone", n)
	}
	v.Anchors = anchors
	remember(t, v, two)
}

// A plain token is not the parent of anything, remembered or not.
func TestCacheOfPlainTokens(t *testing.T) {
	v := cached(t)
	plain, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: alice, ClientID: orch, GrantID: "grant-1", Audience: []string{gitHost},
		IssuedAt: now, Expires: now.Add(300 * time.Second), Scopes: []string{"repository:read"},
	}, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	remember(t, v, plain.Token)
	chain := below(t, rootOf(t, "grant-1", someHolder(0)), 1)
	link := chain[len(rootOf(t, "grant-1", someHolder(0))):]
	_, warm := v.Verify(plain.Token+link, now)
	_, cold := verifier(t).Verify(plain.Token+link, now)
	if warm == nil || fmt.Sprint(warm) != fmt.Sprint(cold) {
		t.Errorf("with the cache %v, without %v", warm, cold)
	}
}

func TestCacheInParallel(t *testing.T) {
	v := cached(t)
	root := rootOf(t, "grant-1", someHolder(0))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				remember(t, v, below(t, root, 1))
			}
		})
	}
	group.Wait()
	if n := v.Cache.Len(); n != 64 {
		t.Errorf("%d prefixes below one root, want 64", n)
	}
}

// TestMemoryIsFlat: KAVACH_CHAINS=10000000 go test -run TestMemoryIsFlat
// -timeout 0 -v ./delegation is the long run. Every chain is another one and is
// permitted; a tenth of the roots is used again.
func TestMemoryIsFlat(t *testing.T) {
	chains := 8_000
	if text := os.Getenv("KAVACH_CHAINS"); text != "" {
		var err error
		if chains, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	v := cached(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var full uint64 // when the cache has been full for a while
	root, holder, key, to := "", someHolder(0), someHolder(0).private(), someHolder(1).public()
	narrow := delegation.Narrow{ClientID: reviewer, Scopes: []string{"repository:read"}}
	for i := range chains {
		if i%3 == 0 {
			root = rootOf(t, "grant-"+strconv.Itoa(i), holder)
		}
		chain, err := delegation.Derive(root, key, to, narrow, now)
		if err != nil {
			t.Fatal(err)
		}
		remember(t, v, chain.Chain)
		if i == chains/2 {
			full = heap()
		}
		if n := v.Cache.Len(); n > 4096 {
			t.Fatalf("%d prefixes", n)
		}
	}
	after := heap()
	runtime.KeepAlive(v)
	t.Logf("%d distinct chains: %.1f MB after half of them, %.1f MB after all", chains, float64(full)/1e6, float64(after)/1e6)
	if after > full+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", full, after)
	}
}

// A prefix that stays keeps its own tokens, not those of a longer chain that it
// was remembered with and that left.
func TestCachePrefixesKeepOnlyThemselves(t *testing.T) {
	v := cached(t)
	heavy := delegation.Tools{}
	for i := range delegation.MaxTools {
		heavy[fmt.Sprintf("a tool with a name of some length, number %d", i)] = delegation.AllowAnyArgs
	}
	derive := func(chain string, from, to holder) string {
		derived, err := delegation.Derive(chain, from.private(), to.public(), delegation.Narrow{
			ClientID: "agent", Scopes: []string{"repository:read"}, Tools: heavy,
		}, now)
		if err != nil {
			t.Fatal(err)
		}
		return derived.Chain
	}
	root := rootToken().with(object{"del_max_depth": 8, "authorization_details": []any{
		object{"type": "attenuating_agent_token", "tools": heavy.Map()},
	}}).String()
	before := heapInUse()
	var short []string
	for i := range 50 {
		chain, by := root, orchKey
		for depth := range 5 {
			to := ed(fmt.Sprintf("heavy %d %d", i, depth))
			if chain, by = derive(chain, by, to), to; depth == 0 {
				short = append(short, chain)
			}
		}
		remember(t, v, chain)
		for _, one := range short {
			remember(t, v, one)
		}
	}
	used := heapInUse() - before
	one, err := v.Verify(short[0], now)
	if err != nil || one.Len() != 2 || v.Cache.Len() != 64 {
		t.Fatalf("%v, %d prefixes", err, v.Cache.Len())
	}
	// 64 prefixes hold some 70 tokens, and chains of six tokens would be 300.
	if most := int64(140 * 20000); used > most {
		t.Errorf("%d bytes for 64 prefixes", used)
	}
}

func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
