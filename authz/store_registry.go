package authz

import (
	"context"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// RegistryStore is what the registry needs of the database: keys, clients,
// resources, revocations, and the standing of a token's parties.
//
// Reads take a context. Writes return an [audit.Effect] and do nothing until
// it is committed (design D4); each says which rows it must hit.
type RegistryStore interface {
	// Keys returns every key row, oldest first.
	Keys(ctx context.Context) ([]SealedKey, error)
	// InsertKey must hit one row; a taken slot loses.
	InsertKey(SealedKey) audit.Effect
	// RestKeys makes every key of a purpose and algorithm but one rest from a
	// time on, unless it rests sooner, and end at another: any rows.
	RestKeys(purpose, alg, except string, at, ends time.Time) audit.Effect
	// AdvanceKey makes a key that would sign later do so from a time on; it must
	// hit one row.
	AdvanceKey(kid string, at time.Time) audit.Effect
	// EndKey revokes a key; it must hit one row.
	EndKey(kid string, now time.Time) audit.Effect
	// ResealKey replaces the sealed form; it must hit one row.
	ResealKey(kid, before, after string) audit.Effect
	// RemoveKey deletes a key that ended, or was revoked, before a time; it must
	// hit one row.
	RemoveKey(kid string, before time.Time) audit.Effect

	// Client returns a static or registered client, or an error that is
	// [ErrNotFound].
	Client(ctx context.Context, id string) (Client, error)
	// Clients lists static and registered clients by id, after the given one.
	Clients(ctx context.Context, after string, limit int) ([]Client, error)
	// InsertClient must hit one row; a taken id loses.
	InsertClient(Client) audit.Effect
	// UseClient notes the first use of a client that was never used: any rows.
	UseClient(id string, now time.Time) audit.Effect
	// UnusedClients returns ids of registered clients older than before that
	// were never used.
	UnusedClients(ctx context.Context, before time.Time, limit int) ([]string, error)
	// DeleteUnusedClient must hit one row; a client used meanwhile loses.
	DeleteUnusedClient(id string) audit.Effect

	// Resources returns every registered resource with its scopes, by id.
	// The built-in ones are not in the database.
	Resources(ctx context.Context) ([]Resource, error)
	// InsertResource must hit one row each; a taken identifier or scope loses.
	InsertResource(Resource) []audit.Effect
	// DeleteResource must hit the resource's row; a missing one loses.
	DeleteResource(id string) []audit.Effect

	// Revoke records a revocation. The same one again is no error. That of a
	// link with a Grant is lost if the grant's part of the feed is full and no
	// revoked link lies above it, one with Most if there are as many.
	Revoke(Revocation) audit.Effect
	// Absorb takes the links below a revoked one out of the feed.
	Absorb(Revocation) audit.Effect
	// Lift ends a revocation that has no end, and is lost if there is none.
	Lift(kind RevocationKind, value string, now time.Time) audit.Effect
	// Revocations lists those in force, newest first, before the given seq; 0
	// begins with the newest.
	Revocations(ctx context.Context, before int64, limit int, now time.Time) ([]Revocation, error)
	// KeyOwner reads who answers for the agents that proved a key, or an error
	// that is [ErrNotFound] if that is not one person.
	KeyOwner(ctx context.Context, jkt string) (string, error)
	// Feed reads what the revocation feed says.
	Feed(ctx context.Context, now time.Time) (FeedState, error)
	// Standing answers, in one query, whether anything the query names is
	// revoked, suspended or gone, and what role the person behind it has.
	Standing(ctx context.Context, q StandingQuery) (Standing, error)
	// Delegations returns issued tokens that have not expired, by lid.
	Delegations(ctx context.Context, q DelegationQuery) ([]Delegation, error)
	// CountBelow counts delegations that have not expired and came from one of
	// the links.
	CountBelow(ctx context.Context, links []string, now time.Time) (int, error)
	// ExpiredRevocations are those of what had expired at the time, without the
	// one with the highest seq.
	ExpiredRevocations(ended time.Time) audit.Expired

	// AgentOfKey reads the agent whose identity key has that thumbprint now, or an
	// error that is [ErrNotFound].
	AgentOfKey(ctx context.Context, jkt string) (Agent, error)
	// HoldAgentKey remembers a delegation key that an agent proved; ClaimAgentKey
	// one that it only named, unless it is another agent's.
	HoldAgentKey(agentID, jkt string, until time.Time) audit.Effect
	ClaimAgentKey(agentID, jkt string, until time.Time) audit.Effect
	// ExpiredAgentKeys are delegation keys that nothing was bound to any more.
	ExpiredAgentKeys(ended time.Time) audit.Expired

	// Once must hit one row: key is presented for the first time. It is kept
	// until what carries it has expired.
	Once(key string, until time.Time) audit.Effect
	// OnceByAgent is Once, and must also find jkt to be the agent's identity key
	// at that moment.
	OnceByAgent(key string, until time.Time, agentID, jkt string) audit.Effect
	// ExpiredReplays are those of what had expired at the time.
	ExpiredReplays(ended time.Time) audit.Expired
	// ExpiredCounters are the budgets of links that ended before the time.
	ExpiredCounters(ended time.Time) audit.Expired
}

// RevocationKind is what a revocation names.
type RevocationKind string

// The kinds of a revocation row.
const (
	RevokeGrant  RevocationKind = "gid"
	RevokeLink   RevocationKind = "lid"
	RevokeKey    RevocationKind = "key"
	RevokeClient RevocationKind = "client"
	// RevokeAgent is a suspension. Here the status of the agent decides; the row
	// is for those who read the feed.
	RevokeAgent RevocationKind = "agent"
	// RevokeBefore ends what a grant had issued before a time; the grant lives
	// on. Its value is a gid, or EveryGrant.
	RevokeBefore RevocationKind = "before"
	// RevokeRole is a RevokeBefore for those who read the feed alone: whoever the
	// grant is of has another role since. Here a token keeps the scopes that the
	// person still holds, which no offline verifier can know.
	RevokeRole RevocationKind = "role"
)

// EveryGrant is the value of a RevokeBefore that spares nobody.
const EveryGrant = "*"

// Revocation is one row of revocations: it ends what it names and everything
// below it, because every check of a token looks up all its ancestors.
type Revocation struct {
	Seq   int64 // its place among all; set when it is read
	Kind  RevocationKind
	Value string    // gid, lid, jkt or client_id
	Path  []string  // ids above a revoked link: revoking one of them covers it
	Grant string    // the gid of a revoked link, or of the token that showed a key
	Until time.Time // after this nothing it names can be alive; zero: until lifted
	At    time.Time
	// Before is the time of a RevokeBefore, in whole seconds as iat is.
	Before time.Time
	// Most, if not 0, makes the revocation lose where as many others of its kind
	// stand until they are lifted.
	Most int
}

// FeedState is what the database says of the feed.
type FeedState struct {
	// Seq is the highest of all revocations, also of those that ended.
	Seq int64
	// Links, Grants and Keys are revoked.
	Links, Grants, Keys []string
	// Clients are ids of who may not act: revoked, suspended, disabled, or an
	// agent whose owner is.
	Clients []string
	// Before is by gid, or EveryGrant; also of roles that were lost.
	Before map[string]time.Time
}

// StandingQuery names what one token stands on.
type StandingQuery struct {
	// Principal is sub: a person, whose role is looked up; an agent, whose
	// owner's is; or a client, which has none. It must exist.
	Principal string
	// Parties are the other ids that the server knows to be in the token's
	// path: agents, clients, people. They must exist too.
	Parties []string
	// Labels are ids that somebody only asserted. Those that exist must be
	// active.
	Labels []string
	// Grants, Links, Keys and Ancestors (lids and jkts of anc) are looked up
	// among the revocations; Principal, Parties and Labels as clients too.
	Grants, Links, Keys, Ancestors []string
	// Issued is when the server issued the token, for revocations of all that
	// the grant had issued before a time. Zero: it is not a token that is asked
	// about.
	Issued time.Time
	// Named are ids of agents that a request names, who need not be in the
	// token. The answer says which of them may act; nothing else depends on them.
	Named []string
	Now   time.Time
}

// Standing is the answer to a StandingQuery.
type Standing struct {
	// Dead: something is revoked, or a party is suspended, disabled or gone.
	Dead bool
	// Holder is the person behind the principal; zero if there is none.
	Holder Holder
	// Agent says that the principal is an agent, and Holder its owner.
	Agent bool
	// Acting are those of Named that are agents and not suspended.
	Acting []string
}

// DelegationQuery selects tokens that were issued and have not expired.
type DelegationQuery struct {
	// Link is a lid: that one token.
	Link string
	// Grant, Agent and Path, without Link: what was delegated to Agent below
	// the grant, with a path that begins with Path.
	Grant string
	Agent string
	Path  []string
	// After is the lid of the last one of the page before.
	After string
	Limit int
	Now   time.Time
}

// Delegation is what the log says about one token that was issued.
type Delegation struct {
	LID     string
	Grant   string
	Path    []string // parties from the root to whoever will use it
	Above   []string // ids of what it came from
	Expires time.Time
}
