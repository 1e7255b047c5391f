package mcp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

// bearing adds a token, as the transport of an agent does.
type bearing string

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// spoken runs Stdio over the whole of input and returns its answers by id.
func spoken(t *testing.T, cfg mcp.StdioConfig, input ...string) map[string]jcs.Value {
	t.Helper()
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	var out bytes.Buffer
	if err := mcp.Stdio(t.Context(), strings.NewReader(strings.Join(input, "\n")+"\n"), &out, cfg); err != nil {
		t.Fatal(err)
	}
	answers := map[string]jcs.Value{}
	for line := range strings.Lines(out.String()) {
		v, err := jcs.Parse([]byte(line), jcs.Limits{})
		if err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		key := string(jcs.Canonical(v.Get("id")))
		if method := v.Get("method").Str(); method != "" {
			key = method
		}
		if _, twice := answers[key]; twice {
			t.Errorf("two answers to %s", key)
		}
		answers[key] = v
	}
	return answers
}

func TestStdioServesBothEras(t *testing.T) {
	w := newWorld(t)
	cfg := mcp.StdioConfig{URL: w.url, Client: &http.Client{Transport: bearing(w.everything())}}

	in, feed := io.Pipe()
	out, answers := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- mcp.Stdio(t.Context(), in, answers, cfg) }()
	lines := bufio.NewScanner(out)
	ask := func(message string) jcs.Value {
		t.Helper()
		fmt.Fprintln(feed, message)
		if !lines.Scan() {
			t.Fatalf("no answer to %s", message)
		}
		v, err := jcs.Parse(lines.Bytes(), jcs.Limits{})
		if err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		return v
	}
	hello := ask(`{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	if hello.Get("result").Get("protocolVersion").Str() != "2025-11-25" || hello.Get("id").Str() != "a" {
		t.Errorf("initialize: %s", jcs.Canonical(hello))
	}
	fmt.Fprintln(feed, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	if got := ask(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`).Get("result").Get("tools").Elements(); len(got) != 4 {
		t.Errorf("%d tools", len(got))
	}
	called := ask(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x"}}}`)
	if called.Get("result").Get("structuredContent").Get("reason").Str() == "" {
		t.Errorf("verify: %s", jcs.Canonical(called))
	}
	// A client of 2026-07-28 says its version in each message; the headers that
	// go with it are made here.
	read := ask(`{"jsonrpc":"2.0","id":4,"method":"resources/read","params":{` + modernMeta + `,"uri":"kavach://identity"}}`)
	if read.Get("result").Get("resultType").Str() != "complete" {
		t.Errorf("resources/read: %s", jcs.Canonical(read))
	}
	if found := ask(`{"jsonrpc":"2.0","id":5,"method":"server/discover","params":{` + modernMeta + `}}`); !found.Get("result").Exists() {
		t.Errorf("server/discover: %s", jcs.Canonical(found))
	}
	if unknown := ask(`{"jsonrpc":"2.0","id":6,"method":"tools/none","params":{` + modernMeta + `}}`); errorCode(unknown) != -32601 {
		t.Errorf("unknown method: %s", jcs.Canonical(unknown))
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Errorf("at the end of input: %v", err)
	}
}

func errorCode(v jcs.Value) int64 {
	n, _ := v.Get("error").Get("code").Int()
	return n
}

func TestStdioAnswersWhatItCannotSend(t *testing.T) {
	w := newWorld(t)
	cfg := mcp.StdioConfig{URL: w.url, Client: &http.Client{Transport: bearing(w.everything())}}
	answers := spoken(t, cfg,
		`{"jsonrpc":"2.0","id":2,"method":"ping"}`+strings.Repeat(" ", 1<<20),
		"", "   ",
		`{"jsonrpc":"2.0","id":3,"method":7}`,
		`{"jsonrpc":"2.0","id":4,"method":"ping"}`,
	)
	if len(answers) != 3 || errorCode(answers["3"]) != -32600 || !answers["4"].Get("result").Exists() {
		t.Errorf("%v", answers)
	}
	if code := errorCode(answers["null"]); code != -32600 {
		t.Errorf("too long: %s", jcs.Canonical(answers["null"]))
	}
	// The last line may end without a newline; its beginning is no message.
	var out bytes.Buffer
	last := `{"jsonrpc":"2.0","id":5,"method":"ping"}` + strings.Repeat(" ", 2<<20) + "garbage"
	if err := mcp.Stdio(t.Context(), strings.NewReader(last), &out, cfg); err != nil || strings.Count(out.String(), "\n") != 1 ||
		!strings.Contains(out.String(), "larger than 1 MiB") {
		t.Errorf("too long at the end: %q, %v", out.String(), err)
	}
	for _, garbage := range []string{`{"jsonrpc":"2.0","id":1,"method":`, `{"jsonrpc":"2.0","id":2,"method":"ping","id":2}`, "{]"} {
		if answers := spoken(t, cfg, garbage); len(answers) != 1 || errorCode(answers["null"]) != -32700 {
			t.Errorf("%q: %v", garbage, answers)
		}
	}
}

func TestStdioSaysWhatTheEndpointRefuses(t *testing.T) {
	w := newWorld(t)
	ask := func(token string) jcs.Value {
		t.Helper()
		return spoken(t, mcp.StdioConfig{URL: w.url, Client: &http.Client{Transport: bearing(token)}},
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"audit","arguments":{}}}`)["1"].Get("error")
	}
	refused := ask("nonsense")
	if status, _ := refused.Get("data").Get("status").Int(); status != 401 || !strings.Contains(refused.Get("message").Str(), "ask the person who answers for it") {
		t.Errorf("401: %s", jcs.Canonical(refused))
	}
	refused = ask(w.token(mcp.ScopeVerify))
	if scope := refused.Get("data").Get("scope").Str(); scope != "kavach:audit kavach:verify" || !strings.Contains(refused.Get("message").Str(), "kavach agent grant") {
		t.Errorf("403: %s", jcs.Canonical(refused))
	}
	w.set(func() { w.logDown = true }) // then not even that can be recorded
	refused = ask(w.token(mcp.ScopeVerify))
	if code, _ := refused.Get("code").Int(); code != -32603 || !strings.Contains(refused.Get("message").Str(), "try again in 5 s") {
		t.Errorf("503: %s", jcs.Canonical(refused))
	}
}

func TestStdioOutlivesTheServer(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	cfg := mcp.StdioConfig{URL: gone.URL + "/mcp"}
	answers := spoken(t, cfg, ping, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, `{"jsonrpc":"2.0","id":"b","method":"ping"}`)
	for _, id := range []string{"1", `"b"`} {
		if message := answers[id].Get("error").Get("message").Str(); !strings.HasPrefix(message, "kavach cannot be reached at "+gone.URL) {
			t.Errorf("%s: %s", id, jcs.Canonical(answers[id]))
		}
	}
	cfg.Explain = func(err error) string { return "explained" }
	if message := spoken(t, cfg, ping)["1"].Get("error").Get("message").Str(); message != "explained" {
		t.Errorf("Explain is not asked: %q", message)
	}
}

func TestStdioReadsEveryFormOfAnswer(t *testing.T) {
	const stream = "text/event-stream"
	for _, c := range []struct {
		name, media, body string
		status            int
		code              int64 // 0: a result
		also              string
	}{
		{"one event", stream, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n", 200, 0, ""},
		{"an event of several lines", stream, ": hello\r\ndata: {\"jsonrpc\":\"2.0\",\r\ndata:\"id\":1,\"result\":{}}\r\n\r\n", 200, 0, ""},
		{"a notification before", stream, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n", 200, 0, "notifications/progress"},
		{"a stream without the answer", stream, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n", 200, -32603, "notifications/progress"},
		{"a stream that ends in an event", stream, "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n", 200, -32603, ""},
		{"JSON on several lines", "application/json; charset=utf-8", "{\n\"jsonrpc\": \"2.0\",\n\"id\": 1,\n\"result\": {}\n}\n", 200, 0, ""},
		{"an error in JSON-RPC", "application/json", `{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"m"}}`, 400, -32020, ""},
		{"an error without the id", "application/json", `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}`, 400, -32700, ""},
		{"the answer to another request", "application/json", `{"jsonrpc":"2.0","id":2,"result":{}}`, 200, -32603, ""},
		{"a request", "application/json", `{"jsonrpc":"2.0","id":1,"method":"roots/list"}`, 200, -32603, ""},
		{"nothing", "application/json", ``, 202, -32603, ""},
		{"a page", "text/html", `<h1>Not found</h1>`, 404, -32603, ""},
		{"too much", "application/json", `{"jsonrpc":"2.0","id":1,"result":{}}` + strings.Repeat(" ", 8<<20), 200, -32603, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.media)
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer server.Close()
			answers := spoken(t, mcp.StdioConfig{URL: server.URL}, ping)
			if got := errorCode(answers["1"]); got != c.code || !answers["1"].Exists() {
				t.Errorf("%v", answers)
			}
			if want := 1 + min(1, len(c.also)); len(answers) != want || (c.also != "" && !answers[c.also].Exists()) {
				t.Errorf("%v", answers)
			}
		})
	}
}

func TestStdioServesAtOnceAndCancels(t *testing.T) {
	arrived, canceled := make(chan string, 8), make(chan string, 8)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v, _ := jcs.Parse(body, jcs.Limits{})
		id := v.Get("id").Str()
		arrived <- id
		select {
		case <-release:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%q,"result":{}}`, id)
		case <-r.Context().Done():
			canceled <- id
		}
	}))
	defer server.Close()

	in, feed := io.Pipe()
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- mcp.Stdio(t.Context(), in, &out, mcp.StdioConfig{URL: server.URL, Client: http.DefaultClient})
	}()
	for _, id := range []string{"one", "two", "three"} {
		fmt.Fprintf(feed, `{"jsonrpc":"2.0","id":%q,"method":"ping"}`+"\n", id)
	}
	got := []string{<-arrived, <-arrived, <-arrived} // none waited for another
	if slices.Sort(got); !slices.Equal(got, []string{"one", "three", "two"}) {
		t.Errorf("%v arrived", got)
	}
	fmt.Fprintln(feed, `{"jsonrpc":"2.0","id":"one","method":"ping"}`) // the id is taken
	fmt.Fprintln(feed, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"nobody"}}`)
	fmt.Fprintln(feed, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"two"}}`)
	if id := <-canceled; id != "two" {
		t.Errorf("%s was canceled", id)
	}
	close(release)
	feed.Close() // what is under way is still answered
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, `"two"`) || strings.Count(text, `"id":"three","result"`) != 1 || strings.Count(text, `"id":"one","result"`) != 1 || !strings.Contains(text, "is under way") {
		t.Error(text)
	}
}

// closed is a client that has gone.
type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestStdioEnds(t *testing.T) {
	w := newWorld(t)
	cfg := mcp.StdioConfig{URL: w.url, Client: &http.Client{Transport: bearing(w.everything())}}
	in, feed := io.Pipe()
	defer feed.Close()
	go fmt.Fprintln(feed, ping)
	if err := mcp.Stdio(t.Context(), in, closed{}, cfg); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nobody reads: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := mcp.Stdio(ctx, in, io.Discard, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	broken, feedBroken := io.Pipe()
	feedBroken.CloseWithError(audit.ErrUnavailable)
	if err := mcp.Stdio(t.Context(), broken, io.Discard, cfg); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("the input breaks: %v", err)
	}
}

func TestStdioSaysTheVersionThatWasAgreed(t *testing.T) {
	heads := make(chan http.Header, 4)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heads <- r.Header
		body, _ := io.ReadAll(r.Body)
		v, _ := jcs.Parse(body, jcs.Limits{})
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18"}}`, jcs.Canonical(v.Get("id")))
	}))
	defer server.Close()
	in, feed := io.Pipe()
	out, answers := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- mcp.Stdio(t.Context(), in, answers, mcp.StdioConfig{URL: server.URL, Client: http.DefaultClient})
	}()
	lines := bufio.NewScanner(out)
	for _, c := range []struct{ message, version, method, name string }{
		{`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}`, "", "", ""},
		{`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"verify"}}`, "2025-06-18", "", ""},
		{`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{` + modernMeta + `,"name":"verify"}}`, "2026-07-28", "tools/call", "verify"},
		{`{"jsonrpc":"2.0","id":4,"method":"resources/read","params":{` + modernMeta + `,"uri":"kavach://é"}}`, "2026-07-28", "resources/read", "=?base64?a2F2YWNoOi8vw6k=?="},
	} {
		fmt.Fprintln(feed, c.message)
		h := <-heads
		if h.Get("MCP-Protocol-Version") != c.version || h.Get("Mcp-Method") != c.method || h.Get("Mcp-Name") != c.name {
			t.Errorf("%s: %v", c.message, h)
		}
		if !lines.Scan() {
			t.Fatal("no answer")
		}
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
