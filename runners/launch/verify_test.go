package launch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/verify"
	"reprise/pipelines/verify/compare"
	"reprise/runners/corpus"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// checked runs a verification of a job.
func checked(t *testing.T, text string, with verify.Options) *verify.Report {
	t.Helper()
	r, err := verify.Run(t.Context(), parse(t, text), launch.Runner{Name: "prism"}, with)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wrong is what a report says of a sink.
func wrong(r *verify.Report, sink string) string {
	s := r.Sinks[sink]
	var all []string
	for _, kind := range compare.Kinds {
		if n := s.Wrong[kind]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if s.InFlight+s.Unsettled > 0 {
		all = append(all, fmt.Sprintf("%d in flight, %d unsettled", s.InFlight, s.Unsettled))
	}
	return strings.Join(all, ", ")
}

const verifyFiles = `
name: files
source: {corpus: {rows: 3000}}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
sinks:
  lines: {files: {path: "%[1]s/lines", meta: true}}
  tags:
    when: views > 100
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [asset_type, bucket, id, tag, title]}}]
    files: {path: "%[1]s/tags", format: parquet}
  lake:
    transforms: [{rename: {id: asset_id}}]
    iceberg: {catalog: {sqlite: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}, table: media.assets, create: true}
dead_letters: {files: {path: "%[1]s/dead"}}
journal: {sqlite: "%[1]s/journal.db"}
verify: {settle: 100ms}
`

// Targets that cannot find rows by key are verified too, also where their rows do not tell the key of the source.
func TestVerifyFiles(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(verifyFiles, dir)
	if _, _, err := execute(t, text, nil); err != nil {
		t.Fatal(err)
	}
	r := checked(t, text, verify.Options{Folder: dir})
	// The table takes no deletes: they are dead letters of the run.
	if got, want := []string{wrong(r, "lines"), wrong(r, "tags"), wrong(r, "lake")}, []string{"", "",
		"13 extra"}; !slices.Equal(got, want) {
		t.Errorf("wrong are %q, want %q\n%+v", got, want, r.Sinks["lake"])
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.index")); len(left) > 0 {
		t.Errorf("%v are left behind", left)
	}
}

const verifyCassandra = `
name: copy
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets}}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
sinks:
  copy:
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: copy, create: true, partition_key: [asset_type, bucket], clustering: [id]}
  tags:
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [asset_type, bucket, id, tag, title]}}]
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: by_tag, create: true, partition_key: [tag], clustering: [asset_type, bucket, id]}
  lake: {iceberg: {catalog: {sqlite: "%[3]s/catalog.db", warehouse: "%[3]s/warehouse"}, table: media.assets, create: true}}
  events:
    when: asset_type == "image"
    transforms: [{project: {keep: [asset_type, bucket, id, title, tags]}}]
    kafka: {brokers: ["%[5]s"], topic: %[2]s, create: {partitions: 2}}
  search:
    transforms: [{derive: {found: "title"}}]
    elasticsearch: {urls: ["http://%[7]s"], index: %[2]s, id: "{id}", exclude: [thumbnail, embedding], create: {}}
dead_letters: {files: {path: "%[3]s/dead"}}
limits: {split_rows: 500}
journal: {sqlite: "%[3]s/journal.db"}
pace: {rates: {source: {records: %[4]d}}}
verify: {settle: 1s, sinks: [%[6]s]}
`

// scene is a corpus in Cassandra and its copy.
type scene struct {
	dir, keyspace, host, kafka, search string
	session                            *gocql.Session
	rows                               []*record.Record
}

// text is the job, which verifies some sinks and reads so many rows a second; 0: as many as it can.
func (s *scene) text(rate int, sinks ...string) string {
	return fmt.Sprintf(verifyCassandra, s.host, s.keyspace, s.dir, rate, s.kafka, strings.Join(sinks, ", "), s.search)
}

func newScene(t *testing.T, rows int64) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), keyspace: services.Name(t), host: services.Need(t, services.Cassandra),
		kafka: services.Need(t, services.Kafka), search: services.Need(t, services.Elasticsearch)}
	source := corpusio.SourceConfig{Rows: rows}
	if _, err := (corpus.Corpus{Connection: cassandraio.Connection{Hosts: []string{s.host}}, Keyspace: s.keyspace,
		Source:  source,
		Journal: filepath.Join(s.dir, "load.db")}).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for row := range corpusio.Rows(source) {
		if row.Deletion == nil && !row.Malformed && row.Record.Expires == 0 {
			s.rows = append(s.rows, row.Record)
		}
	}
	if _, _, err := execute(t, s.text(0, "copy"), nil); err != nil {
		t.Fatal(err)
	}
	s.session = plainSession(t, s.host, s.keyspace)
	return s
}

func (s *scene) exec(t testing.TB, cql string, args ...any) {
	t.Helper()
	if err := s.session.Query(cql, args...).Exec(); err != nil {
		t.Error(err)
	}
}

// key is the key of a row as gocql takes it.
func (s *scene) key(i int) []any {
	r := s.rows[i]
	id, _ := gocql.UUIDFromBytes([]byte(r.Get("id").Str()))
	return []any{r.Get("asset_type").Str(), r.Get("bucket").Str(), id}
}

const here = " WHERE asset_type = ? AND bucket = ? AND id = ?"

// plant puts one fault of each kind into the copy.
func (s *scene) plant(t testing.TB) {
	s.exec(t, "DELETE FROM copy"+here, s.key(1)...)
	s.exec(t, "INSERT INTO copy (asset_type, bucket, id, title) VALUES (?, ?, ?, 'extra')",
		s.rows[2].Get("asset_type").Str(), s.rows[2].Get("bucket").Str(), gocql.TimeUUID())
	s.exec(t, "UPDATE assets SET title = 'the copy is stale'"+here, s.key(3)...)
	s.exec(t, "UPDATE copy SET title = 'altered'"+here, s.key(4)...)
	s.exec(t, "UPDATE copy USING TIMESTAMP ? SET title = '\U0010FFFD altered at the same time'"+here,
		append([]any{s.rows[5].Version}, s.key(5)...)...)
}

const planted = "1 missing, 1 extra, 1 stale, 1 newer, 1 different"

// A clean copy is clean in every system; each fault is found, and nothing else.
func TestVerifyCassandra(t *testing.T) {
	s := newScene(t, 2500)
	text := s.text(0, "copy", "tags", "lake", "events", "search")
	r := checked(t, text, verify.Options{})
	for name, sink := range r.Sinks {
		if !r.Clean() || sink.Checked == 0 || sink.Keys == 0 {
			t.Errorf("a clean copy: %s: %q\n%+v", name, wrong(r, name), sink)
		}
	}
	s.plant(t)
	r = checked(t, text, verify.Options{Folder: s.dir})
	changed := s.rows[3]
	want := map[string]string{"copy": planted, "lake": "1 stale", "search": "1 stale", "tags": "", "events": ""}
	if n := len(changed.Get("tags").Elems()); n > 0 {
		want["tags"] = fmt.Sprint(n, " stale")
	}
	if changed.Get("asset_type").Str() == "image" {
		want["events"] = "1 stale"
	}
	for name, found := range want {
		if got := wrong(r, name); got != found {
			t.Errorf("%s: %q, want %q\n%+v", name, got, found, r.Sinks[name])
		}
	}
	if n := r.Sinks["copy"].Fields["title"]; n != 3 || r.Clean() {
		t.Errorf("the title differs in %d rows, clean %t", n, r.Clean())
	}
	for _, e := range r.Sinks["copy"].Examples {
		if e.Kind == compare.Missing && e.Key != s.rows[1].KeyText() {
			t.Errorf("missing is %s, want %s", e.Key, s.rows[1].KeyText())
		}
	}

	// The repair job writes what is proven to be wrong, whatever stands there; what is newer only where the job says
	// so.
	repair(t, r, 3)
	s.exec(t, "UPDATE copy SET title = 'altered again'"+here, s.key(4)...)
	r = checked(t, text, verify.Options{Folder: s.dir})
	want = map[string]string{"copy": "1 extra, 1 newer", "lake": "", "search": "", "tags": "", "events": ""}
	for name, found := range want {
		if got := wrong(r, name); got != found {
			t.Errorf("after the repair: %s: %q, want %q\n%+v", name, got, found, r.Sinks[name])
		}
	}
	if r.Repair != "" {
		t.Errorf("%s repairs what is newer", r.Repair)
	}
	text = strings.Replace(text, "verify: {", "verify: {repair_newer: true, ", 1)
	repair(t, checked(t, text, verify.Options{Folder: s.dir}), 1)
	if got := wrong(checked(t, text, verify.Options{}), "copy"); got != "1 extra" {
		t.Errorf("after the repair of what is newer: %q", got)
	}
}

// repair runs the repair job of a verification, which must read so many rows.
func repair(t *testing.T, of *verify.Report, rows int64) {
	t.Helper()
	text, err := os.ReadFile(of.Repair)
	if err != nil {
		t.Fatal(err)
	}
	if _, report, err := execute(t, string(text), nil); err != nil || report.Read != rows || len(report.Faults) > 0 {
		t.Errorf("the repair reads %+v, want %d rows; %v", report, rows, err)
	}
}

// Rows that are written, and copied a moment later, while a verification goes on are no mismatches.
func TestVerifyLive(t *testing.T) {
	s := newScene(t, 2500)
	quit := make(chan struct{})
	ended := make(chan struct{})
	var writes atomic.Int64
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			case <-time.After(3 * time.Millisecond):
			}
			at := time.Now().UnixMicro()
			cql, args := "UPDATE %s USING TIMESTAMP ? SET title = ?"+here, append([]any{at, fmt.Sprint("live ", i)},
				s.key(i%len(s.rows))...)
			switch i % 10 {
			case 7:
				cql,
					args = "INSERT INTO %s (asset_type, bucket, id, title, payload) "+
					"VALUES (?, ?, ?, 'new', '{}') USING TIMESTAMP ?", []any{"image", "2024-05", gocql.TimeUUID(), at}
			case 9:
				cql, args = "DELETE FROM %s USING TIMESTAMP ?"+here, append([]any{at}, s.key(i%len(s.rows))...)
			}
			s.exec(t, fmt.Sprintf(cql, "assets"), args...)
			time.Sleep(2 * time.Millisecond)
			s.exec(t, fmt.Sprintf(cql, "copy"), args...)
			writes.Add(1)
		}
	}()
	text := strings.Replace(s.text(1500, "copy"), "verify: {", "verify: {ignore: [format], ", 1)
	r := checked(t, text, verify.Options{})
	close(quit)
	<-ended
	if !r.Clean() || writes.Load() == 0 {
		t.Errorf("%q after %d writes\n%+v", wrong(r, "copy"), writes.Load(), r.Sinks["copy"])
	}
}

// A verification that is killed goes on where it stood, and finds the same.
func TestVerifyKilled(t *testing.T) {
	s := newScene(t, 2500)
	s.plant(t)
	file := filepath.Join(s.dir, "job.yaml")
	if err := os.WriteFile(file, []byte(s.text(800, "copy")), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), verifyChild+"="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j := open(t, s.dir)
	var run string
	for run == "" || finished(t, j, run) < 500 {
		run = runOf(t, j, "copy.verify")
		time.Sleep(20 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	before := finished(t, j, run)
	r := checked(t, s.text(0, "copy"), verify.Options{Resume: run})
	if got := wrong(r, "copy"); got != planted {
		t.Errorf("%q, want %q\n%+v", got, planted, r.Sinks["copy"])
	}
	if r.Run != run || before == 0 || before >= r.Read {
		t.Errorf("run %s, want %s; %d of %d rows were finished before the kill", r.Run, run, before, r.Read)
	}
}

// runOf is the latest run of a job; "": there is none yet.
func runOf(t *testing.T, j journal.Journal, job string) (run string) {
	t.Helper()
	all, err := j.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Job == job {
			run = r.ID
		}
	}
	return run
}

const verifyChild = "REPRISE_TEST_VERIFY"

// verifyAsChild verifies the job that the environment names, in a process that a test kills.
func verifyAsChild() {
	file := os.Getenv(verifyChild)
	if file == "" {
		return
	}
	j, err := job.Load(file)
	if err == nil {
		_, err = verify.Run(context.Background(), j, launch.Runner{Name: "prism"}, verify.Options{})
	}
	json.NewEncoder(os.Stdout).Encode(fmt.Sprint(err))
	os.Exit(0)
}

const verifyMany = `
name: many
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets, columns: [title, tags]}}
sinks:
  newest:
    when: title != null # Cassandra keeps the title of another row where the newest has none
    transforms: [{project: {keep: [asset_type, bucket, id, title], key: [asset_type, bucket]}}]
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: newest, create: true, partition_key: [asset_type], clustering: [bucket]}
  search:
    transforms: [{derive: {group: "bucket"}}, {project: {keep: [group, title], key: [group]}}]
    elasticsearch: {urls: ["http://%[4]s"], index: %[2]s_many, create: {}}
  tag:
    transforms: [{explode: {field: tags, as: tag}}, {project: {keep: [asset_type, bucket, id, tag], key: [asset_type, bucket, id]}}]
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: tag, create: true, partition_key: [asset_type, bucket], clustering: [id]}
dead_letters: {files: {path: "%[3]s/dead"}}
journal: {sqlite: "%[3]s/journal.db"}
verify: {settle: 100ms}
`

// Of several rows that become one the newest is what a target should hold, and of several records of one version any;
// the repair writes that one.
func TestVerifyMany(t *testing.T) {
	s := newScene(t, 600)
	s.dir = t.TempDir()
	text := fmt.Sprintf(verifyMany, s.host, s.keyspace, s.dir, s.search)
	if _, _, err := execute(t, text, nil); err != nil {
		t.Fatal(err)
	}
	r := checked(t, text, verify.Options{})
	for name, sink := range r.Sinks {
		if got := wrong(r, name); got != "" || sink.Checked <= sink.Keys {
			t.Errorf("a clean target: %s: %q\n%+v", name, got, sink)
		}
	}

	// Those that have lost are not taken for wrong, however many they are.
	info, err := open(t, s.dir).Get(t.Context(), r.Run)
	if err != nil {
		t.Fatal(err)
	}
	var forward flow.Report
	if err := json.Unmarshal(info.Report, &forward); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"newest", "search"} {
		if n := forward.Sinks[name].Outcomes[record.Written]; n > 0 {
			t.Errorf("%s: %d records were taken for wrong at first", name, n)
		}
	}

	oldest, other := 0, 0 // an old row of a bucket, and one of another bucket
	for i, row := range s.rows {
		if row.Version < s.rows[oldest].Version {
			oldest = i
		}
	}
	for s.rows[other].Get("bucket").Str() == s.rows[oldest].Get("bucket").Str() {
		other++
	}
	s.exec(t, "UPDATE assets SET title = 'now the newest'"+here, s.key(oldest)...)
	s.exec(t, "UPDATE newest SET title = 'altered' WHERE asset_type = ? AND bucket = ?", s.key(other)[:2]...)
	r = checked(t, text, verify.Options{Folder: s.dir})
	for name, want := range map[string]string{"newest": "1 stale, 1 newer", "search": "1 stale", "tag": ""} {
		if got := wrong(r, name); got != want {
			t.Errorf("%s: %q, want %q\n%+v", name, got, want, r.Sinks[name])
		}
	}
	for _, e := range r.Sinks["search"].Examples {
		if e.Source != s.rows[oldest].KeyText() {
			t.Errorf("%s is made of %s, want %s", e.Key, e.Source, s.rows[oldest].KeyText())
		}
	}
	repair, err := os.ReadFile(r.Repair)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, string(repair), nil); err != nil {
		t.Fatal(err)
	}
	r = checked(t, text, verify.Options{})
	for name, want := range map[string]string{"newest": "1 newer", "search": "", "tag": ""} {
		if got := wrong(r, name); got != want {
			t.Errorf("after the repair: %s: %q, want %q\n%+v", name, got, want, r.Sinks[name])
		}
	}
}

const verifyUpsert = `
name: upsert
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets, columns: [title, tags]}}
sinks:
  lake: {iceberg: {catalog: {sqlite: "%[3]s/catalog.db", warehouse: "%[3]s/upserts"}, table: media.upserts, create: true, mode: upsert}}
  copy: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: copy}}
dead_letters: {files: {path: "%[3]s/dead"}}
limits: {split_rows: 100}
journal: {sqlite: "%[3]s/journal.db"}
verify: {settle: 1s}
`

// upsertFeed is the live feed of the same table.
const upsertFeed = `
name: feed
source: {files: {path: "%[1]s/feed.jsonl", key: [asset_type, bucket, id], fields: {asset_type: text, bucket: text, id: timeuuid, title: text, tags: set<text>}}}
sinks:
  lake: {iceberg: {catalog: {sqlite: "%[1]s/catalog.db", warehouse: "%[1]s/upserts"}, table: media.upserts, mode: upsert}}
dead_letters: {files: {path: "%[1]s/dead"}}
journal: {sqlite: "%[1]s/journal.db"}
`

// feed writes rows as the live feed does, each with this title, or deletes them where it is empty, a moment after
// anything else.
func (s *scene) feed(t *testing.T, titles map[int]string, more ...string) {
	t.Helper()
	lines := more
	at := time.Now().Add(time.Minute).UnixMicro()
	for i, title := range titles {
		r := s.rows[i]
		op := "upsert"
		if title == "" {
			op = "delete"
		}
		lines = append(lines, fmt.Sprintf(`{"asset_type": %q, "bucket": %q, "id": %q, "title": %q, "tags": %s, "_meta": {"version": %d, "op": %q}}`, r.Get("asset_type").Str(),
			r.Get("bucket").Str(), s.key(i)[2], title, r.Get("tags").AppendJSON(nil,
				r.Schema.Fields[r.Schema.Index("tags")].Type), at, op))
	}
	if err := os.WriteFile(filepath.Join(s.dir, "feed.jsonl"), []byte(strings.Join(lines, "\n")+"\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, fmt.Sprintf(upsertFeed, s.dir), nil); err != nil {
		t.Fatal(err)
	}
}

// A table that upserts is compared by the rows that stand, whoever wrote them; on Flink as on Prism.
func TestVerifyUpsert(t *testing.T) {
	s := newScene(t, 600)
	text := fmt.Sprintf(verifyUpsert, s.host, s.keyspace, s.dir)
	s.exec(t, "UPDATE assets USING TIMESTAMP ? SET title = 'fed'"+here,
		append([]any{time.Now().Add(time.Minute).UnixMicro()}, s.key(1)...)...)
	s.exec(t, "UPDATE assets SET title = 'before'"+here, s.key(3)...)
	for range 2 { // the second time all of it stands there already
		if _, report, err := execute(t, text, nil); err != nil || len(report.Faults) > 0 {
			t.Fatal(report, err)
		}
	}
	s.feed(t, map[int]string{1: "fed"})
	expect := func(lake, copied string) {
		t.Helper()
		r := checked(t, text, verify.Options{})
		if a, b := wrong(r, "lake"), wrong(r, "copy"); a != lake || b != copied || r.Read < int64(len(s.rows)) {
			t.Errorf("the lake: %q, want %q; the copy: %q, want %q; %d rows read\n%+v", a, lake, b, copied, r.Read,
				r.Sinks["lake"])
		}
	}
	expect("", "")

	s.exec(t, "UPDATE assets SET title = 'the table is stale'"+here, s.key(3)...)
	s.feed(t, map[int]string{2: "", 4: "altered"}, `{"asset_type": "image", "bucket": "2024-05", "id": "11111111-1111-11ee-8000-010000000000", "title": "extra", "_meta": {"version": 1900000000000000}}`)
	s.exec(t, "DELETE FROM copy"+here, s.key(5)...)
	const faults = "1 missing, 1 extra, 1 stale, 1 newer"
	expect(faults, "1 missing, 1 stale")

	flink := launch.Runner{Name: "flink", Endpoint: services.Need(t, services.Flink), Environment: "LOOPBACK",
		Parallelism: 2}
	r, err := verify.Run(t.Context(), parse(t, strings.Replace(text, "verify: {", "verify: {sinks: [lake], ", 1)),
		flink, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := wrong(r, "lake"); got != faults {
		t.Errorf("on Flink: %q, want %q\n%+v", got, faults, r.Sinks["lake"])
	}
	var more strings.Builder
	for range 2 {
		more.WriteString(`{"asset_type": "image", "bucket": "2024-05", "id": "11111111-1111-11ee-8000-010000000001", "title": "twice", "_meta": {"version": 1900000000000000}}` + "\n")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "feed.jsonl"), []byte(more.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, strings.Replace(fmt.Sprintf(upsertFeed, s.dir), "mode: upsert", "mode: append", 1),
		nil); err != nil {
		t.Fatal(err)
	}
	expect("1 missing, 2 extra, 1 stale, 1 newer, 1 double", "1 missing, 1 stale")

	flink.Environment = "EXTERNAL"
	if _, err := verify.Run(t.Context(), parse(t, text), flink,
		verify.Options{}); fail.CodeOf(err) != "verify.one_process" {
		t.Errorf("workers elsewhere: %v", err)
	}
}
