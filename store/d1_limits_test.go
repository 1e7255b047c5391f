package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/d1test"
)

// Every limit of D1: what is beyond it is refused by itself, before D1 is
// asked, and disturbs nobody; what is below arrives as it was.
func TestD1Limits(t *testing.T) {
	db := d1test.New(t)
	for way, s := range map[string]*Store{
		"bridge": openD1Test(t, db.Bridge, d1test.SchemaToken),
		"REST":   openD1Test(t, db.REST, d1test.RESTToken),
	} {
		t.Run(way, func(t *testing.T) {
			put := func(name string, value any) audit.Effect {
				return effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2)`, way+name, value)
			}
			many := func(n int) audit.Effect {
				args := make([]any, n)
				var marks []string
				for i := range args {
					args[i] = fmt.Sprint(i)
					marks = append(marks, fmt.Sprint("$", i+1))
				}
				return effect(-1, `DELETE FROM settings WHERE name IN (`+strings.Join(marks, ", ")+`)`, args...)
			}
			long := func(n int) audit.Effect {
				begin, end := `DELETE FROM settings WHERE name = '`, `'`
				return effect(-1, begin+strings.Repeat("x", n-len(begin)-len(end))+end)
			}
			number := func(n any) audit.Effect {
				return effect(1, `INSERT INTO replays (key, until) VALUES ($1, $2)`, fmt.Sprint(way, n), n)
			}
			batch := []audit.Write{}
			var fine []bool
			for _, one := range []struct {
				e  audit.Effect
				ok bool
			}{
				{many(d1MaxParams), true}, {many(d1MaxParams + 1), false},
				{long(d1MaxSQL), true}, {long(d1MaxSQL + 1), false},
				{put("long", strings.Repeat("v", 1_900_000)), true}, {put("longer", strings.Repeat("v", d1MaxValue+1)), false},
				{put("text", "a\x00b <&>\u2028 é 😀 \" \\"), true}, {put("no text", "\xff\xfe"), false},
				{number(int64(d1MaxInt)), true}, {number(int64(-d1MaxInt)), true},
				{number(int64(d1MaxInt + 1)), false}, {number(int64(math.MaxInt64)), false}, {number(uint64(math.MaxUint64)), false},
				{number(math.NaN()), false}, {number(true), true},
			} {
				batch, fine = append(batch, audit.Write{Effects: []audit.Effect{one.e}}), append(fine, one.ok)
			}
			var outcomes []audit.Outcome
			for len(outcomes) < len(batch) {
				some, err := s.Append(t.Context(), batch[len(outcomes):], 1)
				if err != nil {
					t.Fatal(err)
				}
				outcomes = append(outcomes, some...)
			}
			for i, o := range outcomes {
				if fine[i] != (o.Err == nil) || o.Err != nil && !errors.Is(o.Err, audit.ErrStatement) || o.Lost {
					t.Errorf("effect %d: %+v, want it done: %t", i, o, fine[i])
				}
			}
			if text, err := s.setting(t.Context(), way+"text"); err != nil || text != "a\x00b <&>\u2028 é 😀 \" \\" {
				t.Errorf("the text came back as %q, %v", text, err)
			}
			if text, err := s.setting(t.Context(), way+"long"); err != nil || len(text) != 1_900_000 {
				t.Errorf("the long value came back with %d bytes, %v", len(text), err)
			}
			var n int64
			if err := s.read.QueryRow(t.Context(), `SELECT until FROM replays WHERE key = $1`, fmt.Sprint(way, int64(d1MaxInt))).Scan(&n); err != nil || n != d1MaxInt {
				t.Errorf("the largest integer came back as %d, %v", n, err)
			}
			var kind string
			if err := s.read.QueryRow(t.Context(), `SELECT typeof(until) FROM replays WHERE key = $1`, fmt.Sprint(way, int64(d1MaxInt))).Scan(&kind); err != nil || kind != "integer" {
				t.Errorf("the integer is kept as %s, %v", kind, err)
			}
			// What D1 would have rounded is refused on the way back too.
			for _, query := range []string{`SELECT 9007199254740993`, `SELECT -9007199254740993`, `SELECT 9223372036854775807`} {
				if err := s.read.QueryRow(t.Context(), query).Scan(&n); err == nil {
					t.Errorf("%s = %d", query, n)
				}
			}
			if err := s.read.QueryRow(t.Context(), `SELECT name FROM settings WHERE name = $1`, strings.Repeat("x", d1MaxValue+1)).Scan(&kind); !errors.Is(err, errD1Limit) {
				t.Errorf("a parameter too long: %v", err)
			}
			if _, err := s.read.db.ExecContext(t.Context(), `DELETE FROM settings`); err == nil {
				t.Error("the way that reads has written")
			}
		})
	}
}

// A batch that is larger than one request is taken in parts, in order.
func TestD1LargeBatch(t *testing.T) {
	s := openD1Test(t, d1test.New(t).Bridge, d1test.SchemaToken)
	var batch []audit.Write
	for i := range 700 { // two statements each
		e := audittest.Entry(fmt.Sprint("record ", i))
		e.Detail["filler"] = strings.Repeat("é\"", 600)
		d, err := audit.NewDraft(s.LogID(), e)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, audit.Write{Drafts: []*audit.Draft{d}, Effects: []audit.Effect{
			effect(1, `INSERT INTO settings (name, value) VALUES ($1, 'x')`, fmt.Sprint("n", i)),
		}})
	}
	calls := 0
	for rest := batch; len(rest) > 0; calls++ {
		outcomes, err := s.Append(t.Context(), rest, 1)
		if err != nil || len(outcomes) == 0 {
			t.Fatalf("%d outcomes, %v", len(outcomes), err)
		}
		rest = rest[len(outcomes):]
	}
	if calls < 2 {
		t.Errorf("%d calls", calls)
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Records != 700 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
	// A Change that can never fit is its own failure.
	var huge []audit.Effect
	for i := range d1MaxStatements {
		huge = append(huge, effect(1, `DELETE FROM settings WHERE name = $1`, fmt.Sprint("n", i)))
	}
	outcomes, err := s.Append(t.Context(), []audit.Write{{Effects: huge}, {Effects: []audit.Effect{effect(1, `DELETE FROM settings WHERE name = 'n1'`)}}}, 1)
	if err != nil || !errors.Is(outcomes[0].Err, audit.ErrStatement) || outcomes[1].Err != nil || outcomes[1].Lost {
		t.Errorf("%+v, %v", outcomes, err)
	}
	if _, err := s.setting(t.Context(), "n0"); err != nil {
		t.Errorf("a part of what did not fit was done: %v", err)
	}
	if _, err := s.setting(t.Context(), "n1"); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("what stood beside it was not: %v", err)
	}
}
