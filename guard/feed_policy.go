package guard

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// StalePolicy says what a resource server does while nobody can tell it what
// was revoked ("A feed past its `exp`: policy per resource server, by default
// refuse side effects").
type StalePolicy string

// The policies.
const (
	// StaleRefusesEffects answers requests that change nothing and refuses all
	// others with status_unknown. It is the default.
	StaleRefusesEffects StalePolicy = ""
	// StaleRefusesAll refuses every request with status_unknown.
	StaleRefusesAll StalePolicy = "refuse"
	// StaleServes answers as if there were no feed: tokens live until they
	// expire.
	StaleServes StalePolicy = "serve"
)

func (p StalePolicy) known() bool {
	return p == StaleRefusesEffects || p == StaleRefusesAll || p == StaleServes
}

// StaleError is the error of a Revocations whose source is away: what was known
// before still counts, and Policy says what may be done without knowing more.
type StaleError struct {
	// Since is when what is known became stale; zero if nothing is known.
	Since time.Time
	// Policy is that of the resource server.
	Policy StalePolicy
}

// Error implements error.
func (e *StaleError) Error() string {
	if e.Since.IsZero() {
		return "no revocations are known yet"
	}
	return fmt.Sprintf("what is known to be revoked is stale since %s", e.Since.UTC().Format(time.RFC3339))
}

// serves reports whether a request may be answered all the same.
func (e *StaleError) serves(effect bool) bool {
	return e.Policy == StaleServes || e.Policy == StaleRefusesEffects && !effect
}

// uncheckedRevocation is what a Decision names that no source of revocations
// was asked for, or none that knew.
const uncheckedRevocation = "revocation"

// standing is step 15: "revocation: gid, any lid, any key, any client, anc".
func (v *visit) standing(r *http.Request) error {
	g, ctx := v.guard, r.Context()
	if g.Revocations == nil {
		v.unchecked = append(v.unchecked, uncheckedRevocation)
		return nil
	}
	revoked, err := g.Revocations.Revoked(ctx, v.chain)
	if revoked { // known already, whatever else is not
		return &delegation.Refusal{Reason: delegation.Revoked, Part: -1}
	}
	if err == nil {
		return nil
	}
	var stale *StaleError
	if errors.As(err, &stale) && stale.serves(v.changes(r)) {
		v.unchecked = append(v.unchecked, uncheckedRevocation)
		return nil
	}
	g.Log.ErrorContext(ctx, "revocation unknown", "error", err)
	return &delegation.Refusal{Reason: delegation.StatusUnknown, Part: -1, Detail: uncheckedRevocation}
}

// changes reports whether the request has side effects: "any method but GET,
// HEAD, OPTIONS unless the route says `ReadOnly`" (delegation.md §6). A need
// that cannot be computed is not known to be harmless.
func (v *visit) changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	need, err := v.needs(r)
	return err != nil || !need.ReadOnly
}
