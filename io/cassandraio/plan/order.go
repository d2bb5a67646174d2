package plan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"reprise/transforms/record"
)

// Order is the key columns by which Cassandra orders rows. It turns their values, in the binary form of the protocol,
// into a position and back: bytes.Compare of two positions is the order in which Cassandra returns the rows. No
// position is the beginning of another one.
//
// The orders are those of the server's comparators (org.apache.cassandra.db.marshal: TimeUUIDType, UUIDType,
// IntegerType, DoubleType...); cassandraio's TestPositionsAgreeWithTheServer compares them on a real one.
type Order []Part

// Part is one column of a key.
type Part struct {
	Name string
	Kind record.Kind
	Desc bool // CLUSTERING ORDER BY ... DESC
}

var (
	// ErrPosition is the error of bytes that are no position in this order.
	ErrPosition = errors.New("the position does not belong to this table")
	// ErrNoPosition is the error of a row that has no position.
	ErrNoPosition = errors.New("the key has an empty value of a type that needs bytes")
)

// Check tells which column has a type whose order cannot be written as a position: decimal, and what is nested.
func (k Order) Check() error {
	for _, p := range k {
		switch p.Kind {
		case record.Text, record.Blob, record.Inet, record.Varint:
			continue
		}
		if Size(p.Kind) == 0 {
			return fmt.Errorf("column %q is a %s, by which no position can be made", p.Name, p.Kind)
		}
	}
	return nil
}

// Size is the number of bytes of every value of a kind; 0: it varies.
func Size(k record.Kind) int {
	switch k {
	case record.Boolean, record.TinyInt:
		return 1
	case record.SmallInt:
		return 2
	case record.Int, record.Date, record.Float:
		return 4
	case record.BigInt, record.Timestamp, record.Time, record.Double:
		return 8
	case record.UUID, record.TimeUUID:
		return 16
	}
	return 0
}

// Append appends the position of a row, whose values are those of the columns in order. A value of fixed size that is
// empty, which Cassandra allows, is ErrNoPosition.
func (k Order) Append(b []byte, values [][]byte) ([]byte, error) {
	for i, p := range k {
		from := len(b)
		var err error
		if b, err = AppendOrdered(b, p.Kind, values[i]); err != nil {
			return b, fmt.Errorf("column %q: %w", p.Name, err)
		}
		if p.Desc {
			invert(b[from:])
		}
	}
	return b, nil
}

// Values is the inverse of Append, or ErrPosition. Floats that are no number come back as one and the same.
func (k Order) Values(position []byte) ([][]byte, error) {
	values := make([][]byte, len(k))
	rest := position
	for i, p := range k {
		part := rest
		if p.Desc {
			part = bytes.Clone(rest)
			invert(part)
		}
		v, n, err := cutOrdered(p.Kind, part)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", p.Name, err)
		}
		values[i], rest = v, rest[n:]
	}
	if len(rest) > 0 {
		return values, ErrPosition
	}
	return values, nil
}

// Near is a valid position about where b would stand, which need not be one.
func (k Order) Near(b []byte) ([]byte, error) {
	values := make([][]byte, len(k))
	for i, p := range k {
		part := bytes.Clone(b)
		if p.Desc {
			invert(part)
		}
		n := 0
		values[i], n = nearOrdered(p.Kind, part)
		b = b[min(n, len(b)):]
	}
	return k.Append(nil, values)
}

// AppendOrdered appends a value of one ascending column.
func AppendOrdered(b []byte, kind record.Kind, v []byte) ([]byte, error) {
	if size := Size(kind); size > 0 && len(v) != size {
		return b, ErrNoPosition
	}
	switch kind {
	case record.Boolean:
		if v[0] != 0 {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Timestamp, record.Time:
		b = append(b, v[0]^0x80)
		return append(b, v[1:]...), nil
	case record.Date: // an unsigned number of days
		return append(b, v...), nil
	case record.Float:
		return binary.BigEndian.AppendUint32(b, orderFloat32(binary.BigEndian.Uint32(v))), nil
	case record.Double:
		return binary.BigEndian.AppendUint64(b, orderFloat64(binary.BigEndian.Uint64(v))), nil
	case record.Text, record.Blob, record.Inet:
		return appendEscaped(b, v), nil
	case record.TimeUUID:
		b = binary.BigEndian.AppendUint64(b, timeFirst(binary.BigEndian.Uint64(v)))
		return binary.BigEndian.AppendUint64(b, binary.BigEndian.Uint64(v[8:])^signBits), nil
	case record.UUID:
		high := binary.BigEndian.Uint64(v)
		version := byte(high >> 12 & 0xf)
		if version == 1 {
			high = timeFirst(high)
		}
		b = binary.BigEndian.AppendUint64(append(b, version), high)
		return append(b, v[8:]...), nil
	case record.Varint:
		return appendVarint(b, v)
	}
	return b, fmt.Errorf("no position can be made by a %s", kind)
}

// cutOrdered takes a value and tells how many bytes it took.
func cutOrdered(kind record.Kind, b []byte) (v []byte, n int, err error) {
	switch kind {
	case record.Text, record.Blob, record.Inet:
		return cutEscaped(b)
	case record.Varint:
		return cutVarint(b)
	case record.UUID:
		if len(b) < 17 {
			return nil, 0, ErrPosition
		}
		high := binary.BigEndian.Uint64(b[1:])
		if b[0] == 1 {
			high = timeLast(high)
		}
		return append(binary.BigEndian.AppendUint64(nil, high), b[9:17]...), 17, nil
	}
	n = Size(kind)
	if len(b) < n || n == 0 {
		return nil, 0, ErrPosition
	}
	v = bytes.Clone(b[:n])
	switch kind {
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Timestamp, record.Time:
		v[0] ^= 0x80
	case record.Float:
		binary.BigEndian.PutUint32(v, unorderFloat32(binary.BigEndian.Uint32(v)))
	case record.Double:
		binary.BigEndian.PutUint64(v, unorderFloat64(binary.BigEndian.Uint64(v)))
	case record.TimeUUID:
		binary.BigEndian.PutUint64(v, timeLast(binary.BigEndian.Uint64(v)))
		binary.BigEndian.PutUint64(v[8:], binary.BigEndian.Uint64(v[8:])^signBits)
	}
	return v, n, nil
}

// nearOrdered is cutOrdered for bytes that may be cut short or no value at all: it takes the nearest value it can make.
func nearOrdered(kind record.Kind, b []byte) (v []byte, n int) {
	switch kind {
	case record.Text, record.Blob, record.Inet:
		v, n, err := cutEscaped(b)
		if err != nil {
			v, n = bytes.Clone(b), len(b)
		}
		if kind == record.Text {
			v = validText(v)
		}
		if kind == record.Inet {
			size := 4
			if len(v) > 4 {
				size = 16
			}
			v = append(v, make([]byte, 16)...)[:size]
		}
		return v, n
	case record.Varint:
		if v, n, err := cutVarint(b); err == nil {
			return v, n
		}
		return []byte{0}, len(b)
	}
	size := Size(kind)
	if kind == record.UUID {
		size = 17
	}
	full := append(bytes.Clone(b[:min(len(b), size)]), make([]byte, size)...)[:size]
	switch kind {
	case record.UUID: // the version stands twice
		full[0] &= 0xf
		if full[0] == 1 {
			full[1] = 0x10 | full[1]&0xf
		} else {
			full[7] = full[0]<<4 | full[7]&0xf
		}
	case record.TimeUUID:
		full[0] = 0x10 | full[0]&0xf
	}
	v, n, _ = cutOrdered(kind, full)
	return v, n
}

// validText is the longest beginning of b that is UTF-8.
func validText(b []byte) []byte {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return b[:i]
		}
		i += n
	}
	return b
}

func invert(b []byte) {
	for i := range b {
		b[i] ^= 0xff
	}
}

// A value of any length ends with 00 00; a 00 within it is followed by FF.

func appendEscaped(b, v []byte) []byte {
	for _, c := range v {
		if b = append(b, c); c == 0 {
			b = append(b, 0xff)
		}
	}
	return append(b, 0, 0)
}

func cutEscaped(b []byte) (v []byte, n int, err error) {
	v = []byte{}
	for i := 0; i+1 < len(b); i++ {
		if b[i] != 0 {
			v = append(v, b[i])
			continue
		}
		i++
		switch b[i] {
		case 0:
			return v, i + 1, nil
		case 0xff:
			v = append(v, 0)
		default:
			return nil, 0, ErrPosition
		}
	}
	return nil, 0, ErrPosition
}

// Floats: Java's order, in which -0 is less than 0 and everything that is no number is the same and greatest.

func orderFloat32(u uint32) uint32 {
	if f := math.Float32frombits(u); f != f {
		u = 0x7fc00000
	}
	if u>>31 != 0 {
		return ^u
	}
	return u | 1<<31
}

func unorderFloat32(u uint32) uint32 {
	if u>>31 == 0 {
		return ^u
	}
	return u &^ (1 << 31)
}

func orderFloat64(u uint64) uint64 {
	if math.IsNaN(math.Float64frombits(u)) {
		u = 0x7ff8000000000000
	}
	if u>>63 != 0 {
		return ^u
	}
	return u | 1<<63
}

func unorderFloat64(u uint64) uint64 {
	if u>>63 == 0 {
		return ^u
	}
	return u &^ (1 << 63)
}

// Cassandra orders timeuuids by their time, then by the other eight bytes, each with a sign; other UUIDs by their
// version, then version 1 by its time and the others by their first eight bytes, then by the rest without signs.

const signBits = 0x8080808080808080

// timeFirst moves the parts of a version 1 UUID's time into order: version and high, middle, low.
func timeFirst(high uint64) uint64 { return high<<48 | high<<16&0xffff00000000 | high>>32 }

func timeLast(ordered uint64) uint64 { return ordered<<32 | ordered>>16&0xffff0000 | ordered>>48 }

// A varint is its sign, the number of its bytes (the other way round for negative ones), and its bytes.

func appendVarint(b, v []byte) ([]byte, error) {
	if len(v) == 0 {
		return b, ErrNoPosition
	}
	for len(v) > 1 && (v[0] == 0 && v[1] < 0x80 || v[0] == 0xff && v[1] >= 0x80) {
		v = v[1:]
	}
	if v[0] < 0x80 {
		b = binary.BigEndian.AppendUint32(append(b, 1), uint32(len(v)))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, 0), ^uint32(len(v)))
	}
	return append(b, v...), nil
}

func cutVarint(b []byte) (v []byte, n int, err error) {
	if len(b) < 6 || b[0] > 1 {
		return nil, 0, ErrPosition
	}
	size := binary.BigEndian.Uint32(b[1:])
	if b[0] == 0 {
		size = ^size
	}
	if uint64(size) > uint64(len(b)-5) || size == 0 {
		return nil, 0, ErrPosition
	}
	n = 5 + int(size)
	return bytes.Clone(b[5:n]), n, nil
}
