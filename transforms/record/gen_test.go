package record_test

import (
	"encoding/json"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	. "reprise/transforms/record"
)

// asset is the record that benchmarks use, here and in pipelines/travel.
func asset(t testing.TB) *Record {
	t.Helper()
	text, err := os.ReadFile("testdata/asset.json")
	if err != nil {
		t.Fatal(err)
	}
	var a struct {
		Key, Fields []string
		Record      map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	r := &Record{Version: 1714851731123456, Origin: Origin{Split: "image 2024-05-04 " +
		"8d3f..9a00", Position: []byte("8d3f4e000a1b11ef9c4f0242ac120002")}}
	var fields []Field
	for _, f := range a.Fields {
		name, typ, _ := strings.Cut(f, " ")
		parsed, err := ParseType(typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := FromJSON(parsed, string(a.Record[name]))
		if err != nil {
			t.Fatal(err)
		}
		fields, r.Values = append(fields, Field{Name: name, Type: parsed}), append(r.Values, v)
	}
	r.Schema = MustSchema(fields, a.Key...)
	return r
}

var plainKinds = func() (all []Kind) {
	for k := Boolean; k < List; k++ {
		all = append(all, k)
	}
	return all
}()

func genName() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[a-z_][a-z0-9_]{0,8}`), rapid.StringN(1, 6, -1))
}

func genType(depth int) *rapid.Generator[Type] {
	return rapid.Custom(func(t *rapid.T) Type {
		k := Kind(rapid.IntRange(int(Boolean), int(Vector)).Draw(t, "kind"))
		if k < List || depth == 0 {
			return Of(rapid.SampledFrom(plainKinds).Draw(t, "plain"))
		}
		typ := Type{Kind: k, Frozen: rapid.Bool().Draw(t, "frozen")}
		n := map[Kind]int{List: 1, Set: 1, Map: 2, Vector: 1}[k]
		if n == 0 {
			n = rapid.IntRange(1, 4).Draw(t, "parts")
		}
		if k == Vector {
			typ.Dim = rapid.IntRange(1, 5).Draw(t, "dim")
		}
		names := rapid.SliceOfNDistinct(genName(), n, n, rapid.ID).Draw(t, "names")
		for i := range n {
			if k == UDT {
				typ.Names = append(typ.Names, names[i])
			}
			typ.Elems = append(typ.Elems, genType(depth-1).Draw(t, "elem"))
		}
		return typ
	})
}

func genBig() *rapid.Generator[*big.Int] {
	return rapid.Custom(func(t *rapid.T) *big.Int {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "magnitude"))
		if rapid.Bool().Draw(t, "negative") {
			n.Neg(n)
		}
		return n
	})
}

// genPlain draws any value that a plain kind may hold.
func genPlain(k Kind) *rapid.Generator[Value] {
	return rapid.Custom(func(t *rapid.T) Value {
		switch k {
		case Boolean:
			return Bool(rapid.Bool().Draw(t, "b"))
		case TinyInt, SmallInt, Int, BigInt:
			bits := IntBits(k)
			return Number(k, rapid.Int64Range(-1<<(bits-1), 1<<(bits-1)-1).Draw(t, "n"))
		case Varint:
			return Bytes(Varint, VarintBytes(genBig().Draw(t, "n")))
		case Decimal:
			scale := rapid.OneOf(rapid.Int32Range(-70, 70), rapid.Int32Range(-500, 500),
				rapid.SampledFrom([]int32{math.MinInt32, math.MaxInt32})).Draw(t, "scale")
			return Dec(VarintBytes(genBig().Draw(t, "n")), scale)
		case Float:
			return Float32(rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{float32(math.Inf(1)),
				float32(math.Inf(-1)), 0, float32(math.NaN()), float32(math.Copysign(0, -1))})).Draw(t, "f"))
		case Double:
			return Float64(rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.Inf(1), math.Inf(-1),
				math.Copysign(0, -1), math.Float64frombits(0x7ff8_0000_0000_0000)})).Draw(t, "f"))
		case Text:
			return String(rapid.String().Draw(t, "s"))
		case Blob:
			return Bytes(Blob, string(rapid.SliceOf(rapid.Byte()).Draw(t, "b")))
		case UUID, TimeUUID:
			u := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "u")
			if k == TimeUUID {
				u[6] = u[6]&0x0f | 0x10
			}
			return Bytes(k, string(u))
		case Inet:
			n := rapid.SampledFrom([]int{4, 16}).Draw(t, "length")
			return Bytes(Inet, string(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "addr")))
		case Timestamp:
			return Number(k, rapid.OneOf(rapid.Int64Range(-1e14, 1e15), rapid.Int64(),
				rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64})).Draw(t, "ms"))
		case Date:
			return Number(k, rapid.Int64Range(math.MinInt32, math.MaxInt32).Draw(t, "days"))
		case Time: // Cassandra also takes what is outside of a day
			return Number(k, rapid.OneOf(rapid.Int64Range(0, 86_400e9-1), rapid.Int64(),
				rapid.SampledFrom([]int64{-1, 86_400e9, 86_400e9 + 1})).Draw(t, "ns"))
		case Duration: // no system gives one whose parts differ in sign
			return Span(rapid.Int32().Draw(t, "months"), rapid.Int32().Draw(t, "days"), rapid.Int64().Draw(t, "nanos"))
		}
		panic(k)
	})
}

// genValue draws a value of a type, null and unset included where they may be.
func genValue(typ Type, depth int) *rapid.Generator[Value] {
	return rapid.Custom(func(t *rapid.T) Value {
		switch rapid.IntRange(0, 9).Draw(t, "null") {
		case 0:
			return NullValue
		case 1:
			if depth == 0 {
				return Value{}
			}
		}
		if typ.Kind < List {
			return genPlain(typ.Kind).Draw(t, "plain")
		}
		var parts []Value
		add := func(typ Type) { parts = append(parts, genValue(typ, depth+1).Draw(t, "part")) }
		switch typ.Kind {
		case List, Set:
			for range rapid.IntRange(0, 4).Draw(t, "n") {
				add(typ.Elems[0])
			}
		case Vector:
			for range typ.Dim {
				add(typ.Elems[0])
			}
		case Map:
			for range rapid.IntRange(0, 3).Draw(t, "n") {
				add(typ.Elems[0])
				add(typ.Elems[1])
			}
		case Tuple, UDT:
			for _, e := range typ.Elems {
				add(e)
			}
		}
		return Nested(typ.Kind, parts)
	})
}

func genSchema() *rapid.Generator[*Schema] {
	return rapid.Custom(func(t *rapid.T) *Schema {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		names := rapid.SliceOfNDistinct(genName(), n, n, rapid.ID).Draw(t, "names")
		fields := make([]Field, n)
		for i := range fields {
			fields[i] = Field{Name: names[i], Type: genType(2).Draw(t, "type")}
		}
		return MustSchema(fields, names[:rapid.IntRange(0, n).Draw(t, "key")]...)
	})
}

func genRecord() *rapid.Generator[*Record] {
	return rapid.Custom(func(t *rapid.T) *Record {
		r := &Record{Schema: genSchema().Draw(t, "schema"), Version: rapid.Int64().Draw(t, "version"),
			Expires: rapid.Int64().Draw(t, "expires"),
			Op:      rapid.SampledFrom([]Op{Upsert, Delete}).Draw(t, "op"),
			Origin: Origin{Split: rapid.String().Draw(t, "split"),
				Position: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "position")}}
		cells := rapid.Bool().Draw(t, "cells")
		for _, f := range r.Schema.Fields {
			r.Values = append(r.Values, genValue(f.Type, 0).Draw(t, f.Name))
			if cells {
				r.Cells = append(r.Cells, Cell{rapid.Int64().Draw(t, "cell"), rapid.Int64().Draw(t, "expires")})
			}
		}
		return r
	})
}
