package people_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
)

func TestCanonicalName(t *testing.T) {
	for typed, name := range map[string]string{
		"maya": "maya", " Maya\n": "maya", "ＭＡＹＡ": "maya", "MAYA.o-neil_1+x@example.org": "maya.o-neil_1+x@example.org",
		"ǅemal": "džemal", "J̌o": "ǰo", "Ünal": "ünal", "ﬁona": "fiona", "李": "李",
	} {
		got, err := people.CanonicalName(typed)
		if err != nil || got != name {
			t.Errorf("%q is %q, %v; want %q", typed, got, err, name)
		}
		if again, err := people.CanonicalName(got); err != nil || again != got {
			t.Errorf("%q is not its own canonical form but %q, %v", got, again, err)
		}
	}
	for _, typed := range []string{
		"", " ", "a b", "a\x00b", "a\u200bb", "a\u202eb", "\xff", "-a", ".a", "@", "a/b", "a\\b", "<b>", "a\"b", "a:b", strings.Repeat("a", 65), "a\nb", "\u0301a",
	} {
		if got, err := people.CanonicalName(typed); !errors.Is(err, people.ErrName) {
			t.Errorf("%q is the name %q, %v", typed, got, err)
		}
	}
}

func TestCreateUser(t *testing.T) {
	w := newWorld(t, "http")
	maya := w.add("Maya")
	if !strings.HasPrefix(maya.ID, "usr_") || len(maya.ID) < 26 || maya.Name != "maya" || maya.Role != people.Member || maya.Disabled {
		t.Fatalf("%+v", maya)
	}
	for what, c := range map[string]struct {
		n    people.NewUser
		want error
	}{
		"the same name":      {people.NewUser{Name: "ＭＡＹＡ", Password: password}, people.ErrTaken},
		"no name":            {people.NewUser{Password: password}, people.ErrName},
		"no such role":       {people.NewUser{Name: "x", Password: password, Role: "root"}, people.ErrRole},
		"short":              {people.NewUser{Name: "x", Password: "elevenchars"}, people.ErrPassword},
		"the name":           {people.NewUser{Name: "maya.o.neil.x", Password: "Maya.O.Neil.X"}, people.ErrPassword},
		"one letter":         {people.NewUser{Name: "x", Password: "aaaaaaaaaaaaaaaa"}, people.ErrPassword},
		"too long":           {people.NewUser{Name: "x", Password: people.Secret(strings.Repeat("abcde ", 50))}, people.ErrPassword},
		"a password of NULs": {people.NewUser{Name: "x", Password: "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}, people.ErrPassword},
	} {
		if _, err := w.people.CreateUser(t.Context(), people.CLI, c.n); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if u, err := w.people.UserNamed(t.Context(), " MAYA "); err != nil || u != maya {
		t.Errorf("%+v, %v, want %+v", u, err, maya)
	}
	if u, err := w.people.User(t.Context(), maya.ID); err != nil || u != maya {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := w.people.User(t.Context(), "usr_none"); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := w.people.SetUser(t.Context(), people.CLI, "nobody", people.UserChange{}); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	bad := people.Role("root")
	if _, err := w.people.SetUser(t.Context(), people.CLI, "maya", people.UserChange{Role: &bad}); !errors.Is(err, people.ErrRole) {
		t.Errorf("no such role: %v", err)
	}
	fresh := people.Secret("three quiet otters")
	if _, err := w.people.SetUser(t.Context(), people.CLI, "maya", people.UserChange{Password: &fresh}); err != nil {
		t.Error(err)
	}
	want(t, "the new password", w.browser().login("maya", fresh), 303)
	e := w.recorded(audit.UserAdd)
	if len(e) != 2 || e[0].Resource != maya.ID || e[0].Agent != audit.Operator || e[1].Reason != "name_taken" {
		t.Fatalf("recorded: %+v", e)
	}
	if text := fmt.Sprintf("%+v", w.log.entries); strings.Contains(text, "maya") || strings.Contains(text, "otters") {
		t.Fatal("a name or a password is on record")
	}
}

// The same password from a keyboard that composes differently.
func TestPasswordIsNormalised(t *testing.T) {
	w := newWorld(t, "http")
	if _, err := w.people.CreateUser(t.Context(), people.CLI, people.NewUser{Name: "zoe", Password: "caf\u00e9 at the sea"}); err != nil {
		t.Fatal(err)
	}
	want(t, "decomposed", w.browser().login("zoe", "cafe\u0301 at the sea"), 303)
	want(t, "without the accent", w.browser().login("zoe", "cafe at the sea"), 403)
	// what comes after byte 72 matters.
	long := strings.Repeat("calm heron ", 10)
	if _, err := w.people.CreateUser(t.Context(), people.CLI, people.NewUser{Name: "yan", Password: people.Secret(long + "a")}); err != nil {
		t.Fatal(err)
	}
	want(t, "another end", w.browser().login("yan", people.Secret(long+"b")), 403)
	want(t, "the whole", w.browser().login("yan", people.Secret(long+"a")), 303)
}

func TestDev(t *testing.T) {
	w := newWorld(t, "http")
	dev, err := w.people.EnsureDev(t.Context())
	if err != nil || dev.Name != "dev" || dev.Role != people.Operator {
		t.Fatal(dev, err)
	}
	if again, err := w.people.EnsureDev(t.Context()); err != nil || again != dev {
		t.Fatal(again, err)
	}
	want(t, "dev signs in", w.browser().login("dev", "dev"), 303)
}

func TestSecretsAreNotPrinted(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewJSONHandler(&b, nil))
	log.Info("x", "password", people.Secret("hunter2hunter2"), "hash", people.PHC("$argon2id$salt"))
	fmt.Fprintf(&b, "%v %+v %#v %s", people.Secret("hunter2hunter2"), people.NewUser{Password: "hunter2hunter2"}, people.NewUser{Password: "hunter2hunter2"}, people.PHC("$argon2id$salt"))
	if strings.Contains(b.String(), "hunter2") || strings.Contains(b.String(), "argon2id") {
		t.Fatal(b.String())
	}
}
