package transforms_test

import "testing"

func Example_filter() {
	show("filter")
	// Output:
	//   filter: size > 1000 && "hero" in tags
	//
	//   {"id": "a", "size": 2048, "tags": ["hero", "web"]}
	//     unchanged
	//
	//   {"id": "b", "size": 10, "tags": null}
	//     filtered
}

func TestFilter(t *testing.T) {
	fields := []string{"id text", "size bigint", "tags set<text>"}
	runTests(t, []test{
		{"kept", `- filter: size > 5`, fields, `{"id":"a","size":6}`, []string{`a {"id":"a","size":6}`}},
		{"dropped", `- filter: size > 5`, fields, `{"id":"a","size":5}`, []string{"filtered"}},
		{"null", `- filter: size > 5`, fields, `{"id":"a","size":null}`,
			[]string{`dead in transforms.0.filter: size > 5: no such overload: >; size is null ` +
				`[transform.expression]; test for it: size != null && ...`}},
		{"null tested", `- filter: size != null && size > 5`, fields, `{"id":"a"}`, []string{"filtered"}},
		{"delete stays", `- filter: size > 5`, fields, `{"id":"a","_op":"delete"}`, []string{`delete a {"id":"a"}`}},
		{"delete by key", `- filter: id != "a"`, fields, `{"id":"a","_op":"delete"}`, []string{"filtered"}},
		{"delete by op", `- filter: _op == "upsert" && size > 5`, fields, `{"id":"a","_op":"delete"}`,
			[]string{"filtered"}},
		{"not true", `- filter: fields["size"]`, fields, `{"id":"a","size":1}`,
			[]string{`dead in transforms.0.filter: fields["size"]: neither true nor false but int ` +
				`[transform.expression]`}},
		{"too much work", `- filter: tags.all(a, tags.all(b, tags.all(c, tags.all(d, tags.all(e, a + b + c + d + e != "")))))`, fields, tags(60),
			[]string{`dead in transforms.0.filter: tags.all(a, tags.all(b, tags.all(c, tags.all(d, tags.all(e, a + b ` +
				`+ c + d + e != ""))))): more work than one record may take [transform.cost]`}},
	})
}
