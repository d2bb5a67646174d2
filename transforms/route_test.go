package transforms_test

import "testing"

func Example_route() {
	show("route")
	// Output:
	//   route:
	//     field: tier
	//     cases:
	//       - {when: size > 1000000, value: large}
	//       - {when: size > 1000, value: medium}
	//     default: small
	//
	//   {"id": "a", "size": 5000}
	//     + tier: "medium"
	//
	//   {"id": "b", "size": 1}
	//     + tier: "small"
}

func TestRoute(t *testing.T) {
	fields := []string{"id text", "n int", "s text"}
	config := `- route: {field: r, cases: [{when: n > 10, value: big}, {when: n > 5, value: middle}], default: small}`
	runTests(t, []test{
		{"first", config, fields, `{"id":"k","n":11}`, []string{`k {"id":"k","n":11,"r":"big"}`}},
		{"second", config, fields, `{"id":"k","n":6}`, []string{`k {"id":"k","n":6,"r":"middle"}`}},
		{"default", config, fields, `{"id":"k","n":1}`, []string{`k {"id":"k","n":1,"r":"small"}`}},
		{"no default", `- route: {field: s, cases: [{when: n > 10, value: big}]}`, fields, `{"id":"k","n":1,"s":"was"}`,
			[]string{`k {"id":"k","n":1,"s":null}`}},
		{"error", config, fields, `{"id":"k"}`,
			[]string{`dead in transforms.0.route: n > 10: no such overload: >; n is null [transform.expression]; ` +
				`test for it: n != null && ...`}},
		{"delete", config, fields, `{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k"}`}},
		{"delete by key", `- route: {field: r, cases: [{when: id == "k", value: a}, {when: n > 10, value: b}]}`, fields,
			`{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k","r":"a"}`}},
	})
}
