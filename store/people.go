package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

var _ people.Store = (*Store)(nil)

// HasUsers implements people.Store.
func (s *Store) HasUsers(ctx context.Context) (bool, error) {
	var one int64
	err := s.read.QueryRow(ctx, `SELECT 1 FROM users LIMIT 1`).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading users: %w", err)
	}
	return true, nil
}

// Users implements people.Store.
func (s *Store) Users(ctx context.Context) ([]people.User, error) {
	rows, err := s.read.Query(ctx, `SELECT id, name, role, disabled, created FROM users ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("reading users: %w", err)
	}
	defer rows.Close()
	var users []people.User
	for rows.Next() {
		var u people.User
		var disabled, created int64
		if err := rows.Scan(&u.ID, &u.Name, &u.Role, &disabled, &created); err != nil {
			return nil, fmt.Errorf("reading users: %w", err)
		}
		u.Disabled, u.Created = disabled == 1, time.UnixMilli(created)
		users = append(users, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading users: %w", err)
	}
	return users, nil
}

// UserByID implements people.Store.
func (s *Store) UserByID(ctx context.Context, id string) (people.User, people.PHC, error) {
	return scanUser(s.read.QueryRow(ctx, `SELECT id, name, role, disabled, created, password FROM users WHERE id = $1`, id))
}

// UserByName implements people.Store.
func (s *Store) UserByName(ctx context.Context, name string) (people.User, people.PHC, error) {
	return scanUser(s.read.QueryRow(ctx, `SELECT id, name, role, disabled, created, password FROM users WHERE name = $1`, name))
}

func scanUser(row *sql.Row) (people.User, people.PHC, error) {
	var u people.User
	var p people.PHC
	var disabled, created int64
	if err := row.Scan(&u.ID, &u.Name, &u.Role, &disabled, &created, &p); err != nil {
		return people.User{}, "", missing("user", err)
	}
	u.Disabled, u.Created = disabled == 1, time.UnixMilli(created)
	return u, p, nil
}

// missing says which thing of people could not be read.
func missing(what string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %s", people.ErrNotFound, what)
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

// flag is a bool as the portable subset has it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// InsertUser implements people.Store.
func (s *Store) InsertUser(u people.User, p people.PHC) audit.Effect {
	return effect(1, `INSERT INTO users (id, name, role, disabled, password, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		u.ID, u.Name, string(u.Role), flag(u.Disabled), string(p), u.Created.UnixMilli())
}

// InsertFirstUser implements people.Store.
func (s *Store) InsertFirstUser(u people.User, p people.PHC) audit.Effect {
	return effect(1, `INSERT INTO users (id, name, role, disabled, password, created)
		SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT 1 FROM users)`,
		u.ID, u.Name, string(u.Role), flag(u.Disabled), string(p), u.Created.UnixMilli())
}

// UpdateUser implements people.Store.
func (s *Store) UpdateUser(before, after people.User) audit.Effect {
	return effect(1, `UPDATE users SET role = $2, disabled = $3 WHERE id = $1 AND role = $4 AND disabled = $5`,
		after.ID, string(after.Role), flag(after.Disabled), string(before.Role), flag(before.Disabled))
}

// RoleLost implements people.Store: everything that the grants of a user, and
// those of the user's agents, had issued until now leaves with the feed's
// before. The rows are authz.RevokeRole.
func (s *Store) RoleLost(userID string, now time.Time) audit.Effect {
	// iat counts whole seconds: what was issued in this one is before it, too.
	before := now.Truncate(time.Second).Add(time.Second)
	return effect(-1, `INSERT INTO revocations (seq, kind, value, path, until, at, gid, issued_before, absorbed)
		SELECT (SELECT COALESCE(MAX(seq), 0) FROM revocations) + ROW_NUMBER() OVER (ORDER BY gid), 'role', gid, '[]', $2, $3, '', $4, 0
		FROM grants WHERE revoked = 0 AND (sub = $1 OR sub IN (SELECT id FROM agents WHERE owner = $1))
		ON CONFLICT (kind, value) DO UPDATE SET until = excluded.until, at = excluded.at, issued_before = excluded.issued_before`,
		userID, now.Add(delegation.FeedRetention).UnixMilli(), now.UnixMilli(), before.UnixMilli())
}

// SetPassword implements people.Store.
func (s *Store) SetPassword(userID string, p people.PHC) audit.Effect {
	return effect(1, `UPDATE users SET password = $2 WHERE id = $1`, userID, string(p))
}

// ReplacePassword implements people.Store.
func (s *Store) ReplacePassword(userID string, before, after people.PHC) audit.Effect {
	return effect(1, `UPDATE users SET password = $3 WHERE id = $1 AND password = $2 AND disabled = 0`,
		userID, string(before), string(after))
}

// SessionByHash implements people.Store.
func (s *Store) SessionByHash(ctx context.Context, hash string) (people.StoredSession, people.User, error) {
	var ses people.StoredSession
	var u people.User
	var started, seen, expires, disabled, created int64
	err := s.read.QueryRow(ctx, `SELECT s.hash, s.id, s.user_id, s.started, s.seen, s.expires, s.device, s.network,
		u.id, u.name, u.role, u.disabled, u.created
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.hash = $1`, hash).
		Scan(&ses.Hash, &ses.ID, &ses.UserID, &started, &seen, &expires, &ses.Device, &ses.Network,
			&u.ID, &u.Name, &u.Role, &disabled, &created)
	if err != nil {
		return people.StoredSession{}, people.User{}, missing("session", err)
	}
	ses.Started, ses.Seen, ses.Expires = time.UnixMilli(started), time.UnixMilli(seen), time.UnixMilli(expires)
	u.Disabled, u.Created = disabled == 1, time.UnixMilli(created)
	return ses, u, nil
}

// SessionsOf implements people.Store.
func (s *Store) SessionsOf(ctx context.Context, userID string) ([]people.StoredSession, error) {
	rows, err := s.read.Query(ctx, `SELECT hash, id, user_id, started, seen, expires, device, network
		FROM sessions WHERE user_id = $1 ORDER BY started DESC, id`, userID)
	if err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	defer rows.Close()
	var list []people.StoredSession
	for rows.Next() {
		var ses people.StoredSession
		var started, seen, expires int64
		if err := rows.Scan(&ses.Hash, &ses.ID, &ses.UserID, &started, &seen, &expires, &ses.Device, &ses.Network); err != nil {
			return nil, fmt.Errorf("reading sessions: %w", err)
		}
		ses.Started, ses.Seen, ses.Expires = time.UnixMilli(started), time.UnixMilli(seen), time.UnixMilli(expires)
		list = append(list, ses)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	return list, nil
}

// InsertSession implements people.Store.
func (s *Store) InsertSession(ses people.StoredSession, p people.PHC) audit.Effect {
	return effect(1, `INSERT INTO sessions (hash, id, user_id, started, seen, expires, device, network)
		SELECT $1, $2, id, $4, $5, $6, $7, $8 FROM users WHERE id = $3 AND disabled = 0 AND password = $9`,
		ses.Hash, ses.ID, ses.UserID, ses.Started.UnixMilli(), ses.Seen.UnixMilli(), ses.Expires.UnixMilli(),
		ses.Device, ses.Network, string(p))
}

// TouchSession implements people.Store.
func (s *Store) TouchSession(hash string, seen time.Time) audit.Effect {
	return effect(-1, `UPDATE sessions SET seen = $2 WHERE hash = $1 AND seen < $2`, hash, seen.UnixMilli())
}

// EndSession implements people.Store.
func (s *Store) EndSession(userID, id string) audit.Effect {
	return effect(1, `DELETE FROM sessions WHERE user_id = $1 AND id = $2`, userID, id)
}

// EndSessions implements people.Store.
func (s *Store) EndSessions(userID, except string) audit.Effect {
	return effect(-1, `DELETE FROM sessions WHERE user_id = $1 AND hash <> $2`, userID, except)
}

// DropSession implements people.Store.
func (s *Store) DropSession(hash string) audit.Effect {
	return effect(-1, `DELETE FROM sessions WHERE hash = $1`, hash)
}

// ExpiredSessions implements people.Store.
func (s *Store) ExpiredSessions(ended, seenSince time.Time) audit.Expired {
	return s.expired("sessions", "hash", `(expires <= $1 OR seen <= $2)`, ended.UnixMilli(), seenSince.UnixMilli())
}

// Attempt implements people.Store.
func (s *Store) Attempt(ctx context.Context, subject string) (time.Time, error) {
	var until int64
	if err := s.read.QueryRow(ctx, `SELECT until FROM attempts WHERE subject = $1`, subject).Scan(&until); err != nil {
		return time.Time{}, missing("attempts", err)
	}
	return time.UnixMilli(until), nil
}

// Try implements people.Store. One statement counts and decides, so that of
// parallel attempts only as many get through as were free. With x = tries so
// far + 2 − free, the wait is step × x², most at most.
func (s *Store) Try(subject string, l people.Limit, now time.Time) audit.Effect {
	return effect(1, `INSERT INTO attempts (subject, tries, until, seen) VALUES ($1, 1, 0, $2)
		ON CONFLICT (subject) DO UPDATE SET
			tries = CASE WHEN attempts.seen <= $3 THEN 1 ELSE attempts.tries + 1 END,
			until = CASE
				WHEN attempts.seen <= $3 OR attempts.tries + 1 < $4 THEN 0
				WHEN (attempts.tries + 2 - $4) * (attempts.tries + 2 - $4) * $5 > $6 THEN $2 + $6
				ELSE $2 + (attempts.tries + 2 - $4) * (attempts.tries + 2 - $4) * $5 END,
			seen = $2
		WHERE attempts.until <= $2`,
		subject, now.UnixMilli(), now.Add(-l.Window).UnixMilli(), l.Free, l.Step.Milliseconds(), l.Most.Milliseconds())
}

// Untry implements people.Store. The wait that is lifted is the attempt's own:
// no attempt begins while another's wait lasts.
func (s *Store) Untry(subject string) audit.Effect {
	return effect(-1, `UPDATE attempts SET tries = tries - 1, until = 0 WHERE subject = $1 AND tries > 0`, subject)
}

// ExpiredAttempts implements people.Store.
func (s *Store) ExpiredAttempts(ended, seenSince time.Time) audit.Expired {
	return s.expired("attempts", "subject", `seen < $2 AND until < $1`, ended.UnixMilli(), seenSince.UnixMilli())
}

// SetupCode implements people.Store. The setting is "HASH EXPIRES".
func (s *Store) SetupCode(ctx context.Context) (string, time.Time, error) {
	var value string
	if err := s.read.QueryRow(ctx, `SELECT value FROM settings WHERE name = 'setup_code'`).Scan(&value); err != nil {
		return "", time.Time{}, missing("set-up code", err)
	}
	hash, ends, _ := strings.Cut(value, " ")
	ms, err := strconv.ParseInt(ends, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("reading set-up code: %w", err)
	}
	return hash, time.UnixMilli(ms), nil
}

// PutSetupCode implements people.Store.
func (s *Store) PutSetupCode(hash string, expires time.Time) audit.Effect {
	return effect(1, `INSERT INTO settings (name, value) VALUES ('setup_code', $1)
		ON CONFLICT (name) DO UPDATE SET value = $1`, setupValue(hash, expires))
}

// UseSetupCode implements people.Store.
func (s *Store) UseSetupCode(hash string, expires time.Time) audit.Effect {
	return effect(1, `DELETE FROM settings WHERE name = 'setup_code' AND value = $1`, setupValue(hash, expires))
}

func setupValue(hash string, expires time.Time) string {
	return hash + " " + strconv.FormatInt(expires.UnixMilli(), 10)
}
