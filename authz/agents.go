package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

// AgentStatus says whether an agent may act.
type AgentStatus string

// The statuses of an agent. Only an active one may act.
const (
	AgentActive    AgentStatus = "active"
	AgentSuspended AgentStatus = "suspended"
)

// Agent is a registered agent: what its current manifest says, and who answers
// for it.
type Agent struct {
	// ID is the thumbprint of its first key: its client_id, sub and act.sub.
	ID string
	// Owner is the user who answers for it, the person behind it.
	Owner string
	// Name is a label, unique among the owner's agents.
	Name string
	// Status says whether it may act.
	Status AgentStatus
	// Version, Purpose, Scopes, Capabilities, MaxDepth are from the manifest.
	Version      string
	Purpose      string
	Scopes       []string
	Capabilities []string
	MaxDepth     int
	// Key is its identity key. It signs manifests, cards and assertions and is
	// never what a token is bound to.
	Key agent.PublicKey
	// ManifestSeq and ManifestExpires are of the current manifest; an agent
	// whose manifest has expired gets no new tokens.
	ManifestSeq     int64
	ManifestExpires time.Time
	Created         time.Time
}

// under is the agent with what a manifest says of it.
func (a Agent) under(m agent.Manifest) Agent {
	a.Name, a.Version, a.Purpose, a.Scopes = m.Name, m.Version, m.Purpose, m.Scopes
	a.Capabilities, a.MaxDepth, a.Key = m.Capabilities, m.MaxDepth, m.Key
	a.ManifestSeq, a.ManifestExpires = m.Seq, m.Expires
	return a
}

// Active reports whether the agent may get tokens: not suspended, and its
// manifest has not expired.
func (a Agent) Active(now time.Time) bool {
	return a.Status == AgentActive && now.Before(a.ManifestExpires)
}

// Depth returns how many levels tokens issued to the agent may be handed on at
// most: 0 without the capability to delegate (delegation.md §10).
func (a Agent) Depth() int {
	if !slices.Contains(a.Capabilities, agent.CapabilityDelegate) {
		return 0
	}
	return a.MaxDepth
}

// Enrolment is an invitation: whoever presents its token may register one agent
// of the owner.
type Enrolment struct {
	// Hash is of the token; the token itself is stored nowhere.
	Hash string
	// Owner is the user who will answer for the agent.
	Owner string
	// Renews, if not empty, is the agent whose key change it allows; it is good
	// for nothing else then.
	Renews           string
	Created, Expires time.Time
	// Used is when it was spent; zero until then.
	Used time.Time
	// Agent is who registered with it.
	Agent string
}

// SignedManifest is a manifest as it was signed.
type SignedManifest struct {
	Seq   int64
	Token string
	// Added is when this server took it.
	Added time.Time
}

// AgentStore holds agents, their manifests and enrolments. Reads answer
// ErrNotFound for what is not there; writes are effects of a Change.
type AgentStore interface {
	// Agent reads an agent by its id.
	Agent(ctx context.Context, id string) (Agent, error)
	// AgentNamed reads an agent by its name among those of its owner.
	AgentNamed(ctx context.Context, owner, name string) (Agent, error)
	// Agents lists agents by id after one; owner "" means all owners.
	Agents(ctx context.Context, owner, after string, limit int) ([]Agent, error)
	// AgentNames returns names of active agents of an owner that begin with
	// prefix, sorted.
	AgentNames(ctx context.Context, owner, prefix string, limit int) ([]string, error)
	// Manifest reads the current manifest of an agent as it was signed.
	Manifest(ctx context.Context, id string) (string, error)
	// Manifests reads manifests of an agent by seq, after the given one.
	Manifests(ctx context.Context, id string, after int64, limit int) ([]SignedManifest, error)
	// AgentKeyKnown says whether a key is or was any agent's.
	AgentKeyKnown(ctx context.Context, jkt string) (bool, error)
	// Enrolment reads an enrolment by the hash of its token, also a spent or
	// expired one.
	Enrolment(ctx context.Context, hash string) (Enrolment, error)
	// StandingGrant reads the standing grant of an agent, also a removed one.
	StandingGrant(ctx context.Context, agentID string) (Grant, error)

	// InsertAgent must hit one row; a taken id, or a name the owner has given
	// already, loses.
	InsertAgent(Agent) audit.Effect
	// InsertManifest must hit one row.
	InsertManifest(agentID string, seq int64, token string, now time.Time) audit.Effect
	// InsertEnrolment must hit one row.
	InsertEnrolment(Enrolment) audit.Effect
	// UseEnrolment must hit one row: a spent or expired enrolment loses, and one
	// that is for another agent than renews.
	UseEnrolment(hash, agentID, renews string, now time.Time) audit.Effect
	// UpdateAgent must hit one row: a takes the place of before, if that is what
	// the agent is.
	UpdateAgent(before, a Agent) audit.Effect
	// InsertAgentKey must hit one row: a key that any agent has or had loses.
	InsertAgentKey(agentID, jkt string, seq int64) audit.Effect
	// SuspendAgent stops an agent that acts.
	SuspendAgent(id string) audit.Effect
	// ResumeAgent must hit one row: an agent that is not suspended loses.
	ResumeAgent(id string) audit.Effect
	// LiftAgent ends the revocation that a suspension made.
	LiftAgent(agentID string, now time.Time) audit.Effect
	// CutAgent ends what an agent was given before, and the delegation keys that
	// are known; its standing grant goes on.
	CutAgent(agentID string, now, until time.Time) []audit.Effect
	// ExpiredEnrolments are those that had expired at the time.
	ExpiredEnrolments(ended time.Time) audit.Expired
	// PutStandingGrant sets the standing grant of g.ClientID.
	PutStandingGrant(g Grant) audit.Effect
	// RevokeGrant ends a grant.
	RevokeGrant(id string, now time.Time) audit.Effect
	// Once must hit one row: key was presented for the first time.
	Once(key string, until time.Time) audit.Effect
}

// AgentsConfig is what Agents is made of.
type AgentsConfig struct {
	// Issuer is the configured issuer URL: the audience of assertions.
	Issuer string
	// Store is the database.
	Store AgentStore
	// Commit writes what is decided together with its record.
	Commit audit.Committer
	// Refusals records refusals to callers that did not authenticate.
	Refusals Refusals
	// Registry knows people, resources and scopes.
	Registry *Registry
	// Keys countersigns manifests. Nil: none is countersigned.
	Keys ManifestSigner
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// ManifestSigner has the key that countersigns manifests. A *Keyring is one.
type ManifestSigner interface {
	ManifestSigner(ctx context.Context) (kid string, key agent.PrivateKey, err error)
}

// Agents is the registry of agents. It is an AgentDirectory.
type Agents struct {
	cfg AgentsConfig
}

// NewAgents makes a registry of agents. It reads and writes nothing yet.
func NewAgents(cfg AgentsConfig) *Agents {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Agents{cfg: cfg}
}

// Agent returns an agent by its id.
func (a *Agents) Agent(ctx context.Context, id string) (Agent, error) {
	if !agent.IsID(id) {
		return Agent{}, ErrNotFound
	}
	return a.cfg.Store.Agent(ctx, id)
}

// FindAgent returns an agent by its id, or by its name among the agents of
// owner, in whatever state it is; ErrNotFound if there is none. A name never
// has the form of an id.
func (a *Agents) FindAgent(ctx context.Context, owner, idOrName string) (Agent, error) {
	if agent.IsID(idOrName) {
		return a.cfg.Store.Agent(ctx, idOrName)
	}
	if owner == "" || !agent.IsName(idOrName) {
		return Agent{}, ErrNotFound
	}
	return a.cfg.Store.AgentNamed(ctx, owner, idOrName)
}

// Agents lists the agents of an owner, or of everybody if owner is "", by id
// after the given one.
func (a *Agents) Agents(ctx context.Context, owner, after string, limit int) ([]Agent, error) {
	return a.cfg.Store.Agents(ctx, owner, after, limit)
}

// AgentNames returns at most limit names, sorted, of active agents of the
// person behind the principal that begin with prefix.
func (a *Agents) AgentNames(ctx context.Context, principal, prefix string, limit int) ([]string, error) {
	holder, err := a.cfg.Registry.Holder(ctx, principal)
	if errors.Is(err, ErrNotFound) || err == nil && holder.ID == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return a.cfg.Store.AgentNames(ctx, holder.ID, prefix, limit)
}

// activeOwner returns the person who is to answer for an agent.
func (a *Agents) activeOwner(ctx context.Context, owner string) (Holder, error) {
	holder, err := a.cfg.Registry.Holder(ctx, owner)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Holder{}, fmt.Errorf("reading the owner: %w", err)
	}
	if err != nil || holder.ID != owner || !holder.Active {
		return Holder{}, invalid("the owner must be an active user")
	}
	return holder, nil
}

// Expired lists what may be removed of the tables of agents: enrolments.
func (a *Agents) Expired() []audit.Expired {
	return []audit.Expired{a.cfg.Store.ExpiredEnrolments(a.cfg.Now().Add(-audit.ClockSkew))}
}
