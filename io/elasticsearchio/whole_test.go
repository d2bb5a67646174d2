package elasticsearchio

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// partly is a mapping that knows a part of the documents.
const partly = `{"dynamic":false,"properties":{"id":{"type":"keyword"},"n":{"type":"long"},"f":{"type":"double"},"at":{"type":"date"},"day":{"type":"date","format":"yyyy-MM-dd"},
	"us":{"properties":{"er":{"type":"keyword"},"deep":{"properties":{"x":{"type":"long"},"none":{"enabled":false,"type":"object"}}}}},"place":{"type":"geo_point"},
	"parts":{"type":"nested","properties":{"n":{"type":"integer"},"at":{"type":"date"}}},"raw":{"type":"object","enabled":false},"empty":{"properties":{}},"same":{"type":"alias","path":"id"}}}`

// nasty are documents of that mapping. Times are as Reprise writes them.
var nasty = []string{
	`{}`,
	`{"n":null,"f":1.5,"at":null,"zzz":null,"list":[],"none":{}}`,
	`{"us.er":"x","us":{"deep":{"x":1}}}`,
	`{"us":{"er":"x","other":1,"deep":{"x":2,"y":{"z":[1,{"a":null}]}}}}`,
	`{"us.deep.x":3,"us.deep.y":4,"us.er":"y","un.known":1}`,
	`{"us":{"deep.x":5,"er":null},"un":{"known":2,"more":[{"b":1,"a":2}]},"un.known.too":3}`,
	`{"us":null,"us.er":"z"}`,
	`{"us":{}}`,
	`{"us":{"deep":{"none":{"any.thing":1,"":{" ":[]}}}}}`,
	`{"parts":[{"n":1,"x":{"y":9}},{"n":2},{"at":"2024-05-06T07:08:09.123Z","z":[]},{}]}`,
	`{"parts":[],"raw":{"b":1,"a":{"at":"2024"}}}`,
	`{"place":{"lat":1.50,"lon":-2},"raw":[1,"a",null,true,1e3,123456789012345678901234567890,0.10]}`,
	`{"place":"1,2","raw":"text"}`,
	`{"place":[1,2],"empty":{"x":1}}`,
	`{"at":"2024-05-06T07:08:09.123Z","day":"2024-05-06","n":9007199254740993}`,
	`{"_rest":{"a":1},"ünïcode \u2028 \"quoted\"":"\u0000\ud83d\ude00","a b":1,"x":"1\n2"}`,
	`{"other.as":{"a.b":{"c.d":1}},"a":[[1,[2]],[[]]]}`,
	`{"n":1,"f":2.0,"big":1.0,"tiny":1e-7,"long":0.1000000000000000055511151231257827}`,
}

// equal compares documents as JSON whose numbers keep their digits; objects that a dot or an object leads to are the
// same to the server.
func equal(t *testing.T, want, got map[string]string, nested bool) {
	t.Helper()
	parse := func(docs map[string]string) map[string]any {
		all := map[string]any{}
		for id, text := range docs {
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			var doc any
			if err := d.Decode(&doc); err != nil {
				t.Fatal(err)
			}
			if nested {
				doc = unfolded(doc)
			}
			all[id] = doc
		}
		return all
	}
	if diff := cmp.Diff(parse(want), parse(got)); diff != "" {
		t.Error(diff)
	}
}

// unfolded is a document without dots in the names of its us, the only object that its mapping knows; numbers are as
// they are meant.
func unfolded(doc any) any {
	top := doc.(map[string]any)
	var put func(into map[string]any, name string, v any)
	put = func(into map[string]any, name string, v any) {
		head, tail, dotted := strings.Cut(name, ".")
		if dotted {
			v = map[string]any{tail: v}
		}
		if from, ok := v.(map[string]any); ok && head != "none" && head != "y" {
			below, _ := into[head].(map[string]any)
			if below == nil {
				below = map[string]any{}
			}
			for _, name := range slices.Sorted(maps.Keys(from)) {
				put(below, name, from[name])
			}
			into[head] = below
		} else if v != nil || into[head] == nil {
			into[head] = v
		}
	}
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if head, _, _ := strings.Cut(name, "."); head == "us" {
			put(out, name, top[name])
		} else {
			out[name] = top[name]
		}
	}
	if f, ok := out["f"].(json.Number); ok {
		out["f"], _ = f.Float64()
	}
	return out
}

// copyIndex copies an index by a source and a sink, as runs do.
func (s server) copyIndex(from, to string, create *Create, change func(*SourceConfig)) []*record.DeadLetter {
	s.t.Helper()
	source := s.source(from, func(c *SourceConfig) {
		c.Fields, c.Key, c.Order = nil, []string{"_id"}, []string{"id"}
		if change != nil {
			change(c)
		}
	})
	schema, err := source.Schema(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	got := read(s.t, source, connector.PlanOptions{Rows: 5})
	c := SinkConfig{URLs: []string{s.url}, Index: to, ID: "{_id}", Exclude: []string{"_id"}, Create: create}
	if err := prepare(s.t, c, schema, false); err != nil {
		s.t.Fatal(err)
	}
	results, err := write(s.t, c, slices.Collect(maps.Values(got.records))...)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			s.t.Errorf("%s: %v", r.Record.KeyText(), r.Err)
		}
	}
	return got.dead
}

// eyes are the documents of an index as the server has understood them: their doc values.
func (s server) eyes(index string) map[string]string {
	s.t.Helper()
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Fields json.RawMessage
			}
		}
	}
	text := s.must("POST", "/"+index+"/_search",
		`{"size":1000,"_source":false,"docvalue_fields":["id","n","f","at","day","us.er","us.deep.x","place"]}`)
	if err := json.Unmarshal(text, &found); err != nil {
		s.t.Fatal(err)
	}
	docs := map[string]string{}
	for _, h := range found.Hits.Hits {
		docs[h.ID] = orDefault(string(h.Fields), "{}")
	}
	return docs
}

// A copy of an index holds what one by the server's own _reindex does: documents that are read into one text of JSON
// exactly, others but for how their times, numbers and objects of the mapping are written, which the server
// understands the same.
func TestACopyOfAnIndexIsThatOfReindex(t *testing.T) {
	t.Parallel()
	for what, service := range map[string]services.Service{"Elasticsearch": services.Elasticsearch,
		"synthetic": services.Elasticsearch, "OpenSearch": services.OpenSearch} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			es := sharedOf(t, service)
			prefix := name(t)
			from := es.index(prefix)
			var mapping map[string]any
			if err := json.Unmarshal([]byte(partly), &mapping); err != nil {
				t.Fatal(err)
			}
			settings := map[string]any{}
			if what == "synthetic" {
				settings["index.mapping.source.mode"] = what
			}
			es.must("PUT", "/"+from, map[string]any{"mappings": mapping, "settings": settings})
			var docs []string
			for i, d := range nasty {
				docs = append(docs, strings.Replace(d, "{", fmt.Sprintf(`{"id":"%02d",`, i), 1))
				docs[i] = strings.Replace(docs[i], ",}", "}", 1)
			}
			es.bulk(from, docs...)
			reindexed := es.index(prefix + "-reindexed")
			es.must("PUT", "/"+reindexed, map[string]any{"mappings": mapping})
			es.must("POST", "/_reindex?refresh=true",
				map[string]any{"source": map[string]any{"index": from}, "dest": map[string]any{"index": reindexed}})
			want := es.documents(reindexed)
			for what, c := range map[string]struct {
				fields connector.Fields
				exact  bool
			}{"inferred": {nil, false}, "all": {fields(`{"_id":"text","id":"text","_rest":"text"}`), true},
				"some": {fields(`{"_id":"text","us.er":"text","n":"bigint","parts":"list<udt<n:int>>","_rest":"text"}`),
					false}} {
				t.Run(what, func(t *testing.T) {
					es := server{t, es.url}
					to := es.index(prefix + "-" + what)
					if dead := es.copyIndex(from, to, &Create{Mappings: mapping},
						func(s *SourceConfig) { s.Fields = c.fields }); dead != nil {
						t.Errorf("%d dead letters, such as %s", len(dead), dead[0].Message)
					}
					equal(t, want, es.documents(to), !c.exact)
					equal(t, es.eyes(reindexed), es.eyes(to), false)
				})
			}
		})
	}
}

// What fields name is found in either form, also where the other one is beside it.
func TestDottedNamesAreObjects(t *testing.T) {
	t.Parallel()
	es := shared(t)
	for i, c := range []struct{ mapping, fields, document, want string }{
		{`{"us":{"properties":{"er":{"type":"keyword"},"x":{"type":"long"}}}}`, "", `{"us.er":"x","us":{"x":1}}`,
			`{"id":"a","us":{"er":"x","x":1}}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, "", `{"us.er":1}`, `{"id":"a","us":{"er":1}}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us.er":"bigint"`, `{"us":{"er":1},"other":2}`,
			`{"id":"a","us.er":1}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us.er":"bigint"`, `{"us.er":1}`, `{"id":"a","us.er":1}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us.er":"bigint"`, `{"us":[{"er":1},null]}`,
			`{"id":"a","us.er":1}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us.er":"list<bigint>"`,
			`{"us":[{"er":1},{"er":[2,3]}],"us.er":4}`, `{"id":"a","us.er":[1,2,3,4]}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us.er":"bigint"`, `{"us":{"er":1},"us.er":2}`,
			`elasticsearch.decode`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us":"udt<er:bigint>"`, `{"us.er":2}`,
			`{"id":"a","us":{"er":2}}`},
		{`{"us":{"properties":{"er":{"type":"long"}}}}`, `"us":"udt<er:bigint>"`, `{"us.er":2,"us.x":1}`,
			`elasticsearch.decode`},
		{`{"a":{"properties":{"b":{"properties":{"c":{"type":"date","format":"epoch_second"}}}}}}`,
			`"a.b":"udt<c:timestamp>"`, `{"a":{"b.c":7}}`, `{"id":"a","a.b":{"c":"1970-01-01T00:00:07.000Z"}}`},
		{`{"l":{"type":"flattened"}}`, "", `{"l.a":"1","l":{"b.c":"2"}}`, `{"id":"a","l":{"a":"1","b.c":"2"}}`},
	} {
		index := es.index(fmt.Sprintf("%s-%d", name(t), i))
		es.must("PUT", "/"+index, `{"mappings":{"properties":`+strings.Replace(c.mapping, "{",
			`{"id":{"type":"keyword"},`, 1)+`}}`)
		es.bulk(index, strings.Replace(c.document, "{", `{"id":"a",`, 1))
		s := es.source(index, func(s *SourceConfig) {
			if s.Fields = nil; c.fields != "" {
				s.Fields = fields(`{"id":"text",` + c.fields + `}`)
			}
		})
		got := read(t, s, connector.PlanOptions{})
		text := ""
		for _, r := range got.records {
			text += iotest.JSON(r)
		}
		for _, d := range got.dead {
			text += d.Code
		}
		if text != c.want {
			t.Errorf("%s by %q: %s, want %s", c.document, c.fields, text, c.want)
		}
	}
}

// Fields that a mapping without dynamic: false does not have come after the schema was made: dead letters, not
// documents without them.
func TestUnmappedFieldsAreNeverDropped(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	es.must("PUT", "/"+index,
		`{"mappings":{"properties":{"id":{"type":"keyword"},"o":{"properties":{"n":{"type":"long"}}}}}}`)
	es.bulk(index, `{"id":"a","o":{"n":1}}`)
	s := es.source(index, func(c *SourceConfig) { c.Fields = nil })
	if _, err := s.Schema(t.Context()); err != nil {
		t.Fatal(err)
	}
	es.bulk(index, `{"id":"a","o":{"n":1}}`, `{"id":"b","new":1}`, `{"id":"c","o":{"new":null}}`,
		`{"id":"d","o.new":1}`, `{"id":"e"}`)
	got := read(t, s, connector.PlanOptions{})
	if diff := cmp.Diff([]string{"a", "e"}, keys(got.records)); diff != "" {
		t.Error(diff)
	}
	letters := map[string]string{}
	for _, d := range got.dead {
		letters[d.Record.KeyText()] = d.Code
	}
	want := map[string]string{"b": "elasticsearch.unmapped", "c": "elasticsearch.unmapped",
		"d": "elasticsearch.unmapped"}
	if diff := cmp.Diff(want, letters); diff != "" {
		t.Error(diff)
	}
}

// What is left of a document is merged with what the record has now, or is a dead letter; it never wins over the
// record and is never lost.
func TestRestIsMerged(t *testing.T) {
	t.Parallel()
	es := shared(t)
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "n", Type: record.Of(record.BigInt)},
		{Name: "o", Type: record.UDTOf("", record.Field{Name: "p", Type: record.Of(record.BigInt)})},
		{Name: "l", Type: record.ListOf(record.UDTOf("", record.Field{Name: "p", Type: record.Of(record.BigInt)}))},
		{Name: restName, Type: record.Of(record.Text)}}, "id")
	one := record.Number(record.BigInt, 1)
	object := record.Nested(record.UDT, []record.Value{one})
	list := record.Nested(record.List, []record.Value{object, object})
	index := es.index(name(t))
	c := SinkConfig{URLs: []string{es.url}, Index: index, Create: &Create{}}
	if err := prepare(t, c, schema, false); err != nil {
		t.Fatal(err)
	}
	for i, c2 := range []struct {
		values []record.Value
		rest   string
		want   string // the document, or a part of the message of the dead letter
	}{
		{[]record.Value{one, object, list}, `{"x":{"b":1, "a":"é\n"},"o":{"q":2}, "l":[{"q":3},{}]}`,
			`{"n":1,"o":{"p":1,"q":2},"l":[{"p":1,"q":3},{"p":1}],"x":{"a":"é\n","b":1}}`},
		{[]record.Value{{}, {}, {}}, `{"o.q":1,"x.y":2}`, `{"o":{"q":1},"x.y":2}`},
		{[]record.Value{{}, {}, {}}, `{}`, `{}`},
		{[]record.Value{{}, {}, {}}, ``, `not a JSON object`},
		{[]record.Value{{}, {}, {}}, `[1]`, `not a JSON object`},
		{[]record.Value{{}, {}, {}}, `{"x":1,"x":2}`, `stands twice`},
		{[]record.Value{one, {}, {}}, `{"n":1}`, `field "n" as well`},
		{[]record.Value{{}, object, {}}, `{"o":{"p":2}}`, `field "o" as well`},
		{[]record.Value{{}, object, {}}, `{"o.p":2}`, `field "o" as well`},
		{[]record.Value{{}, record.NullValue, {}}, `{"o":{"q":2}}`, `there is null`},
		{[]record.Value{{}, {}, list}, `{"l":[{"q":2}]}`, `a list has grown`},
		{[]record.Value{{}, {}, list}, `{"l":[{"q":2},{},{}]}`, `a list has shrunk`},
	} {
		id := fmt.Sprint(i)
		r := &record.Record{Schema: schema, Version: iotest.Base,
			Values: append(append([]record.Value{record.String(id)}, c2.values...), record.String(c2.rest))}
		results, err := write(t, c, r)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(c2.want, "{") {
			wantError(t, results[0].Err, "elasticsearch.rest", 1, c2.want)
			continue
		}
		if results[0].Err != nil {
			t.Fatal(results[0].Err)
		}
		want := strings.Replace(c2.want, "{", `{"id":"`+id+`",`, 1)
		equal(t, map[string]string{id: strings.Replace(want, ",}", "}", 1)},
			map[string]string{id: es.documents(index)[id]}, false)
	}
	var made map[string]struct{ Mappings struct{ Dynamic string } }
	if es.get("/"+index, &made); made[index].Mappings.Dynamic != "false" {
		t.Errorf("an index for documents with more than their fields is made with dynamic %q",
			made[index].Mappings.Dynamic)
	}
}

// Names that no document can have are told of, all of them, before anything is written, whether the index is there or
// not.
func TestFieldNamesThatNoDocumentCanHave(t *testing.T) {
	t.Parallel()
	es := shared(t)
	text := record.Of(record.Text)
	for _, c := range []struct {
		names []string
		parts []string
	}{
		{[]string{"id", "_id", "n", "_version"}, []string{"_id, _version", "rename: {_id: doc_id}",
			"exclude: [_id, _version]"}},
		{[]string{"id", "a..b", "x.", " "}, []string{`"a..b", "x.", " "`}},
		{[]string{"id", "a", "a.b"}, []string{"a.b", "an object that this one lies in"}},
		{[]string{"id", "a.b", "a"}, []string{"field a", "an object that this one lies in"}},
	} {
		var all []record.Field
		for _, n := range c.names {
			all = append(all, record.Field{Name: n, Type: text})
		}
		schema := record.MustSchema(all, "id")
		for _, create := range []*Create{{}, {Mappings: map[string]any{}}, nil} {
			err := prepare(t, SinkConfig{URLs: []string{es.url}, Index: es.index(name(t)), Create: create}, schema,
				false)
			code := "elasticsearch.field_name"
			if c.names[1] == "a" || c.names[1] == "a.b" {
				code = "elasticsearch.fields"
			}
			wantError(t, err, code, 2, c.parts...)
		}
	}
}
