package elasticsearchio

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// found gives the JSON of what is found for each key, or the code of its dead letter.
func found(t *testing.T, s *Source, keys ...*record.Record) []string {
	t.Helper()
	got := make([]string, len(keys))
	err := s.Find(t.Context(), keys, func(i int, p connector.Page) error {
		for _, r := range p.Records {
			got[i] += iotest.JSON(r)
		}
		for _, d := range p.Dead {
			got[i] += d.Code
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Find uses the templates of the sink that wrote the documents, and sees what no search sees yet.
func TestFindByTemplates(t *testing.T) {
	t.Parallel()
	es := shared(t)
	prefix := name(t)
	schema := record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.Text)}, {Name: "n", Type: record.Of(record.BigInt)}}, "kind", "id")
	row := func(kind, id string, n int64) *record.Record {
		return &record.Record{Schema: schema, Version: iotest.Base + n,
			Values: []record.Value{record.String(kind), record.String(id), record.Number(record.BigInt, n)}}
	}
	var records []*record.Record
	for _, kind := range []string{"image", "video"} {
		es.must("PUT", "/"+es.index(prefix+"-"+kind),
			`{"settings":{"refresh_interval":"-1","number_of_shards":3},"mappings":{"_routing":{"required":true},"properties":{"kind":{"type":"keyword"},"id":{"type":"keyword"}}}}`)
		for i := range 150 {
			records = append(records, row(kind, fmt.Sprintf("%d|%d", i, i), int64(i)))
		}
	}
	c := SinkConfig{URLs: []string{es.url}, Index: prefix + "-{kind}", ID: "{kind}/{id}", Routing: "{id}"}
	if results, err := write(t, c, records...); err != nil || results[0].Err != nil {
		t.Fatal(err, results[0].Err)
	}
	config := func(c *SourceConfig) {
		c.Key, c.Fields = []string{"kind", "id"}, schema.Fields
		c.ID, c.Routing, c.Refresh = "{kind}/{id}", "{id}", false
	}
	var want []string
	for _, r := range records {
		want = append(want, iotest.JSON(r))
	}
	s := es.source(c.Index, config)
	more := []*record.Record{row("image", "x", 0), row("sound", "1|1", 0),
		row("image", strings.Repeat("x", 600), 0), row("image", "", 0)}
	more[3].Values[1] = record.NullValue
	if diff := cmp.Diff(append(want, "", "", "", "elasticsearch.bad_key"),
		found(t, s, append(records, more...)...)); diff != "" {
		t.Error(diff)
	}
	if got := found(t, es.source(prefix+"-*", config), records[0], records[299], more[0]); got[0] != want[0] ||
		got[1] != want[299] || got[2] != "" {
		t.Errorf("by pattern: %v", got)
	}
	err := es.source(c.Index, func(c *SourceConfig) { config(c); c.Routing = "" }).
		Find(t.Context(), records[:3], func(int, connector.Page) error { return nil })
	wantError(t, err, "elasticsearch.routing", fail.ExitJob, "routing is required")
}

// Documents that are too large together are got in parts; one that is too large alone is a dead letter.
func TestFindLarge(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)},
		{Name: "text", Type: record.Of(record.Text)}}, "id")
	var records []*record.Record
	for i := range 30 {
		size := 1 << 20
		if i == 7 {
			size = 17 << 20
		}
		records = append(records, &record.Record{Schema: schema, Version: iotest.Base,
			Values: []record.Value{record.String(fmt.Sprint(i)), record.String(strings.Repeat("x", size))}})
	}
	es.must("PUT", "/"+index,
		`{"mappings":{"properties":{"id":{"type":"keyword"},"text":{"type":"binary","doc_values":false}}}}`)
	if _, err := write(t, SinkConfig{URLs: []string{es.url}, Index: index}, records...); err != nil {
		t.Fatal(err)
	}
	s := es.source(index, func(c *SourceConfig) { c.Fields, c.MaxDocument = schema.Fields, 2<<20 })
	for i, got := range found(t, s, records...) {
		if want := iotest.JSON(records[i]); i == 7 && got != "elasticsearch.too_large" || i != 7 && got != want {
			t.Errorf("%d: got %.100s", i, got)
		}
	}
}

// A scan gives each document with its own address, also one that lies where no look-up for its key finds it.
func TestDocumentsUnderOtherIDsAreSeen(t *testing.T) {
	t.Parallel()
	es := shared(t)
	prefix := name(t)
	const mapping = `{"settings":{"number_of_shards":3},"mappings":{"properties":{"id":{"type":"keyword"},"kind":{"type":"keyword"}}}}`
	put := func(index, id, routing, key string) {
		t.Helper()
		es.must("PUT", "/"+prefix+index+"/_doc/"+id+"?version_type=external&version=1700000000000000&refresh=true"+
			routing, `{"id":"`+key+`","kind":"k"}`)
	}
	for _, index := range []string{"-k", "-old"} {
		es.must("PUT", "/"+es.index(prefix+index), mapping)
	}
	put("-k", "k:a", "", "a")
	put("-k", "old-a", "", "a")
	put("-k", "k:b", "&routing=x", "b")
	put("-old", "k:a", "", "a")
	s := es.source(prefix+"-{kind}", func(c *SourceConfig) {
		c.Fields, c.Key, c.ID = fields(`{"id":"text","kind":"text","_id":"text","_index":"text","_routing":"text"}`),
			[]string{"id", "kind"}, "{kind}:{id}"
	})
	schema, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	address, err := s.config.Addresses(schema)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = s.Plan(t.Context(), connector.PlanOptions{}, func(split connector.Split) error {
		return s.Read(t.Context(), split, func(p connector.Page) error {
			for _, r := range p.Records {
				at, err := address(r)
				if err != nil {
					return err
				}
				own := Address{Index: r.Get("_index").Str(), ID: r.Get("_id").Str(), Routing: r.Get("_routing").Str()}
				seen[own.Index[len(prefix):]+" "+own.ID] = at == own
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"-k k:a": true, "-k old-a": false, "-k k:b": false, "-old k:a": false}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}
