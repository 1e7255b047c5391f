package store

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/d1test"
)

// The bridge lets in who has its token, by POST, with what it can check, and
// tells nobody else anything.
func TestD1Bridge(t *testing.T) {
	db := d1test.New(t)
	openD1Test(t, db.Bridge, d1test.SchemaToken)
	const (
		read  = `{"sql":"SELECT 1","params":[]}`
		write = `{"batch":[{"sql":"DELETE FROM settings WHERE name = ?1","params":["none"]}]}`
	)
	one := func(sql string) string { return `{"batch":[{"sql":"` + sql + `","params":[]}]}` }
	long := strings.Repeat("x", 9<<20)
	for name, test := range map[string]struct {
		method, path, token, body string
		header                    http.Header
		want                      int
		says                      string
	}{
		"a read":                      {body: read, want: 200, says: `"rows":[[1]]`},
		"a write":                     {path: "/v1/batch", body: write, want: 200},
		"behind a route":              {path: "/prefix/v1/query", body: read, want: 200},
		"a space in the content type": {body: read, header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, want: 200},

		"no token":           {token: "-", body: read, want: 401},
		"another token":      {token: d1test.RESTToken, body: read, want: 401},
		"a part of it":       {token: d1test.SchemaToken[:32], body: read, want: 401},
		"more than it":       {token: d1test.SchemaToken + "x", body: read, want: 401},
		"a short token":      {token: "x", body: read, want: 401},
		"no token, GET":      {token: "-", method: "GET", want: 401},
		"no token, OPTIONS":  {token: "-", method: "OPTIONS", header: http.Header{"Origin": {"https://evil.example"}}, want: 401},
		"no token, no path":  {token: "-", path: "/", body: read, want: 401},
		"no token, too long": {token: "-", body: long, want: 401},

		"GET":               {method: "GET", want: 405},
		"PUT":               {method: "PUT", body: read, want: 405},
		"OPTIONS":           {method: "OPTIONS", want: 405},
		"another path":      {path: "/v1/exec", body: read, want: 404},
		"a browser":         {body: read, header: http.Header{"Origin": {"https://evil.example"}}, want: 403},
		"a browser's fetch": {body: read, header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, want: 403},
		"a form":            {body: read, header: http.Header{"Content-Type": {"text/plain"}}, want: 415},
		"compressed":        {body: read, header: http.Header{"Content-Encoding": {"gzip"}}, want: 415},
		"too long":          {body: long, want: 413},

		"no JSON":              {body: `{`, want: 400},
		"no UTF-8":             {body: "{\"sql\":\"SELECT '\xff'\",\"params\":[]}", want: 400},
		"no object":            {body: `[]`, want: 400},
		"a member too many":    {body: `{"sql":"SELECT 1","params":[],"more":1}`, want: 400},
		"a member too few":     {body: `{"sql":"SELECT 1"}`, want: 400},
		"no text":              {body: `{"sql":1,"params":[]}`, want: 400},
		"a NUL":                {body: `{"sql":"SELECT 1\u0000","params":[]}`, want: 400},
		"an object":            {body: `{"sql":"SELECT ?1","params":[{}]}`, want: 400},
		"an empty batch":       {path: "/v1/batch", body: `{"batch":[]}`, want: 400},
		"101 parameters":       {body: `{"sql":"SELECT 1","params":[1` + strings.Repeat(",1", 100) + `]}`, want: 413},
		"a long statement":     {body: `{"sql":"SELECT ` + strings.Repeat("1", 100_000) + `","params":[]}`, want: 413},
		"a long value":         {body: `{"sql":"SELECT ?1","params":["` + strings.Repeat("v", 2_000_001) + `"]}`, want: 413},
		"1,001 statements":     {path: "/v1/batch", body: `{"batch":[` + strings.Repeat(`{"sql":"DELETE FROM settings WHERE name = 'none'","params":[]},`, 1000) + `{"sql":"","params":[]}]}`, want: 413},
		"an integer too large": {body: `{"sql":"SELECT ?1","params":[9007199254740993]}`, want: 422},
		"one in the answer":    {body: `{"sql":"SELECT 9007199254740993","params":[]}`, want: 422},
		"a blob in the answer": {body: `{"sql":"SELECT x'00ff'","params":[]}`, want: 422},

		"a query that writes":    {body: `{"sql":"DELETE FROM settings","params":[]}`, want: 403},
		"a query and more":       {body: `{"sql":"SELECT 1; DELETE FROM settings","params":[]}`, want: 403},
		"bad SQL":                {body: `{"sql":"SELECT missing","params":[]}`, want: 400, says: "no such column"},
		"all or nothing":         {path: "/v1/batch", body: `{"batch":[{"sql":"DELETE FROM settings","params":[]},{"sql":"DELETE FROM nowhere","params":[]}]}`, want: 400},
		"the schema":             {path: "/v1/batch", body: one("CREATE TABLE mine (x TEXT)"), want: 200},
		"the schema, less right": {path: "/v1/batch", token: d1test.RowsToken, body: one("DROP TABLE settings"), want: 403, says: "migrate token"},
		"a trigger, less right":  {path: "/v1/batch", token: d1test.RowsToken, body: one("DROP TRIGGER audit_records_no_delete"), want: 403},
		"more than one":          {path: "/v1/batch", token: d1test.RowsToken, body: one("DELETE FROM replays; DROP TABLE settings"), want: 403},
		"a comment before":       {path: "/v1/batch", token: d1test.RowsToken, body: one("/* DELETE */ DROP TABLE settings"), want: 403},
		"a pragma":               {path: "/v1/batch", token: d1test.RowsToken, body: one("PRAGMA writable_schema = 1"), want: 403},
		"replacing":              {path: "/v1/batch", token: d1test.RowsToken, body: one("REPLACE INTO audit_head (one, size, leaf) VALUES (1, 0, 'x')"), want: 403},
		"replacing the head":     {path: "/v1/batch", token: d1test.RowsToken, body: one("INSERT OR REPLACE INTO audit_head (one, size, leaf) VALUES (1, 0, 'x')"), want: 400, says: "never replaced"},
		"writing the schema":     {path: "/v1/batch", token: d1test.RowsToken, body: one("DELETE FROM sqlite_schema WHERE type = 'trigger'"), want: 400},
		"rows, less right":       {path: "/v1/batch", token: d1test.RowsToken, body: write, want: 200},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, token := test.method, test.path, test.token
			if method == "" {
				method = http.MethodPost
			}
			if path == "" {
				path = "/v1/query"
			}
			if token == "" {
				token = d1test.SchemaToken
			}
			r, err := http.NewRequestWithContext(t.Context(), method, db.URL+path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if test.body == "" {
				r.Body = http.NoBody
			}
			r.Header.Set("Content-Type", "application/json")
			for name, values := range test.header {
				r.Header[name] = values
			}
			if token != "-" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil && test.body == long {
				return // the line was cut instead: nobody reads what is too long
			}
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != test.want || !strings.Contains(string(body), test.says) {
				t.Errorf("%d %s, want %d with %q", answer.StatusCode, body, test.want, test.says)
			}
			for name := range answer.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("it sends %s", name)
				}
			}
			if answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", answer.Header)
			}
			if test.want == 401 && (answer.Header.Get("WWW-Authenticate") != "Bearer" || strings.Contains(string(body), "SQL")) {
				t.Errorf("%s with %v", body, answer.Header)
			}
		})
	}
	if got := db.Rows(t, `SELECT count(*) FROM settings`); got[0][0] == float64(0) {
		t.Error("a batch that failed has deleted rows")
	}
}

// Whoever has the token that `serve` uses can write everything that it writes,
// and cannot change, drop or replace a record (attack A-158).
func TestD1LessRight(t *testing.T) {
	db := d1test.New(t)
	if s, err := Open(t.Context(), Config{DSN: db.Bridge, Token: d1test.RowsToken}); err == nil {
		s.Close()
		t.Error("a token without the right to it made a schema")
	}
	openD1Test(t, db.Bridge, d1test.SchemaToken)
	s := openD1Test(t, db.Bridge, d1test.RowsToken)
	var batch []audit.Write
	for range 3 {
		batch = append(batch, d1Write(t, s, "a record"))
	}
	if _, err := s.Append(t.Context(), batch, 1); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`UPDATE audit_records SET bytes = 'x' WHERE seq = 1`,
		`DELETE FROM audit_records WHERE seq = 1`,
		`INSERT OR REPLACE INTO audit_records SELECT seq, id, wrote, time, 'x', leaf, path, agent, sub, action, resource, result, grant_id FROM audit_records WHERE seq = 1`,
		`INSERT INTO audit_records SELECT seq, id, wrote, time, 'x', leaf, path, agent, sub, action, resource, result, grant_id FROM audit_records WHERE seq = 1
			ON CONFLICT (seq) DO UPDATE SET bytes = 'x'`,
		`UPDATE audit_lids SET lid = 'x'`,
		`DELETE FROM audit_lids WHERE seq = 1`,
		`DELETE FROM audit_head`,
		`INSERT OR REPLACE INTO audit_head (one, size, leaf) VALUES (1, 0, 'x')`,
		`UPDATE audit_head SET size = 1`,
		`DROP TRIGGER audit_records_no_delete`,
		`DROP TABLE audit_records`,
		`ALTER TABLE audit_records RENAME TO gone`,
	} {
		outcomes, err := s.Append(t.Context(), []audit.Write{{Effects: []audit.Effect{effect(-1, statement)}}}, 1)
		rows := db.Rows(t, `SELECT count(*) FROM audit_records WHERE bytes <> 'x'`)
		if err == nil && outcomes[0].Err == nil && !strings.Contains(statement, "audit_lids") || rows[0][0] != float64(3) {
			t.Errorf("%s: %+v, %v; %v records are as they were", statement, outcomes, err, rows[0][0])
		}
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Records != 3 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// d1Write is a Write that is only a record.
func d1Write(t *testing.T, s *Store, resource string) audit.Write {
	t.Helper()
	d, err := audit.NewDraft(s.LogID(), audittest.Entry(resource))
	if err != nil {
		t.Fatal(err)
	}
	return audit.Write{Drafts: []*audit.Draft{d}}
}
