package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// Run decides the vector and compares. An error is about the vector, not about
// the verdict.
func (v *Vector) Run() (Result, error) {
	got, err := v.Decide()
	if err != nil {
		return Result{}, err
	}
	want := &v.Expected
	difference := strings.Join(want.differs(&got), ", ")
	return Result{
		ID: v.ID, Title: v.Title, Verdict: got.Verdict, Decided: got.decided(), ExpectedVerdict: want.Verdict, Expected: want.decided(),
		OK: difference == "", Difference: difference,
	}, nil
}

// Decide says what the verifier decides.
func (v *Vector) Decide() (Outcome, error) {
	var got Outcome
	var err error
	switch {
	case v.Derive != nil:
		got, err = v.derive()
	case v.Exchange != nil:
		got, err = v.exchange()
	default:
		got, err = v.decide()
	}
	var refusal *delegation.Refusal
	switch {
	case err == nil:
		return got, nil
	case !errors.As(err, &refusal):
		return Outcome{}, err
	}
	got = Outcome{Verdict: Refuse, Reason: refusal.Reason, Dimension: refusal.Dimension, Detail: refusal.Detail}
	if refusal.Part >= 0 {
		got.Link = &refusal.Part
	}
	return got, nil
}

// decided is the reason with what belongs to it: not_narrower(scope)@1.
func (o *Outcome) decided() string {
	text := string(o.Reason)
	if o.Dimension != "" {
		text += "(" + o.Dimension + ")"
	}
	if o.Link != nil {
		text += fmt.Sprintf("@%d", *o.Link)
	}
	return text
}

// differs names what is not as expected.
func (o *Outcome) differs(got *Outcome) (list []string) {
	note := func(name string, same bool) {
		if !same {
			list = append(list, name)
		}
	}
	note("verdict", o.Verdict == got.Verdict)
	if o.Verdict != got.Verdict {
		return list
	}
	if o.Verdict == Refuse {
		note("reason", o.Reason == got.Reason)
		note("link", o.Link == nil || got.Link != nil && *o.Link == *got.Link)
		note("dimension", o.Dimension == "" || o.Dimension == got.Dimension)
		note("detail", o.Detail == "" || o.Detail == got.Detail)
		return list
	}
	if o.Claims != nil {
		for name, want := range o.Claims {
			text, present := got.Claims[name]
			if string(want) == "null" {
				note("claim "+name, !present)
			} else {
				note("claim "+name, present && sameJSON(want, text))
			}
		}
		slices.Sort(list)
		return list
	}
	note("unchecked", slices.Equal(o.Unchecked, got.Unchecked))
	note("principal", o.Principal == got.Principal)
	note("exp", o.Expires == got.Expires)
	note("path", slices.Equal(o.Path, got.Path))
	note("debits", slices.Equal(o.Debits, got.Debits))
	note("obligations", slices.Equal(o.Obligations, got.Obligations))
	return list
}

// sameJSON compares canonical bytes.
func sameJSON(a, b []byte) bool {
	x, errX := jcs.Parse(a, jcs.Limits{})
	y, errY := jcs.Parse(b, jcs.Limits{})
	return errX == nil && errY == nil && jcs.Equal(x, y)
}
