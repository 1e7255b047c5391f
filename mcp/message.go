package mcp

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// maxBody bounds a request ("Bodies 64 KiB (MCP 1 MiB)").
const maxBody = 1 << 20

// maxValues bounds what a message is taken apart into: two bytes a value would
// make fifty megabytes of one of 1 MiB.
const maxValues = 1 << 16

// maxRequestID bounds the one member that every answer repeats.
const maxRequestID = 256

// message is one JSON-RPC request or notification, read strictly. It is what
// this package decides on and what it hands to mcp-go (body), so that the two
// cannot read the same bytes differently: mcp-go's encoding/json folds the case
// of names and lets the last duplicate win.
type message struct {
	id           jcs.Value // a string or an integer; absent for a notification
	method       string
	params       jcs.Value
	meta         jcs.Value
	modern       bool // 2026-07-28 or later: no handshake, no sessions
	notification bool
	name         string // of the tool or prompt, or the URI of the resource
	arguments    jcs.Value
}

// The members of params that mcp-go reads, in any case.
var paramNames = []string{
	"_meta", "name", "arguments", "uri", "cursor", "ref", "argument", "context", "task", "level",
	"protocolVersion", "capabilities", "clientInfo", "notifications", "requestId", "inputResponses", "requestState",
}

// rpcError is a refusal in JSON-RPC's own form. status is the HTTP status.
type rpcError struct {
	status  int
	code    int
	message string
	data    any
}

func invalidRequest(text string) *rpcError {
	return &rpcError{http.StatusBadRequest, mcpgo.INVALID_REQUEST, text, nil}
}

func invalidParams(text string) *rpcError {
	return &rpcError{http.StatusBadRequest, mcpgo.INVALID_PARAMS, text, nil}
}

func headerMismatch(text string) *rpcError {
	return &rpcError{http.StatusBadRequest, mcpgo.HEADER_MISMATCH, text, nil}
}

// parseMessage reads one message. On an error the returned message carries the
// id as far as it is known, so that the refusal can be matched to the request.
func parseMessage(body []byte) (*message, *rpcError) {
	m := &message{}
	v, err := jcs.Parse(body, jcs.Limits{Bytes: maxBody, Values: maxValues})
	if err != nil {
		return m, &rpcError{http.StatusBadRequest, mcpgo.PARSE_ERROR, "the body is not strict JSON (RFC 8259, no duplicate members, at most 65536 values)", nil}
	}
	switch v.Kind() {
	case jcs.Object:
	case jcs.Array:
		return m, invalidRequest("batches are not supported: send one message per request")
	default:
		return m, invalidRequest("the body must be one JSON-RPC object")
	}
	if id := v.Get("id"); id.Exists() {
		_, integer := id.Int()
		if !integer && (id.Kind() != jcs.String || len(id.Str()) > maxRequestID) {
			return m, invalidRequest("id must be a string of at most 256 bytes or an integer")
		}
		m.id = id
	} else {
		m.notification = true
	}
	for name := range v.Fields() {
		if err := exactName(name, []string{"jsonrpc", "id", "method", "params", "result", "error"}); err != nil {
			return m, err
		}
	}
	if v.Get("jsonrpc").Str() != mcpgo.JSONRPC_VERSION {
		return m, invalidRequest(`jsonrpc must be "2.0"`)
	}
	method := v.Get("method")
	if !method.Exists() && (v.Get("result").Exists() || v.Get("error").Exists()) {
		return m, invalidRequest("this server sends no requests, so it takes no responses")
	}
	if method.Kind() != jcs.String || method.Str() == "" || len(method.Str()) > 128 {
		return m, invalidRequest("method must be a non-empty string")
	}
	if v.Get("result").Exists() || v.Get("error").Exists() {
		return m, invalidRequest("a request has neither result nor error")
	}
	m.method = method.Str()
	return m, m.readParams(v.Get("params"))
}

func (m *message) readParams(params jcs.Value) *rpcError {
	m.params = params
	if !params.Exists() {
		return nil
	}
	if params.Kind() != jcs.Object {
		return invalidParams("params must be an object")
	}
	for name := range params.Fields() {
		if err := exactName(name, paramNames); err != nil {
			return err
		}
	}
	if m.meta = params.Get("_meta"); m.meta.Exists() && m.meta.Kind() != jcs.Object {
		return invalidParams("_meta must be an object")
	}
	for name := range m.meta.Fields() {
		if err := exactName(name, []string{"progressToken"}); err != nil {
			return err
		}
	}
	member := ""
	switch mcpgo.MCPMethod(m.method) {
	case mcpgo.MethodToolsCall, mcpgo.MethodPromptsGet:
		member = "name"
	case mcpgo.MethodResourcesRead:
		member = "uri"
	default:
		// No list here has a second page, so nobody got a cursor from us.
		if cursor := params.Get("cursor"); cursor.Exists() && (cursor.Kind() != jcs.String || cursor.Str() != "") {
			return invalidParams("there is no such cursor: every list has one page")
		}
		return nil
	}
	name := params.Get(member)
	if name.Kind() != jcs.String || name.Str() == "" || len(name.Str()) > 512 {
		return invalidParams(member + " must be a non-empty string")
	}
	m.name = name.Str()
	m.arguments = params.Get("arguments")
	if m.arguments.Exists() && m.arguments.Kind() != jcs.Object {
		return invalidParams("arguments must be an object")
	}
	return nil
}

// bare is the message without a chain and its proof: guard has verified them, and
// what comes after it, the library too, has no business with them.
func (m *message) bare(text []byte) (*message, *rpcError) {
	if !m.meta.Get(delegation.MetaKey).Exists() {
		return m, nil
	}
	whole, err := delegation.ParseMessage(text)
	if err == nil {
		text, err = whole.Bare()
	}
	if err != nil {
		return m, invalidParams("the message has no canonical form: write its numbers as they are")
	}
	return parseMessage(text)
}

// exactName refuses a member that a case-folding reader would take for a known
// one.
func exactName(name string, known []string) *rpcError {
	for _, k := range known {
		if name != k && strings.EqualFold(name, k) {
			return invalidRequest("member names are case-sensitive: write " + k)
		}
	}
	return nil
}

// agree checks what the HTTP headers say against the body: "Mcp-Method/Mcp-Name
// headers exist only in 2026-07-28 and must agree with the body, else 400 and
// JSON-RPC −32020". The version decides which era the message belongs to.
func (m *message) agree(header http.Header) *rpcError {
	for _, name := range []string{mcpgo.HeaderProtocolVersion, mcpgo.HeaderMethod, mcpgo.HeaderName} {
		if len(header.Values(name)) > 1 {
			return headerMismatch(name + " is sent more than once")
		}
	}
	stated := header.Get(mcpgo.HeaderProtocolVersion)
	declared := m.meta.Get(mcpgo.MetaKeyProtocolVersion)
	if declared.Exists() && declared.Kind() != jcs.String {
		return invalidParams("_meta field " + mcpgo.MetaKeyProtocolVersion + " must be a string")
	}
	version := declared.Str()
	m.modern = mcpgo.IsModernProtocol(version) || mcpgo.IsModernProtocol(stated)
	if m.modern {
		if err := m.agreeModern(header, stated, version); err != nil {
			return err
		}
	} else if stated != "" && m.method != string(mcpgo.MethodInitialize) && !mcpgo.IsValidProtocolVersion(stated) {
		return unsupportedVersion(stated)
	} else if stated != "" && version != "" && stated != version {
		return headerMismatch(mcpgo.HeaderProtocolVersion + " differs from " + mcpgo.MetaKeyProtocolVersion + " in _meta")
	}
	// A gateway may route by these headers whatever the version, so a wrong one
	// is refused in either era; only the newer one demands them.
	if got := header.Get(mcpgo.HeaderMethod); got != m.method && (got != "" || m.modern) {
		return headerMismatch(mcpgo.HeaderMethod + " must be the method of the body")
	}
	got, ok := mcpgo.DecodeHeaderValue(header.Get(mcpgo.HeaderName))
	if !ok {
		return headerMismatch(mcpgo.HeaderName + " is not valid base64")
	}
	if got != m.name && (got != "" || m.modern) {
		return headerMismatch(mcpgo.HeaderName + " must be the name or uri of the body")
	}
	return nil
}

func (m *message) agreeModern(header http.Header, stated, version string) *rpcError {
	switch {
	case header.Get(mcpgo.HeaderLastEventID) != "":
		return headerMismatch(mcpgo.HeaderLastEventID + " has no meaning since " + mcpgo.ProtocolVersion20260728)
	case stated == "":
		return headerMismatch(mcpgo.HeaderProtocolVersion + " is missing")
	case version == "":
		return invalidParams("_meta field " + mcpgo.MetaKeyProtocolVersion + " is missing")
	case stated != version:
		return headerMismatch(mcpgo.HeaderProtocolVersion + " differs from " + mcpgo.MetaKeyProtocolVersion + " in _meta")
	case !mcpgo.IsValidProtocolVersion(version):
		return unsupportedVersion(version)
	case m.notification:
		return nil
	case m.meta.Get(mcpgo.MetaKeyClientCapabilities).Kind() != jcs.Object:
		return invalidParams("_meta field " + mcpgo.MetaKeyClientCapabilities + " is missing")
	}
	return nil
}

func unsupportedVersion(version string) *rpcError {
	return &rpcError{http.StatusBadRequest, mcpgo.UNSUPPORTED_PROTOCOL_VERSION, "unsupported protocol version",
		map[string]any{"supported": slices.Clone(mcpgo.ValidProtocolVersions), "requested": version}}
}

// body is the message as mcp-go gets it: the members that were checked, in
// canonical form, and nothing else.
func (m *message) body() []byte {
	members := map[string]any{"jsonrpc": mcpgo.JSONRPC_VERSION, "method": m.method}
	if m.id.Exists() {
		members["id"] = m.id
	}
	if m.params.Exists() {
		members["params"] = m.params
	}
	b, err := jcs.Marshal(members)
	if err != nil {
		panic("mcp: a parsed message has no canonical form: " + err.Error()) // impossible: it came from jcs.Parse
	}
	return b
}

// decodes checks, for the calls that are recorded, that the library can read
// what it is handed: one that it cannot is refused here, where it leaves a
// record, and not by the library, where it leaves none.
func (m *message) decodes() *rpcError {
	var into any
	switch mcpgo.MCPMethod(m.method) {
	case mcpgo.MethodToolsCall:
		into = &mcpgo.CallToolRequest{}
	case mcpgo.MethodResourcesRead:
		into = &mcpgo.ReadResourceRequest{}
	default:
		return nil
	}
	if err := json.Unmarshal(m.body(), into); err != nil {
		return invalidParams(m.unreadable())
	}
	return nil
}

// unreadable says that params are of another form, without the names of types.
func (m *message) unreadable() string {
	return "the params do not have the form that " + m.method + " takes"
}

// reason is the error's name in the log.
func (e *rpcError) reason() string {
	switch e.code {
	case mcpgo.HEADER_MISMATCH:
		return "header_mismatch"
	case mcpgo.UNSUPPORTED_PROTOCOL_VERSION:
		return "unsupported_version"
	}
	return "malformed"
}

func (e *rpcError) write(w http.ResponseWriter, id jcs.Value) {
	writeJSON(w, e.status, e.body(id))
}

// body is the error object; the id is null where none was readable, as JSON-RPC
// 2.0 §5 demands.
func (e *rpcError) body(id jcs.Value) []byte {
	details := map[string]any{"code": e.code, "message": e.message}
	if data, ok := e.data.(map[string]any); ok {
		details["data"] = data
	}
	var member any = id
	if !id.Exists() {
		member = nil
	}
	body, err := jcs.Marshal(map[string]any{"jsonrpc": mcpgo.JSONRPC_VERSION, "id": member, "error": details})
	if err != nil {
		panic("mcp: an error object has no canonical form: " + err.Error())
	}
	return body
}

// writeJSON writes a complete JSON answer. Answers may hold tokens: no-store.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
