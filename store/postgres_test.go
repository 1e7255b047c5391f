package store

import (
	"context"
	"testing"

	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// openPostgresTest opens a fresh database on PostgreSQL that ends with the test.
func openPostgresTest(t testing.TB) (s *Store, dsn string) {
	t.Helper()
	dsn = pgtest.Database(t)
	s, err := Open(context.Background(), Config{DSN: dsn, Issuer: "https://kavach.example:8420"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s, dsn
}

// The PostgreSQL adapter keeps the contract of audit.Store.
func TestContractOnPostgres(t *testing.T) {
	audittest.RunStore(t, func(t *testing.T) audittest.Fixture {
		s, dsn := openPostgresTest(t)
		admin := elsewhere(t, dsn)
		f := fixture(t, s, "")
		f.Block = func(t *testing.T) func() {
			administer(t, admin, `CREATE FUNCTION block() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'blocked'; END $$`,
				`CREATE TRIGGER blocked BEFORE INSERT ON audit_records FOR EACH ROW EXECUTE FUNCTION block()`)
			return func() { administer(t, admin, `DROP TRIGGER blocked ON audit_records`) }
		}
		return f
	})
}
