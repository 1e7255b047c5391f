package delegation

import (
	"github.com/kavach-dev/kavach/jcs"
)

// Unverified is one part of a credential as it reads. Nobody vouches for it.
type Unverified struct {
	UnverifiedHeader jcs.Value
	UnverifiedClaims jcs.Value
	// LID is what the part would be identified by.
	LID string
}

// Inspect takes a token or chain apart without verifying anything, for people
// who want to look at one. It refuses what is no JSON in compact JWTs.
func Inspect(token string) ([]Unverified, error) {
	texts, refusal := split(token)
	if refusal != nil {
		return nil, refusal
	}
	list := make([]Unverified, 0, len(texts))
	for i, text := range texts {
		header, err := jcs.Parse(text.header, jcs.Limits{})
		if err != nil {
			return nil, refuse(Malformed, "", "header").at(i)
		}
		claims, err := jcs.Parse(text.payload, jcs.Limits{})
		if err != nil {
			return nil, refuse(Malformed, "", "claims are not strict JSON").at(i)
		}
		list = append(list, Unverified{UnverifiedHeader: header, UnverifiedClaims: claims, LID: text.lid()})
	}
	return list, nil
}
