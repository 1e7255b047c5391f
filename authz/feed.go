package authz

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	// FeedPath is where the revocation feed is served, below the issuer.
	FeedPath = "/revocations"
	// feedAge is how often one process asks the database for the feed, and how
	// long a revocation by another process may be missing from it.
	feedAge = time.Second
	// feedSigned is how long an unchanged feed is served without being signed
	// again: two thirds of its life are left to who fetches it then.
	feedSigned = 20 * time.Second
)

// feed is the revocation feed as it was served last.
type feed struct {
	mu    sync.Mutex // held while it is made: callers wait for one query
	state FeedState
	read  time.Time // when the database said so; zero: never
	doc   feedDocument
}

// feedDocument is a signed feed.
type feedDocument struct {
	token, etag string
	kid         string // of the key that signed it
	content     string // what it says, without its times
	issued      time.Time
}

// HandleFeed is GET /revocations (delegation.md §9): what was revoked, signed,
// for verifiers that do not ask the server about each token. It names nobody,
// and may be read by everybody and kept for five seconds by caches.
func (g *Registry) HandleFeed(w http.ResponseWriter, r *http.Request) {
	allowCORS(http.HandlerFunc(g.serveFeed)).ServeHTTP(w, r)
}

func (g *Registry) serveFeed(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		WriteError(w, methodNotAllowed(w, "GET, HEAD"))
		return
	}
	doc, err := g.currentFeed(r.Context())
	if err != nil {
		g.logFailure(r.Context(), "the revocation feed", err)
		WriteError(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/jwt")
	h.Set("Cache-Control", "max-age=5")
	h.Set("ETag", doc.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if match := r.Header.Get("If-None-Match"); match == "*" || strings.Contains(match, doc.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write([]byte(doc.token)) // net/http leaves it out of the answer to HEAD
}

// currentFeed is the feed as of now, or a moment ago. What this process holds in
// memory because the database does not take it stands in it too. While the
// database is away the feed ages: its iat says when the database said so.
func (g *Registry) currentFeed(ctx context.Context) (feedDocument, error) {
	f := &g.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	now := g.now()
	age := now.Sub(f.read)
	if age >= feedAge || age < 0 || f.read.IsZero() {
		state, err := g.cfg.Store.Feed(ctx, now)
		switch {
		case err == nil:
			f.state, f.read = state, now
		case f.read.IsZero() || age >= delegation.FeedLife || age < 0:
			return feedDocument{}, err
		}
	}
	state := f.state.clone()
	g.held.addTo(&state, now)
	content := state.content()
	fresh := f.read.Sub(f.doc.issued)
	if g.cfg.Keys == nil {
		return feedDocument{}, errors.New("authz: no key signs the revocation feed")
	}
	kid, signer, err := g.cfg.Keys.feedSigner(ctx)
	if err != nil {
		return feedDocument{}, err
	}
	if f.doc.kid == kid && content == f.doc.content && fresh >= 0 && fresh < feedSigned {
		return f.doc, nil
	}
	doc := feedDocument{kid: kid, content: content, issued: f.read}
	if doc.issued.Before(f.doc.issued) {
		doc.issued = f.doc.issued // "(seq, iat) not older": a clock that was set back is no reason to be refused
	}
	doc.token, err = delegation.SignFeed(delegation.FeedClaims{
		Issuer: g.cfg.Issuer, Seq: state.Seq, IssuedAt: doc.issued, Links: state.Links, Grants: state.Grants,
		Keys: state.Keys, Clients: state.Clients, Before: state.Before,
	}, kid, signer)
	if err != nil {
		return feedDocument{}, fmt.Errorf("signing the feed: %w", err)
	}
	sum := sha256.Sum256([]byte(doc.token))
	doc.etag = `"` + jcs.Base64URL(sum[:16]) + `"`
	f.doc = doc
	return doc, nil
}

// clone copies what is appended to.
func (s FeedState) clone() FeedState {
	s.Links, s.Grants = slices.Clone(s.Links), slices.Clone(s.Grants)
	s.Keys, s.Clients = slices.Clone(s.Keys), slices.Clone(s.Clients)
	before := make(map[string]time.Time, len(s.Before))
	maps.Copy(before, s.Before)
	s.Before = before
	return s
}

// content tells one state from another, in whatever order they were read.
func (s FeedState) content() string {
	hash := sha256.New()
	fmt.Fprintln(hash, s.Seq)
	for _, list := range [][]string{s.Links, s.Grants, s.Keys, s.Clients} {
		slices.Sort(list)
		fmt.Fprintf(hash, "%q\n", list)
	}
	for _, gid := range slices.Sorted(maps.Keys(s.Before)) {
		fmt.Fprintf(hash, "%q %d\n", gid, s.Before[gid].Unix())
	}
	return string(hash.Sum(nil))
}
