package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	revocationsPath     = "/api/v1/revocations"
	revocationsResource = "kavach/api/revocations"
	revocationsPage     = 200
)

// Revoker ends grants and keys. A *authz.Registry is one.
type Revoker interface {
	End(ctx context.Context, by authz.Actor, person authz.Holder, what authz.Ending) (recorded bool, err error)
	Lift(ctx context.Context, by authz.Actor, kind authz.RevocationKind, value string) error
	Revocations(ctx context.Context, before int64, limit int) ([]authz.Revocation, error)
}

// revocations registers the endpoints.
func (s *Server) revocations(mux *http.ServeMux) {
	if s.cfg.Revoker == nil {
		return
	}
	mux.Handle("POST "+revocationsPath, s.guarded(s.revoke))
	mux.Handle("GET "+revocationsPath, s.guarded(s.listRevocations))
	mux.Handle("DELETE "+revocationsPath+"/{kind}/{value}", s.guarded(s.lift))
	for path, allow := range map[string]string{revocationsPath: "GET, POST", revocationsPath + "/{kind}/{value}": "DELETE"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, http.StatusMethodNotAllowed, "invalid_request", "use "+allow)
		})
	}
}

// revoke ends what belongs to the person behind the token, or, for an operator,
// anything.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.Revoke, revocationsResource, scopeAgents) {
		return
	}
	person, ok := s.person(w, r, chain, audit.Revoke, revocationsResource)
	if !ok {
		return
	}
	what, wrong := readEnding(r)
	if wrong != nil {
		s.reject(w, r, chain, audit.Revoke, revocationsResource, wrong)
		return
	}
	recorded, err := s.cfg.Revoker.End(r.Context(), actor(chain), person, what)
	if err != nil {
		s.notEnded(w, r, chain, audit.Revoke, "you have no such grant or key", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"revoked": true, "recorded": recorded})
}

// readEnding reads {grant}, {grant, issued}, {key}, {client} or {issued}.
func readEnding(r *http.Request) (what authz.Ending, _ *problem) {
	v, wrong := readObject(r, maxBody, "64 KiB")
	if wrong != nil {
		return what, wrong
	}
	for name, member := range v.Fields() {
		target := map[string]*string{"grant": &what.Grant, "key": &what.Key, "client": &what.Client}[name]
		switch {
		case name == "issued" && member.Kind() == jcs.Bool:
			what.Issued = member.Bool()
		case target != nil && member.Kind() == jcs.String && member.Str() != "":
			*target = member.Str()
		default:
			return what, &problem{http.StatusBadRequest, "the members are grant, key and client, texts, and issued, true or false"}
		}
	}
	return what, nil
}

// listRevocations shows an operator what is revoked.
func (s *Server) listRevocations(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.operator(w, r, chain, audit.RevokeRead) {
		return
	}
	form, err := url.ParseQuery(r.URL.RawQuery)
	before := int64(0)
	if err == nil && form.Has("before") {
		before, err = strconv.ParseInt(form.Get("before"), 10, 64)
	}
	if err != nil || before < 0 || len(form) > 1 || len(form) == 1 && len(form["before"]) != 1 {
		s.reject(w, r, chain, audit.RevokeRead, revocationsResource, &problem{http.StatusBadRequest, "the one parameter is before, the seq of the last one that was shown"})
		return
	}
	list, err := s.cfg.Revoker.Revocations(r.Context(), before, revocationsPage)
	if err != nil {
		s.broken(w, "listing revocations", err)
		return
	}
	e := entry(chain, audit.RevokeRead, audit.Allowed, revocationsResource)
	e.Detail["revocations"] = len(list)
	if !s.record(w, r, e) {
		return
	}
	shown := []map[string]any{}
	for _, rev := range list {
		one := map[string]any{"seq": rev.Seq, "kind": string(rev.Kind), "value": rev.Value, "at": rev.At.UTC().Format(time.RFC3339)}
		if !rev.Until.IsZero() {
			one["until"] = rev.Until.UTC().Format(time.RFC3339)
		}
		if !rev.Before.IsZero() {
			one["before"] = rev.Before.UTC().Format(time.RFC3339)
		}
		if rev.Grant != "" {
			one["gid"] = rev.Grant
		}
		shown = append(shown, one)
	}
	content := map[string]any{"revocations": shown}
	if len(list) == revocationsPage {
		content["next"] = list[len(list)-1].Seq
	}
	answer(w, http.StatusOK, content)
}

// lift takes back the revocation of a key or a client.
func (s *Server) lift(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.operator(w, r, chain, audit.RevokeLift) {
		return
	}
	err := s.cfg.Revoker.Lift(r.Context(), actor(chain), authz.RevocationKind(r.PathValue("kind")), r.PathValue("value"))
	if err != nil {
		s.notEnded(w, r, chain, audit.RevokeLift, "it is not revoked", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"lifted": true})
}

// notEnded answers why nothing was revoked or lifted; action says which it was
// to be, and unknown that there is nothing of that name.
func (s *Server) notEnded(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action, unknown string, err error) {
	switch {
	case errors.Is(err, authz.ErrNotFound): // recorded by the registry
		fail(w, http.StatusNotFound, "not_found", unknown)
	case errors.Is(err, authz.ErrInvalid):
		s.reject(w, r, chain, action, revocationsResource, &problem{
			http.StatusBadRequest, strings.TrimPrefix(err.Error(), authz.ErrInvalid.Error()+": "),
		})
	default:
		s.broken(w, "changing what is revoked", err)
	}
}

// operator lets only operators through; others are refused, and the record says
// what they wanted.
func (s *Server) operator(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action string) bool {
	if !s.authorize(w, r, chain, action, revocationsResource, scopeAgents) {
		return false
	}
	person, ok := s.person(w, r, chain, action, revocationsResource)
	if !ok {
		return false
	}
	if operates(person) {
		return true
	}
	e := entry(chain, action, audit.Denied, revocationsResource)
	e.Reason = "access_denied"
	if s.record(w, r, e) {
		fail(w, http.StatusForbidden, "access_denied", "this is for operators")
	}
	return false
}
