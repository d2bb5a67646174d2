package launch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/icebergio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/purge"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// purgeJob deletes expired assets from a table, its reverse table by tag, an index, a table of Iceberg and (as entries)
// a folder.
const purgeJob = `
name: expired
source: {cassandra: {connection: {hosts: ["%[2]s"]}, keyspace: %[4]s, table: assets, buckets: {discover: true}}}
transforms:
  - filter: licence_expires != null && licence_expires < now
sinks:
  by_tag:
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [bucket, id, tag, title], key: [tag, bucket, id]}}]
    cassandra: {connection: {hosts: ["%[2]s"]}, keyspace: %[4]s, table: by_tag}
  search:
    transforms: [{project: {keep: [bucket, id, title]}}]
    elasticsearch: {urls: ["http://%[3]s"], index: %[4]s, refresh: wait_for}
  lake:
    transforms: [{project: {keep: [bucket, id, title]}}]
    iceberg: {catalog: {sqlite: "%[1]s/lake/catalog.db", warehouse: "%[1]s/lake"}, table: media.assets, mode: upsert}
  lines:
    files: {path: "%[1]s/lines", meta: true}
  assets:
    after: [by_tag, search, lake, lines]
    cassandra: {connection: {hosts: ["%[2]s"]}, keyspace: %[4]s, table: assets}
purge: {reason: '"licence of " + title + " expired"', manifest: "%[1]s/manifests", grace: %[5]s}
limits: {split_rows: 100, unfinished: "20"}
journal: {sqlite: "%[1]s/journal.db"}
dead_letters: {files: {path: "%[1]s/dead"}}
`

// purging is a table of assets, of which those with an even id have expired, and what was made of it.
type purging struct {
	t          *testing.T
	dir, name  string
	connection cassandraio.Connection
	es         string
	job        string
}

const purgeAssets = 60

func newPurge(t *testing.T, grace string) *purging {
	t.Helper()
	addr := services.Need(t, services.Cassandra)
	p := &purging{t: t, dir: t.TempDir(), name: services.Name(t), es: services.Need(t, services.Elasticsearch),
		connection: cassandraio.Connection{Hosts: []string{addr}}}
	p.job = fmt.Sprintf(purgeJob, p.dir, addr, p.es, p.name, grace)
	p.cql("CREATE KEYSPACE " + p.name +
		" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND durable_writes = false")
	t.Cleanup(func() {
		if err := cassandraio.Execute(context.WithoutCancel(t.Context()), p.connection,
			cassandraio.Statement{CQL: "DROP KEYSPACE " + p.name}); err != nil {
			t.Log(err) // a busy server does it later
		}
	})
	p.cql("CREATE TABLE " + p.name +
		".assets (bucket text, id int, title text, tags set<text>, licence_expires timestamp, views int, " +
		"PRIMARY KEY (bucket, id))")
	p.cql("CREATE TABLE " + p.name +
		".by_tag (tag text, bucket text, id int, title text, PRIMARY KEY (tag, bucket, id))")
	p.request(http.MethodPut, "/"+p.name, `{"settings": {"number_of_shards": 1, "number_of_replicas": 0}}`)
	t.Cleanup(func() { p.request(http.MethodDelete, "/"+p.name, "") })
	var all []*record.Record
	for id := range purgeAssets {
		expires := "2020-01-01"
		if id%2 == 1 {
			expires = "2090-01-01"
		}
		p.put(id, expires, 1000)
		all = append(all, lakeRow(id, 1000, record.Upsert))
	}
	p.lake(all...)
	return p
}

var lakeSchema = record.MustSchema([]record.Field{{Name: "bucket", Type: record.Of(record.Text)}, {Name: "id",
	Type: record.Of(record.Int)},
	{Name: "title", Type: record.Of(record.Text)}}, "bucket", "id")

func lakeRow(id int, version int64, op record.Op) *record.Record {
	return &record.Record{Schema: lakeSchema, Version: version, Op: op, Origin: record.Origin{Split: "live"},
		Values: []record.Value{record.String(fmt.Sprint("b", id%3)), record.Number(record.Int, int64(id)),
			record.String(fmt.Sprint("t", id))}}
}

// lake is the live feed of the table of Iceberg.
func (p *purging) lake(rows ...*record.Record) {
	p.t.Helper()
	dir, run := filepath.Join(p.dir, "lake"), connector.Run{ID: uuid.NewString(), Job: "live"}
	sink := icebergio.NewSink(icebergio.SinkConfig{Catalog: icebergio.CatalogConfig{SQLite: filepath.Join(dir,
		"catalog.db"), Warehouse: dir},
		Table: "media.assets", Create: true, Mode: "upsert"})
	defer sink.Close()
	check := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	check(sink.Prepare(p.t.Context(), run, lakeSchema, false))
	w, err := sink.Open(p.t.Context(), run, lakeSchema, func([]connector.Result) {})
	check(err)
	defer w.Close()
	for _, r := range rows {
		check(w.Write(p.t.Context(), r))
	}
	parts, err := w.Flush(p.t.Context())
	check(err)
	_, err = sink.Commit(p.t.Context(), run, lakeSchema, parts)
	check(err)
}

// write is the live system's write of an asset, everywhere.
func (p *purging) write(id int, expires string, version int64) {
	p.t.Helper()
	p.put(id, expires, version)
	p.lake(lakeRow(id, version, record.Upsert))
}

// put is write without the table of Iceberg.
func (p *purging) put(id int, expires string, version int64) {
	p.t.Helper()
	bucket := fmt.Sprint("b", id%3)
	p.cql("INSERT INTO "+p.name+".assets (bucket, id, title, tags, licence_expires, views) "+
		"VALUES (?, ?, ?, ?, '"+expires+"', 7) USING TIMESTAMP ?",
		bucket, id, fmt.Sprint("t", id), []string{"x", fmt.Sprint("y", id)}, version)
	for _, tag := range []string{"x", fmt.Sprint("y", id)} {
		p.cql("INSERT INTO "+p.name+".by_tag (tag, bucket, id, title) VALUES (?, ?, ?, ?) USING TIMESTAMP ?", tag,
			bucket, id, fmt.Sprint("t", id), version)
	}
	p.request(http.MethodPut, fmt.Sprintf("/%s/_doc/%s%%7C%d?version=%d&version_type=external_gte&refresh=true", p.name, bucket, id, version), fmt.Sprintf(`{"bucket": %q, "id": %d}`, bucket, id))
}

func (p *purging) cql(text string, values ...any) {
	p.t.Helper()
	if err := cassandraio.Execute(p.t.Context(), p.connection, cassandraio.Statement{CQL: text,
		Values: values}); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
}

func (p *purging) request(method, path, body string) []byte {
	p.t.Helper()
	r, err := http.NewRequest(method, "http://"+p.es+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		p.t.Fatalf("%s %s: %s %s %v", method, path, res.Status, answer, err)
	}
	return answer
}

// cassandra are the ids in a table.
func (p *purging) cassandra(table string) (ids []int) {
	p.t.Helper()
	session, err := cassandraio.NewSession(p.t.Context(), p.connection)
	if err != nil {
		p.t.Fatal(err)
	}
	defer session.Close()
	var id int
	for scan, err := range session.Rows(p.t.Context(), cassandraio.Statement{CQL: "SELECT id FROM " + p.name + "." +
		table}) {
		if err == nil {
			err = scan(&id)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// ids are those of the assets that are there, by target.
func (p *purging) ids() map[string][]int {
	p.t.Helper()
	all := map[string][]int{"assets": p.cassandra("assets"), "by_tag": p.cassandra("by_tag")}
	var found struct {
		Hits struct {
			Hits []struct {
				Source struct{ ID int } `json:"_source"`
			}
		}
	}
	if err := json.Unmarshal(p.request(http.MethodGet, "/"+p.name+"/_search?size=1000", ""), &found); err != nil {
		p.t.Fatal(err)
	}
	for _, h := range found.Hits.Hits {
		all["search"] = append(all["search"], h.Source.ID)
	}
	for _, line := range services.ReadIceberg(p.t, services.IcebergTable{Catalog: filepath.Join(p.dir, "lake",
		"catalog.db"), Table: "media.assets"}) {
		var row struct{ ID int }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			p.t.Fatal(err)
		}
		all["lake"] = append(all["lake"], row.ID)
	}
	for _, ids := range all {
		slices.Sort(ids)
	}
	return all
}

// wantIDs checks that the assets are there in all targets, each with two tags, and no others.
func (p *purging) wantIDs(when string, there func(id int) bool) {
	p.t.Helper()
	want := map[string][]int{}
	for id := range purgeAssets {
		if there(id) {
			want["assets"], want["search"], want["lake"] = append(want["assets"], id), append(want["search"], id),
				append(want["lake"], id)
			want["by_tag"] = append(want["by_tag"], id, id)
		}
	}
	if diff := cmp.Diff(want, p.ids()); diff != "" {
		p.t.Errorf("%s: assets (-want +got):\n%s", when, diff)
	}
}

func (p *purging) parse() *job.Job { return parse(p.t, p.job) }

// run makes a run of a step, which must end well.
func (p *purging) run(step func() (*runs.Prepared, error)) (journal.RunInfo, *flow.Report) {
	p.t.Helper()
	prepared, err := step()
	if err != nil {
		p.t.Fatal(err)
	}
	defer prepared.Close()
	report, err := launch.Runner{Name: "prism"}.Execute(p.t.Context(), prepared)
	if err != nil || report.State != journal.Complete {
		p.t.Fatalf("%+v, %v", report, err)
	}
	return p.info(prepared.Run.ID), report
}

func (p *purging) info(run string) journal.RunInfo {
	p.t.Helper()
	info, err := open(p.t, p.dir).Get(p.t.Context(), run)
	if err != nil {
		p.t.Fatal(err)
	}
	return info
}

func (p *purging) mark() (journal.RunInfo, *flow.Report) {
	p.t.Helper()
	return p.run(func() (*runs.Prepared, error) { return purge.Mark(p.t.Context(), p.parse()) })
}

func (p *purging) purge(marked journal.RunInfo) (journal.RunInfo, *flow.Report) {
	p.t.Helper()
	return p.run(func() (*runs.Prepared, error) { return purge.Delete(p.t.Context(), p.parse(), marked) })
}

func (p *purging) restore(purged journal.RunInfo) (journal.RunInfo, *flow.Report) {
	p.t.Helper()
	return p.run(func() (*runs.Prepared, error) { return purge.Restore(p.t.Context(), p.parse(), purged) })
}

// TestPurge marks, lets the live system change its mind about some assets, purges, purges again, and restores.
func TestPurge(t *testing.T) {
	t.Parallel()
	p := newPurge(t, "1ns")
	marked, report := p.mark()
	if got := report.Sinks[job.MarkedSink]; got.Read != purgeAssets || got.Outcomes[record.Written] != purgeAssets/2 {
		t.Errorf("marked: %+v", got)
	}
	p.wantIDs("after marking", func(int) bool { return true })
	if lines := p.manifest(marked.ID); len(lines) != purgeAssets/2 || !strings.Contains(lines[0], `"_reason":"licence of t`) || !strings.Contains(lines[0], `licence_expires\":\"2020-01-01`) {
		t.Errorf("the manifest: %d entries, such as %s", len(lines), lines[0])
	}

	// Meanwhile the licence of asset 0 is renewed, 2 changes, 4 is deleted, 6 deleted and made again.
	p.write(0, "2091-01-01", 2000)
	p.cql("UPDATE "+p.name+".assets USING TIMESTAMP 2000 SET views = 8 WHERE bucket = 'b2' AND id = 2", nil...)
	p.remove(4, 2000)
	p.remove(6, 2000)
	p.write(6, "2092-01-01", 2001)
	there := func(id int) bool { return id%2 == 1 || id == 0 || id == 6 }

	prepared, err := purge.Delete(t.Context(), p.parse(), marked)
	if err != nil {
		t.Fatal(err)
	}
	prospect, err := purge.Foresee(t.Context(), prepared)
	if err != nil || prospect.Read != 30 || prospect.Gone != 1 || prospect.Filtered != 2 || prospect.Left != 27 ||
		purge.Order(prepared.Job) != "deleted, then by_tag and lake and lines and search, then assets" {
		t.Errorf("prospect %+v, %v; %s", prospect, err, purge.Order(prepared.Job))
	}
	prepared.Close()

	purged, report := p.purge(marked)
	if got := report.Sinks["assets"]; got.Read != 30 || got.Outcomes[record.Written] != 27 ||
		got.Outcomes[record.Filtered] != 3 {
		t.Errorf("purged: %+v", got)
	}
	p.wantIDs("after the purge", there)

	_, report = p.purge(marked)
	if got := report.Sinks["assets"]; got.Outcomes[record.Written] != 0 || got.Outcomes[record.Filtered] != 30 {
		t.Errorf("purged again: %+v", got)
	}
	p.wantIDs("after the second purge", there)

	// Asset 8 is made again, and 10 too, but deleted after that: both stay as the live system wants them.
	p.write(8, "2093-01-01", 3000)
	p.write(10, "2093-01-01", 3000)
	p.remove(10, 3001)
	// A restore was killed when it had brought back asset 12 itself, but nothing that is made of it.
	p.cql("INSERT INTO " + p.name +
		".assets (bucket, id, title, tags, views) VALUES ('b0', 12, 't12', {'x', 'y12'}, 7) USING TIMESTAMP 1001")
	for range 2 {
		if _, report = p.restore(purged); report.DeadLetters > 0 {
			t.Errorf("restored: %+v", report)
		}
		p.wantIDs("after the restore", func(id int) bool { return id != 4 && id != 10 })
	}
	if views, expires := p.asset(2); views != 8 || expires != 2020 {
		t.Errorf("asset 2 comes back with %d views and a licence until %d", views, expires)
	}
	if _, expires := p.asset(8); expires != 2093 {
		t.Errorf("asset 8 has a licence until %d, not as it was made again", expires)
	}
}

// remove is the live system's delete of an asset.
func (p *purging) remove(id int, version int64) {
	p.t.Helper()
	bucket := fmt.Sprint("b", id%3)
	p.cql("DELETE FROM "+p.name+".assets USING TIMESTAMP ? WHERE bucket = ? AND id = ?", version, bucket, id)
	for _, tag := range []string{"x", fmt.Sprint("y", id)} {
		p.cql("DELETE FROM "+p.name+".by_tag USING TIMESTAMP ? WHERE tag = ? AND bucket = ? AND id = ?", version, tag,
			bucket, id)
	}
	p.request(http.MethodDelete, fmt.Sprintf("/%s/_doc/%s%%7C%d?version=%d&version_type=external_gte&refresh=true",
		p.name, bucket, id, version), "")
	p.lake(lakeRow(id, version, record.Delete))
}

func (p *purging) asset(id int) (views, year int) {
	p.t.Helper()
	session, err := cassandraio.NewSession(p.t.Context(), p.connection)
	if err != nil {
		p.t.Fatal(err)
	}
	defer session.Close()
	var expires time.Time
	for scan, err := range session.Rows(p.t.Context(),
		cassandraio.Statement{CQL: "SELECT views, licence_expires FROM " + p.name +
			".assets WHERE bucket = ? AND id = ?", Values: []any{fmt.Sprint("b", id%3), id}}) {
		if err == nil {
			err = scan(&views, &expires)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return views, expires.Year()
}

// manifest are the entries of a run's manifest, also of one that is not at its end (*.part).
func (p *purging) manifest(run string) (lines []string) {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "manifests", run+"-*.jsonl*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			p.t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	return lines
}

// TestPurgeIsResumed stops a purge in between, and lets it go on.
func TestPurgeIsResumed(t *testing.T) {
	t.Parallel()
	p := newPurge(t, "1ns")
	marked, _ := p.mark()
	prepared, err := purge.Delete(t.Context(), p.parse(), marked)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	prepared.Job.Pace.Rates = map[string]journal.Rate{"search": {Records: 10}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func(j journal.Journal, run string, _ int, _ journal.Total) func() {
		go func() {
			for finished(t, j, run) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			cancel()
		}()
		return nil
	}
	_, err = launch.Runner{Name: "prism", Watch: watch}.Execute(ctx, prepared)
	if err == nil && p.info(prepared.Run.ID).State == journal.Complete {
		t.Log("the purge was done before it was stopped")
	}
	if _, err := purge.Restore(t.Context(), p.parse(), p.info(prepared.Run.ID)); fail.CodeOf(err) != "purge.not_done" &&
		p.info(prepared.Run.ID).State != journal.Complete {
		t.Errorf("a purge that is not done can be restored: %v", err)
	}
	if p.info(prepared.Run.ID).State != journal.Complete {
		report, err := resume(t, open(t, p.dir), prepared.Run.ID, runs.Resumption{}, nil)
		if err != nil || report.State != journal.Complete {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	p.wantIDs("after the purge", func(id int) bool { return id%2 == 1 })
	if entries := len(p.manifest(prepared.Run.ID)); entries < purgeAssets/2 {
		t.Errorf("%d entries tell what was deleted, want %d", entries, purgeAssets/2)
	}
	p.restore(p.info(prepared.Run.ID))
	p.wantIDs("after the restore", func(int) bool { return true })
}

// TestPurgeIsKilled kills a purge (-9) twice while it deletes: at no moment is a row gone of which something else is
// left that was made of it, each row that is gone stands in the manifest, and the purge goes on to its end.
func TestPurgeIsKilled(t *testing.T) {
	t.Parallel()
	p := newPurge(t, "1ns")
	p.job += "pace: {rates: {search: {records: 6}}}\n"
	file := filepath.Join(p.dir, "job.yaml")
	if err := os.WriteFile(file, []byte(p.job), 0o644); err != nil {
		t.Fatal(err)
	}
	marked, _ := p.mark()
	j := open(t, p.dir)
	run, left := "", purgeAssets
	for kill := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), purgeChild+"="+file, purgeChild+"_MARKED="+marked.ID, purgeChild+"_RUN="+run)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		for len(p.cassandra("assets")) >= left {
			select {
			case <-ended:
				t.Fatal("the purge has ended before it could be killed")
			case <-time.After(10 * time.Millisecond):
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		run = runOf(t, j, "expired-purge")
		if p.info(run).State == journal.Complete {
			t.Fatal("the purge was done before it was killed")
		}

		there := p.ids()
		if n := len(there["lake"]); n != purgeAssets {
			t.Errorf("%d rows in the lake before the commit, want %d", n, purgeAssets)
		}
		put := strings.Join(p.manifest(run), "\n")
		for id := range purgeAssets {
			if slices.Contains(there["assets"], id) {
				continue
			}
			if slices.Contains(there["search"], id) || slices.Contains(there["by_tag"], id) {
				t.Errorf("after kill %d: asset %d is gone before what was made of it", kill, id)
			}
			if !strings.Contains(put, fmt.Sprintf(`"id":%d,`, id)) {
				t.Errorf("after kill %d: no manifest tells of asset %d", kill, id)
			}
		}
		left = len(there["assets"])
		t.Logf("kill %d: %d of %d assets are left, %d documents", kill, left, purgeAssets, len(there["search"]))
	}
	report, err := resume(t, j, run, runs.Resumption{}, nil)
	if err != nil || report.State != journal.Complete {
		t.Fatalf("%+v, %v", report, err)
	}
	p.wantIDs("after the purge", func(id int) bool { return id%2 == 1 })
	p.restore(p.info(run))
	p.wantIDs("after the restore", func(int) bool { return true })
}

const purgeChild = "REPRISE_TEST_PURGE"

// purgeAsChild purges by the job that the environment names, or goes on with it, in a process that a test kills.
func purgeAsChild() {
	file := os.Getenv(purgeChild)
	if file == "" {
		return
	}
	ctx, prism := context.Background(), launch.Runner{Name: "prism"}
	err := func() error {
		j, err := job.Load(file)
		if err != nil {
			return err
		}
		all, err := journal.Open(ctx, *j.Journal)
		if err != nil {
			return err
		}
		if run := os.Getenv(purgeChild + "_RUN"); run != "" {
			_, _, err = prism.Resume(ctx, all, run, runs.Resumption{})
			return err
		}
		marked, err := all.Get(ctx, os.Getenv(purgeChild+"_MARKED"))
		if err != nil {
			return err
		}
		p, err := purge.Delete(ctx, j, marked)
		if err == nil {
			_, err = prism.Execute(ctx, p)
		}
		return err
	}()
	fmt.Fprintln(os.Stderr, "the purge ended:", err)
	os.Exit(1)
}

func TestPurgeRefuses(t *testing.T) {
	t.Parallel()
	p := newPurge(t, "1h")
	marked, _ := p.mark()
	if _, err := purge.Delete(t.Context(), p.parse(), marked); fail.CodeOf(err) != "purge.grace" {
		t.Errorf("within the time of grace: %v", err)
	}
	unbalanced := marked
	unbalanced.State = journal.Unbalanced
	if _, err := purge.Delete(t.Context(), p.parse(), unbalanced); fail.CodeOf(err) != "purge.not_done" {
		t.Errorf("sums that do not balance: %v", err)
	}
	if _, err := purge.Restore(t.Context(), p.parse(), marked); fail.CodeOf(err) != "purge.other_run" {
		t.Errorf("a restore of what was only marked: %v", err)
	}
	other := p.parse()
	other.Purge = nil
	if _, err := purge.Mark(t.Context(), other); fail.CodeOf(err) != "purge.no_purge" {
		t.Errorf("a job that does not purge: %v", err)
	}
}
