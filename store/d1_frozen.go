package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/audit"
)

// d1Frozen is a view of a database on D1. There is no transaction to read in,
// but one statement sees one moment: it reads the head and every table at once,
// into memory.
type d1Frozen struct {
	ended audit.Head
	list  map[string][][]any
}

// d1Terms is how many SELECTs one UNION ALL of ours has: D1 takes five.
const d1Terms = 4

// d1FrozenQuery is that statement: one text a row, a JSON array of the table's
// name and its columns.
func d1FrozenQuery() string {
	terms := []string{`SELECT json_array('audit_head', leaf, size) AS line FROM audit_head`}
	for i := range tables {
		t := &tables[i]
		_, all := t.columns()
		terms = append(terms, `SELECT json_array('`+t.name+`', `+strings.Join(all, ", ")+`) AS line FROM `+t.name+t.where(""))
	}
	for len(terms) > 1 {
		var above []string
		for len(terms) > 0 {
			n := min(d1Terms, len(terms))
			above = append(above, `SELECT line FROM (`+strings.Join(terms[:n], ` UNION ALL `)+`)`)
			terms = terms[n:]
		}
		terms = above
	}
	return terms[0]
}

func freezeD1(ctx context.Context, read *reader) (view, error) {
	rows, err := read.Query(ctx, d1FrozenQuery())
	if err != nil {
		return nil, fmt.Errorf("%w: reading all tables at once: %w", ErrStore, err)
	}
	lines, err := gather(rows, scanText)
	if err != nil {
		return nil, fmt.Errorf("%w: reading all tables at once: %w", ErrStore, err)
	}
	f := &d1Frozen{list: map[string][][]any{}}
	for _, line := range lines {
		var row []any
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.UseNumber() // design §6: a float64 would corrupt what it cannot hold
		if err := decoder.Decode(&row); err != nil {
			return nil, fmt.Errorf("%w: reading all tables at once: %w", ErrStore, err)
		}
		for i, value := range row {
			if n, ok := value.(json.Number); ok {
				if row[i], err = n.Int64(); err != nil {
					return nil, fmt.Errorf("%w: reading all tables at once: %w", ErrStore, err)
				}
			}
		}
		name := row[0].(string)
		f.list[name] = append(f.list[name], row[1:])
	}
	head := f.list["audit_head"]
	if len(head) != 1 {
		return nil, fmt.Errorf("%w: the log has no head", ErrStore)
	}
	f.ended = audit.Head{Leaf: head[0][0].(string), Size: head[0][1].(int64)}
	return f, nil
}

func (f *d1Frozen) close() error { return nil }

func (f *d1Frozen) head(context.Context) (audit.Head, error) { return f.ended, nil }

// rows hands every row out once: nobody reads a view twice.
func (f *d1Frozen) rows(_ context.Context, t *table, _ []any) ([][]any, error) {
	rows := f.list[t.name]
	n := min(pageRows, len(rows))
	f.list[t.name] = rows[n:]
	return rows[:n], nil
}
