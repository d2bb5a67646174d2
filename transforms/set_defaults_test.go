package transforms_test

import "testing"

func Example_set_defaults() {
	show("set_defaults")
	// Output:
	//   set_defaults: {licence: unknown, tags: []}
	//
	//   {"id": "a", "licence": null}
	//     licence: null → "unknown"
	//     + tags: []
	//
	//   {"id": "b", "licence": "CC-BY", "tags": ["web"]}
	//     unchanged
}

func TestSetDefaults(t *testing.T) {
	fields := []string{"id text", "s text", "n bigint", "u udt<a:int>"}
	config := `- set_defaults: {s: none, n: 5, u: {a: 1}}`
	runTests(t, []test{
		{"null", config, fields, `{"id":"k","s":null,"n":null,"u":null}`,
			[]string{`k {"id":"k","s":"none","n":5,"u":{"a":1}}`}},
		{"unset", config, fields, `{"id":"k"}`, []string{`k {"id":"k","s":"none","n":5,"u":{"a":1}}`}},
		{"there", config, fields, `{"id":"k","s":"","n":0,"u":{"a":null}}`,
			[]string{`k {"id":"k","s":"","n":0,"u":{"a":null}}`}},
		{"delete", config, fields, `{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k"}`}},
	})
}
