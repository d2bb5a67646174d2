package record

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads a value that is not nested from its text, as AppendText writes it, and timestamps in all forms of
// ParseTime.
func Parse(t Type, s string) (Value, error) { return Reading{}.Parse(t, s) }

// Parse is Parse, in another way.
func (how Reading) Parse(t Type, s string) (v Value, err error) {
	why := error(nil)
	switch t.Kind {
	case Timestamp:
		v, why = how.parseTimestamp(s)
	case Date:
		v, why = parseDate(s)
	default:
		v, err = parse(t.Kind, s)
	}
	switch {
	case why != nil:
		return Value{}, fmt.Errorf("%.60q is not a valid %s%w", s, t, why)
	case err != nil:
		return Value{}, fmt.Errorf("%.60q is not a valid %s", s, t)
	}
	return v, nil
}

var errParse = fmt.Errorf("does not parse")

func parse(k Kind, s string) (Value, error) {
	switch k {
	case Boolean:
		b, err := strconv.ParseBool(s)
		return Bool(b), err
	case TinyInt, SmallInt, Int, BigInt:
		n, err := strconv.ParseInt(s, 10, IntBits(k))
		return Number(k, n), err
	case Float:
		f, err := strconv.ParseFloat(s, 32)
		return Float32(float32(f)), err
	case Double:
		f, err := strconv.ParseFloat(s, 64)
		if math.IsNaN(f) {
			// as Java, and so Cassandra, has it: Go's own differs in a bit
			f = math.Float64frombits(0x7ff8_0000_0000_0000)
		}
		return Float64(f), err
	case Text:
		if !utf8.ValidString(s) {
			return Value{}, errParse
		}
		return String(s), nil
	case Blob:
		b, err := base64.StdEncoding.DecodeString(s)
		return Bytes(Blob, string(b)), err
	case UUID, TimeUUID:
		b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
		if err != nil || len(b) != 16 || (k == TimeUUID && b[6]>>4 != 1) {
			return Value{}, errParse
		}
		return Bytes(k, string(b)), nil
	case Inet:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return Value{}, errParse
		}
		return Bytes(Inet, string(a.AsSlice())), nil
	case Varint:
		n, ok := parseBig(s)
		if !ok {
			return Value{}, errParse
		}
		return Bytes(Varint, VarintBytes(n)), nil
	case Decimal:
		return parseDecimal(s)
	case Time:
		return parseTimeOfDay(s)
	case Duration:
		return parseDuration(s)
	}
	return Value{}, errParse
}

// IntBits is the width of an integer kind.
func IntBits(k Kind) int {
	switch k {
	case TinyInt:
		return 8
	case SmallInt:
		return 16
	case Int:
		return 32
	}
	return 64
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func parseDecimal(s string) (Value, error) {
	mantissa, exponent, has := strings.Cut(strings.ToUpper(s), "E")
	scale := int64(0)
	if has {
		e, err := strconv.ParseInt(exponent, 10, 64)
		if err != nil {
			return Value{}, err
		}
		scale = -e
	}
	if whole, fraction, dot := strings.Cut(mantissa, "."); dot {
		mantissa = whole + fraction
		scale += int64(len(fraction))
	}
	n, ok := parseBig(mantissa)
	if !ok || scale != int64(int32(scale)) {
		return Value{}, errParse
	}
	return Dec(VarintBytes(n), int32(scale)), nil
}

func parseBig(s string) (*big.Int, bool) {
	if len(s) > 10_000 { // parsing takes time by the square of the length
		return nil, false
	}
	return new(big.Int).SetString(s, 10)
}

// parseDuration reads numbers with units, all of one sign, which stands in front; and, as AppendText writes a span
// whose parts differ in sign, a sign before each number but the first.
func parseDuration(s string) (Value, error) {
	s, negative := strings.CutPrefix(s, "-")
	type unit struct {
		name string
		of   int // 0: months, 1: days, 2: nanoseconds
		n    uint64
	}
	units := []unit{
		{"mo", 0, 1}, {"ms", 2, 1e6}, {"us", 2, 1e3}, {"µs", 2, 1e3}, {"ns", 2, 1},
		{"y", 0, 12}, {"w", 1, 7}, {"d", 1, 1}, {"h", 2, 3600e9}, {"m", 2, 60e9}, {"s", 2, 1e9},
	}
	var sums [3]uint64
	var minus [3]bool
	for first := true; s != "" || first; first = false {
		rest, below := strings.CutPrefix(s, "-")
		if below && (first || negative) {
			return Value{}, errParse
		}
		s = rest
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseUint(s[:digits], 10, 64)
		if err != nil {
			return Value{}, errParse
		}
		s = s[digits:]
		i := slices.IndexFunc(units, func(u unit) bool { return strings.HasPrefix(s, u.name) })
		if i < 0 {
			return Value{}, errParse
		}
		of := units[i].of
		s = s[len(units[i].name):]
		high, low := bits.Mul64(n, units[i].n)
		sum, carry := bits.Add64(sums[of], low, 0)
		limit := [3]uint64{math.MaxInt32, math.MaxInt32, math.MaxInt64}[of]
		if below || negative {
			limit++ // negative numbers reach one further
		}
		if high != 0 || carry != 0 || sum > limit || sums[of] != 0 && minus[of] != below {
			return Value{}, errParse
		}
		sums[of], minus[of] = sum, below
	}
	var signed [3]int64
	for i, sum := range sums {
		signed[i] = int64(sum)
		if negative || minus[i] {
			signed[i] = int64(-sum)
		}
	}
	return Span(int32(signed[0]), int32(signed[1]), signed[2]), nil
}
