package people_test

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
)

var sessionField = regexp.MustCompile(`name="session" value="([^"]+)"`)

// rows returns the ids on the account page, the other sessions first.
func rows(t *testing.T, b *browser) (others []string, mine string) {
	t.Helper()
	a := b.get("/account")
	want(t, "the account page", a, 200)
	for _, row := range strings.Split(a.body, "<li>")[1:] {
		m := sessionField.FindStringSubmatch(row)
		if m == nil {
			t.Fatal("a session without a button to end it")
		}
		if strings.Contains(row, "this browser") {
			mine = m[1]
		} else {
			others = append(others, m[1])
		}
	}
	return others, mine
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	w := newWorld(t, "http")
	maya := w.add("maya")
	w.add("eve")
	here, there, eve := w.browser(), w.browser(), w.browser()
	want(t, "signing in here", here.login("maya", password), 303)
	w.from("198.51.100.77")
	want(t, "signing in there", there.login("maya", password), 303)
	want(t, "eve signs in", eve.login("eve", password), 303)

	others, mine := rows(t, here)
	if len(others) != 1 || mine == "" {
		t.Fatalf("sessions %v and %q", others, mine)
	}
	if a := here.get("/account"); !strings.Contains(a.body, "198.51.100.0/24") || strings.Contains(a.body, "198.51.100.77") || !strings.Contains(a.body, "Firefox") {
		t.Error("the page does not say where, or says it too exactly")
	}
	// Nobody ends a session of another person.
	want(t, "eve tries", eve.post("/account", "action", "end", "session", others[0]), 303)
	if there.whoami() == "" {
		t.Fatal("eve ended it")
	}
	a := here.post("/account", "action", "end", "session", others[0])
	if a.status != 303 || a.location != "/account?done=ended" {
		t.Fatalf("ending: %d to %q", a.status, a.location)
	}
	if there.whoami() != "" || here.whoami() == "" {
		t.Fatal("the wrong session ended")
	}
	if e := w.recorded(audit.SessionEnd); len(e) != 1 || e[0].Resource != others[0] || e[0].Agent != "user:"+maya.ID {
		t.Fatalf("recorded: %+v", e)
	}

	want(t, "signing in there", there.login("maya", password), 303)
	want(t, "ending all others", here.post("/account", "action", "end_others"), 303)
	if there.whoami() != "" || here.whoami() == "" || eve.whoami() == "" {
		t.Fatal("the wrong sessions ended")
	}
	_, mine = rows(t, here)
	want(t, "ending this one", here.post("/account", "action", "end", "session", mine), 200)
	if here.whoami() != "" {
		t.Fatal("still signed in")
	}
	want(t, "ending with nobody there", here.post("/account", "action", "end_others"), 303)
	for _, bad := range []string{"", "nonsense", "end"} {
		want(t, bad, eve.post("/account", "action", bad, "session", "\x00"), 400)
	}
}

func TestPasswordChange(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	const fresh = people.Secret("three quiet otters")
	here, there := w.browser(), w.browser()
	want(t, "signing in", here.login("maya", password), 303)
	want(t, "signing in", there.login("maya", password), 303)
	before := here.cookie()

	want(t, "without the old one", here.post("/account", "action", "password", "current", "wrong", "password", string(fresh)), 422)
	want(t, "too short", here.post("/account", "action", "password", "current", string(password), "password", "short"), 422)
	want(t, "not twice the same", here.post("/account", "action", "password", "current", string(password), "password", string(fresh), "confirm", "x"), 422)
	want(t, "changing", here.post("/account", "action", "password", "current", string(password), "password", string(fresh), "confirm", string(fresh)), 303)

	if there.whoami() != "" {
		t.Error("the other session survived the change")
	}
	if here.whoami() == "" {
		t.Error("the change ended the own session")
	}
	thief := w.browser()
	thief.setCookie("kavach", before)
	if thief.whoami() != "" {
		t.Error("the session id from before the change still works")
	}
	want(t, "the old password", w.browser().login("maya", password), 403)
	want(t, "the new password", w.browser().login("maya", fresh), 303)
	e := w.recorded(audit.UserPassword)
	if len(e) != 2 || e[0].Result != audit.Denied || e[1].Result != audit.Allowed {
		t.Fatalf("recorded: %+v", e)
	}
	for range 8 {
		here.post("/account", "action", "password", "current", "wrong", "password", string(fresh))
	}
	want(t, "guessing the old one", here.post("/account", "action", "password", "current", "wrong", "password", string(fresh)), 429)
}

func TestRoleChangeEndsSessions(t *testing.T) {
	w := newWorld(t, "http")
	maya := w.add("maya")
	b := w.browser()
	want(t, "signing in", b.login("maya", password), 303)
	role := people.Auditor
	after, err := w.people.SetUser(t.Context(), people.CLI, "MAYA", people.UserChange{Role: &role})
	if err != nil || after.Role != people.Auditor {
		t.Fatal(after, err)
	}
	if b.whoami() != "" {
		t.Fatal("a session id from before the change of role has the new one")
	}
	want(t, "signing in again", b.login("maya", password), 303)
	if got := b.whoami(); !strings.HasPrefix(got, "maya auditor ") {
		t.Fatalf("signed in as %q", got)
	}
	off := true
	if _, err := w.people.SetUser(t.Context(), people.CLI, "maya", people.UserChange{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	if b.whoami() != "" {
		t.Fatal("a disabled user is signed in")
	}
	want(t, "a disabled user", b.login("maya", password), 403)
	if u, err := w.people.User(t.Context(), maya.ID); err != nil || !u.Disabled {
		t.Fatal(u, err)
	}
	e := w.recorded(audit.UserUpdate)
	if len(e) != 2 || e[0].Agent != audit.Operator || e[0].Detail["via"] != "cli" || e[0].Detail["role"] != "auditor" || e[1].Detail["disabled"] != true {
		t.Fatalf("recorded: %+v", e)
	}
}

var codeForm = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}$`)

func TestSetup(t *testing.T) {
	w := newWorld(t, "http")
	b := w.browser()
	if a := b.get("/login"); a.status != 303 || a.location != "/setup" {
		t.Fatalf("the login of a server without people: %d to %q", a.status, a.location)
	}
	want(t, "the form", b.get("/setup"), 200)
	old, err := w.people.NewSetupCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	code, err := w.people.NewSetupCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !codeForm.MatchString(code) || code == old {
		t.Fatalf("codes %q, %q", old, code)
	}
	fill := func(code, name string, p people.Secret) answer {
		t.Helper()
		return b.post("/setup", "code", code, "username", name, "password", string(p), "confirm", string(p))
	}
	want(t, "no code", fill("", "root", password), 403)
	want(t, "the code before", fill(old, "root", password), 403)
	want(t, "a weak password", fill(code, "root", "short"), 422)
	want(t, "no name", fill(code, "", password), 422)
	want(t, "a wrong code", fill("0000-0000-0000", "root", password), 403)
	want(t, "a wrong code", fill("0000-0000-0001", "root", password), 403)
	want(t, "a wrong code, the fifth", fill("0000-0000-0002", "root", password), 403)
	a := fill(code, "root", password)
	want(t, "the sixth try in a minute", a, 429)
	if a.header.Get("Retry-After") != "60" {
		t.Fatalf("Retry-After %q", a.header.Get("Retry-After"))
	}
	w.pass(time.Minute)
	a = fill(strings.ToLower(strings.ReplaceAll(code, "-", " ")), "Root", password)
	if a.status != 303 || a.location != "/account" {
		t.Fatalf("setting up: %d to %q", a.status, a.location)
	}
	if got := b.whoami(); !strings.HasPrefix(got, "root operator ") {
		t.Fatalf("signed in as %q", got)
	}
	want(t, "the form afterwards", b.get("/setup"), 404)
	want(t, "posting afterwards", fill(code, "second", password), 404)
	if _, err := w.people.NewSetupCode(t.Context()); err == nil {
		t.Fatal("a code for a server that is set up")
	}
	allowed := 0
	for _, e := range w.recorded(audit.SetupDone) {
		if e.Result == audit.Allowed && e.Sub != "" {
			allowed++
		}
	}
	if allowed != 1 {
		t.Fatalf("%d set-ups on record", allowed)
	}
}

func TestSetupCodeEnds(t *testing.T) {
	w := newWorld(t, "http")
	code, err := w.people.NewSetupCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	want(t, "a code an hour old", w.browser().post("/setup", "code", code, "username", "root", "password", string(password)), 403)
}

func TestSetupHappensOnce(t *testing.T) {
	w := newWorld(t, "http")
	code, err := w.people.NewSetupCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	statuses := make([]int, 5)
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		b := w.browser()
		wg.Go(func() {
			statuses[i] = b.post("/setup", "code", code, "username", name, "password", string(password)).status
		})
	}
	wg.Wait()
	won := 0
	for _, s := range statuses {
		switch s {
		case http.StatusSeeOther:
			won++
		case http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests:
		default:
			t.Errorf("status %d", s)
		}
	}
	users, err := w.people.ListUsers(t.Context())
	if err != nil || won != 1 || len(users) != 1 || users[0].Role != people.Operator {
		t.Fatalf("%d won, users %+v, %v", won, users, err)
	}
}
