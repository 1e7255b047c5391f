package jcs

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Of makes a value of nil, bool, string, every integer type, float64, []string,
// []any, []Value, []map[string]any, map[string]any, map[string]string and
// Value. What has no exact JSON form is refused with ErrMalformed: text that is
// not UTF-8, integers beyond 2^53−1, NaN and the infinities, nesting beyond
// MaxDepth, and every other type.
func Of(x any) (Value, error) {
	if v, ok := x.(Value); ok && v.d != nil {
		return v, nil
	}
	b := builder{doc: &document{nodes: make([]node, 0, 16)}}
	if err := b.add(x, MaxDepth); err != nil {
		return Value{}, err
	}
	return Value{d: b.doc}, nil
}

// Marshal returns the canonical bytes of Of(x).
func Marshal(x any) ([]byte, error) {
	v, err := Of(x)
	if err != nil {
		return nil, err
	}
	return v.AppendCanonical(make([]byte, 0, 256)), nil
}

type builder struct {
	doc *document
}

func (b *builder) leaf(kind Kind, text string) error {
	b.doc.leafOf(kind, text)
	return nil
}

func (b *builder) str(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: text is not UTF-8", ErrMalformed)
	}
	return b.leaf(String, s)
}

func (b *builder) integer(n int64) error {
	if n > MaxInt || n < -MaxInt {
		return fmt.Errorf("%w: the integer %d is beyond 2^53−1", ErrMalformed, n)
	}
	return b.leaf(Number, strconv.FormatInt(n, 10))
}

func (b *builder) unsigned(n uint64) error {
	if n > MaxInt {
		return fmt.Errorf("%w: the integer %d is beyond 2^53−1", ErrMalformed, n)
	}
	return b.leaf(Number, strconv.FormatUint(n, 10))
}

func (b *builder) float(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%w: %v is not a JSON number", ErrMalformed, f)
	}
	return b.leaf(Number, string(appendNumber(nil, f)))
}

func (b *builder) add(x any, depth int) error {
	switch x := x.(type) {
	case nil:
		return b.leaf(Null, "null")
	case bool:
		return b.leaf(Bool, strconv.FormatBool(x))
	case string:
		return b.str(x)
	case int:
		return b.integer(int64(x))
	case int8:
		return b.integer(int64(x))
	case int16:
		return b.integer(int64(x))
	case int32:
		return b.integer(int64(x))
	case int64:
		return b.integer(x)
	case uint:
		return b.unsigned(uint64(x))
	case uint8:
		return b.unsigned(uint64(x))
	case uint16:
		return b.unsigned(uint64(x))
	case uint32:
		return b.unsigned(uint64(x))
	case uint64:
		return b.unsigned(x)
	case float64:
		return b.float(x)
	case Value:
		return b.copy(x, depth)
	case []string:
		return array(b, x, depth)
	case []any:
		return array(b, x, depth)
	case []Value:
		return array(b, x, depth)
	case []map[string]any:
		return array(b, x, depth)
	case map[string]any:
		return object(b, x, depth)
	case map[string]string:
		return object(b, x, depth)
	default:
		return fmt.Errorf("%w: a %T has no JSON form here", ErrMalformed, x)
	}
}

func (b *builder) open(kind Kind, n, depth int) (int, error) {
	if depth == 0 {
		return 0, fmt.Errorf("%w: nested too deeply", ErrMalformed)
	}
	b.doc.nodes = append(b.doc.nodes, node{kind: kind, n: int32(n)})
	return len(b.doc.nodes) - 1, nil
}

func array[E any](b *builder, list []E, depth int) error {
	at, err := b.open(Array, len(list), depth)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := b.add(e, depth-1); err != nil {
			return err
		}
	}
	b.doc.nodes[at].end = int32(len(b.doc.nodes))
	return nil
}

func object[E any](b *builder, members map[string]E, depth int) error {
	at, err := b.open(Object, len(members), depth)
	if err != nil {
		return err
	}
	// Sorted, so that Members is the same on every run and canonical output
	// has nothing left to sort.
	for _, name := range slices.SortedFunc(maps.Keys(members), compareUTF16) {
		if err := b.str(name); err != nil {
			return err
		}
		if err := b.add(members[name], depth-1); err != nil {
			return err
		}
	}
	b.doc.nodes[at].end = int32(len(b.doc.nodes))
	return nil
}

// copy appends a value of another document.
func (b *builder) copy(v Value, depth int) error {
	if v.d == nil {
		return fmt.Errorf("%w: a value that is not there has no JSON form", ErrMalformed)
	}
	switch kind := v.Kind(); kind {
	case Array:
		return array(b, v.Elements(), depth)
	case Object:
		at, err := b.open(Object, v.Len(), depth)
		if err != nil {
			return err
		}
		for name, e := range v.Fields() {
			_ = b.leaf(String, name)
			if err := b.copy(e, depth-1); err != nil {
				return err
			}
		}
		b.doc.nodes[at].end = int32(len(b.doc.nodes))
		return nil
	default:
		return b.leaf(kind, v.text())
	}
}
