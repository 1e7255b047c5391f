package api

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	defaultPage   = 50
	maxPage       = 500
	auditResource = "kavach/api/audit"
)

var lidPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

func (s *Server) listEntries(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.AuditRead, auditResource, scopeAudit, scopeAuditRead) {
		return
	}
	q, names, wrong := entriesQuery(r.URL.RawQuery)
	if wrong != "" {
		s.reject(w, r, chain, audit.AuditRead, auditResource, &problem{http.StatusBadRequest, wrong})
		return
	}
	q.Sight = sightOf(chain)
	page, err := s.cfg.Auditor.Entries(r.Context(), q)
	switch {
	case errors.Is(err, audit.ErrCursor):
		s.reject(w, r, chain, audit.AuditRead, auditResource, &problem{http.StatusBadRequest, "this cursor was not made for you and this filter"})
	case err != nil:
		s.broken(w, "reading the log", err)
	default:
		s.writePage(w, r, chain, page, names)
	}
}

func (s *Server) writePage(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, page audit.Page, filters []string) {
	entries := []jcs.Value{}
	for _, stored := range page.Entries {
		v, err := jcs.Parse(stored.Bytes, jcs.Limits{Bytes: audit.MaxRecord})
		if err != nil {
			s.broken(w, "reading a record", err)
			return
		}
		entries = append(entries, v)
	}
	e := entry(chain, audit.AuditRead, audit.Allowed, auditResource)
	e.Detail["filters"], e.Detail["entries"] = filters, len(entries)
	if !s.record(w, r, e) {
		return
	}
	content := map[string]any{"entries": entries}
	if page.Next != "" {
		content["next_cursor"] = page.Next
	}
	answer(w, http.StatusOK, content)
}

func (s *Server) showEntry(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.AuditRead, auditResource, scopeAudit, scopeAuditRead) {
		return
	}
	id := r.PathValue("id")
	stored, err := audit.Stored{}, error(audit.ErrNotFound)
	if plain(id, 64) {
		stored, err = s.cfg.Auditor.Entry(r.Context(), sightOf(chain), id)
	}
	if err != nil && !errors.Is(err, audit.ErrNotFound) {
		s.broken(w, "reading the log", err)
		return
	}
	e := entry(chain, audit.AuditRead, audit.Allowed, auditResource)
	e.Detail["entries"] = 1
	if err != nil {
		e.Result, e.Reason, e.Detail["entries"] = audit.Denied, "not_found", 0
	}
	if !s.record(w, r, e) {
		return
	}
	if err != nil {
		fail(w, http.StatusNotFound, "not_found", "no such entry, or none you may see")
		return
	}
	v, err := jcs.Parse(stored.Bytes, jcs.Limits{Bytes: audit.MaxRecord})
	if err != nil {
		s.broken(w, "reading a record", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"entry": v})
}

// entriesQuery reads the filter of audit.md §4. A repeated or unknown
// parameter is refused: a filter that is silently ignored shows too much.
func entriesQuery(raw string) (q audit.Query, names []string, problem string) {
	names = []string{}
	form, err := url.ParseQuery(raw)
	if err != nil {
		return q, nil, "the query cannot be read"
	}
	for name, values := range form {
		if len(values) != 1 {
			return q, nil, quoted(name) + " is given twice"
		}
		v := values[0]
		if !plain(v, 512) {
			return q, nil, quoted(name) + " is empty, too long or has control characters"
		}
		names = append(names, quoted(name))
		if problem = setFilter(&q, name, v); problem != "" {
			return q, nil, problem
		}
	}
	slices.Sort(names)
	if q.Limit == 0 {
		q.Limit = defaultPage
	}
	return q, names, ""
}

func setFilter(q *audit.Query, name, v string) (problem string) {
	switch name {
	case "agent":
		q.Agent = v
	case "action":
		q.Action = v
		if !audit.KnownAction(v) {
			problem = "there is no such action"
		}
	case "result":
		q.Result = v
		if v != audit.Allowed && v != audit.Denied && v != audit.Failed {
			problem = "result is allowed, denied or failed"
		}
	case "resource":
		q.Resource = v
	case "sub":
		q.Sub = v
	case "grant":
		q.Grant = v
	case "lid":
		q.LID = v
		if !lidPattern.MatchString(v) {
			problem = "lid has 43 base64url characters"
		}
	case "q":
		q.Prefix = v
	case "since", "until":
		t, err := time.Parse(time.RFC3339, v)
		if err != nil || t.UnixMilli() <= 0 {
			return name + " is a time like 2026-01-31T09:00:00Z"
		}
		if name == "since" {
			q.Since = t.UnixMilli()
		} else {
			q.Until = t.UnixMilli()
		}
	case "order":
		q.Ascending = v == "oldest"
		if v != "oldest" && v != "newest" {
			problem = "order is newest or oldest"
		}
	case "cursor":
		q.Cursor = v
	case "limit":
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			return "limit is a number from 1 to " + strconv.Itoa(maxPage)
		}
		q.Limit = int(min(n, maxPage))
	default:
		problem = "there is no parameter " + quoted(name)
	}
	return problem
}

// quoted is a parameter's name as an answer may repeat it.
func quoted(name string) string {
	if len(name) > 32 {
		name = name[:32]
	}
	return strconv.QuoteToASCII(name)
}

// plain reports whether s is short text without control characters.
func plain(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return false
		}
	}
	return true
}

// sightOf is what the holder of a chain may see of the log (audit.md §4).
func sightOf(chain *delegation.Chain) audit.Sight {
	if chain.HasScope(scopeAuditRead) {
		return audit.Sight{All: true, Caller: chain.Principal()}
	}
	return audit.SightOf(chain)
}
