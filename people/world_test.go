package people_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
)

const password = people.Secret("a calm blue heron")

// world is a running server over a real database, with a clock of its own.
type world struct {
	t       *testing.T
	store   *store.Store
	log     *spy
	people  *people.Server
	url     string
	clock   atomic.Int64
	address atomic.Pointer[netip.Addr]
	broken  atomic.Bool // the storage answers nothing
	secrets atomic.Pointer[[][]byte]
}

// spy is the real log, and remembers what was put on record.
type spy struct {
	*audit.Log
	mu      sync.Mutex
	entries []audit.Entry
}

func (s *spy) Commit(ctx context.Context, c audit.Change) error {
	err := s.Log.Commit(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.entries = append(s.entries, c.Entries...)
	} else if errors.Is(err, audit.ErrConflict) && c.Else != nil {
		s.entries = append(s.entries, c.Else.Entries...)
	}
	return err
}

func (s *spy) Refuse(source, endpoint string, e audit.Entry) {
	s.Log.Refuse(source, endpoint, e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, e)
}

// recorded returns the entries of an action.
func (w *world) recorded(action string) []audit.Entry {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	var found []audit.Entry
	for _, e := range w.log.entries {
		if e.Action == action {
			found = append(found, e)
		}
	}
	return found
}

// flaky is the real store until it is broken.
type flaky struct {
	people.Store
	broken *atomic.Bool
}

var errDisk = errors.New("the disk is gone: /var/lib/kavach")

func (f flaky) HasUsers(ctx context.Context) (bool, error) {
	if f.broken.Load() {
		return false, errDisk
	}
	return f.Store.HasUsers(ctx)
}

func (f flaky) UserByName(ctx context.Context, name string) (people.User, people.PHC, error) {
	if f.broken.Load() {
		return people.User{}, "", errDisk
	}
	return f.Store.UserByName(ctx, name)
}

func (f flaky) SessionByHash(ctx context.Context, hash string) (people.StoredSession, people.User, error) {
	if f.broken.Load() {
		return people.StoredSession{}, people.User{}, errDisk
	}
	return f.Store.SessionByHash(ctx, hash)
}

// newWorld starts a server with scheme http or https and nobody in it.
func newWorld(t *testing.T, scheme string) *world {
	t.Helper()
	w := &world{t: t}
	w.secrets.Store(&[][]byte{[]byte(strings.Repeat("k", 32))})
	w.clock.Store(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC).UnixMilli())
	w.from("192.0.2.1")
	var err error
	w.store, err = store.Open(t.Context(), store.Config{DSN: storetest.DSN(t), Token: storetest.Token, Issuer: "auth.example"})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	w.log = &spy{Log: audit.NewLog(audit.Config{Store: w.store, Now: w.now, Logger: quiet})}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.log.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.serve(scheme)
	return w
}

// serve starts a server on the world's database (another replica, if there is
// one already) and talks to that from now on.
func (w *world) serve(scheme string) {
	w.t.Helper()
	var handler http.Handler
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	w.url = scheme + "://" + srv.Listener.Addr().String()
	p, err := people.New(people.Config{
		Store: flaky{w.store, &w.broken}, Log: w.log, Issuer: w.url, CookieSecrets: func() [][]byte { return *w.secrets.Load() }, Now: w.now,
		Address: func(*http.Request) netip.Addr { return *w.address.Load() },
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.people = p
	pages := p.Handler()
	// What package authz does with a browser.
	others := map[string]http.HandlerFunc{}
	others["/browser"] = func(rw http.ResponseWriter, r *http.Request) {
		id, err := p.Browser(rw, r)
		if again, _ := p.Browser(rw, r); err != nil || again != id {
			w.t.Errorf("two ids for one browser: %q, %q, %v", id, again, err)
		}
		_, _ = io.WriteString(rw, id)
	}
	others["/whoami"] = func(rw http.ResponseWriter, r *http.Request) {
		s, err := p.Current(r)
		if errors.Is(err, people.ErrSignedOut) {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		if err != nil {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(rw, s.User.Name+" "+string(s.User.Role)+" "+s.Since.UTC().Format(time.RFC3339))
	}
	handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if other := others[r.URL.Path]; other != nil {
			other(rw, r)
			return
		}
		pages.ServeHTTP(rw, r)
	})
	if scheme == "https" {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	w.t.Cleanup(srv.Close)
}

func (w *world) now() time.Time       { return time.UnixMilli(w.clock.Load()) }
func (w *world) pass(d time.Duration) { w.clock.Add(d.Milliseconds()) }
func (w *world) from(address string)  { a := netip.MustParseAddr(address); w.address.Store(&a) }
func (w *world) add(name string) people.User {
	w.t.Helper()
	u, err := w.people.CreateUser(w.t.Context(), people.CLI, people.NewUser{Name: name, Password: password})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// browser is a browser: it keeps cookies and follows nothing by itself.
type browser struct {
	w      *world
	client *http.Client
	jar    http.CookieJar
}

// answer is what came back.
type answer struct {
	status   int
	header   http.Header
	body     string
	location string
	cookies  []*http.Cookie
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = insecure()
	w.t.Cleanup(transport.CloseIdleConnections)
	return &browser{w, &http.Client{
		Jar: jar, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, jar}
}

func (b *browser) do(method, path string, form url.Values, header ...string) answer {
	b.w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(b.w.t.Context(), method, b.w.url+path, body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	a := answer{res.StatusCode, res.Header, string(text), res.Header.Get("Location"), res.Cookies()}
	checkHeaders(b.w.t, method+" "+path, a, strings.HasPrefix(b.w.url, "https"))
	return a
}

// checkHeaders holds for every answer that is HTML, errors included.
func checkHeaders(t *testing.T, what string, a answer, secure bool) {
	t.Helper()
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		return
	}
	csp := a.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("%s (%d): policy %q lacks %s", what, a.status, csp, part)
		}
	}
	want := map[string]string{"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Access-Control-Allow-Origin": "", "Strict-Transport-Security": ""}
	if secure {
		want["Strict-Transport-Security"] = "max-age=31536000"
	}
	for name, value := range want {
		if got := a.header.Get(name); got != value {
			t.Errorf("%s (%d): %s is %q, want %q", what, a.status, name, got, value)
		}
	}
	// Random ids may well hold three letters.
	if strings.Contains(a.body, "/var/lib") || strings.Contains(a.body, "SQL logic error") || strings.Contains(a.body, "goroutine") {
		t.Errorf("%s (%d): internal text on the page", what, a.status)
	}
}

func (b *browser) get(path string) answer { b.w.t.Helper(); return b.do("GET", path, nil) }

func (b *browser) post(path string, pairs ...string) answer {
	b.w.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return b.do("POST", path, form)
}

func (b *browser) login(name string, p people.Secret) answer {
	b.w.t.Helper()
	return b.post("/login", "username", name, "password", string(p))
}

// whoami is "" for nobody.
func (b *browser) whoami() string {
	b.w.t.Helper()
	a := b.get("/whoami")
	switch a.status {
	case http.StatusOK:
		return a.body
	case http.StatusUnauthorized:
		return ""
	}
	b.w.t.Fatalf("who is signed in: status %d", a.status)
	return ""
}

func (b *browser) cookie() string {
	u, _ := url.Parse(b.w.url)
	for _, c := range b.jar.Cookies(u) {
		return c.Value
	}
	return ""
}

func (b *browser) setCookie(name, value string) {
	u, _ := url.Parse(b.w.url)
	b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: u.Scheme == "https"}})
}

func want(t *testing.T, what string, a answer, status int) {
	t.Helper()
	if a.status != status {
		body := a.body
		if m := regexp.MustCompile(`(?s)<main.*</main>`).FindString(body); m != "" {
			body = m
		}
		t.Fatalf("%s: status %d, want %d\n%s", what, a.status, status, body)
	}
}
