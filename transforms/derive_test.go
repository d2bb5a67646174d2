package transforms_test

import "testing"

func Example_derive() {
	show("derive")
	// Output:
	//   derive:
	//     month: string(created).substring(0, 7)
	//     title: title.trim()
	//     day: {value: created, type: date}
	//
	//   {"id": "a", "title": " Sunset ", "created": "2024-05-01T12:00:00.000Z"}
	//     title: " Sunset " → "Sunset"
	//     + month: "2024-05"
	//     + day: "2024-05-01"
}

func TestDerive(t *testing.T) {
	fields := []string{"id text", "n int", "x double", "s text", "at timestamp", "tags set<text>", "m map<text, int>",
		"u udt<a:int, b:text>", "p decimal"}
	have := `{"id":"k","n":3,"x":1.5,"s":"abc","at":"2024-05-01T12:00:00.000Z","tags":["b","a"],"m":{"z":1,"a":2},"u":{"a":1,"b":"x"},"p":"1.50"}`
	only := func(config, want string) test {
		return test{config, config, fields, have, []string{want}}
	}
	new := func(expression, want string) test {
		return only("- derive: {y: "+expression+"}\n- project: {keep: [id, y]}", `k {"id":"k","y":`+want+`}`)
	}
	dead := func(expression, want string) test {
		return only("- derive: {y: "+expression+"}", "dead in transforms.0.derive: "+want)
	}
	runTests(t, []test{
		new(`n + 1`, `4`), new(`x * 2.0`, `3`), new(`s + "d"`, `"abcd"`), new(`n > 2`, `true`),
		new(`bytes(s)`, `"YWJj"`), new(`at`, `"2024-05-01T12:00:00.000Z"`), new(`now - at`, `"2678400000000000ns"`),
		new(`tags`, `["b","a"]`), new(`m`, `{"z":1,"a":2}`), new(`u`, `{"a":1,"b":"x"}`), new(`p`, `"1.50"`),
		new(`u.a`, `1`), new(`'m["z"]'`, `1`), new(`'fields["p"]'`, `"1.50"`),
		new(`{value: "null", type: int}`, `null`), new(`'m[?"z"]'`, `1`), new(`'m[?"none"]'`, `null`),
		new(`{value: 'm[?"z"]', type: tinyint}`, `1`),
		new(`'tags.map(t, t.upperAscii())'`, `["B","A"]`), new(`'{"b": n, "a": 1}'`, `{"a":1,"b":3}`),
		new(`'merge(m, {"z": 5, "b": n})'`, `{"a":2,"b":3,"z":5}`), new(`'without(m, ["z", "none"])'`, `{"a":2}`),
		new(`{value: 'merge(u, {"b": "y"})', type: 'udt<a:int, b:text>'}`, `{"a":1,"b":"y"}`),
		new(`'(tags + ["a", "c"]).distinct()'`, `["b","a","c"]`),
		new(`'merge(m, {}) == m && merge(m, {"a": 3}) != m && tags != (tags + ["c"])'`, `true`),
		new(`'u == merge(u, u)'`, `true`),
		new(`{value: n, type: tinyint}`, `3`), new(`{value: n, type: varint}`, `"3"`),
		new(`{value: n, type: decimal}`, `"3"`), new(`{value: n, type: double}`, `3`),
		new(`{value: x, type: float}`, `1.5`),
		new(`{value: 'p', type: decimal}`, `"1.50"`), new(`{value: '"10.0.0.1"', type: inet}`, `"10.0.0.1"`),
		new(`{value: at, type: date}`, `"2024-05-01"`),
		new(`{value: 'duration("90s")', type: time}`, `"00:01:30.000000000"`),
		new(`{value: '["b", "a", "b"]', type: set<text>}`, `["b","a"]`),
		new(`{value: '[1.0, 2.0]', type: 'vector<float, 2>'}`, `[1,2]`),
		new(`{value: '[n, s]', type: 'tuple<int, text>'}`, `[3,"abc"]`),
		new(`{value: '{"b": s}', type: 'udt<a:int, b:text>'}`, `{"a":null,"b":"abc"}`),
		new(`{value: m, type: 'map<text, bigint>'}`, `{"a":2,"z":1}`),
		new(`{value: m, type: 'udt<a:int, z:int>'}`, `{"a":2,"z":1}`),
	})
	runTests(t, []test{
		dead(`{value: n * 100, type: tinyint}`, `y: n * 100: 300 is out of the range of a tinyint [transform.type]`),
		dead(`{value: '"x"', type: uuid}`, `y: "x": "x" is not a valid uuid [transform.type]`),
		dead(`{value: '[1.0]', type: 'vector<float, 2>'}`,
			`y: [1.0]: a list of 1 does not fit a vector<float, 2> [transform.type]`),
		dead(`{value: '{"c": 1}', type: 'udt<a:int>'}`,
			`y: {"c": 1}: 1 keys of the map are no part of a udt<a:int> [transform.type]`),
		dead(`{value: 'u.b', type: int}`, `y: u.b: the result, of type string, does not fit a int [transform.type]`),
		dead(`{value: 'duration("25h")', type: time}`,
			`y: duration("25h"): the result, of type google.protobuf.Duration, does not fit a time [transform.type]`),
		dead(`{value: x * 1e300, type: float}`,
			`y: x * 1e300: 1.5e+300 is out of the range of a float [transform.type]`),
	})
	runTests(t, []test{
		{"all see the record as it enters", `- derive: {n: n + 1, m: n}`, []string{"id text", "n int"},
			`{"id":"k","n":1}`, []string{`k {"id":"k","n":2,"m":1}`}},
		{"an existing field keeps its type", `- derive: {n: n + 1}`, []string{"id text", "n tinyint"},
			`{"id":"k","n":127}`,
			[]string{`dead in transforms.0.derive: n: n + 1: 128 is out of the range of a tinyint [transform.type]`}},
		{"an existing field gets another type", `- derive: {n: {value: string(n), type: text}}`,
			[]string{"id text", "n int"}, `{"id":"k","n":1}`, []string{`k {"id":"k","n":"1"}`}},
		{"key", `- derive: {id: id.upperAscii(), n: n + 1}`, []string{"id text", "n int"}, `{"id":"k","n":1}`,
			[]string{`K {"id":"K","n":2}`}},
		{"key of a delete", `- derive: {id: id.upperAscii(), n: n + 1, m: n}`, []string{"id text", "n int"},
			`{"id":"k","_op":"delete"}`, []string{`delete K {"id":"K"}`}},
		{"null key", `- derive: {id: s}`, []string{"id text", "s text"}, `{"id":"k"}`,
			[]string{`dead in transforms.0.derive: id, part of the key, would be null: s [transform.null_key]`}},
		{"null", `- derive: {m: n}`, []string{"id text", "n int"}, `{"id":"k"}`, []string{`k {"id":"k","m":null}`}},
	})
}
