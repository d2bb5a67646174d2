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
//	values     number of nested values, then each value: kind (1 byte) and its content
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
	nested := 0
	for i := range r.Values {
		nested += countNested(&r.Values[i])
	}
	b = binary.AppendUvarint(b, uint64(nested))
	for i := range r.Values {
		b = appendValue(b, &r.Values[i])
	}
	return b
}

// DecodeRecord reads what AppendRecord wrote. The record shares no memory with wire.
func DecodeRecord(wire []byte) (*Record, error) {
	d := decoder{from: string(wire)} // one copy of all bytes, of which every text of the record is a part
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
	d.arena = make([]Value, len(schema.Fields)+d.count(1))
	r.Values = d.take(len(schema.Fields))
	for i := range r.Values {
		d.value(&r.Values[i], 0)
	}
	if !d.done() || r.Op > Delete || (len(r.Cells) != 0 && len(r.Cells) != len(r.Values)) {
		return nil, errShort
	}
	return r, nil
}

// AppendValue appends the wire form of one value, and DecodeValue reads it.
func AppendValue(b []byte, v Value) []byte {
	b = binary.AppendUvarint(b, uint64(countNested(&v)))
	return appendValue(b, &v)
}

// DecodeValue reads what AppendValue wrote.
func DecodeValue(wire []byte) (v Value, err error) {
	d := decoder{from: string(wire)}
	d.arena = make([]Value, d.count(1))
	d.value(&v, 0)
	if !d.done() {
		err = errShort
	}
	return v, err
}

func countNested(v *Value) int {
	if !v.kind.Nested() {
		return 0
	}
	elems := v.Elems()
	n := len(elems)
	for i := range elems {
		n += countNested(&elems[i])
	}
	return n
}

func appendValue(b []byte, v *Value) []byte {
	b = append(b, byte(v.kind))
	switch v.kind {
	case Unset, Null:
		return b
	case Boolean:
		return append(b, byte(v.n))
	case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
		return binary.AppendVarint(b, int64(v.n))
	case Float, Double:
		return binary.LittleEndian.AppendUint64(b, v.n)
	case Text, Blob, UUID, TimeUUID, Inet, Varint, Duration:
		return appendString(b, v.Str())
	case Decimal:
		return appendString(binary.AppendVarint(b, int64(v.scale)), v.Str())
	}
	elems := v.Elems()
	b = binary.AppendUvarint(b, uint64(len(elems)))
	for i := range elems {
		b = appendValue(b, &elems[i])
	}
	return b
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

func (d *decoder) string() string { return d.bytes(d.count(1)) }

func (d *decoder) take(n int) []Value {
	if n > len(d.arena) {
		d.fail()
		return nil
	}
	part := d.arena[:n:n]
	d.arena = d.arena[n:]
	return part
}

func (d *decoder) value(v *Value, depth int) {
	switch kind := Kind(d.byte()); kind {
	case Unset, Null:
		v.kind = kind
	case Boolean:
		*v = Value{kind: kind, n: uint64(d.byte())}
	case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
		*v = Value{kind: kind, n: uint64(d.varint())}
	case Float, Double:
		if bits := d.bytes(8); len(bits) == 8 {
			*v = Value{kind: kind, n: binary.LittleEndian.Uint64([]byte(bits))}
		}
	case Text, Blob, UUID, TimeUUID, Inet, Varint, Duration:
		*v = Bytes(kind, d.string())
	case Decimal:
		scale := d.varint()
		if scale != int64(int32(scale)) {
			d.fail()
		}
		*v = Dec(d.string(), int32(scale))
	default:
		if kind >= numKinds || depth >= maxDepth {
			d.fail()
			return
		}
		elems := d.take(d.count(1))
		for i := range elems {
			d.value(&elems[i], depth+1)
		}
		*v = Nested(kind, elems)
	}
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
	for range n {
		if t.Kind == UDT {
			t.Names = append(t.Names, d.string())
		}
		t.Elems = append(t.Elems, d.typ(depth+1))
	}
	return t
}

// AppendDeadLetter appends the wire form of a dead letter to b.
func AppendDeadLetter(b []byte, l *DeadLetter) []byte {
	if l.Record != nil {
		b = appendBytes(b, AppendRecord(nil, l.Record))
	} else {
		b = appendBytes(b, nil)
	}
	b = appendBytes(b, l.Raw)
	for _, s := range []string{l.Run, l.Step, l.Sink, l.Class, l.Code, l.Message, l.Split} {
		b = appendString(b, s)
	}
	b = binary.AppendVarint(b, int64(l.Attempts))
	return binary.AppendVarint(b, l.At)
}

// DecodeDeadLetter reads what AppendDeadLetter wrote.
func DecodeDeadLetter(wire []byte) (*DeadLetter, error) {
	d := decoder{from: string(wire)}
	l := &DeadLetter{}
	if r := d.string(); r != "" {
		var err error
		if l.Record, err = DecodeRecord([]byte(r)); err != nil {
			return nil, err
		}
	}
	if raw := d.string(); raw != "" {
		l.Raw = []byte(raw)
	}
	for _, s := range []*string{&l.Run, &l.Step, &l.Sink, &l.Class, &l.Code, &l.Message, &l.Split} {
		*s = d.string()
	}
	l.Attempts = int(d.varint())
	l.At = d.varint()
	if !d.done() {
		return nil, errShort
	}
	return l, nil
}
