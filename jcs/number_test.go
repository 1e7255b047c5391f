package jcs_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/jcs"
)

// tinyNumbers are texts around the smallest doubles, where Float has a way of
// its own: what a double there is written as, its neighbours in the last digit,
// and any digits at all, with the point and zeros in every place.
func tinyNumbers(random *rand.Rand, n int) []string {
	list := []string{
		// Half of the smallest, the smallest, the largest that is not normal and
		// the smallest that is, and where the way ends.
		"2.470328229206232e-324", "2.470328229206233e-324", "2.4703282292062327208e-324", "2.4703282292062327209e-324", "3e-324", "7e-324", "8e-324",
		"2.2250738585072011e-308", "2.2250738585072012e-308", "2.2250738585072014e-308", "4.4501477170144023e-308", "4.450147717014403e-308",
		"9.999999999999999e-308", "1e-307", "1e-308", "1e-323", "1e-324", "9e-325", "1e-999999", "-1e-400", "0e-320",
		"12345678901234567890e-339", "1234567890123456789e-338", "9999999999999999999e-342",
	}
	for range n {
		mantissa := strconv.FormatUint(random.Uint64N(1+uint64(math.Pow10(random.IntN(20)))), 10)
		exponent := -random.IntN(35) - 300 - len(mantissa)
		if random.IntN(2) == 0 {
			f := math.Float64frombits(random.Uint64N(1 << (1 + random.IntN(55))))
			mantissa, exponent = digits(f)
			switch random.IntN(4) {
			case 0:
				mantissa += strconv.Itoa(random.IntN(1000))
			case 1:
				mantissa = mantissa[:len(mantissa)-1] + strconv.Itoa(random.IntN(10))
			}
		}
		if at := random.IntN(len(mantissa) + 1); at > 0 && at < len(mantissa) && mantissa[0] != '0' {
			mantissa, exponent = mantissa[:at]+"."+mantissa[at:], exponent+len(mantissa)-at
		} else if at == 0 {
			mantissa, exponent = "0.00"+mantissa, exponent+len(mantissa)+2
		}
		if mantissa[0] == '0' && mantissa[1:] != "" && mantissa[1] != '.' {
			mantissa = "0"
		}
		sign := [...]string{"", "-"}[random.IntN(2)]
		list = append(list, sign+mantissa+[...]string{"e", "E"}[random.IntN(2)]+strconv.Itoa(exponent))
	}
	return list
}

// digits takes what a double is written as apart.
func digits(f float64) (mantissa string, exponent int) {
	before, after, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	whole, fraction, _ := strings.Cut(before, ".")
	exponent, _ = strconv.Atoi(after)
	return whole + fraction, exponent - len(fraction)
}

func TestTinyNumbers(t *testing.T) {
	tiny := 0
	for _, text := range tinyNumbers(rand.New(rand.NewPCG(1, 2)), 10000) {
		v := parse(t, text)
		got, _ := v.Float()
		want, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Float64bits(got) != math.Float64bits(want) && want != 0 || got != want {
			t.Fatalf("%s: %v (%x), want %v (%x), %v", text, got, math.Float64bits(got), want, math.Float64bits(want), err)
		}
		checkNumber(t, v)
		if want != 0 && math.Abs(want) < 0x1p-1022 {
			tiny++
		}
	}
	if tiny < 2000 {
		t.Errorf("only %d numbers were tiny", tiny)
	}
}

// BenchmarkFloat is what a number costs: where they are tiny, strconv takes some
// fifteen microseconds for each.
func BenchmarkFloat(b *testing.B) {
	for _, text := range []string{"1.5", "5e-324", "2.225073858507201e-308"} {
		list, err := jcs.Parse(fmt.Appendf(nil, "[%s]", strings.TrimSuffix(strings.Repeat(text+",", 1000), ",")), jcs.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for v := range list.All() {
					v.Float()
				}
			}
		})
	}
}
