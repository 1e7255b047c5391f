package delegation_test

import (
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// FuzzStrictPayload signs any bytes as a root: nothing panics, nothing that is
// no strict JSON is permitted, and step 2c reads the jti that the strict parser
// reads.
func FuzzStrictPayload(f *testing.F) {
	c := newAAT(f, 0)
	var good string
	c.edit[0] = func(x *aatToken) {
		respell(f, `"jti"`, ` "jti"`)(x)
		good = x.raw
	}
	proof := c.build().Proof
	f.Add([]byte(good))
	for _, text := range []string{
		`{"jti":"a"}`, `{"a":{"jti":1},"jti":"a"}`, `{"a":"\"","jti":"\u0061"}`, `{"a":[{"b":"]}"}],"jti":"a","jti":"b"}`,
		`{"jti":7}`, `{"\u006a\u0074\u0069":"a"}`, `{ "jti" : "a" , }`, `{"jti":"\ud800"}`, `{"`, `{"a":"\`, `[]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) == 0 {
			return // sign writes the claims for it
		}
		x := aatToken{key: c.anchor, header: object{"alg": "Ed25519", "typ": "aat+jwt"}, raw: string(payload)}
		permit, err := c.verifier.Verify(delegation.AATPresentation{
			Chain: []string{x.sign(t)}, Proof: proof, Tool: "read", Arguments: jsonText(`{"path":"/a"}`),
		}, time.Unix(aatNow, 0))
		step := stepOf(err)
		if (err == nil) != (permit != nil) || err != nil && step == "" {
			t.Fatalf("%v, %v", permit, err)
		}
		v, bad := jcs.Parse(payload, jcs.Limits{Depth: 4096})
		switch {
		case bad != nil && step != "2a" && step != "2c" && step != "3b":
			t.Errorf("%q is no strict JSON: step %q", payload, step)
		case bad == nil && step != "2a" && (step == "2c") != (v.Kind() != jcs.Object || v.Get("jti").Kind() != jcs.String):
			t.Errorf("%q: step %q", payload, step)
		}
	})
}
