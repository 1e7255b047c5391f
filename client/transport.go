package client

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// Transport is an http.RoundTripper that adds token and proof where they
// belong and refuses what any link of the token does not allow. The package
// documentation says what a request meets. Fields are not changed after the
// first request; its methods are safe for several goroutines.
type Transport struct {
	// Source yields the credential, asked at each request. If it is a Renewer, it
	// is asked once more when an audience does not take the token. Required.
	Source Source
	// MCP says that the audiences are MCP servers that take a chain in the _meta
	// of a message, as kavach and those behind its guard do: one that no header
	// takes goes there, with an AAT proof of the message.
	MCP bool
	// ProveCalls sends every chain that way, because the server wants a proof of
	// the call itself. It counts with MCP alone; without it see WithCall.
	ProveCalls bool
	// Resolve is the runtime's own word on where a name is: "host" or
	// "host:port" to an address, or to address and port. It replaces resolution,
	// and the addresses it names are not refused.
	Resolve map[string]string
	// AllowAddresses are address ranges that this runtime may connect to
	// whatever kind they are of: loopback, link-local, private behind a
	// wildcard.
	AllowAddresses []netip.Prefix
	// RootCAs verify servers; nil is the system's.
	RootCAs *x509.CertPool
	// Report is told of every refusal, once. Where the token demands it
	// (audit_required), it is also told of every request to somebody else than
	// an audience before a byte leaves, and an error of it refuses the request:
	// "the record is durable before the action runs". What an audience is asked
	// to do, the audience records. After a refusal its error changes nothing.
	Report func(context.Context, Attempt) error
	// ReportAllowed reports allowed requests, too, without the token's demand.
	// An error of Report then refuses as well.
	ReportAllowed bool
	// Lookup resolves a host; nil asks the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to a checked address; nil is a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	nonces nonces
	pool   pool
}

func (t *Transport) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

// CloseIdleConnections closes connections that nobody uses.
func (t *Transport) CloseIdleConnections() { t.pool.closeIdle() }

// RoundTrip sends one request, or refuses it with a *Refused. It never sends
// more of a body, or returns more of one, than every link allows: a length that
// is known is refused at once, and reading on beyond it fails with a *Refused
// otherwise. Where a server wants a nonce in the proof, and the body can be had
// again (GetBody), the request is sent a second time. Where an audience does not
// take the token, likewise, with the token that a Renewer has instead.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	v, err := t.judge(r.Context(), attemptOf(r, t.now()), r.URL, false)
	if err == nil {
		err = v.permit(r)
	}
	if err != nil {
		closeBody(r)
		return nil, err
	}
	answer, err := v.deliver(r, r.Body)
	if err != nil || !v.untaken(r, answer) {
		return answer, err
	}
	return v.renew(r, answer)
}

// deliver sends the request, twice if that is worth it.
func (v *verdict) deliver(r *http.Request, body io.ReadCloser) (*http.Response, error) {
	answer, again, err := v.send(r, body)
	if err != nil || !again {
		return answer, err
	}
	if body, err = bodyAgain(r); err != nil {
		return answer, nil // the server's refusal is the answer then
	}
	_ = answer.Body.Close()
	answer, _, err = v.send(r, body)
	return answer, err
}

// send sends the request once. again says that it is worth sending it once
// more, with a new proof: the server wanted a nonce, which is known now, or
// net/http sent this one twice.
func (v *verdict) send(r *http.Request, body io.ReadCloser) (answer *http.Response, again bool, err error) {
	var connections atomic.Int32
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host = v.to.scheme, v.to.urlHost(), ""
	out.Header = oneSpelling(out.Header)
	key := ""
	if v.own {
		if !v.cred.Key.IsZero() {
			key = nonceKey(out.URL.String(), v.cred.Key.Public())
		}
		if body, err = v.authorize(out, body, v.t.nonces.get(key)); err != nil {
			closeBody(r)
			return nil, false, err
		}
	} else {
		v.stripForeign(out.Header)
	}
	counted := v.meterRequest(out, body)
	answer, err = v.t.pool.transport(v.t, v.to, v.addresses).RoundTrip(out)
	if refused := counted.refused(); refused != nil {
		if answer != nil {
			_ = answer.Body.Close()
		}
		return nil, false, refused
	}
	if err != nil {
		return nil, false, err
	}
	// The request that was sent has the token in its header; the caller's has
	// not.
	answer.Request = r
	if key != "" {
		v.t.nonces.keep(key, answer.Header)
	}
	if err := v.meterResponse(answer); err != nil {
		return nil, false, err
	}
	again = key != "" && answer.StatusCode == http.StatusUnauthorized && repeatable(r) &&
		(challenged(answer.Header, "use_dpop_nonce") && answer.Header.Get(nonceHeader) != "" ||
			challenged(answer.Header, "invalid_dpop_proof") && connections.Load() > 1)
	return answer, again, nil
}

// challenged looks for an error in the challenges of a 401.
func challenged(header http.Header, code string) bool {
	for _, challenge := range header.Values("WWW-Authenticate") {
		if strings.Contains(challenge, `error="`+code+`"`) {
			return true
		}
	}
	return false
}

// oneSpelling puts the names of a header into their canonical spelling. net/http
// sends a name that was put into the map by hand as it stands there, and keeps
// neither a second Host nor a second Content-Length back that way.
func oneSpelling(header http.Header) http.Header {
	out := make(http.Header, len(header)+2)
	for name, values := range header {
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], values...)
	}
	return out
}

// stripForeign takes out what must not reach anybody but an audience. An
// Authorization of the caller's own, for a service that kavach knows nothing
// of, stays.
func (v *verdict) stripForeign(header http.Header) {
	header.Del(proofHeader)
	header.Del(delegation.AATProofHeader)
	for name, values := range header {
		for _, value := range values {
			if strings.Contains(value, string(v.cred.Token)) ||
				name == "Authorization" && len(value) > 4 && strings.EqualFold(value[:5], delegation.DPoP+" ") {
				header.Del(name)
				break
			}
		}
	}
}

func noBody(r *http.Request) bool { return r.Body == nil || r.Body == http.NoBody }

// repeatable says whether the body, if there is one, can be had again.
func repeatable(r *http.Request) bool { return r.GetBody != nil || noBody(r) }

// bodyAgain returns the body of a repeatable request once more.
func bodyAgain(r *http.Request) (io.ReadCloser, error) {
	if r.GetBody == nil {
		return r.Body, nil
	}
	return r.GetBody()
}

// closeBody keeps the promise of http.RoundTripper: "RoundTrip must always
// close the body, including on errors".
func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}
