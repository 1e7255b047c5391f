package delegation_test

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// theStrict is a verifier that knows only AAT, at the git host.
var theStrict = delegation.AATStrict{
	Anchors:  []delegation.AATAnchor{{Issuer: issuer, Key: server.public()}, {Issuer: issuer, Key: serverES.public()}},
	Audience: gitHost,
}

// strictly: a chain that stands here stands for a verifier that knows only AAT,
// which reads it with other code, and it permits there what the leaf says of
// tools, no more and no less. (A chain of an at+jwt root it does not take.)
func (f *forest) strictly(n *node) {
	leaf := n.leaf()
	w := askFor(f.r, leaf, leaf)
	tool, known := leaf.tools[w.tool]
	if w.inadmissible {
		return // no proof can be made of such arguments
	}
	want := ""
	switch {
	case !known || !tool.takes(w.plain):
		want = "6b"
	case slices.ContainsFunc(n.sheets, func(s sheet) bool { return !slices.Contains(s.aud, gitHost) }):
		want = "6c"
	}
	jti, _ := leaf.claims["jti"].(string)
	arguments := jcsOf(w.arguments)
	proof, err := agent.SignAATProof(holderPrivate[leaf.to], agent.AATProof{
		LID: leaf.lid, LeafJTI: jti, Tool: w.tool, Arguments: arguments, Audience: gitHost, IssuedAt: now,
	})
	if err != nil {
		broken("a proof can be made of every call", "%v", err)
	}
	_, err = theStrict.Verify(delegation.AATPresentation{Chain: strings.Split(n.text, "~"), Proof: proof, Tool: w.tool, Arguments: arguments}, now)
	step := ""
	if refusal, ok := err.(*delegation.StrictRefusal); ok {
		step = refusal.Step
	}
	if step != want || (err == nil) != (want == "") {
		broken("AATStrict takes what stands here", "%v, want step %q, of %s%s", err, want, w.tool, jcs.Canonical(arguments))
	}
	f.saw("strict/" + want)
}
