package conformance_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/conformance"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	ownVectors       = "../delegation/testdata/kdt1.json"
	publishedVectors = "../delegation/testdata/aat02.json"
)

func read(t *testing.T, path string) *conformance.File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := conformance.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestVectors decides every vector of both files.
func TestVectors(t *testing.T) {
	for path, least := range map[string]int{ownVectors: 1400, publishedVectors: 77} {
		results, err := read(t, path).Run()
		if err != nil {
			t.Fatal(err)
		}
		if len(results) < least {
			t.Errorf("%s: %d vectors", path, len(results))
		}
		for _, r := range results {
			if !r.OK {
				t.Errorf("%s (%s): %s %s, want %s %s: %s differ", r.ID, r.Title, r.Verdict, r.Decided, r.ExpectedVerdict, r.Expected, r.Difference)
			}
		}
	}
}

// steps are the lines of delegation.md §6, operations §7.
var steps = []string{
	"§6.0", "§6.1", "§6.2", "§6.3", "§6.4", "§6.5", "§6.6", "§6.7", "§6.8", "§6.9", "§6.10", "§6.11", "§6.12", "§6.13", "§6.14",
	"§6.15", "§6.16", "§6.17", "§6.order", "§7.derive", "§7.exchange", "§4", "§5",
}

// attacks are those of delegation.md §12, in its order.
var attacks = []string{
	"algorithm confusion", "kid injection and a kid of another purpose or issuer", "header-supplied key", "substituted cnf",
	"splicing a child under another parent of the same key", "reordered, skipped, duplicated links", "truncated to a prefix; suffix alone",
	"a plain token as parent", "stolen token without the key", "proof for another server, chain, tool or arguments", "wildcard tricks",
	"Unicode, case and normalisation", "duplicate members", "number tricks", "time tricks", "dropped constraint, empty map, empty list",
	"a request that leaves a restricted dimension unset", "unknown constraint", "second authorisation entry", "audience confusion",
	"cross-issuer", "principal swap", "forged actor name", "a copied jti used to revoke or to spend another's link",
	"exchange that forgets a revoked link or a budget", "huge chain, deep JSON, constraint bomb",
	"a DPoP proof, manifest, card, assertion, id token used as a link and the reverse",
	"JSON serialisation, whitespace, non-canonical base64", "small-order or off-curve key", "sibling fan-out against max_calls",
	"depth reset through exchange", "prototype names as tool or argument", "revoked parent with live children",
	"a redirect past allow_network", "two credentials in one request",
}

// TestCoverage: at least one vector per line and per attack, and every reason of
// the verifier's vocabulary is expected somewhere.
func TestCoverage(t *testing.T) {
	covered, reasons := map[string]int{}, map[delegation.Reason]int{}
	for _, v := range read(t, ownVectors).KDT1 {
		for _, c := range v.Covers {
			covered[c]++
		}
		reasons[v.Expected.Reason]++
	}
	known := map[string]bool{}
	for _, s := range steps {
		known[s] = true
		if covered[s] == 0 {
			t.Errorf("no vector covers %s", s)
		}
	}
	for _, a := range attacks {
		known["§12:"+a] = true
		if covered["§12:"+a] == 0 {
			t.Errorf("no vector covers the attack %q", a)
		}
	}
	for c, n := range covered {
		if !known[c] {
			t.Errorf("%d vectors cover %q, which is no line and no attack", n, c)
		}
	}
	for _, r := range []delegation.Reason{
		delegation.Malformed, delegation.TooLarge, delegation.BadType, delegation.AlgNotAllowed, delegation.UnknownRoot, delegation.SignatureInvalid,
		delegation.UnknownConstraint, delegation.IssuerMismatch, delegation.IssMismatch, delegation.DuplicateJTI, delegation.ParHashMismatch,
		delegation.DepthInvalid, delegation.PrincipalAltered, delegation.AudienceWidened, delegation.NotYetValid, delegation.OutlivesParent,
		delegation.Expired, delegation.NotNarrower, delegation.KeyReuse, delegation.AudienceMismatch, delegation.HolderBindingFailed,
		delegation.Revoked, delegation.StatusUnknown, delegation.ScopeNotGranted, delegation.ConstraintViolated, delegation.NeedsCounter, delegation.Replayed,
	} {
		if reasons[r] == 0 {
			t.Errorf("no vector expects %s", r)
		}
	}
	t.Logf("%d vectors: %v", len(read(t, ownVectors).KDT1), covered)
}

// TestGenerated: the generator writes the bytes that are committed.
func TestGenerated(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("node is missing")
		}
		t.Skip("node is missing")
	}
	path := filepath.Join(t.TempDir(), "kdt1.json")
	if out, err := exec.Command(node, "../delegation/testdata/kdt1/generate.mjs", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fresh, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile(ownVectors)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh, committed) {
		t.Error("kdt1.json is not what kdt1/generate.mjs writes: run node delegation/testdata/kdt1/generate.mjs")
	}
}

// TestCache: a cache that holds everything that was permitted changes neither a
// verdict nor a reason.
func TestCache(t *testing.T) {
	byConfig := map[string]*delegation.Verifier{}
	for _, v := range read(t, ownVectors).KDT1 {
		if len(v.Credentials) != 1 || v.Credentials[0].Token == "" {
			continue
		}
		bare, err := v.Verifier()
		if err != nil {
			t.Fatal(err)
		}
		config := v.Issuer
		for _, a := range v.Anchors {
			config += a.KID + string(a.JWK)
		}
		cached := byConfig[config]
		if cached == nil {
			cached, _ = v.Verifier()
			cached.Cache = delegation.NewCache()
			byConfig[config] = cached
		}
		now := time.Unix(v.Now, 0)
		_, want := bare.Verify(v.Credentials[0].Token, now)
		for range 2 { // cold, then warm if it was permitted
			chain, got := cached.Verify(v.Credentials[0].Token, now)
			var a, b *delegation.Refusal
			errors.As(want, &a)
			errors.As(got, &b)
			if (a == nil) != (b == nil) || a != nil && *a != *b {
				t.Errorf("%s: %v with a cache, %v without", v.ID, got, want)
			}
			chain.Remember()
		}
	}
}

// TestRunFails: a wrong verdict, reason, link, dimension, path or claim is seen.
func TestRunFails(t *testing.T) {
	wrong := func(id string, change func(*conformance.Vector)) {
		t.Helper()
		for _, v := range read(t, ownVectors).KDT1 {
			if v.ID != id {
				continue
			}
			change(&v)
			if r, err := v.Run(); err != nil || r.OK {
				t.Errorf("%s: %+v %v: the change is not seen", id, r, err)
			}
			return
		}
		t.Errorf("there is no vector %s", id)
	}
	one := 1
	wrong("13-other", func(v *conformance.Vector) { v.Expected = conformance.Outcome{Verdict: conformance.Permit} })
	wrong("13-other", func(v *conformance.Vector) { v.Expected.Reason = delegation.Expired })
	wrong("10-exp-now", func(v *conformance.Vector) { v.Expected.Link = &one })
	wrong("11-size-more", func(v *conformance.Vector) { v.Expected.Dimension = "resources" })
	wrong("16-call-unset", func(v *conformance.Vector) { v.Expected.Detail = "unhandled:resources" })
	wrong("15-none", func(v *conformance.Vector) { v.Expected.Unchecked = nil })
	wrong("17-calls-both", func(v *conformance.Vector) { v.Expected.Debits = v.Expected.Debits[:1] })
	wrong("16-audit", func(v *conformance.Vector) { v.Expected.Obligations = nil })
	wrong("14-dpop-good", func(v *conformance.Vector) { v.Expected.Path[1].Confirmed = true })
	wrong("14-dpop-good", func(v *conformance.Vector) { v.Expected.Principal = "usr_mallory" })
	wrong("7-derive-link", func(v *conformance.Vector) { v.Expected.Claims["sub"] = []byte(`"usr_mallory"`) })
	wrong("7-derive-link", func(v *conformance.Vector) { v.Expected.Claims["scope"] = []byte(`null`) })
	wrong("14-dpop-good", func(v *conformance.Vector) { v.State.Seen = nil; v.Proofs = nil })
}

// TestParse refuses what it would have to pass over.
func TestParse(t *testing.T) {
	data, err := os.ReadFile(ownVectors)
	if err != nil {
		t.Fatal(err)
	}
	drafts, err := os.ReadFile(publishedVectors)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a draft's id twice": strings.Replace(string(drafts), `"id": "J.6.1"`, `"id": "J.1"`, 1),
		"a draft's without":  strings.Replace(string(drafts), `"id": "J.6.1"`, `"id": ""`, 1),
		"nothing":            "", "no profile": `{"vectors":[]}`, "other profile": `{"profile":"KDT2","vectors":[]}`,
		"unknown member":     strings.Replace(string(data), `"covers":`, `"cover":`, 1),
		"unknown reason":     strings.Replace(string(data), `"reason":"too_large"`, `"reason":"too_big"`, 1),
		"unknown verdict":    strings.Replace(string(data), `"verdict":"permit"`, `"verdict":"maybe"`, 1),
		"the same id twice":  strings.Replace(string(data), `"id":"0-charset-newline"`, `"id":"0-charset-padding"`, 1),
		"expects what is no": strings.Replace(string(data), `"unchecked":[]`, `"unchecked":[],"surprise":1`, 1),
		"data behind":        string(data) + "{}",
	} {
		if _, err := conformance.Parse([]byte(text)); !errors.Is(err, conformance.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestParseSays what is wrong in words of the file, not of this program.
func TestParseSays(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "not a file of vectors: it cannot be an array",
		`{"profile":"KDT1","defaults":{},"vectors":[{"id":"x","now":"soon"}]}`: "vector 0: not a file of vectors: now cannot be a string",
		`{"profile":"KDT1","defaults":{},"vectors":[7]}`:                       "vector 0: not a file of vectors: it cannot be a number",
		`{"trust_anchors":[],"vectors":[{"id":"x","now":"soon"}]}`:             "not a file of vectors: vectors.now cannot be a string",
	} {
		if _, err := conformance.Parse([]byte(text)); err == nil || err.Error() != want || !errors.Is(err, conformance.ErrFile) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
