package kafkaio

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"pgregory.net/rapid"

	"reprise/io/iotest"
	"reprise/transforms/record"
)

func parseType(t testing.TB, text string) record.Type {
	t.Helper()
	typ, err := record.ParseType(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

var avroTypes = strings.Split(
	strings.ReplaceAll("boolean tinyint smallint int bigint varint decimal float double text blob uuid timeuuid inet "+
		"timestamp date time duration", " ", ";")+
		";list<int>;set<text>;map<text, decimal>;map<int, list<uuid>>;tuple<int, text>;udt<\"a b\":int, "+
		"ü:list<udt<c:double>>>;vector<float, 2>", ";")

// avroWant is what a reader of Avro must find, in the form that plain gives.
func avroWant(v record.Value, t record.Type) any {
	if v.IsNull() {
		return nil
	}
	elems := v.Elems()
	switch t.Kind {
	case record.Boolean:
		return v.Bool()
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Time:
		return fmt.Sprint(v.Int())
	case record.Float:
		return fmt.Sprint(float32(v.Float()))
	case record.Double:
		return fmt.Sprint(v.Float())
	case record.Text, record.Blob:
		return v.Str()
	case record.Timestamp, record.Date:
		return v.Time().Format(time.RFC3339Nano)
	case record.List, record.Set, record.Vector:
		list := []any{}
		for _, e := range elems {
			list = append(list, avroWant(e, t.Elems[0]))
		}
		return list
	case record.Map:
		m := map[string]any{}
		for i := 0; i < len(elems); i += 2 {
			m[elems[i].Text(t.Elems[0])] = avroWant(elems[i+1], t.Elems[1])
		}
		return m
	case record.Tuple, record.UDT:
		m := map[string]any{}
		for i, e := range t.Elems {
			name := fmt.Sprintf("f%d", i)
			if t.Kind == record.UDT {
				name = avroName(t.Names[i])
			}
			m[name] = avroWant(elems[i], e)
		}
		return m
	}
	return v.Text(t)
}

// plain gives what the library decoded a form that can be compared.
func plain(v any) any {
	switch v := v.(type) {
	case int32, int64, float32, float64:
		return fmt.Sprint(v)
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	}
	return v
}

// Another library reads, by the schema, exactly what the record holds, and so does the source.
func TestAvro(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var fields []record.Field
		for i, text := range rapid.SliceOfN(rapid.SampledFrom(avroTypes), 1, 8).Draw(rt, "types") {
			fields = append(fields, record.Field{Name: fmt.Sprintf("%d field", i), Type: parseType(t, text)})
		}
		schema := record.MustSchema(fields, fields[0].Name)
		r := iotest.Record(schema, rapid.IntRange(0, 1000).Draw(rt, "n"), rapid.Int64Range(0, 1000).Draw(rt, "version"))
		for i := 1; i < len(fields); i++ {
			switch rapid.IntRange(0, 5).Draw(rt, "null") {
			case 0:
				r.Values[i] = record.NullValue
			case 1:
				r.Values[i] = record.Value{}
			case 2:
				if k := fields[i].Type.Kind; k == record.List || k == record.Set || k == record.Map {
					r.Values[i] = record.Nested(k, nil)
				}
			}
		}
		text, err := avroSchema("com.example.Asset", schema)
		if err != nil {
			rt.Fatal(err)
		}
		reader, err := avro.Parse(text)
		if err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
		b, err := appendAvro(nil, r)
		if err != nil {
			rt.Fatal(err)
		}
		var got any
		if rest, err := reader.Decode(b, &got); err != nil || len(rest) > 0 {
			rt.Fatalf("%x of %s: %v, %d bytes left", b, text, err, len(rest))
		}
		want := map[string]any{}
		for i, f := range fields {
			want[avroName(f.Name)] = avroWant(r.Values[i], f.Type)
		}
		if d := cmp.Diff(any(want), plain(got)); d != "" {
			rt.Fatalf("%s: %s", text, d)
		}
		again := &record.Record{Schema: schema}
		a, head := asAvro(t, text, schema, false)
		if err := a.read(t.Context(), again, append(head, b...)); err != nil {
			rt.Fatal(err)
		}
		for i, v := range r.Values {
			if got := again.Values[i]; !got.Equal(v) && !(got.IsNull() && v.IsNull()) {
				rt.Fatalf("field %d is read as %s, want %s", i, got.AppendJSON(nil, fields[i].Type),
					v.AppendJSON(nil, fields[i].Type))
			}
		}
	})
}

func TestAvroSchema(t *testing.T) {
	schema := record.MustSchema([]record.Field{
		{Name: "id", Type: parseType(t, "uuid")},
		{Name: "place", Type: parseType(t, "list<frozen<udt<lat:double, at:timestamp>>>")},
	}, "id")
	got, err := avroSchema("com.example.Asset", schema)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"record","name":"Asset","namespace":"com.example","fields":[` +
		`{"name":"id","type":{"type":"string","logicalType":"uuid"}},` +
		`{"name":"place","type":["null",{"type":"array","items":{"type":"record","name":"Asset_place","fields":[` +
		`{"name":"lat","type":["null","double"],"default":null},` +
		`{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null}]}}],"default":null}]}`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	twice := record.MustSchema([]record.Field{{Name: "a b", Type: parseType(t, "int")},
		{Name: "a-b", Type: parseType(t, "int")}}, "a b")
	if _, err := avroSchema("x", twice); err == nil || !strings.Contains(err.Error(), "a_b") {
		t.Error(err)
	}
}

func TestAvroRefuses(t *testing.T) {
	for _, c := range []struct {
		typ   string
		value record.Value
	}{
		{"list<int>", record.Nested(record.List, []record.Value{record.NullValue})},
		{"date", record.Number(record.Date, 1<<40)},
		{"int", record.String("x")},
	} {
		schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)},
			{Name: "v", Type: parseType(t, c.typ)}}, "id")
		r := &record.Record{Schema: schema, Values: []record.Value{record.Number(record.Int, 1), c.value}}
		if _, err := appendAvro(nil, r); err == nil || !strings.Contains(err.Error(), "field v") {
			t.Errorf("%s: %v", c.typ, err)
		}
	}
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)}}, "id")
	if _, err := appendAvro(nil, &record.Record{Schema: schema, Values: []record.Value{record.NullValue}}); err == nil {
		t.Error("a null key was taken")
	}
}
