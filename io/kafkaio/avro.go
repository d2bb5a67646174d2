package kafkaio

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"reprise/transforms/record"
)

// avroSchema is the Avro schema, as JSON, of records of a schema. Key fields are never null, all others may be. Types
// of which Avro would lose something (decimals of any scale, varints, durations) and addresses are strings of their
// text; a time is a long of nanoseconds since midnight; maps have their keys as text; tuples and UDTs are records.
func avroSchema(name string, schema *record.Schema) (string, error) {
	space, bare := "", name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		space, bare = name[:i], name[i+1:]
	}
	b := []byte(`{"type":"record","name":"` + bare + `"`)
	if space != "" {
		b = append(b, `,"namespace":"`+space+`"`...)
	}
	b = append(b, `,"fields":[`...)
	b, err := appendAvroFields(b, bare, schema.Fields, schema.Key)
	return string(append(b, "]}"...)), err
}

func appendAvroFields(b []byte, parent string, fields []record.Field, plain []int) (_ []byte, err error) {
	seen := map[string]string{}
	for i, f := range fields {
		name := avroName(f.Name)
		if other, twice := seen[name]; twice {
			return nil, fmt.Errorf("the fields %q and %q both are %s in Avro; rename one", other, f.Name, name)
		}
		seen[name] = f.Name
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":"`+name+`","type":`...)
		if slices.Contains(plain, i) {
			b, err = appendAvroType(b, parent+"_"+name, f.Type)
		} else {
			b = append(b, `["null",`...)
			b, err = appendAvroType(b, parent+"_"+name, f.Type)
			b = append(b, `],"default":null`...)
		}
		if err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	return b, nil
}

// appendAvroType appends a type; path is the name for a record that it defines.
func appendAvroType(b []byte, path string, t record.Type) (_ []byte, err error) {
	switch t.Kind {
	case record.Boolean:
		return append(b, `"boolean"`...), nil
	case record.TinyInt, record.SmallInt, record.Int:
		return append(b, `"int"`...), nil
	case record.BigInt, record.Time:
		return append(b, `"long"`...), nil
	case record.Float:
		return append(b, `"float"`...), nil
	case record.Double:
		return append(b, `"double"`...), nil
	case record.Blob:
		return append(b, `"bytes"`...), nil
	case record.UUID, record.TimeUUID:
		return append(b, `{"type":"string","logicalType":"uuid"}`...), nil
	case record.Timestamp:
		return append(b, `{"type":"long","logicalType":"timestamp-millis"}`...), nil
	case record.Date:
		return append(b, `{"type":"int","logicalType":"date"}`...), nil
	case record.List, record.Set, record.Vector:
		b, err = appendAvroType(append(b, `{"type":"array","items":`...), path, t.Elems[0])
	case record.Map:
		b, err = appendAvroType(append(b, `{"type":"map","values":`...), path, t.Elems[1])
	case record.Tuple, record.UDT:
		parts := make([]record.Field, len(t.Elems))
		for i, e := range t.Elems {
			parts[i] = record.Field{Name: partName(t, i), Type: e}
		}
		b = append(b, `{"type":"record","name":"`+path+`","fields":[`...)
		b, err = appendAvroFields(b, path, parts, nil)
		b = append(b, ']')
	default:
		return append(b, `"string"`...), nil
	}
	return append(b, '}'), err
}

// partName is the name of a part of a tuple or UDT.
func partName(t record.Type, i int) string {
	if i < len(t.Names) {
		return t.Names[i]
	}
	return "f" + strconv.Itoa(i)
}

// avroName makes a name of Avro's form, [A-Za-z_][A-Za-z0-9_]*.
func avroName(s string) string {
	name := strings.Map(func(r rune) rune {
		if r == '_' || (r >= '0' && r <= '9') || (r >= 'A' && r <= 'Z') || (r >= 'a' && r <= 'z') {
			return r
		}
		return '_'
	}, s)
	if name == "" || (name[0] >= '0' && name[0] <= '9') {
		return "_" + name
	}
	return name
}

// validName tells whether a full name needs no change.
func validName(name string) bool {
	for _, part := range strings.Split(name, ".") {
		if avroName(part) != part {
			return false
		}
	}
	return true
}

// appendAvro appends a record in Avro's binary form, as avroSchema describes it.
func appendAvro(b []byte, r *record.Record) (_ []byte, err error) {
	for i := range r.Values {
		f := &r.Schema.Fields[i]
		if slices.Contains(r.Schema.Key, i) {
			b, err = appendAvroValue(b, &r.Values[i], f.Type)
		} else {
			b, err = appendAvroUnion(b, &r.Values[i], f.Type)
		}
		if err != nil {
			return b, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return b, nil
}

// appendAvroUnion appends a value that may be null: the branch of the union comes first.
func appendAvroUnion(b []byte, v *record.Value, t record.Type) ([]byte, error) {
	if v.IsNull() {
		return append(b, 0), nil
	}
	return appendAvroValue(append(b, 2), v, t)
}

func appendAvroValue(b []byte, v *record.Value, t record.Type) (_ []byte, err error) {
	if v.Kind() != t.Kind {
		return b, fmt.Errorf("a %s where Avro needs a %s", v.Kind(), t)
	}
	switch t.Kind {
	case record.Boolean:
		return append(b, byte(v.Int())), nil
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Timestamp, record.Time:
		return binary.AppendVarint(b, v.Int()), nil
	case record.Date:
		if n := v.Int(); n < math.MinInt32 || n > math.MaxInt32 {
			return b, fmt.Errorf("day %d is beyond the dates of Avro", n)
		}
		return binary.AppendVarint(b, v.Int()), nil
	case record.Float:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v.Float()))), nil
	case record.Double:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
	case record.Text, record.Blob:
		return appendAvroString(b, v.Str()), nil
	case record.List, record.Set, record.Vector:
		elems := v.Elems()
		b = appendAvroCount(b, len(elems))
		for i := range elems {
			if b, err = appendAvroValue(b, &elems[i], t.Elems[0]); err != nil {
				return b, err
			}
		}
		return appendAvroEnd(b, len(elems)), nil
	case record.Map:
		elems := v.Elems()
		b = appendAvroCount(b, len(elems)/2)
		for i := 0; i+1 < len(elems); i += 2 {
			b = appendAvroText(b, &elems[i], t.Elems[0])
			if b, err = appendAvroValue(b, &elems[i+1], t.Elems[1]); err != nil {
				return b, err
			}
		}
		return appendAvroEnd(b, len(elems)), nil
	case record.Tuple, record.UDT:
		elems := v.Elems()
		for i, e := range t.Elems {
			part := &record.NullValue
			if i < len(elems) {
				part = &elems[i]
			}
			if b, err = appendAvroUnion(b, part, e); err != nil {
				return b, err
			}
		}
		return b, nil
	}
	return appendAvroText(b, v, t), nil
}

// appendAvroCount begins an array or map of one block; appendAvroEnd ends it.
func appendAvroCount(b []byte, n int) []byte { return binary.AppendVarint(b, int64(n)) }

func appendAvroEnd(b []byte, n int) []byte {
	if n == 0 {
		return b // the count was the end
	}
	return append(b, 0)
}

func appendAvroString(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

// appendAvroText appends a value's text: written behind the longest length first, then moved.
func appendAvroText(b []byte, v *record.Value, t record.Type) []byte {
	if t.Kind == record.Text {
		return appendAvroString(b, v.Str())
	}
	from := len(b)
	b = append(b, make([]byte, binary.MaxVarintLen64)...)
	start := len(b)
	b = v.AppendText(b, t)
	n := binary.PutVarint(b[from:start], int64(len(b)-start))
	copy(b[from+n:], b[start:])
	return b[:from+n+len(b)-start]
}
