package icebergio

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func TestValidate(t *testing.T) {
	good := func() SinkConfig {
		return SinkConfig{Table: "a.b", Catalog: CatalogConfig{SQLite: "catalog.db", Warehouse: "warehouse"}}
	}
	for name, c := range map[string]struct {
		change func(*SinkConfig)
		want   []string // paths of faults
	}{
		"good": {func(*SinkConfig) {}, nil},
		"rest": {func(c *SinkConfig) {
			c.Catalog = CatalogConfig{REST: "https://catalog:8181/x",
				Token: "env:T"}
		}, nil},
		"s3 warehouse": {func(c *SinkConfig) { c.Catalog.Warehouse = "s3://bucket/path" }, nil},
		"all settings": {func(c *SinkConfig) {
			c.Columns, c.Partition = map[string]string{"p": "decimal(10, 2)"}, []string{"a", "day(b)"}
		}, nil},
		"no catalog":      {func(c *SinkConfig) { c.Catalog = CatalogConfig{} }, []string{"catalog"}},
		"two catalogs":    {func(c *SinkConfig) { c.Catalog.REST = "http://x" }, []string{"catalog"}},
		"no warehouse":    {func(c *SinkConfig) { c.Catalog.Warehouse = "" }, []string{"catalog.warehouse"}},
		"token at sqlite": {func(c *SinkConfig) { c.Catalog.Token = "env:T" }, []string{"catalog.sqlite"}},
		"no URL": {func(c *SinkConfig) { c.Catalog = CatalogConfig{REST: "catalog:8181"} },
			[]string{"catalog.rest"}},
		"login in URL": {func(c *SinkConfig) { c.Catalog = CatalogConfig{REST: "http://me:secret@catalog"} },
			[]string{"catalog.rest"}},
		"two logins": {
			func(c *SinkConfig) { c.Catalog = CatalogConfig{REST: "http://c", Token: "env:T", Credential: "env:C"} },
			[]string{"catalog.token"}},
		"no namespace": {func(c *SinkConfig) { c.Table = "assets" }, []string{"table"}},
		"bad decimal": {func(c *SinkConfig) {
			c.Columns = map[string]string{"p": "decimal(39,2)", "q": "int", "r": "decimal(2,3)"}
		}, []string{"columns.p", "columns.q", "columns.r"}},
		"bad partitions": {func(c *SinkConfig) {
			c.Partition = []string{"bucket(id)", "week(a)", "month(3, a)", "month(a", "bucket(0, a)", ""}
		}, []string{"partition", "partition", "partition", "partition", "partition", "partition"}},
		"half of the keys": {func(c *SinkConfig) { c.S3 = &S3Config{AccessKey: "env:A"} }, []string{"s3"}},
		"one column twice": {func(c *SinkConfig) { c.RunColumn = "_version" }, []string{"run_column"}},
	} {
		t.Run(name, func(t *testing.T) {
			settings := good()
			c.change(&settings)
			var got []string
			for _, f := range settings.Validate() {
				got = append(got, f.Path)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s\n%v", diff, settings.Validate())
			}
		})
	}
}

// TestPartitions writes by each kind of partition and reads back by values that readers find through the partition.
func TestPartitions(t *testing.T) {
	t.Parallel()
	schema := record.MustSchema([]record.Field{{Name: "kind", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.BigInt)},
		{Name: "at", Type: record.Of(record.Timestamp)}, {Name: "day", Type: record.Of(record.Date)},
		{Name: "owner", Type: record.Of(record.UUID)},
		{Name: "price", Type: record.Of(record.Decimal)}}, "id")
	var records []*record.Record
	for i := range 60 {
		kind := record.NullValue
		if i%7 > 0 {
			kind = record.String(fmt.Sprintf("kind %d", i%7))
		}
		at := time.Date(2024, time.Month(i%12+1), 1, i%24, 0, 0, 0, time.UTC).AddDate(-60*(i%2), 0, 0)
		records = append(records, &record.Record{Schema: schema, Version: 1,
			Values: []record.Value{kind, record.Number(record.BigInt, int64(i)),
				record.Number(record.Timestamp, at.UnixMilli()), value(t, "date", at.Format(time.DateOnly)),
				record.Bytes(record.UUID, fmt.Sprintf("%016d", i%5)), value(t, "decimal", fmt.Sprintf("%d.25", i%4))}})
	}
	for _, c := range []struct {
		partition []string
		files     int
		where     string
		want      int
	}{
		{[]string{"kind"}, 7, "kind=kind 3", 9},
		{[]string{"truncate(4, kind)", "price"}, 8, "price=2.25", 15},
		{[]string{"month(at)", "bucket(4, owner)"}, -1, "at=2024-01-01T00:00:00+00:00", 3},
		{[]string{"year(day)"}, 2, "day=1964-02-01", 5},
		{[]string{"hour(at)"}, 24, "id=13", 1},
		{[]string{"bucket(16, id)"}, 15, "id=13", 1},
	} {
		t.Run(strings.Join(c.partition, " "), func(t *testing.T) {
			settings := local(t)
			settings.Partition, settings.OpenPartitions = c.partition, 3
			settings.Columns = map[string]string{"price": "decimal(10,2)"}
			s := newSink(t, settings)
			if o := put(t, s, records...); len(o.dead) > 0 {
				t.Fatal(o.errors())
			}
			snapshot := current(t, s).CurrentSnapshot()
			if files := snapshot.Summary.Properties["added-data-files"]; c.files >= 0 && files != fmt.Sprint(c.files) {
				t.Errorf("%s files, want %d", files, c.files)
			}
			r := reader(settings)
			r.Where = c.where
			if found := rows(t, r); len(found) != c.want {
				t.Errorf("%d rows with %s, want %d: %v", len(found), c.where, c.want, found)
			}
		})
	}
}

// Partitions that come one after the other make one file each, although fewer files are open at
// once than there are partitions.
func TestClusteredPartitions(t *testing.T) {
	c := local(t)
	c.Partition, c.OpenPartitions = []string{"asset_type", "bucket"}, 3
	schema := corpusSchema()
	const partitions, each = 10, 3000
	var records []*record.Record
	for p := range partitions {
		for i := range each {
			records = append(records, corpusRecord(schema, p*10_000+i))
		}
	}
	s := newSink(t, c)
	put(t, s, records...)
	if files := current(t, s).CurrentSnapshot().
		Summary.Properties["added-data-files"]; files != fmt.Sprint(partitions) {
		t.Errorf("%s files for %d partitions", files, partitions)
	}
}

// Records that the table cannot hold are dead letters; those around them are written.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Columns = map[string]string{"price": "decimal(6,2)"}
	c.Partition = []string{"kind"}
	schema := record.MustSchema(append(simpleSchema().Fields,
		record.Field{Name: "price", Type: record.Of(record.Decimal)},
		record.Field{Name: "at", Type: record.Of(record.Timestamp)},
		record.Field{Name: "attrs", Type: record.MapOf(record.Of(record.Text), record.Of(record.Text))}), "id")
	rec := func(id int, change func(*record.Record)) *record.Record {
		r := simple(schema, "a", id, "t")
		r.Values = append(r.Values, value(t, "decimal", "1.50"), record.Number(record.Timestamp, 0), record.NullValue)
		if change != nil {
			change(r)
		}
		return r
	}
	set := func(field int, v record.Value) func(*record.Record) {
		return func(r *record.Record) { r.Values[field] = v }
	}
	text := record.String
	other := simple(simpleSchema(), "a", 99, "t")
	o := put(t, newSink(t, c),
		rec(1, nil),
		rec(2, set(2, text("\xc3\x28"))),
		rec(3, set(3, value(t, "decimal", "10000"))),
		rec(4, set(3, value(t, "decimal", "0.001"))),
		rec(5, set(4, record.Number(record.Timestamp, 1<<62))),
		rec(6, set(5, record.Nested(record.Map, []record.Value{record.NullValue, text("x")}))),
		rec(7, set(5, record.Nested(record.Map, []record.Value{text("x"), text("\xff")}))),
		rec(8, set(2, record.Number(record.Int, 1))),
		rec(9, func(r *record.Record) { r.Op = record.Delete }),
		rec(10, set(0, text(strings.Repeat("ü", 100)))),
		rec(11, set(2, text(strings.Repeat("x", maxRecord)))),
		other,
		rec(12, nil))
	want := map[string]string{"2": "iceberg.invalid_utf8", "3": "iceberg.decimal_overflow",
		"4": "iceberg.decimal_overflow", "5": "iceberg.out_of_range",
		"6": "iceberg.null_in_required", "7": "iceberg.invalid_utf8", "8": "iceberg.type", "9": "iceberg.no_deletes",
		"10": "iceberg.partition_value",
		"11": "iceberg.too_large", "99": "iceberg.other_schema"}
	if diff := cmp.Diff(want, o.dead); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	for _, err := range o.errors() {
		if fail.ClassOf(err) != fail.Permanent {
			t.Errorf("class %s: %v", fail.ClassOf(err), err)
		}
		t.Log(err)
	}
	if n := len(rows(t, reader(c))); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// A table that is there is checked, and all that does not fit is told at once.
func TestTableMismatch(t *testing.T) {
	c := local(t)
	c.Partition, c.Columns, c.RunColumn = []string{"day(at)"}, map[string]string{"price": "decimal(10,2)"}, "title"
	spec := iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{2}, FieldID: 1000, Name: "kind",
		Transform: iceberg.IdentityTransform{}})
	makeTable(t, c, iceberg.NewSchema(0, field(1, "id", longType, true), field(2, "kind", intType, false),
		field(3, "title", stringType, false),
		field(4, "price", iceberg.DecimalTypeOf(12, 2), false), field(5, "at", iceberg.PrimitiveTypes.Timestamp, false),
		field(6, "must", stringType, true), field(7, "may", stringType, false),
		field(8, "tags", &iceberg.ListType{ElementID: 9, Element: intType}, false),
		field(10, "size", &iceberg.StructType{FieldList: []iceberg.NestedField{field(11, "w", intType, false)}},
			false)), catalog.WithPartitionSpec(&spec))
	schema := record.MustSchema(append(simpleSchema().Fields,
		record.Field{Name: "price", Type: record.Of(record.Decimal)},
		record.Field{Name: "at", Type: record.Of(record.Timestamp)},
		record.Field{Name: "tags", Type: record.SetOf(record.Of(record.Text))},
		record.Field{Name: "new", Type: record.MapOf(record.Of(record.Text), record.Of(record.Int))},
		record.Field{Name: "size", Type: record.UDTOf("size", record.Field{Name: "w", Type: record.Of(record.Int)},
			record.Field{Name: "h", Type: record.Of(record.Int)})}), "id")
	err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false)
	wantError(t, err, "iceberg.table_mismatch", "column kind is int, but text needs string",
		"column title holds the record's version or run",
		"column price is decimal(12, 2), the job file wants decimal(10, 2)",
		"column at is timestamp, but timestamp needs timestamptz",
		"column must is required, but the records have no such field",
		"column tags has elements whose type is int, but text needs string",
		`column size lacks the part "h"`, "it lacks the columns new map<string, int>, _version long",
		"it is partitioned by [kind], the job file says [day(at)]")
	if strings.Contains(err.Error(), "column may") || strings.Contains(err.Error(), "column id") ||
		fail.ExitOf(err) != fail.ExitJob {
		t.Errorf("exit %d: %v", fail.ExitOf(err), err)
	}
	if faults := current(t, newSink(t, c)).Metadata().Snapshots(); len(faults) > 0 {
		t.Error("something was written")
	}
}

// Wider types, columns of the table alone and other orders of columns are fine; a column's name may be anything.
func TestTableThatFits(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.VersionColumn, c.Create = "-", false
	makeTable(t, c, iceberg.NewSchema(0, field(1, "alone", stringType, false),
		field(2, "share-%", iceberg.PrimitiveTypes.Float64, false), field(3, "id", longType, false),
		field(4, "size", &iceberg.StructType{FieldList: []iceberg.NestedField{field(5, "h", longType, false),
			field(6, "unit", stringType, false), field(7, "w", intType, false)}}, false)))
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)},
		{Name: "share-%", Type: record.Of(record.Float)},
		{Name: "size", Type: record.UDTOf("size", record.Field{Name: "w", Type: record.Of(record.Int)},
			record.Field{Name: "h", Type: record.Of(record.Int)})}}, "id")
	number := func(n int64) record.Value { return record.Number(record.Int, n) }
	put(t, newSink(t, c), &record.Record{Schema: schema,
		Values: []record.Value{number(1), record.Float32(0.5),
			record.Nested(record.UDT, []record.Value{number(2), number(3)})}},
		&record.Record{Schema: schema, Values: []record.Value{number(2), record.NullValue, record.NullValue}})
	want := []string{`{"alone":null,"share-%":0.5,"id":1,"size":{"h":3,"unit":null,"w":2}}`,
		`{"alone":null,"share-%":null,"id":2,"size":null}`}
	if diff := cmp.Diff(want, services.ReadIceberg(t, reader(c))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Prepare tells what is wrong before anything is written, and creates only what it is asked to.
func TestPrepare(t *testing.T) {
	schema, run := simpleSchema(), newRun()
	t.Run("no catalog", func(t *testing.T) {
		c := local(t)
		c.Create = false
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.no_catalog", "create: true")
		if _, err := os.Stat(c.Catalog.SQLite); err == nil {
			t.Error("an SQLite file was made")
		}
	})
	t.Run("catalog without tables", func(t *testing.T) {
		c := local(t)
		if err := os.WriteFile(c.Catalog.SQLite, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			if err := newSink(t, c).Prepare(t.Context(), run, schema, dry); err != nil {
				t.Fatal(err)
			}
		}
		c.Create, c.Catalog.SQLite = false, c.Catalog.SQLite+"2"
		if err := os.WriteFile(c.Catalog.SQLite, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.no_catalog", "create: true")
	})
	t.Run("dry", func(t *testing.T) {
		c := local(t)
		if err := newSink(t, c).Prepare(t.Context(), run, schema, true); err != nil {
			t.Fatal(err)
		}
		if files, _ := filepath.Glob(filepath.Join(filepath.Dir(c.Catalog.SQLite), "*")); len(files) > 0 {
			t.Errorf("made: %v", files)
		}
		c.Partition = []string{"month(title)"}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "iceberg.partition",
			"a column of type string cannot")
		c.Partition = []string{"nowhere"}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "iceberg.partition",
			"there are kind, id, title, _version")
	})
	t.Run("no table", func(t *testing.T) {
		c := local(t)
		put(t, newSink(t, c), simple(schema, "a", 1, "x"))
		c.Create, c.Table = false, "media.other"
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.no_table", "media.other")
	})
	t.Run("no catalog file", func(t *testing.T) {
		c := local(t)
		if err := os.WriteFile(c.Catalog.SQLite, []byte("this is not a database, only a text of some length"),
			0o600); err != nil {
			t.Fatal(err)
		}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.catalog", "names an SQLite file")
	})
	t.Run("warehouse is a file", func(t *testing.T) {
		c := local(t)
		if err := os.WriteFile(c.Catalog.Warehouse, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := newSink(t, c).Prepare(t.Context(), run, schema, false)
		wantError(t, err, "iceberg.warehouse", "that can be written")
	})
	t.Run("columns", func(t *testing.T) {
		c := local(t)
		c.Columns = map[string]string{"title": "decimal(3,2)"}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.columns",
			"columns.title", "of type text")
		c.Columns = map[string]string{"nowhere": "decimal(3,2)"}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.columns", "columns.nowhere",
			"there are kind, id, title")
		c = local(t)
		c.VersionColumn = "Title"
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false),
			"iceberg.column_names", "have the same name")
	})
	t.Run("secret", func(t *testing.T) {
		c := SinkConfig{Table: "a.b", Catalog: CatalogConfig{REST: "http://127.0.0.1:1", Token: "env:NOT_SET_ANYWHERE"}}
		wantError(t, newSink(t, c).Prepare(t.Context(), run, schema, false), "iceberg.secret",
			"catalog.token", "NOT_SET_ANYWHERE")
	})
}

// A writer that is given up leaves no files and no goroutines that write.
func TestGivenUp(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		t.Run(fmt.Sprint("cancelled ", cancelled), func(t *testing.T) {
			c := local(t)
			c.Partition, c.OpenPartitions = []string{"asset_type", "bucket"}, 2
			s := newSink(t, c)
			schema, run := corpusSchema(), newRun()
			if err := s.Prepare(t.Context(), run, schema, false); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := s.Open(ctx, run, schema, func([]connector.Result) {})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 40 {
				for i := range 500 {
					if err := w.Write(ctx, corpusRecord(schema, n*10_000+i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if cancelled {
				cancel()
				if _, err := w.Flush(ctx); err == nil {
					t.Error("Flush after the cancellation gave no error")
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			filepath.Walk(c.Catalog.Warehouse, func(path string, _ os.FileInfo, _ error) error {
				if strings.HasSuffix(path, ".parquet") {
					t.Errorf("%s is left", path)
				}
				return nil
			})
			if err := w.Write(t.Context(), corpusRecord(schema, 1)); err == nil {
				t.Error("Write after Close gave no error")
			}
		})
	}
}
