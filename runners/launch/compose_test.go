package launch_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/journal"
	"reprise/pipelines/history"
	"reprise/pipelines/redrive"
	"reprise/runners/services"
	"reprise/transforms/record"
)

const composedJob = `
name: composed
source:
  join:
    of:
      %[5]s
    with:
      licences:
        of: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: licences}}
        on: {licence: licence}
        fields: {expires: until}
        cache: 64KiB
      kinds:
        of: {files: {path: %[3]s/kinds.jsonl, key: [kind]}}
        on: {kind: kind}
        fields: {label: label}
        broadcast: true
sinks:
  out: {files: {path: %[4]s/out}}
dead_letters: {files: {path: %[4]s/dead}}
journal: {sqlite: "%[4]s/journal.db"}
limits: {split_rows: 50, error_budget: {}}
`

func historyOf(t *testing.T, dir, key string, lists bool) *history.Past {
	t.Helper()
	past, err := history.Of(t.Context(), open(t, dir), key, lists)
	if err != nil {
		t.Fatal(err)
	}
	return past
}

// TestComposedSources runs a union of two tables and a list of keys, each joined with a table and a file, and checks
// what comes out and the sums.
func TestComposedSources(t *testing.T) {
	cassandra, name := services.Need(t, services.Cassandra), services.Name(t)
	session := plainSession(t, cassandra, name)
	exec := func(statement string, args ...any) {
		t.Helper()
		if err := session.Query(strings.ReplaceAll(statement, "KS", name), args...).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE KS.assets (id int PRIMARY KEY, title text, kind text, licence text)")
	exec("CREATE TABLE KS.old_assets (id int PRIMARY KEY, kind text, licence text, notes text)")
	exec("CREATE TABLE KS.licences (licence text PRIMARY KEY, until bigint)")
	for i := range 10 {
		exec("INSERT INTO KS.licences (licence, until) VALUES (?, ?)", fmt.Sprint("l", i), 100*i)
	}
	// 0-199 are in the new table, 100-299 in the old one, where those with odd numbers are newer.
	licence := func(i int) string { return fmt.Sprint("l", i%11) } // l10 is none
	for i := range 300 {
		if i < 200 {
			exec("INSERT INTO KS.assets (id, title, kind, licence) VALUES (?, 'new', 'a', ?) USING TIMESTAMP 2000", i,
				licence(i))
		}
		if i >= 100 {
			exec("INSERT INTO KS.old_assets (id, kind, licence, notes) VALUES (?, 'b', ?, 'old') USING TIMESTAMP ?", i,
				licence(i), 1000+2000*(i%2))
		}
	}
	dir := t.TempDir()
	file := func(name string, lines ...string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("kinds.jsonl", `{"kind": "a", "label": "A"}`)
	type asset struct {
		Label   *string `json:"label"`
		Expires *int64  `json:"expires"`
		Title   string  `json:"title"`
		Notes   string  `json:"notes"`
	}
	wanted := func(i int, old bool) asset {
		a := asset{Title: "new"}
		label, until := "A", int64(100*(i%11))
		a.Label = &label
		if old {
			a = asset{Notes: "old"}
		}
		if i%11 < 10 {
			a.Expires = &until
		}
		return a
	}
	run := func(source string, want map[int]asset, read, filtered, dead int64) (id, at string) {
		t.Helper()
		at = t.TempDir()
		id, report, err := execute(t, fmt.Sprintf(composedJob, cassandra, name, dir, at, source), nil)
		if err != nil {
			t.Fatal(err)
		}
		out := report.Sinks["out"]
		if n := out.Outcomes; len(report.Faults) > 0 || out.Read != read || n[record.Filtered] != filtered ||
			n[record.Dead] != dead || n[record.Written] != int64(len(want)) {
			t.Errorf("read %d, %v, %q", out.Read, n, report.Faults)
		}
		got := map[int]asset{}
		names, _ := filepath.Glob(filepath.Join(at, "out", "*.jsonl"))
		for _, name := range names {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for lines := bufio.NewScanner(f); lines.Scan(); {
				var x struct {
					ID int `json:"id"`
					asset
				}
				if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
					t.Fatal(err)
				}
				if _, twice := got[x.ID]; twice {
					t.Errorf("%d came twice", x.ID)
				}
				got[x.ID] = x.asset
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%.2000s", diff)
		}
		return id, at
	}
	table := func(name string) string {
		return fmt.Sprintf(`{cassandra: {connection: {hosts: ["%s"]}, keyspace: %s, table: %s}}`, cassandra, "KS", name)
	}
	inKeyspace := func(source string) string { return strings.ReplaceAll(source, "KS", name) }

	union := map[int]asset{}
	for i := range 300 {
		union[i] = wanted(i, i >= 200 || i >= 100 && i%2 == 1)
	}
	id, at := run(inKeyspace(fmt.Sprintf("union: {of: [%s, %s]}", table("assets"), table("old_assets"))), union, 400,
		100, 0)
	if past := historyOf(t, at, "150", false); past.Others > 0 || len(past.Handlings) != 1 ||
		past.Handlings[0].Run.ID != id ||
		past.Handlings[0].Partition != "1/ring, 2/ring" || !slices.Equal(past.Handlings[0].Sinks, []string{"out"}) {
		t.Errorf("of a row of the union is told %+v", past)
	}

	var lines []string
	listed := map[int]asset{}
	for i := 0; i < 200; i += 7 {
		lines = append(lines, fmt.Sprintf(`{"id": "%d"}`, i))
		listed[i] = wanted(i, false)
	}
	lines = append(lines, lines[0], `{"id": "1000"}`, `{"id": "none"}`)
	file("ids.jsonl", lines...)
	keys := inKeyspace(fmt.Sprintf("keys: {from: {files: {path: %s/ids.jsonl, key: [id]}}, of: %s}", dir,
		table("assets")))
	id, at = run(keys, listed, int64(len(lines)), 1, 2)
	if past := historyOf(t, at, "14", false); len(past.Handlings) != 1 || !strings.Contains(past.Handlings[0].Unknown,
		"--connect") {
		t.Errorf("without the list is told %+v", past)
	}
	if past := historyOf(t, at, "14", true); len(past.Handlings) != 1 || !slices.Equal(past.Handlings[0].Sinks,
		[]string{"out"}) {
		t.Errorf("of a row of the list is told %+v", past)
	}
	if past := historyOf(t, at, "15", true); past.Others != 1 {
		t.Errorf("of a row that is not in the list is told %+v", past)
	}

	// A row that comes back is found by a redrive; the key that is none cannot be.
	j := open(t, at)
	if got := redriven(t, j, id, redrive.Redrive{}); got != (redrive.Result{Gone: 1}) {
		t.Errorf("%+v", got)
	}
	exec("INSERT INTO KS.assets (id, title, kind, licence) VALUES (1000, 'new', 'a', 'l1')")
	all := redrive.Redrive{}
	all.Filter.States = []journal.LetterState{journal.Gone}
	if got := redriven(t, j, id, all); got != (redrive.Result{Sent: 1}) {
		t.Errorf("%+v", got)
	}
}
