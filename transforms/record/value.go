package record

import (
	"encoding/binary"
	"math"
	"math/big"
	"net/netip"
	"time"
	"unsafe"
)

// Value is one typed value. Its zero value is Unset. Values are immutable: they may be shared between records.
//
// A value takes 24 bytes: n is the number of a Boolean, integer, float (its bits) or time; else the length of what p
// points to, bytes or, for nested values, other values (a map's as key, value, key, value, ...).
type Value struct {
	p     unsafe.Pointer
	n     uint64
	scale int32 // of a Decimal
	kind  Kind
}

// NullValue is a null.
var NullValue = Value{kind: Null}

// Bool is a boolean value.
func Bool(b bool) Value {
	v := Value{kind: Boolean}
	if b {
		v.n = 1
	}
	return v
}

// Number is a value of an integer kind or of Timestamp (ms), Date (days) or Time (ns).
func Number(k Kind, n int64) Value { return Value{kind: k, n: uint64(n)} }

// Float64 is a double.
func Float64(f float64) Value { return Value{kind: Double, n: math.Float64bits(f)} }

// Float32 is a float.
func Float32(f float32) Value { return Value{kind: Float, n: math.Float64bits(float64(f))} }

// String is a text value; it must be UTF-8.
func String(s string) Value { return Bytes(Text, s) }

// Bytes is a value of a kind that is made of bytes: Blob (as they are), UUID and TimeUUID (16 bytes), Inet (4 or 16),
// Varint (big-endian two's complement, as Cassandra stores it).
func Bytes(k Kind, b string) Value {
	return Value{kind: k, p: unsafe.Pointer(unsafe.StringData(b)), n: uint64(len(b))}
}

// Dec is the decimal unscaled * 10^-scale, unscaled as in Bytes(Varint).
func Dec(unscaled string, scale int32) Value {
	v := Bytes(Decimal, unscaled)
	v.scale = scale
	return v
}

// Span is a duration.
func Span(months, days int32, nanos int64) Value {
	b := make([]byte, 0, 16)
	b = binary.BigEndian.AppendUint32(b, uint32(months))
	b = binary.BigEndian.AppendUint32(b, uint32(days))
	return Bytes(Duration, string(binary.BigEndian.AppendUint64(b, uint64(nanos))))
}

// Nested is a List, Set, Map (key, value, key, value, ...), Tuple, UDT or Vector of the given parts, which it keeps.
func Nested(k Kind, parts []Value) Value {
	return Value{kind: k, p: unsafe.Pointer(unsafe.SliceData(parts)), n: uint64(len(parts))}
}

// Kind is the kind of the value.
func (v Value) Kind() Kind { return v.kind }

// IsNull tells whether the value is Null or Unset.
func (v Value) IsNull() bool { return v.kind <= Null }

// plain tells whether the kind is held in n alone.
func (k Kind) plain() bool {
	return k >= Boolean && k <= BigInt || k == Float || k == Double || k >= Timestamp && k <= Time
}

// Int is the number of a Boolean (0, 1), an integer kind, Timestamp, Date or Time; the scale of a Decimal.
func (v Value) Int() int64 {
	if v.kind == Decimal {
		return int64(v.scale)
	}
	return int64(v.n)
}

// Bool is the truth of a Boolean.
func (v Value) Bool() bool { return v.n != 0 }

// Float is the number of a Float or Double.
func (v Value) Float() float64 { return math.Float64frombits(v.n) }

// Str is the text of a Text and the bytes of the other kinds that are made of bytes.
func (v Value) Str() string {
	if v.kind.plain() || v.kind.Nested() {
		return ""
	}
	return unsafe.String((*byte)(v.p), int(v.n))
}

// Elems are the parts of a nested value; not to be changed.
func (v Value) Elems() []Value {
	if !v.kind.Nested() {
		return nil
	}
	return unsafe.Slice((*Value)(v.p), int(v.n))
}

// Time is the time of a Timestamp or a TimeUUID, the day of a Date, in UTC.
func (v Value) Time() time.Time {
	switch v.kind {
	case Timestamp:
		return time.UnixMilli(v.Int()).UTC()
	case Date:
		return time.Unix(v.Int()*86400, 0).UTC()
	case TimeUUID:
		return UUIDTime(v.Str())
	}
	return time.Time{}
}

// Span is the content of a Duration.
func (v Value) Span() (months, days int32, nanos int64) {
	b := []byte(v.Str())
	if v.kind != Duration || len(b) != 16 {
		return 0, 0, 0
	}
	return int32(binary.BigEndian.Uint32(b)), int32(binary.BigEndian.Uint32(b[4:])),
		int64(binary.BigEndian.Uint64(b[8:]))
}

// BigInt is the number of a Varint, or the unscaled number of a Decimal.
func (v Value) BigInt() *big.Int {
	digits := v.Str()
	n := new(big.Int).SetBytes([]byte(digits))
	if len(digits) > 0 && digits[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(digits))*8))
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
	a, _ := netip.AddrFromSlice([]byte(v.Str()))
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
	if v.kind != w.kind || v.n != w.n || v.scale != w.scale {
		return false
	}
	if !v.kind.Nested() {
		return v.Str() == w.Str()
	}
	a, b := v.Elems(), w.Elems()
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// Size is about the number of bytes that the value takes in memory and on the wire.
func (v Value) Size() int {
	const self = int(unsafe.Sizeof(v))
	switch {
	case v.kind.Nested():
		n := self
		for _, e := range v.Elems() {
			n += e.Size()
		}
		return n
	case v.kind.plain():
		return self
	}
	return self + int(v.n)
}
