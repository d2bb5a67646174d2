package compare

import (
	"bytes"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"reprise/transforms/record"
)

func form(v record.Value, t record.Type) []byte { return appendField(nil, v, t, true) }

// What targets hold in other types, orders and widths has the same form.
func TestSameForms(t *testing.T) {
	set, m := record.SetOf(record.Of(record.Text)), record.MapOf(record.Of(record.Int), record.Of(record.Text))
	text := func(all ...string) (parts []record.Value) {
		for _, s := range all {
			parts = append(parts, record.String(s))
		}
		return parts
	}
	dec := func(n, scale int64) record.Value {
		return record.Dec(record.VarintBytes(big.NewInt(n)), int32(scale))
	}
	one, two := record.Number(record.Int, 1), record.Number(record.Int, 2)
	for name, pair := range map[string]struct {
		a, b record.Value
		t    record.Type
		same bool
	}{
		"int in bigint": {one, record.Number(record.BigInt, 1), record.Of(record.Int), true},
		"int in varint": {one, record.Bytes(record.Varint, "\x01"), record.Of(record.Int), true},
		"float in double": {record.Float32(0.1), record.Float64(float64(float32(0.1))), record.Of(record.Float),
			true},
		"other float":     {record.Float32(0.1), record.Float64(0.1), record.Of(record.Float), false},
		"decimal zeros":   {dec(110, 2), dec(11, 1), record.Of(record.Decimal), true},
		"decimal integer": {dec(12000, 3), dec(12, 0), record.Of(record.Decimal), true},
		"other decimal":   {dec(110, 2), dec(11, 2), record.Of(record.Decimal), false},
		"set in a list": {record.Nested(record.Set, text("a", "b")), record.Nested(record.List, text("b", "a")),
			set, true},
		"list order": {record.Nested(record.List, text("a", "b")), record.Nested(record.List, text("b", "a")),
			record.ListOf(record.Of(record.Text)), false},
		"map order": {record.Nested(record.Map, []record.Value{one, record.String("x"), two,
			record.String("y")}), record.Nested(record.Map, []record.Value{two, record.String("y"), one,
			record.String("x")}), m, true},
		"empty set":  {record.Nested(record.Set, nil), record.NullValue, set, true},
		"empty text": {record.String(""), record.NullValue, record.Of(record.Text), false},
		"unset":      {record.Value{}, record.NullValue, record.Of(record.Text), true},
		"longer tuple": {record.Nested(record.Tuple, []record.Value{one}), record.Nested(record.Tuple,
			[]record.Value{one, record.NullValue}), record.TupleOf(record.Of(record.Int)), true},
		"timeuuid as uuid": {record.Bytes(record.TimeUUID, "0123456789abcdef"), record.Bytes(record.UUID,
			"0123456789abcdef"), record.Of(record.TimeUUID), true},
		"text and blob": {record.String("a"), record.Bytes(record.Blob, "a"), record.Of(record.Text), false},
		"parts run together": {record.Nested(record.List, text("a", "bc")), record.Nested(record.List, text("ab", "c")),
			record.ListOf(record.Of(record.Text)), false},
	} {
		if same := bytes.Equal(form(pair.a, pair.t), form(pair.b, pair.t)); same != pair.same {
			t.Errorf("%s: same form %t, want %t", name, same, pair.same)
		}
	}
}

// A tally tells in which segments two sets of keys differ, in whatever order they come.
func TestTally(t *testing.T) {
	schema := record.MustSchema([]record.Field{{Name: "bucket", Type: record.Of(record.Text)}, {Name: "id",
		Type: record.Of(record.Int)}}, "bucket", "id")
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Custom(func(t *rapid.T) [2]int {
			return [2]int{rapid.IntRange(0, 5).Draw(t, "bucket"), rapid.IntRange(0, 9).Draw(t, "id")}
		})
		record := func(k [2]int) *record.Record {
			return keyRecord(schema, []record.Value{record.String(string(rune('a' + k[0]))), record.Number(record.Int,
				int64(k[1]))})
		}
		a := rapid.SliceOfDistinct(key, func(k [2]int) [2]int { return k }).Draw(t, "a")
		b := rapid.SliceOfDistinct(key, func(k [2]int) [2]int { return k }).Draw(t, "b")
		x, y := Tally{}, Tally{}
		for _, k := range a {
			x.Add(record(k))
		}
		for i := range b {
			part := Tally{}
			part.Add(record(b[len(b)-1-i]))
			wire, _ := part.MarshalBinary()
			var read Tally
			if err := read.UnmarshalBinary(wire); err != nil {
				t.Fatal(err)
			}
			y.Merge(read)
		}
		want := map[uint16]bool{}
		for _, pair := range [][2][][2]int{{a, b}, {b, a}} {
			for _, k := range pair[0] {
				if !slices.Contains(pair[1], k) {
					want[segmentOf(keyForms(record(k)))] = true
				}
			}
		}
		got := Differ(x, y)
		if len(got) != len(want) || x.Keys() != int64(len(a)) {
			t.Fatalf("%d segments differ, want %d; %d keys of %d", len(got), len(want), x.Keys(), len(a))
		}
		for _, at := range got {
			if !want[at] {
				t.Errorf("segment %d differs", at)
			}
		}
	})
}

// What is found survives its way through the journal, in pieces.
func TestFoundParts(t *testing.T) {
	f := &Found{Wrong: 250, Foreign: 3, Tally: Tally{7: {Count: 2, Hash: [16]byte{1}}}}
	for i := range 250 {
		f.Suspects = append(f.Suspects, Suspect{Kind: Missing, Key: []byte{byte(i), byte(i >> 8)}, Digest: []byte{1}})
	}
	parts, err := f.parts()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Collect(append(parts, parts...))
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 3 || got.Wrong != 500 || got.Foreign != 6 || len(got.Suspects) != 500 || got.Tally[7].Count != 4 ||
		got.Tally[7].Hash != [16]byte{} {
		t.Errorf("%d parts: %d wrong, %d foreign, %d suspects, %v", len(parts), got.Wrong, got.Foreign,
			len(got.Suspects), got.Tally)
	}
	if n := len(distinct(got.Suspects, func(x Suspect) string { return string(x.Key) })); n != 250 {
		t.Errorf("%d distinct suspects", n)
	}
}
