package store

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
	"github.com/kavach-dev/kavach/store/d1test"
)

// Several openings at once of an empty database see one log, and every step of
// the schema ran once.
func TestD1OpenTogether(t *testing.T) {
	db := d1test.New(t)
	ids := make([]string, 4)
	var wait sync.WaitGroup
	for i := range ids {
		wait.Go(func() {
			s, err := Open(t.Context(), Config{DSN: db.Bridge, Token: d1test.SchemaToken, Issuer: "http://127.0.0.1:8420"})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			ids[i] = s.LogID()
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] || !strings.HasPrefix(id, "127.0.0.1:8420/audit/") {
			t.Fatalf("log ids %q", ids)
		}
	}
	steps, err := migrations.For("d1")
	if err != nil {
		t.Fatal(err)
	}
	if n := db.Rows(t, `SELECT count(*) FROM migrations`)[0][0]; n != float64(len(steps)) {
		t.Errorf("%v steps of %d", n, len(steps))
	}
	// What is there is not made again: a token that may not serves.
	s := openD1Test(t, db.Bridge, d1test.RowsToken)
	if s.LogID() != ids[0] {
		t.Errorf("log id %q became %q", ids[0], s.LogID())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a closed store answers")
	}
	if _, err := s.Append(t.Context(), []audit.Write{{Effects: []audit.Effect{s.Recorded("none")}}}, 1); err == nil {
		t.Error("a closed store writes")
	}
}

// A migration whose every request is cut, before it arrives or after it was
// done, comes to its end on the next try, and nothing is half.
func TestD1MigrationCut(t *testing.T) {
	db := d1test.New(t)
	client := func(cut int) *Store {
		place, err := parseD1(db.Bridge)
		if err != nil {
			t.Fatal(err)
		}
		c := newD1Client(place, d1test.SchemaToken)
		s := &Store{read: d1Reader(c)}
		w, n := &d1Wire{}, 0
		w.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
			if n++; n != cut {
				return send()
			}
			if cut%2 == 0 { // done, and not answered
				if answer, err := send(); err == nil {
					_ = answer.Body.Close()
				}
				return d1Unanswered(r)
			}
			return nil, errD1Cut // never sent: the process might have died here
		})
		c.http.Transport = w
		return s
	}
	steps, err := migrations.For("d1")
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; ; cut++ {
		if cut > len(steps)+10 {
			t.Fatal("it does not come to an end")
		}
		s := client(cut)
		c := s.read.db.Driver().(d1Connector).client
		err := s.migrateD1(t.Context(), c, "https://kavach.example")
		if err == nil && cut%2 == 1 {
			break
		}
		if err != nil && !errors.Is(err, ErrStore) {
			t.Fatal(err)
		}
	}
	s := openD1Test(t, db.Bridge, d1test.SchemaToken)
	if report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{}); err != nil || !report.OK() {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// An old kavach refuses a newer schema, to write and to read (E18), and any
// kavach one whose steps were edited after they ran.
func TestD1SchemaOfAnotherBuild(t *testing.T) {
	for change, want := range map[string]error{
		`INSERT INTO migrations (version, name, digest, applied) VALUES (9999, 'future', 'x', 1)`: ErrNewerSchema,
		`ALTER TABLE migrations DROP COLUMN digest`:                                               ErrOtherSchema,
		`UPDATE migrations SET digest = 'x' WHERE version = 1`:                                    ErrOtherSchema,
	} {
		db := d1test.New(t)
		openD1Test(t, db.Bridge, d1test.SchemaToken)
		db.Exec(t, change)
		for _, readOnly := range []bool{false, true} {
			s, err := Open(t.Context(), Config{DSN: db.Bridge, Token: d1test.SchemaToken, ReadOnly: readOnly})
			if !errors.Is(err, want) || !errors.Is(err, ErrStore) {
				t.Errorf("%s: Open(ReadOnly: %v) = %v, want %v", change, readOnly, err, want)
			}
			if err == nil {
				s.Close()
			}
		}
	}
}

func TestD1Sources(t *testing.T) {
	good := map[string]string{
		"d1://a1b2/0f-9e": "https://api.cloudflare.com/client/v4/accounts/a1b2/d1/database/0f-9e/raw",
		"d1://a1b2/0f-9e?api=https://d1.example/v4/":      "https://d1.example/v4/accounts/a1b2/d1/database/0f-9e/raw",
		"d1://a1b2/0f-9e?api=http://127.0.0.1:8787":       "http://127.0.0.1:8787/accounts/a1b2/d1/database/0f-9e/raw",
		"d1-bridge://bridge.example":                      "https://bridge.example/v1/query",
		"d1-bridge://bridge.example:8443/kavach/database": "https://bridge.example:8443/kavach/database/v1/query",
		"d1-bridge://127.0.0.1:8787":                      "http://127.0.0.1:8787/v1/query",
		"d1-bridge://[::1]:8787/":                         "http://[::1]:8787/v1/query",
		"d1-bridge://localhost":                           "http://localhost/v1/query",
		"d1-bridge://localhost.example":                   "https://localhost.example/v1/query",
	}
	for dsn, want := range good {
		if place, err := parseD1(dsn); err != nil || place.query != want {
			t.Errorf("%s is %s, %v; want %s", dsn, place.query, err, want)
		}
	}
	for _, dsn := range []string{
		"d1:", "d1://", "d1://a", "d1://a/", "d1:///b", "d1://a/b/c", "d1://a/../b", "d1://a b/c", "d1://a/%2e%2e",
		"d1://user:secret@a/b", "d1://a/b?token=secret", "d1://a/b#secret", "d1://a/b?api=http://d1.example",
		"d1://a/b?api=http://127.0.0.1.example", "d1://a/b?api=ftp://127.0.0.1", "d1://a/b?api=https://u:secret@d1.example",
		"d1://a/b?api=https://d1.example&api=https://e.example", "d1-bridge://", "d1-bridge:///v1", "d1-bridge://secret@h", "d1-bridge://h?x=secret", "d1-bridge://h/%zz",
	} {
		s, err := Open(t.Context(), Config{DSN: dsn, Token: "a-token-that-is-long-enough"})
		if !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%s) = %v", dsn, err)
		}
		if err == nil {
			s.Close()
		}
	}
	for _, token := range []Token{"", "short", "with a space in the middle", "a-token-with-a-line\r\nX-Other: 1"} {
		if _, err := Open(t.Context(), Config{DSN: "d1://a/b", Token: token}); !errors.Is(err, ErrConfig) {
			t.Errorf("a token that is none: %v", err)
		}
	}
	// Nobody is there.
	if _, err := Open(t.Context(), Config{DSN: "d1-bridge://127.0.0.1:1", Token: "a-token-that-is-long-enough"}); !errors.Is(err, ErrStore) {
		t.Errorf("nobody is there: %v", err)
	}
}
