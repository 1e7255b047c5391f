package delegation_test

import (
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// Step 13.
func TestStep13Audience(t *testing.T) {
	several := verified(t, plainToken().String())
	wantRefusal(t, several.For(gitHost), delegation.AudienceMismatch)
	wantRefusal(t, several.ForAmong("https://elsewhere.example"), delegation.AudienceMismatch)
	if err := several.ForAmong(mcpHost); err != nil {
		t.Error(err)
	}
	root := rootToken()
	one := verified(t, join(root, linkUnder(root, reviewerKey)))
	if err := one.For(gitHost); err != nil {
		t.Error(err)
	}
	for _, audience := range []string{"", gitHost + "/", mcpHost, "https://GIT.example", "https://git.example:443"} {
		wantRefusal(t, one.For(audience), delegation.AudienceMismatch)
		wantRefusal(t, one.ForAmong(audience), delegation.AudienceMismatch)
	}
}

// The scheme rule of §3, the part of step 14 that needs no proof.
func TestScheme(t *testing.T) {
	root := rootToken()
	for _, c := range []struct{ name, token, scheme string }{
		{"plain", plainToken().String(), "Bearer"},
		{"bound", plainToken().with(object{"cnf": object{"jkt": orchKey.jkt()}}).String(), "DPoP"},
		{"root", root.String(), "DPoP"},
		{"chain", join(root, linkUnder(root, reviewerKey)), "DPoP"},
	} {
		chain := verified(t, c.token)
		for _, scheme := range []string{"Bearer", "DPoP", "", "bearer", "Basic"} {
			if err := chain.CheckScheme(scheme); (err == nil) != (scheme == c.scheme) {
				t.Errorf("%s as %q: %v", c.name, scheme, err)
			} else if err != nil {
				wantRefusal(t, err, delegation.HolderBindingFailed)
			}
		}
	}
}
