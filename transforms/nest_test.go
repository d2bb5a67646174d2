package transforms_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func Example_nest() {
	show("nest")
	// Output:
	//   nest: {into: meta}
	//
	//   {"id": "a", "meta_width": 640, "meta_height": 480}
	//     - meta_width: 640
	//     - meta_height: 480
	//     + meta: {"width":640,"height":480}
}

func TestNest(t *testing.T) {
	fields := []string{"id text", "a int", "meta_w int", "b int", "meta_h int", "c int"}
	have := `{"id":"k","a":1,"meta_w":2,"b":3,"meta_h":4,"c":5}`
	runTests(t, []test{
		{"by prefix", `- nest: {into: meta}`, fields, have,
			[]string{`k {"id":"k","a":1,"meta":{"w":2,"h":4},"b":3,"c":5}`}},
		{"by name", `- nest: {into: x, fields: [c, a]}`, fields, have,
			[]string{`k {"id":"k","x":{"c":5,"a":1},"meta_w":2,"b":3,"meta_h":4}`}},
		{"into one of its parts", `- nest: {into: a, fields: [a, b]}`, fields, have,
			[]string{`k {"id":"k","a":{"a":1,"b":3},"meta_w":2,"meta_h":4,"c":5}`}},
		{"map", `- nest: {into: meta, as: map}`, fields, `{"id":"k","meta_w":2,"meta_h":null}`,
			[]string{`k {"id":"k","meta":{"w":2}}`}},
		{"null", `- nest: {into: meta}`, fields, `{"id":"k","meta_w":null}`, []string{`k {"id":"k","meta":null}`}},
		{"delete", `- nest: {into: meta}`, fields, `{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k"}`}},
	})
}

// flatten undoes nest.
func TestNestThenFlatten(t *testing.T) {
	in := schema(t, "id text", "meta_w int", "meta_h int", "n int")
	have := fromJSON(t, in, `{"id":"k","meta_w":1,"meta_h":null,"n":3}`)
	chain := compile(t, in, "- nest: {into: meta}\n- flatten: {field: meta}")
	if !chain.Out.Same(in) {
		t.Errorf("schema %v, want %v", chain.Out.Fields, in.Fields)
	}
	want := []string{have.KeyText() + " " + string(have.AppendJSON(nil))}
	if diff := cmp.Diff(want, outcomes(t, chain, have)); diff != "" {
		t.Error(diff)
	}
}
