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
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/upkeep"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// An upsert keeps one row of each key, whatever is written, and carries out deletes.
func TestUpsertConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := func(target string) SinkConfig {
		return SinkConfig{Table: "iotest." + target, Create: true, Mode: modeUpsert,
			Catalog: CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: dir}}
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
	for name, partition := range map[string][]string{"SQLite": nil, "SQLite, partitioned": {"kind", "bucket(4, id)"},
		"REST": {"truncate(1, kind)"}} {
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

// Beside a live feed that appends before, while and after the run writes, each key has one row, of the latest
// version, whichever came first.
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
		all = append(all, version(schema, 7, 1500), deletion(schema, 11, 5000), deletion(schema, 12, 10),
			deletion(schema, rows*3, 10))
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

// deleteEqual deletes keys by equality, as streaming engines do: where the table is
// partitioned by kind, in that of version.
func deleteEqual(t testing.TB, s *Sink, ids ...int32) {
	t.Helper()
	now := current(t, s)
	tx := now.NewTransaction()
	id, _ := now.Schema().FindFieldByName("id")
	fields := []iceberg.NestedField{id}
	spec := now.Spec()
	if spec.NumFields() > 0 {
		kind, _ := now.Schema().FindFieldByName("kind")
		fields = append(fields, kind)
	}
	arrowSchema, err := table.SchemaToArrowSchema(iceberg.NewSchema(0, fields...), nil, true, false)
	if err != nil {
		t.Fatal(err)
	}
	keys := array.NewRecordBuilder(memory.DefaultAllocator, arrowSchema)
	defer keys.Release()
	for _, id := range ids {
		keys.Field(0).(*array.Int32Builder).Append(id)
		if len(fields) > 1 {
			keys.Field(1).(*array.StringBuilder).Append(fmt.Sprint("kind ", id%3))
		}
	}
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
}

// deleteBy deletes keys by the table's own means: copy-on-write or merge-on-read.
func deleteBy(t testing.TB, s *Sink, mode string, ids ...int32) {
	t.Helper()
	tx := current(t, s).NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{table.WriteDeleteModeKey: mode}); err != nil {
		t.Fatal(err)
	}
	now, err := tx.Commit(t.Context())
	if err == nil {
		_, err = now.Delete(t.Context(), iceberg.IsIn(iceberg.Reference("id"), ids...), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// foreignRow adds a row as an engine does that knows nothing of runs.
func foreignRow(t testing.TB, s *Sink, r *record.Record) {
	t.Helper()
	run := connector.Run{}
	parts, _ := stage(t, s, run, r)
	now := current(t, s)
	staged, err := decodeParts(now, parts, nil)
	if err != nil {
		t.Fatal(err)
	}
	tx := now.NewTransaction()
	if err := tx.AddDataFiles(t.Context(), staged.files, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// compactAll writes all data files of the table anew.
func compactAll(t testing.TB, s *Sink) {
	t.Helper()
	now := current(t, s)
	tasks, err := tables.PlanFiles(t.Context(), now, connector.DefaultRetry)
	if err != nil {
		t.Fatal(err)
	}
	tx := now.NewTransaction()
	if _, err := tx.RewriteDataFiles(t.Context(), []table.CompactionTaskGroup{{Tasks: tasks}},
		table.RewriteDataFilesOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What others delete, by whatever means, after the run has read a row stays deleted, also where the run had the row
// only; what they make again stands against the run by its version.
func TestUpsertBesideForeignDeletesMeanwhile(t *testing.T) {
	t.Parallel()
	means := map[string]func(t *testing.T, s *Sink, ids ...int32){
		"equality": func(t *testing.T, s *Sink, ids ...int32) { deleteEqual(t, s, ids...) },
		"merge-on-read": func(t *testing.T, s *Sink,
			ids ...int32) {
			deleteBy(t, s, table.WriteModeMergeOnRead, ids...)
		},
		"copy-on-write": func(t *testing.T, s *Sink,
			ids ...int32) {
			deleteBy(t, s, table.WriteModeCopyOnWrite, ids...)
		},
		"then compacted": func(t *testing.T, s *Sink, ids ...int32) { deleteEqual(t, s, ids...); compactAll(t, s) },
	}
	for name, remove := range means {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			byKey := name == "equality" || name == "then compacted"
			c := local(t)
			c.Mode, c.MergeMemory = modeUpsert, 64<<10
			switch {
			case !byKey:
				c.Partition = []string{"kind", "bucket(4, id)"}
			case name == "equality":
				c.Partition = []string{"kind"}
			}
			schema, s, run := simpleSchema(), newSink(t, c), newRun()
			var old []*record.Record
			for id := range 10 {
				old = append(old, version(schema, id, 100))
			}
			put(t, s, old...)
			remove(t, s, 9) // before the run
			var mine []*record.Record
			for id := range 20 {
				mine = append(mine, version(schema, id, 200))
			}
			parts, _ := stage(t, s, run, append(mine, deletion(schema, 8, 300))...)

			// While the run goes on: 1 goes; 2 goes and comes again, older than the run's; 3 goes and comes again,
			// newer; 12 goes that only the run has; 13 comes and goes.
			foreignRow(t, s, version(schema, 13, 150))
			remove(t, s, 1, 2, 3, 12, 13)
			foreignRow(t, s, version(schema, 2, 150))
			foreignRow(t, s, version(schema, 3, 250))
			// After the run has compared its keys: 4 goes; 5 goes and comes again.
			tries := 0
			s.beforeCommit = func() {
				if tries++; tries == 1 {
					remove(t, s, 4, 5)
					foreignRow(t, s, version(schema, 5, 250))
				}
			}
			n, err := s.Commit(t.Context(), run, schema, parts)
			if err != nil || n != 21 || tries != 2 {
				t.Fatalf("%d records, %d tries, %v", n, tries, err)
			}
			want := map[int]int64{3: 250, 5: 250}
			for _, id := range []int{0, 2, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19} {
				want[id] = 200
			}
			superseded := int64(6) // 1, 3, 4, 5, 8 and 13
			if byKey {
				// An equality delete names the key itself.
				delete(want, 12)
				superseded++
			}
			if diff := cmp.Diff(want, versions(t, reader(c), 100)); diff != "" {
				t.Errorf("versions by id (-want +got):\n%s", diff)
			}
			if got, err := s.Superseded(t.Context(), run); got != superseded || err != nil {
				t.Errorf("%d records superseded (%v), want %d", got, err, superseded)
			}
		})
	}
}

// Where snapshots have expired that others may have deleted by, the commit does not guess.
func TestUpsertWithoutHistory(t *testing.T) {
	t.Parallel()
	c := local(t)
	c.Mode = modeUpsert
	schema, s, run := simpleSchema(), newSink(t, c), newRun()
	put(t, s, version(schema, 1, 100))
	parts, _ := stage(t, s, run, version(schema, 1, 200))
	deleteEqual(t, s, 1)
	foreignRow(t, s, version(schema, 2, 100))
	if err := s.Expire(t.Context(), upkeep.Expiry{OlderThan: 0, Keep: 1}, false,
		func(text string) { t.Log(text) }); err != nil {
		t.Fatal(err)
	}
	_, err := s.Commit(t.Context(), run, schema, parts)
	wantError(t, err, "iceberg.expired", "start a new run")
	put(t, s, version(schema, 1, 200)) // a new run reads what there is
	if diff := cmp.Diff(map[int]int64{1: 200, 2: 100}, versions(t, reader(c), 100)); diff != "" {
		t.Errorf("versions by id (-want +got):\n%s", diff)
	}
}

// Rows that others have deleted, by position or by equality, do not count: what the run
// brings for their keys is written.
func TestUpsertBesideForeignDeletes(t *testing.T) {
	t.Parallel()
	c := local(t)
	schema := simpleSchema()
	c.Mode = modeUpsert
	s := newSink(t, c)
	put(t, s, version(schema, 1, 100), version(schema, 2, 100), version(schema, 3, 100), version(schema, 4, 100))

	// By writing the file anew without the row.
	if _, err := current(t, s).Delete(t.Context(),
		iceberg.EqualTo(iceberg.Reference("id"), int32(3)), nil); err != nil {
		t.Fatal(err)
	}

	deleteEqual(t, s, 2)
	put(t, s, version(schema, 1, 50), version(schema, 2, 50), version(schema, 3, 50), version(schema, 4, 150))
	if diff := cmp.Diff(map[int]int64{1: 100, 2: 50, 3: 50, 4: 150}, versions(t, reader(c), 100)); diff != "" {
		t.Errorf("versions by id (-want +got):\n%s", diff)
	}
}
