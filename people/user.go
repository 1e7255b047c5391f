package people

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kavach-dev/kavach/audit"
)

// Role is what a person is here for. Each user has one.
type Role string

// The roles, each with what the one before has.
const (
	Member   Role = "member"   // connects clients, owns agents, sees the own subtree
	Auditor  Role = "auditor"  // reads the whole audit log
	Operator Role = "operator" // adds users, clients, agents, resources, keys
)

// rank orders the roles.
func (r Role) rank() int {
	switch r {
	case Member:
		return 1
	case Auditor:
		return 2
	case Operator:
		return 3
	}
	return 0
}

// Valid says whether r is one of the roles.
func (r Role) Valid() bool { return r.rank() > 0 }

// text says for people what a role may do.
func (r Role) text() string {
	switch r {
	case Auditor:
		return "Connects apps, owns agents, and reads the whole audit log."
	case Operator:
		return "Connects apps, owns agents, reads the audit log, and runs this server."
	}
	return "Connects apps and owns agents."
}

// User is a person with an account.
type User struct {
	ID       string // random, "usr_…": what tokens and records call the person
	Name     string // canonical
	Role     Role
	Disabled bool
	Created  time.Time
}

// Secret is a password as somebody typed it.
type Secret string

// String hides the password.
func (Secret) String() string { return "[redacted]" }

// GoString hides the password.
func (Secret) GoString() string { return "[redacted]" }

// LogValue hides the password.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// By says who decides something about a user.
type By struct {
	Agent string // "user:<id>", an agent's id, or audit.Operator
	Sub   string // the principal on whose authority
	Via   string // "cli", "api", …: detail of the record
}

// CLI is who decides on the command line.
var CLI = By{Agent: audit.Operator, Via: "cli"}

// NewUser is a user to be made.
type NewUser struct {
	Name     string // any spelling; its canonical form is kept
	Password Secret
	Role     Role // "" is Member
}

// UserChange says what of a user is to change; nil stays as it is.
type UserChange struct {
	Role     *Role
	Disabled *bool
	Password *Secret
}

// CanonicalName returns the one spelling of a name: NFKC, lower case, trimmed.
// It fails with ErrName for what cannot be a name.
func CanonicalName(s string) (string, error) {
	c := fold(s)
	switch n := utf8.RuneCountInString(c); {
	case !utf8.ValidString(s):
		return "", fmt.Errorf("%w: it is not valid UTF-8", ErrName)
	case n == 0:
		return "", fmt.Errorf("%w: it is empty", ErrName)
	case n > 64:
		return "", fmt.Errorf("%w: it has more than 64 characters", ErrName)
	}
	for i, r := range c {
		letter := unicode.IsLetter(r) || unicode.IsDigit(r)
		if letter || (i > 0 && (unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Mc, r) || strings.ContainsRune("._-@+", r))) {
			continue
		}
		return "", fmt.Errorf("%w: it holds %q (letters, digits and . _ - @ + are allowed, and it begins with a letter or digit)", ErrName, r)
	}
	return c, nil
}

// fold is the canonical spelling without a judgement. NFKC comes again at the
// end because lowering a letter can make a sequence that composes.
func fold(s string) string {
	return strings.TrimSpace(norm.NFKC.String(strings.ToLower(norm.NFKC.String(strings.ToValidUTF8(s, "\uFFFD")))))
}

// User returns the person with an id, or ErrNotFound: a disabled one too.
func (s *Server) User(ctx context.Context, id string) (User, error) {
	u, _, err := s.store.UserByID(ctx, id)
	return u, err
}

// UserNamed returns the person with a name in any spelling, or ErrNotFound.
func (s *Server) UserNamed(ctx context.Context, name string) (User, error) {
	c, err := CanonicalName(name)
	if err != nil {
		return User{}, fmt.Errorf("%w: user", ErrNotFound)
	}
	u, _, err := s.store.UserByName(ctx, c)
	return u, err
}

// ListUsers returns everybody, by name.
func (s *Server) ListUsers(ctx context.Context) ([]User, error) { return s.store.Users(ctx) }

// CreateUser adds a person. It fails with ErrName, ErrRole, ErrPassword or
// ErrTaken, or with what the log says (audit.ErrUnavailable).
func (s *Server) CreateUser(ctx context.Context, by By, n NewUser) (User, error) {
	u, err := s.newUser(n.Name, n.Role)
	if err != nil {
		return User{}, err
	}
	if err := checkPassword(n.Password, u.Name); err != nil {
		return User{}, err
	}
	return u, s.insertUser(ctx, by, u, n.Password)
}

// EnsureDev makes the operator dev with the password dev if there is none
// (serve --dev), and returns the person.
func (s *Server) EnsureDev(ctx context.Context) (User, error) {
	u, err := s.UserNamed(ctx, "dev")
	if !errors.Is(err, ErrNotFound) {
		return u, err
	}
	if u, err = s.newUser("dev", Operator); err != nil {
		return User{}, err
	}
	err = s.insertUser(ctx, By{Agent: audit.Operator, Via: "dev"}, u, "dev")
	if errors.Is(err, ErrTaken) { // another process was faster
		return s.UserNamed(ctx, "dev")
	}
	return u, err
}

func (s *Server) newUser(name string, role Role) (User, error) {
	c, err := CanonicalName(name)
	if err != nil {
		return User{}, err
	}
	if role == "" {
		role = Member
	}
	if !role.Valid() {
		return User{}, ErrRole
	}
	return User{ID: "usr_" + rand.Text(), Name: c, Role: role, Created: s.now().Truncate(time.Millisecond)}, nil
}

func (s *Server) insertUser(ctx context.Context, by By, u User, p Secret) error {
	phc, err := s.hasher.hash(ctx, p)
	if err != nil {
		return err
	}
	err = s.log.Commit(ctx, audit.Change{
		Effects: []audit.Effect{s.store.InsertUser(u, phc)},
		Entries: []audit.Entry{by.entry(audit.UserAdd, u, audit.Allowed, "", map[string]any{"role": string(u.Role)})},
		Else:    &audit.Change{Entries: []audit.Entry{by.entry(audit.UserAdd, User{}, audit.Denied, "name_taken", nil)}},
	})
	if errors.Is(err, audit.ErrConflict) {
		return ErrTaken
	}
	return err
}

// SetUser changes a person. Whatever changes ends all sessions of the person:
// a session id from before a change of privilege is worth nothing after it.
func (s *Server) SetUser(ctx context.Context, by By, name string, c UserChange) (User, error) {
	canonical, err := CanonicalName(name)
	if err != nil {
		return User{}, fmt.Errorf("%w: user", ErrNotFound)
	}
	before, _, err := s.store.UserByName(ctx, canonical)
	if err != nil {
		return User{}, err
	}
	after, detail := before, map[string]any{}
	if c.Role != nil && *c.Role != before.Role {
		if !c.Role.Valid() {
			return User{}, ErrRole
		}
		after.Role, detail["role"], detail["role_before"] = *c.Role, string(*c.Role), string(before.Role)
	}
	if c.Disabled != nil && *c.Disabled != before.Disabled {
		after.Disabled, detail["disabled"] = *c.Disabled, *c.Disabled
	}
	change := audit.Change{
		Else: &audit.Change{Entries: []audit.Entry{by.entry(audit.UserUpdate, before, audit.Denied, "changed_meanwhile", nil)}},
		// Only less authority: must not wait for the log (design D3).
		Narrows: c.Password == nil && after.Role.rank() <= before.Role.rank() && (after.Disabled || !before.Disabled),
	}
	if after != before {
		change.Effects = append(change.Effects, s.store.UpdateUser(before, after))
		change.Entries = append(change.Entries, by.entry(audit.UserUpdate, after, audit.Allowed, "", detail))
	}
	if after.Role != before.Role {
		// "Losing a role takes effect at the next refresh, introspection and feed"
		// (authorization-server.md §4). A scope can be for one role alone, so that
		// whoever rises may lose some, too.
		change.Effects = append(change.Effects, s.store.RoleLost(before.ID, s.now()))
	}
	if c.Password != nil {
		if err := checkPassword(*c.Password, before.Name); err != nil {
			return User{}, err
		}
		phc, err := s.hasher.hash(ctx, *c.Password)
		if err != nil {
			return User{}, err
		}
		change.Effects = append(change.Effects, s.store.SetPassword(before.ID, phc))
		change.Entries = append(change.Entries, by.entry(audit.UserPassword, after, audit.Allowed, "", nil))
	}
	if len(change.Effects) == 0 {
		return before, nil
	}
	change.Effects = append(change.Effects, s.store.EndSessions(before.ID, ""))
	if err := s.log.Commit(ctx, change); err != nil && !errors.Is(err, audit.ErrUnrecorded) {
		if errors.Is(err, audit.ErrConflict) {
			return User{}, fmt.Errorf("%w: the user was changed at the same time, try again", ErrPeople)
		}
		return User{}, err
	}
	return after, nil
}

// entry is a record about user u.
func (b By) entry(action string, u User, result, reason string, detail map[string]any) audit.Entry {
	e := audit.Entry{Agent: b.Agent, Sub: b.Sub, Action: action, Resource: u.ID, Result: result, Reason: reason, Detail: map[string]any{}}
	for k, v := range detail {
		e.Detail[k] = v
	}
	if b.Via != "" {
		e.Detail["via"] = b.Via
	}
	return e
}
