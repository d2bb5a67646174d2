package icebergio

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
	"reprise/transforms/record"
)

// The commit of an upsert reads no data file that can hold none of the run's keys, by partition or by bounds: it
// succeeds although they are not there while it goes on.
func TestUpsertReadsOnlyWhatMayMatter(t *testing.T) {
	t.Parallel()
	const puts, each = 8, 50
	for _, test := range []struct {
		name      string
		partition []string
		ids       []int // that the run writes; in files of the puts that hold them
		deleted   []int
		read      int // data files
	}{
		{name: "a row", ids: []int{120}, read: 1},
		{name: "far apart", ids: []int{3, 349}, read: 7}, // one data file of the run reaches from 3 to 349
		{name: "a delete", deleted: []int{120}, read: 1},
		{name: "a row and deletes", ids: []int{20}, deleted: []int{120, 170}, read: 3},
		{name: "new keys", ids: []int{10_000}, read: 0},
		{name: "another column's partition", partition: []string{"kind"}, ids: []int{120}, read: 3},
		{name: "buckets", partition: []string{"bucket(4, id)"}, ids: []int{3}, read: 1},
		{name: "ranges", partition: []string{"truncate(10, id)"}, ids: []int{123}, read: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := local(t)
			c.Mode, c.Partition = modeUpsert, test.partition
			schema, s, run := simpleSchema(), newSink(t, c), newRun()
			want := map[int]int64{}
			for n := range puts {
				var rows []*record.Record
				for id := n * each; id < (n+1)*each; id++ {
					rows = append(rows, version(schema, id, 100))
					want[id] = 100
				}
				put(t, s, rows...)
			}
			var records []*record.Record
			for _, id := range test.ids {
				records = append(records, version(schema, id, 200))
				want[id] = 200
			}
			for _, id := range test.deleted {
				records = append(records, deletion(schema, id, 200))
				delete(want, id)
			}
			parts, _ := stage(t, s, run, records...)
			now := current(t, s)
			staged, err := decodeParts(now, parts, []string{"id"})
			if err != nil {
				t.Fatal(err)
			}
			all, err := tables.PlanFiles(t.Context(), now, connector.DefaultRetry)
			if err != nil {
				t.Fatal(err)
			}
			reach := merge.NewReach(now, []string{"id"}, staged.bounds, staged.files, len(staged.deletes) > 0)
			m := merge.New(merge.Options{Reach: reach, Retry: connector.DefaultRetry})
			read, err := m.Plan(t.Context(), now)
			if err != nil || len(read) != test.read {
				t.Errorf("%d files of %d would be read (%v), want %d", len(read), len(all), err, test.read)
			}
			needed := map[string]bool{}
			for _, task := range read {
				needed[task.File.FilePath()] = true
			}
			away := t.TempDir()
			for i, task := range all {
				if path := task.File.FilePath(); !needed[path] {
					if err := os.Rename(path, filepath.Join(away, fmt.Sprint(i))); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := s.Commit(t.Context(), run, schema, parts); err != nil {
				t.Error(err)
			}
			for i, task := range all {
				if path := task.File.FilePath(); !needed[path] {
					if err := os.Rename(filepath.Join(away, fmt.Sprint(i)), path); err != nil {
						t.Fatal(err)
					}
				}
			}
			// Each reading by the independent reader starts a Java machine
			if len(test.deleted) == 0 && test.partition == nil {
				if n, err := countRows(t, current(t, s)); n != len(want) || err != nil {
					t.Errorf("%d rows (%v), want %d", n, err, len(want))
				}
				return
			}
			if diff := cmp.Diff(want, versions(t, reader(c), 1<<20)); diff != "" {
				t.Errorf("versions by id (-want +got):\n%s", diff)
			}
		})
	}
}

func countRows(t *testing.T, of *table.Table) (n int, err error) {
	_, batches, err := of.Scan().ToArrowRecords(t.Context())
	if err != nil {
		return 0, err
	}
	for batch, err := range batches {
		if err != nil {
			return 0, err
		}
		n += int(batch.NumRows())
		batch.Release()
	}
	return n, nil
}
