package audit_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// What was placed follows, one after the other, with the columns it was placed
// with; what was changed, moved or of another log does not.
func TestFollow(t *testing.T) {
	const log = "kavach.example/audit/01020304"
	start := audit.Head{Leaf: audit.FirstPrev(log)}
	seq := audit.NewSequencer(log, start, 1)
	var rows []audit.Raw
	var columns []audit.Columns
	for range 3 {
		e := audittest.Entry("r\"<")
		e.Path, e.Grant, e.Anc = []string{"user:a", "b"}, "g", []string{"above"}
		e.Chain = []audit.Party{{LID: "l", JKT: "k"}}
		e.Issued = []audit.Issued{{LID: "new", Expires: 7}}
		d, err := audit.NewDraft(log, e)
		if err != nil {
			t.Fatal(err)
		}
		r := seq.Next(d)
		rows = append(rows, audit.Raw{Seq: r.Seq, Leaf: r.Leaf, Bytes: r.Bytes})
		columns = append(columns, r.Columns)
	}
	heads := []audit.Head{start}
	for i, row := range rows {
		s, next, err := audit.Follow(log, heads[i], row)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.Columns(), columns[i]) {
			t.Errorf("%+v, want %+v", s.Columns(), columns[i])
		}
		heads = append(heads, next)
	}
	if heads[3] != seq.Head() {
		t.Errorf("it ends at %+v", heads[3])
	}
	for name, change := range map[string]func(log *string, head *audit.Head, row *audit.Raw){
		"another log":      func(log *string, _ *audit.Head, _ *audit.Raw) { *log += "x" },
		"another place":    func(_ *string, head *audit.Head, _ *audit.Raw) { head.Size-- },
		"another row":      func(_ *string, _ *audit.Head, row *audit.Raw) { row.Seq++ },
		"a row before":     func(_ *string, head *audit.Head, row *audit.Raw) { row.Seq--; head.Size-- },
		"another prev":     func(_ *string, head *audit.Head, _ *audit.Raw) { head.Leaf = start.Leaf },
		"another leaf":     func(_ *string, _ *audit.Head, row *audit.Raw) { row.Leaf = start.Leaf },
		"another record":   func(_ *string, _ *audit.Head, row *audit.Raw) { row.Bytes = rows[2].Bytes },
		"no record":        func(_ *string, _ *audit.Head, row *audit.Raw) { row.Bytes = []byte("{}") },
		"one byte changed": func(_ *string, _ *audit.Head, row *audit.Raw) { row.Bytes = append([]byte(" "), row.Bytes...) },
	} {
		id, head, row := log, heads[1], rows[1]
		change(&id, &head, &row)
		if _, same, err := audit.Follow(id, head, row); !errors.Is(err, audit.ErrBroken) || same != head {
			t.Errorf("%s: %v", name, err)
		}
	}
}
