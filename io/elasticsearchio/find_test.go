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
	schema := record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)}, {Name: "id", Type: record.Of(record.Text)}, {Name: "n", Type: record.Of(record.BigInt)}}, "kind", "id")
	row := func(kind, id string, n int64) *record.Record {
		return &record.Record{Schema: schema, Version: iotest.Base + n, Values: []record.Value{record.String(kind), record.String(id), record.Number(record.BigInt, n)}}
	}
	var records []*record.Record
	for _, kind := range []string{"image", "video"} {
		es.must("PUT", "/"+es.index(prefix+"-"+kind), `{"settings":{"refresh_interval":"-1","number_of_shards":3},"mappings":{"_routing":{"required":true},"properties":{"kind":{"type":"keyword"},"id":{"type":"keyword"}}}}`)
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
	more := []*record.Record{row("image", "x", 0), row("sound", "1|1", 0), row("image", strings.Repeat("x", 600), 0), row("image", "", 0)}
	more[3].Values[1] = record.NullValue
	if diff := cmp.Diff(append(want, "", "", "", "elasticsearch.bad_key"), found(t, s, append(records, more...)...)); diff != "" {
		t.Error(diff)
	}
	if got := found(t, es.source(prefix+"-*", config), records[0], records[299], more[0]); got[0] != want[0] || got[1] != want[299] || got[2] != "" {
		t.Errorf("by pattern: %v", got)
	}
	err := es.source(c.Index, func(c *SourceConfig) { config(c); c.Routing = "" }).Find(t.Context(), records[:3], func(int, connector.Page) error { return nil })
	wantError(t, err, "elasticsearch.routing", fail.ExitJob, "routing is required")
}

// Documents that are too large together are got in parts; one that is too large alone is a dead letter.
func TestFindLarge(t *testing.T) {
	t.Parallel()
	es := shared(t)
	index := es.index(name(t))
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Text)}, {Name: "text", Type: record.Of(record.Text)}}, "id")
	var records []*record.Record
	for i := range 30 {
		size := 1 << 20
		if i == 7 {
			size = 17 << 20
		}
		records = append(records, &record.Record{Schema: schema, Version: iotest.Base, Values: []record.Value{record.String(fmt.Sprint(i)), record.String(strings.Repeat("x", size))}})
	}
	es.must("PUT", "/"+index, `{"mappings":{"properties":{"id":{"type":"keyword"},"text":{"type":"binary","doc_values":false}}}}`)
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
