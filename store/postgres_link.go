package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// link is a connection to PostgreSQL with the statements that it has prepared.
// It sends statements in pipelines: many at once, one wait for all of them.
type link struct {
	conn   *pgconn.PgConn
	stmts  map[prepared]*pgconn.StatementDescription
	warned *atomic.Bool // the server warned of something
}

// request is a statement to run. Its rows go to row, if that is set.
type request struct {
	prepared
	values  [][]byte
	formats []int16
	bad     error // the arguments could not be encoded
	row     func(values [][]byte) error
}

// prepared is a statement as it is written, and what makes it fail.
type prepared struct {
	query string
	// exactly: a server error (pgDivision) unless it hits as many rows.
	exactly int64
}

// anyNumber is a statement that may hit any number of rows.
const anyNumber = -1

// ask is a request that may hit any number of rows.
func ask(query string, args ...any) request { return must(anyNumber, query, args...) }

// must is a request that fails unless it hits as many rows.
func must(exactly int64, query string, args ...any) request {
	r := request{prepared: prepared{query, exactly}}
	r.values, r.formats, r.bad = encode(args)
	return r
}

// spell returns the SQL of a statement. A lost condition divides by zero, so
// that the server itself does not go on (audit.md §3).
func (p prepared) spell() string {
	if p.exactly < 0 {
		return p.query
	}
	return "WITH s AS (" + p.query + " RETURNING 1) SELECT 1/(count(*)=" + strconv.FormatInt(p.exactly, 10) + ")::int FROM s"
}

// dial makes a link.
func dial(ctx context.Context, cfg *pgconn.Config) (*link, error) {
	l := &link{stmts: make(map[prepared]*pgconn.StatementDescription), warned: new(atomic.Bool)}
	cfg = cfg.Copy()
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			l.warned.Store(true)
		}
	}
	var err error
	if l.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
		return nil, unreachable(err)
	}
	return l, nil
}

// broken reports whether the connection is of no use any more.
func (l *link) broken() bool { return l.conn.IsClosed() }

// brokenRequest says which request of a list failed.
type brokenRequest struct {
	at  int
	err error
}

func (e *brokenRequest) Error() string { return e.err.Error() }
func (e *brokenRequest) Unwrap() error { return e.err }

// prepare prepares by name what is not yet: inside a transaction that failed
// nothing can be (design §6). An error that is the statement's own comes as a
// brokenRequest. Queries are literals of this package, so the map is bounded by
// the source.
func (l *link) prepare(ctx context.Context, list []request) error {
	var missing []int
	var met map[prepared]bool
	for i, r := range list {
		if r.bad != nil {
			return &brokenRequest{at: i, err: r.bad}
		}
		if l.stmts[r.prepared] == nil && !met[r.prepared] {
			if met == nil {
				met = make(map[prepared]bool)
			}
			met[r.prepared] = true
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	first := len(l.stmts)
	p := l.conn.StartPipeline(ctx)
	for n, i := range missing {
		p.SendPrepare(statementName(first+n), list[i].spell(), nil)
	}
	err := p.Sync()
	for n := 0; n < len(missing) && err == nil; n++ {
		i := missing[n]
		var res any
		if res, err = p.GetResults(); err != nil {
			err = &brokenRequest{at: i, err: err}
			break
		}
		sd, ok := res.(*pgconn.StatementDescription)
		if !ok {
			err = fmt.Errorf("%w: preparing answers with %T", ErrStore, res)
			break
		}
		sd.Name = statementName(first + n)
		l.stmts[list[i].prepared] = sd
	}
	return l.end(p, err)
}

func statementName(n int) string { return "k" + strconv.Itoa(n) }

// run sends the list and returns how many rows each statement hit or returned.
// The server stops at the first that fails, which the brokenRequest names; what
// stood before it was run. Another error says that nobody knows where it
// stopped.
func (l *link) run(ctx context.Context, list []request) ([]pgconn.CommandTag, error) {
	if err := l.prepare(ctx, list); err != nil {
		return nil, err
	}
	p := l.conn.StartPipeline(ctx)
	for _, r := range list {
		p.SendQueryStatement(l.stmts[r.prepared], r.values, r.formats, nil)
	}
	err := p.Sync()
	tags := make([]pgconn.CommandTag, 0, len(list))
	for i := 0; i < len(list) && err == nil; i++ {
		var tag pgconn.CommandTag
		if tag, err = result(p, list[i].row); err != nil {
			if pgError(err) != nil {
				err = &brokenRequest{at: i, err: err}
			}
			break
		}
		tags = append(tags, tag)
	}
	return tags, l.end(p, err)
}

// result reads the result of one statement of a pipeline.
func result(p *pgconn.Pipeline, row func([][]byte) error) (pgconn.CommandTag, error) {
	res, err := p.GetResults()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows, ok := res.(*pgconn.ResultReader)
	if !ok {
		return pgconn.CommandTag{}, fmt.Errorf("%w: a statement answers with %T", ErrStore, res)
	}
	for row != nil && rows.NextRow() {
		if err := row(rows.Values()); err != nil {
			return pgconn.CommandTag{}, err
		}
	}
	return rows.Close()
}

// end reads a pipeline to its end. The error before that counts.
func (l *link) end(p *pgconn.Pipeline, err error) error {
	if closing := p.Close(); err == nil {
		err = closing
	}
	return err
}

// exec runs one statement and returns how many rows it hit.
func (l *link) exec(ctx context.Context, query string, args ...any) (int64, error) {
	tags, err := l.run(ctx, []request{ask(query, args...)})
	if err != nil {
		return 0, err
	}
	return tags[0].RowsAffected(), nil
}

// encode turns arguments into what the server reads: text, and lists as binary
// arrays.
func encode(args []any) (values [][]byte, formats []int16, err error) {
	values, formats = make([][]byte, len(args)), make([]int16, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case nil:
		case string:
			values[i] = []byte(v)
		case []byte:
			values[i] = v
		case int:
			values[i] = strconv.AppendInt(nil, int64(v), 10)
		case int64:
			values[i] = strconv.AppendInt(nil, v, 10)
		case []string:
			values[i], formats[i] = appendTexts(v), 1
		case []int64:
			values[i], formats[i] = appendIntegers(v), 1
		default:
			if values[i], err = encodeKind(arg); err != nil {
				return nil, nil, fmt.Errorf("argument %d: %w", i+1, err)
			}
		}
	}
	return values, formats, nil
}

// encodeKind encodes types that are made of the usual ones.
func encodeKind(arg any) ([]byte, error) {
	switch v := reflect.ValueOf(arg); v.Kind() {
	case reflect.String:
		return []byte(v.String()), nil
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		return strconv.AppendInt(nil, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		return strconv.AppendUint(nil, v.Uint(), 10), nil
	}
	return nil, fmt.Errorf("%w: no column has type %T", ErrStore, arg)
}

// The types of elements of an array.
const (
	oidInt8 = 20
	oidText = 25
)

// arrayHeader starts an array of one dimension in its binary form.
func arrayHeader(oid uint32, elements, size int) []byte {
	b := make([]byte, 0, 20+size)
	b = binary.BigEndian.AppendUint32(b, 1) // dimensions
	b = binary.BigEndian.AppendUint32(b, 0) // no NULL in it
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(elements))
	return binary.BigEndian.AppendUint32(b, 1) // the first index
}

func appendTexts(list []string) []byte {
	size := 0
	for _, s := range list {
		size += 4 + len(s)
	}
	b := arrayHeader(oidText, len(list), size)
	for _, s := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

func appendIntegers(list []int64) []byte {
	b := arrayHeader(oidInt8, len(list), 12*len(list))
	for _, n := range list {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}
