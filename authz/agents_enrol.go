package authz

import (
	"context"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Enrol makes a single-use token with which one agent of the owner may be
// registered within ttl (0: one hour).
func (a *Agents) Enrol(ctx context.Context, by Actor, owner string, ttl time.Duration) (Secret, Enrolment, error) {
	return a.enrol(ctx, by, Enrolment{Owner: owner}, ttl)
}

// EnrolKey makes a single-use token with which one agent may change its key
// within ttl (0: one hour): the word of its owner that "a key change at our
// server also needs" (delegation.md §10).
func (a *Agents) EnrolKey(ctx context.Context, by Actor, agentID string, ttl time.Duration) (Secret, Enrolment, error) {
	found, err := a.Agent(ctx, agentID)
	if err != nil {
		return Secret{}, Enrolment{}, fmt.Errorf("agent %s: %w", agentID, err)
	}
	return a.enrol(ctx, by, Enrolment{Owner: found.Owner, Renews: found.ID}, ttl)
}

func (a *Agents) enrol(ctx context.Context, by Actor, e Enrolment, ttl time.Duration) (Secret, Enrolment, error) {
	if ttl == 0 {
		ttl = defaultEnrolmentTTL
	}
	if ttl < time.Second || ttl > maxEnrolmentTTL {
		return Secret{}, Enrolment{}, invalid("an enrolment lives 1 second to 30 days")
	}
	holder, err := a.activeOwner(ctx, e.Owner)
	if err != nil {
		return Secret{}, Enrolment{}, err
	}
	now, token := a.cfg.Now(), newSecret()
	e.Hash, e.Owner, e.Created, e.Expires = HashSecret(token.text), holder.ID, now, now.Add(ttl)
	detail := map[string]any{"owner": holder.ID, "expires": e.Expires.Unix()}
	if e.Renews != "" {
		detail["agent"] = e.Renews
	}
	err = a.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{a.cfg.Store.InsertEnrolment(e)},
		Entries: []audit.Entry{by.entry(audit.AgentEnrol, holder.ID, detail)},
	})
	if err != nil {
		return Secret{}, Enrolment{}, fmt.Errorf("making an enrolment: %w", err)
	}
	return token, e, nil
}
