package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

var (
	// ErrOwnerNeeded: a key change, or anything of a suspended agent, without
	// the word of its owner.
	ErrOwnerNeeded = errors.New("authz: this needs the agent's owner")
	// ErrRaceLost: the agent changed at the same moment.
	ErrRaceLost = errors.New("authz: the agent changed at the same moment")
)

// ManifestUpdate is what an agent presents to replace its manifest: the new one
// and an assertion, signed by the key of the new one. A key change also needs
// the owner: as EnrolmentToken, or as Owner.
type ManifestUpdate struct {
	// Agent is the id of the agent.
	Agent string
	// Manifest follows the current one: its seq is one more, its prev the hash. It
	// may be several that follow each other, m~…~m, and begin with those that are
	// known. The current one itself is no update; it only shows who has its key.
	Manifest string
	// Assertion proves the possession of the manifest's key, as at registration.
	Assertion string
	// EnrolmentToken is of [Agents.EnrolKey].
	EnrolmentToken string
	// Owner says that By is the agent's owner, or an operator.
	Owner bool
	// By is who brings it, if Owner.
	By Actor
	// Source is the address of who asks, for the record of refusals to callers
	// that did not authenticate.
	Source string
}

// Update replaces the manifest of an agent. From the commit on the key of the
// new manifest is the agent's and the one before is nobody's: no moment has both
// or neither. Errors are ErrNotFound, ErrInvalid (its text says what is wrong),
// ErrEnrolment, ErrOwnerNeeded, ErrReplayed, ErrExists, ErrRaceLost, or a
// failure of the storage.
func (a *Agents) Update(ctx context.Context, u ManifestUpdate) (Agent, error) {
	now := a.cfg.Now()
	u.Manifest = strings.TrimSpace(u.Manifest)
	found, err := a.Agent(ctx, u.Agent)
	if err != nil {
		return Agent{}, fmt.Errorf("agent: %w", a.refuseUpdate(ctx, u, err))
	}
	current, err := a.cfg.Store.Manifest(ctx, found.ID)
	if err != nil {
		return Agent{}, fmt.Errorf("reading the manifest of an agent: %w", err)
	}
	if _, after, known := strings.Cut("~"+u.Manifest+"~", "~"+current+"~"); known {
		if u.Manifest = strings.TrimSuffix(after, "~"); u.Manifest == "" {
			return a.presented(ctx, u, found, now)
		}
	}
	list, err := agent.VerifySuccessors(current, u.Manifest, now)
	if err != nil {
		return Agent{}, a.refuseUpdate(ctx, u, refusedAs("manifest", err))
	}
	if len(list) > registeredHistory {
		return Agent{}, a.refuseUpdate(ctx, u, invalid("manifest: at most %d at once", registeredHistory))
	}
	m := list[len(list)-1]
	proof, err := a.possession(u.Assertion, found.ID, m.Key, now)
	if err != nil {
		return Agent{}, a.refuseUpdate(ctx, u, err)
	}
	next := found.under(m)
	changed := slices.ContainsFunc(list, func(m agent.Manifest) bool { return m.Key != found.Key })
	spend, err := a.mayUpdate(ctx, u, found, changed, now)
	if err != nil {
		return Agent{}, a.refuseUpdate(ctx, u, err)
	}
	change := audit.Change{
		Effects: append(a.updateEffects(found, next, list, u.Manifest, now), a.cfg.Store.Once(assertionKey(found.ID, proof.JTI), proof.Expires)),
		Entries: []audit.Entry{a.updated(u, found, next)},
		Else:    &audit.Change{Entries: []audit.Entry{a.updateRefusal(u, "conflict")}},
	}
	if spend != "" {
		change.Effects = append(change.Effects, a.cfg.Store.UseEnrolment(spend, found.ID, found.ID, now))
	}
	err = a.cfg.Commit.Commit(ctx, change)
	if errors.Is(err, audit.ErrConflict) {
		return Agent{}, a.lostUpdate(ctx, found, next, spend, now)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("updating an agent: %w", err)
	}
	return next, nil
}

// mayUpdate finds out whether what is brought is enough for what it changes.
// spend is the hash of the enrolment that pays for it.
func (a *Agents) mayUpdate(ctx context.Context, u ManifestUpdate, found Agent, changed bool, now time.Time) (spend string, err error) {
	if u.EnrolmentToken != "" {
		if u.Owner {
			return "", invalid("an enrolment token or an access token, not both")
		}
		owner, spend, err := a.enrolled(ctx, u.EnrolmentToken, found.ID, now)
		if err == nil && owner.ID != found.Owner {
			err = ErrEnrolment
		}
		return spend, err
	}
	if u.Owner {
		return "", nil
	}
	if changed {
		return "", fmt.Errorf("a key change: %w", ErrOwnerNeeded)
	}
	// On its own it acts for its owner, and only while it may act.
	standing, err := a.cfg.Registry.Standing(ctx, StandingQuery{Principal: found.ID})
	if err != nil {
		return "", fmt.Errorf("reading what an agent stands on: %w", err)
	}
	if found.Status != AgentActive || standing.Dead {
		return "", fmt.Errorf("an agent that was suspended: %w", ErrOwnerNeeded)
	}
	return "", nil
}

// updateEffects put next in the place of found, and add the manifests that led
// there.
func (a *Agents) updateEffects(found, next Agent, list []agent.Manifest, manifests string, now time.Time) []audit.Effect {
	effects := append([]audit.Effect{a.cfg.Store.UpdateAgent(found, next)}, a.insertHistory(found.Key, list, manifests, now)...)
	if next.Key != found.Key && found.Status == AgentSuspended {
		// A key that is changed while its agent is suspended was in other hands:
		// what was had by it does not come back when the agent does.
		effects = append(effects, a.cfg.Store.CutAgent(next.ID, now, now.Add(maxAccessTTL))...)
	}
	return effects
}

// updated is the record of an update.
func (a *Agents) updated(u ManifestUpdate, found, next Agent) audit.Entry {
	detail := map[string]any{
		"seq": next.ManifestSeq, "version": next.Version, "scopes": next.Scopes, "capabilities": next.Capabilities,
		"max_depth": next.MaxDepth, "owner": next.Owner, "manifest_expires": next.ManifestExpires.Unix(),
		"key_changed": next.Key != found.Key,
	}
	if u.Owner {
		return u.By.entry(audit.AgentUpdate, next.ID, detail)
	}
	if u.EnrolmentToken != "" {
		detail["via"] = "enrolment"
	} else {
		detail["via"] = "assertion"
	}
	return audit.Entry{
		Agent: next.ID, Sub: next.Owner, Action: audit.AgentUpdate, Resource: next.ID, Result: audit.Allowed, Detail: detail,
	}
}

// presented is the current manifest, come again: its holder shows that it has
// the key, and nothing changes.
func (a *Agents) presented(ctx context.Context, u ManifestUpdate, found Agent, now time.Time) (Agent, error) {
	proof, err := a.possession(u.Assertion, found.ID, found.Key, now)
	if err == nil && !found.Active(now) {
		err = invalid("manifest: expired, or of an agent that was suspended")
	}
	if err != nil {
		return Agent{}, a.refuseUpdate(ctx, u, err)
	}
	once := a.cfg.Registry.cfg.Store.OnceByAgent(
		assertionKey(found.ID, proof.JTI), proof.Expires, found.ID, found.Key.Thumbprint())
	err = a.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{once},
		Entries: []audit.Entry{{
			Agent: found.ID, Sub: found.Owner, Action: audit.AgentRead, Resource: found.ID, Result: audit.Allowed,
			Detail: map[string]any{"seq": found.ManifestSeq, "via": "assertion"},
		}},
		Else: &audit.Change{Entries: []audit.Entry{a.updateRefusal(u, reasonReplayed)}},
	})
	if errors.Is(err, audit.ErrConflict) {
		return Agent{}, ErrReplayed
	}
	if err != nil {
		return Agent{}, fmt.Errorf("recording a manifest that was read: %w", err)
	}
	return found, nil
}

// updateRefusal is the record of an update that was refused.
func (a *Agents) updateRefusal(u ManifestUpdate, reason string) audit.Entry {
	e := audit.Entry{Action: audit.AgentRefuse, Detail: map[string]any{"update": true}}
	if u.Owner {
		e = u.By.entry(audit.AgentRefuse, "", e.Detail)
	}
	if agent.IsID(u.Agent) {
		e.Resource = u.Agent
	}
	e.Result, e.Reason = audit.Denied, reason
	return e
}

// refuseUpdate records a refusal and returns it. A failure of the storage is
// none.
func (a *Agents) refuseUpdate(ctx context.Context, u ManifestUpdate, refused error) error {
	reason := ""
	switch {
	case errors.Is(refused, ErrEnrolment):
		reason = "invalid_enrolment"
	case errors.Is(refused, ErrOwnerNeeded):
		reason = "owner_needed"
	case errors.Is(refused, ErrNotFound):
		reason = "not_found"
	case errors.Is(refused, ErrInvalid):
		reason = "invalid_request"
	default:
		return refused
	}
	e := a.updateRefusal(u, reason)
	if !u.Owner && u.Source != "" {
		a.cfg.Refusals.Refuse(u.Source, enrolEndpoint, e)
		return refused
	}
	if err := a.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{e}}); err != nil {
		return fmt.Errorf("recording a refused update: %w", err)
	}
	return refused
}

// lostUpdate says which condition of an update was lost. The Change decided;
// this only finds words for it.
func (a *Agents) lostUpdate(ctx context.Context, found, next Agent, spend string, now time.Time) error {
	current, err := a.cfg.Store.Agent(ctx, found.ID)
	if err != nil {
		return fmt.Errorf("reading an agent: %w", err)
	}
	if current.ManifestSeq != found.ManifestSeq || current.Status != found.Status {
		return ErrRaceLost
	}
	if spend != "" {
		e, err := a.cfg.Store.Enrolment(ctx, spend)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("reading an enrolment: %w", err)
		}
		if err != nil || !e.Used.IsZero() || !now.Before(e.Expires) {
			return ErrEnrolment
		}
	}
	if next.Key == found.Key {
		next.Key = agent.PublicKey{} // it is known, rightly
	}
	return a.taken(ctx, next)
}

// Manifest returns the current manifest of an agent as it was signed.
func (a *Agents) Manifest(ctx context.Context, id string) (string, error) {
	return a.cfg.Store.Manifest(ctx, id)
}

// Manifests returns manifests of an agent by seq, after the given one: its
// history, which is only ever added to.
func (a *Agents) Manifests(ctx context.Context, id string, after int64, limit int) ([]SignedManifest, error) {
	return a.cfg.Store.Manifests(ctx, id, after, limit)
}
