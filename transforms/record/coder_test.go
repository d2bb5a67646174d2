package record_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	. "reprise/transforms/record"
)

// sameRecord compares everything that a record holds.
var sameRecord = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *Schema) bool { return a.Same(b) })}

func TestCoderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Draw(t, "record")
		wire := AppendRecord([]byte("before"), r)
		if !bytes.Equal(EncodeRecord(r), wire[len("before"):]) {
			t.Fatal("EncodeRecord and AppendRecord differ")
		}
		got, err := DecodeRecord(wire[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, sameRecord); diff != "" {
			t.Fatalf("want -, got +:\n%s", diff)
		}
		for i, f := range got.Schema.Fields {
			if want := r.Schema.Fields[i].Type; f.Type.String() != want.String() || f.Type.Name != want.Name {
				t.Fatalf("type of %q: %s, want %s", f.Name, f.Type, want)
			}
		}
	})
}

func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genValue(genType(3).Draw(t, "type"), 0).Draw(t, "value")
		got, err := DecodeValue(AppendValue(nil, v))
		if err != nil || !got.Equal(v) {
			t.Fatalf("got %+v, %v, want %+v", got, err, v)
		}
	})
}

func TestSchemasAreShared(t *testing.T) {
	wire := AppendRecord(nil, asset(t))
	a, _ := DecodeRecord(wire)
	b, _ := DecodeRecord(wire)
	if a.Schema != b.Schema {
		t.Error("two records with the same fields have two schemas")
	}
}

// Each beginning of a record, and each record with one byte changed, is refused or decodes to something that can be
// used.
func TestDecodeDamaged(t *testing.T) {
	wire := AppendRecord(nil, asset(t))
	for i := range wire {
		if _, err := DecodeRecord(wire[:i]); err == nil {
			t.Errorf("the first %d of %d bytes were decoded", i, len(wire))
		}
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(wire)
			damaged[i] ^= flip
			use(damaged)
		}
	}
	if _, err := DecodeRecord(append(bytes.Clone(wire), 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
}

// use decodes, and does with the record what sinks do.
func use(wire []byte) bool {
	r, err := DecodeRecord(wire)
	if err != nil {
		return false
	}
	r.AppendJSON(nil)
	r.KeyText()
	AppendRecord(nil, r)
	return true
}

// Small damaged bytes that claim large numbers must not take large memory.
func TestDecodeAllocatesInProportion(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	schema, _ := asset(t).Schema.MarshalBinary()
	head := AppendRecord(nil, &Record{Schema: MustSchema(nil)})
	for name, wire := range map[string][]byte{
		"schema length":   huge,
		"fields":          append([]byte{9}, huge...),
		"nested values":   append(bytes.Clone(head[:len(head)-1]), huge...),
		"cells":           append(append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, huge...), 0),
		"parts of a type": append([]byte{30, 1, 1, 'a', byte(UDT), 0, 0, 20}, make([]byte, 24)...),
		"cut":             append([]byte{byte(len(schema)), 1}, schema[:100]...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			if use(wire) {
				t.Errorf("%s: decoded", name)
				break
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > uint64(1000+200*len(wire)) {
			t.Errorf("%s: %d bytes of memory for %d bytes", name, n, len(wire))
		}
	}
}

// Decoding goes only as deep as types may.
func TestDecodeTooDeep(t *testing.T) {
	deep := func(levels int) []byte {
		v := NullValue
		for range levels {
			v = Nested(List, []Value{v})
		}
		return AppendValue(nil, v)
	}
	if _, err := DecodeValue(deep(32)); err != nil {
		t.Errorf("32 levels: %v", err)
	}
	if _, err := DecodeValue(deep(33)); err == nil {
		t.Error("33 levels were decoded")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(AppendRecord(nil, asset(f)))
	f.Add(AppendRecord(nil, &Record{Schema: MustSchema([]Field{
		{Name: "id", Type: Of(BigInt)},
		{Name: "meta", Type: UDTOf("m", Field{Name: "at", Type: Of(Duration)},
			Field{Name: "v", Type: Type{Kind: Vector, Elems: []Type{Of(Float)}, Dim: 1}})},
	}, "id"), Values: []Value{Number(BigInt, 1),
		Nested(UDT, []Value{Span(1, 2, 3), Nested(Vector, []Value{Float32(1)})})}, Cells: make([]Cell, 2)}))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r, err := DecodeRecord(wire)
		if err != nil {
			return
		}
		r.AppendJSON(nil)
		again, err := DecodeRecord(AppendRecord(nil, r))
		if err != nil {
			t.Fatalf("what was decoded and encoded again is refused: %v", err)
		}
		if diff := cmp.Diff(r, again, sameRecord); diff != "" {
			t.Fatalf("decoded and encoded again differs:\n%s", diff)
		}
	})
}

func BenchmarkCoder(b *testing.B) {
	r := asset(b)
	wire := AppendRecord(nil, r)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, len(wire))
		for b.Loop() {
			buf = AppendRecord(buf[:0], r)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeRecord(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("both", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(wire)))
		for b.Loop() {
			if _, err := DecodeRecord(EncodeRecord(r)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
