package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/kavach-dev/kavach/jcs"
)

// Caps of an entry's members. A longer text is cut and ends in "…": a caller
// must not be able to keep a refusal out of the log by being verbose.
const (
	maxID       = 512
	maxResource = 1024
	maxText     = 512
	maxParties  = 64
	maxLids     = 256
	maxElements = 100
	maxNesting  = 5
)

// NewID returns a fresh UUIDv7.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// checked returns the entry with defaults and cleaned texts.
func (e Entry) checked() (Entry, error) {
	invalid := func(format string, args ...any) (Entry, error) {
		return Entry{}, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if e.By == "" {
		e.By = ByServer
	}
	if e.Evidence == "" {
		e.Evidence = EvidenceServer
	}
	if id, err := uuid.Parse(e.ID); err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || id.String() != e.ID {
		return invalid("id is not a lower-case UUIDv7")
	}
	if !KnownAction(e.Action) {
		return invalid("unknown action %q", e.Action)
	}
	switch e.Result {
	case Allowed, Denied, Failed:
	default:
		return invalid("unknown result %q", e.Result)
	}
	switch e.Evidence {
	case EvidenceServer, EvidenceProof, EvidenceAsserted:
	default:
		return invalid("unknown evidence %q", e.Evidence)
	}
	if e.Observed < 0 || e.Observed > jcs.MaxInt {
		return invalid("observed is out of range")
	}
	if len(e.Path) > maxParties || len(e.Chain) > maxParties {
		return invalid("more than %d parties", maxParties)
	}
	if len(e.Issued)+len(e.Anc) > maxLids {
		return invalid("more than %d ids", maxLids)
	}
	e.By, e.Agent, e.Sub, e.Grant = clean(e.By, maxID), clean(e.Agent, maxID), clean(e.Sub, maxID), clean(e.Grant, maxID)
	e.Resource, e.Reason = clean(e.Resource, maxResource), clean(e.Reason, maxText)
	e.Path = cleanAll(e.Path)
	e.Anc = cleanAll(e.Anc)
	e.Chain = slices.Clone(e.Chain)
	for i, p := range e.Chain {
		e.Chain[i] = Party{LID: clean(p.LID, maxID), JTI: clean(p.JTI, maxID), ClientID: clean(p.ClientID, maxID),
			Confirmed: p.Confirmed, JKT: clean(p.JKT, maxID)}
	}
	e.Issued = slices.Clone(e.Issued)
	for i, t := range e.Issued {
		if t.LID == "" || t.Expires < 0 || t.Expires > jcs.MaxInt {
			return invalid("issued without lid, or exp out of range")
		}
		e.Issued[i].LID = clean(t.LID, maxID)
	}
	return e, nil
}

func cleanAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = clean(s, maxID)
	}
	return out
}

// clean makes a text fit for a record that people read in a terminal: valid
// UTF-8, at most max bytes, and nothing that moves a cursor or turns the
// direction of reading ("control characters escaped", audit.md §1).
func clean(s string, max int) string {
	plain := len(s) <= max
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	var b strings.Builder
	for _, r := range s { // a broken byte ranges as U+FFFD
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == 0xfeff {
			fmt.Fprintf(&b, `\u{%x}`, r)
		} else {
			b.WriteRune(r)
		}
		if b.Len() > max {
			break
		}
	}
	text := b.String()
	if len(text) <= max {
		return text
	}
	end := max - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// cleanValue returns the value with every text in it cleaned.
func cleanValue(x any, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("%w: detail is nested too deeply", ErrInvalid)
	}
	switch v := x.(type) {
	case string:
		return clean(v, maxText), nil
	case []string:
		return cleanList(len(v), func(i int) any { return v[i] }, depth)
	case []any:
		return cleanList(len(v), func(i int) any { return v[i] }, depth)
	case map[string]string:
		m := make(map[string]any, len(v))
		for name, value := range v {
			m[name] = value
		}
		return cleanValue(m, depth)
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if len(v) > maxElements && len(out) == maxElements-1 {
				out["…"] = len(v) - len(out)
				break
			}
			value, err := cleanValue(v[name], depth+1)
			if err != nil {
				return nil, err
			}
			out[clean(name, maxText)] = value
		}
		return out, nil
	case jcs.Value:
		return cleanValue(plainValue(v), depth)
	}
	return x, nil // jcs refuses what is no JSON
}

func cleanList(n int, at func(int) any, depth int) (any, error) {
	out := make([]any, 0, min(n, maxElements))
	for i := range n {
		if n > maxElements && i == maxElements-1 {
			return append(out, "…"), nil
		}
		value, err := cleanValue(at(i), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}

// plainValue turns a parsed value into plain Go values.
func plainValue(v jcs.Value) any {
	switch v.Kind() {
	case jcs.Bool:
		return v.Bool()
	case jcs.Number:
		if n, ok := v.Int(); ok {
			return n
		}
		f, _ := v.Float()
		return f
	case jcs.String:
		return v.Str()
	case jcs.Array:
		out := make([]any, 0, v.Len())
		for e := range v.All() {
			out = append(out, plainValue(e))
		}
		return out
	case jcs.Object:
		out := make(map[string]any, v.Len())
		for name, e := range v.Fields() {
			out[name] = plainValue(e)
		}
		return out
	}
	return nil
}
