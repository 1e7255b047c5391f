package authz

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

var (
	// ErrEnrolment: the enrolment token is unknown, spent or expired, or there
	// is neither one nor an owner.
	ErrEnrolment = errors.New("authz: the enrolment token is unknown, used or expired")
	// ErrReplayed: an assertion that was presented before.
	ErrReplayed = errors.New("authz: the assertion was used before")
)

const (
	// assertionLife is the longest life of the assertion of a registration
	// (delegation.md §10: "`jti`, ≤ 60 s").
	assertionLife = time.Minute
	// defaultEnrolmentTTL and maxEnrolmentTTL bound an invitation.
	defaultEnrolmentTTL = time.Hour
	maxEnrolmentTTL     = 30 * 24 * time.Hour
	// registeredHistory is how many manifests an agent may bring along.
	registeredHistory = 16
	// enrolEndpoint names the endpoint in records of refusals.
	enrolEndpoint = "agents"
)

// Registration is what an agent presents to be registered: "manifest + a
// `private_key_jwt` assertion + an enrolment token or its owner".
type Registration struct {
	// Manifest is the signed manifest, seq 1, or the full history of an agent
	// that has had others.
	Manifest string
	// Assertion proves the possession of the manifest's key: a client assertion
	// with aud our issuer, of at most a minute.
	Assertion string
	// EnrolmentToken is the enrolment token, which says for whom, if nobody is
	// signed in.
	EnrolmentToken string
	// Owner is the user who will answer for the agent, if By is that user or
	// somebody who may speak for that user. Exactly one of the two is given.
	Owner string
	// By is who registers it for Owner.
	By Actor
	// Source is the address of who asks, for the record of refusals to callers
	// that did not authenticate.
	Source string
}

// Register registers an agent. Errors are ErrInvalid (its text says what is
// wrong), ErrEnrolment, ErrReplayed, ErrExists, or a failure of the storage.
func (a *Agents) Register(ctx context.Context, r Registration) (Agent, error) {
	now := a.cfg.Now()
	owner, spend, err := a.authority(ctx, r, now)
	if err != nil {
		return Agent{}, a.refuse(ctx, r, Agent{}, err)
	}
	r.Manifest = strings.TrimSpace(r.Manifest)
	m, err := agent.VerifyManifest(r.Manifest, now)
	if err != nil {
		return Agent{}, a.refuse(ctx, r, Agent{Owner: owner.ID}, refusedAs("manifest", err))
	}
	list, err := agent.VerifyHistory(r.Manifest)
	if err != nil {
		return Agent{}, a.refuse(ctx, r, Agent{Owner: owner.ID}, refusedAs("manifest", err))
	}
	if len(list) > registeredHistory {
		return Agent{}, a.refuse(ctx, r, Agent{Owner: owner.ID}, invalid("manifest: an agent brings a history of at most %d", registeredHistory))
	}
	made := Agent{ID: m.ID, Owner: owner.ID, Status: AgentActive, Created: now}.under(m)
	proof, err := a.possession(r.Assertion, m.ID, m.Key, now)
	if err != nil {
		return Agent{}, a.refuse(ctx, r, made, err)
	}
	change := audit.Change{
		Effects: []audit.Effect{
			a.cfg.Store.Once(assertionKey(m.ID, proof.JTI), proof.Expires),
			a.cfg.Store.InsertAgent(made),
		},
		Entries: []audit.Entry{a.registered(r, made, m)},
		Else:    &audit.Change{Entries: []audit.Entry{a.refusal(r, made, "conflict")}},
	}
	if spend != "" {
		change.Effects = append(change.Effects, a.cfg.Store.UseEnrolment(spend, made.ID, "", now))
	}
	change.Effects = append(change.Effects, a.insertHistory(agent.PublicKey{}, list, r.Manifest, now)...)
	err = a.cfg.Commit.Commit(ctx, change)
	if errors.Is(err, audit.ErrConflict) {
		return Agent{}, a.lost(ctx, made, spend, now)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("registering an agent: %w", err)
	}
	return made, nil
}

// possession checks the assertion that comes with a manifest: whoever brings it
// has the key, at this moment.
func (a *Agents) possession(assertion, id string, key agent.PublicKey, now time.Time) (agent.Assertion, error) {
	proof, err := agent.VerifyAssertion(strings.TrimSpace(assertion), key, agent.AssertionCheck{
		ClientID: id, Audience: a.cfg.Issuer, MaxLifetime: assertionLife, Now: now,
	})
	if err != nil {
		return proof, refusedAs("assertion", err)
	}
	return proof, nil
}

// authority finds out for whom the agent is registered. spend is the hash of
// the enrolment that pays for it; that it is still unspent is decided by the
// Change, not here.
func (a *Agents) authority(ctx context.Context, r Registration, now time.Time) (owner Holder, spend string, err error) {
	switch {
	case r.Owner != "" && r.EnrolmentToken != "":
		return Holder{}, "", invalid("an enrolment token or an owner, not both")
	case r.Owner != "":
		owner, err = a.activeOwner(ctx, r.Owner)
		return owner, "", err
	case r.EnrolmentToken == "":
		return Holder{}, "", ErrEnrolment
	}
	return a.enrolled(ctx, r.EnrolmentToken, "", now)
}

// enrolled reads who made an enrolment token: for a new agent, or for a key
// change of the one it renews.
func (a *Agents) enrolled(ctx context.Context, token, renews string, now time.Time) (owner Holder, spend string, err error) {
	spend = HashSecret(strings.TrimSpace(token))
	e, err := a.cfg.Store.Enrolment(ctx, spend)
	if errors.Is(err, ErrNotFound) || err == nil && (!e.Used.IsZero() || !now.Before(e.Expires) || e.Renews != renews) {
		return Holder{}, "", ErrEnrolment
	}
	if err != nil {
		return Holder{}, "", fmt.Errorf("reading an enrolment: %w", err)
	}
	owner, err = a.activeOwner(ctx, e.Owner)
	if errors.Is(err, ErrInvalid) {
		return Holder{}, "", ErrEnrolment // who invited has gone
	}
	return owner, spend, err
}

// refusedAs makes a refusal of package agent one of this package.
func refusedAs(what string, err error) error {
	text := strings.ReplaceAll(err.Error(), agent.ErrInvalid.Error()+": ", "")
	if !strings.HasPrefix(text, what) {
		text = what + ": " + text
	}
	return invalid("%s", text)
}

func (a *Agents) registered(r Registration, made Agent, m agent.Manifest) audit.Entry {
	detail := map[string]any{
		"version": made.Version, "scopes": made.Scopes, "capabilities": made.Capabilities,
		"max_depth": made.MaxDepth, "owner": made.Owner, "manifest_expires": m.Expires.Unix(),
	}
	if r.Owner != "" {
		return r.By.entry(audit.AgentRegister, made.ID, detail)
	}
	// It proved its key and was invited: it acts itself, for who invited it.
	detail["via"] = "enrolment"
	return audit.Entry{
		Agent: made.ID, Sub: made.Owner, Action: audit.AgentRegister, Resource: made.ID,
		Result: audit.Allowed, Detail: detail,
	}
}

// refusal is the record of a registration that was refused. made holds what was
// known by then.
func (a *Agents) refusal(r Registration, made Agent, reason string) audit.Entry {
	e := audit.Entry{Action: audit.AgentRefuse, Resource: made.ID, Result: audit.Denied, Reason: reason, Detail: map[string]any{}}
	if r.Owner != "" {
		e = r.By.entry(audit.AgentRefuse, made.ID, e.Detail)
		e.Result, e.Reason = audit.Denied, reason
		e.Detail["owner"] = r.Owner
		return e
	}
	e.Sub = made.Owner
	return e
}

// refuse records a refusal and returns it. A failure of the storage is none.
func (a *Agents) refuse(ctx context.Context, r Registration, made Agent, refused error) error {
	reason := ""
	switch {
	case errors.Is(refused, ErrEnrolment):
		reason = "invalid_enrolment"
	case errors.Is(refused, ErrInvalid):
		reason = "invalid_request"
	default:
		return refused
	}
	e := a.refusal(r, made, reason)
	if r.Owner == "" && r.Source != "" {
		a.cfg.Refusals.Refuse(r.Source, enrolEndpoint, e)
		return refused
	}
	if err := a.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{e}}); err != nil {
		return fmt.Errorf("recording a refused registration: %w", err)
	}
	return refused
}

// lost says which condition of a registration was lost. The Change decided; this
// only finds words for it.
func (a *Agents) lost(ctx context.Context, made Agent, spend string, now time.Time) error {
	if spend != "" {
		e, err := a.cfg.Store.Enrolment(ctx, spend)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("reading an enrolment: %w", err)
		}
		if err != nil || !e.Used.IsZero() || !now.Before(e.Expires) {
			return ErrEnrolment
		}
	}
	if _, err := a.cfg.Store.Agent(ctx, made.ID); err == nil {
		return fmt.Errorf("agent %s: %w", made.ID, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("reading an agent: %w", err)
	}
	return a.taken(ctx, made)
}

// taken says whether the name or the key of an agent is another's. Neither: the
// assertion was presented before.
func (a *Agents) taken(ctx context.Context, made Agent) error {
	other, err := a.cfg.Store.AgentNamed(ctx, made.Owner, made.Name)
	if err == nil && other.ID != made.ID {
		return fmt.Errorf("an agent of this owner named %s: %w", made.Name, ErrExists)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("reading an agent: %w", err)
	}
	switch known, err := a.cfg.Store.AgentKeyKnown(ctx, made.Key.Thumbprint()); {
	case err != nil:
		return err
	case known:
		return fmt.Errorf("an agent with this key, now or before: %w", ErrExists)
	}
	return ErrReplayed
}

// insertHistory are the effects that take over manifests of an agent whose key
// was last, and the keys they bring: none of them may be, or have been, another's
// or its own.
func (a *Agents) insertHistory(last agent.PublicKey, list []agent.Manifest, manifests string, now time.Time) []audit.Effect {
	var effects []audit.Effect
	for i, token := range strings.Split(manifests, "~") {
		m := list[i]
		effects = append(effects, a.cfg.Store.InsertManifest(m.ID, m.Seq, token, now))
		if m.Key != last {
			last = m.Key
			effects = append(effects, a.cfg.Store.InsertAgentKey(m.ID, m.Key.Thumbprint(), m.Seq))
		}
	}
	return effects
}
