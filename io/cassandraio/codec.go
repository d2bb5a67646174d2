package cassandraio

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"
	"unsafe"

	"reprise/io/cassandraio/plan"
	"reprise/transforms/record"
)

// decodeValue reads the binary form that version 4 of the native protocol gives a value of type t. A nil data is
// a null. So is empty data of a type that needs bytes, which Cassandra allows for historical reasons.
//
// Text and bytes of the value alias data, which must not be changed afterwards.
func decodeValue(t record.Type, data []byte) (record.Value, error) {
	if data == nil {
		return record.NullValue, nil
	}
	if len(data) == 0 && t.Kind != record.Text && t.Kind != record.Blob {
		return record.NullValue, nil
	}
	if size := plan.Size(t.Kind); size != 0 && len(data) != size {
		return record.Value{}, fmt.Errorf("a %s has %d bytes, not %d", t.Kind, size, len(data))
	}
	switch t.Kind {
	case record.Boolean:
		return record.Bool(data[0] != 0), nil
	case record.TinyInt:
		return record.Number(t.Kind, int64(int8(data[0]))), nil
	case record.SmallInt:
		return record.Number(t.Kind, int64(int16(binary.BigEndian.Uint16(data)))), nil
	case record.Int:
		return record.Number(t.Kind, int64(int32(binary.BigEndian.Uint32(data)))), nil
	case record.BigInt, record.Timestamp, record.Time:
		return record.Number(t.Kind, int64(binary.BigEndian.Uint64(data))), nil
	case record.Date:
		return record.Number(t.Kind, int64(binary.BigEndian.Uint32(data))-dateCentre), nil
	case record.Float:
		return record.Float32(math.Float32frombits(binary.BigEndian.Uint32(data))), nil
	case record.Double:
		return record.Float64(math.Float64frombits(binary.BigEndian.Uint64(data))), nil
	case record.Text:
		if !utf8.Valid(data) {
			return record.Value{}, errUTF8
		}
		return record.String(alias(data)), nil
	case record.Blob, record.UUID, record.TimeUUID, record.Varint:
		return record.Bytes(t.Kind, alias(data)), nil
	case record.Inet:
		if len(data) != 4 && len(data) != 16 {
			return record.Value{}, fmt.Errorf("an inet has 4 or 16 bytes, not %d", len(data))
		}
		return record.Bytes(record.Inet, alias(data)), nil
	case record.Decimal:
		if len(data) < 5 {
			return record.Value{}, fmt.Errorf("a decimal has at least 5 bytes, not %d", len(data))
		}
		return record.Dec(alias(data[4:]), int32(binary.BigEndian.Uint32(data))), nil
	case record.Duration:
		return decodeDuration(data)
	case record.List, record.Set, record.Map:
		return decodeCollection(t, data)
	case record.Tuple, record.UDT:
		return decodeTuple(t, data)
	case record.Vector:
		return decodeVector(t, data)
	}
	return record.Value{}, fmt.Errorf("there are no values of type %s", t)
}

// appendValue appends the binary form of v as a value of type t. Integers may be narrower than t, a float may stand for
// a double and a timeuuid for a uuid; a tuple or UDT may have fewer parts than t, the rest is null. Everything
// else that is not of the type, and a null, is an error.
func appendValue(b []byte, t record.Type, v record.Value) ([]byte, error) {
	if !fits(v.Kind(), t.Kind) {
		return b, fmt.Errorf("a %s does not fit the type %s", v.Kind(), t)
	}
	switch t.Kind {
	case record.Boolean:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		return appendInt(b, t.Kind, v.Int())
	case record.Timestamp, record.Time:
		return binary.BigEndian.AppendUint64(b, uint64(v.Int())), nil
	case record.Date:
		day := v.Int() + dateCentre
		if day < 0 || day > math.MaxUint32 {
			return b, fmt.Errorf("day %d is out of the range of a date", v.Int())
		}
		return binary.BigEndian.AppendUint32(b, uint32(day)), nil
	case record.Float:
		return binary.BigEndian.AppendUint32(b, math.Float32bits(float32(v.Float()))), nil
	case record.Double:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
	case record.Text:
		if !utf8.ValidString(v.Str()) {
			return b, errUTF8
		}
		return append(b, v.Str()...), nil
	case record.Blob:
		return append(b, v.Str()...), nil
	case record.UUID, record.TimeUUID:
		if len(v.Str()) != 16 {
			return b, fmt.Errorf("a %s has 16 bytes, not %d", t.Kind, len(v.Str()))
		}
		return append(b, v.Str()...), nil
	case record.Inet:
		if n := len(v.Str()); n != 4 && n != 16 {
			return b, fmt.Errorf("an inet has 4 or 16 bytes, not %d", n)
		}
		return append(b, v.Str()...), nil
	case record.Varint, record.Decimal:
		if v.Str() == "" {
			return b, fmt.Errorf("a %s has no digits", t.Kind)
		}
		if t.Kind == record.Decimal {
			b = binary.BigEndian.AppendUint32(b, uint32(v.Int()))
		}
		return append(b, v.Str()...), nil
	case record.Duration:
		months, days, nanos := v.Span()
		b = appendVint(b, int64(months))
		b = appendVint(b, int64(days))
		return appendVint(b, nanos), nil
	case record.List, record.Set, record.Map:
		return appendCollection(b, t, v.Elems())
	case record.Tuple, record.UDT:
		return appendTuple(b, t, v.Elems())
	case record.Vector:
		return appendVector(b, t, v.Elems())
	}
	return b, fmt.Errorf("there are no values of type %s", t)
}

// takes tells whether every value of type t can be written as the type column.
func takes(column, t record.Type) bool {
	if !fits(t.Kind, column.Kind) || column.Dim != t.Dim || len(t.Elems) > len(column.Elems) {
		return false
	}
	if len(t.Elems) < len(column.Elems) && t.Kind != record.Tuple && t.Kind != record.UDT {
		return false
	}
	for i := range t.Elems {
		if !takes(column.Elems[i], t.Elems[i]) || t.Kind == record.UDT && t.Names[i] != column.Names[i] {
			return false
		}
	}
	return true
}

func fits(v, t record.Kind) bool {
	switch {
	case v == t:
		return v > record.Null
	case t.Integer():
		return v.Integer() && record.IntBits(v) < record.IntBits(t)
	}
	return v == record.Float && t == record.Double || v == record.TimeUUID && t == record.UUID
}

const dateCentre = 1 << 31 // the number of 1970-01-01 in a date

var errUTF8 = fmt.Errorf("the text is not UTF-8")

func alias(data []byte) string { return unsafe.String(unsafe.SliceData(data), len(data)) }

func appendInt(b []byte, k record.Kind, n int64) ([]byte, error) {
	size := record.IntBits(k) / 8
	if unused := 64 - 8*size; n<<unused>>unused != n {
		return b, fmt.Errorf("%d is out of the range of a %s", n, k)
	}
	for shift := 8 * (size - 1); shift >= 0; shift -= 8 {
		b = append(b, byte(n>>shift))
	}
	return b, nil
}

// A list, set or map is the number of its elements or pairs, then each value with its length (all 4 bytes).

func decodeCollection(t record.Type, data []byte) (record.Value, error) {
	if len(data) < 4 {
		return record.Value{}, errCut(t)
	}
	n := int(int32(binary.BigEndian.Uint32(data)))
	if t.Kind == record.Map {
		n *= 2
	}
	if data = data[4:]; n < 0 || n > len(data)/4 {
		return record.Value{}, errCut(t)
	}
	parts := make([]record.Value, n)
	for i := range parts {
		part, rest, ok := cutPart(data)
		if !ok {
			return record.Value{}, errCut(t)
		}
		var err error
		if parts[i], err = decodeValue(t.Elems[i%len(t.Elems)], part); err != nil {
			return record.Value{}, inside(t, i, err)
		}
		data = rest
	}
	if len(data) > 0 {
		return record.Value{}, fmt.Errorf("%d bytes after the last element of a %s", len(data), t)
	}
	return record.Nested(t.Kind, parts), nil
}

func appendCollection(b []byte, t record.Type, parts []record.Value) ([]byte, error) {
	if len(parts)%len(t.Elems) != 0 {
		return b, fmt.Errorf("the last key of a map has no value")
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(parts)/len(t.Elems)))
	var err error
	for i, p := range parts {
		if p.IsNull() {
			return b, fmt.Errorf("a %s cannot hold a null", t)
		}
		if b, err = appendPart(b, t.Elems[i%len(t.Elems)], p); err != nil {
			return b, inside(t, i, err)
		}
	}
	return b, nil
}

// A tuple or UDT is each of its parts with its length (4 bytes; -1 for a null); the last ones may be missing.

func decodeTuple(t record.Type, data []byte) (record.Value, error) {
	parts := make([]record.Value, len(t.Elems))
	for i := range parts {
		if len(data) == 0 {
			parts[i] = record.NullValue
			continue
		}
		part, rest, ok := cutPart(data)
		if !ok {
			return record.Value{}, errCut(t)
		}
		var err error
		if parts[i], err = decodeValue(t.Elems[i], part); err != nil {
			return record.Value{}, inside(t, i, err)
		}
		data = rest
	}
	if len(data) > 0 {
		return record.Value{}, fmt.Errorf("%d bytes after the last part of a %s", len(data), t)
	}
	return record.Nested(t.Kind, parts), nil
}

func appendTuple(b []byte, t record.Type, parts []record.Value) ([]byte, error) {
	if len(parts) > len(t.Elems) {
		return b, fmt.Errorf("%d parts do not fit the type %s", len(parts), t)
	}
	var err error
	for i := range t.Elems {
		if i >= len(parts) || parts[i].IsNull() {
			b = binary.BigEndian.AppendUint32(b, math.MaxUint32)
			continue
		}
		if b, err = appendPart(b, t.Elems[i], parts[i]); err != nil {
			return b, inside(t, i, err)
		}
	}
	return b, nil
}

// A vector is its elements, one after the other; each with its length (unsigned vint) where vectorSize is 0.

func decodeVector(t record.Type, data []byte) (record.Value, error) {
	size := vectorSize(t.Elems[0])
	if t.Dim < 1 || (size > 0 && len(data) != size*t.Dim) || t.Dim > len(data) {
		return record.Value{}, fmt.Errorf("%d bytes are no %s", len(data), t)
	}
	parts := make([]record.Value, t.Dim)
	for i := range parts {
		n := uint64(size)
		if size == 0 {
			var ok bool
			if n, data, ok = cutUvint(data); !ok || n > uint64(len(data)) {
				return record.Value{}, errCut(t)
			}
		}
		var err error
		if parts[i], err = decodeValue(t.Elems[0], data[:n:n]); err != nil {
			return record.Value{}, inside(t, i, err)
		}
		data = data[n:]
	}
	if len(data) > 0 {
		return record.Value{}, fmt.Errorf("%d bytes after the last element of a %s", len(data), t)
	}
	return record.Nested(t.Kind, parts), nil
}

func appendVector(b []byte, t record.Type, parts []record.Value) ([]byte, error) {
	if len(parts) != t.Dim {
		return b, fmt.Errorf("%d elements do not fit the type %s", len(parts), t)
	}
	size := vectorSize(t.Elems[0])
	var element []byte
	var err error
	for i, p := range parts {
		if p.IsNull() {
			return b, fmt.Errorf("a %s cannot hold a null", t)
		}
		if size > 0 {
			b, err = appendValue(b, t.Elems[0], p)
		} else if element, err = appendValue(element[:0], t.Elems[0], p); err == nil {
			b = append(appendUvint(b, uint64(len(element))), element...)
		}
		if err != nil {
			return b, inside(t, i, err)
		}
	}
	return b, nil
}

// vectorSize is the number of bytes of an element of a vector; 0: each tells its own. Cassandra counts some types of
// a fixed size to the latter.
func vectorSize(t record.Type) int {
	switch t.Kind {
	case record.TinyInt, record.SmallInt, record.Date, record.Time:
		return 0
	case record.Vector:
		return t.Dim * vectorSize(t.Elems[0])
	}
	return plan.Size(t.Kind)
}

// cutPart takes a value with its length; a nil part is a null.
func cutPart(data []byte) (part, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(data)))
	data = data[4:]
	if n < 0 {
		return nil, data, true
	}
	if n > len(data) {
		return nil, nil, false
	}
	return data[:n:n], data[n:], true
}

func appendPart(b []byte, t record.Type, v record.Value) ([]byte, error) {
	at := len(b)
	b, err := appendValue(append(b, 0, 0, 0, 0), t, v)
	n := len(b) - at - 4
	if err == nil && n > math.MaxInt32 {
		err = fmt.Errorf("a %s of %d bytes is too long", t, n)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(n))
	return b, err
}

func errCut(t record.Type) error { return fmt.Errorf("the bytes of a %s are cut short or damaged", t) }

func inside(t record.Type, i int, err error) error {
	if t.Kind == record.UDT {
		return fmt.Errorf("in %s of a %s: %w", t.Names[i], t, err)
	}
	return fmt.Errorf("in part %d of a %s: %w", i+1, t, err)
}

// A duration is its months, days and nanoseconds, each a vint: an unsigned vint after zigzag. The first byte of
// an unsigned vint starts with a one for each byte that follows.

func decodeDuration(data []byte) (record.Value, error) {
	var n [3]int64
	for i := range n {
		u, rest, ok := cutUvint(data)
		if !ok {
			return record.Value{}, errCut(record.Of(record.Duration))
		}
		n[i], data = int64(u>>1)^-int64(u&1), rest
	}
	if len(data) > 0 || n[0] != int64(int32(n[0])) || n[1] != int64(int32(n[1])) {
		return record.Value{}, errCut(record.Of(record.Duration))
	}
	return record.Span(int32(n[0]), int32(n[1]), n[2]), nil
}

func cutUvint(data []byte) (n uint64, rest []byte, ok bool) {
	if len(data) == 0 {
		return 0, nil, false
	}
	more := bits.LeadingZeros8(^data[0])
	if len(data) < 1+more {
		return 0, nil, false
	}
	n = uint64(data[0]) & (0xff >> more)
	for _, c := range data[1 : 1+more] {
		n = n<<8 | uint64(c)
	}
	return n, data[1+more:], true
}

func appendVint(b []byte, n int64) []byte { return appendUvint(b, uint64(n<<1)^uint64(n>>63)) }

func appendUvint(b []byte, n uint64) []byte {
	more := min(8, (bits.Len64(n|1)-1)/7)
	ones := ^byte(0xff >> more)
	if more == 8 {
		b = append(b, ones)
	} else {
		b = append(b, ones|byte(n>>(8*more)))
	}
	for shift := 8 * (more - 1); shift >= 0; shift -= 8 {
		b = append(b, byte(n>>shift))
	}
	return b
}
