package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// Egress is a forward proxy that puts the checks of a Transport around a
// program in any language: HTTP_PROXY and HTTPS_PROXY name it.
//
// A request in absolute form is judged as the Transport judges it; one to an
// audience of the token gets token and proof. Of a CONNECT it sees the host,
// the addresses and the number of bytes, and nothing of what is inside: it adds
// no token, tells no method and counts the bytes of a whole tunnel, each way,
// against max_file_size. A tunnel ends with the credential.
//
// What is refused is answered with 403 and {"error":"access_denied","reason",
// "dimension","error_description","destination"}; what fails, with 502. The
// Transport's Report hears of refusals.
//
// Whoever reaches the listener acts with the agent's authority: it belongs on
// loopback, on a machine whose users trust each other.
type Egress struct {
	// Transport judges and sends. Required.
	Transport *Transport
	// Idle ends a tunnel in which nothing moves; 0 is two minutes.
	Idle time.Duration
	// Log hears of failures that are no refusals; nil discards.
	Log *slog.Logger

	tunnels tunnels
}

const (
	headerTimeout = 10 * time.Second
	drainTimeout  = 5 * time.Second
	// maxKept is the largest body that is kept in memory, so that it can be
	// sent again when a server wants a nonce.
	maxKept = 64 << 10
)

// ListenLoopback listens on a loopback address and refuses any other.
func ListenLoopback(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, failed("listening on %q: %w", address, err)
	}
	if !isLoopbackName(host) {
		return nil, failed("listening on %q: not a loopback address", address)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, failed("listening on %q: %w", address, err)
	}
	// localhost is a name: what was bound is what counts.
	if bound, ok := l.Addr().(*net.TCPAddr); !ok || !bound.IP.IsLoopback() {
		_ = l.Close()
		return nil, failed("listening on %q: not a loopback address", address)
	}
	return l, nil
}

// Serve answers on l until ctx ends; then it closes l and every tunnel and
// waits for requests under way, at most five seconds.
func (e *Egress) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(e.log().Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return failed("serving: %w", err)
	case <-ctx.Done():
	}
	e.tunnels.close()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	<-done
	e.tunnels.wait()
	return nil
}

func (e *Egress) log() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

// ServeHTTP proxies one request or opens one tunnel.
func (e *Egress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		e.connect(w, r)
	case r.URL.IsAbs():
		e.forward(w, r)
	default:
		// A browser that was lured here sends its own origin form.
		answer(w, http.StatusBadRequest, map[string]any{
			"error": "invalid_request", "error_description": "this is a forward proxy: send the whole URL, or CONNECT",
		})
	}
}

// forward sends a request in absolute form.
func (e *Egress) forward(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI, out.Close = "", false
	removeHopByHop(out.Header)
	if err := keepSmallBody(out); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": "the body could not be read"})
		return
	}
	// net/http would add its own where the client sent none.
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""}
	}
	response, err := e.Transport.RoundTrip(out)
	if err != nil {
		e.fail(w, r, err)
		return
	}
	defer response.Body.Close()
	removeHopByHop(response.Header)
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	if err := copyBody(w, response.Body); err != nil {
		e.log().InfoContext(r.Context(), "egress: an answer was cut", "destination", r.URL.Host, "error", err)
		// The status has left; only a broken connection tells that the rest
		// is missing.
		panic(http.ErrAbortHandler)
	}
}

// keepSmallBody makes a small body of known length repeatable.
func keepSmallBody(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > maxKept {
		if r.ContentLength == 0 {
			r.Body = http.NoBody
		}
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	return nil
}

// copyBody passes an answer on as it comes, so that a stream of events is one.
func copyBody(w http.ResponseWriter, body io.Reader) error {
	flush := http.NewResponseController(w)
	buffer := make([]byte, 32<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, werr := w.Write(buffer[:n]); werr != nil {
				return werr
			}
			if ferr := flush.Flush(); ferr != nil && !errors.Is(ferr, http.ErrNotSupported) {
				return ferr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hopByHop are the fields of RFC 9110 section 7.6.1 and of older proxies.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopByHop removes them, and what Connection names.
func removeHopByHop(header http.Header) {
	for _, list := range header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			header.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		header.Del(name)
	}
}

// fail maps an error of the Transport to an answer, in this one place.
func (e *Egress) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refused *Refused
	if !errors.As(err, &refused) {
		e.log().WarnContext(r.Context(), "egress: a request failed", "destination", r.URL.Host, "error", err)
		answer(w, http.StatusBadGateway, map[string]any{
			"error": "bad_gateway", "error_description": "the destination could not be reached",
		})
		return
	}
	body := map[string]any{
		"error": "access_denied", "error_description": clean(refused.Refusal.Detail),
		"reason": string(refused.Refusal.Reason), "destination": refused.Destination,
	}
	if refused.Refusal.Dimension != "" {
		body["dimension"] = refused.Refusal.Dimension
	}
	answer(w, http.StatusForbidden, body)
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	text, err := jcs.Marshal(body)
	if err != nil {
		text = []byte(`{"error":"server_error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
