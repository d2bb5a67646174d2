package launch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/redrive"
	"reprise/pipelines/redrive/letters"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/runners/services"
)

// complete runs a job on Prism.
func complete(t *testing.T, text string) (run string, j journal.Journal) {
	t.Helper()
	of := parse(t, text)
	p, err := runs.Prepare(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	report, err := launch.Runner{Name: "prism"}.Execute(t.Context(), p)
	if err != nil || report.State != journal.Complete {
		t.Fatalf("%+v, %v", report, err)
	}
	if j, err = journal.Open(t.Context(), *of.Journal); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return p.Run.ID, j
}

// redriven sends the dead letters of a run again, and adds up what became of them.
func redriven(t *testing.T, j journal.Journal, run string, r redrive.Redrive) (sum redrive.Result) {
	t.Helper()
	var err error
	if r.Run, err = j.Get(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	r.Max = 5
	chosen, err := r.Choose(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range chosen.Groups {
		p, err := r.Prepare(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		report, err := launch.Runner{Name: "prism"}.Execute(t.Context(), p)
		if err != nil || report.State != journal.Complete {
			t.Fatalf("%+v, %v", report, err)
		}
		one, err := redrive.Settle(t.Context(), j, p.Run.ID)
		if err != nil {
			t.Fatal(err)
		}
		sum.Sent, sum.Again, sum.Parked, sum.Gone = sum.Sent+one.Sent, sum.Again+one.Again, sum.Parked+one.Parked,
			sum.Gone+one.Gone
	}
	return sum
}

const redriveJob = `
name: redrive
source:
  cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: pages}
sinks:
  search: {elasticsearch: {urls: ["http://%[3]s"], index: %[2]s}}
dead_letters: {files: {path: %[4]s/dead}}
journal: {sqlite: "%[4]s/journal.db"}
`

// TestRedriveBesideLiveWrites has documents refused by an index, whose mapping is then mended. Meanwhile production
// goes on: rows are updated and deleted. After the redrive the index holds what the table holds, and live writes have
// won.
func TestRedriveBesideLiveWrites(t *testing.T) {
	const rows = 300
	cassandra, search, name := services.Need(t, services.Cassandra), services.Need(t, services.Elasticsearch),
		services.Name(t)
	session := plainSession(t, cassandra, name)
	exec := func(statement string, args ...any) {
		t.Helper()
		if err := session.Query(strings.ReplaceAll(statement, "KS", name), args...).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(method, path, body string) {
		t.Helper()
		q, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://"+search+"/"+name+path,
			strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
	}
	exec("CREATE TABLE KS.pages (id text PRIMARY KEY, title text, size bigint)")
	ask(http.MethodPut, "", `{"mappings": {"properties": {"id": {"type": "keyword"}, "title": {"type": "keyword"}, "size": {"type": "long"}}}}`)
	t.Cleanup(func() { ask(http.MethodDelete, "", "") })
	want, refused := map[string]row{}, 0
	write := func(id, title string, size, version int64) {
		t.Helper()
		exec("INSERT INTO KS.pages (id, title, size) VALUES (?, ?, ?) USING TIMESTAMP ?", id, title, size, version)
		want[id] = row{title, size, version}
	}
	long := strings.Repeat("x", 40_000) // more than a keyword may have
	for i := range int64(rows) {
		title := "short"
		if i%3 == 0 {
			title = long
			refused++
		}
		write(fmt.Sprint(i), title, i, 1000)
	}
	run, j := complete(t, fmt.Sprintf(redriveJob, cassandra, name, search, t.TempDir()))
	if got := redriven(t, j, run, redrive.Redrive{}); got != (redrive.Result{Again: refused}) {
		t.Fatalf("before the mapping is mended: %s, of %d", got, refused)
	}

	ask(http.MethodPut, "/_mapping", `{"properties": {"title": {"type": "keyword", "ignore_above": 100}}}`)
	live := func(id string, size, version int64) {
		ask(http.MethodPut, fmt.Sprintf("/_doc/%s?version=%d&version_type=external", id, version), fmt.Sprintf(`{"id": "%s", "title": "live", "size": %d}`, id, size))
	}
	write("0", "live", 10, 2000) // on its way to the index
	write("3", "live", 11, 3000)
	live("3", 11, 3000)
	live("6", 12, 4000) // the table comes later
	exec("DELETE FROM KS.pages WHERE id = '9'")
	delete(want, "9")
	if got := redriven(t, j, run, redrive.Redrive{}); got != (redrive.Result{Sent: refused - 1, Gone: 1}) {
		t.Errorf("with the mapping mended: %s, of %d", got, refused)
	}
	write("6", "live", 12, 4000)
	if diff := cmp.Diff(want, elasticsearchRows(t, search, name)); diff != "" {
		t.Errorf("the index differs from the table: %.2000s", diff)
	}
	if got := redriven(t, j, run, redrive.Redrive{}); got != (redrive.Result{}) {
		t.Errorf("the third time: %s", got)
	}
}

// TestRedriveQueues sends again what queues in Kafka and Iceberg hold.
func TestRedriveQueues(t *testing.T) {
	const rows = 30
	for name, queue := range map[string]string{
		"kafka":   fmt.Sprintf(`kafka: {brokers: ["%s"], topic: %s, create: {partitions: 2}}`, services.Need(t, services.Kafka), services.Name(t)),
		"iceberg": `iceberg: {catalog: {sqlite: DIR/dead.db, warehouse: DIR/dead}, table: ops.dead_letters, create: true}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var lines, want []byte
			for i := range rows {
				size := fmt.Sprint(i)
				if i%3 == 0 {
					size = "large"
					want = fmt.Appendf(want, `{"id":"a%d","size":"large"}`+"\n", i)
				}
				lines = fmt.Appendf(lines, `{"id": "a%d", "size": "%s"}`+"\n", i, size)
			}
			if err := os.WriteFile(filepath.Join(dir, "in.jsonl"), lines, 0o644); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf(queueJob, dir, strings.ReplaceAll(queue, "DIR", dir))
			run, j := complete(t, text)
			mended := parse(t, strings.NewReplacer("size: bigint", "size: text", dir+"/out",
				dir+"/mended").Replace(text))
			if got := redriven(t, j, run, redrive.Redrive{Kept: true,
				Job: mended}); got != (redrive.Result{Sent: rows / 3}) {
				t.Errorf("%s", got)
			}
			got := contents(t, dir+"/mended/*.jsonl")
			if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// contents are those of all files of a pattern, one after the other.
func contents(t *testing.T, pattern string) (all []byte) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	return all
}

func sorted(lines []byte) map[string]int {
	all := map[string]int{}
	for line := range bytes.Lines(lines) {
		all[string(line)]++
	}
	return all
}

// TestSettleAfterKill brings a redrive to its end that was killed once its run was done, and changes nothing the second
// time.
func TestSettleAfterKill(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), journal.Config{SQLite: dir + "/journal.db"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	text, err := json.Marshal(job.Job{Source: connector.From(&letters.Config{Max: 3})})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(r journal.Run) {
		t.Helper()
		if err := j.Begin(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	record := func(run string, letters ...journal.Letter) {
		t.Helper()
		if err := j.Record(t.Context(), run, 0, journal.Batch{Letters: letters}); err != nil {
			t.Fatal(err)
		}
	}
	begin(journal.Run{ID: "first", JobFile: []byte("{}")})
	var choices []letters.Choice
	for i, id := range []string{"through", "again", "often", "gone", "other-sink"} {
		record("first", journal.Letter{ID: id, Key: id, Sink: "search", State: journal.Waits})
		choices = append(choices, letters.Choice{Key: id, Sink: "search", Letters: map[string]int{id: i % 3}})
	}
	begin(journal.Run{ID: "second", JobFile: text, Parent: "first"})
	if err := letters.WriteChoices(t.Context(), j, "second", choices); err != nil {
		t.Fatal(err)
	}
	own := func(key, sink, code string) journal.Letter {
		return journal.Letter{ID: key + "/" + sink, Position: []byte(key), Sink: sink, Code: code, State: journal.Waits}
	}
	record("second", own("again", "search", "x"), own("often", "", "x"), own("gone", "", letters.CodeGone),
		own("other-sink", "lake", "x"))
	want := redrive.Result{Sent: 2, Again: 1, Parked: 1, Gone: 1}
	if got, err := redrive.Settle(t.Context(), j, "second"); got != (redrive.Result{}) || err != nil {
		t.Fatalf("before its end: %s, %v", got, err)
	}
	if err := j.Finish(t.Context(), "second", 0, journal.Complete, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := redrive.Settle(t.Context(), j, "second"); got != want || err != nil {
			t.Fatalf("%s, %v", got, err)
		}
	}
	states := map[string]string{}
	for _, run := range []string{"first", "second"} {
		for l, err := range j.Letters(t.Context(), run, journal.LetterFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			states[run+" "+l.ID] = fmt.Sprint(l.State, " ", l.Redrives)
		}
	}
	if diff := cmp.Diff(map[string]string{"first through": "sent 1", "first again": "waits 2",
		"first often": "parked 3", "first gone": "gone 0",
		"first other-sink": "sent 2", "second again/search": "returned 0", "second often/": "returned 0",
		"second gone/":           "returned 0",
		"second other-sink/lake": "returned 0"}, states); diff != "" {
		t.Error(diff)
	}
}
