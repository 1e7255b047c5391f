package authz_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/store/storetest"
)

// life is a server with somebody who does what the numbers say: from the same
// numbers comes the same life, but for what is random in it.
type life struct {
	*flows
	public       string
	orch, rev    program
	key          agent.PrivateKey
	codes        []spentOn
	refresh      []string
	access       []string
	presented    []request
	handles      []string
	introspector [2]string
}

type spentOn struct {
	code string
	p    proof
}

func newLife(t *testing.T) *life {
	t.Helper()
	l := &life{flows: newFlows(t, func(c *authz.Config) {
		c.RefreshMax, c.RefreshIdle = 3*time.Hour, time.Hour
	})}
	l.public = l.flows.public()
	l.orch = l.program(l.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	l.rev = l.program(l.alice, "reviewer", []string{"repo:read"}, "read", "delegate")
	l.key = holder(t)
	id, secret := l.client(authz.NewClient{Scopes: []string{"kavach:verify"}})
	l.introspector = [2]string{id, secret}
	return l
}

// pick takes one of a list, one of the last few more often; n chooses.
func pick[T any](list []T, n int) (one T, ok bool) {
	if len(list) == 0 {
		return one, false
	}
	if n%2 == 0 {
		return list[len(list)-1-n/2%min(3, len(list))], true
	}
	return list[n/2%len(list)], true
}

// keepTokens remembers what an answer gave.
func (l *life) keepTokens(a answer) string {
	if token := a.str("access_token"); token != "" {
		l.access = append(l.access, token)
	}
	if token := a.str("refresh_token"); token != "" {
		l.refresh = append(l.refresh, token)
	}
	return fmt.Sprint(a.status, " ", a.body["error"])
}

// act does one thing and says what came of it.
func (l *life) act(what, which int) string {
	switch what {
	case 0, 1:
		p := newProof()
		l.codes = append(l.codes, spentOn{l.code(l.signedIn("alice"), l.public, p, nil), p})
		return "code"
	case 2, 3:
		if c, ok := pick(l.codes, which); ok {
			return "redeem " + l.keepTokens(l.token(l.redeem(l.public, c.code, c.p, nil)))
		}
	case 4, 5, 6:
		if token, ok := pick(l.refresh, which); ok {
			return "refresh " + l.keepTokens(l.token(refreshForm(l.public, token, nil)))
		}
	case 7:
		if token, ok := pick(l.access, which); ok {
			c, err := l.registry.Verifier().Verify(token, l.clock.now())
			if err != nil {
				return "verify: refused"
			}
			dead, err := l.registry.Revoked(context.Background(), c)
			must(l.t, err)
			return fmt.Sprint("verify: dead ", dead)
		}
	case 8:
		if token, ok := pick(l.refresh, which); ok {
			p := l.send(http.MethodPost, "/oauth/revoke", "application/x-www-form-urlencoded",
				url.Values{"token": {token}, "client_id": {l.public}}.Encode(), "", "")
			return fmt.Sprint("revoke ", p.status)
		}
	case 9, 10:
		r := l.orch.by(url.Values{"grant_type": {"client_credentials"}, "resource": {git}}, l.key)
		l.presented = append(l.presented, r)
		return "agent " + l.keepTokens(l.do(r))
	case 11:
		if r, ok := pick(l.presented, which); ok {
			return "agent again " + l.keepTokens(l.do(r))
		}
	case 12:
		token := l.orch.signIn(l.key, url.Values{"resource": {git}})
		made := l.handle(token, delegation.Ask{Receiver: "reviewer", Scopes: []string{"repo:read"}, TTL: time.Minute})
		l.handles = append(l.handles, made.Token)
		return "handle"
	case 13, 14:
		if h, ok := pick(l.handles, which); ok {
			return "redeem handle " + l.keepTokens(l.do(l.rev.by(handleForm(h, nil), holder(l.t))))
		}
	case 15:
		l.register("https://passing.example/cb")
		return "register"
	}
	return "nothing to do"
}

// sweep is one turn of the housekeeping.
func (l *life) sweep() {
	l.t.Helper()
	must(l.t, l.registry.Settle(context.Background()))
	_, err := l.registry.Reap(context.Background())
	must(l.t, err)
	_, err = audit.Prune(context.Background(), l.log, l.expired()...)
	must(l.t, err)
}

// TestSweepingChangesNoAnswer (E24): two servers live through the same, one is
// swept at every turn and the other never. Nobody can tell them apart, however
// old what they present is.
func TestSweepingChangesNoAnswer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	swept, unswept := newLife(t), newLife(t)
	happened := map[string]int{}
	for turn := range 250 {
		what, which := random.IntN(16), random.IntN(1<<20)
		got, want := swept.act(what, which), unswept.act(what, which)
		if got != want {
			t.Fatalf("turn %d: the one that is swept answers %q, the other %q", turn, got, want)
		}
		happened[got]++
		step := time.Duration([]int{0, 0, 0, 0, 1, 1, 2, 3, 10, 31}[random.IntN(10)]) * time.Second
		if random.IntN(25) == 0 {
			step = time.Duration([]int{60, 700, 3700, 4 * 3600}[random.IntN(4)]) * time.Second
		}
		swept.clock.advance(step)
		unswept.clock.advance(step)
		swept.sweep()
	}
	t.Logf("what happened: %v", happened)
	swept.clock.advance(24 * time.Hour)
	swept.sweep()
	for _, table := range []string{"replays", "codes", "refresh_tokens", "handles"} {
		if a, b := swept.count(`SELECT COUNT(*) FROM `+table), unswept.count(`SELECT COUNT(*) FROM `+table); a >= b {
			t.Errorf("%s has %d rows where it was swept and %d where it was not", table, a, b)
		}
	}
}

// TestSizeUnderSteadyLoad (E23's "expired rows purged, table size bounded"): the
// same load every hour of a moving clock. Once the longest life is over, no
// table has more rows at one hour than another, and the file grows by what the
// log does and no more.
func TestSizeUnderSteadyLoad(t *testing.T) {
	l := newLife(t)
	random := rand.New(rand.NewPCG(1, 1))
	const warm, hours = 28, 40 // unused registrations live for 24 hours
	rows := func() (total int, each map[string]int) {
		each = map[string]int{}
		for _, table := range l.tables() {
			if !strings.HasPrefix(table, "audit_") {
				each[table] = l.count(`SELECT COUNT(*) FROM ` + table)
				total += each[table]
			}
		}
		return total, each
	}
	_, begin := rows()
	most, first, size, logged := 0, map[string]int{}, int64(0), int64(0)
	for hour := range hours {
		for range 6 {
			l.act([]int{0, 2, 4, 9, 12, 13, 15}[random.IntN(7)], 0)
			l.clock.advance(10 * time.Minute)
			l.sweep()
		}
		total, each := rows()
		switch {
		case hour < warm:
			most, first = max(most, total), each
			if hour == warm-1 {
				size, logged = l.size()
			}
		case total > most+most/3:
			t.Fatalf("hour %d: %d rows, never more than %d in the first %d hours:\n%v\n%v", hour, total, most, warm, each, first)
		}
	}
	total, _ := rows()
	after, loggedAfter := l.size()
	t.Logf("%d rows, at most %d while warming up; the file grew by %d bytes in %d hours, the log by %d: %d a record of all", total, most,
		after-size, hours-warm, loggedAfter-logged, loggedAfter/int64(l.count(`SELECT COUNT(*) FROM audit_records`)))
	// Half-filled pages and the indexes of the log's tables are in the file too.
	if grown, log := after-size, loggedAfter-logged; size > 0 && grown > log+log/4+64<<10 {
		t.Errorf("the file grew by %d bytes, the log by %d", grown, log)
	}
	// And when the load is over, nothing is left of it but what people decided.
	l.clock.advance(25 * time.Hour)
	l.sweep()
	_, end := rows()
	for table, n := range end {
		switch {
		case n <= begin[table]:
		case table == "consents", table == "revocations" && n == 1:
		default:
			t.Errorf("%s had %d rows before the load and has %d after it", table, begin[table], n)
		}
	}
}

// tables lists the tables of the schema.
func (f *flows) tables() (names []string) {
	f.t.Helper()
	query := `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	if strings.HasPrefix(f.dsn, "sqlite:") {
		query = `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	}
	rows, err := storetest.Outside(f.t, f.dsn).Query(query)
	must(f.t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(f.t, rows.Scan(&name))
		names = append(names, name)
	}
	must(f.t, rows.Err())
	return names
}

// size is that of SQLite's file and of the tables and indexes of the log in it,
// in bytes; zero elsewhere, where a vacuum of the database's own decides.
func (f *flows) size() (file, log int64) {
	f.t.Helper()
	path, ok := strings.CutPrefix(f.dsn, "sqlite:")
	if !ok {
		return 0, 0
	}
	db := storetest.Outside(f.t, f.dsn)
	_, err := db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	must(f.t, err)
	must(f.t, db.QueryRow(`SELECT SUM(s.pgsize) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name WHERE m.tbl_name LIKE 'audit\_%' ESCAPE '\'`).Scan(&log))
	info, err := os.Stat(path)
	must(f.t, err)
	return info.Size(), log
}
