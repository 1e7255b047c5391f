package store

import (
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Once must hit one row: whatever key names was presented for the first time.
// key is a hash of who presents and of the id that may come once; it is kept
// until what carries the id has expired.
func (s *Store) Once(key string, until time.Time) audit.Effect {
	return effect(1, `INSERT INTO replays (key, until) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		key, until.UnixMilli())
}

// Again must hit one row: Once won for the key before, here or in an earlier
// Change.
func (s *Store) Again(key string) audit.Effect {
	return effect(1, `UPDATE replays SET until = until WHERE key = $1`, key)
}

// ExpiredReplays are those of what had expired at the time.
func (s *Store) ExpiredReplays(ended time.Time) audit.Expired {
	return s.expired("replays", "key", `until < $1`, ended.UnixMilli())
}
