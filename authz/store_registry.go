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

	// Revoke records a revocation. The same one again is no error.
	Revoke(Revocation) audit.Effect
	// Standing answers, in one query, whether anything the query names is
	// revoked, suspended or gone, and what role the person behind it has.
	Standing(ctx context.Context, q StandingQuery) (Standing, error)
	// Delegations returns issued tokens that have not expired, by lid.
	Delegations(ctx context.Context, q DelegationQuery) ([]Delegation, error)
	// CountBelow counts delegations that have not expired and came from one of
	// the links.
	CountBelow(ctx context.Context, links []string, now time.Time) (int, error)
	// PurgeRevocations forgets revocations of what has expired anyway.
	PurgeRevocations(now time.Time) audit.Effect

	// Once must hit one row: key is presented for the first time. It is kept
	// until what carries it has expired.
	Once(key string, until time.Time) audit.Effect
	// PurgeReplays forgets what has expired.
	PurgeReplays(now time.Time) audit.Effect
}

// RevocationKind is what a revocation names.
type RevocationKind string

// The kinds of a revocation row.
const (
	RevokeGrant  RevocationKind = "gid"
	RevokeLink   RevocationKind = "lid"
	RevokeKey    RevocationKind = "key"
	RevokeClient RevocationKind = "client"
)

// Revocation is one row of revocations: it ends what it names and everything
// below it, because every check of a token looks up all its ancestors.
type Revocation struct {
	Kind  RevocationKind
	Value string    // gid, lid, jkt or client_id
	Path  []string  // ids above a revoked link: revoking one of them covers it
	Until time.Time // after this nothing it names can be alive; zero: until lifted
	At    time.Time
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
