package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// The wire form of a record, all numbers varints but where said:
//
//	schema     length, bytes (copied from the schema, looked up by the reader)
//	head       op (1 byte), version, expires, split, position, number of cells, cells
//	values     number of nested values (4 bytes), then each value: kind (1 byte) and its content
//
// It is not a storage format: only dead letters outlive a run, and a reader refuses what it does not know.

const maxDepth = 32 // of nested values and types

var errShort = errors.New("encoded record is cut short or damaged")

// AppendRecord appends the wire form of r to b.
func AppendRecord(b []byte, r *Record) []byte {
	b = appendBytes(b, r.Schema.wire)
	b = append(b, byte(r.Op))
	b = binary.AppendVarint(b, r.Version)
	b = binary.AppendVarint(b, r.Expires)
	b = appendString(b, r.Origin.Split)
	b = appendBytes(b, r.Origin.Position)
	b = binary.AppendUvarint(b, uint64(len(r.Cells)))
	for _, c := range r.Cells {
		b = binary.AppendVarint(b, c.Version)
		b = binary.AppendVarint(b, c.Expires)
	}
	return appendTop(b, r.Values)
}

// EncodeRecord is AppendRecord to a buffer of its own, as large as the record before it needed.
func EncodeRecord(r *Record) []byte {
	b := AppendRecord(make([]byte, 0, r.Schema.wireSize.Load()+64), r)
	r.Schema.wireSize.Store(int64(len(b)))
	return b
}

// DecodeRecord reads what AppendRecord wrote. The record keeps wire, of which its texts are parts: it must not be
// changed afterwards. (Beam reads each element into a buffer of its own: ioutilx.ReadN.)
func DecodeRecord(wire []byte) (*Record, error) {
	d := decoder{from: unsafe.String(unsafe.SliceData(wire), len(wire))}
	n := d.count(1)
	schema, err := UnmarshalSchema(wire[d.at : d.at+n])
	if d.bad || err != nil {
		return nil, errors.Join(errShort, err)
	}
	d.at += n
	r := &Record{Schema: schema, Op: Op(d.byte())}
	r.Version = d.varint()
	r.Expires = d.varint()
	r.Origin.Split = d.string()
	if p := d.string(); p != "" {
		r.Origin.Position = unsafe.Slice(unsafe.StringData(p), len(p))
	}
	if n := d.count(2); n > 0 {
		r.Cells = make([]Cell, n)
		for i := range r.Cells {
			r.Cells[i] = Cell{Version: d.varint(), Expires: d.varint()}
		}
	}
	d.arena = make([]Value, len(schema.Fields)+d.nested())
	r.Values = d.take(len(schema.Fields))
	d.values(r.Values, 0)
	if !d.done() || r.Op > Delete || (len(r.Cells) != 0 && len(r.Cells) != len(r.Values)) {
		return nil, errShort
	}
	return r, nil
}

// AppendValue appends the wire form of one value, and DecodeValue reads it.
func AppendValue(b []byte, v Value) []byte { return appendTop(b, []Value{v}) }

// DecodeValue reads what AppendValue wrote.
func DecodeValue(wire []byte) (Value, error) {
	d := decoder{from: string(wire)}
	d.arena = make([]Value, 1+d.nested())
	v := d.take(1)
	d.values(v, 0)
	if !d.done() {
		return Value{}, errShort
	}
	return v[0], nil
}

// appendTop appends the number of nested values, as four bytes, and the values.
func appendTop(b []byte, values []Value) []byte {
	at := len(b)
	b, nested := appendValues(append(b, 0, 0, 0, 0), values)
	binary.LittleEndian.PutUint32(b[at:], uint32(nested))
	return b
}

func appendValues(b []byte, values []Value) (_ []byte, nested int) {
	for i := range values {
		v := &values[i]
		b = append(b, byte(v.kind))
		switch v.kind {
		case Text, Blob, UUID, TimeUUID, Inet, Varint, Duration:
			b = appendString(b, unsafe.String((*byte)(v.p), int(v.n)))
		case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
			b = binary.AppendVarint(b, int64(v.n))
		case Unset, Null:
		case Boolean:
			b = append(b, byte(v.n))
		case Float, Double:
			b = binary.LittleEndian.AppendUint64(b, v.n)
		case Decimal:
			b = appendString(binary.AppendVarint(b, int64(v.scale)), v.Str())
		default:
			elems := v.Elems()
			b = binary.AppendUvarint(b, uint64(len(elems)))
			var deeper int
			b, deeper = appendValues(b, elems)
			nested += len(elems) + deeper
		}
	}
	return b, nested
}

func appendString(b []byte, s string) []byte {
	if len(s) < 0x80 {
		return append(append(b, byte(len(s))), s...)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads from; the first fault sets bad, after which everything reads as zero.
type decoder struct {
	from  string
	at    int
	arena []Value // from which nested values are cut
	bad   bool
}

func (d *decoder) fail() { d.bad, d.at = true, len(d.from) }

func (d *decoder) left() int { return len(d.from) - d.at }

// done tells whether everything was read, without a fault.
func (d *decoder) done() bool { return !d.bad && d.left() == 0 }

func (d *decoder) byte() byte {
	if d.at >= len(d.from) {
		d.fail()
		return 0
	}
	c := d.from[d.at]
	d.at++
	return c
}

func (d *decoder) uvarint() uint64 {
	c := d.byte()
	if c < 0x80 {
		return uint64(c)
	}
	n := uint64(c & 0x7f)
	for shift := uint(7); shift < 64; shift += 7 {
		c := d.byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a number of things of at least size bytes each, which the rest must be able to hold.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(d.left()/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n int) string {
	if n > d.left() {
		d.fail()
		return ""
	}
	s := d.from[d.at : d.at+n]
	d.at += n
	return s
}

func (d *decoder) string() string {
	if d.at < len(d.from) {
		// Mostly the length is one byte.
		if n, from := int(d.from[d.at]), d.at+1; n < 0x80 && n <= len(d.from)-from {
			d.at = from + n
			return d.from[from:d.at]
		}
	}
	return d.bytes(d.count(1))
}

func (d *decoder) take(n int) []Value {
	if n > len(d.arena) {
		d.fail()
		return nil
	}
	part := d.arena[:n:n]
	d.arena = d.arena[n:]
	return part
}

// nested reads the number of nested values, each of which takes a byte at least.
func (d *decoder) nested() int {
	b := d.bytes(4)
	if len(b) < 4 {
		return 0
	}
	n := int(binary.LittleEndian.Uint32([]byte(b)))
	if n > d.left() {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) values(into []Value, depth int) {
	for i := range into {
		v := &into[i]
		kind := Kind(d.byte())
		v.kind = kind
		switch kind {
		case Text, Blob, UUID, TimeUUID, Inet, Varint, Duration:
			d.text(v)
		case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
			v.n = uint64(d.varint())
		case Unset, Null:
		case Boolean:
			v.n = uint64(d.byte())
		case Float, Double:
			if bits := d.bytes(8); len(bits) == 8 {
				v.n = binary.LittleEndian.Uint64([]byte(bits))
			}
		case Decimal:
			scale := d.varint()
			if scale != int64(int32(scale)) {
				d.fail()
			}
			v.scale = int32(scale)
			d.text(v)
		default:
			if kind >= numKinds || depth >= maxDepth {
				v.kind = Unset
				d.fail()
				return
			}
			elems := d.take(d.count(1))
			d.values(elems, depth+1)
			*v = Nested(kind, elems)
		}
	}
}

// text reads the bytes of a value that is made of them.
func (d *decoder) text(v *Value) {
	s := d.string()
	v.p, v.n = unsafe.Pointer(unsafe.StringData(s)), uint64(len(s))
}

// A schema: number of fields, each name and type; number of key fields, each place.

func appendSchema(b []byte, s *Schema) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.Fields)))
	for _, f := range s.Fields {
		b = appendString(b, f.Name)
		b = appendType(b, f.Type)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Key)))
	for _, k := range s.Key {
		b = binary.AppendUvarint(b, uint64(k))
	}
	return b
}

func appendType(b []byte, t Type) []byte {
	kind := byte(t.Kind)
	if t.Frozen {
		kind |= 0x80
	}
	b = append(b, kind)
	if !t.Kind.Nested() {
		return b
	}
	b = appendString(b, t.Name)
	b = binary.AppendUvarint(b, uint64(t.Dim))
	b = binary.AppendUvarint(b, uint64(len(t.Elems)))
	for i, e := range t.Elems {
		if t.Kind == UDT {
			b = appendString(b, t.Names[i])
		}
		b = appendType(b, e)
	}
	return b
}

func decodeSchema(wire []byte) (*Schema, error) {
	d := decoder{from: string(wire)}
	fields := make([]Field, d.count(2))
	for i := range fields {
		fields[i] = Field{Name: d.string(), Type: d.typ(0)}
	}
	key := make([]string, d.count(1))
	for i := range key {
		k := d.uvarint()
		if k >= uint64(len(fields)) {
			return nil, errShort
		}
		key[i] = fields[k].Name
	}
	if !d.done() {
		return nil, errShort
	}
	s, err := NewSchema(fields, key...)
	if err != nil {
		return nil, fmt.Errorf("encoded schema: %w", err)
	}
	return s, nil
}

func (d *decoder) typ(depth int) Type {
	kind := d.byte()
	t := Type{Kind: Kind(kind &^ 0x80), Frozen: kind&0x80 != 0}
	if t.Kind >= numKinds || depth >= maxDepth {
		d.fail()
	}
	if d.bad || !t.Kind.Nested() {
		return t
	}
	t.Name = d.string()
	t.Dim = int(d.uvarint())
	n := d.count(1)
	for i := 0; i < n && !d.bad; i++ {
		if t.Kind == UDT {
			t.Names = append(t.Names, d.string())
		}
		t.Elems = append(t.Elems, d.typ(depth+1))
	}
	if t.complete() != nil {
		d.fail()
	}
	return t
}
