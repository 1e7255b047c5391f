package store

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// unlock is what somebody with the file does first.
const unlock = `DROP TRIGGER audit_records_no_update; DROP TRIGGER audit_records_no_delete; DROP TRIGGER audit_head_forward`

// What somebody with the server does first; and, for the next test of the same
// database, how the log becomes what it was.
var (
	unlockPostgres = []string{`ALTER TABLE audit_records DISABLE TRIGGER ALL`, `ALTER TABLE audit_head DISABLE TRIGGER ALL`,
		`CREATE TABLE records AS TABLE audit_records`, `CREATE TABLE head AS TABLE audit_head`}
	restorePostgres = []string{`TRUNCATE audit_records, audit_head`,
		`INSERT INTO audit_records SELECT * FROM records`, `INSERT INTO audit_head SELECT * FROM head`}
)

// forge writes the bytes of a record that says what the attacker wants.
func forge(t *testing.T, log string, seq int64, prev, resource string) (bytes, leaf string) {
	t.Helper()
	d, err := audit.NewDraft(log, audittest.Entry(resource))
	if err != nil {
		t.Fatal(err)
	}
	r := audit.NewSequencer(log, audit.Head{Size: seq, Leaf: prev}, 1).Next(d)
	return string(r.Bytes), r.Leaf
}

// Every kind of damage done with SQL is named, with the exact seq. The log has
// records 0 to 9.
func TestTamper(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		testTamper(t, func(t *testing.T) (*Store, func(...string)) {
			s, path := filled(t, 10)
			outside(t, path, unlock)
			return s, func(statements ...string) { outside(t, path, statements...) }
		})
	})
	t.Run("postgres", func(t *testing.T) {
		s, dsn := openPostgresTest(t)
		admin := elsewhere(t, dsn)
		fillLog(t, s, 10)
		administer(t, admin, unlockPostgres...)
		testTamper(t, func(t *testing.T) (*Store, func(...string)) {
			administer(t, admin, restorePostgres...)
			return s, func(statements ...string) { administer(t, admin, statements...) }
		})
	})
}

// testTamper gets a log of ten records that somebody can write.
func testTamper(t *testing.T, open func(t *testing.T) (*Store, func(statements ...string))) {
	set := func(seq int64, bytes, leaf string) string {
		return fmt.Sprintf(`UPDATE audit_records SET bytes = '%s', leaf = '%s' WHERE seq = %d`, bytes, leaf, seq)
	}
	insert := func(seq int64, bytes, leaf string) string {
		return fmt.Sprintf(`INSERT INTO audit_records (seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
			VALUES (%d, '%s', 'x', 1, '%s', '%s', '', '', '', '', '', '', '')`, seq, audit.NewID(), bytes, leaf)
	}
	// move renumbers rows [first, 9] by d.
	move := func(first, d int) []string {
		return []string{
			fmt.Sprintf(`UPDATE audit_records SET seq = -seq - 1 WHERE seq >= %d`, first),
			fmt.Sprintf(`UPDATE audit_records SET seq = -seq - 1 + %d WHERE seq < 0`, d),
		}
	}
	type tampering struct {
		name string
		sql  func(log string, rows []audit.Raw) []string
		want string
	}
	one := func(sql string) func(string, []audit.Raw) []string {
		return func(string, []audit.Raw) []string { return []string{sql} }
	}
	edited := func(r audit.Raw) string { return strings.Replace(string(r.Bytes), `"allowed"`, `"denied"`, 1) }
	rehash := func(bytes string) string { return audit.LeafHash([]byte(bytes)) }

	tests := []tampering{
		{"nothing", one(`SELECT 1`), "[]"},
		{"one letter", one(`UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'failed') WHERE seq = 4`), "[edited 4-4]"},
		{"first record", one(`UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'failed') WHERE seq = 0`), "[edited 0-0]"},
		{"no JSON", one(`UPDATE audit_records SET bytes = 'gone' WHERE seq = 4`), "[edited 4-4]"},
		{"only the leaf", one(`UPDATE audit_records SET leaf = (SELECT leaf FROM audit_records WHERE seq = 1) WHERE seq = 4`), "[edited 4-4]"},
		{"two edits", one(`UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'failed') WHERE seq IN (4, 5, 9)`), "[edited 4-4 edited 5-5 edited 9-9]"},
		{"edited and rehashed", func(log string, r []audit.Raw) []string {
			return []string{set(4, edited(r[4]), rehash(edited(r[4])))}
		}, "[edited 4-4]"},
		{"first edited and rehashed", func(log string, r []audit.Raw) []string {
			return []string{set(0, edited(r[0]), rehash(edited(r[0])))}
		}, "[edited 0-0]"},
		{"last edited and rehashed", func(log string, r []audit.Raw) []string {
			return []string{set(9, edited(r[9]), rehash(edited(r[9])))}
		}, "[edited 9-9]"},
		{"prev edited and rehashed", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 4, r[1].Leaf, "forged")
			return []string{set(4, bytes, leaf)}
		}, "[edited 4-4]"},
		{"replaced in place, well linked", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 4, r[3].Leaf, "forged")
			return []string{set(4, bytes, leaf)}
		}, "[edited 4-4]"},
		{"head leaf", one(`UPDATE audit_head SET leaf = (SELECT leaf FROM audit_records WHERE seq = 1)`), "[edited 9-9]"},

		{"one gone", one(`DELETE FROM audit_records WHERE seq = 4`), "[missing 4-4]"},
		{"first gone", one(`DELETE FROM audit_records WHERE seq = 0`), "[missing 0-0]"},
		{"last gone", one(`DELETE FROM audit_records WHERE seq = 9`), "[missing 9-9]"},
		{"some gone", one(`DELETE FROM audit_records WHERE seq IN (2, 3, 7)`), "[missing 2-3 missing 7-7]"},
		{"all gone", one(`DELETE FROM audit_records`), "[missing 0-9]"},
		{"gone and renumbered", func(string, []audit.Raw) []string {
			return append([]string{`DELETE FROM audit_records WHERE seq = 4`}, move(5, -1)...)
		}, "[missing 4-4]"},
		{"gone, renumbered, head set back", func(string, []audit.Raw) []string {
			return append(append([]string{`DELETE FROM audit_records WHERE seq = 4`}, move(5, -1)...), `UPDATE audit_head SET size = 9`)
		}, "[missing 4-4]"},

		{"bytes swapped", func(log string, r []audit.Raw) []string {
			return []string{set(3, string(r[6].Bytes), r[3].Leaf), set(6, string(r[3].Bytes), r[6].Leaf)}
		}, "[reordered 3-3 reordered 6-6]"},
		{"rows swapped", func(log string, r []audit.Raw) []string {
			return []string{set(3, string(r[6].Bytes), r[6].Leaf), set(6, string(r[3].Bytes), r[3].Leaf)}
		}, "[reordered 3-3 reordered 6-6]"},
		{"neighbours swapped", func(log string, r []audit.Raw) []string {
			return []string{set(3, string(r[4].Bytes), r[4].Leaf), set(4, string(r[3].Bytes), r[3].Leaf)}
		}, "[reordered 3-3 reordered 4-4]"},
		{"first two swapped", func(log string, r []audit.Raw) []string {
			return []string{set(0, string(r[1].Bytes), r[1].Leaf), set(1, string(r[0].Bytes), r[0].Leaf)}
		}, "[reordered 0-0 reordered 1-1]"},
		{"last two swapped", func(log string, r []audit.Raw) []string {
			return []string{set(8, string(r[9].Bytes), r[9].Leaf), set(9, string(r[8].Bytes), r[8].Leaf)}
		}, "[reordered 8-8 reordered 9-9]"},
		{"an old record again", func(log string, r []audit.Raw) []string {
			return []string{set(7, string(r[2].Bytes), r[2].Leaf)}
		}, "[reordered 7-7]"},
		{"rows renumbered", func(string, []audit.Raw) []string { return move(5, 3) }, "[reordered 8-8]"},

		{"overwritten by a stranger", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 777, r[3].Leaf, "forged")
			return []string{set(4, bytes, leaf)}
		}, "[inserted 4-4]"},
		{"squeezed in", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 4, r[3].Leaf, "forged")
			return append(move(4, 1), insert(4, bytes, leaf))
		}, "[inserted 4-4]"},
		{"squeezed in, badly linked", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 4, r[7].Leaf, "forged")
			return append(move(4, 1), insert(4, bytes, leaf))
		}, "[inserted 4-4]"},
		{"squeezed in before all", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 0, audit.FirstPrev(log), "forged")
			return append(move(0, 1), insert(0, bytes, leaf))
		}, "[inserted 0-0]"},
		{"squeezed in before the last", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 9, r[8].Leaf, "forged")
			return append(move(9, 1), insert(9, bytes, leaf))
		}, "[inserted 9-9]"},
		{"squeezed in, head moved", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 4, r[3].Leaf, "forged")
			return append(move(4, 1), insert(4, bytes, leaf), `UPDATE audit_head SET size = 11`)
		}, "[inserted 4-4]"},
		{"added behind the head", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 10, r[9].Leaf, "forged")
			return []string{insert(10, bytes, leaf)}
		}, "[inserted 10-10]"},
		{"added far behind the head", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, log, 5000, r[9].Leaf, "forged")
			return []string{insert(5000, bytes, leaf)}
		}, "[inserted 5000-5000]"},
		{"head set back", one(`UPDATE audit_head SET size = 7, leaf = (SELECT leaf FROM audit_records WHERE seq = 6)`),
			"[inserted 7-7 inserted 8-8 inserted 9-9]"},

		{"a record of another log", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, "evil.example/audit/00000000", 4, r[3].Leaf, "forged")
			return []string{set(4, bytes, leaf)}
		}, "[wrong-log 4-4]"},
		{"another log squeezed in", func(log string, r []audit.Raw) []string {
			bytes, leaf := forge(t, "evil.example/audit/00000000", 4, r[3].Leaf, "forged")
			return append(move(4, 1), insert(4, bytes, leaf))
		}, "[wrong-log 4-4]"},
		{"several at once", func(log string, r []audit.Raw) []string {
			return []string{`DELETE FROM audit_records WHERE seq = 1`, set(8, edited(r[8]), rehash(edited(r[8]))),
				`UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'failed') WHERE seq = 5`}
		}, "[missing 1-1 edited 5-5 edited 8-8]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, outside := open(t)
			rows, err := s.Records(t.Context(), audit.Scan{After: -1, Ascending: true, Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			outside(test.sql(s.LogID(), rows)...)
			report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				got = append(got, fmt.Sprintf("%s %d-%d", f.Kind, f.First, f.Last))
			}
			if fmt.Sprint(got) != test.want || report.OK() != (test.want == "[]") {
				t.Errorf("found %v, want %s: %+v", got, test.want, report.Findings)
			}
		})
	}
}

// filled returns a store whose log has n records.
func filled(t testing.TB, n int) (*Store, string) {
	t.Helper()
	s, path := openTest(t)
	fillLog(t, s, n)
	return s, path
}

// fillLog appends n records.
func fillLog(t testing.TB, s *Store, n int) {
	t.Helper()
	var batch []audit.Write
	for i := range n {
		d, err := audit.NewDraft(s.LogID(), audittest.Entry(fmt.Sprint("record ", i)))
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, audit.Write{Drafts: []*audit.Draft{d}})
	}
	if _, err := s.Append(context.Background(), batch, 1_700_000_000_000); err != nil {
		t.Fatal(err)
	}
}

// The triggers stand in the way of whoever does not remove them first.
func TestRecordsAreNeverChanged(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		s, _ := openTest(t)
		testNeverChanged(t, s)
	})
	t.Run("postgres", func(t *testing.T) {
		s, dsn := openPostgresTest(t)
		admin := elsewhere(t, dsn)
		testNeverChanged(t, s)
		for _, table := range []string{"audit_records", "audit_lids", "audit_head"} {
			if _, err := admin.Exec(`TRUNCATE ` + table); err == nil {
				t.Errorf("%s was truncated", table)
			}
		}
	})
}

func testNeverChanged(t *testing.T, s *Store) {
	fillLog(t, s, 3)
	for _, statement := range []string{
		`UPDATE audit_records SET bytes = 'x' WHERE seq = 1`,
		`DELETE FROM audit_records WHERE seq = 1`,
		`DELETE FROM audit_head`,
		`UPDATE audit_head SET size = 1`,
	} {
		outcomes, err := s.Append(t.Context(), []audit.Write{{Effects: []audit.Effect{effect(-1, statement)}}}, 1)
		if err != nil || outcomes[0].Err == nil {
			t.Errorf("%s: %+v, %v; want it refused", statement, outcomes, err)
		}
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Records != 3 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}
