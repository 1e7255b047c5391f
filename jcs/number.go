package jcs

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"
)

// Int returns an integer written in the integer grammar: no fraction, no
// exponent, at most 2^53−1 in magnitude (delegation.md §8: "`1.0` or `1e0`
// where an integer is required" is refused). ok is false for everything else.
func (v Value) Int() (n int64, ok bool) {
	text := v.Number()
	if text == "" || len(text) > 17 {
		return 0, false
	}
	digits := strings.TrimPrefix(text, "-")
	for i := range len(digits) {
		if !isDigit(digits[i]) {
			return 0, false
		}
		n = n*10 + int64(digits[i]-'0')
	}
	if n > MaxInt {
		return 0, false
	}
	if len(digits) < len(text) {
		n = -n
	}
	return n, true
}

// Float returns the double nearest to a number. It is admissible iff the
// canonical form of that double denotes exactly the number that the text
// denotes (aat02.md, "Admissible number"): 1.0, 1e20 and 0.1 are,
// 9007199254740993, 1e400 and 1e-400 are not. Among admissible numbers
// comparing doubles is exact.
func (v Value) Float() (f float64, admissible bool) {
	text := v.Number()
	if text == "" {
		return 0, false
	}
	f, err := nearest(text)
	if err != nil {
		return f, false
	}
	var buf [32]byte
	return f, decimalOf(text).equal(decimalOf(string(strconv.AppendFloat(buf[:0], f, 'e', -1, 64))))
}

// A decimal is a number as its significant digits, without zeros at either
// end, and the power of ten of the first: 0.d₁d₂d₃… × 10^exp. The digits are
// still where they were written, perhaps around a dot, so that neither a
// million zeros nor an exponent of a million is ever expanded.
type decimal struct {
	negative bool
	digits   string // "" is zero; may contain one dot
	exp      int64
}

func decimalOf(text string) decimal {
	var d decimal
	if text[0] == '-' {
		d.negative = true
		text = text[1:]
	}
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		d.exp = exponent(text[at+1:])
		text = text[:at]
	}
	whole := strings.IndexByte(text, '.')
	if whole < 0 {
		whole = len(text)
	}
	first := strings.IndexAny(text, "123456789")
	if first < 0 {
		return decimal{} // zero has no sign: -0 denotes 0
	}
	if first < whole {
		d.exp += int64(whole - first)
	} else {
		d.exp -= int64(first - whole - 1)
	}
	d.digits = strings.TrimRight(text[first:], "0.")
	// "10.0" leaves "1", "1.50" leaves "1.5": what was cut are zeros behind the
	// last significant digit, which change neither the value nor d.exp.
	return d
}

// exponent reads the digits behind an "e". Beyond any exponent that could
// matter it saturates: the text would have to be longer than a parser accepts
// to bring such a number back into the range of a double.
func exponent(text string) int64 {
	sign := int64(1)
	switch text[0] {
	case '-':
		sign = -1
		text = text[1:]
	case '+':
		text = text[1:]
	}
	var n int64
	for i := range len(text) {
		n = n*10 + int64(text[i]-'0')
		if n > 1<<40 {
			n = 1 << 40
		}
	}
	return sign * n
}

func (d decimal) equal(o decimal) bool {
	if d.negative != o.negative || d.exp != o.exp {
		return false
	}
	i, j := 0, 0
	for {
		if i < len(d.digits) && d.digits[i] == '.' {
			i++
		}
		if j < len(o.digits) && o.digits[j] == '.' {
			j++
		}
		if i == len(d.digits) || j == len(o.digits) {
			return i == len(d.digits) && j == len(o.digits)
		}
		if d.digits[i] != o.digits[j] {
			return false
		}
		i++
		j++
	}
}

// nearest returns the double nearest to a number; the error says that it is
// beyond the range. strconv misplaces the point of integers of more than 800
// digits, so a long text is brought to the form 0.d₁d₂d₃…e<exp> first.
func nearest(text string) (float64, error) {
	// 300 bytes without an exponent are at least 1e-298.
	if len(text) <= 300 && strings.LastIndexByte(text, '-') <= 0 {
		return strconv.ParseFloat(text, 64)
	}
	d := decimalOf(text)
	if f, ok := d.tiny(); ok {
		return f, nil
	}
	if len(text) <= 300 {
		return strconv.ParseFloat(text, 64)
	}
	if d.digits == "" {
		return 0, nil
	}
	short := "0." + strings.Replace(d.digits, ".", "", 1) + "e" + strconv.FormatInt(d.exp, 10)
	if d.negative {
		short = "-" + short
	}
	return strconv.ParseFloat(short, 64)
}

// tiny is the nearest double of a number of up to 19 digits below 2⁻¹⁰²¹, ok is
// false for every other. There strconv has no fast way: it takes a thousand
// times as long as elsewhere, and a token has room for hundreds of "5e-324". The
// doubles there are the multiples of 2⁻¹⁰⁷⁴, and which one says their bits.
func (d decimal) tiny() (f float64, ok bool) {
	if d.digits == "" || d.exp > -307 {
		return 0, false
	}
	n := uint64(0) // for what is below 1e-324
	if d.exp >= -323 {
		digits := strings.Replace(d.digits, ".", "", 1)
		if len(digits) > 19 {
			return 0, false
		}
		m, _ := strconv.ParseUint(digits, 10, 64)
		// The number is m ÷ 10ᵏ, so it is m × 2¹⁰⁷⁴⁻ᵏ ÷ 5ᵏ of those multiples.
		k := len(digits) - int(d.exp)
		five := powersOfFive()[k-smallestPower]
		over := new(big.Int).SetUint64(m)
		count, rest := new(big.Int), new(big.Int)
		count.QuoRem(over.Lsh(over, uint(1074-k)), five, rest)
		n = count.Uint64()
		// Half of one and more goes up, exactly half to the even one.
		if half := rest.Lsh(rest, 1).Cmp(five); half > 0 || half == 0 && n%2 == 1 {
			n++
		}
		if n > 1<<53 {
			return 0, false
		}
	}
	f = math.Float64frombits(n)
	if d.negative {
		f = -f
	}
	return f, true
}

// smallestPower is the least k of tiny: a digit behind 307 places.
const smallestPower = 308

// powersOfFive are 5ᵏ for every k of tiny: up to 19 digits behind 323 places.
var powersOfFive = sync.OnceValue(func() (powers []*big.Int) {
	for k := int64(smallestPower); k <= 323+19; k++ {
		powers = append(powers, new(big.Int).Exp(big.NewInt(5), big.NewInt(k), nil))
	}
	return powers
})

// appendNumber writes a double as ECMAScript's Number::toString does, which
// RFC 8785 §3.2.2.3 prescribes.
func appendNumber(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, '0') // also for -0
	}
	format := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	// Go writes at least two digits of exponent: 1e-07 is 1e-7 here.
	if n := len(dst); format == 'e' && dst[n-2] == '0' && !isDigit(dst[n-3]) {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}
