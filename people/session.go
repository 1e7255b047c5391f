package people

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"

	"github.com/kavach-dev/kavach/audit"
)

// Session is a browser that is signed in.
type Session struct {
	ID      string    // public id, "ses_…": what records call it, nothing to sign in with
	User    User      // never disabled
	Since   time.Time // when the password was given (prompt=login, auth_time)
	Expires time.Time // the absolute limit
}

// StoredSession is a session as the repository keeps it.
type StoredSession struct {
	Hash    string // of the id in the cookie
	ID      string // public
	UserID  string
	Started time.Time
	Seen    time.Time
	Expires time.Time
	Device  string // browser family
	Network string // /24 or /48
}

// touchEvery is how exactly the time a session was last seen is kept: one
// write a minute at most, not one for every page.
const touchEvery = time.Minute

// Current says who is signed in. ErrSignedOut: nobody; any other error: the
// storage failed, answer 503.
func (s *Server) Current(r *http.Request) (Session, error) {
	token, _ := s.cookies.get(r).Values[cookieSession].(string)
	if token == "" {
		return Session{}, ErrSignedOut
	}
	stored, user, err := s.store.SessionByHash(r.Context(), hashed(token))
	if errors.Is(err, ErrNotFound) {
		return Session{}, ErrSignedOut
	}
	if err != nil {
		return Session{}, err
	}
	now := s.now()
	if user.Disabled || !now.Before(stored.Expires) || !now.Before(stored.Seen.Add(s.idle)) {
		return Session{}, ErrSignedOut
	}
	if now.Sub(stored.Seen) >= touchEvery {
		// Without it the session only ends sooner: no reason to fail a page.
		if err := s.log.Commit(r.Context(), audit.Change{Effects: []audit.Effect{s.store.TouchSession(stored.Hash, now)}}); err != nil {
			s.logger.Warn("noting that a session was used", "error", err)
		}
	}
	return Session{ID: stored.ID, User: user, Since: stored.Started, Expires: stored.Expires}, nil
}

// Browser returns the random id of the browser that asks, making one if there
// is none: the same before and after a login. Call it before the answer's
// header is written. Keep its hash, not the id.
func (s *Server) Browser(w http.ResponseWriter, r *http.Request) (string, error) {
	cookie := s.cookies.get(r)
	if id, _ := cookie.Values[cookieBrowser].(string); id != "" {
		return id, nil
	}
	id := rand.Text()
	cookie.Values[cookieBrowser] = id
	return id, s.cookies.save(w, r, cookie)
}

// begin prepares a session of user u: the effects that make it and end the one
// the browser had, and the function that puts it into the cookie once they
// are committed. The id is always new: one that somebody planted before the
// login is worth nothing after it.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, u User, p PHC) (StoredSession, []audit.Effect, func() error) {
	now := s.now()
	cookie, token := s.cookies.get(r), rand.Text()+rand.Text()
	stored := StoredSession{
		Hash: hashed(token), ID: "ses_" + rand.Text(), UserID: u.ID,
		Started: now, Seen: now, Expires: now.Add(s.whole),
		Device: device(r.UserAgent()), Network: network(s.address(r)),
	}
	effects := []audit.Effect{s.store.InsertSession(stored, p)}
	if old, _ := cookie.Values[cookieSession].(string); old != "" {
		effects = append(effects, s.store.DropSession(hashed(old)))
	}
	return stored, effects, func() error {
		if id, _ := cookie.Values[cookieBrowser].(string); id == "" {
			cookie.Values[cookieBrowser] = rand.Text()
		}
		cookie.Values[cookieSession] = token
		cookie.Values[cookieKnown] = remember(cookie, u.ID)
		return s.cookies.save(w, r, cookie)
	}
}

// forget takes session and browser id out of the cookie. Whom the browser
// knows stays: it says nothing to anybody but us.
func (s *Server) forget(w http.ResponseWriter, r *http.Request) error {
	cookie := s.cookies.get(r)
	delete(cookie.Values, cookieSession)
	delete(cookie.Values, cookieBrowser)
	return s.cookies.save(w, r, cookie)
}

// knows says whether the browser signed in as that user before.
func knows(cookie *sessions.Session, userID string) bool {
	list, _ := cookie.Values[cookieKnown].(string)
	return userID != "" && slices.Contains(strings.Fields(list), userID)
}

func remember(cookie *sessions.Session, userID string) string {
	list, _ := cookie.Values[cookieKnown].(string)
	ids := slices.DeleteFunc(strings.Fields(list), func(id string) bool { return id == userID })
	ids = append([]string{userID}, ids...)
	return strings.Join(ids[:min(len(ids), knownMost)], " ")
}

// hashed is what the database knows of a random id.
func hashed(token string) string {
	h := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(h[:])
}
