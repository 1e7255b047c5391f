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
	// enrolEndpoint names the endpoint in records of refusals.
	enrolEndpoint = "agents"
)

// Registration is what an agent presents to be registered: "manifest + a
// `private_key_jwt` assertion + an enrolment token or its owner".
type Registration struct {
	// Manifest is the signed manifest, seq 1.
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
	m, err := agent.VerifyManifest(strings.TrimSpace(r.Manifest), now)
	if err != nil {
		return Agent{}, a.refuse(ctx, r, Agent{Owner: owner.ID}, refusedAs("manifest", err))
	}
	made := Agent{
		ID: m.ID, Owner: owner.ID, Name: m.Name, Status: AgentActive, Version: m.Version, Purpose: m.Purpose,
		Scopes: m.Scopes, Capabilities: m.Capabilities, MaxDepth: m.MaxDepth, Key: m.Key,
		ManifestSeq: m.Seq, ManifestExpires: m.Expires, Created: now,
	}
	proof, err := agent.VerifyAssertion(strings.TrimSpace(r.Assertion), m.Key, agent.AssertionCheck{
		ClientID: m.ID, Audience: a.cfg.Issuer, MaxLifetime: assertionLife, Now: now,
	})
	if err != nil {
		return Agent{}, a.refuse(ctx, r, made, refusedAs("assertion", err))
	}
	change := audit.Change{
		Effects: []audit.Effect{
			a.cfg.Store.Once(assertionKey(m.ID, proof.JTI), proof.Expires),
			a.cfg.Store.InsertAgent(made),
			a.cfg.Store.InsertManifest(made.ID, m.Seq, strings.TrimSpace(r.Manifest), now),
		},
		Entries: []audit.Entry{a.registered(r, made, m)},
		Else:    &audit.Change{Entries: []audit.Entry{a.refusal(r, made, "conflict")}},
	}
	if spend != "" {
		change.Effects = append(change.Effects, a.cfg.Store.UseEnrolment(spend, made.ID, now))
	}
	err = a.cfg.Commit.Commit(ctx, change)
	if errors.Is(err, audit.ErrConflict) {
		return Agent{}, a.lost(ctx, made, spend, now)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("registering an agent: %w", err)
	}
	return made, nil
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
	spend = HashSecret(strings.TrimSpace(r.EnrolmentToken))
	e, err := a.cfg.Store.Enrolment(ctx, spend)
	if errors.Is(err, ErrNotFound) || err == nil && (!e.Used.IsZero() || !now.Before(e.Expires)) {
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
	if _, err := a.cfg.Store.AgentNamed(ctx, made.Owner, made.Name); err == nil {
		return fmt.Errorf("an agent of this owner named %s: %w", made.Name, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("reading an agent: %w", err)
	}
	return ErrReplayed
}

// Enrol makes a single-use token with which one agent of the owner may be
// registered within ttl (0: one hour).
func (a *Agents) Enrol(ctx context.Context, by Actor, owner string, ttl time.Duration) (Secret, Enrolment, error) {
	if ttl == 0 {
		ttl = defaultEnrolmentTTL
	}
	if ttl < time.Second || ttl > maxEnrolmentTTL {
		return Secret{}, Enrolment{}, invalid("an enrolment lives 1 second to 30 days")
	}
	holder, err := a.activeOwner(ctx, owner)
	if err != nil {
		return Secret{}, Enrolment{}, err
	}
	now, token := a.cfg.Now(), newSecret()
	e := Enrolment{Hash: HashSecret(token.text), Owner: holder.ID, Created: now, Expires: now.Add(ttl)}
	err = a.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{a.cfg.Store.InsertEnrolment(e)},
		Entries: []audit.Entry{by.entry(audit.AgentEnrol, holder.ID, map[string]any{
			"owner": holder.ID, "expires": e.Expires.Unix(),
		})},
	})
	if err != nil {
		return Secret{}, Enrolment{}, fmt.Errorf("making an enrolment: %w", err)
	}
	return token, e, nil
}
