package delegation

import (
	"crypto/subtle"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// openProof is 7a and 7b.
func (run *strictRun) openProof(proof string) (jcs.Value, *StrictRefusal) {
	key := run.leaf().key
	if len(proof) > run.maxToken {
		return jcs.Value{}, strictly("7a", "the proof is too large")
	}
	t, ok := splitStrict(proof)
	if !ok || !t.headerFits(agent.AATProofType) || t.alg() != key.Alg() {
		return jcs.Value{}, strictly("7a", "header of the proof")
	}
	if !key.Verify([]byte(t.signed), t.signature) {
		return jcs.Value{}, strictly("7b", "signature of the proof")
	}
	v, ok := t.claims()
	if !ok {
		return jcs.Value{}, strictly("7b", "claims of the proof are not strict JSON")
	}
	return v, nil
}

// call is step 6.
func (run *strictRun) call(tool string, arguments jcs.Value) *StrictRefusal {
	leaf := run.leaf()
	last := len(run.parts) - 1
	if !leaf.authority {
		return strictly("6a", "the leaf grants nothing").at(last)
	}
	if !strictAllows(leaf.tools, tool, arguments) {
		return strictly("6b", "the tool or its arguments").at(last)
	}
	named := false
	for i := range run.parts {
		aud := run.parts[i].aud
		if !aud.Exists() {
			continue
		}
		if !run.named(aud) {
			return strictly("6c", "aud is not this enforcement point").at(i)
		}
		named = true
	}
	if run.RequireAudience && !named {
		return strictly("6c", "no token has an aud")
	}
	return nil
}

// named reports whether an aud, a string or an array of them, names this
// enforcement point.
func (run *strictRun) named(aud jcs.Value) bool {
	list, ok := aud.Strings()
	if aud.Kind() == jcs.String {
		list, ok = []string{aud.Str()}, true
	}
	return ok && run.Audience != "" && slices.Contains(list, run.Audience)
}

// proof is 7c to 7h.
func (run *strictRun) proof(v jcs.Value, tool string, arguments jcs.Value) (agent.VerifiedAATProof, *StrictRefusal) {
	refused := func(step, detail string) (agent.VerifiedAATProof, *StrictRefusal) {
		return agent.VerifiedAATProof{}, strictly(step, detail)
	}
	leaf, hta := run.leaf(), v.Get("hta")
	for _, name := range []string{"jti", "aat_id", "aat_hash", "aat_tool"} {
		if v.Get(name).Str() == "" {
			return refused("7c", name)
		}
	}
	var iat int64
	// "`hta` object (absent is not `{}`)".
	if !strictInteger(v.Get("iat"), &iat) || hta.Kind() != jcs.Object {
		return refused("7c", "iat or hta")
	}
	if v.Get("aat_id").Str() != leaf.jti || subtle.ConstantTimeCompare([]byte(v.Get("aat_hash").Str()), []byte(leaf.lid)) != 1 {
		return refused("7c", "the proof is of another leaf")
	}
	aud, nonce := v.Get("aat_aud"), v.Get("nonce")
	switch {
	case aud.Exists() && (aud.Kind() != jcs.String || !run.named(aud)):
		return refused("7d", "aat_aud is not this enforcement point")
	case !aud.Exists() && run.RequireProofAudience:
		return refused("7d", "no aat_aud")
	case v.Get("aat_tool").Str() != tool:
		return refused("7e", "aat_tool is another tool")
	case !jcs.Equal(hta, arguments):
		return refused("7f", "hta are other arguments")
	case iat < run.now-run.window || iat > run.now+run.window:
		return refused("7g", "not made now")
	case run.Nonce != nil && (nonce.Kind() != jcs.String || !run.Nonce(nonce.Str())):
		return refused("7h", "no nonce of this enforcement point")
	}
	return agent.VerifiedAATProof{
		Key: leaf.key, JTI: v.Get("jti").Str(), Nonce: nonce.Str(), Tool: tool, Arguments: hta, IssuedAt: time.Unix(iat, 0),
	}, nil
}
