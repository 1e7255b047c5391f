package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// Limits of D1.
const (
	d1MaxSQL    = 100_000
	d1MaxParams = 100
	d1MaxValue  = 2_000_000
	// d1MaxInt is the largest integer that survives: numbers travel as JSON and
	// are bound as REAL (design §6).
	d1MaxInt = 1<<53 - 1
)

// errD1Limit: what D1 cannot take, found before it is asked.
var errD1Limit = errors.New("beyond the limits of D1")

// d1Bind makes a statement ready to travel. Every refusal is one that D1 would
// make, or worse, would not.
func d1Bind(query string, args ...any) (d1Statement, error) {
	s := d1Statement{SQL: placeholders(query), Params: make([]any, len(args))}
	if len(s.SQL) > d1MaxSQL {
		return s, fmt.Errorf("%w: a statement of %d bytes", errD1Limit, len(s.SQL))
	}
	if len(args) > d1MaxParams {
		return s, fmt.Errorf("%w: %d parameters", errD1Limit, len(args))
	}
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return s, fmt.Errorf("parameter %d: %w", i+1, err)
		}
		if s.Params[i], err = d1Value(value); err != nil {
			return s, fmt.Errorf("parameter %d: %w", i+1, err)
		}
	}
	return s, nil
}

// d1Value is a value as it travels.
func d1Value(value driver.Value) (any, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case int64:
		if v > d1MaxInt || v < -d1MaxInt {
			return nil, fmt.Errorf("%w: the integer %d", errD1Limit, v)
		}
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%w: the number %v", errD1Limit, v)
		}
		return v, nil
	case []byte:
		return d1Value(string(v)) // blobs do not travel: TEXT
	case string:
		if len(v) > d1MaxValue {
			return nil, fmt.Errorf("%w: a value of %d bytes", errD1Limit, len(v))
		}
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("%w: text that is not UTF-8", errD1Limit)
		}
		return v, nil
	}
	return nil, fmt.Errorf("%w: a %T", errD1Limit, value)
}

// d1Column is a value as it came.
func d1Column(value any) (driver.Value, error) {
	switch v := value.(type) {
	case nil, string:
		return v, nil
	case bool:
		return v, nil
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil && n <= d1MaxInt && n >= -d1MaxInt {
			return n, nil
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil || f == math.Trunc(f) && math.Abs(f) > d1MaxInt {
			return nil, fmt.Errorf("%w: the integer %s", errD1Limit, v)
		}
		return f, nil
	}
	return nil, fmt.Errorf("%w: a %T", errD1Limit, value)
}

// d1Connector, d1Conn and d1Rows are D1 for database/sql, to read: one request
// a query. What writes is d1Writer's.
type d1Connector struct{ client *d1Client }

// Connect implements driver.Connector.
func (c d1Connector) Connect(context.Context) (driver.Conn, error) { return d1Conn(c), nil }

// Driver implements driver.Connector.
func (c d1Connector) Driver() driver.Driver { return c }

// Open implements driver.Driver.
func (c d1Connector) Open(string) (driver.Conn, error) { return d1Conn(c), nil }

type d1Conn struct{ client *d1Client }

var errD1Reads = fmt.Errorf("%w: this way to D1 only reads", ErrStore)

// Prepare implements driver.Conn.
func (d1Conn) Prepare(string) (driver.Stmt, error) { return nil, errD1Reads }

// Begin implements driver.Conn.
func (d1Conn) Begin() (driver.Tx, error) { return nil, errD1Reads }

// Close implements driver.Conn.
func (d1Conn) Close() error { return nil }

// QueryContext implements driver.QueryerContext.
func (c d1Conn) QueryContext(ctx context.Context, query string, named []driver.NamedValue) (driver.Rows, error) {
	args := make([]any, len(named))
	for _, n := range named {
		args[n.Ordinal-1] = n.Value
	}
	s, err := d1Bind(query, args...)
	if err != nil {
		return nil, err
	}
	result, err := c.client.query(ctx, s)
	if err != nil {
		return nil, err
	}
	return &d1Rows{columns: result.Results.Columns, rows: result.Results.Rows}, nil
}

type d1Rows struct {
	columns []string
	rows    [][]any
}

// Columns implements driver.Rows.
func (r *d1Rows) Columns() []string { return r.columns }

// Close implements driver.Rows.
func (r *d1Rows) Close() error { return nil }

// Next implements driver.Rows.
func (r *d1Rows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	row := r.rows[0]
	if len(row) != len(dest) {
		return fmt.Errorf("D1: a row of %d values in %d columns", len(row), len(dest))
	}
	for i, value := range row {
		var err error
		if dest[i], err = d1Column(value); err != nil {
			return fmt.Errorf("column %s: %w", r.columns[i], err)
		}
	}
	r.rows = r.rows[1:]
	return nil
}

// scan takes the next row, as *sql.Rows does, into what this package reads
// itself: strings and integers.
func (r *d1Rows) scan(dest ...any) error {
	row := make([]driver.Value, len(dest))
	if err := r.Next(row); err != nil {
		return err
	}
	for i, to := range dest {
		var ok bool
		switch to := to.(type) {
		case *string:
			*to, ok = row[i].(string)
		case *int64:
			*to, ok = row[i].(int64)
		}
		if !ok {
			return fmt.Errorf("column %s: a %T is not what was asked for", r.columns[i], row[i])
		}
	}
	return nil
}
