package delegation

import (
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// MaxMessage is the size of an MCP message in bytes, as kavach reads it.
const MaxMessage = 1 << 20

// maxMessageValues bounds what a message is taken apart into.
const maxMessageValues = 1 << 16

// Message is one MCP message, as far as a proof can speak about it.
type Message struct {
	// Method is the method of the message.
	Method string
	// Call is what an AAT proof for the message names: tool and arguments of a
	// tools/call. For every other method it is MessageMethod and the method,
	// with the params, but for _meta, as arguments.
	Call Call
	// Presented is what _meta holds under MetaKey, nil for nothing.
	Presented *Presentation

	value jcs.Value
}

// ParseMessage reads the text of one JSON-RPC message of MCP, strictly: no
// batch, no member twice, and none that a reader which folds case would take
// for another. An error is a *Refusal with malformed or too_large.
func ParseMessage(text []byte) (Message, error) {
	if len(text) > MaxMessage {
		return Message{}, refuse(TooLarge, "", "message")
	}
	v, err := jcs.Parse(text, jcs.Limits{Bytes: MaxMessage, Values: maxMessageValues})
	if err != nil || v.Kind() != jcs.Object {
		return Message{}, refuse(Malformed, "", "not one JSON-RPC message")
	}
	params, meta := v.Get("params"), v.Get("params").Get("_meta")
	if almost(v, "jsonrpc", "id", "method", "params") || almost(params, "name", "arguments", "_meta", "uri") || almost(meta, MetaKey) {
		return Message{}, refuse(Malformed, "", "a member of the message has almost a known name")
	}
	m := Message{Method: v.Get("method").Str(), value: v}
	if m.Method == "" || params.Exists() && params.Kind() != jcs.Object || meta.Exists() && meta.Kind() != jcs.Object {
		return Message{}, refuse(Malformed, "", "not one JSON-RPC message")
	}
	if m.Method == "tools/call" {
		m.Call = Call{Name: params.Get("name").Str(), Arguments: params.Get("arguments")}
		if m.Call.Name == "" || m.Call.Arguments.Exists() && m.Call.Arguments.Kind() != jcs.Object {
			return Message{}, refuse(Malformed, "", "not a call of a tool")
		}
	} else {
		if m.Call, err = methodCall(m.Method, params); err != nil {
			return Message{}, err
		}
	}
	if !m.Call.Arguments.Exists() {
		m.Call.Arguments = noArguments
	}
	if held := meta.Get(MetaKey); held.Exists() {
		p, err := ParsePresentation(held)
		if err != nil {
			return Message{}, err
		}
		m.Presented = &p
	}
	return m, nil
}

// With returns the text of the message with the presentation in its _meta, in
// place of one that it had.
func (m Message) With(p Presentation) ([]byte, error) {
	held, err := jcs.Of(p.Map())
	if err != nil {
		return nil, refuse(Malformed, "", "presentation")
	}
	return m.rewritten(held)
}

// Bare returns the text of the message without a presentation: what a server
// hands on once it has verified it.
func (m Message) Bare() ([]byte, error) { return m.rewritten(jcs.Value{}) }

// rewritten is the message in canonical form, with another presentation. Its
// numbers keep what they denote, or it is refused.
func (m Message) rewritten(held jcs.Value) ([]byte, error) {
	if !admissible(m.value) {
		return nil, refuse(Malformed, "", "a number of the message has no canonical form")
	}
	params := m.value.Get("params")
	meta := members(params.Get("_meta"))
	delete(meta, MetaKey)
	if held.Exists() {
		meta[MetaKey] = held
	}
	changed := members(params)
	if delete(changed, "_meta"); len(meta) > 0 {
		changed["_meta"] = meta
	}
	message := members(m.value)
	if delete(message, "params"); len(changed) > 0 || params.Exists() {
		message["params"] = changed
	}
	text, err := jcs.Marshal(message)
	if err != nil {
		return nil, refuse(Malformed, "", "not one JSON-RPC message")
	}
	return text, nil
}

func members(v jcs.Value) map[string]any {
	m := map[string]any{}
	for name, member := range v.Fields() {
		m[name] = member
	}
	return m
}

// methodCall is what a proof for a message that calls no tool names.
func methodCall(method string, params jcs.Value) (Call, error) {
	arguments := members(params)
	delete(arguments, "_meta")
	v, err := jcs.Of(arguments)
	if err != nil {
		return Call{}, refuse(Malformed, "", "not one JSON-RPC message")
	}
	return Call{Name: MessageMethod + method, Arguments: v}, nil
}

// almost reports whether an object has a member that folding case makes one of
// the names, and that is none of them.
func almost(v jcs.Value, names ...string) bool {
	for name := range v.Fields() {
		for _, known := range names {
			if name != known && strings.EqualFold(name, known) {
				return true
			}
		}
	}
	return false
}
