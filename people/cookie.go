package people

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// The cookie holds, signed and encrypted:
//
//	b  the Browser id: random, stable until the person signs out
//	s  the session id: random, new at every login; the database has its hash
//	k  ids of up to knownMost users who signed in with this browser before:
//	   guessing at them from elsewhere does not make this browser wait
const (
	cookieBrowser = "b"
	cookieSession = "s"
	cookieKnown   = "k"
	knownMost     = 5
)

// cookieLasts is how long a browser is known; how long a session lives is
// decided by the database.
const cookieLasts = 180 * 24 * time.Hour

// cookies seal and open the cookie, with the secrets as they are now.
type cookies struct {
	name    string
	secure  bool
	secrets func() [][]byte
	made    atomic.Pointer[jar]
}

// jar is what one list of secrets makes; it never changes.
type jar struct {
	secrets [][]byte
	store   *sessions.CookieStore
	// typed and subject are secrets that are no cookie keys.
	typed, subject []byte
}

func newCookies(secure bool, secrets func() [][]byte) (*cookies, error) {
	if secrets == nil {
		one := [][]byte{random(32)}
		secrets = func() [][]byte { return one }
	}
	c := &cookies{name: "kavach", secure: secure, secrets: secrets}
	if secure {
		// "https issuer: `__Host-kavach`, always `Secure`" — and only so: browsers
		// drop a __Host- cookie without Secure.
		c.name = "__Host-kavach"
	}
	now := secrets()
	if len(now) == 0 {
		return nil, fmt.Errorf("%w: there is no cookie secret", ErrConfig)
	}
	for _, secret := range now {
		if len(secret) < 32 {
			return nil, fmt.Errorf("%w: a cookie secret has fewer than 32 bytes", ErrConfig)
		}
	}
	return c, nil
}

// jar is made anew only when the secrets changed.
func (c *cookies) jar() *jar {
	secrets := c.secrets()
	if made := c.made.Load(); made != nil && slices.EqualFunc(made.secrets, secrets, bytes.Equal) {
		return made
	}
	j := &jar{
		secrets: secrets,
		typed:   expand(secrets[0], "what was typed", 32), subject: expand(secrets[0], "attempts", 32),
	}
	var pairs [][]byte
	for _, secret := range secrets {
		pairs = append(pairs, expand(secret, "cookie signature", 64), expand(secret, "cookie encryption", 32))
	}
	j.store = sessions.NewCookieStore(pairs...)
	// gorilla's defaults are HttpOnly false and SameSite None.
	j.store.Options = &sessions.Options{
		Path: "/", MaxAge: int(cookieLasts / time.Second), Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	for _, codec := range j.store.Codecs {
		if sc, ok := codec.(*securecookie.SecureCookie); ok {
			// The database says how long a session lives, on the server's clock.
			sc.MaxAge(0)
		}
	}
	c.made.Store(j)
	return j
}

func expand(secret []byte, use string, n int) []byte {
	k, err := hkdf.Expand(sha256.New, secret, "kavach people: "+use, n)
	if err != nil {
		panic(err) // n is a constant far below the limit of HKDF
	}
	return k
}

// sum names a text by a keyed hash, so that neither table nor log holds it.
func sum(key []byte, text string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// get opens the cookie. A tampered or foreign one is ignored.
func (c *cookies) get(r *http.Request) *sessions.Session {
	session, err := c.jar().store.Get(r, c.name)
	if err != nil {
		clear(session.Values)
	}
	return session
}

// save writes the cookie, in place of one written for the same answer before.
func (c *cookies) save(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
	h := w.Header()
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(v string) bool { return strings.HasPrefix(v, c.name+"=") })
	return s.Save(r, w)
}
