package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/templates"
)

// setupLives is how long a set-up code works.
const setupLives = time.Hour

// crockford has no letters that look like digits.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewSetupCode makes the code XXXX-XXXX-XXXX (60 bits, one hour) that /setup
// asks for; the one before is worth nothing from now on. Only its hash is
// kept. It fails with ErrSetUp once there is a user.
func (s *Server) NewSetupCode(ctx context.Context) (string, error) {
	some, err := s.store.HasUsers(ctx)
	if err != nil {
		return "", err
	}
	if some {
		return "", ErrSetUp
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	text := crockford.EncodeToString(b[:])[:12]
	err = s.log.Commit(ctx, audit.Change{
		Effects: []audit.Effect{s.store.PutSetupCode(hashed(text), s.now().Add(setupLives))},
		Entries: []audit.Entry{{
			Agent: audit.Operator, Action: audit.SetupDone, Result: audit.Allowed, Detail: map[string]any{"phase": "code", "via": "serve"},
		}},
	})
	if err != nil {
		return "", err
	}
	return text[:4] + "-" + text[4:8] + "-" + text[8:], nil
}

// canonicalCode is a code as it was made, however it was typed.
func canonicalCode(s string) string {
	return strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(strings.TrimSpace(s)))
}

// open says whether there is something to set up; if not it has answered.
func (s *Server) open(w http.ResponseWriter, r *http.Request) bool {
	some, err := s.store.HasUsers(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return false
	}
	if some {
		s.nothing(w, r)
	}
	return !some
}

func (s *Server) showSetup(w http.ResponseWriter, r *http.Request) {
	if s.open(w, r) {
		s.pages.Render(w, http.StatusOK, templates.Setup{Rules: passwordRules})
	}
}

func (s *Server) setup(w http.ResponseWriter, r *http.Request) {
	if !s.open(w, r) || !s.form(w, r) {
		return
	}
	ctx, now := r.Context(), s.now()
	refuse := func(reason string) {
		s.log.Refuse(s.source(r), "/setup", audit.Entry{
			Action: audit.SetupDone, Result: audit.Denied, Reason: reason, Detail: map[string]any{"net": network(s.address(r))},
		})
	}
	problem := func(status int, text string) {
		s.pages.Render(w, status, templates.Setup{Name: r.PostForm.Get("username"), Problem: text, Rules: passwordRules})
	}
	tries := &counted{s: s}
	tries.add(setupLimit, "setup")
	if err := tries.count(ctx); err != nil {
		if errors.As(err, &tooManyError{}) {
			refuse("throttled")
		}
		s.fail(w, r, err)
		return
	}
	code, ends, err := s.store.SetupCode(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		s.fail(w, r, err)
		return
	}
	typed := hashed(canonicalCode(r.PostForm.Get("code")))
	if err != nil || subtle.ConstantTimeCompare([]byte(code), []byte(typed)) != 1 || !now.Before(ends) {
		refuse("bad_code")
		problem(http.StatusForbidden, "That is not the code, or it is older than an hour. A restart of the server writes a new one.")
		return
	}

	// Whoever has the code may take as many tries as a good password needs.
	password := Secret(r.PostForm.Get("password"))
	user, err := s.newUser(r.PostForm.Get("username"), Operator)
	if err == nil {
		err = checkPassword(password, user.Name)
	}
	text := ""
	if err != nil {
		text = because(err)
	} else if confirm, sent := r.PostForm["confirm"]; sent && Secret(confirm[0]) != password {
		text = "The two passwords are not the same."
	}
	if text != "" {
		if err := s.log.Commit(ctx, audit.Change{Effects: tries.undo()}); err != nil {
			s.fail(w, r, err)
			return
		}
		problem(http.StatusUnprocessableEntity, text)
		return
	}
	phc, err := s.hasher.hash(ctx, password)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	session, effects, keep := s.begin(w, r, user, phc)
	effects = append([]audit.Effect{s.store.UseSetupCode(code, ends), s.store.InsertFirstUser(user, phc)}, effects...)
	err = s.log.Commit(ctx, audit.Change{
		Effects: append(effects, tries.undo()...),
		Entries: []audit.Entry{
			s.personal(r, user, audit.SetupDone, user.ID),
			s.personal(r, user, audit.Login, session.ID),
		},
	})
	if errors.Is(err, audit.ErrConflict) {
		// Another one used the code, or a newer code replaced it.
		refuse("bad_code")
		problem(http.StatusForbidden, "The code was used or replaced at the same time.")
		return
	}
	if err == nil {
		err = keep()
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.pages.SeeOther(w, "/account")
}
