package launch_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reprise/io/icebergio/upkeep"
	"reprise/io/journal"
	"reprise/pipelines/maintain"
)

// While a run is not over that upserts into a table, the snapshots since it began stay: its commit must see what others
// have deleted.
func TestExpireKeepsWhatAnUpsertNeeds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := fmt.Sprintf(`
name: feed
source: {files: {path: "%[1]s/in.jsonl", fields: {id: text}, key: [id]}}
sinks:
  lake: {iceberg: {catalog: {sqlite: "%[1]s/catalog.db", warehouse: "%[1]s/lake"}, table: media.assets, create: true, mode: upsert}}
journal: {sqlite: "%[1]s/journal.db"}
dead_letters: {files: {path: "%[1]s/dead"}}
`, dir)
	for n := range 3 {
		if err := os.WriteFile(filepath.Join(dir, "in.jsonl"), fmt.Appendf(nil, "{\"id\":\"%d\"}\n", n),
			0o644); err != nil {
			t.Fatal(err)
		}
		if run, report, err := execute(t, text, nil); err != nil || report.State != journal.Complete {
			t.Fatal(run, report, err)
		}
	}
	expire := func() string {
		t.Helper()
		var told []string
		err := maintain.Expire(t.Context(), parse(t, text), "", upkeep.Expiry{Keep: 1}, true,
			func(text string) { told = append(told, text) })
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(told, "\n")
	}
	if told := expire(); !strings.Contains(told, "2 snapshots of 3 would expire") {
		t.Errorf("all runs are over: %s", told)
	}
	for _, other := range []string{strings.Replace(text, "media.assets", "media.others", 1), text} {
		file, err := json.Marshal(parse(t, other))
		if err != nil {
			t.Fatal(err)
		}
		run := journal.Run{ID: fmt.Sprint("under-way-", other == text), Job: "backfill",
			Started: time.Now().Add(-time.Hour), JobFile: file}
		if err := open(t, dir).Begin(t.Context(), run); err != nil {
			t.Fatal(err)
		}
		want := "2 snapshots of 3 would expire"
		if other == text {
			want = "0 snapshots of 3 would expire"
		}
		if told := expire(); !strings.Contains(told, want) {
			t.Errorf("want %q: %s", want, told)
		}
	}
}
