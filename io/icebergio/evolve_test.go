package icebergio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/runners/services"
	"reprise/transforms/record"
)

// grown is simpleSchema some releases later: title is headline, id a bigint, owner and size
// are new, place has a part more.
func grown() *record.Schema {
	return record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.BigInt)},
		{Name: "headline", Type: record.Of(record.Text)}, {Name: "owner", Type: record.Of(record.UUID)},
		{Name: "ratio", Type: record.Of(record.Double)},
		{Name: "place", Type: placeType("city", "zip")}}, "id")
}

func placeType(names ...string) record.Type {
	parts := make([]record.Field, len(names))
	for i, name := range names {
		parts[i] = record.Field{Name: name, Type: record.Of(record.Text)}
	}
	return record.UDTOf("place", parts...)
}

// before makes a table as the older release wrote it.
func before(t *testing.T, c SinkConfig) {
	t.Helper()
	schema := record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.Int)},
		{Name: "title", Type: record.Of(record.Text)}, {Name: "ratio", Type: record.Of(record.Float)},
		{Name: "place", Type: placeType("city")}}, "id")
	var records []*record.Record
	for id := range 3 {
		records = append(records, &record.Record{Schema: schema, Version: 100,
			Values: []record.Value{record.String("a"), record.Number(record.Int, int64(id)),
				record.String(fmt.Sprint("old ", id)), record.Float32(0.5),
				record.Nested(record.UDT, []record.Value{record.String("Rome")})}})
	}
	put(t, newSink(t, c), records...)
}

func grownRecord(id int64) *record.Record {
	return &record.Record{Schema: grown(), Version: 200,
		Values: []record.Value{record.String("a"), record.Number(record.BigInt, id), record.String("new"),
			record.Bytes(record.UUID, strings.Repeat("\x11", 16)), record.Float64(0.25),
			record.Nested(record.UDT, []record.Value{record.String("Oslo"), record.String("0150")})}}
}

// What the source has gained is carried over as the job file says, and rows of all releases are read, also
// replaced and deleted by their keys.
func TestSchemaAdd(t *testing.T) {
	t.Parallel()
	for _, c := range []SinkConfig{local(t), {Table: services.Name(t) + ".assets", Create: true,
		Catalog: CatalogConfig{REST: "http://" + services.Need(t, services.IcebergREST)}}} {
		before(t, c)
		c.Mode, c.Schema, c.Rename = modeUpsert, schemaAdd, map[string]string{"title": "headline"}
		s := newSink(t, c)
		at := current(t, s).MetadataLocation()
		if err := s.Prepare(t.Context(), newRun(), grown(), true); err != nil {
			t.Fatal(err)
		}
		if now := current(t, s).MetadataLocation(); now != at {
			t.Error("a dry Prepare changes the table")
		}
		put(t, s, grownRecord(1), grownRecord(1<<40), &record.Record{Schema: grown(), Version: 300, Op: record.Delete,
			Values: []record.Value{{}, record.Number(record.BigInt, 2), {}, {}, {}, {}}})
		put(t, s, grownRecord(1<<40))
		var got []string
		for _, row := range rows(t, reader(c)) {
			got = append(got, fmt.Sprintf("%v %v %v %v %v", row["id"], row["headline"], row["owner"],
				row["ratio"], row["place"]))
		}
		slices.Sort(got)
		const owner = "11111111-1111-1111-1111-111111111111"
		want := []string{"0 old 0 <nil> 0.5 map[city:Rome zip:<nil>]",
			"1 new " + owner + " 0.25 map[city:Oslo zip:0150]",
			"1099511627776 new " + owner + " 0.25 map[city:Oslo zip:0150]"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		schemas := len(current(t, s).Metadata().Schemas())
		if err := s.Prepare(t.Context(), newRun(), grown(), false); err != nil {
			t.Fatal(err)
		}
		if now := len(current(t, s).Metadata().Schemas()); now != schemas || now != 2 {
			t.Errorf("%d schemas, then %d, want 2", schemas, now)
		}
	}
}

// Without the policy, and where a change would lose values, the table is left as it is,
// and the error lists what differs.
func TestSchemaPolicies(t *testing.T) {
	t.Parallel()
	text, number := record.Of(record.Text), record.Of(record.Int)
	schema := func(fields ...record.Field) *record.Schema {
		return record.MustSchema(append([]record.Field{{Name: "id", Type: number}}, fields...), "id")
	}
	for name, test := range map[string]struct {
		set    func(c *SinkConfig)
		schema *record.Schema
		code   string // empty: it fits
		words  []string
	}{
		"fail": {func(*SinkConfig) {}, grown(), "iceberg.table_mismatch",
			[]string{"column id is int, but bigint needs long", "headline string", "owner string",
				`lacks the part "zip"`, "schema: add"}},
		"ignore": {func(c *SinkConfig) { c.Schema = schemaIgnore },
			schema(record.Field{Name: "extra", Type: text}), "", nil},
		"ignore a type": {func(c *SinkConfig) { c.Schema = schemaIgnore }, grown(), "iceberg.table_mismatch",
			[]string{"column id is int, but bigint needs long"}},
		"ignore the key": {func(c *SinkConfig) { c.Schema = schemaIgnore },
			record.MustSchema([]record.Field{{Name: "other", Type: text}}, "other"), "iceberg.table_mismatch",
			[]string{"other string"}},
		"narrower": {func(c *SinkConfig) { c.Schema = schemaAdd },
			schema(record.Field{Name: "ratio", Type: number}, record.Field{Name: "new", Type: text}),
			"iceberg.table_mismatch", []string{"column ratio is float"}},
		"rename to no field": {func(c *SinkConfig) {
			c.Schema, c.Rename = schemaAdd,
				map[string]string{"title": "nothing"}
		}, schema(), "iceberg.rename", []string{"no field nothing"}},
		"rename no column": {func(c *SinkConfig) {
			c.Schema, c.Rename = schemaAdd,
				map[string]string{"none": "extra"}
		}, schema(record.Field{Name: "extra", Type: text}), "iceberg.rename",
			[]string{"no such column"}},
		"rename to another": {func(c *SinkConfig) {
			c.Schema, c.Rename = schemaAdd,
				map[string]string{"title": "kind"}
		}, schema(record.Field{Name: "kind", Type: text}), "iceberg.rename",
			[]string{"kind already"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := local(t)
			before(t, c)
			test.set(&c)
			s := newSink(t, c)
			at := current(t, s).MetadataLocation()
			err := s.Prepare(t.Context(), newRun(), test.schema, false)
			if test.code == "" && err != nil {
				t.Fatal(err)
			} else if test.code != "" {
				wantError(t, err, test.code, test.words...)
			}
			if now := current(t, s).MetadataLocation(); now != at {
				t.Error("the table has been changed")
			}
		})
	}
}
