package delegation_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// Fuzzing signatures finds new coverage in the arithmetic with nearly every
// input; run these with -fuzzminimizetime 10x, or minimizing takes all the time.

// FuzzVerify feeds the splitter and the steps: nothing panics, every failure is
// a refusal with a reason, and what verifies is one of the seeds.
func FuzzVerify(f *testing.F) {
	root := rootToken()
	link := linkUnder(root, reviewerKey)
	// Ed25519 alone: workers must make the same seeds.
	plain := plainToken().signedBy(server).under(object{"kid": "at-ed"})
	seeds := []string{plain.String(), root.String(), join(root, link), join(root, link, linkUnder(link, helperKey))}
	for _, seed := range append(seeds, "", "~", "..", "a.b.c~d.e.f", strings.Repeat("a.b.c~", 10)) {
		f.Add(seed)
	}
	v := verifier(f)
	f.Fuzz(func(t *testing.T, token string) {
		chain, err := v.Verify(token, now)
		if err == nil {
			for _, seed := range seeds {
				if seed == token || strings.HasPrefix(seed, token+"~") {
					return
				}
			}
			t.Fatalf("%q verifies: %+v", token, chain.Links())
		}
		if chain != nil || !errors.Is(err, delegation.ErrRefused) || delegation.ReasonOf(err) == "" {
			t.Fatalf("%v, %v", chain, err)
		}
		_, _ = delegation.Inspect(token)
	})
}

// FuzzClaims puts any bytes under a good signature.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(text(plainToken().claims)), false)
	f.Add([]byte(text(rootToken().claims)), false)
	f.Add([]byte(text(linkUnder(rootToken(), reviewerKey).claims)), true)
	f.Add([]byte(`{"authorization_details":[{"type":"kavach_limits","resources":null}]}`), false)
	v := verifier(f)
	root := rootToken()
	f.Fuzz(func(t *testing.T, payload []byte, asLink bool) {
		edit := func(string) string { return string(payload) }
		token := root
		token.payload = edit
		credential := token.String()
		if asLink {
			link := linkUnder(root, reviewerKey)
			link.payload = edit
			credential = join(root, link)
		}
		chain, err := v.Verify(credential, now)
		if err != nil {
			if !errors.Is(err, delegation.ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		// What verifies has every accessor.
		_ = chain.Links()
		_ = chain.Revocable()
		_ = chain.Agent()
		_ = chain.Allows(delegation.Request{Scope: delegation.NoScope()})
	})
}

// FuzzLimits: parse → write → parse is the identity.
func FuzzLimits(f *testing.F) {
	f.Add([]byte(`{"resources":["pr/847","repo/*"],"allow_network":["*.internal:443","[::1]"],"max_file_size":5,"max_calls":1,"audit_required":true}`))
	f.Add([]byte(`{"resources":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := jcs.Parse(data, jcs.Limits{})
		if err != nil {
			return
		}
		l, err := delegation.ParseLimits(v)
		if err != nil {
			if !errors.Is(err, delegation.ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		first, err := jcs.Marshal(l.Map())
		if err != nil {
			t.Fatal(err)
		}
		if string(first) != string(jcs.Canonical(v)) {
			t.Fatalf("%s becomes %s", data, first)
		}
	})
}
