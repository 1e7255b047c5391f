package mcp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/jcs"
)

const (
	// maxUnderWay bounds the requests that one client has under way.
	maxUnderWay = 64
	// maxAnswer bounds one message of the server.
	maxAnswer = 8 << 20
	// drainTime is how long requests under way may still be answered after the
	// end of input.
	drainTime = 5 * time.Second
)

// StdioConfig is what Stdio forwards to.
type StdioConfig struct {
	// URL is the endpoint, ISSUER/mcp.
	URL string
	// Client sends the requests. What makes them acceptable there (token and
	// proof) is its transport's affair.
	Client *http.Client
	// Explain says what an error of Client means, in a sentence that a model or
	// a person can act on. Nil, and "": that the server cannot be reached.
	Explain func(error) string
	// Log takes what operators should see. Nil: discarded.
	Log *slog.Logger
}

// Stdio is the other transport: it reads JSON-RPC messages from in, one a line,
// sends each to the endpoint and writes the answers to out, one a line, in the
// order in which they come. It keeps no session and decides nothing: a client of
// either era gets what the endpoint says, and a failure on the way as a JSON-RPC
// error of the request that it befell.
//
// It returns nil at the end of input, after what was under way is answered or
// five seconds have passed, and an error if ctx ends, in cannot be read or out
// cannot be written. It owns one goroutine that reads in, and one for each
// request under way; the first one ends with in.
func Stdio(ctx context.Context, in io.Reader, out io.Writer, cfg StdioConfig) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	f := &forwarder{StdioConfig: cfg, stop: stop, out: out, underWay: map[string]context.CancelFunc{}}
	ended := make(chan error, 1)
	go func() { ended <- f.read(ctx, in) }()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		if err != nil {
			return err
		}
	}
	idle := make(chan struct{})
	go func() { f.requests.Wait(); close(idle) }()
	drain := time.NewTimer(drainTime)
	defer drain.Stop()
	select {
	case <-idle:
	case <-drain.C:
		cfg.Log.Warn("the input has ended: leaving requests without an answer")
		return nil
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// forwarder is one run of Stdio.
type forwarder struct {
	StdioConfig
	stop context.CancelCauseFunc
	// version is what initialize agreed on; clients of 2026-07-28 say theirs in
	// every message.
	version  atomic.Value
	requests sync.WaitGroup

	writing sync.Mutex // guards out, line by line
	out     io.Writer

	mu       sync.Mutex
	underWay map[string]context.CancelFunc // by canonical id
}

// read takes the input apart into lines and starts what they ask for.
func (f *forwarder) read(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	for ctx.Err() == nil {
		line, err := readLine(lines)
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			f.fail(jcs.Value{}, invalidRequest("a message is larger than 1 MiB"))
		case len(bytes.TrimSpace(line)) > 0:
			f.take(ctx, line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("mcp: reading a message: %w", err)
		}
	}
	return nil
}

// readLine reads one line. A longer one than a message may be is skipped.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxBody; !long {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if long && (err == nil || errors.Is(err, io.EOF)) { // the end comes again
			return nil, bufio.ErrTooLong
		}
		return line, err
	}
}

// take starts one message.
func (f *forwarder) take(ctx context.Context, line []byte) {
	m, failure := parseMessage(line)
	switch {
	case failure != nil:
		f.fail(m.id, failure)
	case m.notification && m.method == string(mcpgo.MethodNotificationCancelled):
		// "Closing the stream cancels", and the endpoint takes no other word for it.
		f.cancel(m.params.Get("requestId"))
	case m.notification:
		f.requests.Go(func() { f.notify(ctx, m, line) })
	default:
		one, done, failure := f.begin(ctx, m.id)
		if failure != nil {
			f.fail(m.id, failure)
			return
		}
		f.requests.Go(func() {
			defer done()
			f.request(one, m, line)
		})
	}
}

// begin enters a request that is under way.
func (f *forwarder) begin(ctx context.Context, id jcs.Value) (context.Context, func(), *rpcError) {
	key := string(jcs.Canonical(id))
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, taken := f.underWay[key]; taken {
		return nil, nil, invalidRequest("a request with this id is under way")
	}
	if len(f.underWay) >= maxUnderWay {
		return nil, nil, &rpcError{code: mcpgo.INTERNAL_ERROR, message: fmt.Sprintf("%d requests are under way: wait for one to be answered", maxUnderWay)}
	}
	one, cancel := context.WithCancel(ctx)
	f.underWay[key] = cancel
	return one, func() {
		f.mu.Lock()
		delete(f.underWay, key)
		f.mu.Unlock()
		cancel()
	}, nil
}

// cancel ends a request; it gets no answer then, as the protocol has it.
func (f *forwarder) cancel(id jcs.Value) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel, ok := f.underWay[string(jcs.Canonical(id))]; ok {
		cancel()
	}
}

// post sends one message as a client over HTTP would.
func (f *forwarder) post(ctx context.Context, m *message, line []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL, bytes.NewReader(bytes.TrimSpace(line)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	version := m.meta.Get(mcpgo.MetaKeyProtocolVersion).Str()
	if agreed, ok := f.version.Load().(string); ok && version == "" && m.method != string(mcpgo.MethodInitialize) {
		version = agreed
	}
	if version != "" {
		r.Header.Set(mcpgo.HeaderProtocolVersion, version)
	}
	if mcpgo.IsModernProtocol(version) {
		r.Header.Set(mcpgo.HeaderMethod, m.method)
		if name, ok := mcpgo.EncodeHeaderValue(m.name); ok && m.name != "" {
			r.Header.Set(mcpgo.HeaderName, name)
		}
	}
	return f.Client.Do(r)
}

// notify sends a notification. Nobody waits for an answer, so a failure is
// only logged.
func (f *forwarder) notify(ctx context.Context, m *message, line []byte) {
	resp, err := f.post(ctx, m, line)
	if err != nil {
		f.Log.Warn("a notification was not delivered", "method", m.method, "err", f.explain(err))
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		f.Log.Warn("a notification was refused", "method", m.method, "status", resp.StatusCode)
	}
}

// request sends a request and writes its answer, whatever becomes of it.
func (f *forwarder) request(ctx context.Context, m *message, line []byte) {
	resp, err := f.post(ctx, m, line)
	if err == nil {
		defer resp.Body.Close()
		err = f.answer(m, resp)
	}
	var failure *rpcError
	switch {
	case err == nil || ctx.Err() != nil:
		// Answered; or cancelled, and then nobody waits for an answer.
	case errors.As(err, &failure):
		f.Log.Warn("a request was not answered", "method", m.method, "err", failure.message)
		f.fail(m.id, failure)
	default:
		text := f.explain(err)
		f.Log.Warn("a request was not answered", "method", m.method, "err", text)
		f.fail(m.id, &rpcError{code: mcpgo.INTERNAL_ERROR, message: text})
	}
}

func (f *forwarder) explain(err error) string {
	if f.Explain != nil {
		if text := f.Explain(err); text != "" {
			return text
		}
	}
	return "kavach cannot be reached at " + f.URL + ": is it running?"
}

// fail answers a request with an error.
func (f *forwarder) fail(id jcs.Value, failure *rpcError) { f.write(failure.body(id)) }

// write puts one message on a line. If nobody can read it any more, all ends.
func (f *forwarder) write(text []byte) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if _, err := f.out.Write(append(text, '\n')); err != nil {
		f.stop(fmt.Errorf("mcp: writing a message: %w", err))
	}
}
