// Package jcs is JSON without surprises: a strict parser and the canonical
// bytes of RFC 8785.
//
// What the package guarantees:
//
//   - Parse accepts exactly one JSON text of RFC 8259 in valid UTF-8 and
//     nothing else. Duplicate members (compared after unescaping), lone
//     surrogates, a byte order mark, trailing data and nesting deeper than the
//     limit are refused. encoding/json takes the last duplicate and folds the
//     case of names, so two readers of one signed text could disagree; with
//     this package they cannot.
//   - A number keeps its text. Int takes the integer grammar only (no "1.0",
//     no "1e0") up to 2^53−1; Float says whether the text is exactly what its
//     canonical form denotes.
//   - Canonical forms of equal values are equal bytes, in Go and in
//     JavaScript.
//   - Parse never panics, allocates in proportion to its input, and does not
//     expand exponents.
//
// Values are immutable and safe for use by several goroutines.
package jcs

import (
	"errors"
	"fmt"
	"iter"
)

// ErrMalformed is the root of every refusal of this package.
var ErrMalformed = errors.New("malformed JSON")

// MaxDepth is the nesting that Parse allows unless told otherwise
// (delegation.md §1: "JSON nesting 96").
const MaxDepth = 96

// MaxInt is the largest integer that a double, and so JavaScript, holds
// together with its neighbours.
const MaxInt = 1<<53 - 1

// maxBytes bounds one text, so that node indexes fit 32 bits.
const maxBytes = 1 << 30

// Limits bounds what Parse accepts. The zero value is usable.
type Limits struct {
	// Depth is the number of nested arrays and objects allowed; 0 means
	// MaxDepth.
	Depth int
	// Bytes is the size of the text allowed; 0 means 1 GiB.
	Bytes int
	// Values is how many values the text may have, names of members included;
	// 0 means any number. A value takes eight times the memory of the two
	// bytes that it may stand in.
	Values int
}

// Kind is the type of a value.
type Kind uint8

// The kinds. Invalid is the kind of the zero Value, which is also what Get
// returns for a member that is absent.
const (
	Invalid Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

var kindNames = [...]string{"nothing", "null", "boolean", "number", "string", "array", "object"}

// String returns the JSON name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// A node is one value, or the name of a member, in document order. The nodes of
// an object are name, value, name, value, …; those of a nested value follow its
// own node up to end. It has no pointers, so that a document costs the garbage
// collector nothing.
type node struct {
	at   int32 // where its text begins in the source, or ^i for own[i]
	n    int32 // bytes of text; elements or members
	end  int32 // index of the first node behind this value
	kind Kind
}

// A document owns the nodes of one text. It never changes once built.
type document struct {
	nodes  []node
	source string
	own    []string // texts that do not stand in the source as they are
}

// text is the contents of a string, the text of a number, "true" or "false".
func (d *document) text(i int32) string {
	n := &d.nodes[i]
	if n.at < 0 {
		return d.own[^n.at]
	}
	return d.source[n.at : n.at+n.n]
}

// leaf appends a node whose text is source[from:to].
func (d *document) leaf(kind Kind, from, to int) {
	d.nodes = append(d.nodes, node{at: int32(from), n: int32(to - from), kind: kind, end: int32(len(d.nodes) + 1)})
}

// leafOf appends a node with a text of its own.
func (d *document) leafOf(kind Kind, text string) {
	d.own = append(d.own, text)
	d.nodes = append(d.nodes, node{at: ^int32(len(d.own) - 1), kind: kind, end: int32(len(d.nodes) + 1)})
}

// Value is one JSON value. The zero Value has the kind Invalid: it stands for
// "not there", and every accessor of it returns its zero answer.
type Value struct {
	d *document
	i int32
}

// Member is one member of an object.
type Member struct {
	Name  string
	Value Value
}

func (v Value) text() string { return v.d.text(v.i) }

// Kind returns the type of the value.
func (v Value) Kind() Kind {
	if v.d == nil {
		return Invalid
	}
	return v.d.nodes[v.i].kind
}

// Exists reports whether there is a value at all; null is one.
func (v Value) Exists() bool { return v.d != nil }

// Bool returns the truth of a boolean, and false for everything else.
func (v Value) Bool() bool {
	return v.Kind() == Bool && v.text() == "true"
}

// Str returns the contents of a string, unescaped, and "" for everything else.
func (v Value) Str() string {
	if v.Kind() != String {
		return ""
	}
	return v.text()
}

// Number returns the text of a number as it was written, and "" for everything
// else.
func (v Value) Number() string {
	if v.Kind() != Number {
		return ""
	}
	return v.text()
}

// Len returns the number of elements or members, and 0 for everything else.
func (v Value) Len() int {
	if k := v.Kind(); k != Array && k != Object {
		return 0
	}
	return int(v.d.nodes[v.i].n)
}

// Elements returns the elements of an array, and nil for everything else.
func (v Value) Elements() []Value {
	if v.Kind() != Array || v.Len() == 0 {
		return nil
	}
	out := make([]Value, 0, v.Len())
	for e := range v.All() {
		out = append(out, e)
	}
	return out
}

// All iterates over the elements of an array without allocating.
func (v Value) All() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		i := v.i + 1
		for range v.Len() {
			if !yield(Value{v.d, i}) {
				return
			}
			i = v.d.nodes[i].end
		}
	}
}

// Members returns the members of an object in document order, and nil for
// everything else.
func (v Value) Members() []Member {
	if v.Kind() != Object || v.Len() == 0 {
		return nil
	}
	out := make([]Member, 0, v.Len())
	for name, e := range v.Fields() {
		out = append(out, Member{name, e})
	}
	return out
}

// Fields iterates over the members of an object in document order without
// allocating.
func (v Value) Fields() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		i := v.i + 1
		for range v.Len() {
			if !yield(v.d.text(i), Value{v.d, i + 1}) {
				return
			}
			i = v.d.nodes[i+1].end
		}
	}
}

// Get returns the member of that name, byte for byte. If it is absent, or v is
// no object, the answer has the kind Invalid.
func (v Value) Get(name string) Value {
	if v.Kind() != Object {
		return Value{}
	}
	i := v.i + 1
	for range v.Len() {
		if v.d.text(i) == name {
			return Value{v.d, i + 1}
		}
		i = v.d.nodes[i+1].end
	}
	return Value{}
}

// Strings returns the elements of an array of strings; ok is false if v is
// anything else.
func (v Value) Strings() (list []string, ok bool) {
	if v.Kind() != Array {
		return nil, false
	}
	list = make([]string, 0, v.Len())
	for e := range v.All() {
		if e.Kind() != String {
			return nil, false
		}
		list = append(list, e.Str())
	}
	return list, true
}
