package iotest

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// edges are values at the edges of their kinds, such as no system of one kind takes all.
var edges = func() (all []edge) {
	add := func(t record.Type, values ...record.Value) { all = append(all, edge{t, values}) }
	of := func(k record.Kind, n ...int64) { add(record.Of(k), numbers(k, n...)...) }
	nested, number := record.Nested, record.Number
	of(record.BigInt, math.MinInt64, math.MaxInt64, 1<<53+1, -1<<53-1)
	add(record.Of(record.Varint), nines(40, 1), nines(40, -1))
	add(record.Of(record.Decimal), decimal(1, math.MaxInt32), decimal(-1, math.MinInt32), decimal(0, 5),
		decimal(-7, 400), decimal(12, -3), record.Dec(nines(60, 1).Str(), 30))
	nan := math.Float64frombits(0x7ff8_0000_0000_0000) // as Cassandra has it
	for _, f := range []float64{nan, math.Inf(1), math.Inf(-1), math.Copysign(0, -1)} {
		add(record.Of(record.Float), record.Float32(float32(f)))
		add(record.Of(record.Double), record.Float64(f))
	}
	add(record.Of(record.Float), record.Float32(math.SmallestNonzeroFloat32), record.Float32(math.MaxFloat32))
	add(record.Of(record.Double), record.Float64(math.SmallestNonzeroFloat64), record.Float64(math.MaxFloat64))
	add(record.Of(record.Text), record.String(""), record.String("\x00\u2028\ufeff🎬"), record.String("NaN"))
	add(record.Of(record.Blob), record.Bytes(record.Blob, ""), record.Bytes(record.Blob, "\xff\x00"))
	of(record.Timestamp, math.MinInt64, math.MaxInt64, -62_167_219_200_001, 253_402_300_800_000, -1, 2024)
	of(record.Date, math.MinInt32, math.MaxInt32, -719_529, 2_932_897, -1)
	of(record.Time, day-1, day, day+1, -1, math.MaxInt64, math.MinInt64)
	add(record.Of(record.Duration), record.Span(math.MinInt32, math.MinInt32, math.MinInt64),
		record.Span(math.MaxInt32, math.MaxInt32, math.MaxInt64), record.Span(-1, 2, -3), record.Span(0, 0, 0))
	add(record.ListOf(record.Of(record.Time)), nested(record.List, numbers(record.Time, day+1, 1)),
		nested(record.List, nil))
	add(record.MapOf(record.Of(record.Time), record.Of(record.Timestamp)),
		nested(record.Map, []record.Value{number(record.Time, -1), number(record.Timestamp, math.MaxInt64)}))
	null := []record.Value{record.NullValue, record.NullValue}
	add(record.TupleOf(record.Of(record.Double), record.Of(record.Date)), nested(record.Tuple, null),
		nested(record.Tuple, []record.Value{record.Float64(math.Inf(-1)), number(record.Date, math.MinInt32)}))
	add(record.UDTOf("part", record.Field{Name: "at", Type: record.Of(record.Time)},
		record.Field{Name: "n", Type: record.Of(record.Int)}),
		nested(record.UDT, null), nested(record.UDT, []record.Value{number(record.Time, day), number(record.Int, 1)}))
	return all
}()

type edge struct {
	typ    record.Type
	values []record.Value
}

// day is what a Time is below.
const day = 86_400e9

func numbers(k record.Kind, all ...int64) (values []record.Value) {
	for _, n := range all {
		values = append(values, record.Number(k, n))
	}
	return values
}

func decimal(unscaled int64, scale int32) record.Value {
	return record.Dec(record.VarintBytes(big.NewInt(unscaled)), scale)
}

// nines is a number of so many digits, with a sign.
func nines(digits, sign int) record.Value {
	n, _ := new(big.Int).SetString(strings.Repeat("9", digits), 10)
	if sign < 0 {
		n.Neg(n)
	}
	return record.Bytes(record.Varint, record.VarintBytes(n))
}

// Edges are records with a number as key, each with one value at the edge of what its kind holds, and nulls.
func Edges() (records []*record.Record) {
	fields := []record.Field{{Name: "id", Type: record.Of(record.Int)}}
	for i, e := range edges {
		name := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				return r
			}
			return '_'
		}, e.typ.Kind.String())
		fields = append(fields, record.Field{Name: fmt.Sprint(name, i), Type: e.typ})
	}
	schema := record.MustSchema(fields, "id")
	for i, e := range edges {
		for _, v := range e.values {
			r := &record.Record{Schema: schema, Version: Base, Values: make([]record.Value, len(fields)),
				Origin: record.Origin{Split: "iotest"}}
			for j := range r.Values {
				r.Values[j] = record.NullValue
			}
			r.Values[0], r.Values[i+1] = record.Number(record.Int, int64(len(records))), v
			records = append(records, r)
		}
	}
	return records
}

// empty tells whether a value is null, or a tuple of nothing but nulls, which Cassandra does not tell from null.
func empty(v record.Value) bool {
	tuple := v.Kind() == record.Tuple || v.Kind() == record.UDT
	return v.IsNull() || tuple && !slices.ContainsFunc(v.Elems(), func(e record.Value) bool { return !e.IsNull() })
}

// TestEdges writes values at the edges of their kinds, and reads them again: each comes back as it was, or the sink
// refuses it, or the source gives a dead letter. None comes back as another one.
func TestEdges(t *testing.T, sink connector.Sink, source func() connector.Source) {
	t.Helper()
	records := Edges()
	run := connector.Run{ID: "edges", Job: "edges"}
	schema := records[0].Schema
	if err := sink.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	refused := map[int64]error{}
	settled := 0
	w, err := sink.Open(t.Context(), run, schema, func(results []connector.Result) {
		mu.Lock()
		defer mu.Unlock()
		settled += len(results)
		for _, r := range results {
			if r.Err != nil {
				refused[r.Record.Values[0].Int()] = r.Err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(t.Context(), r.Clone()); err != nil {
			t.Fatal(err)
		}
	}
	parts, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := sink.(connector.Committer); ok {
		if _, err := c.Commit(t.Context(), run, schema, parts); err != nil {
			t.Fatal(err)
		}
	}
	from := source()
	defer from.Close()
	found, unread := map[int64]bool{}, 0
	if err := from.Plan(t.Context(), connector.PlanOptions{}, func(split connector.Split) error {
		return from.Read(t.Context(), split, func(p connector.Page) error {
			unread += len(p.Dead)
			for _, d := range p.Dead {
				t.Logf("a dead letter of the source: %s", d.Message)
			}
			for _, r := range p.Records {
				id := r.Values[0].Int()
				found[id] = true
				for i, want := range records[id].Values {
					f := schema.Fields[i]
					if got := r.Get(f.Name); !got.Equal(want) && !(got.IsNull() && empty(want)) {
						was, is := want.AppendJSON(nil, f.Type), got.AppendJSON(nil, f.Type)
						t.Errorf("%s %s came back as %s", f.Type, was, is)
					}
				}
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if settled != len(records) || len(found)+len(refused)+unread != len(records) {
		t.Errorf("of %d records %d were settled, %d refused, %d read, %d read as dead letters", len(records),
			settled, len(refused), len(found), unread)
	}
	for id, err := range refused {
		for i, v := range records[id].Values[1:] {
			if !v.IsNull() {
				t.Logf("refused: %s %.60s: %v", edges[i].typ, v.AppendJSON(nil, edges[i].typ), err)
			}
		}
	}
}
