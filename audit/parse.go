package audit

import (
	"bytes"
	"fmt"

	"github.com/kavach-dev/kavach/jcs"
)

// own are the members that the log adds to an entry.
var own = map[string]bool{"v": true, "log": true, "seq": true, "prev": true, "time": true}

// ParseRecord reads the bytes of a record. It does not say that they are
// where they should be; Verify does.
func ParseRecord(record []byte) (Stored, error) {
	v, err := jcs.Parse(record, jcs.Limits{})
	if err != nil {
		return Stored{}, fmt.Errorf("%w: reading a record: %w", ErrAudit, err)
	}
	seq, ok := v.Get("seq").Int()
	time, ok2 := v.Get("time").Int()
	version, _ := v.Get("v").Int()
	if !ok || !ok2 || version != 1 {
		return Stored{}, fmt.Errorf("%w: reading a record: seq, time or v is wrong", ErrAudit)
	}
	return Stored{Seq: seq, Time: time, Log: v.Get("log").Str(), Prev: v.Get("prev").Str(),
		Bytes: record, Entry: entryOf(v)}, nil
}

// ParseEntry reads what Draft.Bytes wrote.
func ParseEntry(entry []byte) (Entry, error) {
	v, err := jcs.Parse(entry, jcs.Limits{})
	if err != nil {
		return Entry{}, fmt.Errorf("%w: reading an entry: %w", ErrAudit, err)
	}
	return entryOf(v), nil
}

func entryOf(v jcs.Value) Entry {
	e := Entry{ID: v.Get("id").Str(), By: v.Get("by").Str(), Evidence: v.Get("evidence").Str(),
		Agent: v.Get("agent").Str(), Sub: v.Get("sub").Str(), Action: v.Get("action").Str(),
		Resource: v.Get("resource").Str(), Result: v.Get("result").Str(), Reason: v.Get("reason").Str(),
		Grant: v.Get("grant").Str()}
	e.Observed, _ = v.Get("observed").Int()
	e.Path, _ = v.Get("path").Strings()
	for p := range v.Get("chain").All() {
		e.Chain = append(e.Chain, Party{LID: p.Get("lid").Str(), JTI: p.Get("jti").Str(),
			ClientID: p.Get("client_id").Str(), Confirmed: p.Get("confirmed").Bool(), JKT: p.Get("jkt").Str()})
	}
	for name, value := range v.Get("detail").Fields() {
		switch name {
		case "issued":
			for t := range value.All() {
				exp, _ := t.Get("exp").Int()
				e.Issued = append(e.Issued, Issued{LID: t.Get("lid").Str(), Expires: exp})
			}
		case "anc":
			e.Anc, _ = value.Strings()
		default:
			if e.Detail == nil {
				e.Detail = make(map[string]any)
			}
			e.Detail[name] = plainValue(value)
		}
	}
	return e
}

// sameEntry reports whether a record holds the entry of a draft: all members
// but the log's own are equal (audit.md §1, id). The server gives an entry that
// waited in the outbox its observed; that does not make it another.
func sameEntry(record []byte, d *Draft) bool {
	v, err := jcs.Parse(record, jcs.Limits{})
	if err != nil {
		return false
	}
	entry := make(map[string]any, v.Len())
	for name, value := range v.Fields() {
		if !own[name] && !(name == "observed" && d.By == ByServer && !d.observed) {
			entry[name] = value
		}
	}
	text, err := jcs.Marshal(entry)
	return err == nil && bytes.Equal(text, d.Bytes())
}
