// Package conformance runs vectors: files of chains, proofs and requests with
// the verdict that a verifier must give. What it guarantees:
//
//   - A vector is decided by packages agent and delegation alone, in the order
//     of delegation.md §6 (or, for AATStrict, of the draft); this package adds
//     only what those leave to a resource server: which credential a request
//     carries, and what is remembered between requests.
//   - A file says everything that a verdict depends on. There is no clock, no
//     network and no chance.
//   - What a vector expects and this package does not know fails to parse. It
//     is never passed over.
//
// Two formats are read: that of the published vectors of the draft, and that of
// delegation/testdata/kdt1.json, which delegation/testdata/README.md explains.
package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrFile is the root of what is wrong with a file of vectors.
var ErrFile = errors.New("not a file of vectors")

// Result is what came of one vector.
type Result struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// Verdict is "permit", "refuse" and so on, as the file spells it.
	Verdict string `json:"verdict"`
	// Decided is the step of the draft (AATStrict) or the reason (KDT1) of a
	// refusal, "" for none.
	Decided string `json:"decided"`
	// ExpectedVerdict and Expected are what the file says.
	ExpectedVerdict string `json:"expected_verdict"`
	Expected        string `json:"expected"`
	// OK says that everything is as expected, Difference what is not.
	OK         bool   `json:"ok"`
	Difference string `json:"difference,omitempty"`
}

// File is a file of vectors. Exactly one of the profiles is there.
type File struct {
	// Profile is "KDT1" or "AATStrict".
	Profile string
	// KDT1 are the vectors of that profile, defaults filled in.
	KDT1   []Vector
	strict *strictFile
}

// Parse reads a file.
func Parse(data []byte) (*File, error) {
	var kind struct {
		Profile      string          `json:"profile"`
		TrustAnchors json.RawMessage `json:"trust_anchors"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return nil, notJSON(err)
	}
	switch {
	case kind.Profile == "KDT1":
		vectors, err := parseKDT1(data)
		if err != nil {
			return nil, err
		}
		return &File{Profile: kind.Profile, KDT1: vectors}, nil
	case kind.Profile == "" && kind.TrustAnchors != nil:
		strict, err := parseStrict(data)
		if err != nil {
			return nil, err
		}
		return &File{Profile: "AATStrict", strict: strict}, nil
	}
	return nil, fmt.Errorf("%w: neither profile KDT1 nor trust_anchors", ErrFile)
}

// Run decides every vector of the file, in its order. An error is about the
// file, not about a verdict.
func (f *File) Run() ([]Result, error) {
	if f.strict != nil {
		return f.strict.run()
	}
	results := make([]Result, 0, len(f.KDT1))
	for i := range f.KDT1 {
		r, err := f.KDT1[i].Run()
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// decode refuses members that it does not know: an expectation that nobody
// looks at would hold for ever.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data behind the end", ErrFile)
	}
	return nil
}

// notJSON says what is wrong with the text in words of the file: encoding/json
// names the types of this program.
func notJSON(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, ErrFile):
		return err
	case !errors.As(err, &kind):
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	what := kind.Field
	if what == "" {
		what = "it"
	}
	return fmt.Errorf("%w: %s cannot be %s", ErrFile, what, aKind.Replace(kind.Value))
}

// aKind adds the article to a kind of JSON value.
var aKind = strings.NewReplacer("array", "an array", "object", "an object", "string", "a string", "number", "a number", "bool", "true or false")
