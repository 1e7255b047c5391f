package authz_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

// mortal is a kind of row that is needed until some time and then may go.
type mortal struct {
	name string
	// add makes a row that is needed by every check before end.
	add func(id string, end time.Time) []audit.Effect
	// serves says whether a check at that time finds what it needs of the row. It
	// changes nothing.
	serves func(id string, at time.Time) bool
	// only is how long before its end such a row can be made; zero: any time.
	only time.Duration
}

// mortals are rows of every table that is pruned, each with the check that
// needs it.
func mortals(f *flows) []mortal {
	ctx := context.Background()
	found := func(_ any, err error) bool {
		if err != nil && !errors.Is(err, authz.ErrNotFound) && !errors.Is(err, people.ErrNotFound) {
			f.t.Error(err)
		}
		return err == nil
	}
	_, phc, err := f.store.UserByName(ctx, "alice")
	must(f.t, err)
	p := f.program(f.alice, "keyholder", []string{"repo:read"}, "read")
	grant := func(id string, end time.Time) authz.Grant {
		return authz.Grant{ID: id, Kind: authz.GrantAuthorization, Sub: f.alice.ID, ClientID: "c", Created: f.clock.now(), Expires: end}
	}
	family := func(id string, end time.Time) []audit.Effect {
		now := f.clock.now()
		return []audit.Effect{
			f.store.AddGrant(grant("family "+id, end)),
			f.store.AddRefreshToken(authz.RefreshToken{Hash: id, GrantID: "family " + id, ClientID: "c", Created: now, Expires: now.Add(time.Second), FamilyEnd: end}),
		}
	}
	dead := func(q authz.StandingQuery, at time.Time) bool {
		q.Principal, q.Now = f.alice.ID, at
		standing, err := f.store.Standing(ctx, q)
		must(f.t, err)
		return standing.Dead
	}
	return []mortal{
		{
			name: "what comes once",
			add:  func(id string, end time.Time) []audit.Effect { return []audit.Effect{f.store.Once(id, end)} },
			// "jti kept ≥ assertion lifetime + skew": Again hits what is remembered.
			serves: func(id string, _ time.Time) bool {
				return f.log.Commit(ctx, audit.Change{Effects: []audit.Effect{f.store.Again(id)}}) == nil
			},
		}, {
			name: "a spent budget",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.Debit([]delegation.Budget{{LID: id, Limit: 1, Until: end.Add(-delegation.CounterGrace)}})}
			},
			serves: func(id string, _ time.Time) bool {
				err := f.log.Commit(ctx, audit.Change{Effects: []audit.Effect{
					f.store.Debit([]delegation.Budget{{LID: id, Limit: 1, Until: f.clock.now()}}),
				}})
				return errors.Is(err, audit.ErrConflict)
			},
		}, {
			name: "a code",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.AddCode(authz.Code{Hash: id, GrantID: id, Created: f.clock.now(), Expires: end})}
			},
			serves: func(id string, at time.Time) bool {
				c, err := f.store.Code(ctx, id)
				return found(c, err) && c.Used.IsZero() && at.Before(c.Expires)
			},
		}, {
			name: "a used code",
			add: func(id string, end time.Time) []audit.Effect {
				now := f.clock.now()
				return []audit.Effect{
					f.store.AddCode(authz.Code{Hash: id, GrantID: id, Created: now, Expires: now.Add(time.Second)}),
					f.store.UseCode(id, now, end),
				}
			},
			serves: func(id string, _ time.Time) bool {
				c, err := f.store.Code(ctx, id)
				return found(c, err) && !c.Used.IsZero()
			},
		}, {
			name: "an authorization",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.AddGrant(grant(id, end))}
			},
			serves: func(id string, at time.Time) bool {
				g, err := f.store.Grant(ctx, id)
				return found(g, err) && g.Live(at)
			},
		}, {
			name: "a refresh token",
			add:  family,
			serves: func(id string, at time.Time) bool {
				r, g, err := f.store.RefreshToken(ctx, id)
				return found(r, err) && g.Live(at)
			},
		}, {
			name: "a used refresh token",
			add: func(id string, end time.Time) []audit.Effect {
				return append(family(id, end), f.store.UseRefreshToken(id, f.clock.now()))
			},
			serves: func(id string, at time.Time) bool {
				r, g, err := f.store.RefreshToken(ctx, id)
				return found(r, err) && !r.Used.IsZero() && g.Live(at)
			},
		}, {
			name: "a request that waits",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.AddPending(authz.Pending{ID: id, Created: f.clock.now(), Expires: end})}
			},
			serves: func(id string, at time.Time) bool {
				p, err := f.store.Pending(ctx, id)
				return found(p, err) && at.Before(p.Expires)
			},
		}, {
			name: "a handle",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.AddHandle(authz.Handle{Hash: id, Sealed: "s", Created: f.clock.now(), Expires: end})}
			},
			serves: func(id string, at time.Time) bool {
				h, err := f.store.Handle(ctx, id)
				return found(h, err) && h.Sealed != "" && at.Before(h.Expires)
			},
		}, {
			name: "an enrolment",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.InsertEnrolment(authz.Enrolment{Hash: id, Owner: f.alice.ID, Created: f.clock.now(), Expires: end})}
			},
			serves: func(id string, at time.Time) bool {
				e, err := f.store.Enrolment(ctx, id)
				return found(e, err) && at.Before(e.Expires)
			},
		}, {
			name: "a revoked grant",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.Revoke(authz.Revocation{Kind: authz.RevokeGrant, Value: id, Until: end, At: f.clock.now()})}
			},
			serves: func(id string, at time.Time) bool { return dead(authz.StandingQuery{Grants: []string{id}}, at) },
		}, {
			name: "a delegation key",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.HoldAgentKey(p.id, id, end)}
			},
			serves: func(id string, _ time.Time) bool {
				owner, err := f.store.KeyOwner(ctx, id)
				return found(owner, err) && owner == f.alice.ID
			},
		}, {
			name: "a session",
			add: func(id string, end time.Time) []audit.Effect {
				now := f.clock.now()
				return []audit.Effect{f.store.InsertSession(people.StoredSession{
					Hash: id, ID: "ses_" + id, UserID: f.alice.ID, Started: now, Seen: now, Expires: end,
				}, phc)}
			},
			serves: func(id string, at time.Time) bool {
				s, _, err := f.store.SessionByHash(ctx, id)
				return found(s, err) && at.Before(s.Expires)
			},
			only: idleSession,
		}, {
			name: "a session that is not used",
			add: func(id string, end time.Time) []audit.Effect {
				return []audit.Effect{f.store.InsertSession(people.StoredSession{
					Hash: id, ID: "ses_" + id, UserID: f.alice.ID, Seen: end.Add(-idleSession), Expires: end.Add(time.Hour),
				}, phc)}
			},
			serves: func(id string, at time.Time) bool {
				s, _, err := f.store.SessionByHash(ctx, id)
				return found(s, err) && at.Before(s.Seen.Add(idleSession))
			},
			only: idleSession,
		}, {
			name: "an attempt",
			add: func(id string, end time.Time) []audit.Effect {
				l := people.Limit{Free: 5, Step: time.Second, Most: time.Minute, Window: time.Hour}
				return []audit.Effect{f.store.Try(id, l, end.Add(-l.Window))}
			},
			serves: func(id string, _ time.Time) bool { return found(f.store.Attempt(ctx, id)) },
			only:   time.Hour,
		},
	}
}

// idleSession is how long package people lets a session be unused, unless it
// is told otherwise.
const idleSession = 12 * time.Hour

// expired is everything that may be removed at this moment.
func (f *flows) expired() []audit.Expired {
	return slices.Concat(f.registry.Expired(), f.agents.Expired(), f.server.Expired(), f.people.Expired())
}

// TestPruningTouchesNothingThatLives (E24): rows of every table with random
// ends, a clock that takes random steps, and pruning in between. Whatever a
// check would need, here or at a replica whose clock is behind, is there; what
// nobody can need is not.
func TestPruningTouchesNothingThatLives(t *testing.T) {
	f := newFlows(t)
	kinds := mortals(f)
	type row struct {
		kind mortal
		id   string
		end  time.Time
	}
	forever := f.program(f.alice, "forever", []string{"repo:read"}, "read")
	used := f.register("https://used.example/cb")
	must(t, f.log.Commit(t.Context(), audit.Change{Effects: []audit.Effect{
		f.store.Revoke(authz.Revocation{Kind: authz.RevokeKey, Value: "a stolen key", At: f.clock.now()}), f.store.UseClient(used, f.clock.now()),
	}}))
	var rows []row // those that have not ended, of all rounds
	made := 0
	rapid.Check(t, func(rt *rapid.T) {
		now := f.clock.now()
		var effects []audit.Effect
		for range rapid.IntRange(1, 20).Draw(rt, "rows") {
			kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
			life := time.Duration(rapid.IntRange(1, 7200).Draw(rt, "life")) * time.Second
			if kind.only > 0 {
				life = min(life, kind.only)
			}
			made++
			r := row{kind, fmt.Sprint("row", made), now.Add(life)}
			if kind.name == "a spent budget" {
				r.end = r.end.Add(delegation.CounterGrace)
			}
			rows, effects = append(rows, r), append(effects, kind.add(r.id, r.end)...)
		}
		must(t, f.log.Commit(t.Context(), audit.Change{Effects: effects}))
		f.clock.advance(time.Duration(rapid.SampledFrom([]int{0, 1, 29, 30, 31, 60, 90, 300, 600, 3600}).Draw(rt, "step")) * time.Second)
		_, err := audit.Prune(t.Context(), f.log, f.expired()...)
		must(t, err)
		behind := f.clock.now().Add(-audit.ClockSkew).Add(time.Duration(rapid.IntRange(0, 30000).Draw(rt, "behind")) * time.Millisecond)
		rows = slices.DeleteFunc(rows, func(r row) bool {
			if !behind.Before(r.end) {
				return true
			}
			if rapid.IntRange(0, 3).Draw(rt, "ask") == 0 && !r.kind.serves(r.id, behind) {
				rt.Errorf("%s that ends at %s is gone or of no use at %s; here it is %s", r.kind.name, r.end, behind, f.clock.now())
			}
			return false
		})
	})
	t.Logf("%d rows of %d kinds, in the end %d live", made, len(kinds), len(rows))

	// A day later nobody can need any of them.
	f.clock.advance(24 * time.Hour)
	_, err := audit.Prune(t.Context(), f.log, f.expired()...)
	must(t, err)
	for _, table := range []string{"replays", "counters", "codes", "refresh_tokens", "pending", "handles", "enrolments", "sessions", "attempts"} {
		if n := f.count(`SELECT COUNT(*) FROM ` + table); n != 0 {
			t.Errorf("%d rows of %s stay", n, table)
		}
	}
	for query, most := range map[string]int{
		`SELECT COUNT(*) FROM revocations WHERE until > 0`:         1, // the highest seq
		`SELECT COUNT(*) FROM agent_keys WHERE until > 0`:          0,
		`SELECT COUNT(*) FROM grants WHERE kind = 'authorization'`: 0,
	} {
		if n := f.count(query); n > most {
			t.Errorf("%s: %d", query, n)
		}
	}
	// What has no end is never due.
	_, err = f.registry.Reap(t.Context())
	must(t, err)
	if _, err := f.store.StandingGrant(t.Context(), forever.id); err != nil {
		t.Errorf("a standing grant: %v", err)
	}
	if owner, err := f.store.KeyOwner(t.Context(), forever.id); err != nil || owner != f.alice.ID {
		t.Errorf("an identity key: %v", err)
	}
	if _, err := f.store.Client(t.Context(), used); err != nil {
		t.Errorf("a client that was used: %v", err)
	}
	if s, err := f.store.Standing(t.Context(), authz.StandingQuery{Principal: f.alice.ID, Keys: []string{"a stolen key"}, Now: f.clock.now()}); err != nil || !s.Dead {
		t.Errorf("a key that was revoked until it is lifted: %+v, %v", s, err)
	}
}
