package iotest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"reprise/transforms/record"
)

// Base is the version from which the suites count, microseconds since 1970.
const Base = 1_700_000_000_000_000

// AssetSchema is the suites' own schema: key id, all texts but size (bigint), tags (set) and attrs (map).
func AssetSchema() *record.Schema {
	text := record.Of(record.Text)
	return record.MustSchema([]record.Field{
		{Name: "id", Type: text},
		{Name: "asset_type", Type: text},
		{Name: "title", Type: text},
		{Name: "size", Type: record.Of(record.BigInt)},
		{Name: "tags", Type: record.SetOf(text)},
		{Name: "attrs", Type: record.MapOf(text, text)},
	}, "id")
}

// Record is the n-th record of a schema at a version: the key depends on n alone, the other fields on n and the
// version. It is the same each time, but for the pointer.
func Record(schema *record.Schema, n int, version int64) *record.Record {
	r := &record.Record{Schema: schema, Version: version, Values: make([]record.Value, len(schema.Fields)),
		Origin: record.Origin{Split: "iotest", Position: binary.BigEndian.AppendUint64(nil, uint64(n))}}
	for i, f := range schema.Fields {
		seed := uint64(n)
		if !slices.Contains(schema.Key, i) {
			seed = mix(uint64(n)*1000 + uint64(i) + uint64(version)<<20)
		}
		r.Values[i] = Value(f.Type, seed)
	}
	return r
}

// Records are n records from the first on, at one version.
func Records(schema *record.Schema, first, n int, version int64) []*record.Record {
	all := make([]*record.Record, n)
	for i := range all {
		all[i] = Record(schema, first+i, version)
	}
	return all
}

// Deletion is the delete of the n-th record.
func Deletion(schema *record.Schema, n int, version int64) *record.Record {
	r := Record(schema, n, version)
	r.Op = record.Delete
	for i := range r.Values {
		if !slices.Contains(schema.Key, i) {
			r.Values[i] = record.Value{}
		}
	}
	return r
}

// mix spreads n over all bits (SplitMix64).
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// Value is a value of a type, other seeds giving (nearly always) other values. Sets and maps are sorted and hold no
// element twice; nothing in it is null or empty.
func Value(t record.Type, seed uint64) record.Value {
	switch t.Kind {
	case record.Boolean:
		return record.Bool(seed%2 == 0)
	case record.TinyInt:
		return record.Number(t.Kind, int64(int8(seed)))
	case record.SmallInt:
		return record.Number(t.Kind, int64(int16(seed)))
	case record.Int:
		return record.Number(t.Kind, int64(int32(seed)))
	case record.BigInt:
		return record.Number(t.Kind, int64(seed>>12)) // exact in JSON readers too
	case record.Varint:
		return record.Bytes(record.Varint, record.VarintBytes(big.NewInt(int64(seed))))
	case record.Decimal:
		return record.Dec(record.VarintBytes(big.NewInt(int64(seed%1e9))), 2)
	case record.Float:
		return record.Float32(float32(seed%1000) / 8)
	case record.Double:
		return record.Float64(float64(seed%1e6) / 8)
	case record.Blob:
		return record.Bytes(record.Blob, string(binary.BigEndian.AppendUint64(nil, seed)))
	case record.UUID, record.TimeUUID:
		return record.Bytes(t.Kind, uuid(t.Kind, seed))
	case record.Inet:
		return record.Bytes(record.Inet, string(binary.BigEndian.AppendUint32(nil, uint32(seed))))
	case record.Timestamp:
		return record.Number(t.Kind, Base/1000+int64(seed%1e9))
	case record.Date:
		return record.Number(t.Kind, int64(seed%20000))
	case record.Time:
		return record.Number(t.Kind, int64(seed%86400)*1e9)
	case record.Duration:
		return record.Span(int32(seed%12), int32(seed%30), int64(seed%1e9))
	case record.List, record.Set:
		return elements(t, 1+int(seed%3), seed)
	case record.Vector:
		return elements(t, t.Dim, seed)
	case record.Map:
		var parts []record.Value
		for i := range 1 + seed%3 {
			// Few different keys: some systems make a column of each.
			k := record.String(fmt.Sprintf("k%d", (seed+i)%8))
			if t.Elems[0].Kind != record.Text {
				k = Value(t.Elems[0], seed+i)
			}
			parts = append(parts, k, Value(t.Elems[1], mix(seed+i)))
		}
		return record.Nested(record.Map, sortParts(parts, 2, t))
	case record.Tuple, record.UDT:
		parts := make([]record.Value, len(t.Elems))
		for i, e := range t.Elems {
			parts[i] = Value(e, mix(seed+uint64(i)))
		}
		return record.Nested(t.Kind, parts)
	}
	return record.String(fmt.Sprintf("text-%06d", seed))
}

func elements(t record.Type, n int, seed uint64) record.Value {
	parts := make([]record.Value, n)
	for i := range parts {
		parts[i] = Value(t.Elems[0], seed+uint64(i))
	}
	if t.Kind == record.Set {
		parts = sortParts(parts, 1, t)
	}
	return record.Nested(t.Kind, parts)
}

// sortParts sorts groups of parts by the text of their first.
func sortParts(parts []record.Value, group int, t record.Type) []record.Value {
	groups := slices.SortedFunc(slices.Chunk(parts, group), func(a, b []record.Value) int {
		return strings.Compare(a[0].Text(t.Elems[0]), b[0].Text(t.Elems[0]))
	})
	return slices.Concat(groups...)
}

func uuid(k record.Kind, seed uint64) string {
	b := binary.BigEndian.AppendUint64(nil, mix(seed))
	b = binary.BigEndian.AppendUint64(b, seed)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	if k == record.TimeUUID {
		b[6] = b[6]&0x0f | 0x10
	}
	return string(b)
}

// Canonical is a record's JSON in a form that is the same for all systems: nulls and empty collections of the top level
// left out (many systems do not tell them apart), sets sorted, numbers in one way of writing.
func Canonical(schema *record.Schema, text string) (string, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return "", fmt.Errorf("%.200q is not a JSON object: %w", text, err)
	}
	for name, v := range fields {
		var t record.Type
		if i := schema.Index(name); i >= 0 {
			t = schema.Fields[i].Type
		}
		v = canonical(v, t)
		fields[name] = v
		list, isList := v.([]any)
		object, isObject := v.(map[string]any)
		if v == nil || (isList && len(list) == 0) || (isObject && len(object) == 0) {
			delete(fields, name)
		}
	}
	b, err := json.Marshal(fields)
	return string(b), err
}

func canonical(v any, t record.Type) any {
	part := func(i int) record.Type {
		if t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Vector {
			i = 0
		}
		if i >= 0 && i < len(t.Elems) {
			return t.Elems[i]
		}
		return record.Type{}
	}
	switch v := v.(type) {
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return v
		}
		f, err := v.Float64()
		if err != nil {
			return v
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
	case []any:
		for i := range v {
			v[i] = canonical(v[i], part(i))
		}
		if t.Kind == record.Set {
			slices.SortFunc(v, func(a, b any) int {
				x, _ := json.Marshal(a)
				y, _ := json.Marshal(b)
				return bytes.Compare(x, y)
			})
		}
	case map[string]any:
		for name, e := range v {
			i := 1
			if t.Kind == record.UDT {
				i = slices.Index(t.Names, name)
			}
			if v[name] = canonical(e, part(i)); v[name] == nil {
				delete(v, name)
			}
		}
	}
	return v
}

// JSON is what Read of a suite gives for a record.
func JSON(r *record.Record) string { return string(r.AppendJSON(nil)) }

// SameLetter tells whether two dead letters are equal, with their records.
func SameLetter(a, b *record.DeadLetter) bool {
	wire := func(l *record.DeadLetter) []byte {
		if l.Record == nil {
			return nil
		}
		return record.AppendRecord(nil, l.Record)
	}
	if !bytes.Equal(wire(a), wire(b)) || !bytes.Equal(a.Raw, b.Raw) {
		return false
	}
	x, y := *a, *b
	x.Record, y.Record, x.Raw, y.Raw = nil, nil, nil, nil
	return reflect.DeepEqual(x, y)
}
