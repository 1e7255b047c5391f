package audit

import "fmt"

// ErrBroken: a record does not stand where it should.
var ErrBroken = fmt.Errorf("%w: the chain is broken", ErrAudit)

// Follow returns the record of a row that stands right behind head, and where
// the log ends then: the number, the log, prev and the hash of the bytes must
// all fit. It is one step of Verify without the naming of damage; an error
// wraps ErrBroken.
func Follow(log string, head Head, raw Raw) (Stored, Head, error) {
	broken := func(what string) (Stored, Head, error) {
		return Stored{}, head, fmt.Errorf("%w at record %d: %s", ErrBroken, head.Size, what)
	}
	s, err := ParseRecord(raw.Bytes)
	switch {
	case raw.Seq != head.Size:
		return broken(fmt.Sprintf("the next row is %d", raw.Seq))
	case err != nil:
		return broken("its bytes are no record")
	case s.Log != log:
		return broken("its bytes name another log")
	case s.Seq != raw.Seq:
		return broken(fmt.Sprintf("its bytes are record %d", s.Seq))
	case s.Prev != head.Leaf:
		return broken("its prev is not the leaf hash of the record before")
	case raw.Leaf != LeafHash(raw.Bytes):
		return broken("its bytes do not have the stored leaf hash")
	}
	s.Leaf = raw.Leaf
	return s, Head{Size: s.Seq + 1, Leaf: s.Leaf}, nil
}

// Columns are what a store keeps beside the record, made from its bytes.
func (s Stored) Columns() Columns { return s.Entry.columns() }
