package store

import (
	"database/sql"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/migrations"
)

// A database of version 7, from before agents changed their keys and
// revocations had a feed, loses nothing, and its rows mean what they meant.
func TestUpgradeFromVersion7(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kavach.db")
	steps, err := migrations.For("sqlite")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec(`CREATE TABLE migrations (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied BIGINT NOT NULL)`)
	for _, step := range steps[:7] {
		exec(`INSERT INTO migrations VALUES ($1, $2, $3, 1)`, step.Version, step.Name, step.Digest)
		for _, statement := range step.Statements {
			exec(statement)
		}
	}
	now := time.UnixMilli(1_800_000_000_000)
	later := now.Add(time.Hour).UnixMilli()
	exec(`INSERT INTO users (id, name, role, disabled, password, created) VALUES ('usr_a', 'alice', 'member', 0, 'x', 1)`)
	agents := map[string]agent.PublicKey{}
	for _, status := range []string{"active", "suspended"} {
		key, err := agent.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		public := key.Public()
		agents[status] = public
		exec(`INSERT INTO agents (id, owner, name, status, version, purpose, scopes, capabilities, max_depth, public_key, jkt,
			manifest_seq, manifest_expires, created) VALUES ($1, 'usr_a', $2, $2, '1.0.0', 'p', '["repo:read"]', '[]', 3, $3, $1, 1, $4, 1)`,
			public.Thumbprint(), status, string(public.AppendJWK(nil)), later)
		exec(`INSERT INTO manifests (agent, seq, token, added) VALUES ($1, 1, 'signed', 1)`, public.Thumbprint())
	}
	exec(`INSERT INTO enrolments (hash, owner, created, expires, used, agent) VALUES ('e', 'usr_a', 1, $1, 0, '')`, later)
	exec(`INSERT INTO revocations (seq, kind, value, path, until, at) VALUES (3, 'gid', 'g', '[]', $1, $2), (4, 'lid', 'l', '["above"]', $1, $2),
		(7, 'key', 'k', '[]', 0, 1), (9, 'client', 'c', '[]', 0, 1)`, later, now.Add(-time.Minute).UnixMilli())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s, err := Open(t.Context(), Config{DSN: "sqlite:" + path, Issuer: "https://kavach.example", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	for status, key := range agents {
		id := key.Thumbprint()
		a, err := s.AgentOfKey(ctx, id)
		if err != nil || a.ID != id || string(a.Status) != status || a.Key != key || a.ManifestSeq != 1 || !slices.Equal(a.Scopes, []string{"repo:read"}) {
			t.Errorf("%s: %+v, %v", status, a, err)
		}
		if owner, err := s.KeyOwner(ctx, id); owner != "usr_a" || err != nil {
			t.Errorf("%s: its key is %q's: %v", status, owner, err)
		}
		if token, err := s.Manifest(ctx, id); token != "signed" || err != nil {
			t.Errorf("%s: manifest %q, %v", status, token, err)
		}
		for what, q := range map[string]authz.StandingQuery{"it": {Principal: id}, "its key": {Principal: "usr_a", Keys: []string{id}}} {
			q.Now = now
			if standing, err := s.Standing(ctx, q); err != nil || standing.Dead != (status == "suspended") {
				t.Errorf("%s: %s is dead: %t, %v", status, what, standing.Dead, err)
			}
		}
	}
	for what, q := range map[string]authz.StandingQuery{
		"a grant": {Grants: []string{"g"}}, "a link": {Links: []string{"l"}}, "an ancestor": {Ancestors: []string{"l"}},
		"a key": {Keys: []string{"k"}}, "a client": {Labels: []string{"c"}},
	} {
		q.Principal, q.Now = "usr_a", now
		if standing, err := s.Standing(ctx, q); err != nil || !standing.Dead {
			t.Errorf("%s that was revoked lives: %v", what, err)
		}
	}
	feed, err := s.Feed(ctx, now)
	if err != nil || feed.Seq != 9 || !slices.Contains(feed.Grants, "g") || !slices.Contains(feed.Links, "l") ||
		!slices.Contains(feed.Keys, "k") || !slices.Contains(feed.Clients, "c") ||
		!slices.Contains(feed.Clients, agents["suspended"].Thumbprint()) || slices.Contains(feed.Clients, agents["active"].Thumbprint()) {
		t.Errorf("the feed: %+v, %v", feed, err)
	}
	if e, err := s.Enrolment(ctx, "e"); err != nil || e.Owner != "usr_a" || e.Renews != "" || !e.Used.IsZero() {
		t.Errorf("the enrolment: %+v, %v", e, err)
	}
	// They are spent, ended and followed as new ones are.
	won, err := s.Append(ctx, []audit.Write{{Effects: []audit.Effect{
		s.UseEnrolment("e", "any", "", now),
		s.ResumeAgent(agents["suspended"].Thumbprint()),
		s.Revoke(authz.Revocation{Kind: authz.RevokeLink, Value: "l", Grant: "g2", Until: now.Add(2 * time.Hour), At: now}),
		s.Lift(authz.RevokeKey, "k", now),
	}}}, now.UnixMilli())
	if err != nil || won[0].Lost || won[0].Err != nil {
		t.Errorf("using what was there: %+v, %v", won, err)
	}
	won, err = s.Append(ctx, []audit.Write{{Effects: []audit.Effect{s.InsertAgentKey("other", agents["active"].Thumbprint(), 2)}}}, now.UnixMilli())
	if err != nil || !won[0].Lost {
		t.Errorf("an old agent's key becomes another's: %+v, %v", won, err)
	}
}
