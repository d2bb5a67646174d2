package icebergio

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/upkeep"
)

// history makes a table of several small commits: each id up to n has two rows.
func history(t *testing.T, c SinkConfig, n int) map[int]int64 {
	t.Helper()
	schema := simpleSchema()
	if err := newSink(t, c).Prepare(t.Context(), newRun(), schema, false); err != nil {
		t.Fatal(err)
	}
	want := map[int]int64{}
	for v := range int64(2) {
		for id := range n {
			feed(t, c, version(schema, id, 10+v*int64(1+id)))
			want[id] = 10 + v*int64(1+id)
		}
	}
	return want
}

func told(t *testing.T, do func(tell func(string)) error) string {
	t.Helper()
	var all []string
	if err := do(func(text string) { all = append(all, text) }); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(all, "\n")
	t.Log(text)
	return text
}

// Compaction leaves one row of each key in few files, whatever others commit meanwhile, and snapshots and files
// go as far as nobody needs them.
func TestMaintain(t *testing.T) {
	t.Parallel()
	c := local(t)
	want := history(t, c, 5)
	c.Mode = modeUpsert
	s := newSink(t, c)
	compact := func(dry bool) string {
		t.Helper()
		return told(t, func(tell func(string)) error { return s.Compact(t.Context(), dry, tell) })
	}
	at := current(t, s).MetadataLocation()
	if text := compact(true); !strings.Contains(text, "5 rows are older") ||
		!strings.Contains(text, "10 of 10 data files would be") {
		t.Errorf("a dry compaction tells:\n%s", text)
	}
	if now := current(t, s).MetadataLocation(); now != at {
		t.Error("a dry compaction changes the table")
	}

	// An upsert that deletes of the files that are being put together, and an append.
	schema := simpleSchema()
	once := true
	s.beforeCommit = func() {
		if once {
			once = false
			put(t, newSink(t, c), version(schema, 3, 100), deletion(schema, 4, 100))
			feed(t, c, version(schema, 6, 100))
		}
	}
	if text := compact(false); !strings.Contains(text, "5 rows were older") ||
		!strings.Contains(text, "left for the next time") {
		t.Errorf("a disturbed compaction tells:\n%s", text)
	}
	want[3], want[6] = 100, 100
	delete(want, 4)
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, versions(t, reader(c), 100)); diff != "" {
			t.Errorf("%s: versions by id (-want +got):\n%s", when, diff)
		}
	}
	check("after a disturbed compaction")
	s.beforeCommit = func() { feed(t, c, version(schema, 7, 100)) }
	if text := compact(false); !strings.Contains(text, "12 files of ") {
		t.Errorf("a compaction beside an append tells:\n%s", text)
	}
	s.beforeCommit = nil
	want[7] = 100
	check("after a compaction")
	if tasks, err := tables.PlanFiles(t.Context(), current(t, s), connector.DefaultRetry); err != nil ||
		len(tasks) != 2 {
		t.Errorf("%d data files, %v", len(tasks), err)
	}

	expire := func(e upkeep.Expiry, dry bool) string {
		t.Helper()
		return told(t, func(tell func(string)) error { return s.Expire(t.Context(), e, dry, tell) })
	}
	// Files of two runs that were given up, and one of somebody else; all are old but one.
	lost, alive := newRun(), newRun()
	var files []string
	for _, run := range []connector.Run{lost, alive, lost} {
		stage(t, s, run, version(schema, 8, 1))
	}
	data := filepath.Join(current(t, s).Location(), "data")
	all, err := filepath.Glob(filepath.Join(data, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-5 * 24 * time.Hour)
	young := 0
	for _, file := range all {
		if name := filepath.Base(file); strings.Contains(name, tables.FilePrefix(lost.ID)) ||
			strings.Contains(name, tables.FilePrefix(alive.ID)) {
			files = append(files, file)
			if strings.Contains(name, tables.FilePrefix(lost.ID)) && young == 0 {
				young++
				continue
			}
		}
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(data, "00000-0-11111111-1111-4111-8111-111111111111-00001.parquet")
	if err := os.WriteFile(foreign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(foreign, old, old); err != nil {
		t.Fatal(err)
	}
	snapshots := current(t, s).Metadata().Snapshots()
	if len(snapshots) < 13 {
		t.Fatalf("%d snapshots", len(snapshots))
	}
	pinned := snapshots[len(snapshots)-4]
	time.Sleep(5 * time.Millisecond) // the snapshots' times are of milliseconds
	if text := expire(upkeep.Expiry{OlderThan: time.Hour, Keep: 1}, false); !strings.Contains(text, "0 snapshots of") {
		t.Errorf("of young snapshots: %s", text)
	}
	if text := expire(upkeep.Expiry{Keep: 2, Snapshots: map[int64]string{pinned.SnapshotID: "run X"}},
		false); !strings.Contains(text, "run X reads it") || !strings.Contains(text, "0 snapshots of") {
		t.Errorf("of snapshots that are read: %s", text)
	}
	if text := expire(upkeep.Expiry{Keep: 2, Began: time.UnixMilli(snapshots[1].TimestampMs)},
		false); !strings.Contains(text, "is not over") || !strings.Contains(text, "0 snapshots of") {
		t.Errorf("of snapshots since an upsert began: %s", text)
	}
	if text := expire(upkeep.Expiry{Keep: 2}, true); !strings.Contains(text, "would expire") {
		t.Errorf("a dry run tells: %s", text)
	}
	if now := len(current(t, s).Metadata().Snapshots()); now != len(snapshots) {
		t.Errorf("%d snapshots, there were %d", now, len(snapshots))
	}
	check("before snapshots expire")
	text := expire(upkeep.Expiry{Keep: 2, Orphans: 3 * 24 * time.Hour, Runs: []string{alive.ID}}, false)
	if !strings.Contains(text, "1 files of runs") {
		t.Errorf("expire tells: %s", text)
	}
	if now := len(current(t, s).Metadata().Snapshots()); now != 2 {
		t.Errorf("%d snapshots, want 2", now)
	}
	there := 0
	for _, file := range append(files, foreign) {
		if _, err := os.Stat(file); err == nil {
			there++
		}
	}
	if there != len(files) { // but one, and the foreign one
		t.Errorf("%d files are left of %d and a foreign one", there, len(files))
	}
	check("after snapshots have expired")
}
