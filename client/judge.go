package client

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// verdict is a request that may leave, to these addresses.
type verdict struct {
	t         *Transport
	cred      Credential
	grant     delegation.UnverifiedGrant
	to        target
	own       bool
	addresses []netip.AddrPort

	attempt Attempt
	once    *sync.Once // reports a refusal once, however many notice it
}

// What of a URL goes into a report.
const (
	maxReportedURL  = 512
	maxReportedHost = 128
)

// attemptOf describes a request before it is judged. The query stays out: it
// may hold what the agent's user calls a secret.
func attemptOf(r *http.Request, now time.Time) Attempt {
	a := Attempt{Time: now, Method: r.Method, Size: r.ContentLength, Destination: reportedHost(r.URL.Host)}
	if a.Method == "" {
		a.Method = http.MethodGet
	}
	if r.ContentLength == 0 && !noBody(r) {
		a.Size = -1
	}
	a.URL = (&url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path}).String()
	if len(a.URL) > maxReportedURL {
		a.URL = a.URL[:maxReportedURL]
	}
	return a
}

// reportedHost makes a host that was not judged yet fit for a record: what no
// host has is "_". It has its canonical spelling once that is known.
func reportedHost(host string) string {
	host = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', strings.ContainsRune(".-:[]", r):
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, host)
	if host == "" {
		return "_"
	}
	return host[:min(len(host), maxReportedHost)]
}

// judge decides whether a connection may be opened, and to which addresses. It
// opens none.
func (t *Transport) judge(ctx context.Context, a Attempt, u *url.URL, tunnel bool) (*verdict, error) {
	if t.Source == nil {
		return nil, failed("the transport has no source of credentials")
	}
	cred, err := t.Source.Credential(ctx)
	if err != nil {
		return nil, failed("finding the credential: %w", err)
	}
	return t.judgeWith(ctx, cred, a, u, tunnel)
}

// judgeWith is judge with the credential found.
func (t *Transport) judgeWith(ctx context.Context, cred Credential, a Attempt, u *url.URL, tunnel bool) (_ *verdict, err error) {
	v := &verdict{t: t, cred: cred, attempt: a, once: &sync.Once{}}
	if v.grant, err = delegation.UnverifiedHeld(string(cred.Token)); err != nil {
		return nil, v.refuse(ctx, err)
	}
	v.attempt.Links = v.grant.Links()
	to, refusal := targetOf(u)
	if refusal != nil {
		return nil, v.refuse(ctx, refusal)
	}
	v.to, v.own = to, ownOrigin(v.grant.Audience(), to, tunnel)
	v.attempt.Destination, v.attempt.Own = to.destination(), v.own
	if !a.Time.Before(v.ends()) {
		return nil, v.refuse(ctx, &delegation.Refusal{
			Reason: delegation.Expired, Dimension: delegation.DimensionTTL, Part: -1, Detail: "the credential is over",
		})
	}
	if v.own && len(cred.Token) > delegation.MaxChainHeader && (tunnel || !t.presents(cred, a.Method)) {
		return nil, v.refuse(ctx, &delegation.Refusal{
			Reason: delegation.TooLarge, Part: -1, Detail: "the chain does not fit into a header",
		})
	}
	if !v.own {
		if err := v.grant.AllowsNetwork(to.destination()); err != nil {
			return nil, v.refuse(ctx, err)
		}
	}
	v.addresses, err = t.addresses(ctx, to, v.own, v.grant)
	if err != nil {
		return nil, v.refuse(ctx, err)
	}
	v.attempt.Address = v.addresses[0].String()
	return v, nil
}

// ends is when the credential is over.
func (v *verdict) ends() time.Time {
	if end := v.grant.Expires(); v.cred.Expires.IsZero() || end.Before(v.cred.Expires) {
		return end
	}
	return v.cred.Expires
}

// checkRequest judges what a request says beside its URL.
func (v *verdict) checkRequest(r *http.Request) error {
	host := strings.ToLower(r.Host)
	if host != "" && host != v.to.urlHost() && host != v.to.destination() {
		return v.refuse(r.Context(), violated("the Host header names another host than the URL"))
	}
	if r.ContentLength > 0 {
		if err := v.grant.AllowsSize(r.ContentLength); err != nil {
			return v.refuse(r.Context(), err)
		}
	}
	return nil
}

// permit is the rest of judging a request: what it says beside its URL, and its
// record.
func (v *verdict) permit(r *http.Request) error {
	if err := v.checkRequest(r); err != nil {
		return err
	}
	return v.announce(r.Context())
}

// announce records a request that is about to leave.
func (v *verdict) announce(ctx context.Context) error {
	required := v.grant.Restricts(delegation.DimensionAudit) && !v.own
	if v.t.Report == nil {
		if required {
			return v.refuse(ctx, unrecorded("no log is configured"))
		}
		return nil
	}
	if !required && !v.t.ReportAllowed {
		return nil
	}
	if err := v.t.Report(ctx, v.attempt); err != nil {
		return v.refuse(ctx, unrecorded("it could not be recorded"))
	}
	return nil
}

func unrecorded(detail string) *delegation.Refusal {
	return &delegation.Refusal{
		Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionAudit, Part: -1, Detail: detail,
	}
}

// refuse reports a refusal and makes the error of it. An error that is no
// refusal comes back as it is.
func (v *verdict) refuse(ctx context.Context, err error) error {
	refusal := asRefusal(err)
	if refusal == nil {
		return err
	}
	attempt := v.attempt
	attempt.Refusal = refusal
	if v.t.Report != nil {
		// A caller that has gone away does not keep a refusal out of the log.
		v.once.Do(func() { _ = v.t.Report(context.WithoutCancel(ctx), attempt) })
	}
	return &Refused{attempt}
}

func asRefusal(err error) *delegation.Refusal {
	var refusal *delegation.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return nil
}
