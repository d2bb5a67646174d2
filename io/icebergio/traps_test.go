package icebergio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// makeTable makes a table by iceberg-go alone.
func makeTable(t testing.TB, c SinkConfig, schema *iceberg.Schema, opts ...catalog.CreateTableOpt) *table.Table {
	t.Helper()
	cat, err := c.open(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	defer cat.close()
	ident := NewSink(c).ident
	if err := cat.CreateNamespace(t.Context(), ident[:len(ident)-1], nil); err != nil &&
		!errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		t.Fatal(err)
	}
	made, err := cat.CreateTable(t.Context(), ident, schema, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func field(id int, name string, t iceberg.Type, required bool) iceberg.NestedField {
	return iceberg.NestedField{ID: id, Name: name, Type: t, Required: required}
}

var (
	stringType = iceberg.PrimitiveTypes.String
	intType    = iceberg.PrimitiveTypes.Int32
	longType   = iceberg.PrimitiveTypes.Int64
)

func keys(o *outcomes) []string { return sortedKeys(o.dead) }

// Trap 1: a null in a required column would be stored as "" or 0.
func TestNullInRequiredColumn(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Create = false
	makeTable(t, c, iceberg.NewSchema(0, field(1, "id", intType, true), field(2, "kind", stringType, true),
		field(3, "title", stringType, false),
		field(4, "_version", longType, true), field(5, "tags",
			&iceberg.ListType{ElementID: 6, Element: stringType, ElementRequired: true}, false)))
	schema := record.MustSchema(append(simpleSchema().Fields,
		record.Field{Name: "tags", Type: record.ListOf(record.Of(record.Text))}), "id")
	rec := func(id int, kind record.Value, tags ...record.Value) *record.Record {
		r := simple(schema, "", id, "t")
		r.Values[0] = kind
		r.Values = append(r.Values, record.Nested(record.List, tags))
		return r
	}
	noKey := rec(4, record.String("a"))
	noKey.Values[1] = record.NullValue
	s := newSink(t, c)
	o := put(t, s, rec(1, record.String("a"), record.String("x")), rec(2, record.NullValue),
		rec(3, record.Value{}), noKey,
		rec(5, record.String("a"), record.String("x"), record.NullValue))
	want := map[string]string{"2": "iceberg.null_in_required", "3": "iceberg.null_in_required",
		"": "iceberg.null_in_required", "5": "iceberg.null_in_required"}
	if diff := cmp.Diff(want, o.dead); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if n := len(rows(t, reader(c))); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}

	// What comes through the checks all the same never gets to Parquet.
	l, err := newLayout(current(t, s), schema, c, newRun())
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.newBatcher().batch([]*record.Record{rec(2, record.NullValue)})
	wantError(t, err, "iceberg.null_in_required")
}

// Trap 2: an empty text as a partition makes readers skip rows of other partitions.
func TestEmptyPartitionValue(t *testing.T) {
	t.Parallel()
	for _, partition := range []string{"kind", "truncate(2, kind)"} {
		t.Run(partition, func(t *testing.T) {
			c := local(t)
			c.Partition = []string{partition}
			schema := simpleSchema()
			null := simple(schema, "", 4, "n")
			null.Values[0] = record.NullValue
			o := put(t, newSink(t, c), simple(schema, "a", 1, "x"), simple(schema, "", 2, "y"),
				simple(schema, "b", 3, ""), null)
			if diff := cmp.Diff(map[string]string{"2": "iceberg.empty_partition_value"}, o.dead); diff != "" {
				t.Errorf("dead letters (-want +got):\n%s", diff)
			}
			r := reader(c)
			r.Where = "kind=b"
			if found := rows(t, r); len(found) != 1 || fmt.Sprint(found[0]["id"]) != "3" {
				t.Errorf("rows with kind b: %v", found)
			}
		})
	}
}

// nasty are values that break paths; no two of them give the same folder.
var nasty = []string{"a/b", "a b", "a%2Fb", "%", "../up", ".", "ü/日本", "a=b&c", "null",
	"__HIVE_DEFAULT_PARTITION__", "#?", "'\""}

// Trap 3: the paths of files in manifests must be those on the disk, also where a table lies at a file:// location.
func TestFileLocations(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Catalog.Warehouse = "file://" + c.Catalog.Warehouse
	if faults := c.Validate(); len(faults) != 1 || faults[0].Path != "catalog.warehouse" ||
		!strings.Contains(faults[0].Message, "plain path") {
		t.Errorf("faults of a file:// warehouse: %v", faults)
	}
	for _, location := range []string{"", "file://", "file:"} {
		t.Run("location "+location, func(t *testing.T) {
			c := local(t)
			c.Partition = []string{"kind"}
			if location != "" {
				schema, err := newSchema(simpleSchema(), c)
				if err != nil {
					t.Fatal(err)
				}
				spec, err := newSpec(c.Partition, schema)
				if err != nil {
					t.Fatal(err)
				}
				makeTable(t, c, schema, catalog.WithLocation(location+filepath.Join(t.TempDir(), "t")),
					catalog.WithPartitionSpec(spec))
			}
			schema := simpleSchema()
			var records []*record.Record
			for i, kind := range nasty {
				records = append(records, simple(schema, kind, i, kind))
			}
			if o := put(t, newSink(t, c), records...); len(o.dead) > 0 {
				t.Errorf("dead letters: %v", o.errors())
			}
			found := map[string]bool{}
			for _, row := range rows(t, reader(c)) {
				if row["kind"] != row["title"] {
					t.Errorf("row %v", row)
				}
				found[row["kind"].(string)] = true
			}
			if len(found) != len(nasty) {
				t.Errorf("%d of %d partitions found: %v", len(found), len(nasty), found)
			}
		})
	}
	for _, path := range []string{"with space", "per%20cent", "question?"} {
		c := local(t)
		c.Catalog.Warehouse = filepath.Join(t.TempDir(), path)
		if faults := c.Validate(); len(faults) != 1 || faults[0].Path != "catalog.warehouse" {
			t.Errorf("faults of the warehouse %q: %v", path, faults)
		}
	}
}

// Trap 4: a lost race in the SQL catalog must be told from a commit whose fate is unknown.
func TestLostRaceInSQLCatalog(t *testing.T) {
	c := local(t)
	s := newSink(t, c)
	put(t, s, simple(simpleSchema(), "a", 1, "x"))
	first, second := current(t, s).NewTransaction(), current(t, s).NewTransaction()
	for _, tx := range []*table.Transaction{first, second} {
		if err := errors.Join(tx.AssertRefSnapshotID(table.MainBranch),
			tx.SetProperties(iceberg.Properties{"p": "1"})); err != nil {
			t.Fatal(err)
		}
	}
	put(t, newSink(t, c), simple(simpleSchema(), "a", 2, "y"))
	if _, err := first.Commit(t.Context()); !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("error %v, want ErrCommitFailed", err)
	}
}

// Trap 5: files are only rolled where row groups end.
func TestFileSize(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.FileSize = 1 << 20
	schema := corpusSchema()
	var records []*record.Record
	for n := range 30_000 {
		records = append(records, corpusRecord(schema, n))
	}
	s := newSink(t, c)
	put(t, s, records...)
	var sizes []int64
	err := filepath.Walk(current(t, s).Location(), func(path string, i os.FileInfo, err error) error {
		if strings.HasSuffix(path, ".parquet") {
			sizes = append(sizes, i.Size())
		}
		return err
	})
	if err != nil || len(sizes) == 0 {
		t.Fatalf("%d files, %v", len(sizes), err)
	}
	slices.Sort(sizes)
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	// A batch may go beyond the size, no more.
	if largest := sizes[len(sizes)-1]; len(sizes) < 3 || largest > 2*int64(c.FileSize) {
		t.Errorf("%d files of %v, together %d bytes; want about %d each", len(sizes), sizes, sum, c.FileSize)
	}
	if n := len(services.ReadIceberg(t, reader(c))); n != len(records) {
		t.Errorf("%d rows, want %d", n, len(records))
	}
}

// Trap 6: catalogs let columns be dropped that partitions and identifiers need.
func TestDroppedColumns(t *testing.T) {
	for _, c := range []struct {
		drop, want string
		partition  []string
	}{
		{"id", "it lacks the columns id", nil},
		{"kind", "partitioned by a column (field 1, kind) that has been dropped", []string{"kind"}},
	} {
		t.Run(c.drop, func(t *testing.T) {
			settings := local(t)
			settings.Partition = c.partition
			s := newSink(t, settings)
			put(t, s, simple(simpleSchema(), "a", 1, "x"))
			tx := current(t, s).NewTransaction()
			if err := tx.UpdateSchema(true, true).DeleteColumn([]string{c.drop}).Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := s.Prepare(t.Context(), newRun(), simpleSchema(), false)
			wantError(t, err, "iceberg.table_mismatch", c.want, "it lacks the columns "+c.drop)
			if fail.ExitOf(err) != fail.ExitJob {
				t.Errorf("exit %d", fail.ExitOf(err))
			}
		})
	}
}

// Trap 7: uuid and time columns are read wrongly by other engines.
func TestUUIDAndTimeColumns(t *testing.T) {
	c := local(t)
	makeTable(t, c, iceberg.NewSchema(0, field(1, "id", iceberg.PrimitiveTypes.UUID, true),
		field(2, "at", iceberg.PrimitiveTypes.Time, false), field(3, "_version", longType, false)))
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.TimeUUID)},
		{Name: "at", Type: record.Of(record.Time)}}, "id")
	err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false)
	wantError(t, err, "iceberg.table_mismatch", "column id is a uuid", "column at is a time", "make it a string")
}

// Trap 8: without these settings of SQLite a writer finds the database locked.
func TestSQLiteSettings(t *testing.T) {
	c := local(t)
	cat, err := c.open(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	defer cat.close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "busy_timeout": "10000"} {
		var got string
		if err := cat.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q: %v", pragma, got, want, err)
		}
	}
}

// Trap 8 once more, and 4: writers of the same table wait for each other.
func TestRace(t *testing.T) {
	t.Parallel()
	rest := local(t)
	rest.Catalog = CatalogConfig{REST: "http://" + services.Need(t, services.IcebergREST)}
	rest.Table = services.Name(t) + ".assets"
	for name, c := range map[string]SinkConfig{"SQLite": local(t), "REST": rest} {
		t.Run(name, func(t *testing.T) {
			const writers, commits = 6, 3
			schema := simpleSchema()
			if err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for w := range writers {
				s := newSink(t, c)
				all.Go(func() {
					for i := range commits {
						run := newRun()
						parts, _ := stage(t, s, run, simple(schema, "a", w*commits+i, "x"))
						if n, err := s.Commit(t.Context(), run, schema, parts); n != 1 || err != nil {
							t.Errorf("%d records, %v", n, err)
						}
					}
				})
			}
			all.Wait()
			if n := len(current(t, newSink(t, c)).Metadata().Snapshots()); n != writers*commits {
				t.Errorf("%d snapshots, want %d", n, writers*commits)
			}
			ids := map[string]bool{}
			for _, row := range rows(t, reader(c)) {
				ids[fmt.Sprint(row["id"])] = true
			}
			if len(ids) != writers*commits {
				t.Errorf("%d rows, want %d", len(ids), writers*commits)
			}
		})
	}
}

// Trap 9: a table on S3.
func TestS3(t *testing.T) {
	t.Setenv("S3_TEST_ACCESS", "testtest")
	t.Setenv("S3_TEST_SECRET", "testtest1")
	store := services.Need(t, services.S3)
	server := services.Own(t, services.IcebergREST,
		services.Env("ICEBERG_WAREHOUSE=s3://warehouse/"+services.Name(t), "ICEBERG_S3=http://"+store))
	c := SinkConfig{Table: "media.assets", Create: true, Catalog: CatalogConfig{REST: "http://" + server.Addr},
		Partition: []string{"kind"},
		S3: &S3Config{Endpoint: "http://" + store, Region: "us-east-1", AccessKey: "env:S3_TEST_ACCESS",
			SecretKey: "env:S3_TEST_SECRET"}}
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	schema := simpleSchema()
	var records []*record.Record
	for i, kind := range nasty {
		records = append(records, simple(schema, kind, i, kind))
	}
	put(t, newSink(t, c), records...)
	r := reader(c)
	r.Props = services.S3Props(store)
	found := map[string]bool{}
	for _, row := range rows(t, r) {
		found[row["kind"].(string)] = true
	}
	if len(found) != len(nasty) {
		t.Errorf("%d of %d partitions found: %v", len(found), len(nasty), found)
	}
	if got, dead := read(t, newSource(t, source(c)), connector.PlanOptions{}); len(dead) > 0 {
		t.Error(dead[0])
	} else {
		same(t, got, records)
	}
	if o := put(t, newSink(t, c), simple(schema, "x..", 99, ""),
		simple(schema, "x", 98, "")); o.dead["99"] != "iceberg.partition_value" {
		t.Errorf("dead letters: %v", o.dead)
	}

	missing := local(t)
	missing.S3, missing.Catalog.Warehouse = c.S3, "s3://no-such-bucket/warehouse"
	wantError(t, newSink(t, missing).Prepare(t.Context(), newRun(), schema, false),
		"iceberg.warehouse", "make the bucket")
	gone := local(t)
	gone.S3, gone.Catalog.Warehouse = &S3Config{Endpoint: "http://127.0.0.1:1", Region: "us-east-1",
		AccessKey: c.S3.AccessKey, SecretKey: c.S3.SecretKey}, "s3://warehouse/x"
	wantError(t, newSink(t, gone).Prepare(t.Context(), newRun(), schema, false), "iceberg.unreachable",
		"the store of the table")

	t.Setenv("S3_TEST_SECRET", "wrong-secret")
	err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false)
	wantError(t, err, "iceberg.denied", "s3.access_key")
	if fail.ExitOf(err) != fail.ExitUnreachable || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("exit %d: %v", fail.ExitOf(err), err)
	}
}
