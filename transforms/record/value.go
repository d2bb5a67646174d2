package record

import (
	"encoding/binary"
	"math"
	"math/big"
	"net/netip"
	"time"
)

// Value is one typed value. Its zero value is Unset. Values are immutable: they may be shared between records.
//
// Numbers, booleans and times live in num; text and everything else with bytes in str; the parts of nested
// values in elems (a map's as key, value, key, value, ...).
type Value struct {
	kind  Kind
	num   uint64
	str   string
	elems []Value
}

// NullValue is a null.
var NullValue = Value{kind: Null}

// Bool is a boolean value.
func Bool(b bool) Value {
	v := Value{kind: Boolean}
	if b {
		v.num = 1
	}
	return v
}

// Number is a value of an integer kind or of Timestamp (ms), Date (days) or Time (ns).
func Number(k Kind, n int64) Value { return Value{kind: k, num: uint64(n)} }

// Float64 is a double.
func Float64(f float64) Value { return Value{kind: Double, num: math.Float64bits(f)} }

// Float32 is a float.
func Float32(f float32) Value { return Value{kind: Float, num: math.Float64bits(float64(f))} }

// String is a text value; it must be UTF-8.
func String(s string) Value { return Value{kind: Text, str: s} }

// Bytes is a value of a kind that is made of bytes: Blob (as they are), UUID and TimeUUID (16 bytes), Inet (4 or 16),
// Varint (big-endian two's complement, as Cassandra stores it).
func Bytes(k Kind, b string) Value { return Value{kind: k, str: b} }

// Dec is the decimal unscaled * 10^-scale, unscaled as in Bytes(Varint).
func Dec(unscaled string, scale int32) Value {
	return Value{kind: Decimal, num: uint64(int64(scale)), str: unscaled}
}

// Span is a duration.
func Span(months, days int32, nanos int64) Value {
	return Value{kind: Duration, num: uint64(uint32(months))<<32 | uint64(uint32(days)),
		str: string(binary.BigEndian.AppendUint64(nil, uint64(nanos)))}
}

// Nested is a List, Set, Map (key, value, key, value, ...), Tuple, UDT or Vector of the given parts, which it keeps.
func Nested(k Kind, parts []Value) Value { return Value{kind: k, elems: parts} }

// Kind is the kind of the value.
func (v Value) Kind() Kind { return v.kind }

// IsNull tells whether the value is Null or Unset.
func (v Value) IsNull() bool { return v.kind <= Null }

// Int is the number of a Boolean (0, 1), an integer kind, Timestamp, Date or Time; the scale of a Decimal.
func (v Value) Int() int64 { return int64(v.num) }

// Bool is the truth of a Boolean.
func (v Value) Bool() bool { return v.num != 0 }

// Float is the number of a Float or Double.
func (v Value) Float() float64 { return math.Float64frombits(v.num) }

// Str is the text of a Text and the bytes of the other kinds that are made of bytes.
func (v Value) Str() string { return v.str }

// Elems are the parts of a nested value; not to be changed.
func (v Value) Elems() []Value { return v.elems }

// Time is the time of a Timestamp or a TimeUUID, the day of a Date, in UTC.
func (v Value) Time() time.Time {
	switch v.kind {
	case Timestamp:
		return time.UnixMilli(v.Int()).UTC()
	case Date:
		return time.Unix(v.Int()*86400, 0).UTC()
	case TimeUUID:
		return UUIDTime(v.str)
	}
	return time.Time{}
}

// Span is the content of a Duration.
func (v Value) Span() (months, days int32, nanos int64) {
	return int32(v.num >> 32), int32(v.num), int64(binary.BigEndian.Uint64([]byte(v.str)))
}

// BigInt is the number of a Varint, or the unscaled number of a Decimal.
func (v Value) BigInt() *big.Int {
	n := new(big.Int).SetBytes([]byte(v.str))
	if len(v.str) > 0 && v.str[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(v.str))*8))
	}
	return n
}

// VarintBytes is n in the form that Bytes(Varint) and Dec take.
func VarintBytes(n *big.Int) string {
	if n.Sign() >= 0 {
		b := n.Bytes()
		if len(b) == 0 || b[0]&0x80 != 0 {
			b = append([]byte{0}, b...)
		}
		return string(b)
	}
	// Two's complement of the smallest number of bytes that holds n.
	length := uint(new(big.Int).Not(n).BitLen()/8 + 1)
	b := new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), length*8)).Bytes()
	return string(b)
}

// Addr is the address of an Inet.
func (v Value) Addr() netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(v.str))
	return a
}

// gregorian is the start of a timeuuid's clock, in ticks of 100 ns before 1970 (RFC 9562, 5.1).
const gregorian = 0x01B21DD213814000

// UUIDTime is the time in the 16 bytes of a version 1 UUID.
func UUIDTime(u string) time.Time {
	if len(u) != 16 {
		return time.Time{}
	}
	b := []byte(u)
	ticks := int64(binary.BigEndian.Uint16(b[6:])&0x0fff)<<48 | int64(binary.BigEndian.Uint16(b[4:]))<<32 |
		int64(binary.BigEndian.Uint32(b))
	ticks -= gregorian
	return time.Unix(ticks/1e7, ticks%1e7*100).UTC()
}

// Equal tells whether two values are the same: kind, content and, in lists, sets and maps, order.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.num != w.num || v.str != w.str || len(v.elems) != len(w.elems) {
		return false
	}
	for i := range v.elems {
		if !v.elems[i].Equal(w.elems[i]) {
			return false
		}
	}
	return true
}

// Size is about the number of bytes that the value takes in memory and on the wire.
func (v Value) Size() int {
	n := 8 + len(v.str)
	for _, e := range v.elems {
		n += e.Size()
	}
	return n
}
