package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxAnswer bounds what is read of any answer.
const maxAnswer = 1 << 20

// assistant is an agent's connection to the MCP server: what a model sees of
// kavach. Every exchange goes into the transcript.
type assistant struct {
	http       *http.Client
	url        string
	transcript io.Writer
	calls      int
}

// errTool is a call that the server refused inside the protocol.
var errTool = errors.New("the tool refused")

// call calls a tool and reads its structured content into result.
func (a *assistant) call(ctx context.Context, tool string, arguments, result any) (int, error) {
	a.calls++
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": a.calls, "method": "tools/call",
		"params": map[string]any{"name": tool, "arguments": arguments},
	})
	if err != nil {
		return 0, err
	}
	a.record(body)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("MCP-Protocol-Version", "2025-11-25")
	resp, err := a.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		answer = lastEvent(answer)
	}
	a.record(answer)
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("tools/call %s answers %d", tool, resp.StatusCode)
	}
	var reply struct {
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
		Result struct {
			IsError           bool            `json:"isError"`
			StructuredContent json.RawMessage `json:"structuredContent"`
			Content           []struct {
				Text string `json:"text"`
			} `json:"content"`
		} `json:"result"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return resp.StatusCode, fmt.Errorf("reading the answer of %s: %w", tool, err)
	}
	switch {
	case reply.Error != nil:
		return resp.StatusCode, fmt.Errorf("%w: %s", errTool, reply.Error.Message)
	case reply.Result.IsError && len(reply.Result.Content) > 0:
		return resp.StatusCode, fmt.Errorf("%w: %s", errTool, reply.Result.Content[0].Text)
	case reply.Result.IsError:
		return resp.StatusCode, errTool
	}
	return resp.StatusCode, json.Unmarshal(reply.Result.StructuredContent, result)
}

// record writes one message, one a line.
func (a *assistant) record(message []byte) {
	if a.transcript != nil {
		fmt.Fprintf(a.transcript, "%s\n", bytes.TrimSpace(message))
	}
}

// lastEvent returns the data of the last event of a stream.
func lastEvent(stream []byte) []byte {
	var data []byte
	for line := range bytes.Lines(stream) {
		if rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data:")); ok {
			data = bytes.TrimSpace(rest)
		}
	}
	return data
}
