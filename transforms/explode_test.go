package transforms_test

import "testing"

func Example_explode() {
	show("explode")
	// Output:
	//   explode: {field: tags, as: tag}
	//
	//   {"id": "a", "title": "Sunset", "tags": ["hero", "web"]}
	//     - tags: ["hero","web"]
	//     + tag: "hero"
	//     _key: "a" → "a|hero"
	//     and
	//     - tags: ["hero","web"]
	//     + tag: "web"
	//     _key: "a" → "a|web"
	//
	//   {"id": "b", "title": "Dawn"}
	//     filtered
}

func TestExplode(t *testing.T) {
	fields := []string{"id text", "l list<int>", "s set<text>", "m map<text, int>", "n int"}
	runTests(t, []test{
		{"list", `- explode: {field: l}`, fields, `{"id":"k","l":[7,7],"n":1}`,
			[]string{`k|0 {"id":"k","l":7,"n":1,"l_index":0}`, `k|1 {"id":"k","l":7,"n":1,"l_index":1}`}},
		{"list with null", `- explode: {field: l, index_as: i}`, fields, `{"id":"k","l":[null,2]}`,
			[]string{`k|0 {"id":"k","l":null,"i":0}`, `k|1 {"id":"k","l":2,"i":1}`}},
		{"map", `- explode: {field: m, as: v, key_as: name}`, fields, `{"id":"k","m":{"a":1,"b":2}}`,
			[]string{`k|a {"id":"k","v":1,"name":"a"}`, `k|b {"id":"k","v":2,"name":"b"}`}},
		{"set, key of its own", `- explode: {field: s, as: tag, key: [tag, id]}`, fields, `{"id":"k","s":["a","b|c"]}`,
			[]string{`a|k {"id":"k","tag":"a"}`, `b\|c|k {"id":"k","tag":"b|c"}`}},
		{"empty", `- explode: {field: l}`, fields, `{"id":"k","l":[]}`, []string{"filtered"}},
		{"keep empty", `- explode: {field: l, keep_empty: true}`, fields, `{"id":"k","l":null,"n":1}`,
			[]string{`k|0 {"id":"k","l":null,"n":1,"l_index":0}`}},
		{"keep empty set", `- explode: {field: s, keep_empty: true, index_as: i, key: [id, i]}`, fields, `{"id":"k"}`,
			[]string{`k|0 {"id":"k","s":null,"i":0}`}},
		{"null in the new key", `- explode: {field: s, key: [id, s, n]}`, fields, `{"id":"k","s":["a"]}`,
			[]string{`dead in transforms.0.explode: "n", part of the new key, would be null [transform.null_key]`}},
		{"null element in the key", `- explode: {field: s}`, fields, `{"id":"k","s":["a",null]}`,
			[]string{`dead in transforms.0.explode: "s", part of the new key, would be null [transform.null_key]`}},
		{"delete", `- explode: {field: l}`, fields, `{"id":"k","_op":"delete"}`,
			[]string{`dead in transforms.0.explode: a delete of the whole record cannot be exploded: its elements ` +
				`are not known [transform.explode_delete]; delete at the target by the old key`}},
		{"then others", "- explode: {field: l}\n- filter: l != 2\n- derive: {half: {value: '12 / l', type: int}}",
			fields, `{"id":"k","l":[1,2,0,3]}`,
			[]string{`k|0 {"id":"k","l":1,"l_index":0,"half":12}`,
				`dead in transforms.2.derive: 12 / l: division by zero [transform.expression]`,
				`k|3 {"id":"k","l":3,"l_index":3,"half":4}`, "filtered"}},
	})
}
