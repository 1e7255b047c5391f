package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"sync"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	// "up to 500 a batch" (audit.md §4), "audit batches 2 MiB"
	// (authorization-server.md §6).
	maxReports    = 500
	maxReportBody = 2 << 20
)

// reportEntries takes what resource servers and agents have to tell.
//
// Who may report on what: `by` is the client_id of a token that its owner got
// on its own authentication; a link's client_id is only its delegator's word,
// and a token that was handed on names somebody else as the one who answers for
// it. A reporter's registered audience is every resource that names it as its
// introspection client, where no longer identifier covers the same place, and
// its own client_id, for what it refused itself.
func (s *Server) reportEntries(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.AuditRefuse, auditResource, scopeAuditWrite) {
		return
	}
	by := chain.ClientID()
	if chain.Len() != 1 || len(chain.Path()) != 1 || chain.Principal() != by || chain.Agent() != by {
		s.refuseReport(w, r, chain, &badReport{http.StatusForbidden, "access_denied", -1, "a reporter reports with a token of its own, not with one that was handed to it"})
		return
	}
	body, wrong := readObject(r, maxReportBody, "2 MiB")
	if wrong != nil {
		s.refuseReport(w, r, chain, &badReport{wrong.status, "invalid_request", -1, wrong.text})
		return
	}
	reports, bad := parseReports(body)
	if bad != nil {
		s.refuseReport(w, r, chain, bad)
		return
	}
	told, bad, err := s.judgeAll(r.Context(), by, reports)
	if err == nil && bad == nil {
		bad, err = s.append(r.Context(), told)
	}
	switch {
	case err != nil && !errors.Is(err, audit.ErrUnavailable):
		s.broken(w, "taking a report", err)
	case err != nil:
		unavailable(w)
	case bad != nil:
		s.refuseReport(w, r, chain, bad)
	default:
		ids := make([]string, len(reports))
		for i := range reports {
			ids[i] = reports[i].entry.ID
		}
		answer(w, http.StatusCreated, map[string]any{"ids": ids})
	}
}

// badReport is why a batch was not taken. Index is the entry at fault, −1 if
// none is.
type badReport struct {
	status int
	code   string
	index  int
	text   string
}

// refuseReport records that a batch was not taken, then says so.
func (s *Server) refuseReport(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, bad *badReport) {
	e := entry(chain, audit.AuditRefuse, audit.Denied, auditResource)
	e.Reason = bad.code
	content := map[string]any{"error": bad.code, "error_description": bad.text}
	if bad.index >= 0 {
		e.Detail["index"], content["index"] = bad.index, bad.index
		content["error_description"] = "entry " + strconv.Itoa(bad.index) + ": " + bad.text
	}
	if s.record(w, r, e) {
		answer(w, bad.status, content)
	}
}

// judgeAll decides about every entry before one is written. What is in the log
// already is left out: the first answer is given again, whatever would be found
// out about its credential today.
func (s *Server) judgeAll(ctx context.Context, by string, reports []report) ([]told, *badReport, error) {
	catalog, err := s.cfg.Resources.Catalog(ctx)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]string, len(reports))
	for i := range reports {
		ids[i] = reports[i].entry.ID
	}
	for i := range reports {
		if _, ok := audienceOf(catalog, by, reports[i].entry.Resource); !ok {
			return nil, &badReport{http.StatusForbidden, "access_denied", i, "the resource is outside what you are registered for"}, nil
		}
	}
	// A record never changes, so having read it decides; one that is written
	// meanwhile meets the unique index.
	written, err := s.cfg.Auditor.Written(ctx, by, ids)
	if err != nil {
		return nil, nil, err
	}
	list := make([]told, 0, len(reports))
	for i := range reports {
		if stored, there := written[ids[i]]; there {
			if !reports[i].same(&stored.Entry) {
				return nil, conflict(i), nil
			}
			continue
		}
		t := s.judge(catalog, by, &reports[i])
		t.index = i
		list = append(list, t)
	}
	return list, nil, nil
}

func conflict(index int) *badReport {
	return &badReport{http.StatusConflict, "id_conflict", index, "you used this id for another entry"}
}

// append commits every entry as a Change of its own, all at once, so that they
// share transactions, and returns when all are durable. If one is not, none is
// acknowledged: the reporter sends the batch again, and ids make that harmless.
// Entries that come with a proof of an earlier one wait until that is written:
// in one report it is the order that says which event the proof is of.
func (s *Server) append(ctx context.Context, list []told) (*badReport, error) {
	errs := make([]error, len(list))
	proofs := map[string]bool{}
	var first, again []int
	for i := range list {
		proof := list[i].claim.proof
		if proof != "" && proofs[proof] {
			again = append(again, i)
			continue
		}
		proofs[proof] = true
		first = append(first, i)
	}
	for _, those := range [][]int{first, again} {
		var all sync.WaitGroup
		for _, i := range those {
			all.Go(func() { errs[i] = s.cfg.Commit.Commit(ctx, list[i].change(s.cfg.Spent)) })
		}
		all.Wait()
	}
	var bad *badReport
	for i, err := range errs {
		switch {
		case err == nil || errors.Is(err, audit.ErrConflict): // an Else stands, and says what was not proved
		case errors.Is(err, audit.ErrIDConflict):
			if bad == nil {
				bad = conflict(list[i].index)
			}
		default:
			return nil, err
		}
	}
	return bad, nil
}

// told is an entry ready to be committed.
type told struct {
	index    int
	asserted audit.Entry
	// proved is what stands if the proof was not used up by another event; nil:
	// nothing proves the entry.
	proved *audit.Entry
	claim  claim
}

// change writes the entry. A proof shows that one request was made, so for one
// reporter it makes one event evidence `proof`, whatever is sent how often: the
// first entry that comes with it, and those that belong to the same event
// (detail.of). Whoever comes with it later for something else is written down
// as asserting it. Conditional inserts decide, not a read before them.
func (t *told) change(spent Spent) audit.Change {
	last := audit.Change{Entries: []audit.Entry{t.asserted}}
	if t.proved == nil {
		return last
	}
	same := audit.Change{
		Effects: []audit.Effect{spent.Again(t.claim.event)}, Entries: []audit.Entry{*t.proved}, Else: &last,
	}
	return audit.Change{
		Effects: []audit.Effect{spent.Once(t.claim.proof, t.claim.until), spent.Once(t.claim.event, t.claim.until)},
		Entries: []audit.Entry{*t.proved}, Else: &same,
	}
}

// same reports whether a record is what this report says: what the reporter
// said, and which token it was about, not what was found out about that.
func (r *report) same(stored *audit.Entry) bool {
	e := &r.entry
	if e.Action != stored.Action || e.Resource != stored.Resource || e.Result != stored.Result ||
		e.Reason != stored.Reason || e.Observed != stored.Observed {
		return false
	}
	if n := len(stored.Chain); n > 0 && r.lid != "" && stored.Chain[n-1].LID != r.lid {
		return false
	}
	said := maps.Clone(stored.Detail)
	for _, ours := range []string{detailUnproved, audit.DetailShortened} {
		delete(said, ours)
	}
	a, errA := jcs.Marshal(said)
	b, errB := jcs.Marshal(e.Detail)
	return errA == nil && errB == nil && (string(a) == string(b) || len(said) == 0 && len(e.Detail) == 0)
}
