package transforms_test

import "testing"

func Example_rename() {
	show("rename")
	// Output:
	//   rename: {name: title, ts: created}
	//
	//   {"id": "a", "name": "Sunset", "ts": "2024-05-01T12:00:00.000Z"}
	//     - name: "Sunset"
	//     - ts: "2024-05-01T12:00:00.000Z"
	//     + title: "Sunset"
	//     + created: "2024-05-01T12:00:00.000Z"
}

func TestRename(t *testing.T) {
	fields := []string{"id text", "a int", "b int"}
	runTests(t, []test{
		{"one", `- rename: {a: x}`, fields, `{"id":"k","a":1,"b":2}`, []string{`k {"id":"k","x":1,"b":2}`}},
		{"swapped", `- rename: {a: b, b: a}`, fields, `{"id":"k","a":1,"b":2}`, []string{`k {"id":"k","b":1,"a":2}`}},
		{"key", `- rename: {id: key}`, fields, `{"id":"k","a":1,"b":2}`, []string{`k {"key":"k","a":1,"b":2}`}},
		{"unset", `- rename: {a: x}`, fields, `{"id":"k"}`, []string{`k {"id":"k"}`}},
	})
}
