package delegation

import (
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Narrow is what the next link is to allow. Everything it leaves out stays as
// the parent has it, except the scopes, which have to be named.
type Narrow struct {
	// ClientID is the receiver's id: a label on the delegator's word. Required.
	ClientID string
	// Scopes may be empty, which grants none.
	Scopes []string
	// Audience nil keeps the parent's.
	Audience []string
	// TTL 0 means DefaultLinkTTL; MaxLinkTTL is the most. It is cut to what
	// the parent has left.
	TTL time.Duration
	// Tools nil keeps the parent's.
	Tools Tools
	// Limits keeps of the parent's what it leaves absent.
	Limits Limits
	// MaxDepth is how many more links may follow; nil keeps what the parent
	// leaves, 0 seals the link.
	MaxDepth *int
}

// Derived is a chain made by Derive.
type Derived struct {
	// Chain is the whole credential: hand over this, and never a private key.
	Chain string
	// LID and JTI are those of the new link.
	LID string
	JTI string
	// Expires is its end, Clamped whether that is earlier than asked.
	Expires time.Time
	Clamped bool
}

// Derive appends a link to a chain, offline: key is the holder's private key
// (the one in the last token's cnf), to the receiver's public key. It refuses
// what a verifier would refuse: a sealed or expired parent, anything wider, a
// key that is already in the chain. It does not verify the parent: Verify
// first what you did not make.
func Derive(parent string, key agent.PrivateKey, to agent.PublicKey, n Narrow, now time.Time) (Derived, error) {
	panic("unbuilt")
}
