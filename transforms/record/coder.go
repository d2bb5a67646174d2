package record

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	d := decoder{rest: string(wire)} // one copy of all bytes, of which every text of the record is a part
	n := d.count(1)
	from := len(wire) - len(d.rest)
	schema, err := UnmarshalSchema(wire[from : from+n])
	if d.bad || err != nil {
		return nil, errors.Join(errShort, err)
	}
	d.rest = d.rest[n:]
	r := &Record{Schema: schema, Op: Op(d.byte())}
	r.Version = d.varint()
	r.Expires = d.varint()
	r.Origin.Split = d.string()
	if p := d.string(); p != "" {
		r.Origin.Position = []byte(p)
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
	if d.bad || d.rest != "" || r.Op > Delete || (len(r.Cells) != 0 && len(r.Cells) != len(r.Values)) {
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
	d := decoder{rest: string(wire)}
	d.arena = make([]Value, d.count(1))
	d.value(&v, 0)
	if d.bad || d.rest != "" {
		err = errShort
	}
	return v, err
}

func countNested(v *Value) int {
	n := len(v.elems)
	for i := range v.elems {
		n += countNested(&v.elems[i])
	}
	return n
}

func appendValue(b []byte, v *Value) []byte {
	b = append(b, byte(v.kind))
	switch v.kind {
	case Unset, Null:
	case Boolean:
		b = append(b, byte(v.num))
	case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
		b = binary.AppendVarint(b, int64(v.num))
	case Float, Double:
		b = binary.LittleEndian.AppendUint64(b, v.num)
	case Text, Blob, UUID, TimeUUID, Inet, Varint:
		b = appendString(b, v.str)
	case Decimal:
		b = binary.AppendVarint(b, int64(v.num))
		b = appendString(b, v.str)
	case Duration:
		b = binary.LittleEndian.AppendUint64(b, v.num)
		b = append(b, v.str...)
	default:
		b = binary.AppendUvarint(b, uint64(len(v.elems)))
		for i := range v.elems {
			b = appendValue(b, &v.elems[i])
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads from rest; the first fault sets bad, after which everything reads as zero.
type decoder struct {
	rest  string
	arena []Value // from which nested values are cut
	bad   bool
}

func (d *decoder) fail() { d.bad, d.rest = true, "" }

func (d *decoder) byte() byte {
	if d.rest == "" {
		d.fail()
		return 0
	}
	c := d.rest[0]
	d.rest = d.rest[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	var n uint64
	for shift := uint(0); shift < 64; shift += 7 {
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
	if n > uint64(len(d.rest)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n int) string {
	if n > len(d.rest) {
		d.fail()
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) string() string { return d.bytes(d.count(1)) }

func (d *decoder) fixed64() uint64 {
	s := d.bytes(8)
	if len(s) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64([]byte(s))
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

func (d *decoder) value(v *Value, depth int) {
	v.kind = Kind(d.byte())
	switch v.kind {
	case Unset, Null:
	case Boolean:
		v.num = uint64(d.byte())
	case TinyInt, SmallInt, Int, BigInt, Timestamp, Date, Time:
		v.num = uint64(d.varint())
	case Float, Double:
		v.num = d.fixed64()
	case Text, Blob, UUID, TimeUUID, Inet, Varint:
		v.str = d.string()
	case Decimal:
		v.num = uint64(d.varint())
		v.str = d.string()
	case Duration:
		v.num = d.fixed64()
		v.str = d.bytes(8)
	default:
		if v.kind >= numKinds || depth >= maxDepth {
			d.fail()
			return
		}
		v.elems = d.take(d.count(1))
		for i := range v.elems {
			d.value(&v.elems[i], depth+1)
		}
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
	d := decoder{rest: string(wire)}
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
	if d.bad || d.rest != "" {
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
	d := decoder{rest: string(wire)}
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
	if d.bad || d.rest != "" {
		return nil, errShort
	}
	return l, nil
}
