package job

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// In YAML a map needs a blank behind its colon: HOST:PORT is a text also where it stands in a list within {}.
func TestAnAddressInAListIsNoMap(t *testing.T) {
	for text, want := range map[string]string{
		`a: {b: [127.0.0.1:9999]}`: `{"a":{"b":["127.0.0.1:9999"]}}`,
		`a: {b: [x:1:2, y: 3, z:4], c: [ä:1, "q:2", k: v]}`: `{"a":{"b":["x:1:2",{"y":3},"z:4"],
			"c":["ä:1","q:2",{"k":"v"}]}}`,
		"a: {b: [10.0.0.1:9,\n   käse:1  , h:08], # c:3\n  c: d}": `{"a":{"b":["10.0.0.1:9","käse:1","h:08"],"c":"d"}}`,
		`a: {b: [[x:1], {c: [d:2]}, don't:1 y]}`:                  `{"a":{"b":[["x:1"],{"c":["d:2"]},"don't:1 y"]}}`,
		`a: [127.0.0.1:9999, {b: c:1}]`:                           `{"a":["127.0.0.1:9999",{"b":"c:1"}]}`,
		"a:\n- x:1\n- {y: [z:1]}":                                 `{"a":["x:1",{"y":["z:1"]}]}`,
	} {
		f := newFile("job.yaml", []byte(text))
		asJSON, faults := f.read()
		var got, wanted any
		if err := json.Unmarshal(asJSON, &got); err != nil || json.Unmarshal([]byte(want), &wanted) != nil ||
			len(faults) > 0 {
			t.Errorf("%s: %s, %v, %+v", text, asJSON, err, faults)
		} else if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	f := newFile("job.yaml", []byte(`a: {b: [x:1, ::1]}`))
	if _, faults := f.read(); len(faults) != 1 || !strings.Contains(faults[0].message, "in quotes") {
		t.Errorf("%+v", faults)
	}
}

// However lists and maps of texts with colons are nested, each is read as it was written.
func TestTextsWithColonsAreReadAsWritten(t *testing.T) {
	var gen func(depth int) *rapid.Generator[any]
	gen = func(depth int) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			switch kind := rapid.IntRange(0, 3).Draw(t, "kind"); {
			case depth == 0 || kind < 2:
				return rapid.StringMatching(`[a-zä][a-z0-9ä./-]{0,4}(:[a-z0-9/]{1,4}){0,3}`).Filter(
					func(s string) bool {
						return s != "y" && s != "n" && s != "null" && s != "no" && s != "on" && s != "yes" &&
							s != "off" && s != "true" && s != "false"
					}).Draw(t, "text")
			case kind == 2:
				return rapid.SliceOfN(gen(depth-1), 1, 3).Draw(t, "list")
			}
			m := map[string]any{}
			for i := range rapid.IntRange(1, 3).Draw(t, "entries") {
				m[fmt.Sprint("k", i)] = gen(depth-1).Draw(t, "value")
			}
			return m
		})
	}
	var flow func(v any) string
	flow = func(v any) string {
		switch v := v.(type) {
		case []any:
			var parts []string
			for _, e := range v {
				parts = append(parts, flow(e))
			}
			return "[" + strings.Join(parts, ", ") + "]"
		case map[string]any:
			var parts []string
			for i := range len(v) {
				parts = append(parts, fmt.Sprintf("k%d: %s", i, flow(v[fmt.Sprint("k", i)])))
			}
			return "{" + strings.Join(parts, ", ") + "}"
		}
		return v.(string)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]any{"a": gen(3).Draw(t, "value")}
		text := "a: " + flow(want["a"]) + "\n"
		asJSON, faults := newFile("job.yaml", []byte(text)).read()
		var got any
		if err := json.Unmarshal(asJSON, &got); err != nil || len(faults) > 0 {
			t.Fatalf("%s: %v %+v", text, err, faults)
		}
		if d := cmp.Diff(any(want), got); d != "" {
			t.Fatalf("%s: %s", text, d)
		}
	})
}
