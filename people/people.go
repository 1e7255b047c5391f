// Package people knows who is signed in: users, roles, sessions, passwords and
// set-up.
//
// It guarantees that a session id never outlives the password, the role or the
// login it was made for; that the cookie holds nothing a thief of the database
// or of the log could make (it holds random ids, signed and encrypted; the
// database holds their hashes); that neither the answer nor its time tells
// whether a name exists; that guessing is slowed down per account and per
// address, whatever runs in parallel and across restarts and replicas, and
// that nobody can lock a person out of a browser the person has used before;
// and that every change of a user or session commits together with its record.
//
// What a role may do is decided by package authz; this package only says who
// has which.
package people

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/templates"
)

// ErrPeople is the root of every error of this package.
var ErrPeople = errors.New("people")

var (
	// ErrSignedOut: the request comes from nobody who is signed in.
	ErrSignedOut = fmt.Errorf("%w: not signed in", ErrPeople)
	// ErrNotFound: no such user, session or code.
	ErrNotFound = fmt.Errorf("%w: not found", ErrPeople)
	// ErrTaken: another user has that name.
	ErrTaken = fmt.Errorf("%w: name is taken", ErrPeople)
	// ErrName: not a name for a user; the text says what is wrong.
	ErrName = fmt.Errorf("%w: invalid name", ErrPeople)
	// ErrRole: not one of the roles.
	ErrRole = fmt.Errorf("%w: role must be member, auditor or operator", ErrPeople)
	// ErrPassword: not a password for a user; the text says what is wrong.
	ErrPassword = fmt.Errorf("%w: password refused", ErrPeople)
	// ErrSetUp: the server has a user, so there is nothing to set up.
	ErrSetUp = fmt.Errorf("%w: already set up", ErrPeople)
	// ErrBusy: too many passwords are being checked at this moment.
	ErrBusy = fmt.Errorf("%w: too busy", ErrPeople)
	// ErrConfig: the configuration cannot work.
	ErrConfig = fmt.Errorf("%w: bad configuration", ErrPeople)
)

// Log is the part of *audit.Log that people need.
type Log interface {
	audit.Committer
	Refuse(source, endpoint string, e audit.Entry)
}

// Config says how people sign in.
type Config struct {
	// Store holds users, sessions and attempts.
	Store Store
	// Log commits every change with its record.
	Log Log
	// Pages shows the pages; nil makes them from Issuer.
	Pages *templates.Pages
	// Issuer is the configured issuer URL: https decides name and Secure of the
	// cookie. Never taken from the request.
	Issuer string
	// CookieSecrets seal the cookie: the first seals, all open, so that a
	// rotated secret keeps sessions alive while the old one is listed. It is
	// asked with every request and gives one or more of at least 32 random bytes
	// each. Nil: a random one, and every cookie dies with the process (commands
	// that serve no pages).
	CookieSecrets func() [][]byte
	// Address says where a request comes from, forwarded headers of trusted
	// proxies included; nil takes the peer's address.
	Address func(*http.Request) netip.Addr
	// Idle ends a session that was not used; 0 means 12 h.
	Idle time.Duration
	// Absolute ends every session; 0 means 7 days.
	Absolute time.Duration
	// Dev says on the login page how to sign in (serve --dev).
	Dev bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger hears of storage errors; nil means slog.Default().
	Logger *slog.Logger
}

// Server answers for people. It is safe for concurrent use; it starts no
// goroutine.
type Server struct {
	store   Store
	log     Log
	pages   *templates.Pages
	cookies *cookies
	origin  string // scheme and host of the issuer
	// loopback says that the issuer is on this machine: nobody has another name
	// for it.
	loopback bool
	address  func(*http.Request) netip.Addr
	hasher   *hasher
	idle     time.Duration
	whole    time.Duration
	dev      bool
	now      func() time.Time
	logger   *slog.Logger
}

// New makes a Server.
func New(c Config) (*Server, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("%w: issuer %q", ErrConfig, c.Issuer)
	}
	if c.Store == nil || c.Log == nil {
		return nil, fmt.Errorf("%w: store and log are needed", ErrConfig)
	}
	s := &Server{
		store: c.Store, log: c.Log, pages: c.Pages, origin: u.Scheme + "://" + u.Host, loopback: isLoopback(u.Host),
		address: c.Address, idle: c.Idle, whole: c.Absolute, dev: c.Dev, now: c.Now, logger: c.Logger,
		hasher: newHasher(),
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.address == nil {
		s.address = peer
	}
	if s.idle <= 0 {
		s.idle = 12 * time.Hour
	}
	if s.whole <= 0 {
		s.whole = 7 * 24 * time.Hour
	}
	if s.pages == nil {
		if s.pages, err = templates.New(templates.Config{Issuer: c.Issuer, Logger: s.logger}); err != nil {
			return nil, err
		}
	}
	if s.cookies, err = newCookies(u.Scheme == "https", c.CookieSecrets); err != nil {
		return nil, err
	}
	return s, nil
}

// Expired lists what may be removed of the tables of people: sessions that
// ended, and subjects that are not slowed down any more.
func (s *Server) Expired() []audit.Expired {
	ended := s.now().Add(-audit.ClockSkew)
	return []audit.Expired{
		s.store.ExpiredSessions(ended, ended.Add(-s.idle)),
		s.store.ExpiredAttempts(ended, ended.Add(-longestWindow)),
	}
}

// Store is what people need of the repository. Reads return ErrNotFound when
// there is no such row; writes are effects whose condition is the proof of
// winning.
type Store interface {
	// HasUsers says whether anybody has an account.
	HasUsers(ctx context.Context) (bool, error)
	// Users lists everybody by name.
	Users(ctx context.Context) ([]User, error)
	// UserByID finds by id, UserByName by canonical name; both with the hash of
	// the password.
	UserByID(ctx context.Context, id string) (User, PHC, error)
	UserByName(ctx context.Context, name string) (User, PHC, error)
	// InsertUser needs the name to be free.
	InsertUser(u User, p PHC) audit.Effect
	// InsertFirstUser needs that there is no user at all.
	InsertFirstUser(u User, p PHC) audit.Effect
	// UpdateUser sets role and disabled of a user that still is as before.
	UpdateUser(before, after User) audit.Effect
	// RoleLost ends, for those who read the revocation feed, what was issued
	// until now on the authority of a user whose role changes.
	RoleLost(userID string, now time.Time) audit.Effect
	// SetPassword needs the user to exist.
	SetPassword(userID string, p PHC) audit.Effect
	// ReplacePassword needs the password to still be the old one.
	ReplacePassword(userID string, before, after PHC) audit.Effect

	// SessionByHash finds a session and its user.
	SessionByHash(ctx context.Context, hash string) (StoredSession, User, error)
	// SessionsOf lists the sessions of a user, newest first.
	SessionsOf(ctx context.Context, userID string) ([]StoredSession, error)
	// InsertSession needs the user to be enabled and to have that password.
	InsertSession(s StoredSession, p PHC) audit.Effect
	// TouchSession moves seen forward, if the session is there.
	TouchSession(hash string, seen time.Time) audit.Effect
	// EndSession needs the user to have a session with that public id.
	EndSession(userID, id string) audit.Effect
	// EndSessions ends all sessions of a user but the one with hash except.
	EndSessions(userID, except string) audit.Effect
	// DropSession deletes by hash, if it is there.
	DropSession(hash string) audit.Effect
	// ExpiredSessions are those that had ended at the time or were not seen since
	// the other.
	ExpiredSessions(ended, seenSince time.Time) audit.Expired

	// Attempt says until when a subject has to wait.
	Attempt(ctx context.Context, subject string) (until time.Time, err error)
	// Try counts one attempt of a subject; it needs the wait to be over.
	Try(subject string, l Limit, now time.Time) audit.Effect
	// Untry takes one attempt back: it was no failure.
	Untry(subject string) audit.Effect
	// ExpiredAttempts are subjects that had not to wait any more at the time and
	// were not seen since the other.
	ExpiredAttempts(ended, seenSince time.Time) audit.Expired

	// SetupCode is the hash of the code and when it ends.
	SetupCode(ctx context.Context) (hash string, expires time.Time, err error)
	// PutSetupCode replaces the code.
	PutSetupCode(hash string, expires time.Time) audit.Effect
	// UseSetupCode needs the code to be that one; it is gone then.
	UseSetupCode(hash string, expires time.Time) audit.Effect
}
