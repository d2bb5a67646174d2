package elasticsearchio

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/transforms/golden"
	"reprise/transforms/record"
)

// everything is a schema with a field of every kind.
func everything(t testing.TB) *record.Schema {
	t.Helper()
	var fields []record.Field
	for _, f := range [][2]string{
		{"id", "timeuuid"}, {"flag", "boolean"}, {"tiny", "tinyint"}, {"small", "smallint"},
		{"int", "int"}, {"big", "bigint"},
		{"varint", "varint"}, {"decimal", "decimal"}, {"float", "float"}, {"double", "double"},
		{"text", "text"}, {"blob", "blob"},
		{"uuid", "uuid"}, {"inet", "inet"}, {"at", "timestamp"}, {"day", "date"},
		{"clock", "time"}, {"span", "duration"},
		{"tags", "set<text>"}, {"sizes", "list<frozen<list<int>>>"}, {"attrs", "map<text, text>"},
		{"counts", "map<int, bigint>"},
		{"pair", "tuple<int, text>"}, {"owner", "udt<name:text, since:date, roles:set<text>>"},
		{"owners", "list<frozen<udt<name:text, attrs:map<text, int>>>>"}, {"vector", "vector<float, 3>"},
	} {
		typ, err := record.ParseType(f[1], nil)
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, record.Field{Name: f[0], Type: typ})
	}
	return record.MustSchema(fields, "id")
}

func TestDerive(t *testing.T) {
	got, err := json.MarshalIndent(derive(everything(t).Fields, product{}), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/mappings.json", string(got)+"\n")
}

// What is derived from a schema fits the schema.
func TestDerivedFits(t *testing.T) {
	fields := everything(t).Fields
	mapping, err := parseMapping(derive(fields, product{}))
	if err != nil {
		t.Fatal(err)
	}
	mapping.Dynamic = "strict"
	if got := conflicts(fields, mapping); got != nil {
		t.Error(got)
	}
}

func TestConflicts(t *testing.T) {
	cases := []struct{ field, mapping, want string }{
		{"bigint", `{"type":"long"}`, ""},
		{"bigint", `{"type":"keyword"}`, ""},
		{"bigint", `{"type":"text"}`, "f (bigint): the index has text"},
		{"bigint", `{"type":"date"}`, ""},
		{"bigint", `{"type":"date","format":"yyyy-MM-dd"}`, `f (bigint): the index has date of format "yyyy-MM-dd"`},
		{"bigint", `{"type":"date","format":"epoch_second"}`, ""},
		{"bigint", `{"type":"date","format":"yyyyMMdd"}`, `f (bigint): the index has date of format "yyyyMMdd"`},
		{"timestamp", `{"type":"date","format":"epoch_second"}`,
			`f (timestamp): the index has date of format "epoch_second"`},
		{"timestamp", `{"type":"date","format":"yyyy-MM-dd"}`,
			`f (timestamp): the index has date of format "yyyy-MM-dd"`},
		{"timestamp", `{"type":"date","format":"yyyy-MM-dd HH:mm:ss||epoch_millis"}`,
			`f (timestamp): the index has date of format "yyyy-MM-dd HH:mm:ss||epoch_millis"`},
		{"timestamp", `{"type":"date","format":"yyyy-MM-dd'T'HH:mm:ss.SSSXXX"}`, ""},
		{"timestamp", `{"type":"date","format":"yyyy-MM-dd||strict_date_time"}`, ""},
		{"timestamp", `{"type":"date","format":"week_date"}`, ""},
		{"timestamp", `{"type":"date_nanos"}`, ""},
		{"date", `{"type":"date"}`, ""},
		{"date", `{"type":"date","format":"yyyy-MM-dd"}`, ""},
		{"date", `{"type":"date","format":"yyyy-dd-MM"}`, `f (date): the index has date of format "yyyy-dd-MM"`},
		{"date", `{"type":"date","format":"yyyyMMdd"}`, `f (date): the index has date of format "yyyyMMdd"`},
		{"date", `{"type":"date","format":"strict_date_time"}`,
			`f (date): the index has date of format "strict_date_time"`},
		{"list<frozen<udt<t:timestamp>>>", `{"properties":{"t":{"type":"date","format":"yyyy"}}}`,
			`f.t (timestamp): the index has date of format "yyyy"`},
		{"map<text, text>", `{"type":"flat_object"}`, ""},
		{"text", `{"type":"date","format":"epoch_second"}`, ""},
		{"timestamp", `{"type":"date","format":"epoch_millis"}`,
			`f (timestamp): the index has date of format "epoch_millis"`},
		{"timestamp", `{"type":"date","format":"strict_date_optional_time||epoch_millis"}`, ""},
		{"timestamp", `{"type":"long"}`, "f (timestamp): the index has long"},
		{"text", `{"type":"long"}`, "f (text): the index has long"},
		{"text", `{"properties":{"x":{"type":"long"}}}`, "f (text): the index has object"},
		{"text", `{"type":"a_plugins_own"}`, ""},
		{"text", `{"type":"alias","path":"g"}`, "f (text): the index has alias"},
		{"double", `{"type":"long"}`, "f (double): the index has long"},
		{"decimal", `{"type":"scaled_float","scaling_factor":100}`, ""},
		{"set<text>", `{"type":"keyword"}`, ""},
		{"list<frozen<set<int>>>", `{"type":"ip"}`, "f (int): the index has ip"},
		{"map<text, text>", `{"type":"flattened"}`, ""},
		{"map<text, text>", `{"type":"text"}`, "f (map<text, text>): the index has text"},
		{"map<text, text>", `{"dynamic":"strict","properties":{}}`, ""},
		{"tuple<int, text>", `{"type":"object","enabled":false}`, ""},
		{"tuple<int, text>", `{"type":"long"}`, "f (text): the index has long"},
		{"udt<a:int, b:udt<c:text>>",
			`{"properties":{"a":{"type":"long"},"b":{"type":"nested","properties":{"c":{"type":"date"}}}}}`, ""},
		{"udt<a:int, b:udt<c:text>>", `{"properties":{"a":{"type":"ip"},"b":{"type":"keyword"}}}`,
			"f.a (int): the index has ip|f.b (udt<c:text>): the index has keyword"},
		{"udt<a:int>", `{"dynamic":"strict","properties":{}}`,
			"f.a (int): not in the mapping, whose dynamic is strict"},
		{"udt<a:int>", `{"properties":{}}`, ""},
		{"vector<float, 3>", `{"type":"dense_vector","dims":3}`, ""},
	}
	for _, c := range cases {
		typ, err := record.ParseType(c.field, nil)
		if err != nil {
			t.Fatal(err)
		}
		var mapping property
		if err := json.Unmarshal([]byte(`{"dynamic":true,"properties":{"f":`+c.mapping+`}}`), &mapping); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for i, line := range conflicts([]record.Field{{Name: "f", Type: typ}}, &mapping) {
			if i > 0 {
				got.WriteByte('|')
			}
			got.WriteString(line)
		}
		if got.String() != c.want {
			t.Errorf("%s onto %s:\n got %s\nwant %s", c.field, c.mapping, &got, c.want)
		}
	}
}

func TestConflictsOfNames(t *testing.T) {
	text := record.Of(record.Text)
	fields := []record.Field{{Name: "a.b", Type: text}, {Name: "new", Type: text}}
	var mapping property
	if err := json.Unmarshal([]byte(`{"dynamic":"strict","properties":{"a":{"properties":{"b":{"type":"long"}}}}}`),
		&mapping); err != nil {
		t.Fatal(err)
	}
	want := []string{"a.b (text): the index has long", "new (text): not in the mapping, whose dynamic is strict"}
	if diff := cmp.Diff(want, conflicts(fields, &mapping)); diff != "" {
		t.Error(diff)
	}
}
