package record

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"net/netip"
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
		n, ok := new(big.Int).SetString(s, 10)
		if !ok || len(s) > 10_000 {
			return Value{}, errParse
		}
		return Bytes(Varint, VarintBytes(n)), nil
	case Decimal:
		return parseDecimal(s)
	case Timestamp:
		if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
			return Number(Timestamp, ms), nil
		}
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", time.DateOnly} {
			if at, err := time.Parse(layout, s); err == nil {
				return Number(Timestamp, at.UnixMilli()), nil
			}
		}
	case Date:
		at, err := time.Parse(time.DateOnly, s)
		return Number(Date, floorDiv(at.Unix(), 86400)), err
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
		e, err := strconv.ParseInt(exponent, 10, 32)
		if err != nil {
			return Value{}, err
		}
		scale = -e
	}
	if whole, fraction, dot := strings.Cut(mantissa, "."); dot {
		mantissa = whole + fraction
		scale += int64(len(fraction))
	}
	n, ok := new(big.Int).SetString(mantissa, 10)
	if !ok || len(s) > 10_000 || scale != int64(int32(scale)) {
		return Value{}, errParse
	}
	return Dec(VarintBytes(n), int32(scale)), nil
}

func parseDuration(s string) (Value, error) {
	sign := int64(1)
	if strings.HasPrefix(s, "-") {
		sign, s = -1, s[1:]
	}
	units := []struct {
		name                string
		months, days, nanos int64
	}{
		{"mo", 1, 0, 0}, {"ms", 0, 0, 1e6}, {"us", 0, 0, 1e3}, {"µs", 0, 0, 1e3}, {"ns", 0, 0, 1},
		{"y", 12, 0, 0}, {"w", 0, 7, 0}, {"d", 0, 1, 0}, {"h", 0, 0, 3600e9}, {"m", 0, 0, 60e9}, {"s", 0, 0, 1e9},
	}
	var months, days, nanos int64
	for first := true; s != "" || first; first = false {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		n, err := strconv.ParseInt(s[:i], 10, 64)
		if err != nil {
			return Value{}, errParse
		}
		s = s[i:]
		found := false
		for _, u := range units {
			if strings.HasPrefix(s, u.name) {
				s = s[len(u.name):]
				months, days, nanos = months+n*u.months, days+n*u.days, nanos+n*u.nanos
				found = true
				break
			}
		}
		if !found || months > math.MaxInt32 || days > math.MaxInt32 || nanos < 0 {
			return Value{}, errParse
		}
	}
	return Span(int32(sign*months), int32(sign*days), sign*nanos), nil
}
