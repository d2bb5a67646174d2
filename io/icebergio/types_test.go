package icebergio

import (
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

func value(t *testing.T, typ, text string) record.Value {
	t.Helper()
	parsed, err := record.ParseType(typ, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.Parse(parsed, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTypes writes each type of CQL with usual and extreme values and compares with what
// Apache Iceberg's own library reads.
func TestTypes(t *testing.T) {
	t.Parallel()
	list := func(v ...record.Value) record.Value { return record.Nested(record.List, v) }
	set := func(v ...record.Value) record.Value { return record.Nested(record.Set, v) }
	vector := func(v ...record.Value) record.Value { return record.Nested(record.Vector, v) }
	mapped := func(v ...record.Value) record.Value { return record.Nested(record.Map, v) }
	tuple := func(v ...record.Value) record.Value { return record.Nested(record.Tuple, v) }
	udt := func(v ...record.Value) record.Value { return record.Nested(record.UDT, v) }
	text, null := record.String, record.NullValue
	number := func(typ, s string) record.Value { return value(t, typ, s) }
	cases := []struct {
		typ    string
		values []record.Value // of the rows; what is missing is unset
	}{
		{"boolean", []record.Value{record.Bool(true), record.Bool(false)}},
		{"tinyint", []record.Value{number("tinyint", "-128"), number("tinyint", "127"), null}},
		{"smallint", []record.Value{number("smallint", "-32768"), number("smallint", "32767")}},
		{"int", []record.Value{number("int", "-2147483648"), number("int", "2147483647")}},
		{"bigint", []record.Value{number("bigint", "-9223372036854775808"), number("bigint", "9223372036854775807")}},
		{"varint", []record.Value{number("varint", "-170141183460469231731687303715884105729"),
			number("varint", "0"), null}},
		{"decimal", []record.Value{number("decimal", "-0.00000000000000000000000000000000000000000000000001"),
			number("decimal", "1E+30"), null}},
		{"float", []record.Value{record.Float32(1.1), record.Float32(-math.MaxFloat32),
			record.Float32(float32(math.Inf(1)))}},
		{"double", []record.Value{record.Float64(0.1), record.Float64(math.NaN()),
			record.Float64(math.Copysign(0, -1))}},
		{"text", []record.Value{text("Grüße 日本 🎬\x00\u2028\"\\"), text(""), null}},
		{"blob", []record.Value{record.Bytes(record.Blob, "\x00\xff\x80"), record.Bytes(record.Blob, ""), null}},
		{"uuid", []record.Value{number("uuid", "f81d4fae-7dec-41d0-a765-00a0c91e6bf6")}},
		{"timeuuid", []record.Value{number("timeuuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6")}},
		{"inet", []record.Value{number("inet", "192.0.2.1"), number("inet", "2001:db8::1")}},
		{"timestamp", []record.Value{number("timestamp", "2024-02-29T23:59:59.999Z"), number("timestamp",
			"1969-12-31T23:59:59.999Z"), number("timestamp", "0001-01-01")}},
		{"date", []record.Value{number("date", "2024-02-29"), number("date", "1969-12-31")}},
		{"time", []record.Value{number("time", "23:59:59.999999999"), number("time", "00:00:00"), number("time",
			"86400000000001ns")}},
		{"duration", []record.Value{number("duration", "1mo2d3ns"), number("duration", "-5h")}},
		{"list<text>", []record.Value{list(text("b"), text("a"), text("b"), text("")), list(), null}},
		{"set<int>", []record.Value{set(number("int", "1"), number("int", "2")), set()}},
		{"vector<float, 3>", []record.Value{vector(record.Float32(1), record.Float32(-0.5), record.Float32(0))}},
		{"map<text, bigint>",
			[]record.Value{mapped(text("b"), number("bigint", "2"), text("a"), null), mapped(), null}},
		{"map<timeuuid, frozen<list<decimal>>>", []record.Value{
			mapped(number("timeuuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
				list(number("decimal", "1.50"), number("decimal", "-2")))}},
		{"tuple<text, int, timestamp>", []record.Value{tuple(text("x"), null, number("timestamp", "1970-01-01")),
			tuple(text("short"))}},
		{"udt<name:text,tags:set<text>,at:tuple<int,int>>", []record.Value{
			udt(text("n"), set(text("t")), tuple(number("int", "1"), number("int", "2"))),
			udt(null, null, null), null}},
	}
	fields := []record.Field{{Name: "id", Type: record.Of(record.Int)}}
	for _, c := range cases {
		typ, err := record.ParseType(c.typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, record.Field{Name: strings.Map(letters, c.typ), Type: typ})
	}
	schema := record.MustSchema(append(fields,
		record.Field{Name: "price", Type: record.Of(record.Decimal)},
		record.Field{Name: "big", Type: record.Of(record.Varint)}), "id")
	var records []*record.Record
	for row := range 4 {
		r := &record.Record{Schema: schema, Version: 7, Values: make([]record.Value, len(schema.Fields))}
		r.Values[0] = record.Number(record.Int, int64(row))
		for i, c := range cases {
			if row < len(c.values) {
				r.Values[i+1] = c.values[row]
			}
		}
		records = append(records, r)
	}
	for row, price := range []string{"99999999999999.9999", "-0.5", "12E+2"} {
		records[row].Values[len(cases)+1] = number("decimal", price)
		records[row].Values[len(cases)+2] = number("varint",
			[]string{"99999999999999999999999999999999999999", "-1", "0"}[row])
	}

	c := local(t)
	c.Columns = map[string]string{"price": "decimal(18,4)", "big": "decimal(38, 0)"}
	c.RunColumn = "run"
	s := newSink(t, c)
	run := connector.Run{ID: "run-1", Job: "types"}
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	parts, o := stage(t, s, run, records...)
	if len(o.dead) > 0 {
		t.Fatalf("dead letters: %v", o.errors())
	}
	if _, err := s.Commit(t.Context(), run, schema, parts); err != nil {
		t.Fatal(err)
	}
	lines := services.ReadIceberg(t, reader(c))
	slices.Sort(lines)

	// The source reads them as they were; a decimal has the column's scale then, and a short tuple all of its parts.
	got, dead := read(t, newSource(t, source(c)), connector.PlanOptions{})
	if len(got) != len(records) || len(dead) > 0 {
		t.Errorf("%d records and %d dead letters are read", len(got), len(dead))
	}
	for _, r := range got {
		for i, f := range schema.Fields {
			if want := records[r.Get("id").Int()].Values[i]; f.Name != "price" && f.Type.Kind != record.Tuple &&
				!(want.IsNull() && r.Values[i].IsNull()) && !r.Get(f.Name).Equal(want) {
				t.Errorf("%s is read as %s, want %s", f.Name, r.Get(f.Name).AppendJSON(nil, f.Type),
					want.AppendJSON(nil, f.Type))
			}
		}
	}
	golden.Compare(t, "testdata/types.golden", strings.Join(lines, "\n")+"\n"+
		withoutLocation(services.IcebergSchema(t, reader(c))))
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

// withoutLocation is the schema alone, a field on each line.
func withoutLocation(schema string) string {
	schema, _, _ = strings.Cut(schema, `,"location"`)
	return strings.ReplaceAll(schema, `{"id":`, "\n"+`{"id":`) + "\n"
}

// TestRescale compares with exact arithmetic.
func TestRescale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`-?[0-9]{1,45}`).Draw(t, "digits")
		n, _ := new(big.Int).SetString(digits, 10)
		from := rapid.Int32Range(-20, 60).Draw(t, "from")
		precision := rapid.Int32Range(1, 38).Draw(t, "precision")
		scale := rapid.Int32Range(0, precision).Draw(t, "scale")

		exact := new(big.Rat).SetInt(n)
		shift := new(big.Rat).SetInt(pow10(int64(max(scale-from, from-scale))))
		if scale >= from {
			exact.Mul(exact, shift)
		} else {
			exact.Quo(exact, shift)
		}
		fits := exact.IsInt() && new(big.Int).Abs(exact.Num()).Cmp(pow10(int64(precision))) < 0

		got, ok := rescale(record.Dec(record.VarintBytes(n), from), precision, scale)
		if ok != fits {
			t.Fatalf("fits %t, want %t", ok, fits)
		}
		if fits && got != decimal128.FromBigInt(exact.Num()) {
			t.Fatalf("%s, want %s", got.BigInt(), exact.Num())
		}
	})
}
