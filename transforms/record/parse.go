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
	"time"
)

// Parse reads a value that is not nested from its text, as AppendText writes it; timestamps also without a zone (UTC),
// as a date alone, or as milliseconds.
func Parse(t Type, s string) (Value, error) {
	v, err := parse(t.Kind, s)
	if err != nil {
		return Value{}, fmt.Errorf("%.60q is no %s", s, t)
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
		return Float64(f), err
	case Text:
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
	case Timestamp:
		if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
			return Number(Timestamp, ms), nil
		}
		if at, cycles, ok := parseTime(s, time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", time.DateOnly); ok {
			return Number(Timestamp, at.UnixMilli()+cycles*cycleDays*86_400_000), nil
		}
	case Date:
		at, cycles, ok := parseTime(s, time.DateOnly)
		days := floorDiv(at.Unix(), 86400) + cycles*cycleDays
		if !ok || days != int64(int32(days)) {
			return Value{}, errParse
		}
		return Number(Date, days), nil
	case Time:
		at, err := time.Parse("15:04:05.999999999", s)
		midnight := at.Truncate(24 * time.Hour)
		return Number(Time, int64(at.Sub(midnight))), err
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

// cycleDays are the days of 400 years, after which the calendar repeats itself.
const cycleDays = 146_097

// parseTime reads a time whose year may have a sign and more than four digits, which package time cannot read: as that of a
// year with four digits, some cycles away.
func parseTime(s string, layouts ...string) (at time.Time, cycles int64, ok bool) {
	if end := strings.IndexByte(strings.TrimPrefix(s, "-"), '-') + len(s) - len(strings.TrimPrefix(s, "-")); end > 4 && end <= 10 {
		year, err := strconv.ParseInt(s[:end], 10, 64)
		if err != nil || year < -292_000_000 || year > 292_000_000 { // what milliseconds in 64 bits hold
			return at, 0, false
		}
		cycles = floorDiv(year-2000, 400)
		s = strconv.FormatInt(year-400*cycles, 10) + s[end:]
	}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, s); err == nil {
			return at, cycles, true
		}
	}
	return at, 0, false
}

func parseDuration(s string) (Value, error) {
	s, negative := strings.CutPrefix(s, "-")
	var beyond uint64 // negative numbers reach one further
	if negative {
		beyond = 1
	}
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
	limits := [3]uint64{math.MaxInt32 + beyond, math.MaxInt32 + beyond, math.MaxInt64 + beyond}
	for first := true; s != "" || first; first = false {
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
		s = s[len(units[i].name):]
		high, low := bits.Mul64(n, units[i].n)
		sum, carry := bits.Add64(sums[units[i].of], low, 0)
		if high != 0 || carry != 0 || sum > limits[units[i].of] {
			return Value{}, errParse
		}
		sums[units[i].of] = sum
	}
	if negative {
		return Span(int32(-int64(sums[0])), int32(-int64(sums[1])), int64(-sums[2])), nil
	}
	return Span(int32(sums[0]), int32(sums[1]), int64(sums[2])), nil
}
