package cassandraio

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"gopkg.in/inf.v0"
	"pgregory.net/rapid"

	"reprise/transforms/record"
)

// The independent reference is gocql: both codecs must agree on the bytes of every type that
// gocql v1 knows (all but vectors).
func TestCodecAgreesWithGocql(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := drawType(t, 2)
		v := drawValue(t, typ)
		got, err := appendValue([]byte{0xaa}, typ, v)
		if err != nil {
			t.Fatalf("encode %s: %v", typ, err)
		}
		want, err := gocql.Marshal(gocqlType(typ), gocqlValue(typ, v))
		if err != nil {
			t.Fatalf("gocql, %s: %v", typ, err)
		}
		if !bytes.Equal(got[1:], want) {
			t.Fatalf("%s\n got %x\nwant %x", typ, got[1:], want)
		}
		back, err := decodeValue(typ, want)
		if err != nil {
			t.Fatalf("decode %s of %x: %v", typ, want, err)
		}
		if !back.Equal(v) {
			t.Fatalf("%s of %x: decoded %s, not %s", typ, want, back.AppendJSON(nil, typ), v.AppendJSON(nil, typ))
		}
	})
}

func TestVectorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := record.Type{Kind: record.Vector, Dim: rapid.IntRange(1, 5).Draw(t, "dim"),
			Elems: []record.Type{drawType(t, 1)}}
		v := drawValue(t, typ)
		data, err := appendValue(nil, typ, v)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeValue(typ, data)
		if err != nil || !back.Equal(v) {
			t.Fatalf("%s of %x: %v, %v", typ, data, back, err)
		}
	})
}

func TestDecodeNullAndEmpty(t *testing.T) {
	for kind := record.Boolean; kind <= record.Vector; kind++ {
		typ := typeOf(kind)
		if v, err := decodeValue(typ, nil); err != nil || v.Kind() != record.Null {
			t.Errorf("%s: no data gives %v, %v", typ, v, err)
		}
		want := record.Null
		if kind == record.Text || kind == record.Blob {
			want = kind
		}
		if v, err := decodeValue(typ, []byte{}); err != nil || v.Kind() != want {
			t.Errorf("%s: empty data gives %v, %v", typ, v, err)
		}
	}
}

func TestDecodeShortTuple(t *testing.T) {
	typ := record.UDTOf("size", record.Field{Name: "w", Type: record.Of(record.Int)},
		record.Field{Name: "unit", Type: record.Of(record.Text)})
	v, err := decodeValue(typ, []byte{0, 0, 0, 4, 0, 0, 0, 7})
	if err != nil || string(v.AppendJSON(nil, typ)) != `{"w":7,"unit":null}` {
		t.Fatalf("%s, %v", v.AppendJSON(nil, typ), err)
	}
}

func TestWideningValues(t *testing.T) {
	for _, c := range []struct {
		v    record.Value
		t    record.Kind
		want record.Value
	}{
		{record.Number(record.TinyInt, -3), record.Int, record.Number(record.Int, -3)},
		{record.Number(record.Int, math.MinInt32), record.BigInt, record.Number(record.BigInt, math.MinInt32)},
		{record.Float32(1.5), record.Double, record.Float64(1.5)},
		{record.Bytes(record.TimeUUID, timeUUID), record.UUID, record.Bytes(record.UUID, timeUUID)},
	} {
		data, err := appendValue(nil, record.Of(c.t), c.v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeValue(record.Of(c.t), data); err != nil || !got.Equal(c.want) {
			t.Errorf("%s as %s: %v, %v", c.v.Kind(), c.t, got, err)
		}
	}
}

const timeUUID = "\x5a\x3c\x00\x00\x11\x22\x11\xef\x80\x00\x01\x02\x03\x04\x05\x06"

func TestEncodeRefuses(t *testing.T) {
	ints := record.ListOf(record.Of(record.Int))
	for _, c := range []struct {
		t    record.Type
		v    record.Value
		want string
	}{
		{record.Of(record.Int), record.Number(record.BigInt, 1), "a bigint does not fit the type int"},
		{record.Of(record.Text), record.Bytes(record.Blob, "x"), "a blob does not fit the type text"},
		{record.Of(record.TimeUUID), record.Bytes(record.UUID, timeUUID), "a uuid does not fit the type timeuuid"},
		{record.Of(record.Int), record.NullValue, "a null does not fit the type int"},
		{record.Of(record.Int), record.Value{}, "a unset does not fit the type int"},
		{record.Of(record.Text), record.String("a\xff"), "the text is not UTF-8"},
		{record.Of(record.SmallInt), record.Number(record.SmallInt, 40000), "40000 is out of the range of a smallint"},
		{record.Of(record.Date), record.Number(record.Date, 1<<40), "day 1099511627776 is out of the range of a date"},
		{record.Of(record.UUID), record.Bytes(record.UUID, "short"), "a uuid has 16 bytes, not 5"},
		{record.Of(record.Inet), record.Bytes(record.Inet, "12345"), "an inet has 4 or 16 bytes, not 5"},
		{record.Of(record.Varint), record.Bytes(record.Varint, ""), "a varint has no digits"},
		{ints, record.Nested(record.List, []record.Value{record.NullValue}), "a list<int> cannot hold a null"},
		{ints, record.Nested(record.List, []record.Value{record.String("x")}),
			"in part 1 of a list<int>: a text does not fit the type int"},
		{record.MapOf(record.Of(record.Int), record.Of(record.Int)),
			record.Nested(record.Map, []record.Value{record.Number(record.Int, 1)}),
			"the last key of a map has no value"},
		{record.TupleOf(record.Of(record.Int)), record.Nested(record.Tuple,
			[]record.Value{record.NullValue, record.NullValue}), "2 parts do not fit the type tuple<int>"},
		{record.Type{Kind: record.Vector, Dim: 2, Elems: ints.Elems}, record.Nested(record.Vector, nil),
			"0 elements do not fit the type vector<int, 2>"},
	} {
		if _, err := appendValue(nil, c.t, c.v); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.t, err, c.want)
		}
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	tags := record.ListOf(record.Of(record.Text))
	for _, c := range []struct {
		t    record.Type
		data string
		want string
	}{
		{record.Of(record.Int), "\x00\x00\x01", "a int has 4 bytes, not 3"},
		{record.Of(record.Text), "a\xff", "the text is not UTF-8"},
		{record.Of(record.Inet), "123", "an inet has 4 or 16 bytes, not 3"},
		{record.Of(record.Decimal), "\x00\x00\x00\x00", "a decimal has at least 5 bytes, not 4"},
		{record.Of(record.Duration), "\x00\x00", "the bytes of a duration are cut short or damaged"},
		{record.Of(record.Duration), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00",
			"the bytes of a duration are cut short or damaged"},
		{tags, "\x7f\xff\xff\xff\x00\x00\x00\x00", "the bytes of a list<text> are cut short or damaged"},
		{tags, "\xff\xff\xff\xff", "the bytes of a list<text> are cut short or damaged"},
		{tags, "\x00\x00\x00\x01\x00\x00\x00\x05abc", "the bytes of a list<text> are cut short or damaged"},
		{tags, "\x00\x00\x00\x01\x00\x00\x00\x01\xff", "in part 1 of a list<text>: the text is not UTF-8"},
		{tags, "\x00\x00\x00\x00x", "1 bytes after the last element of a list<text>"},
		{record.TupleOf(record.Of(record.Int)), "\x00\x00\x00\x01a",
			"in part 1 of a tuple<int>: a int has 4 bytes, not 1"},
		{record.Type{Kind: record.Vector, Dim: 2, Elems: []record.Type{record.Of(record.Float)}}, "1234567",
			"7 bytes are no vector<float, 2>"},
	} {
		if v, err := decodeValue(c.t, []byte(c.data)); err == nil || err.Error() != c.want {
			t.Errorf("%s of %q: %v, %v, want %q", c.t, c.data, v, err, c.want)
		}
	}
}

// Damaged bytes give an error or another value; never a panic, nor memory out of proportion to the bytes.
func FuzzDecodeValue(f *testing.F) {
	for _, text := range []string{"text", "int", "varint", "decimal", "duration", "inet", "list<text>",
		"map<text, frozen<set<int>>>",
		"tuple<int, udt<a:text,b:frozen<list<duration>>>>", "vector<float, 3>", "vector<text, 2>"} {
		typ, err := record.ParseType(text, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("\x00\x00\x00\x01\x00\x00\x00\x04abcd"))
		f.Add(typ.String(), []byte("\x7f\xff\xff\xff\xff\xff\xff\xff"))
	}
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		typ, err := record.ParseType(text, nil)
		if err != nil || len(text) > 200 {
			return
		}
		v, err := decodeValue(typ, data)
		if err != nil || v.IsNull() {
			return
		}
		if size, bound := v.Size(), 100*(len(data)+1)*(len(text)+1); size > bound {
			t.Fatalf("%d bytes became a value of %d", len(data), size)
		}
		again, err := appendValue([]byte{}, typ, v)
		if err != nil {
			return // an element without a value, which may be read but not written
		}
		if back, err := decodeValue(typ, again); err != nil ||
			!back.Equal(v) && !strings.Contains(text, "float") && !strings.Contains(text, "double") {
			t.Fatalf("%s: %x became %x: %v", typ, data, again, err)
		}
	})
}

func BenchmarkDecodeAsset(b *testing.B) {
	typ := record.MapOf(record.Of(record.Text), record.Of(record.Text))
	data, err := appendValue(nil, typ, record.Nested(record.Map,
		[]record.Value{record.String("camera"), record.String("X100"), record.String("iso"), record.String("400")}))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeValue(typ, data); err != nil {
			b.Fatal(err)
		}
	}
}

// typeOf is some type of a kind.
func typeOf(k record.Kind) record.Type {
	text := record.Of(record.Text)
	switch k {
	case record.Map:
		return record.MapOf(text, text)
	case record.UDT:
		return record.UDTOf("u", record.Field{Name: "a", Type: text})
	case record.Vector:
		return record.Type{Kind: k, Dim: 2, Elems: []record.Type{text}}
	case record.List, record.Set, record.Tuple:
		return record.Type{Kind: k, Elems: []record.Type{text}}
	}
	return record.Of(k)
}

func drawType(t *rapid.T, depth int) record.Type {
	last := record.UDT
	if depth == 0 {
		last = record.Duration
	}
	switch k := record.Kind(rapid.IntRange(int(record.Boolean), int(last)).Draw(t, "kind")); k {
	case record.List, record.Set:
		return record.Type{Kind: k, Elems: []record.Type{drawType(t, depth-1)}}
	case record.Map: // gocql takes Go's maps, so keys must be comparable there
		key := rapid.SampledFrom([]record.Kind{record.Text, record.Int, record.UUID, record.Boolean}).Draw(t, "key")
		return record.MapOf(record.Of(key), drawType(t, depth-1))
	case record.Tuple, record.UDT:
		typ := record.Type{Kind: k, Name: "u"}
		for i := range rapid.IntRange(1, 4).Draw(t, "parts") {
			typ.Names = append(typ.Names, fmt.Sprintf("p%d", i))
			typ.Elems = append(typ.Elems, drawType(t, depth-1))
		}
		return typ
	default:
		return record.Of(k)
	}
}

func drawValue(t *rapid.T, typ record.Type) record.Value {
	digits := func() string {
		return record.VarintBytes(new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "digits")))
	}
	if rapid.Bool().Draw(t, "negative") {
		plus := digits
		digits = func() string {
			return record.VarintBytes(new(big.Int).Not(record.Bytes(record.Varint, plus()).BigInt()))
		}
	}
	fixed := func(n int) string { return string(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes")) }
	switch k := typ.Kind; k {
	case record.Boolean:
		return record.Bool(rapid.Bool().Draw(t, "bool"))
	case record.TinyInt:
		return record.Number(k, int64(rapid.Int8().Draw(t, "n")))
	case record.SmallInt:
		return record.Number(k, int64(rapid.Int16().Draw(t, "n")))
	case record.Int:
		return record.Number(k, int64(rapid.Int32().Draw(t, "n")))
	case record.BigInt, record.Timestamp, record.Time:
		return record.Number(k, rapid.Int64().Draw(t, "n"))
	case record.Date: // in the range of gocql's milliseconds
		return record.Number(k, int64(rapid.Int32().Draw(t, "day")))
	case record.Varint:
		return record.Bytes(k, digits())
	case record.Decimal:
		return record.Dec(digits(), rapid.Int32().Draw(t, "scale"))
	case record.Float:
		return record.Float32(rapid.Float32().Draw(t, "f"))
	case record.Double:
		return record.Float64(rapid.Float64().Draw(t, "f"))
	case record.Text:
		return record.String(rapid.String().Draw(t, "s"))
	case record.Blob:
		return record.Bytes(k, string(rapid.SliceOf(rapid.Byte()).Draw(t, "b")))
	case record.UUID:
		return record.Bytes(k, fixed(16))
	case record.TimeUUID:
		u := []byte(fixed(16))
		u[6] = 0x10 | u[6]&0x0f
		return record.Bytes(k, string(u))
	case record.Inet:
		if rapid.Bool().Draw(t, "v6") {
			return record.Bytes(k, "\x20\x01"+fixed(14))
		}
		return record.Bytes(k, fixed(4))
	case record.Duration:
		return record.Span(rapid.Int32().Draw(t, "months"), rapid.Int32().Draw(t, "days"), rapid.Int64().Draw(t, "ns"))
	case record.Map: // of Go's random order, so at most one pair
		var parts []record.Value
		if rapid.Bool().Draw(t, "pair") {
			parts = []record.Value{drawValue(t, typ.Elems[0]), drawValue(t, typ.Elems[1])}
		}
		return record.Nested(k, parts)
	case record.Tuple, record.UDT:
		parts := make([]record.Value, len(typ.Elems))
		for i := range parts {
			parts[i] = record.NullValue
			if rapid.IntRange(0, 3).Draw(t, "null") > 0 {
				parts[i] = drawValue(t, typ.Elems[i])
			}
		}
		return record.Nested(k, parts)
	}
	n := typ.Dim
	if typ.Kind != record.Vector {
		n = rapid.IntRange(0, 4).Draw(t, "elements")
	}
	parts := make([]record.Value, n)
	for i := range parts {
		parts[i] = drawValue(t, typ.Elems[0])
	}
	return record.Nested(typ.Kind, parts)
}

var gocqlKinds = map[record.Kind]gocql.Type{
	record.Boolean: gocql.TypeBoolean, record.TinyInt: gocql.TypeTinyInt, record.SmallInt: gocql.TypeSmallInt,
	record.Int:    gocql.TypeInt,
	record.BigInt: gocql.TypeBigInt, record.Varint: gocql.TypeVarint, record.Decimal: gocql.TypeDecimal,
	record.Float:  gocql.TypeFloat,
	record.Double: gocql.TypeDouble, record.Text: gocql.TypeVarchar, record.Blob: gocql.TypeBlob,
	record.UUID:     gocql.TypeUUID,
	record.TimeUUID: gocql.TypeTimeUUID, record.Inet: gocql.TypeInet, record.Timestamp: gocql.TypeTimestamp,
	record.Date: gocql.TypeDate,
	record.Time: gocql.TypeTime, record.Duration: gocql.TypeDuration, record.List: gocql.TypeList,
	record.Set: gocql.TypeSet,
	record.Map: gocql.TypeMap, record.Tuple: gocql.TypeTuple, record.UDT: gocql.TypeUDT,
}

func gocqlType(t record.Type) gocql.TypeInfo {
	native := gocql.NewNativeType(4, gocqlKinds[t.Kind], "")
	switch t.Kind {
	case record.List, record.Set:
		return gocql.CollectionType{NativeType: native, Elem: gocqlType(t.Elems[0])}
	case record.Map:
		return gocql.CollectionType{NativeType: native, Key: gocqlType(t.Elems[0]), Elem: gocqlType(t.Elems[1])}
	case record.Tuple:
		tuple := gocql.TupleTypeInfo{NativeType: native}
		for _, e := range t.Elems {
			tuple.Elems = append(tuple.Elems, gocqlType(e))
		}
		return tuple
	case record.UDT:
		udt := gocql.UDTTypeInfo{NativeType: native, Name: t.Name}
		for i, e := range t.Elems {
			udt.Elements = append(udt.Elements, gocql.UDTField{Name: t.Names[i], Type: gocqlType(e)})
		}
		return udt
	}
	return native
}

// gocqlValue is a value as a user of gocql would hand it over.
func gocqlValue(t record.Type, v record.Value) any {
	if v.IsNull() {
		return nil
	}
	switch t.Kind {
	case record.Boolean:
		return v.Bool()
	case record.TinyInt:
		return int8(v.Int())
	case record.SmallInt:
		return int16(v.Int())
	case record.Int:
		return int32(v.Int())
	case record.BigInt, record.Timestamp, record.Time:
		return v.Int()
	case record.Date:
		return v.Int() * (24 * time.Hour).Milliseconds()
	case record.Varint:
		return v.BigInt()
	case record.Decimal:
		return *inf.NewDecBig(v.BigInt(), inf.Scale(v.Int()))
	case record.Float:
		return float32(v.Float())
	case record.Double:
		return v.Float()
	case record.Text:
		return v.Str()
	case record.Blob:
		return []byte(v.Str())
	case record.UUID, record.TimeUUID:
		return gocql.UUID([]byte(v.Str()))
	case record.Inet:
		return net.IP(v.Str())
	case record.Duration:
		months, days, nanos := v.Span()
		return gocql.Duration{Months: months, Days: days, Nanoseconds: nanos}
	case record.Map:
		m := map[any]any{}
		for i := 0; i < len(v.Elems()); i += 2 {
			m[gocqlValue(t.Elems[0], v.Elems()[i])] = gocqlValue(t.Elems[1], v.Elems()[i+1])
		}
		return m
	case record.UDT:
		m := map[string]any{}
		for i, e := range v.Elems() {
			if !e.IsNull() {
				m[t.Names[i]] = gocqlValue(t.Elems[i], e)
			}
		}
		return m
	}
	parts := make([]any, len(v.Elems()))
	for i, e := range v.Elems() {
		parts[i] = gocqlValue(t.Elems[min(i, len(t.Elems)-1)], e)
	}
	return parts
}
