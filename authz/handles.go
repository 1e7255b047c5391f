package authz

import (
	"context"
	"errors"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// handleTTL is how long a handle can be redeemed (authorization-server.md §5).
const handleTTL = 60 * time.Second

// A Handle stands for a delegation that nobody has fetched yet: single use, and
// of use to the named agent alone.
type Handle struct {
	// Hash is the base64url SHA-256 of the handle.
	Hash string
	// Sealed is the parent and what was asked of it, under a key derived from
	// the handle itself; empty once it was redeemed.
	Sealed string
	// Created and Expires bound its life.
	Created, Expires time.Time
	// Used is when it was redeemed; zero is not.
	Used time.Time
}

// DelegateHandle decides like [Server.Delegate] and hands out, instead of the
// token, a handle for it: the named agent redeems it once, within a minute, by
// its own authentication and with its own key. credential is the text that
// parent was verified from. The Token of what is returned is the handle;
// everything else says what its token will be.
func (s *Server) DelegateHandle(ctx context.Context, credential string, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	return delegation.Issued{}, errors.New("authz: handles are not made yet")
}
