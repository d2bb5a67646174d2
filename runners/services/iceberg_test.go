package services

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	sqlcatalog "github.com/apache/iceberg-go/catalog/sql"
	_ "github.com/apache/iceberg-go/io/gocloud"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"
)

// TestReadIceberg reads with Java what iceberg-go wrote, through each kind of catalog.
func TestReadIceberg(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "catalog.db")
		db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		cat, err := sqlcatalog.NewCatalog("some name", db, sqlcatalog.SQLite, iceberg.Properties{
			"warehouse": filepath.Join(dir, "warehouse"), "init_catalog_tables": "true"})
		if err != nil {
			t.Fatal(err)
		}
		where := IcebergTable{Catalog: file}
		where.Table = write(t, cat)
		checkRows(t, where)
		checkMetadata(t, where)
		where.Where = "id=2"
		if rows := ReadIceberg(t, where); !slices.Equal(rows, []string{read2}) {
			t.Errorf("rows with id=2: %v", rows)
		}
		where.Where = "id=3"
		if rows := ReadIceberg(t, where); rows != nil {
			t.Errorf("a deleted row is read: %v", rows)
		}
	})
	t.Run("REST", func(t *testing.T) {
		address := "http://" + Need(t, IcebergREST)
		cat, err := rest.NewCatalog(t.Context(), "rest", address)
		if err != nil {
			t.Fatal(err)
		}
		checkRows(t, IcebergTable{Catalog: address, Table: write(t, cat)})
	})
	t.Run("S3", func(t *testing.T) {
		props := S3Props(Need(t, S3))
		file := filepath.Join(t.TempDir(), "catalog.db")
		db, err := sql.Open("sqlite", "file:"+file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		settings := iceberg.Properties{"warehouse": "s3://warehouse/" + Name(t), "init_catalog_tables": "true"}
		for key, value := range props {
			settings[key] = value
		}
		cat, err := sqlcatalog.NewCatalog("s3", db, sqlcatalog.SQLite, settings)
		if err != nil {
			t.Fatal(err)
		}
		checkRows(t, IcebergTable{Catalog: file, Props: props, Table: write(t, cat)})
	})
}

var fields = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 2, Name: "title", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 3, Name: "small", Type: iceberg.PrimitiveTypes.Int32},
	iceberg.NestedField{ID: 4, Name: "ok", Type: iceberg.PrimitiveTypes.Bool},
	iceberg.NestedField{ID: 5, Name: "share", Type: iceberg.PrimitiveTypes.Float64},
	iceberg.NestedField{ID: 6, Name: "price", Type: iceberg.DecimalTypeOf(12, 3)},
	iceberg.NestedField{ID: 7, Name: "day", Type: iceberg.PrimitiveTypes.Date},
	iceberg.NestedField{ID: 8, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
	iceberg.NestedField{ID: 9, Name: "local", Type: iceberg.PrimitiveTypes.Timestamp},
	iceberg.NestedField{ID: 10, Name: "raw", Type: iceberg.PrimitiveTypes.Binary},
	iceberg.NestedField{ID: 11, Name: "tags",
		Type: &iceberg.ListType{ElementID: 21, Element: iceberg.PrimitiveTypes.String}},
	iceberg.NestedField{ID: 12, Name: "attrs", Type: &iceberg.MapType{
		KeyID: 22, KeyType: iceberg.PrimitiveTypes.String, ValueID: 23, ValueType: iceberg.PrimitiveTypes.Int64}},
	iceberg.NestedField{ID: 13, Name: "owner", Type: &iceberg.StructType{FieldList: []iceberg.NestedField{
		{ID: 24, Name: "name", Type: iceberg.PrimitiveTypes.String},
		{ID: 25, Name: "age", Type: iceberg.PrimitiveTypes.Int32}}}},
)

// What iceberg-go writes, in Arrow's JSON, and what Java must read.
const (
	written = `[
{"id": 1, "title": "Grüße \"\\\n😀", "small": -7, "ok": true, "share": 0.1, "price": "-12.500", "day": "1969-12-31",
 "at": "2026-03-01T10:00:00.123Z", "local": "2026-03-01T10:00:00.123456", "raw": "AAH/", "tags": ["a", null, ""],
 "attrs": [{"key": "x", "value": 9007199254740993}, {"key": "y", "value": null}], "owner": {"name": "n", "age": null}},
{"id": 2, "tags": []},
{"id": 3, "title": "deleted"}
]`
	read1 = `{"id":1,"title":"Grüße \"\\\n😀","small":-7,"ok":true,"share":0.1,"price":"-12.500","day":"1969-12-31",` +
		`"at":"2026-03-01T10:00:00.123Z","local":"2026-03-01T10:00:00.123456","raw":"AAH/","tags":["a",null,""],` +
		`"attrs":{"x":9007199254740993,"y":null},"owner":{"name":"n","age":null}}`
	read2 = `{"id":2,"title":null,"small":null,"ok":null,"share":null,"price":null,"day":null,` +
		`"at":null,"local":null,"raw":null,"tags":[],"attrs":null,"owner":null}`
)

// write makes a table of two snapshots, the second one a delete, and gives its name.
func write(t *testing.T, cat catalog.Catalog) string {
	t.Helper()
	ctx := t.Context()
	ident := table.Identifier{Name(t), "assets"}
	if err := cat.CreateNamespace(ctx, ident[:1], nil); err != nil {
		t.Fatal(err)
	}
	spec := iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{1}, FieldID: 1000, Name: "id_bucket",
		Transform: iceberg.BucketTransform{NumBuckets: 4}})
	assets, err := cat.CreateTable(ctx, ident, fields, catalog.WithPartitionSpec(&spec),
		catalog.WithProperties(iceberg.Properties{"write.delete.mode": "merge-on-read", "format-version": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	assets = appendRows(t, ctx, assets)
	if _, err := assets.Delete(ctx, iceberg.EqualTo(iceberg.Reference("title"), "deleted"),
		iceberg.Properties{"run": "second"}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(ident, ".")
}

func checkRows(t *testing.T, where IcebergTable) {
	t.Helper()
	rows := ReadIceberg(t, where)
	slices.Sort(rows)
	if diff := cmp.Diff([]string{read1, read2}, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func checkMetadata(t *testing.T, where IcebergTable) {
	t.Helper()
	snapshots := IcebergSnapshots(t, where)
	if len(snapshots) != 2 || snapshots[0].Summary["run"] != "first" || snapshots[1].Summary["run"] != "second" ||
		snapshots[0].Summary["added-records"] != "3" || snapshots[1].Parent != snapshots[0].ID ||
		!snapshots[1].Current {
		t.Errorf("snapshots %+v", snapshots)
	}
	schema := IcebergSchema(t, where)
	for _, want := range []string{`"name":"price","required":false,"type":"decimal(12, 3)"`, `"transform":"bucket[4]"`,
		`"format-version":2`} {
		if !strings.Contains(schema, want) {
			t.Errorf("the schema lacks %s:\n%s", want, schema)
		}
	}
}

func appendRows(t *testing.T, ctx context.Context, assets *table.Table) *table.Table {
	t.Helper()
	schema, err := table.SchemaToArrowSchema(assets.Schema(), nil, true, false)
	if err != nil {
		t.Fatal(err)
	}
	batch, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	rows, err := array.NewRecordReader(schema, []arrow.RecordBatch{batch})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Release()
	assets, err = assets.Append(ctx, rows, iceberg.Properties{"run": "first"})
	if err != nil {
		t.Fatal(err)
	}
	return assets
}
