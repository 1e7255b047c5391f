package delegation

import (
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Ask is what somebody wants derived online from a verified subject.
type Ask struct {
	// Caller is the client that the server authenticated; empty is the
	// subject's own last party.
	Caller string
	// Receiver is the agent named to use the result; empty is the caller.
	Receiver string
	// ReceiverProved says that Receiver showed a key card or that Key is its
	// registered key. Otherwise its act object carries "proved": false.
	ReceiverProved bool
	// Key is the receiver's key; zero asks for an unbound token, which a
	// bound subject never yields. For the caller itself a zero Key keeps the
	// subject's.
	Key agent.PublicKey

	// Scopes may be empty, which grants none.
	Scopes []string
	// Audience is required.
	Audience []string
	// AudienceAware says that every resource in Audience is registered as
	// kavach-aware.
	AudienceAware bool
	// TTL 0 means DefaultLinkTTL; MaxRootTTL is the most. It is cut to what
	// the subject has left.
	TTL time.Duration
	// Tools nil keeps the subject's.
	Tools Tools
	// Limits keeps of the subject's what it leaves absent.
	Limits Limits
	// MaxDepth is how many more hand-overs the result may allow; nil is all
	// that is left. The server puts 0 for an agent that may not delegate.
	MaxDepth *int
	// GrantDepth is the depth of the grant behind a plain subject. Zero means
	// that it allows no hand-over.
	GrantDepth int
}

// Draft is what Exchange decided, ready to be signed.
type Draft struct {
	Claims Claims
	// Clamped says that Expires is earlier than asked.
	Clamped bool
	// Parties are those who act, from the principal to the user of the token.
	Parties []Party
}

// Issued is a signed Draft.
type Issued struct {
	Signed
	Scopes    []string
	Audience  []string
	Tools     Tools
	Limits    Limits
	ExpiresIn time.Duration
	Expires   time.Time
	Clamped   bool
	// Root says that links can be appended.
	Root bool
	// Path is the ids of Draft.Parties.
	Path []string
}

// Sign signs the draft.
func (d Draft) Sign(key ServerKey) (Issued, error) {
	panic("unbuilt")
}

// Exchange is the one function that derives online (delegation.md §7): token
// exchange and the MCP tool delegate. It computes the claims of a new root or
// plain token whose authority is covered by every link of the subject. It is
// pure: the caller has checked proof (14) and revocation (15) of the subject.
func (c *Chain) Exchange(ask Ask, now time.Time) (Draft, error) {
	panic("unbuilt")
}
