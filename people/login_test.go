package people_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
)

// insecure trusts the certificate of httptest, whatever host it names.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func TestLogin(t *testing.T) {
	w := newWorld(t, "http")
	maya := w.add("Maya")
	b := w.browser()

	if a := b.get("/account"); a.status != 303 || a.location != "/login?return=%2Faccount" {
		t.Fatalf("the account of nobody: %d to %q", a.status, a.location)
	}
	a := b.get("/login?return=%2Foauth%2Fauthorize%3Fclient_id%3Dx&login_hint=maya")
	want(t, "the form", a, 200)
	for _, part := range []string{`name="username"`, `name="password"`, `value="maya"`, `name="return" value="/oauth/authorize?client_id=x"`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("the form lacks %s", part)
		}
	}
	a = b.post("/login", "username", " MAYA ", "password", string(password), "return", "/oauth/authorize?client_id=x")
	if a.status != 303 || a.location != "/oauth/authorize?client_id=x" || a.body != "" {
		t.Fatalf("signing in: %d to %q", a.status, a.location)
	}
	if got := b.whoami(); got != "maya member "+w.now().UTC().Format(time.RFC3339) {
		t.Fatalf("signed in as %q", got)
	}
	if a := b.get("/login?return=%2Fx"); a.status != 303 || a.location != "/x" {
		t.Fatalf("the form for somebody who is signed in: %d to %q", a.status, a.location)
	}
	want(t, "signing in again when asked to", b.get(people.ReauthURL("/x", "")), 200)

	e := w.recorded(audit.Login)
	if len(e) != 1 || e[0].Agent != "user:"+maya.ID || e[0].Sub != maya.ID || e[0].Result != audit.Allowed ||
		e[0].Detail["net"] != "192.0.2.0/24" || e[0].Detail["browser"] != "Firefox" {
		t.Fatalf("recorded: %+v", e)
	}

	want(t, "signing out", b.post("/logout"), 200)
	if got := b.whoami(); got != "" {
		t.Fatalf("signed out, yet %q", got)
	}
	if e := w.recorded(audit.SessionEnd); len(e) != 1 || e[0].Sub != maya.ID {
		t.Fatalf("recorded: %+v", e)
	}
}

// A thief's copy of the cookie dies with the session: signing out is not only
// forgetting.
func TestLogoutEndsTheSessionItself(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	b, thief := w.browser(), w.browser()
	want(t, "signing in", b.login("maya", password), 303)
	thief.setCookie("kavach", b.cookie())
	if thief.whoami() == "" {
		t.Fatal("the copy does not work: the test proves nothing")
	}
	want(t, "signing out", b.post("/logout"), 200)
	if got := thief.whoami(); got != "" {
		t.Fatalf("the copy is still %q", got)
	}
}

// nothing tells whether a name exists.
func TestNoEnumeration(t *testing.T) {
	w := newWorld(t, "http")
	maya, gone := w.add("maya"), w.add("gone")
	off := true
	if _, err := w.people.SetUser(t.Context(), people.CLI, "gone", people.UserChange{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	nonce := regexp.MustCompile(`nonce[-=]"?[A-Za-z0-9_-]{22}`)
	same := func(name string, p people.Secret) string {
		a := w.browser().login(name, p)
		want(t, name, a, http.StatusForbidden)
		if len(a.cookies) != 0 {
			t.Errorf("%s: a cookie for a login that failed", name)
		}
		a.header.Del("Date")
		return nonce.ReplaceAllString(strings.ReplaceAll(a.body, name, "NAME"), "") + "\n" + nonce.ReplaceAllString(fmt.Sprint(a.header), "")
	}
	known := same("maya", "wrong")
	for name, p := range map[string]people.Secret{"nobo": "wrong", "gone": password, "gone2": "wrong"} {
		if got := same(name, p); strings.ReplaceAll(got, "NAME2", "NAME") != known && len(name) == len("maya") {
			t.Errorf("%s answers differently:\n%s\n%s", name, got, known)
		}
	}
	var reasons []string
	for _, e := range w.recorded(audit.LoginFail) {
		typed, _ := e.Detail["typed"].(string)
		switch {
		case e.Resource == maya.ID && typed == "", e.Resource == gone.ID && typed == "", e.Resource == "" && len(typed) == 43:
		default:
			t.Errorf("recorded: %+v", e)
		}
		reasons = append(reasons, e.Reason)
	}
	if len(reasons) != 4 {
		t.Fatalf("recorded %v", reasons)
	}
}

// A session id planted before the login is worth nothing after it; the id of
// the browser, by which a pending authorization is found, stays.
func TestFixation(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	w.add("eve")
	eve, victim := w.browser(), w.browser()
	id := eve.get("/browser").body
	want(t, "eve signs in", eve.login("eve", password), 303)
	if got := eve.get("/browser").body; got != id || id == "" {
		t.Fatalf("the browser was %q and is %q", id, got)
	}
	planted := eve.cookie()
	victim.setCookie("kavach", planted)
	want(t, "the victim signs in", victim.login("maya", password), 303)
	if victim.cookie() == planted {
		t.Fatal("the cookie is as before")
	}
	if got := eve.whoami(); got != "" {
		t.Fatalf("the planted session lives on as %q", got)
	}
	if got := victim.get("/browser").body; got != id {
		t.Fatal("the login lost the browser")
	}
	want(t, "signing out", victim.post("/logout"), 200)
	if got := victim.get("/browser").body; got == id || got == "" {
		t.Fatal("the browser is the same after signing out")
	}
}

//
func TestCookie(t *testing.T) {
	for scheme, name := range map[string]string{"http": "kavach", "https": "__Host-kavach"} {
		t.Run(scheme, func(t *testing.T) {
			w := newWorld(t, scheme)
			maya := w.add("maya")
			b := w.browser()
			b.get("/browser")
			a := b.login("maya", password)
			want(t, "signing in", a, 303)
			if len(a.cookies) != 1 {
				t.Fatalf("%d cookies", len(a.cookies))
			}
			c := a.cookies[0]
			if c.Name != name || c.Secure != (scheme == "https") || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
				t.Fatalf("cookie %s", c.Raw)
			}
			if raw, _ := base64.URLEncoding.DecodeString(c.Value); strings.Contains(string(raw), maya.ID) || strings.Contains(c.Value, maya.ID) {
				t.Fatal("the cookie can be read")
			}
			good := b.cookie()
			for i := 0; i < len(good); i += 7 {
				flipped := []byte(good)
				flipped[i] ^= 1
				b.setCookie(name, string(flipped))
				if got := b.whoami(); got != "" && !strings.EqualFold(string(flipped), good) {
					t.Fatalf("a cookie with byte %d flipped is %q", i, got)
				}
			}
			b.setCookie(name, strings.Repeat("A", 5000))
			want(t, "a cookie of nonsense", b.get("/login"), 200)
			b.setCookie(name, good)
			if b.whoami() == "" {
				t.Fatal("the good cookie does not work any more")
			}

			// Rotation, while it serves: the new secret seals, the old one still
			// opens.
			both := [][]byte{[]byte(strings.Repeat("n", 32)), (*w.secrets.Load())[0]}
			w.secrets.Store(&both)
			b.setCookie(name, good)
			if b.whoami() == "" {
				t.Fatal("rotation ended the session")
			}
			one := both[:1]
			w.secrets.Store(&one)
			b.setCookie(name, good)
			if b.whoami() != "" {
				t.Fatal("the old secret still opens after it is gone")
			}
		})
	}
}

func TestSessionLimits(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	idle, busy := w.browser(), w.browser()
	want(t, "signing in", idle.login("maya", password), 303)
	want(t, "signing in", busy.login("maya", password), 303)
	for range 14 {
		w.pass(11 * time.Hour)
		if busy.whoami() == "" {
			t.Fatal("a session in use ended")
		}
	}
	if idle.whoami() != "" {
		t.Fatal("an idle session lives")
	}
	w.pass(14 * time.Hour) // 168 h since it began
	if busy.whoami() != "" {
		t.Fatal("a session lives beyond the absolute limit")
	}
}

//
func TestCrossSite(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	good := url.Values{"username": {"maya"}, "password": {string(password)}}
	for _, header := range [][]string{
		{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, {"Origin", w.url + ".evil.example"},
		{"Sec-Fetch-Site", "cross-site", "Origin", w.url}, {"Host", "evil.example", "Origin", "http://evil.example"},
		{"Host", "127.0.0.1.nip.io", "Sec-Fetch-Site", "same-origin"},
	} {
		for _, path := range []string{"/login", "/logout", "/account", "/setup"} {
			b := w.browser()
			want(t, fmt.Sprint(path, header), b.do("POST", path, good, header...), http.StatusForbidden)
			if b.whoami() != "" {
				t.Errorf("%v signed in", header)
			}
		}
	}
	for _, header := range [][]string{{"Origin", w.url}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "same-origin", "Origin", "null"}, {}} {
		want(t, fmt.Sprint(header), w.browser().do("POST", "/login", good, header...), http.StatusSeeOther)
	}
}

func TestReturnIsLocal(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	for path, goes := range map[string]string{
		"/oauth/authorize?client_id=https%3A%2F%2Fapp.example%2Fid&redirect_uri=http://127.0.0.1/": "",
		"/":                             "",
		"/account":                      "",
		"/consent/?x=//y":               "",
		"":                              "/account",
		"account":                       "/account",
		"//evil.example":                "/account",
		"///evil.example":               "/account",
		"/\\evil.example":               "/account",
		"\\\\evil.example":              "/account",
		"/x\\..\\y":                     "/account",
		"https://evil.example/":         "/account",
		"https:evil.example":            "/account",
		"javascript:alert(1)":           "/account",
		"/\t/evil.example":              "/account",
		"/\n/evil.example":              "/account",
		"/x\r\nSet-Cookie: a=b":         "/account",
		"/x\x00":                        "/account",
		" /x":                           "/account",
		"/x y":                          "/account",
		"/x#//evil":                     "/account",
		"/a/..//evil.example":           "/account",
		"/./x":                          "/account",
		"/é":                            "/account",
		"/" + strings.Repeat("a", 9000): "/account",
	} {
		if goes == "" {
			goes = path
		}
		b := w.browser()
		a := b.post("/login", "username", "maya", "password", string(password), "return", path)
		if a.status != 303 || a.location != goes {
			t.Errorf("return %.40q: %d to %q, want %q", path, a.status, a.location, goes)
		}
		// Somebody who is signed in goes on at once: by the same rule.
		if a := b.get("/login?" + url.Values{"return": {path}}.Encode()); a.location != goes {
			t.Errorf("return %.40q in the query: %d to %q, want %q", path, a.status, a.location, goes)
		}
		if a := b.get("/login?" + url.Values{"return": {path}, "again": {"1"}}.Encode()); goes != path && !strings.Contains(a.body, `name="return" value=""`) {
			t.Errorf("return %.40q stands in the form", path)
		}
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	b := w.browser()
	evil := `"><img src=x onerror=alert(1)>`
	for what, a := range map[string]answer{
		"a name that is HTML": b.login(evil, "x"),
		"a hint that is HTML": b.get("/login?" + url.Values{"login_hint": {evil}, "return": {"/" + evil}, "error": {evil}}.Encode()),
	} {
		if strings.Contains(a.body, "<img") {
			t.Errorf("%s comes out as HTML", what)
		}
	}
	for what, c := range map[string]struct {
		a      answer
		status int
	}{
		"wrong method":     {b.do("DELETE", "/login", nil), 405},
		"preflight":        {b.do("OPTIONS", "/login", nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"), 405},
		"no such page":     {b.get("/nothing"), 404},
		"two slashes":      {b.get("//login"), 404},
		"dots":             {b.get("/x/../login"), 404},
		"JSON":             {b.do("POST", "/login", nil, "Content-Type", "application/json"), 415},
		"no type":          {b.do("POST", "/login", nil), 415},
		"a field twice":    {b.do("POST", "/login", url.Values{"username": {"maya", "eve"}, "password": {"x"}}), 400},
		"too large":        {b.post("/login", "username", strings.Repeat("a", 70<<10)), 413},
		"a NUL":            {b.login("ma\x00ya", password), 403},
		"not UTF-8":        {b.login("\xff\xfe", password), 403},
		"SQL":              {b.login("' OR 1=1--", password), 403},
		"nothing":          {b.login("", ""), 403},
		"password in GET":  {b.get("/login?username=maya&password=" + url.QueryEscape(string(password))), 200},
		"signed out twice": {b.post("/logout"), 200},
	} {
		if c.a.status != c.status {
			t.Errorf("%s: status %d, want %d", what, c.a.status, c.status)
		}
	}
	want(t, "a good request after all that", b.login("maya", password), 303)
}

func TestStorageErrors(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	b := w.browser()
	want(t, "signing in", b.login("maya", password), 303)
	w.broken.Store(true)
	for _, path := range []string{"/login", "/account", "/setup", "/logout"} {
		want(t, path, b.get(path), http.StatusServiceUnavailable)
	}
	a := b.login("maya", password)
	want(t, "signing in", a, http.StatusServiceUnavailable)
	if a.header.Get("Retry-After") == "" {
		t.Fatal("no Retry-After")
	}
	want(t, "ending sessions", b.post("/account", "action", "end_others"), http.StatusServiceUnavailable)
	want(t, "signing out", b.post("/logout"), http.StatusServiceUnavailable)
	w.broken.Store(false)
	if b.whoami() == "" {
		t.Fatal("the session is gone with the storage's bad moment")
	}
}
