package authz

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// record commits an entry about something that changes nothing.
func (g *Registry) record(ctx context.Context, e audit.Entry) error {
	err := g.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{e}})
	if errors.Is(err, audit.ErrInvalid) {
		err = g.cfg.Commit.Commit(ctx, audit.Change{Entries: slim([]audit.Entry{e})})
	}
	return err
}

// slim makes entries fit into a record.
func slim(entries []audit.Entry) []audit.Entry {
	entries = slices.Clone(entries)
	for i, e := range entries {
		entries[i] = e.Slim()
	}
	return entries
}

// chainEntry begins the record of something that was done with a token.
func chainEntry(c *delegation.Chain, action, result string) audit.Entry {
	e := audit.Entry{
		Action: action, Result: result, Path: c.Path(), Agent: c.Agent(), Sub: c.Principal(),
		Grant: c.GrantID(), Anc: c.Ancestry(), Chain: auditChain(c), Detail: map[string]any{},
	}
	return e
}

// auditChain is a chain as records show it.
func auditChain(c *delegation.Chain) []audit.Party {
	var chain []audit.Party
	for _, l := range c.Links() {
		chain = append(chain, audit.Party{LID: l.LID, JTI: l.JTI, ClientID: l.ClientID, Confirmed: l.Confirmed, JKT: l.JKT})
	}
	return chain
}

// resultOf is what the record of an error says: denied if we refused, failed
// if we could not.
func resultOf(err error) string {
	if oauthError(err).Status >= http.StatusInternalServerError {
		return audit.Failed
	}
	return audit.Denied
}

// logFailure tells the operator of failures that are ours. They hold no
// secret: the store's errors name statements and ids.
func (g *Registry) logFailure(ctx context.Context, doing string, err error) {
	if oauthError(err).Status >= http.StatusInternalServerError {
		g.cfg.Log.ErrorContext(ctx, doing+" failed", "error", err)
	}
}
