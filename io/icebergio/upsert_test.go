package icebergio

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// An upsert keeps one row of each key, whatever is written, and carries out deletes.
func TestUpsertConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := func(target string) SinkConfig {
		return SinkConfig{Table: "iotest." + target, Create: true, Mode: modeUpsert, Catalog: CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: dir}}
	}
	lines, at := map[string][]string{}, map[string]string{}
	read := func(t *testing.T, target string) []string {
		now := current(t, newSink(t, settings(target))).MetadataLocation()
		if at[target] != now {
			lines[target], at[target] = services.ReadIceberg(t, reader(settings(target))), now
		}
		return lines[target]
	}
	iotest.TestSink(t, iotest.Sink{
		New: func(t *testing.T, target string) connector.Sink { return NewSink(settings(target)) },
		Read: func(t *testing.T, target string) map[string]string {
			found := latest(t, read(t, target))
			if n := len(read(t, target)); n != len(found) {
				t.Errorf("%d rows of %d keys", n, len(found))
			}
			return found
		},
		Deletes: true,
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 99999, iotest.Base)
			r.Values[2] = record.String("not \xff UTF-8")
			return r
		},
	})
}

// versions are those of the rows that the independent reader finds, by ids below one; two of the same id fail the test.
func versions(t testing.TB, r services.IcebergTable, below int) map[int]int64 {
	t.Helper()
	found := map[int]int64{}
	for _, line := range services.ReadIceberg(t, r) {
		var row struct {
			ID      int   `json:"id"`
			Version int64 `json:"_version"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if row.ID >= below {
			continue
		}
		if _, twice := found[row.ID]; twice {
			t.Errorf("two rows of id %d", row.ID)
		}
		found[row.ID] = row.Version
	}
	return found
}

// feed appends rows as another writer does: data files of its own, retried until they are in.
func feed(t testing.TB, c SinkConfig, records ...*record.Record) {
	t.Helper()
	c.Mode = ""
	s, run := newSink(t, c), newRun()
	parts, _ := stage(t, s, run, records...)
	if _, err := s.Commit(t.Context(), run, records[0].Schema, parts); err != nil {
		t.Error(err)
	}
}

func version(s *record.Schema, id int, version int64) *record.Record {
	r := simple(s, fmt.Sprint("kind ", id%3), id, fmt.Sprint("version ", version))
	r.Version = version
	return r
}

func deletion(s *record.Schema, id int, version int64) *record.Record {
	return &record.Record{Schema: s, Version: version, Op: record.Delete, Origin: record.Origin{Split: "test"},
		Values: []record.Value{{}, record.Number(record.Int, int64(id)), {}}}
}

// catalogs are a table in each kind of catalog, partitioned by a column outside the key, too.
func catalogs(t *testing.T, test func(t *testing.T, c SinkConfig)) {
	for name, partition := range map[string][]string{"SQLite": nil, "SQLite, partitioned": {"kind", "bucket(4, id)"}, "REST": {"truncate(1, kind)"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := local(t)
			if name == "REST" {
				c.Catalog = CatalogConfig{REST: "http://" + services.Need(t, services.IcebergREST)}
				c.Table = services.Name(t) + ".assets"
			}
			c.Mode, c.Partition, c.MergeMemory = modeUpsert, partition, 64<<10
			test(t, c)
		})
	}
}

// Beside a live feed that appends before, while and after the run writes, each key has one row, of the latest version, whichever came first.
func TestUpsertBesideLiveFeed(t *testing.T) {
	t.Parallel()
	catalogs(t, func(t *testing.T, c SinkConfig) {
		const rows = 1000
		schema, run := simpleSchema(), newRun()
		s := newSink(t, c)
		if err := s.Prepare(t.Context(), run, schema, false); err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 7))
		want := map[int]int64{}
		superseded := int64(0)
		// live makes rows of some ids; those with an even one are newer than what the run brings.
		live := func(n int) (records []*record.Record) {
			for range n {
				id := random.IntN(rows * 2)
				v := int64(1000 + random.IntN(900))
				if id%2 == 0 {
					v += 2000
				}
				records = append(records, version(schema, id, v))
				want[id] = max(want[id], v)
			}
			return records
		}
		for range 3 {
			feed(t, c, live(150)...)
		}
		var parts [][]byte
		var all []*record.Record
		for id := range rows {
			all = append(all, version(schema, id, 2000))
		}
		all = append(all, version(schema, 7, 1500), deletion(schema, 11, 5000), deletion(schema, 12, 10), deletion(schema, rows*3, 10))
		feed(t, c, version(schema, 12, 2900))
		want[12] = max(want[12], 2900)
		for half := range slices.Chunk(all, len(all)/2+1) {
			more, _ := stage(t, s, run, half...)
			parts = append(parts, more...)
			feed(t, c, live(150)...)
		}
		// Each time the run has compared its keys with the table, the feed commits before it, three times.
		races := 0
		s.beforeCommit = func() {
			if races++; races <= 3 {
				feed(t, c, live(100)...)
			}
		}
		n, err := s.Commit(t.Context(), run, schema, parts)
		if err != nil || n != int64(len(all)) {
			t.Fatalf("%d records, %v", n, err)
		}
		if races != 4 {
			t.Errorf("%d tries to commit", races)
		}
		for id := range rows {
			if want[id] > 2000 {
				superseded++
			}
			want[id] = max(want[id], 2000)
		}
		superseded += 2 // the older row of id 7, and the delete of id 12
		if want[11] <= 5000 {
			delete(want, 11)
			superseded++ // the run's own row
		}
		if got, err := s.Superseded(t.Context(), run); got != superseded || err != nil {
			t.Errorf("%d records superseded (%v), want %d", got, err, superseded)
		}
		// What the feed has of keys that the run does not write is not the run's matter.
		got := versions(t, reader(c), rows)
		want = maps.Clone(want)
		maps.DeleteFunc(want, func(id int, _ int64) bool { return id >= rows })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("versions by id (-want +got):\n%s", diff)
		}
		// The commit repeated changes nothing and tells the same.
		again := newSink(t, c)
		before := current(t, again).MetadataLocation()
		if n, err := again.Commit(t.Context(), run, schema, parts); n != int64(len(all)) || err != nil {
			t.Errorf("%d records, %v", n, err)
		}
		if got, _ := again.Superseded(t.Context(), run); got != superseded {
			t.Errorf("%d records superseded when asked again, want %d", got, superseded)
		}
		if now := current(t, again).MetadataLocation(); now != before {
			t.Errorf("the commit repeated changes the table")
		}
	})
}

// Rows that others have deleted, by position or by equality, do not count: what the run brings for their keys is written.
func TestUpsertBesideForeignDeletes(t *testing.T) {
	t.Parallel()
	c := local(t)
	schema := simpleSchema()
	c.Mode = modeUpsert
	s := newSink(t, c)
	put(t, s, version(schema, 1, 100), version(schema, 2, 100), version(schema, 3, 100), version(schema, 4, 100))

	// By writing the file anew without the row.
	if _, err := current(t, s).Delete(t.Context(), iceberg.EqualTo(iceberg.Reference("id"), int32(3)), nil); err != nil {
		t.Fatal(err)
	}

	// By equality, as streaming engines do.
	tx := current(t, s).NewTransaction()
	id, _ := current(t, s).Schema().FindFieldByName("id")
	arrowSchema, err := table.SchemaToArrowSchema(iceberg.NewSchema(0, id), nil, true, false)
	if err != nil {
		t.Fatal(err)
	}
	keys := array.NewRecordBuilder(memory.DefaultAllocator, arrowSchema)
	defer keys.Release()
	keys.Field(0).(*array.Int32Builder).Append(2)
	batch := keys.NewRecordBatch()
	defer batch.Release()
	batches, err := array.NewRecordReader(arrowSchema, []arrow.RecordBatch{batch})
	if err != nil {
		t.Fatal(err)
	}
	deletes, err := tx.WriteEqualityDeletes(t.Context(), []int{id.ID}, array.IterFromReader(batches))
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.NewRowDelta(nil).AddDeletes(deletes...).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, version(schema, 1, 50), version(schema, 2, 50), version(schema, 3, 50), version(schema, 4, 150))
	if diff := cmp.Diff(map[int]int64{1: 100, 2: 50, 3: 50, 4: 150}, versions(t, reader(c), 100)); diff != "" {
		t.Errorf("versions by id (-want +got):\n%s", diff)
	}
}
