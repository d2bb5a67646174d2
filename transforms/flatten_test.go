package transforms_test

import "testing"

func Example_flatten() {
	show("flatten")
	// Output:
	//   flatten: {field: meta}
	//
	//   {"id": "a", "meta": {"width": 640, "height": 480}}
	//     - meta: {"width":640,"height":480}
	//     + meta_width: 640
	//     + meta_height: 480
}

func TestFlatten(t *testing.T) {
	fields := []string{"id text", "meta udt<width:int, size:udt<unit:text>>", "n int"}
	attrs := []string{"id text", "attrs map<text, text>"}
	runTests(t, []test{
		{"udt", `- flatten: {field: meta}`, fields, `{"id":"k","meta":{"width":1,"size":{"unit":"px"}},"n":5}`,
			[]string{`k {"id":"k","meta_width":1,"meta_size":{"unit":"px"},"n":5}`}},
		{"twice", "- flatten: {field: meta}\n- flatten: {field: meta_size, prefix: \"\"}", fields,
			`{"id":"k","meta":{"width":1,"size":{"unit":"px"}},"n":5}`,
			[]string{`k {"id":"k","meta_width":1,"unit":"px","n":5}`}},
		{"null", `- flatten: {field: meta}`, fields, `{"id":"k","meta":null,"n":5}`,
			[]string{`k {"id":"k","meta_width":null,"meta_size":null,"n":5}`}},
		{"delete", `- flatten: {field: meta}`, fields, `{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k"}`}},
		{"map", `- flatten: {field: attrs, keys: [a, z]}`, attrs, `{"id":"k","attrs":{"b":"2","a":"1","c":"3"}}`,
			[]string{`k {"id":"k","attrs":{"b":"2","c":"3"},"attrs_a":"1","attrs_z":null}`}},
		{"null map", `- flatten: {field: attrs, keys: [a], prefix: ""}`, attrs, `{"id":"k","attrs":null}`,
			[]string{`k {"id":"k","attrs":null,"a":null}`}},
		{"map with numbers", `- flatten: {field: m, keys: ["7"]}`, []string{"id text", "m map<int, text>"},
			`{"id":"k","m":{"7":"x"}}`, []string{`k {"id":"k","m":{},"m_7":"x"}`}},
		{"one part", `- flatten: {field: u}`, []string{"id text", "u udt<a:int>", "n int"},
			`{"id":"k","u":{"a":1},"n":2}`, []string{`k {"id":"k","u_a":1,"n":2}`}},
	})
}
