package icebergio

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Manifests are Avro, whose names are of letters, digits and _. A table may be partitioned by a column of any name:
// writers and readers find it, and so do its own commits later.
func TestPartitionedByAColumnOfAnyName(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"ä", "a.b", "1st-name", "日本", "🎬", "naïve-col", "x-y", "x_y", "-"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { // its folder has the name, and a table's location must be plain
			t.Parallel()
			c := local(t)
			c.Partition = []string{name, "bucket(4, " + name + ")", "truncate(2, " + name + ")"}
			schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)}, {Name: name,
				Type: record.Of(record.Text)}, {Name: "at." + name, Type: record.Of(record.Timestamp)}}, "id")
			c.Partition = append(c.Partition, "hour(at."+name+")")
			row := func(id int, text string) *record.Record {
				return &record.Record{Schema: schema, Version: int64(id), Origin: record.Origin{Split: "test"},
					Values: []record.Value{record.Number(record.Int, int64(id)), record.String(text),
						record.Number(record.Timestamp, 1_714_564_800_000+int64(id)*86_400_000*40)}}
			}
			if err := newSink(t, c).Prepare(t.Context(), newRun(), schema, true); err != nil {
				t.Fatal(err)
			}
			put(t, newSink(t, c), row(1, "one"), row(2, "two"), row(3, "ünï/=%"))
			put(t, newSink(t, c), row(4, "two"))
			c.Mode = "upsert"
			c.Create = false
			put(t, newSink(t, c), row(5, "five"), row(2, "zwei"))
			var got []string
			for _, line := range rows(t, reader(c)) {
				got = append(got, fmt.Sprint(line["id"], " ", line[name]))
			}
			slices.Sort(got)
			if want := "1 one,2 zwei,3 ünï/=%,4 two,5 five"; strings.Join(got, ",") != want {
				t.Errorf("%s: another reader finds %s, want %s", name, strings.Join(got, ","), want)
			}
			records, dead := read(t, newSource(t, source(c)), connector.PlanOptions{})
			if len(records) != 5 || len(dead) > 0 {
				t.Errorf("%s: %d records, %+v", name, len(records), dead)
			}
			filtered := reader(c)
			filtered.Where = name + "=two"
			if n := len(services.ReadIceberg(t, filtered)); n != 1 && !strings.ContainsAny(name, ".-") {
				t.Errorf("%s: %d rows by the partition, want 1", name, n)
			}
		})
	}
}

// Whatever would be wrong with a table that is not there yet is told before it is made, also dry; and what passes can
// be written and read.
func TestWhatCannotBePartitionedIsToldBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	number, bytes := record.Number, record.Bytes
	timeuuid := "\x8d\x3f\x4e\x00\x0a\x1b\x11\xef\x9c\x4f\x02\x42\xac\x12\x00\x02"
	values := map[record.Kind][]record.Value{
		record.Boolean:   {record.Bool(true)},
		record.TinyInt:   {number(record.TinyInt, -3)},
		record.SmallInt:  {number(record.SmallInt, 300)},
		record.Int:       {number(record.Int, -70_000)},
		record.BigInt:    {number(record.BigInt, 1<<40)},
		record.Varint:    {bytes(record.Varint, "\x12\x34")},
		record.Decimal:   {record.Dec("\x04\xd2", 2)},
		record.Float:     {record.Float32(0.5)},
		record.Double:    {record.Float64(-0.5)},
		record.Text:      {record.String("Grüße")},
		record.Blob:      {bytes(record.Blob, "\x00\xff")},
		record.UUID:      {bytes(record.UUID, strings.Repeat("A", 16))},
		record.TimeUUID:  {bytes(record.TimeUUID, timeuuid)},
		record.Inet:      {bytes(record.Inet, "\x7f\x00\x00\x01")},
		record.Timestamp: {number(record.Timestamp, -1), number(record.Timestamp, 1_714_564_800_123)},
		record.Date:      {number(record.Date, -1), number(record.Date, 19_844)},
		record.Time:      {number(record.Time, 5e9)},
		record.Duration:  {record.Span(1, 2, 3)},
	}
	for k := record.Boolean; k < record.List; k++ {
		for _, typed := range []string{"", "decimal(10,2)"} {
			if typed != "" && k != record.Decimal && k != record.Varint {
				continue
			}
			t.Run(k.String()+typed, func(t *testing.T) {
				t.Parallel()
				for _, partition := range []string{"v", "year(v)", "month(v)", "day(v)", "hour(v)", "bucket(4, v)",
					"truncate(3, v)"} {
					c := local(t)
					c.Partition = []string{partition}
					if typed != "" {
						c.Columns = map[string]string{"v": typed}
					}
					schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)}, {Name: "v",
						Type: record.Of(k)}}, "id")
					dry := newSink(t, c).Prepare(t.Context(), newRun(), schema, true)
					if dry != nil {
						err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false)
						if code := fail.CodeOf(err); code != fail.CodeOf(dry) || fail.ExitOf(err) != fail.ExitJob {
							t.Errorf("%s: %v, but dry %v", partition, err, dry)
						}
						c.Partition = []string{"id"} // the job is corrected
						if err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false); err != nil {
							t.Errorf("%s has left something behind: %v", partition, err)
						}
						continue
					}
					var all []*record.Record
					for i, v := range append(values[k], record.NullValue) {
						all = append(all, &record.Record{Schema: schema, Version: 1,
							Origin: record.Origin{Split: "test"}, Values: []record.Value{record.Number(record.Int,
								int64(i)), v}})
					}
					o := put(t, newSink(t, c), all...)
					got, dead := read(t, newSource(t, source(c)), connector.PlanOptions{})
					if len(o.dead) > 0 || len(got) != len(all) || len(dead) > 0 {
						t.Errorf("%s: %d of %d records, %+v, %+v", partition, len(got), len(all), o.dead, dead)
					}
				}
			})
		}
	}
}

// A new table's place is known before it is made, too.
func TestALocationThatReadersTakeDifferentlyIsToldBefore(t *testing.T) {
	t.Parallel()
	schema := simpleSchema()
	for _, change := range []func(*SinkConfig){
		func(c *SinkConfig) {
			c.Table = "media.as " +
				"sets"
		}, func(c *SinkConfig) { c.Table = "mädia.assets" }, func(c *SinkConfig) { c.Table = "media.a%20b" },
		func(c *SinkConfig) { c.Catalog.Warehouse += " x" },
	} {
		c := local(t)
		change(&c)
		for _, dry := range []bool{true, false} {
			err := newSink(t, c).Prepare(t.Context(), newRun(), schema, dry)
			wantError(t, err, "iceberg.location", "letters, digits")
		}
		if _, err := os.Stat(c.Catalog.SQLite); !os.IsNotExist(err) {
			t.Errorf("%s: the catalog was made: %v", filepath.Base(c.Catalog.SQLite), err)
		}
	}
}
