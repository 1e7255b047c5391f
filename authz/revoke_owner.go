package authz

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

// Ending names what shall no longer work: a grant, a key or a client, or what
// was issued until now.
type Ending struct {
	// Grant is a gid: everything below it, and the grant itself.
	Grant string
	// Key is a thumbprint: every token that is, or came from one that was, bound
	// to the key.
	Key string
	// Client is the id of an OAuth client: every token that names it. An agent is
	// suspended instead.
	Client string
	// Issued spares what comes later: with Grant, the tokens that the grant gave
	// until now; alone, those of every grant.
	Issued bool
}

// thumbprint is the form of a jkt: base64url SHA-256.
var thumbprint = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// revocation is the row of what is to end.
func (e Ending) revocation(now time.Time) (Revocation, error) {
	named := 0
	for _, s := range []string{e.Grant, e.Key, e.Client} {
		if s != "" {
			named++
		}
	}
	hour := now.Add(maxAccessTTL)
	switch {
	case named > 1, named == 0 && !e.Issued, e.Issued && e.Grant == "" && named > 0:
		return Revocation{}, invalid("name one of a grant, a key and a client, or what was issued until now, of a grant or of all")
	case len(e.Grant)+len(e.Client) > 256 || !plainText(e.Grant+e.Client) || e.Grant == EveryGrant:
		return Revocation{}, invalid("that is no id")
	case e.Issued:
		value := e.Grant
		if value == "" {
			value = EveryGrant
		}
		// iat is in whole seconds: what was issued in this one ends too.
		return Revocation{Kind: RevokeBefore, Value: value, Until: hour, At: now, Before: now.Truncate(time.Second).Add(time.Second)}, nil
	case e.Grant != "":
		return Revocation{Kind: RevokeGrant, Value: e.Grant, Until: hour, At: now}, nil
	case e.Key != "" && !thumbprint.MatchString(e.Key):
		return Revocation{}, invalid("a key is named by its thumbprint (RFC 7638): 43 characters")
	case e.Key != "":
		return Revocation{Kind: RevokeKey, Value: e.Key, At: now}, nil
	case agent.IsID(e.Client):
		return Revocation{}, invalid("that is an agent: suspend it")
	}
	return Revocation{Kind: RevokeClient, Value: e.Client, At: now}, nil
}

// operates says whether a person may end what is not theirs.
func operates(person Holder) bool { return person.Active && person.Role == "operator" }

// End ends what a person owns, or an operator wants ended: "a key – its own
// holder, its agent's owner, an operator; a gid or agent – owner, operator"
// (delegation.md §9). recorded is false if only the log refused. ErrNotFound:
// there is no such thing, or it is not theirs, which cannot be told apart; it is
// recorded. ErrInvalid: it cannot be meant.
func (g *Registry) End(ctx context.Context, by Actor, person Holder, what Ending) (recorded bool, err error) {
	rev, err := what.revocation(g.now())
	if err != nil {
		return false, err
	}
	entry := by.entry(audit.Revoke, rev.Value, map[string]any{"kind": string(rev.Kind)})
	entry.Grant = what.Grant
	if !operates(person) {
		mine, err := g.owns(ctx, person, what)
		if err != nil {
			return false, err
		}
		if !mine {
			entry.Result, entry.Reason = audit.Denied, "not_owner"
			if err := g.record(ctx, entry); err != nil {
				return false, err
			}
			return false, ErrNotFound
		}
	}
	var more []audit.Effect
	if rev.Kind == RevokeGrant && g.cfg.Flows != nil {
		more = append(more, g.cfg.Flows.RevokeGrant(rev.Value, g.now()))
	}
	return g.narrow(ctx, []Revocation{rev}, more, entry)
}

// owns says whether a person answers for what is to end: for a grant that is
// theirs or their agent's, for a key that their agent proved.
func (g *Registry) owns(ctx context.Context, person Holder, what Ending) (bool, error) {
	switch {
	case person.ID == "" || !person.Active:
		return false, nil
	case what.Key != "":
		owner, err := g.cfg.Store.KeyOwner(ctx, what.Key)
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return owner == person.ID, err
	case what.Grant == "" || g.cfg.Flows == nil:
		return false, nil
	}
	grant, err := g.cfg.Flows.Grant(ctx, what.Grant)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil || grant.Sub == person.ID {
		return err == nil, err
	}
	if g.cfg.Agents == nil || !agent.IsID(grant.Sub) {
		return false, nil
	}
	found, err := g.cfg.Agents.Agent(ctx, grant.Sub)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return found.Owner == person.ID, err
}

// Lift takes back the revocation of a key or a client, which stands until then
// ("which stay until an operator lifts them"). What ends by itself within the
// hour is not lifted, and an agent is resumed. ErrNotFound: it is not revoked.
func (g *Registry) Lift(ctx context.Context, by Actor, kind RevocationKind, value string) error {
	if kind != RevokeKey && kind != RevokeClient {
		return invalid("a key or a client is lifted; links, grants and times end by themselves, and an agent is resumed")
	}
	entry := by.entry(audit.RevokeLift, value, map[string]any{"kind": string(kind)})
	err := g.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{g.cfg.Store.Lift(kind, value, g.now())}, Entries: []audit.Entry{entry},
		Else: &audit.Change{Entries: refused([]audit.Entry{entry}, "not_revoked")},
	})
	if errors.Is(err, audit.ErrConflict) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("lifting a revocation: %w", err)
	}
	g.held.lift(Revocation{Kind: kind, Value: value})
	return nil
}

// Revocations lists what is revoked now, newest first; before is the Seq of the
// last one of the page before, 0 for the first page.
func (g *Registry) Revocations(ctx context.Context, before int64, limit int) ([]Revocation, error) {
	return g.cfg.Store.Revocations(ctx, before, limit, g.now())
}
