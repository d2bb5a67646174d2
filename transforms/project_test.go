package transforms_test

import "testing"

func Example_project() {
	show("project")
	// Output:
	//   project: {drop: [internal_notes]}
	//
	//   {"id": "a", "title": "Sunset", "internal_notes": "ask legal"}
	//     - internal_notes: "ask legal"
}

func TestProject(t *testing.T) {
	fields := []string{"id text", "a int", "b int", "c int"}
	have := `{"id":"k","a":1,"b":2,"c":3}`
	runTests(t, []test{
		{"keep", `- project: {keep: [c, id, a]}`, fields, have, []string{`k {"id":"k","a":1,"c":3}`}},
		{"drop", `- project: {drop: [a, c]}`, fields, have, []string{`k {"id":"k","b":2}`}},
		{"new key", `- project: {keep: [c, a], key: [c, a]}`, fields, have, []string{`3|1 {"a":1,"c":3}`}},
		{"new key alone", `- project: {key: [a]}`, fields, have, []string{`1 {"id":"k","a":1,"b":2,"c":3}`}},
		{"null in the new key", `- project: {key: [a]}`, fields, `{"id":"k","a":null}`,
			[]string{`dead in transforms.0.project: "a" is null, but part of the new key of this upsert ` +
				`[transform.null_key]`}},
		{"delete", `- project: {drop: [a]}`, fields, `{"id":"k","_op":"delete"}`, []string{`delete k {"id":"k"}`}},
		{"delete without the new key", `- project: {key: [a]}`, fields, `{"id":"k","_op":"delete"}`,
			[]string{`dead in transforms.0.project: "a" is null, but part of the new key of this delete ` +
				`[transform.null_key]`}},
	})
}
