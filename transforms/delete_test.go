package transforms_test

import "testing"

func Example_delete() {
	show("delete")
	// Output:
	//   delete: licence_expires != null && licence_expires < now
	//
	//   {"id": "a", "title": "Sunset", "licence_expires": "2024-05-01T12:00:00.000Z"}
	//     - title: "Sunset"
	//     - licence_expires: "2024-05-01T12:00:00.000Z"
	//     _op: upsert → delete
	//
	//   {"id": "b", "title": "Harbour", "licence_expires": null}
	//     unchanged
}

func TestDelete(t *testing.T) {
	fields := []string{"id text", "n bigint", "at timestamp"}
	runTests(t, []test{
		{"true", `- delete: n > 5`, fields, `{"id":"a","n":6}`, []string{`delete a {"id":"a"}`}},
		{"false", `- delete: n > 5`, fields, `{"id":"a","n":5}`, []string{`a {"id":"a","n":5}`}},
		{"a delete stays one", `- delete: n > 5`, fields, `{"id":"a","_op":"delete"}`, []string{`delete a {"id":"a"}`}},
		{"deletes alone", "- delete: n > 5\n- filter: _op == \"delete\"", fields, `{"id":"a","n":5}`,
			[]string{"filtered"}},
		{"null", `- delete: n > 5`, fields, `{"id":"a","n":null}`,
			[]string{`dead in transforms.0.delete: n > 5: no such overload: >; n is null [transform.expression]; ` +
				`test for it: n != null && ...`}},
		{"version of a time", "- delete: {when: n > 5, version: at}\n- derive: {id: string(_version)}", fields,
			`{"id":"a","n":6,"at":"2024-05-01T12:00:00.000Z"}`,
			[]string{`delete 2024-05-01T12:00:00Z {"id":"2024-05-01T12:00:00Z"}`}},
		{"version of a number", "- delete: {when: n > 5, version: n}\n- derive: {id: string(_version)}", fields,
			`{"id":"a","n":6}`,
			[]string{`delete 1970-01-01T00:00:00.000006Z {"id":"1970-01-01T00:00:00.000006Z"}`}},
		{"no version", "- delete: {when: n > 5, version: n - 6}", fields, `{"id":"a","n":6}`,
			[]string{`dead in transforms.0.delete: n - 6: 0 is not a version: a timestamp or microseconds since 1970 ` +
				`are needed [transform.version]`}},
	})
}
