package mcp

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/jcs"
)

// Error makes an rpcError an error on its way to the one place that answers.
func (e *rpcError) Error() string { return e.message }

// answer writes what the endpoint answered to a request, either as one JSON
// message or as a stream of them.
func (f *forwarder) answer(m *message, resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == "text/event-stream" && resp.StatusCode == http.StatusOK {
		return f.stream(m, resp.Body)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return brokenOff(err)
	}
	if len(body) <= maxAnswer && media == "application/json" {
		if answered, ok := f.pass(m, body); ok && answered {
			return nil
		} else if ok {
			return brokenOff(nil)
		}
	}
	return httpFailure(resp, body)
}

// stream passes the events of a stream on until the answer is among them.
func (f *forwarder) stream(m *message, body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if field, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			// The lines of one event are joined by newlines, which JSON ignores.
			data = append(append(data, bytes.TrimPrefix(field, []byte(" "))...), '\n')
			if len(data) > maxAnswer {
				return brokenOff(bufio.ErrTooLong)
			}
			continue
		}
		if len(line) > 0 || len(data) == 0 {
			continue // another field, or an event without data
		}
		answered, ok := f.pass(m, data)
		if !ok {
			return brokenOff(nil)
		}
		if answered {
			return nil
		}
		data = data[:0]
	}
	// "If the stream ends in the middle of an event, it is discarded."
	return brokenOff(cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
}

// pass writes one message of the endpoint to the client if it is one, and says
// whether it is the answer that the request waits for. An answer to a message
// whose id could not be read belongs to the request that was sent.
func (f *forwarder) pass(m *message, text []byte) (answered, ok bool) {
	v, err := jcs.Parse(text, jcs.Limits{Bytes: maxAnswer})
	if err != nil || v.Get("jsonrpc").Str() != mcpgo.JSONRPC_VERSION {
		return false, false
	}
	result, failure := v.Get("result"), v.Get("error")
	switch id := v.Get("id"); {
	case !result.Exists() && !failure.Exists():
		if id.Exists() || v.Get("method").Kind() != jcs.String {
			return false, false // "this server sends no requests"
		}
	case id.Kind() == jcs.Null && failure.Exists():
		if text, err = jcs.Marshal(map[string]any{"jsonrpc": mcpgo.JSONRPC_VERSION, "id": m.id, "error": failure}); err != nil {
			return false, false
		}
		answered = true
	case !jcs.Equal(id, m.id):
		return false, false
	default:
		answered = true
	}
	if m.method == string(mcpgo.MethodInitialize) && answered {
		// Known before the client is told, so that its next message can say it.
		if version := result.Get("protocolVersion").Str(); version != "" {
			f.version.Store(version)
		}
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return false, false
	}
	f.write(line.Bytes())
	return answered, true
}

// brokenOff is an answer that ended too early or is none.
func brokenOff(cause error) *rpcError {
	text := "the server's answer broke off"
	if cause == nil {
		text = "the server's answer is not a JSON-RPC message for this request"
	}
	return &rpcError{code: mcpgo.INTERNAL_ERROR, message: text + ": nothing is known about whether it was done"}
}

// httpFailure is an HTTP error in JSON-RPC's form, in words a model can act on.
// Its data says what the endpoint said: status, error, and for a missing scope
// the scopes that the challenge names.
func httpFailure(resp *http.Response, body []byte) *rpcError {
	v, err := jcs.Parse(body, jcs.Limits{Bytes: maxAnswer})
	if err != nil {
		v = jcs.Value{}
	}
	code, description := v.Get("error").Str(), v.Get("error_description").Str()
	data := map[string]any{"status": resp.StatusCode}
	if code != "" {
		data["error"] = code
	}
	if scope := challengedScope(resp.Header.Values("WWW-Authenticate")); scope != "" && code == "insufficient_scope" {
		data["scope"] = scope
	}
	failure := &rpcError{code: mcpgo.INVALID_REQUEST, data: data}
	switch {
	case code == "insufficient_scope":
		failure.message = "refused: " + description + ". The person who answers for this agent can grant it the scope (`kavach agent grant`) if its manifest names it; then start `kavach mcp` again"
	case resp.StatusCode == http.StatusUnauthorized:
		failure.message = "refused: the server does not accept this agent's token (" + described(code, description) + "). Try again once; if that fails too, the agent may be suspended or its grant removed: ask the person who answers for it"
	case resp.StatusCode == http.StatusForbidden:
		failure.message = "refused: " + described(code, description)
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests:
		failure.code = mcpgo.INTERNAL_ERROR
		failure.message = "the server cannot do this now: " + described(code, description)
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds >= 0 {
			data["retry_after"] = seconds
			failure.message += "; try again in " + strconv.Itoa(seconds) + " s"
		}
	default:
		failure.code = mcpgo.INTERNAL_ERROR
		failure.message = "the server answers with status " + strconv.Itoa(resp.StatusCode) + ": " + described(code, description)
	}
	return failure
}

func described(code, description string) string {
	switch {
	case description != "":
		return description
	case code != "":
		return code
	}
	return "it says no more"
}

// challengedScope finds scope="…" in the Bearer challenge.
func challengedScope(challenges []string) string {
	for _, challenge := range challenges {
		if _, rest, ok := strings.Cut(challenge, `scope="`); ok {
			scope, _, _ := strings.Cut(rest, `"`)
			return scope
		}
	}
	return ""
}
