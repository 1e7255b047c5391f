package d1test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Open connects to the database of a data source that New made, by way of the
// REST form, as somebody who knows nothing of package store. Statements number
// their parameters: $1.
func Open(dsn string) *sql.DB {
	_, rest, _ := strings.Cut(dsn, "://")
	address, n, _ := strings.Cut(rest, "/bridge/")
	return sql.OpenDB(connector("http://" + address + "/client/v4/accounts/test/d1/database/" + n + "/raw"))
}

// connector is the address of a database.
type connector string

func (c connector) Connect(context.Context) (driver.Conn, error) { return conn(c), nil }
func (c connector) Driver() driver.Driver                        { return c }
func (c connector) Open(string) (driver.Conn, error)             { return conn(c), nil }

type conn string

var errUnwanted = errors.New("d1test: neither statements to keep nor transactions")

func (conn) Prepare(string) (driver.Stmt, error) { return nil, errUnwanted }
func (conn) Begin() (driver.Tx, error)           { return nil, errUnwanted }
func (conn) Close() error                        { return nil }

// ExecContext implements driver.ExecerContext.
func (c conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.ask(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return driver.RowsAffected(result.Meta.Changes), nil
}

// QueryContext implements driver.QueryerContext.
func (c conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	result, err := c.ask(ctx, query, args)
	return result, err
}

// answered is what one statement answered; the rows that are left.
type answered struct {
	Meta    struct{ Changes int64 }
	Results struct {
		Columns []string
		Rows    [][]any
	}
}

func (c conn) ask(ctx context.Context, query string, args []driver.NamedValue) (*answered, error) {
	type statement struct {
		SQL    string `json:"sql"`
		Params []any  `json:"params"`
	}
	one := statement{SQL: strings.ReplaceAll(query, "$", "?"), Params: []any{}}
	for _, arg := range args {
		one.Params = append(one.Params, arg.Value)
	}
	// A batch says how many rows it hit, a single statement which it found.
	var body any = map[string]any{"batch": []statement{one}}
	if word, _, _ := strings.Cut(strings.TrimSpace(query), " "); strings.EqualFold(word, "SELECT") {
		body = one
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, string(c), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+RESTToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Success bool
		Errors  []struct{ Message string }
		Result  []answered
	}
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber()
	if err := decoder.Decode(&answer); err != nil || !answer.Success || len(answer.Result) != 1 {
		return nil, fmt.Errorf("d1test: %s: %+v, %w", query, answer.Errors, err)
	}
	return &answer.Result[0], nil
}

// Columns implements driver.Rows.
func (a *answered) Columns() []string { return a.Results.Columns }

// Close implements driver.Rows.
func (a *answered) Close() error { return nil }

// Next implements driver.Rows.
func (a *answered) Next(dest []driver.Value) error {
	if len(a.Results.Rows) == 0 {
		return io.EOF
	}
	for i, value := range a.Results.Rows[0] {
		if n, ok := value.(json.Number); ok {
			value = string(n)
		}
		dest[i] = value
	}
	a.Results.Rows = a.Results.Rows[1:]
	return nil
}
