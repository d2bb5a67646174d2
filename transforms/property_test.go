package transforms_test

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/transforms"
	"reprise/transforms/record"
)

// propertyConfigs are chains of one step, at least one for each transform, of which many fail on some records.
var propertyConfigs = []string{
	`- filter: size > 5`,
	`- filter: '"a" in tags || attrs["a"] == "x" || meta.width > 3'`,
	`- filter: id < "m"`,
	`- delete: size > 5`,
	`- delete: {when: '"a" in tags || title == "a"', version: size}`,
	`- project: {keep: [id, tags, size]}`,
	`- project: {drop: [title], key: [size, id]}`,
	`- rename: {title: size, size: title, id: key}`,
	`- cast: {title: int, size: tinyint, score: bigint, price: int}`,
	`- cast: {tags: list<int>, created: date, meta: "udt<height:text, width:tinyint, depth:int>", size: text}`,
	`- cast: {attrs: "map<int, text>", owner: timeuuid, size: timestamp}`,
	`- derive: {size: size * 1000000, half: 'score / 2.0', title: 'title.substring(0, 3)', when: 'timestamp(size)'}`,
	`- derive: {id: title, x: {value: 'meta.width', type: tinyint}}`,
	`- derive: {all: 'tags + [title]', both: '{"t": title}', f: {value: 'fields["score"]', type: float}, m: meta, d: created}`,
	`- derive: {attrs: 'merge(attrs, {"a": title, "y": "z"})', more: 'without(attrs, ["a"])[?"b"]', tags: 'tags + ["a"]'}`,
	`- set_defaults: {size: 7, tags: [x], meta: {width: 1}}`,
	`- explode: {field: tags, as: tag}`,
	`- explode: {field: attrs, keep_empty: true, index_as: i, key: [id, i]}`,
	`- explode: {field: tags, key: [size, tags]}`,
	`- flatten: {field: meta}`,
	`- flatten: {field: attrs, keys: [a, b]}`,
	`- nest: {into: x, fields: [title, size, tags]}`,
	`- nest: {into: x, fields: [title, more], as: map}`,
	`- redact: {fields: [title, size, meta], with: remove}`,
	`- redact: {fields: [title, more], with: mask, keep_last: 1}`,
	`- redact: {fields: [id, title, owner, raw], with: hash, secret: "env:REDACT_TEST_KEY"}`,
	`- truncate: {fields: [title, raw], chars: 2, bytes: 3}`,
	`- route: {field: r, cases: [{when: size > 3, value: a}, {when: 'title.matches("^a")', value: b}], default: c}`,
	`- route: {field: title, cases: [{when: id == "a", value: a}]}`,
}

var propertyFields = []string{"id text", "title text", "more text", "size bigint", "score double", "price decimal",
	"created timestamp", "owner uuid", "raw blob",
	"tags set<text>", "attrs map<text, text>", "meta udt<width:int, height:int>"}

// genRecord draws a record whose values are mostly near what the expressions above look at.
func genRecord(t *rapid.T, in *record.Schema) *record.Record {
	text := rapid.SampledFrom([]string{"", "a", "b", "x", "7", "12", "äöü", "[1]", "1e3", "zebra"})
	number := rapid.OneOf(rapid.Int64Range(-2, 300), rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64}))
	var value func(typ record.Type, label string) record.Value
	value = func(typ record.Type, label string) record.Value {
		switch rapid.IntRange(0, 9).Draw(t, label+" null") {
		case 0:
			return record.NullValue
		case 1:
			return record.Value{}
		}
		texts := func() (parts []record.Value) {
			for _, s := range rapid.SliceOfNDistinct(text, 0, 3, rapid.ID).Draw(t, label) {
				parts = append(parts, record.String(s))
			}
			return parts
		}
		switch k := typ.Kind; k {
		case record.Text:
			return record.String(text.Draw(t, label))
		case record.BigInt, record.Timestamp:
			return record.Number(k, number.Draw(t, label))
		case record.Int:
			return record.Number(k, rapid.Int64Range(-2, 300).Draw(t, label))
		case record.Double:
			return record.Float64(rapid.SampledFrom([]float64{0, 1, -1.5, 1e300, math.NaN(), math.Inf(1)}).Draw(t,
				label))
		case record.Decimal:
			return record.Dec("\x05", rapid.Int32Range(-1, 1).Draw(t, label))
		case record.UUID:
			return record.Bytes(k, string(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label)))
		case record.Blob:
			return record.Bytes(k, string(rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, label)))
		case record.Set:
			return record.Nested(k, texts())
		case record.Map:
			var parts []record.Value
			for _, key := range texts() {
				parts = append(parts, key, record.String(text.Draw(t, label)))
			}
			return record.Nested(k, parts)
		case record.UDT:
			part := func() record.Value {
				v := value(typ.Elems[0], label)
				if v.Kind() == record.Unset {
					return record.NullValue
				}
				return v
			}
			return record.Nested(k, []record.Value{part(), part()})
		}
		panic(typ.String())
	}
	r := &record.Record{Schema: in, Version: 5, Expires: 6}
	cells := rapid.Bool().Draw(t, "cells")
	if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
		r.Op = record.Delete
	}
	for i, f := range in.Fields {
		v := record.Value{}
		switch {
		case slices.Contains(in.Key, i):
			v = record.String(text.Draw(t, f.Name))
		case r.Op == record.Upsert:
			v = value(f.Type, f.Name)
		}
		r.Values = append(r.Values, v)
		if cells {
			r.Cells = append(r.Cells, record.Cell{Version: int64(i)})
		}
	}
	return r
}

// TestEveryTransform checks what holds for each: a record that fails is as it entered; each record ends in exactly one
// way; what comes out fits its schema; deletes have nothing but their key; the same record gives the same result, from
// a second chain as well.
func TestEveryTransform(t *testing.T) {
	t.Setenv("REDACT_TEST_KEY", "sesame")
	in := schema(t, propertyFields...)
	tested := map[string]bool{"misbehave": true, "slugify": true}
	for _, config := range propertyConfigs {
		chain, second := compile(t, in, config), compile(t, in, config)
		tested[chain.Steps[0].Name] = true
		failures, out := 0, 0
		t.Run(config, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := genRecord(t, in)
				first := applied(t, chain, r.Clone())
				again := applied(t, second, r.Clone())
				if diff := cmp.Diff(first, again, sameRecord); diff != "" {
					t.Fatalf("another time it is not the same:\n%s", diff)
				}
				failures += first.Dead
				out += len(first.Out)
			})
			if out == 0 {
				t.Errorf("nothing came out, %d failures", failures)
			}
		})
	}
	for _, x := range transforms.All() {
		if !tested[x.Name] {
			t.Errorf("%s is not tested", x.Name)
		}
	}
}

type ends struct {
	Out            []*record.Record
	Dead, Filtered int
	Error          string
}

func applied(t *rapid.T, chain *transforms.Chain, r *record.Record) (e ends) {
	before := r.Clone()
	e.Filtered = chain.Apply(r, func(out *record.Record) { e.Out = append(e.Out, out) },
		func(in *record.Record, _ string, err error) {
			e.Dead++
			e.Error = err.Error()
			if diff := cmp.Diff(before, in, sameRecord); diff != "" {
				t.Fatalf("%v: the record is not as it entered:\n%s", err, diff)
			}
		})
	if several := len(e.Out) > 1 && chain.Steps[0].Name == "explode" && e.Dead+e.Filtered == 0; !several &&
		len(e.Out)+e.Dead+e.Filtered != 1 {
		t.Fatalf("%d records came out, %d were filtered, %d are dead", len(e.Out), e.Filtered, e.Dead)
	}
	keys := map[string]bool{}
	for _, out := range e.Out {
		fits(t, out, chain.Out, chain.Steps[0].Name == "route")
		if keys[out.KeyText()] {
			t.Fatalf("two records with the key %s", out.KeyText())
		}
		keys[out.KeyText()] = true
		if deleted := chain.Steps[0].Name == "delete" && out.Op == record.Delete &&
			before.Op == record.Upsert; deleted && out.Version > 0 {
			continue
		}
		if out.Version != before.Version || out.Op != before.Op || out.Expires != before.Expires {
			t.Fatalf("version, operation or expiry changed: %+v", out)
		}
	}
	return e
}

// fits checks that a record is of a schema; routed deletes have a value more.
func fits(t *rapid.T, r *record.Record, s *record.Schema, routed bool) {
	if r.Schema != s || len(r.Values) != len(s.Fields) || (r.Cells != nil && len(r.Cells) != len(s.Fields)) {
		t.Fatalf("%d values and %d cells for %d fields", len(r.Values), len(r.Cells), len(s.Fields))
	}
	for i, f := range s.Fields {
		v := r.Values[i]
		if !ofType(v, f.Type) {
			t.Fatalf("%s, a %s, holds a %s: %s", f.Name, f.Type, v.Kind(), v.AppendJSON(nil, f.Type))
		}
		switch inKey := slices.Contains(s.Key, i); {
		case inKey && v.IsNull():
			t.Fatalf("%s, part of the key, is null", f.Name)
		case !inKey && r.Op == record.Delete && v.Kind() != record.Unset && !routed:
			t.Fatalf("%s of a delete is %s", f.Name, v.AppendJSON(nil, f.Type))
		}
	}
	if _, err := record.DecodeRecord(record.AppendRecord(nil, r)); err != nil {
		t.Fatal(err)
	}
}

func ofType(v record.Value, typ record.Type) bool {
	if v.IsNull() {
		return true
	}
	if v.Kind() != typ.Kind {
		return false
	}
	for i, part := range v.Elems() {
		of := typ.Elems[0]
		switch typ.Kind {
		case record.Map:
			of = typ.Elems[i%2]
		case record.UDT, record.Tuple:
			of = typ.Elems[i]
		}
		if part.Kind() == record.Unset || !ofType(part, of) {
			return false
		}
	}
	return true
}
