package store

import (
	"context"
	"testing"

	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/d1test"
)

// openD1Test opens a database on D1, over both ways in turn.
func openD1Test(t testing.TB, dsn string, token Token) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{DSN: dsn, Token: token, Issuer: "https://kavach.example:8420"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

// D1 keeps the contract of audit.Store, over Cloudflare's REST API and over the
// bridge.
func TestContractD1(t *testing.T) {
	for _, way := range []string{"REST", "bridge"} {
		t.Run(way, func(t *testing.T) {
			audittest.RunStore(t, func(t *testing.T) audittest.Fixture {
				db := d1test.New(t)
				dsn, token := db.Bridge, Token(d1test.SchemaToken)
				if way == "REST" {
					dsn, token = db.REST, d1test.RESTToken
				}
				f := fixture(t, openD1Test(t, dsn, token), "")
				f.Block = func(t *testing.T) func() {
					db.Exec(t, `CREATE TRIGGER blocked BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'blocked'); END`)
					return func() { db.Exec(t, `DROP TRIGGER blocked`) }
				}
				return f
			})
		})
	}
}
