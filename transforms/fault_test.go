package transforms_test

import (
	"fmt"
	"strings"
	"testing"

	"reprise/transforms"
	"reprise/transforms/golden"
)

var faultFields = []string{"id text", "title text", "size bigint", "price decimal", "score double", "created timestamp",
	"tags set<text>", "attrs map<text, text>",
	"meta udt<width:int, height:int>", "raw blob", "owner uuid", "id2 timeuuid", "in text", "odd-name text"}

// TestFaults keeps what people read when a job's transforms are wrong.
func TestFaults(t *testing.T) {
	in := schema(t, faultFields...)
	var b strings.Builder
	for _, config := range []string{
		`- fitler: size > 0`,
		`- {filter: size > 0}` + "\n" + `- {rename: {titel: name}}` + "\n" + `- {castt: {}}`,
		`- filter: 5`,
		`- filter: sze > 0`,
		`- filter: zzz > 0`,
		`- filter: size > "a" && titel == "x"`,
		`- filter: size = 5`,
		`- filter: size + 1`,
		`- filter: size + 1.5 > 2.0`,
		`- filter: tags == null`,
		`- filter: in == "a"`,
		`- filter: meta.wdth > 5`,
		`- filter: fields["odd-nam"] == "a"`,
		`- filter: price > 5`,
		`- filter: title.matches("(")`,
		`- filter: created > timestamp("yesterday")`,
		`- filter: created < timestamp(2024)`,
		`- filter: created < timestamp("2024")`,
		`- filter: title.lowr() == "a"`,
		`- filter: ""`,
		"- filter: |\n    size > 0 &&\n    titel != null",
		`- project: {keep: [id, titel], drop: [size]}`,
		`- project: {drop: [id]}`,
		`- project: {}`,
		`- project: {kep: [id]}`,
		`- project: {keep: [id, id]}`,
		`- project: {key: [owner, size], keep: [owner]}`,
		`- rename: {title: size}`,
		`- rename: {title: ""}`,
		`- rename: {}`,
		`- rename: [title]`,
		`- cast: {size: strin}`,
		`- cast: {size: [int]}`,
		`- cast: {size: boolean, meta: "list<int>", titel: int}`,
		`- cast: {meta: "udt<width:int>"}`,
		`- cast: {title: counter}`,
		`- derive: {size: '"a"', tags: size, x: meta}`,
		`- derive: {x: "fields.title", y: "{}"}`,
		`- derive: {x: {value: "size", typ: int}}`,
		`- derive: {x: {value: "size", type: tex}}`,
		`- derive: {x: 5}`,
		`- derive: {size: "score"}`,
		`- set_defaults: {size: "a"}`,
		`- set_defaults: {created: 2024}`,
		`- set_defaults: {created: "2024"}`,
		`- set_defaults: {title: null}`,
		`- set_defaults: {id: x}`,
		`- set_defaults: {sizee: 1}`,
		`- explode: {field: title}`,
		`- explode: {field: tag}`,
		`- explode: {field: tags, key: [id]}`,
		`- explode: {field: tags, keep_empty: true}`,
		`- explode: {field: tags, key_as: k}`,
		`- explode: {field: attrs, as: title}`,
		`- flatten: {field: title}`,
		`- flatten: {field: attrs}`,
		`- flatten: {field: meta, keys: [width]}`,
		`- flatten: {field: meta, prefix: ""}` + "\n" + `- flatten: {field: attrs, prefix: "", keys: [title]}`,
		`- nest: {into: info}`,
		`- nest: {into: info, fields: [title, size], as: map}`,
		`- nest: {into: info, fields: [id]}`,
		`- nest: {into: info, fields: [title], as: list}`,
		`- redact: {fields: [id], with: mask}`,
		`- redact: {fields: [size], with: hash, secret: "env:S"}`,
		`- redact: {fields: [title], with: hash, secret: hunter2}`,
		`- redact: {fields: [title], with: encrypt}`,
		`- redact: {fields: [title], with: remove, keep_last: 2}`,
		`- truncate: {fields: [title]}`,
		`- truncate: {fields: [size, id], chars: 4}`,
		`- truncate: {fields: [raw], chars: 4}`,
		`- route: {field: size, cases: [{when: "size > 0", value: a}]}`,
		`- route: {field: r, cases: [{when: "size", value: a}, {when: "sze > 0", value: b}]}`,
		`- route: {field: r, cases: []}`,
	} {
		fmt.Fprintf(&b, "%s\n", config)
		_, err := transforms.Compile(specs(t, config), in, now)
		if err == nil {
			t.Errorf("%s: no fault", config)
			continue
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Errorf("%s: not joined: %v", config, err)
			continue
		}
		for _, e := range joined.Unwrap() {
			f, ok := e.(*transforms.FaultError)
			if !ok {
				t.Errorf("%s: no FaultError: %v", config, e)
				continue
			}
			fmt.Fprintf(&b, "    [%d] %s: %s\n", f.Index, f.Path, strings.ReplaceAll(f.Message, "\n", "\n        "))
		}
	}
	golden.Compare(t, "testdata/faults.golden", b.String())
}
