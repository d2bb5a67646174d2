package record

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// genType draws a type; keys of maps are not nested, as people use them.
func genType(t *rapid.T, depth int) Type {
	plain := []Kind{Boolean, TinyInt, SmallInt, Int, BigInt, Varint, Decimal, Float, Double, Text, Blob, UUID, TimeUUID,
		Inet,
		Timestamp, Date, Time, Duration}
	k := rapid.SampledFrom(plain).Draw(t, "plain")
	if depth > 0 && rapid.Bool().Draw(t, "nested") {
		k = rapid.SampledFrom([]Kind{List, Set, Map, Tuple, UDT, Vector}).Draw(t, "kind")
	}
	sub := func() Type { return genType(t, depth-1) }
	switch k {
	case List:
		return ListOf(sub())
	case Set:
		return SetOf(sub())
	case Map:
		return MapOf(genType(t, 0), sub())
	case Tuple:
		return TupleOf(sub(), sub())
	case UDT:
		return UDTOf("u", Field{"a b", sub()}, Field{"ü", sub()})
	case Vector:
		return Type{Kind: Vector, Elems: []Type{sub()}, Dim: 2}
	}
	return Of(k)
}

func genBytes(t *rapid.T, n int) string {
	return string(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes"))
}

func genVarint(t *rapid.T) string {
	n := new(big.Int).SetBytes([]byte(genBytes(t, rapid.IntRange(0, 20).Draw(t, "length"))))
	if rapid.Bool().Draw(t, "negative") {
		n.Neg(n)
	}
	return VarintBytes(n)
}

func genValue(t *rapid.T, typ Type, null bool) Value {
	if null && rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		return NullValue
	}
	many := func() []Value {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Value {
			return genValue(t, typ.Elems[0],
				typ.Kind == List)
		}), 0, 20).Draw(t, "elems")
	}
	switch k := typ.Kind; k {
	case Boolean:
		return Bool(rapid.Bool().Draw(t, "bool"))
	case TinyInt, SmallInt, Int, BigInt:
		n := rapid.Int64().Draw(t, "number")
		shift := 64 - IntBits(k)
		return Number(k, n<<shift>>shift)
	case Varint:
		return Bytes(Varint, genVarint(t))
	case Decimal: // a negative scale is written as zeros, which have another scale
		return Dec(genVarint(t), rapid.SampledFrom([]int32{0, 1, 2, 18, 399, 400, 100_000, -64, -100_000}).Draw(t,
			"scale"))
	case Float:
		return Float32(rapid.Float32().Draw(t, "float"))
	case Double:
		return Float64(rapid.Float64().Draw(t, "double"))
	case Text:
		return String(strings.ToValidUTF8(rapid.String().Draw(t, "text"), ""))
	case Blob:
		return Bytes(Blob, genBytes(t, rapid.IntRange(0, 9).Draw(t, "length")))
	case UUID:
		return Bytes(k, genBytes(t, 16))
	case TimeUUID:
		b := []byte(genBytes(t, 16))
		b[6] = b[6]&0x0f | 0x10
		return Bytes(k, string(b))
	case Inet:
		return Bytes(k, genBytes(t, rapid.SampledFrom([]int{4, 16}).Draw(t, "length")))
	case Timestamp, Time:
		return Number(k, rapid.Int64().Draw(t, "number"))
	case Date:
		return Number(k, int64(rapid.Int32().Draw(t, "days")))
	case Duration:
		return Span(rapid.Int32().Draw(t, "months"), rapid.Int32().Draw(t, "days"), rapid.Int64().Draw(t, "nanos"))
	case List:
		return Nested(List, many())
	case Set, Map:
		step := 1
		var elems []Value
		for _, e := range many() {
			elems = append(elems, e)
			if k == Map {
				step = 2
				elems = append(elems, genValue(t, typ.Elems[1], true))
			}
			if firstTwice(elems, step) != nil {
				elems = elems[:len(elems)-step]
			}
		}
		return Nested(k, elems)
	}
	var elems []Value
	for i := range max(typ.Dim, len(typ.Elems)) {
		elems = append(elems, genValue(t, part(typ, i), typ.Kind != Vector))
	}
	return Nested(typ.Kind, elems)
}

func TestFromJSONReadsWhatAppendJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := genType(t, 3)
		want := genValue(t, typ, true)
		text := string(want.AppendJSON(nil, typ))
		got, err := FromJSON(typ, text)
		if err != nil {
			t.Fatalf("%s: %s: %v", typ, text, err)
		}
		if !got.Equal(want) {
			t.Fatalf("%s: %s became %s", typ, text, got.AppendJSON(nil, typ))
		}
	})
}

func TestFromJSONTakes(t *testing.T) {
	for _, c := range []struct{ typ, json, want string }{
		{"bigint", " -9223372036854775808 ", "-9223372036854775808"},
		{"bigint", "12.000", "12"},
		{"double", "1e3", "1000"},
		{"double", "9007199254740992", "9.007199254740992e+15"},
		{"decimal", "123456789012345678901234567890.10", `"123456789012345678901234567890.10"`},
		{"varint", "123456789012345678901234567890", `"123456789012345678901234567890"`},
		{"timestamp", "1714851731123", `"2024-05-04T19:42:11.123Z"`},
		{"timestamp", "0", `"1970-01-01T00:00:00.000Z"`},
		{"text", `"\u00e9\ud83d\ude00\/\b"`, `"é😀/\u0008"`},
		{"map<int, text>", `{"1":"a", "2": null}`, `{"1":"a","2":null}`},
		{"map<list<int>, text>", `{"[1,2]":"a"}`, `{"[1,2]":"a"}`},
		{"udt<a:int, b:text>", `{"b":"x"}`, `{"a":null,"b":"x"}`},
		{"set<text>", "[]", "[]"},
		{"int", "null", "null"},
	} {
		typ, err := ParseType(c.typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := FromJSON(typ, c.json)
		if got := string(v.AppendJSON(nil, typ)); err != nil || (got != c.want && c.typ != "double") {
			t.Errorf("%s from %s: %s, want %s (%v)", c.typ, c.json, got, c.want, err)
		}
	}
}

func TestFromJSONRefuses(t *testing.T) {
	for _, c := range []struct{ typ, json, says string }{
		{"bigint", "1.5", "not a valid bigint"},
		{"bigint", "9223372036854775808", "not a valid bigint"},
		{"bigint", `"1"`, "not a valid bigint"},
		{"bigint", "1e3", "not a valid bigint"},
		{"tinyint", "128", "not a valid tinyint"},
		{"timestamp", "2024", "not a valid time"},
		{"timestamp", "20240506", "not a valid time"},
		{"timestamp", "1714851731", "not a valid time"},
		{"timestamp", "1714851731123456", "not a valid time"},
		{"timestamp", "-1", "not a valid time"},
		{"timestamp", "1714851731123.5", "not a valid timestamp"},
		{"timestamp", `"1999"`, "only a number"},
		{"timestamp", `"1714851731123"`, "only a number"},
		{"list<timestamp>", `["20240506"]`, "only a number"},
		{"map<timestamp, int>", `{"2024": 1}`, "only a number"},
		{"timestamp", `"2024-05-04T12:00:00.123456Z"`, "parts of a millisecond"},
		{"date", "19847", "not a valid date"},
		{"date", `"2024"`, "only a number"},
		{"time", "1", "not a valid time"},
		{"double", "9007199254740993", "more digits"},
		{"float", "16777217", "more digits"},
		{"double", "1e999", "not a valid double"},
		{"double", `"1.5"`, "a text"},
		{"boolean", `"true"`, "not a valid boolean"},
		{"boolean", "1", "not a valid boolean"},
		{"text", "1", "not a valid text"},
		{"text", "\"\xff\"", "not UTF-8"},
		{"text", "\"\\n\xff\"", "not UTF-8"},
		{"text", `"\ud800"`, "surrogate"},
		{"text", `"\ud800\u0041"`, "surrogate"},
		{"text", `"\x"`, "escape"},
		{"text", `"\u12"`, "four digits"},
		{"text", `"a`, "without end"},
		{"text", "\"a\nb\"", "control"},
		{"text", `"a" "b"`, "more than one"},
		{"int", "01", "more than one"},
		{"int", "1.", "digits"},
		{"int", "", "not JSON"},
		{"set<int>", "[1,1]", "twice"},
		{"map<text, int>", `{"a":1,"a":2}`, "twice"},
		{"map<int, int>", `{"a":1}`, "not a valid int"},
		{"udt<a:int>", `{"b":1}`, "not part of"},
		{"udt<a:int>", `{"a":1,"a":1}`, "twice"},
		{"tuple<int, int>", "[1]", "parts"},
		{"tuple<int, int>", "[1,2,3]", "more than"},
		{"vector<int, 2>", "[1,2,3]", "3 parts"},
		{"list<int>", "[1,]", "no value"},
		{"list<int>", "[1", "no comma"},
		{"list<int>", "{}", "not a valid list"},
		{"uuid", `"x"`, "not a valid uuid"},
		{"text", strings.Repeat("[", 1000), "deep"},
	} {
		typ, err := ParseType(c.typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := FromJSON(typ, c.json)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s from %s: %s, error %v, want one that says %q", c.typ, c.json, v.AppendJSON(nil, typ), err,
				c.says)
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add("map<text, list<decimal>>", `{"a":[1.50,"2"],"b":null}`)
	f.Add("text", `"\ud83d\ude00"`)
	f.Fuzz(func(t *testing.T, name, text string) {
		typ, err := ParseType(name, nil)
		if err != nil {
			return
		}
		v, err := FromJSON(typ, text)
		if err != nil {
			return
		}
		again, err := FromJSON(typ, string(v.AppendJSON(nil, typ)))
		if err != nil {
			t.Fatalf("%s as %s: %v", text, typ, err)
		}
		if a, b := v.Text(typ), again.Text(typ); a != b {
			t.Fatalf("%s as %s: %s, then %s", text, typ, a, b)
		}
	})
}

func TestJSONParts(t *testing.T) {
	var got []string
	err := JSONParts(` {"a" : [1, {"b":"}"}], "c": null} `, func(name, value string) error {
		got = append(got, name+"="+value)
		return nil
	})
	if s := strings.Join(got, " "); err != nil || s != `a=[1, {"b":"}"}] c=null` {
		t.Fatal(s, err)
	}
	if JSONParts(`{"a":1}}`, func(string, string) error { return nil }) == nil {
		t.Fatal("took something after the object")
	}
}
