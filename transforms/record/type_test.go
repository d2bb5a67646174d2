package record_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	. "reprise/transforms/record"
)

func TestTypeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genType(3).Draw(t, "type")
		got, err := ParseType(want.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() || !got.Same(want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func TestParseType(t *testing.T) {
	udts := map[string]Type{"address": UDTOf("address", Field{"street", Of(Text)})}
	for text, want := range map[string]string{
		"varchar":                            "text",
		"ASCII":                              "text",
		"BigInt":                             "bigint",
		"map<text,frozen<list<int>>>":        "map<text, frozen<list<int>>>",
		"frozen<address>":                    "frozen<udt<street:text>>",
		" set < frozen < address > > ":       "set<frozen<udt<street:text>>>",
		"vector<float, 3>":                   "vector<float, 3>",
		"tuple<int, text>":                   "tuple<int, text>",
		`udt<a:int, "b c":text, "d""e":int>`: `udt<a:int, "b c":text, "d""e":int>`,
		"map<\n\ttext,\n\tint>":              "map<text, int>",
	} {
		got, err := ParseType(text, udts)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestParseTypeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "a type is missing",
		"counter":                            "count twice",
		"strin":                              `unknown type "strin"`,
		"address":                            `unknown type "address"`,
		"int text":                           "after the type",
		"int<text>":                          "after the type",
		"list":                               "list needs <...>",
		"list<int":                           "> is missing",
		"list<int, int>":                     "list takes 1 types",
		"map<int>":                           "map takes 2 types",
		"map<int, >":                         "a type is missing",
		"frozen":                             "frozen needs <type>",
		"frozen<int":                         "> is missing",
		"vector<float>":                      "number of elements",
		"vector<float, 0>":                   "number of elements",
		"vector<float, 3x>":                  "number of elements",
		"vector<float, 3, 4>":                "> is missing",
		"udt<a>":                             "udt needs name:type",
		"udt<a:int, a:text>":                 `"a" stands twice`,
		"udt<:int>":                          "udt needs name:type",
		"null":                               `unknown type "null"`,
		strings.Repeat("list<", 1_000_000):   "nested too deeply",
		strings.Repeat("frozen<", 1_000_000): "nested too deeply",
	} {
		_, err := ParseType(text, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %.200v, want %q in it", text, err, want)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.40q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// A type that can be parsed can also travel.
func TestDeepestTypeTravels(t *testing.T) {
	text := "int"
	for {
		deeper := "list<" + text + ">"
		if _, err := ParseType(deeper, nil); err != nil {
			break
		}
		text = deeper
	}
	typ, _ := ParseType(text, nil)
	v := Number(Int, 1)
	for u := typ; u.Kind == List; u = u.Elems[0] {
		v = Nested(List, []Value{v})
	}
	r := &Record{Schema: MustSchema([]Field{{"deep", typ}}), Values: []Value{v}}
	if _, err := DecodeRecord(AppendRecord(nil, r)); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}

func TestSchema(t *testing.T) {
	fields := []Field{{"a", Of(Int)}, {"b", Of(Text)}}
	for want, make := range map[string]func() (*Schema, error){
		`"a" stands twice`:            func() (*Schema, error) { return NewSchema(append(fields, fields[0])) },
		`"c" is not there`:            func() (*Schema, error) { return NewSchema(fields, "c") },
		`"a" stands twice in the key`: func() (*Schema, error) { return NewSchema(fields, "a", "a") },
	} {
		if _, err := make(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	s := MustSchema(fields, "b", "a")
	if got := strings.Join(s.KeyNames(), ","); got != "b,a" {
		t.Errorf("key: %s", got)
	}
	if s.Same(MustSchema(fields, "a", "b")) || s.Same(MustSchema(fields[:1], "a")) {
		t.Error("schemas that differ are the same")
	}
}

func FuzzParseType(f *testing.F) {
	f.Add(`map<text, frozen<udt<a:int, "b c":vector<float, 3>>>>`)
	f.Fuzz(func(t *testing.T, text string) {
		typ, err := ParseType(text, nil)
		if err != nil {
			return
		}
		again, err := ParseType(typ.String(), nil)
		if err != nil || again.String() != typ.String() {
			t.Fatalf("%q is %s, which reads as %s, %v", text, typ, again, err)
		}
	})
}
