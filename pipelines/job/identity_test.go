package job

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/transforms/record"
)

const identical = `
name: copy
source:
  cassandra: {connection: {hosts: [a], user: u, password: env:PASSWORD}, keyspace: media, table: assets, buckets: {discover: true}, page: 1MiB}
transforms:
  - filter: size > 10
  - set_defaults: {title: none, timeout: "5"}
sinks:
  search:
    when: size < 100
    transforms: [{rename: {title: name}}]
    elasticsearch: {urls: ["http://a"], index: assets, batch: {rows: 100}}
  copy: {cassandra: {connection: {hosts: [a]}, keyspace: media, table: media.copy}}
  lake: {iceberg: {catalog: {sqlite: c.db, warehouse: w}, table: media.assets, create: true}}
`

func identity(t *testing.T, text string, schema *record.Schema) map[string]any {
	t.Helper()
	j, err := Parse("job.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Identity(schema)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestIdentity changes one thing at a time: what a run may be resumed with makes no difference, and what it may not is
// told.
func TestIdentity(t *testing.T) {
	schema := assets(t)
	was := identity(t, identical, schema)
	for _, c := range []struct{ old, now, want string }{
		{"name: copy", "name: another", ""},
		{"hosts: [a]", "hosts: [b, c]", ""},
		{"env:PASSWORD", "env:OTHER", ""},
		{"page: 1MiB", "page: 2MiB", ""},
		{`urls: ["http://a"]`, `urls: ["http://b"]`, ""},
		{"batch: {rows: 100}", "batch: {rows: 7, in_flight: 1}", ""},
		{"create: true", "create: false", ""},
		{"table: media.copy}", "table: media.copy, batch_rows: 7, batch_bytes: 1KiB}", ""},
		{"sinks:", "limits: {readers: 9}\npace: {rates: {source: {records: 5}}}\ndead_letters: {files: {path: " +
			"elsewhere}}\njournal: {sqlite: other.db}\nsinks:", ""},

		{"table: assets", "table: photos", `Source.cassandra.table: "assets", now "photos"`},
		{"discover: true", "table: asset_buckets", "Source.cassandra.buckets"},
		{"size > 10", "size > 11", `Transforms.0.filter: "size > 10", now "size > 11"`},
		{"  - filter: size > 10\n", "", "Transforms"},
		// A setting of a transform is not one of a system, whatever it is called.
		{`timeout: "5"`, `timeout: "6"`, `Transforms.1.set_defaults.timeout: "5", now "6"`},
		{"when: size < 100", "when: size < 99", `Sinks.search.when: "size < 100", now "size < 99"`},
		{"title: name", "title: label", `Sinks.search.transforms.0.rename.title: "name", now "label"`},
		{"index: assets", "index: photos", `Sinks.search.elasticsearch.index: "assets", now "photos"`},
		{"table: media.assets", "table: media.photos", `Sinks.lake.iceberg.table: "media.assets", now "media.photos"`},
		{"lake:", "pond:", "Sinks.lake"},
	} {
		text := strings.Replace(identical, c.old, c.now, 1)
		if text == identical {
			t.Fatalf("%q does not stand in the job", c.old)
		}
		is := identity(t, text, schema)
		found := Differences(was, is)
		if c.want == "" && len(found) > 0 || c.want != "" &&
			!slices.ContainsFunc(found, func(d string) bool { return strings.HasPrefix(d, c.want) }) {
			t.Errorf("%s → %s: %q", c.old, c.now, found)
		}
		before, err := Fingerprint(was)
		if err != nil {
			t.Fatal(err)
		}
		if after, err := Fingerprint(is); err != nil || (before == after) != (len(found) == 0) {
			t.Errorf("%s → %s: fingerprints %s and %s, but differences %q, %v", c.old, c.now, before, after, found, err)
		}
	}

	// Names of fields and tables are the user's own, whatever they are called.
	composed := func(on string) map[string]any {
		return identity(t, strings.Replace("name: x\nsource:\n  join:\n    of: {union: {of: [{corpus: {rows: 10}}, "+
			"{cassandra: {connection: {hosts: [a]}, keyspace: k, table: t}}]}}\n"+
			"    with: {cache: {of: {corpus: {rows: 1}}, on: {user: id, b: bucket, c: asset_type}, fields: {page: "+
			"title}, cache: 1MiB}}\nsinks: {out: {files: {path: out}}}\n",
			"user:", on, 1), schema)
	}
	if found := Differences(composed("user:"), composed("password:")); len(found) != 2 {
		t.Errorf("another field of a join: %q", found)
	}
	if text, err := json.Marshal(composed("user:")); err != nil || strings.Contains(string(text), "hosts") ||
		strings.Contains(string(text), "1MiB") || !strings.Contains(string(text), `"page":"title"`) {
		t.Errorf("the identity of a composed source is %s, %v", text, err)
	}

	fewer := record.MustSchema(schema.Fields[:len(schema.Fields)-1], "asset_type", "bucket", "id")
	if found := Differences(was, identity(t, identical, fewer)); len(found) != 1 ||
		!strings.HasPrefix(found[0], "Fields.") || !strings.HasSuffix(found[0], "now nothing") {
		t.Errorf("another schema: %q", found)
	}
	if found := Differences(was, maps.Clone(was)); len(found) != 0 {
		t.Errorf("a job differs from itself: %q", found)
	}
}

func TestDifferences(t *testing.T) {
	long := strings.Repeat("x", 100)
	was := map[string]any{"a": 1.0, "b": []any{"x", map[string]any{"y": true}}, "c": "same",
		"d": map[string]any{"e": "f"}, "g": nil, "l": long}
	is := map[string]any{"a": 2.0, "b": []any{"x", map[string]any{"y": false}, "z"}, "c": "same", "d": "e",
		"h": map[string]any{"i": 1.0}, "l": long + "y"}
	want := []string{
		"a: 1, now 2",
		"b.1.y: true, now false",
		`b.2: nothing, now "z"`,
		`d: {"e":"f"}, now "e"`,
		`h: nothing, now {"i":1}`,
		`l: ...` + long[:40] + `", now ...` + long[:40] + `y"`,
	}
	if diff := cmp.Diff(want, Differences(was, is)); diff != "" {
		t.Error(diff)
	}
}

func TestWindow(t *testing.T) {
	for _, x := range []struct {
		unfinished string
		planned    int64
		want       int
	}{
		{"1%", 0, 4000}, // not known
		{"1%", 1000, 4000},
		{"1%", 200_000, 4000},
		{"1%", 2_000_000, 20_000},
		{"0.5%", 2_000_000, 10_000},
		{"1%", 1_000_000_000, 2_000_000},
		{"100%", 5000, 5000},
		{"500", 2_000_000, 500},
		{"1000000", 0, 1_000_000},
		{"0", 2_000_000, 1},
		{"", 2_000_000, 4000},
	} {
		if got := (Limits{Unfinished: x.unfinished}).Window(x.planned); got != x.want {
			t.Errorf("unfinished %q of %d planned: %d, want %d", x.unfinished, x.planned, got, x.want)
		}
	}
}

func TestErrorBudgetSpent(t *testing.T) {
	for _, x := range []struct {
		budget     ErrorBudget
		dead, read int64
		want       string
	}{
		{ErrorBudget{}, 1000, 1000, ""},
		{ErrorBudget{Recent: 25, Of: 30}, 1000, 1000, ""}, // of which each worker keeps count itself
		{ErrorBudget{Letters: 10}, 10, 10, ""},
		{ErrorBudget{Letters: 10}, 11, 1_000_000, "11 dead letters, more than the error budget of 10"},
		{ErrorBudget{Percent: 1}, 999, 999, ""}, // too few to tell
		{ErrorBudget{Percent: 1}, 10, 1000, ""},
		{ErrorBudget{Percent: 1}, 11, 1000, "11 dead letters of 1000 rows, more than the error budget of 1 %"},
		{ErrorBudget{Percent: 0.5}, 6, 1000, "6 dead letters of 1000 rows, more than the error budget of 0.5 %"},
		{ErrorBudget{Letters: 100, Percent: 1}, 50, 1000,
			"50 dead letters of 1000 rows, more than the error budget of 1 %"},
	} {
		if got := x.budget.Spent(x.dead, x.read); got != x.want {
			t.Errorf("%+v, %d dead of %d: %q, want %q", x.budget, x.dead, x.read, got, x.want)
		}
	}
}

// What a query searches for is no setting, whatever it is called.
func TestIdentityOfQuery(t *testing.T) {
	const text = `{name: copy, source: {elasticsearch: {urls: ["http://a"], index: assets, key: [id], fields: {id: text}, query: {term: {user: x}}}}, sinks: {s: {files: {path: out}}}}`
	was := identity(t, text, assets(t))
	is := identity(t, strings.Replace(text, "user: x", "user: y", 1), assets(t))
	if diff := cmp.Diff([]string{`Source.elasticsearch.query.term.user: "x", now "y"`},
		Differences(was, is)); diff != "" {
		t.Error(diff)
	}
}
