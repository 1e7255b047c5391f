package agent_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// lineage is an agent on its way through several manifests.
type lineage struct {
	*testing.T
	now     time.Time
	history string
	key     agent.PrivateKey
}

func newLineage(t *testing.T) *lineage {
	t.Helper()
	l := &lineage{T: t, now: time.Unix(1_800_000_000, 0), key: freshKey(t)}
	first, err := agent.SignManifest(l.draft(), l.key)
	if err != nil {
		t.Fatal(err)
	}
	l.history = first
	return l
}

func freshKey(t *testing.T) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (l *lineage) draft() agent.Manifest {
	return agent.Manifest{
		Name: "reviewer", Version: "1.0.0", Purpose: "Reviews.", Scopes: []string{"repository:read"},
		Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 3, IssuedAt: l.now, Expires: l.now.Add(time.Hour),
	}
}

// next adds a manifest; key is the agent's from then on.
func (l *lineage) next(key agent.PrivateKey, change ...func(*agent.Manifest)) string {
	l.Helper()
	m := l.draft()
	for _, f := range change {
		f(&m)
	}
	token, err := agent.SignNextManifest(m, agent.NextManifest{Last: l.history, Key: key, Previous: l.key})
	if err != nil {
		l.Fatal(err)
	}
	l.history, l.key = agent.JoinHistory(l.history, token), key
	return token
}

// resign signs the last manifest again, after a change of header and claims that
// no signer of ours makes.
func (l *lineage) resign(token string, key agent.PrivateKey, change func(header, claims map[string]any)) string {
	l.Helper()
	c, err := agent.SplitCompact(token)
	if err != nil {
		l.Fatal(err)
	}
	v, err := jcs.Parse(c.UnverifiedPayload, jcs.Limits{})
	if err != nil {
		l.Fatal(err)
	}
	header, claims := map[string]any{}, map[string]any{}
	for name, e := range c.UnverifiedHeader.Fields() {
		header[name] = e
	}
	for name, e := range v.Fields() {
		claims[name] = e
	}
	change(header, claims)
	payload, err := jcs.Marshal(claims)
	if err != nil {
		l.Fatal(err)
	}
	out, err := agent.SignCompact(key, header, payload)
	if err != nil {
		l.Fatal(err)
	}
	return out
}

func TestAHistoryVerifiesStandingAlone(t *testing.T) {
	l := newLineage(t)
	id, first := l.key.Public().Thumbprint(), l.key
	l.next(first, func(m *agent.Manifest) { m.Version = "1.1.0" })
	second := freshKey(t)
	l.next(second, func(m *agent.Manifest) { m.Name = "critic" })
	third := l.next(freshKey(t))
	l.next(l.key)
	m, err := agent.VerifyManifest(l.history, l.now)
	if err != nil || m.ID != id || m.Seq != 5 || m.Key != l.key.Public() || m.Name != "reviewer" {
		t.Fatalf("%+v, %v", m, err)
	}
	list, err := agent.VerifyHistory(l.history)
	if err != nil || len(list) != 5 || list[1].Version != "1.1.0" || list[2].Name != "critic" || list[2].Key != second.Public() {
		t.Fatalf("%+v, %v", list, err)
	}
	parts := strings.Split(l.history, "~")
	if hash, err := agent.ManifestHash(parts[2]); err != nil || list[3].Prev != hash || parts[3] != third {
		t.Errorf("prev %q, want %q, %v", list[3].Prev, hash, err)
	}
	// Every beginning is a history, too: that of who has not heard of the rest.
	// Whoever has refuses it.
	for i := range parts {
		begun := strings.Join(parts[:i+1], "~")
		if m, err := agent.VerifyManifest(begun, l.now); err != nil || m.Seq != int64(i+1) {
			t.Errorf("%d manifests: %v", i+1, err)
		}
		_, err := agent.ManifestCheck{Now: l.now, MinSeq: 5}.Verify(begun)
		if (err == nil) != (i == 4) {
			t.Errorf("%d manifests for who knows five: %v", i+1, err)
		}
	}
	// What was replaced may have expired, the last one may not.
	l.now = l.now.Add(2 * time.Hour)
	if _, err := agent.VerifyManifest(l.history, l.now); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("an expired manifest: %v", err)
	}
	l.next(l.key)
	if _, err := agent.VerifyManifest(l.history, l.now); err != nil {
		t.Errorf("a renewed manifest: %v", err)
	}
}

func TestAHistoryThatIsNotOne(t *testing.T) {
	l := newLineage(t)
	old := l.key
	l.next(old)
	rotated := freshKey(t)
	m3 := l.next(rotated)
	l.next(rotated)
	parts := strings.Split(l.history, "~")
	other := newLineage(t)
	other.next(freshKey(t))
	foreign := strings.Split(other.history, "~")
	thief := freshKey(t)
	set := func(name string, value any) func(h, c map[string]any) {
		return func(_, c map[string]any) { c[name] = value }
	}
	join := func(parts ...string) string { return strings.Join(parts, "~") }
	byThief, err := agent.SignManifest(l.draft(), thief)
	if err != nil {
		t.Fatal(err)
	}
	// What SignNextManifest makes for a key that was given up fits its
	// predecessor; the history knows better.
	m5, err := agent.SignNextManifest(l.draft(), agent.NextManifest{Last: l.history, Key: old, Previous: rotated})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                        "",
		"the last alone":                 parts[3],
		"without the first":              join(parts[1:]...),
		"one left out":                   join(parts[0], parts[1], parts[3]),
		"one twice":                      join(parts[0], parts[1], parts[1]),
		"two exchanged":                  join(parts[0], parts[2], parts[1]),
		"an empty part":                  join(parts[0], ""),
		"of another agent":               join(parts[0], foreign[1]),
		"below another agent's":          join(foreign[0], parts[1]),
		"a key that was given up":        join(l.history, m5),
		"another seq":                    join(parts[0], l.resign(parts[1], old, set("seq", 3))),
		"seq 0":                          join(parts[0], l.resign(parts[1], old, set("seq", 0))),
		"a first with seq 2":             l.resign(parts[0], old, set("seq", 2)),
		"another prev":                   join(parts[0], l.resign(parts[1], old, set("prev", parts[0][:43]))),
		"prev in a first":                l.resign(parts[0], old, set("prev", strings.Repeat("A", 43))),
		"prev is null":                   join(parts[0], l.resign(parts[1], old, set("prev", nil))),
		"no prev":                        join(parts[0], l.resign(parts[1], old, func(_, c map[string]any) { delete(c, "prev") })),
		"issued before the one before":   join(parts[0], l.resign(parts[1], old, set("iat", l.now.Unix()-1))),
		"a key change, signed once":      join(parts[0], parts[1], l.resign(m3, rotated, func(h, _ map[string]any) { delete(h, "prev_sig") })),
		"a key change by a thief":        join(parts[0], parts[1], l.resign(m3, thief, set("jwk", mustParse(t, thief.Public().AppendJWK(nil))))),
		"signed by the key before only":  join(parts[0], parts[1], l.resign(m3, old, func(h, _ map[string]any) {})),
		"the other claims after signing": join(parts[0], parts[1], l.resign(m3, rotated, set("max_depth", 8))),
		"prev_sig without a key change":  join(parts[0], l.resign(parts[1], old, func(h, _ map[string]any) { h["prev_sig"] = "e30..AA" })),
		"prev_sig in a first":            l.resign(parts[0], old, func(h, _ map[string]any) { h["prev_sig"] = "e30..AA" }),
		"prev_sig is a number":           join(parts[0], parts[1], l.resign(m3, rotated, func(h, _ map[string]any) { h["prev_sig"] = 1 })),
		"prev_sig is empty":              join(parts[0], parts[1], l.resign(m3, rotated, func(h, _ map[string]any) { h["prev_sig"] = "" })),
		"prev_sig with a payload":        join(parts[0], parts[1], l.resign(m3, rotated, func(h, _ map[string]any) { h["prev_sig"] = "e30.e30.AA" })),
		"an id that is not the first's":  join(byThief, parts[1]),
		"kid of another":                 join(parts[0], l.resign(parts[1], old, func(h, _ map[string]any) { h["kid"] = thief.Public().Thumbprint() })),
		"too many":                       strings.Repeat(parts[0]+"~", agent.MaxHistory) + parts[0],
	} {
		if m, err := agent.VerifyManifest(text, l.now); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := agent.VerifyManifest(l.history, l.now); err != nil {
		t.Errorf("the one all of these were made from: %v", err)
	}
	// The signature of the key before is of its own kind: it is no manifest.
	c, err := agent.SplitCompact(m3)
	if err != nil {
		t.Fatal(err)
	}
	h, s, _ := strings.Cut(c.UnverifiedHeader.Get("prev_sig").Str(), "..")
	full := h + "." + strings.Split(m3, ".")[1] + "." + s
	if _, err := agent.VerifyHistory(join(parts[0], parts[1], full)); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a rotation is taken for a manifest: %v", err)
	}
}

func mustParse(t *testing.T, text []byte) jcs.Value {
	t.Helper()
	v, err := jcs.Parse(text, jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSigningTheNextManifestRefuses(t *testing.T) {
	l := newLineage(t)
	for name, next := range map[string]agent.NextManifest{
		"a new key alone":         {Last: l.history, Key: freshKey(t)},
		"a key before of nobody":  {Last: l.history, Key: freshKey(t), Previous: freshKey(t)},
		"no key":                  {Last: l.history, Previous: l.key},
		"nothing that is next to": {Last: "x", Key: l.key},
	} {
		if _, err := agent.SignNextManifest(l.draft(), next); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	early := l.draft()
	early.IssuedAt = l.now.Add(-time.Second)
	if _, err := agent.SignNextManifest(early, agent.NextManifest{Last: l.history, Key: l.key}); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("issued before the one before: %v", err)
	}
}

func TestSuccessors(t *testing.T) {
	l := newLineage(t)
	first := l.history
	l.next(l.key)
	l.next(freshKey(t))
	_, rest, _ := strings.Cut(l.history, "~")
	list, err := agent.VerifySuccessors(first, rest, l.now)
	if err != nil || len(list) != 2 || list[1].Seq != 3 || list[1].Key != l.key.Public() {
		t.Fatalf("%+v, %v", list, err)
	}
	for name, next := range map[string]string{"itself": first, "one left out": agent.LastManifest(rest), "nothing": ""} {
		if _, err := agent.VerifySuccessors(first, next, l.now); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.VerifySuccessors(first, rest, l.now.Add(2*time.Hour)); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("expired: %v", err)
	}
}

func TestCountersignature(t *testing.T) {
	const issuer = "https://auth.example"
	l := newLineage(t)
	l.next(freshKey(t))
	last := agent.LastManifest(l.history)
	server, other := freshKey(t), freshKey(t)
	said := agent.Countersignature{Issuer: issuer, IssuedAt: l.now, Expires: l.now.Add(30 * time.Minute)}
	signed, err := agent.Countersign(last, said, "mf-1", server)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]agent.PublicKey{"mf-1": server.Public(), "at-1": server.Public(), "mf-2": other.Public()}
	check := agent.ManifestCheck{Now: l.now, Issuer: issuer, Countersigner: func(kid string) (agent.PublicKey, bool) {
		key, ok := keys[kid]
		return key, ok
	}}
	m, err := check.Verify(signed)
	if err != nil || m.Seq != 2 || m.Key != l.key.Public() || m.ID == l.key.Public().Thumbprint() {
		t.Fatalf("%+v, %v", m, err)
	}
	_, word, _ := strings.Cut(signed, "~")
	stranger := newLineage(t)
	byOther, err := agent.Countersign(last, said, "mf-1", other)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text  string
		check agent.ManifestCheck
	}{
		"nobody's word counts":    {signed, agent.ManifestCheck{Now: l.now}},
		"another server's":        {signed, agent.ManifestCheck{Now: l.now, Issuer: issuer + "x", Countersigner: check.Countersigner}},
		"known to be replaced":    {signed, agent.ManifestCheck{Now: l.now, Issuer: issuer, Countersigner: check.Countersigner, MinSeq: 3}},
		"over":                    {signed, agent.ManifestCheck{Now: l.now.Add(30 * time.Minute), Issuer: issuer, Countersigner: check.Countersigner}},
		"not begun":               {signed, agent.ManifestCheck{Now: l.now.Add(-31 * time.Second), Issuer: issuer, Countersigner: check.Countersigner}},
		"for another manifest":    {stranger.history + "~" + word, check},
		"for the one before":      {strings.Split(l.history, "~")[0] + "~" + word, check},
		"after a history":         {l.history + "~" + word, check},
		"twice":                   {signed + "~" + word, check},
		"alone":                   {word, check},
		"by another key":          {byOther, check},
		"unknown key":             {last + "~" + l.resign(word, server, func(h, _ map[string]any) { h["kid"] = "mf-3" }), check},
		"a key of another kind":   {last + "~" + l.resign(word, server, func(h, _ map[string]any) { h["kid"] = "at-1" }), check},
		"lives too long":          {last + "~" + l.resign(word, server, func(_, c map[string]any) { c["exp"] = l.now.Unix() + 3601 }), check},
		"seq is text":             {last + "~" + l.resign(word, server, func(_, c map[string]any) { c["seq"] = "2" }), check},
		"no manifest":             {last + "~" + l.resign(word, server, func(_, c map[string]any) { delete(c, "manifest") }), check},
		"crit":                    {last + "~" + l.resign(word, server, func(h, _ map[string]any) { h["crit"] = []string{"x"} }), check},
		"another type":            {last + "~" + l.resign(word, server, func(h, _ map[string]any) { h["typ"] = "JWT" }), check},
		"a manifest in its place": {last + "~" + last, check},
	} {
		if m, err := c.check.Verify(c.text); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, bad := range map[string]agent.Countersignature{
		"no issuer": {IssuedAt: l.now, Expires: l.now.Add(time.Minute)},
		"too long":  {Issuer: issuer, IssuedAt: l.now, Expires: l.now.Add(time.Hour + time.Second)},
		"no time":   {Issuer: issuer, IssuedAt: l.now, Expires: l.now},
	} {
		if _, err := agent.Countersign(last, bad, "mf-1", server); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.Countersign(last, said, "at-1", server); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a key for tokens countersigns: %v", err)
	}
}

func TestIdentityFile(t *testing.T) {
	key, id := freshKey(t), freshKey(t).Public().Thumbprint()
	for want, text := range map[string][]byte{
		id:                        marshalled(t, key, id),
		key.Public().Thumbprint(): marshalled(t, key, key.Public().Thumbprint()),
	} {
		got, who, err := agent.ParseIdentity(text)
		if err != nil || got.Public() != key.Public() || who != want {
			t.Errorf("%s, want %s: %v", who, want, err)
		}
		if strings.Contains(string(text), `"agent"`) != (want == id) {
			t.Errorf("the file of %s names its agent, or does not", want)
		}
	}
	if _, err := key.MarshalIdentity("reviewer"); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a name for an id: %v", err)
	}
	broken := strings.Replace(string(marshalled(t, key, id)), id, "reviewer", 1)
	if _, _, err := agent.ParseIdentity([]byte(broken)); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a name for an id: %v", err)
	}
}

func marshalled(t *testing.T, key agent.PrivateKey, id string) []byte {
	t.Helper()
	text, err := key.MarshalIdentity(id)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// FuzzManifestHistory: whatever is verified says the same of itself when it is
// taken apart and put together again, and nothing panics.
func FuzzManifestHistory(f *testing.F) {
	t := &testing.T{}
	l := newLineage(t)
	f.Add(l.history)
	l.next(l.key)
	l.next(freshKey(t))
	f.Add(l.history)
	server := freshKey(t)
	signed, err := agent.Countersign(agent.LastManifest(l.history), agent.Countersignature{
		Issuer: "https://auth.example", IssuedAt: l.now, Expires: l.now.Add(time.Minute),
	}, "mf-1", server)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add("~")
	f.Add("e30.e30.AA~e30.e30.AA")
	check := agent.ManifestCheck{Now: l.now, Issuer: "https://auth.example", Countersigner: func(string) (agent.PublicKey, bool) {
		return server.Public(), true
	}}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := check.Verify(text)
		if err != nil {
			if !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("a refusal of another kind: %v", err)
			}
			return
		}
		list, err := agent.VerifyHistory(text)
		if err != nil {
			return // a countersignature
		}
		joined := ""
		for part := range strings.SplitSeq(text, "~") {
			joined = agent.JoinHistory(joined, part)
		}
		if last := list[len(list)-1]; joined != text || last.Seq != m.Seq || last.Key != m.Key || !slices.Equal(last.Scopes, m.Scopes) {
			t.Errorf("%+v and %+v", last, m)
		}
		if m.Seq != int64(len(list)) || list[0].ID != list[0].Key.Thumbprint() || list[0].ID != m.ID {
			t.Errorf("not a history: %+v", list)
		}
	})
}
