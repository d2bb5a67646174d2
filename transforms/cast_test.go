package transforms_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"reprise/transforms/record"
)

func Example_cast() {
	show("cast")
	// Output:
	//   cast: {size: bigint, created: date, tags: set<text>}
	//
	//   {"id": "a", "size": "2048", "created": "2024-05-01T12:00:00.000Z", "tags": "[\"hero\",\"web\"]"}
	//     size: "2048" → 2048
	//     created: "2024-05-01T12:00:00.000Z" → "2024-05-01"
	//     tags: "[\"hero\",\"web\"]" → ["hero","web"]
	//
	//   {"id": "b", "size": "2 KB"}
	//     dead letter: size: "2 KB" is not a valid bigint [transform.cast]
}

// TestCast has a value, as JSON, and what it becomes; an error where that begins with "!".
func TestCast(t *testing.T) {
	for _, x := range []struct{ from, to, have, want string }{
		{"text", "int", `"12"`, `12`}, {"text", "int", `" 12"`, `!is not a valid int`},
		{"text", "int", `""`, `!is not a valid int`},
		{"text", "int", `null`, `null`},
		{"text", "boolean", `"true"`, `true`}, {"text", "decimal", `"1.50"`, `"1.50"`},
		{"text", "blob", `"AAE="`, `"AAE="`}, {"text", "timestamp", `"2024-05-01"`, `"2024-05-01T00:00:00.000Z"`},
		{"text", "timestamp", `"1714557600000"`, `!only a number`}, {"text", "timestamp", `"2024"`, `!only a number`},
		{"text", "date", `"20240501"`, `!only a number`},
		{"text", "timestamp", `"2024-05-01 12:30+02"`, `"2024-05-01T10:30:00.000Z"`},
		{"text", "timestamp", `"2024-05-01T12:30:00.123456Z"`, `!parts of a millisecond`},
		{"int", "timestamp", `2024`, `!2024 is not a valid time`}, {"bigint", "timestamp", `1714557600`, `!not a valid time`},
		{"bigint", "timestamp", `1714557600000000`, `!not a valid time`},
		{"bigint", "timestamp", `0`, `"1970-01-01T00:00:00.000Z"`},
		{"timestamp", "date", `"5881581-01-01T00:00:00.000Z"`, `!beyond the range of a date`},
		{"time", "text", `"86400000000001ns"`, `"86400000000001ns"`},
		{"text", "uuid", `"x"`, `!is not a valid uuid`},
		{"text", "list<int>", `"[1, 2]"`, `[1,2]`}, {"text", "list<int>", `"[1, \"2\"]"`, `!is not a valid int`},
		{"text", "udt<a:int>", `"{\"a\": 1}"`, `{"a":1}`},
		{"int", "text", `12`, `"12"`}, {"double", "text", `1.5`, `"1.5"`},
		{"timestamp", "text", `"2024-05-01T10:00:00.000Z"`, `"2024-05-01T10:00:00.000Z"`},
		{"list<int>", "text", `[1,2]`, `"[1,2]"`},
		{"int", "bigint", `12`, `12`}, {"int", "tinyint", `127`, `127`},
		{"int", "tinyint", `128`, `!out of the range of a tinyint`},
		{"int", "smallint", `-32769`, `!out of the range of a smallint`},
		{"int", "varint", `12`, `"12"`}, {"int", "decimal", `12`, `"12"`},
		{"int", "float", `16777217`, `!more digits than a float`},
		{"bigint", "double", `9007199254740993`, `!more digits than a double`}, {"int", "double", `12`, `12`},
		{"bigint", "timestamp", `1714557600000`, `"2024-05-01T10:00:00.000Z"`},
		{"timestamp", "bigint", `"2024-05-01T10:00:00.000Z"`, `1714557600000`},
		{"timestamp", "int", `"2024-05-01T10:00:00.000Z"`, `!out of the range of a int`},
		{"varint", "int", `"12"`, `12`}, {"varint", "int", `"123456789012345678901"`, `!out of the range`},
		{"varint", "decimal", `"-12"`, `"-12"`}, {"varint", "double", `"12"`, `12`},
		{"varint", "double", `"9007199254740993"`, `!more digits`},
		{"decimal", "int", `"12.00"`, `12`}, {"decimal", "int", `"12.5"`, `!has a fraction`},
		{"decimal", "int", `"1E3"`, `1000`}, {"decimal", "int", `"1E2000000000"`, `!scale`},
		{"decimal", "int", `"0E2000000000"`, `0`}, {"decimal", "varint", `"1E20"`, `"100000000000000000000"`},
		{"decimal", "double", `"129.90"`, `129.9`}, {"decimal", "double", `"1E400"`, `!is not a valid double`},
		{"decimal", "float", `"0.1"`, `0.1`},
		{"double", "int", `3`, `3`}, {"double", "int", `3.5`, `!is not a valid int`},
		{"double", "int", `1e300`, `!out of the range`}, {"double", "int", `"NaN"`, `!is not a valid int`},
		{"double", "varint", `1e20`, `"100000000000000000000"`},
		{"double", "varint", `"+Inf"`, `!is not a valid varint`},
		{"double", "decimal", `0.1`, `"0.1"`}, {"double", "decimal", `"NaN"`, `!is not a valid decimal`},
		{"double", "float", `0.1`, `0.1`}, {"double", "float", `1e300`, `!out of the range of a float`},
		{"double", "float", `"-Inf"`, `"-Inf"`}, {"float", "double", `0.5`, `0.5`},
		{"float", "decimal", `0.1`, `"0.1"`},
		{"timestamp", "date", `"1969-12-31T23:59:59.999Z"`, `"1969-12-31"`},
		{"date", "timestamp", `"2024-05-01"`, `"2024-05-01T00:00:00.000Z"`},
		{"timeuuid", "timestamp", `"8d3f4e00-0a1b-11ef-9c4f-0242ac120002"`, `"2024-05-04T13:38:12.190Z"`},
		{"timeuuid", "uuid", `"8d3f4e00-0a1b-11ef-9c4f-0242ac120002"`, `"8d3f4e00-0a1b-11ef-9c4f-0242ac120002"`},
		{"uuid", "timeuuid", `"8d3f4e00-0a1b-11ef-9c4f-0242ac120002"`, `"8d3f4e00-0a1b-11ef-9c4f-0242ac120002"`},
		{"uuid", "timeuuid", `"123e4567-e89b-42d3-a456-426614174000"`, `!is not a valid timeuuid`},
		{"list<int>", "set<text>", `[2,1,2]`, `["2","1"]`}, {"set<int>", "list<bigint>", `[1,2]`, `[1,2]`},
		{"list<float>", "vector<float, 2>", `[1,2]`, `[1,2]`},
		{"list<float>", "vector<float, 2>", `[1]`, `!1 parts`},
		{"list<text>", "list<int>", `["1",null]`, `[1,null]`},
		{"list<text>", "list<int>", `["x"]`, `!is not a valid int`},
		{"map<text, text>", "map<int, double>", `{"1":"1.5"}`, `{"1":1.5}`},
		{"map<text, text>", "map<int, text>", `{"1":"a","01":"b"}`, `!two keys`},
		{"map<text, text>", "map<int, text>", `{"a":"a"}`, `!is not a valid int`},
		{"tuple<int, text>", "tuple<text, int>", `[1,"2"]`, `["1",2]`},
		{"udt<a:int, b:text>", "udt<b:text, c:int, a:bigint>", `{"a":1,"b":"x"}`, `{"b":"x","c":null,"a":1}`},
		{"udt<a:text>", "udt<a:int>", `null`, `null`}, {"bigint", "bigint", `5`, `5`},
	} {
		t.Run(fmt.Sprintf("%s %s to %s", x.from, x.have, x.to), func(t *testing.T) {
			in := schema(t, "id text", "x "+x.from)
			config, _ := json.Marshal([]any{map[string]any{"cast": map[string]string{"x": x.to}}})
			chain := compile(t, in, string(config))
			got := outcomes(t, chain, fromJSON(t, in, `{"id":"k","x":`+x.have+`}`))
			if x.want[0] != '!' {
				if want := `k {"id":"k","x":` + x.want + `}`; got[0] != want {
					t.Errorf("got %s, want %s", got[0], want)
				}
			} else if !contains(got[0], "dead in transforms.0.cast: x: ", x.want[1:], "[transform.cast]") {
				t.Errorf("got %s, want an error with %s", got[0], x.want[1:])
			}
		})
	}
}

func TestCastUnset(t *testing.T) {
	in := schema(t, "id text", "x text")
	chain := compile(t, in, `- cast: {x: int}`)
	chain.Apply(fromJSON(t, in, `{"id":"k"}`), func(r *record.Record) {
		if got := r.Values[1].Kind(); got != record.Unset {
			t.Errorf("unset became %s", got)
		}
	}, nil)
}
