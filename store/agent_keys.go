package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// AgentOfKey reads the agent whose identity key now has that thumbprint, or
// authz.ErrNotFound.
func (s *Store) AgentOfKey(ctx context.Context, jkt string) (authz.Agent, error) {
	return oneAgent(s.read.QueryRow(ctx, `SELECT id, owner, name, status, version, purpose, scopes,
		capabilities, max_depth, public_key, manifest_seq, manifest_expires, created
		FROM agents WHERE jkt = $1`, jkt))
}

// AgentKeyKnown says whether a key is or was any agent's.
func (s *Store) AgentKeyKnown(ctx context.Context, jkt string) (bool, error) {
	var n int
	if err := s.read.QueryRow(ctx, `SELECT COUNT(*) FROM agent_keys WHERE jkt = $1`, jkt).Scan(&n); err != nil {
		return false, fmt.Errorf("reading keys of agents: %w", err)
	}
	return n > 0, nil
}

// InsertAgentKey must hit one row: a key that is or was the identity of any
// agent, or a delegation key of this one, loses.
func (s *Store) InsertAgentKey(agentID, jkt string, seq int64) audit.Effect {
	return effect(1, `INSERT INTO agent_keys (jkt, agent, seq, until)
		SELECT $1, $2, $3, 0 WHERE NOT EXISTS (SELECT 1 FROM agent_keys WHERE jkt = $1 AND (until = 0 OR agent = $2))`,
		jkt, agentID, seq)
}

// HoldAgentKey remembers that a delegation key is an agent's, as long as
// anything that is bound to it can be alive.
func (s *Store) HoldAgentKey(agentID, jkt string, until time.Time) audit.Effect {
	return effect(-1, `INSERT INTO agent_keys (jkt, agent, seq, until) VALUES ($1, $2, 0, $3)
		ON CONFLICT (jkt, agent) DO UPDATE SET seq = CASE WHEN agent_keys.seq < 0 THEN 0 ELSE agent_keys.seq END,
			until = CASE WHEN agent_keys.until < excluded.until THEN excluded.until ELSE agent_keys.until END
		WHERE agent_keys.until <> 0`, jkt, agentID, until.UnixMilli())
}

// ClaimAgentKey is HoldAgentKey for a key that the agent named and did not
// prove, whose seq is -1: one that is known to be another agent's stays that
// one's.
func (s *Store) ClaimAgentKey(agentID, jkt string, until time.Time) audit.Effect {
	return effect(-1, `INSERT INTO agent_keys (jkt, agent, seq, until)
		SELECT $1, $2, -1, $3 WHERE NOT EXISTS (SELECT 1 FROM agent_keys WHERE jkt = $1 AND agent <> $2)
		ON CONFLICT (jkt, agent) DO UPDATE SET until = excluded.until
		WHERE agent_keys.until <> 0 AND agent_keys.until < excluded.until`, jkt, agentID, until.UnixMilli())
}

// ExpiredAgentKeys are delegation keys that nothing was bound to any more at
// the time.
func (s *Store) ExpiredAgentKeys(ended time.Time) audit.Expired {
	return s.expired("agent_keys", "(jkt, agent)", `until > 0 AND until < $1`, ended.UnixMilli())
}

// OnceByAgent must hit one row: whatever key names was presented for the first
// time, and jkt is the agent's identity key at that moment.
func (s *Store) OnceByAgent(key string, until time.Time, agentID, jkt string) audit.Effect {
	return effect(1, `INSERT INTO replays (key, until)
		SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM agents WHERE id = $3 AND jkt = $4)
		ON CONFLICT DO NOTHING`, key, until.UnixMilli(), agentID, jkt)
}

// CutAgent ends what an agent was given before: its standing grant goes on, what
// came from it is revoked, and so are the delegation keys that are known.
func (s *Store) CutAgent(agentID string, now, until time.Time) []audit.Effect {
	// iat counts whole seconds: what was issued in this one is before it, too.
	before := now.Truncate(time.Second).Add(time.Second)
	return []audit.Effect{
		effect(-1, `INSERT INTO revocations (seq, kind, value, path, until, at, gid, issued_before, absorbed)
			SELECT (SELECT COALESCE(MAX(seq), 0) + 1 FROM revocations), 'before', gid, '[]', $2, $3, '', $4, 0
			FROM grants WHERE client_id = $1 AND kind = 'standing' AND revoked = 0
			ON CONFLICT (kind, value) DO UPDATE SET until = excluded.until, at = excluded.at, issued_before = excluded.issued_before`,
			agentID, until.UnixMilli(), now.UnixMilli(), before.UnixMilli()),
		effect(-1, `INSERT INTO revocations (seq, kind, value, path, until, at, gid, issued_before, absorbed)
			SELECT (SELECT COALESCE(MAX(seq), 0) FROM revocations) + ROW_NUMBER() OVER (ORDER BY jkt), 'key', jkt, '[]', until, $2, '', 0, 0
			FROM agent_keys WHERE agent = $1 AND until > $2
			ON CONFLICT (kind, value) DO UPDATE SET until = CASE
				WHEN revocations.until = 0 OR revocations.until > excluded.until THEN revocations.until ELSE excluded.until END`,
			agentID, now.UnixMilli()),
	}
}

// LiftAgent ends the revocation of an agent that a suspension made. Its number
// stays, so that the feed's does not go back.
func (s *Store) LiftAgent(agentID string, now time.Time) audit.Effect {
	return effect(-1, `UPDATE revocations SET until = $2 WHERE kind = 'agent' AND value = $1 AND until = 0`, agentID, now.UnixMilli())
}
