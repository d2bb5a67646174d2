package launch_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/corpus"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/record"
)

func TestMain(m *testing.M) {
	launch.Init(os.Args[1:])
	verifyAsChild()
	purgeAsChild()
	os.Exit(m.Run())
}

const assets = 4000

// mainJob is the job of `make demo`, with targets of the test's own.
const mainJob = `
name: main-job
source:
  cassandra:
    connection: {hosts: ["%[1]s"]}
    keyspace: %[2]s
    table: assets
    buckets: {table: asset_buckets}
transforms:
  - derive:
      format: string(json(payload)[?"format"].orValue("unknown"))
      licence_expired: has(licence.expires) && licence.expires < now
sinks:
  lake:
    iceberg:
      catalog: {sqlite: %[3]s/catalog.db, warehouse: %[3]s/warehouse}
      table: media.assets
      create: true
  search:
    when: "!licence_expired"
    elasticsearch:
      urls: ["http://%[4]s"]
      index: %[6]s
      exclude: [thumbnail, embedding]
      create: {}
  events:
    transforms:
      - project: {keep: [asset_type, bucket, id, title, licence_expired]}
    kafka:
      brokers: ["%[5]s"]
      topic: %[6]s
      create: {partitions: 3}
dead_letters:
  files: {path: %[3]s/dead}
limits: {split_rows: 300, dead_letters: 5%%}
journal: {sqlite: "%[3]s/journal.db"}
`

// target is where one run of the main job writes.
type target struct{ dir, name string }

// TestMainJob copies a corpus from a real Cassandra into Iceberg, Elasticsearch and Kafka in one scan, on Prism and on
// Flink, and compares what other programs read there with the rows that gocql reads in Cassandra.
func TestMainJob(t *testing.T) {
	cassandra := services.Need(t, services.Cassandra)
	search, kafka := services.Need(t, services.Elasticsearch), services.Need(t, services.Kafka)
	keyspace := services.Name(t)
	source := corpusio.SourceConfig{Rows: assets}
	loaded, err := corpus.Corpus{Connection: cassandraio.Connection{Hosts: []string{cassandra}}, Keyspace: keyspace,
		Source:  source,
		Journal: filepath.Join(t.TempDir(), "load.db")}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := cassandraRows(t, cassandra, keyspace)
	model := corpusio.NewModel(source)
	if len(want) != len(model.Rows) || loaded.DeadLetters != 0 {
		t.Fatalf("Cassandra holds %d rows of %d, %d dead letters", len(want), len(model.Rows), loaded.DeadLetters)
	}

	reports := map[string]*flow.Report{}
	for _, runner := range []launch.Runner{
		{Name: "prism"},
		{Name: "flink", Endpoint: services.Need(t, services.Flink), Environment: "LOOPBACK", Parallelism: 2},
	} {
		t.Run(runner.Name, func(t *testing.T) {
			at := target{dir: t.TempDir(), name: services.Name(t)}
			j, err := job.Parse("job.yaml", fmt.Appendf(nil, mainJob, cassandra, keyspace, at.dir, search, kafka,
				at.name))
			if err != nil {
				t.Fatal(err)
			}
			p, err := runs.Prepare(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			report, err := runner.Execute(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Faults) > 0 {
				t.Fatalf("the run does not balance: %q", report.Faults)
			}
			reports[runner.Name] = report
			compareTargets(t, at, search, kafka, want, model, report)
		})
	}
	if t.Failed() {
		return
	}
	prism, flink := reports["prism"], reports["flink"]
	prism.Run, flink.Run = "", ""
	if diff := cmp.Diff(prism, flink); diff != "" {
		t.Errorf("Prism and Flink count differently: %s", diff)
	}
}

// row is what the test compares of an asset.
type row struct {
	Title   string
	Size    int64
	Version int64
}

// plainSession is a plain session in a keyspace of the test's own, which it makes where it is not there and which is
// dropped with the test.
func plainSession(t *testing.T, addr, keyspace string) *gocql.Session {
	t.Helper()
	cluster := gocql.NewCluster(addr)
	cluster.ProtoVersion, cluster.Timeout = 4, time.Minute
	connect := func() *gocql.Session {
		t.Helper()
		session, err := cluster.CreateSession()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(session.Close)
		return session
	}
	admin := connect()
	if err := admin.Query("CREATE KEYSPACE IF NOT EXISTS " + keyspace +
		" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").Exec(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Query("DROP KEYSPACE " + keyspace).Exec(); err != nil {
			t.Error(err)
		}
	})
	cluster.Keyspace = keyspace
	return connect()
}

// cassandraRows reads the table with plain gocql.
func cassandraRows(t *testing.T, addr, keyspace string) map[string]row {
	t.Helper()
	session := plainSession(t, addr, keyspace)
	rows := map[string]row{}
	var kind, bucket string
	var id gocql.UUID
	var r row
	all := session.Query("SELECT asset_type, bucket, id, title, size, WRITETIME(schema_version) FROM assets").Iter()
	for all.Scan(&kind, &bucket, &id, &r.Title, &r.Size, &r.Version) {
		rows[kind+"|"+bucket+"|"+id.String()] = r
		r = row{}
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func compareTargets(t *testing.T, at target, search, kafka string, want map[string]row, model corpusio.Model,
	report *flow.Report) {
	t.Helper()
	good := map[string]row{}
	for key, r := range want {
		if !model.Malformed[key] {
			good[key] = r
		}
	}
	lake := icebergRows(t, at)
	if diff := cmp.Diff(good, lake); diff != "" {
		t.Errorf("Iceberg differs from Cassandra: %.2000s", diff)
	}
	docs := elasticsearchRows(t, search, at.name)
	events, expired := kafkaRows(t, kafka, at.name)
	for key, r := range good {
		if e, ok := events[key]; !ok || e != (row{Title: r.Title, Version: r.Version}) {
			t.Fatalf("Kafka has %+v for %s, Cassandra %+v", e, key, r)
		}
		if d, ok := docs[key]; ok == expired[key] || ok && d != r {
			t.Fatalf("Elasticsearch has %+v (%v) for %s, whose licence has expired: %v; Cassandra %+v", d, ok, key,
				expired[key], r)
		}
	}
	if len(events) != len(good) {
		t.Errorf("Kafka has %d keys, want %d", len(events), len(good))
	}
	dead := deadKeys(t, at)
	for key := range model.Malformed {
		if !dead[key] {
			t.Errorf("%s is malformed, but no dead letter", key)
		}
	}

	// The sums are those of what is there.
	n, malformed, gone := int64(len(good)), int64(len(model.Malformed)), int64(len(good)-len(docs))
	newest := func(rows map[string]row) (version int64) {
		for _, r := range rows {
			version = max(version, r.Version)
		}
		return version
	}
	wantSums := map[string]flow.SinkReport{
		"lake": {Read: n + malformed, Outcomes: record.Counts{record.Written: n, record.Dead: malformed},
			Newest: newest(good), Committed: &n},
		"events": {Read: n + malformed, Outcomes: record.Counts{record.Written: n, record.Dead: malformed},
			Newest: newest(good)},
		"search": {Read: n + malformed, Outcomes: record.Counts{record.Written: n - gone, record.Filtered: gone,
			record.Dead: malformed}, Newest: newest(docs)},
	}
	if diff := cmp.Diff(wantSums, report.Sinks); diff != "" {
		t.Errorf("the report tells other sums than the targets: %s", diff)
	}
	if malformed == 0 || gone == 0 || report.DeadLetters != malformed {
		t.Errorf("%d malformed, %d expired, %d dead letters: the test shows nothing, or the sum is wrong", malformed,
			gone, report.DeadLetters)
	}
}

// icebergRows reads the table with Iceberg's own library.
func icebergRows(t *testing.T, at target) map[string]row {
	t.Helper()
	rows := map[string]row{}
	for _, line := range services.ReadIceberg(t, services.IcebergTable{Catalog: at.dir + "/catalog.db",
		Table: "media.assets"}) {
		var r struct {
			Kind    string `json:"asset_type"`
			Bucket  string `json:"bucket"`
			ID      string `json:"id"`
			Title   string `json:"title"`
			Size    int64  `json:"size"`
			Version int64  `json:"_version"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		key := r.Kind + "|" + r.Bucket + "|" + r.ID
		if _, twice := rows[key]; twice {
			t.Errorf("%s is twice in Iceberg", key)
		}
		rows[key] = row{r.Title, r.Size, r.Version}
	}
	return rows
}

// elasticsearchRows reads the index by the server's own search.
func elasticsearchRows(t *testing.T, addr, index string) map[string]row {
	t.Helper()
	get := func(path string, into any) {
		t.Helper()
		resp, err := http.Get("http://" + addr + "/" + index + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
	}
	var count struct{ Count int }
	var found struct {
		Hits struct {
			Hits []struct {
				ID      string `json:"_id"`
				Version int64  `json:"_version"`
				Source  struct {
					Title string `json:"title"`
					Size  int64  `json:"size"`
				} `json:"_source"`
			}
		}
	}
	get("/_refresh", &struct{}{})
	get("/_count", &count)
	get("/_search?size=10000&version=true", &found)
	rows := map[string]row{}
	for _, h := range found.Hits.Hits {
		rows[h.ID] = row{h.Source.Title, h.Source.Size, h.Version}
	}
	if count.Count != len(rows) {
		t.Errorf("Elasticsearch counts %d documents, and finds %d", count.Count, len(rows))
	}
	return rows
}

// kafkaRows reads the topic with Kafka's own consumer: the title and version of each key, and which licences have
// expired.
func kafkaRows(t *testing.T, addr, topic string) (rows map[string]row, expired map[string]bool) {
	t.Helper()
	rows, expired = map[string]row{}, map[string]bool{}
	for _, m := range services.ConsumeKafka(t, addr, topic) {
		var v struct {
			Title   string `json:"title"`
			Expired bool   `json:"licence_expired"`
		}
		if err := json.Unmarshal(m.Value, &v); err != nil {
			t.Fatalf("%s: %v", m.Value, err)
		}
		version, err := strconv.ParseInt(m.Headers["version"], 10, 64)
		if err != nil {
			t.Fatalf("headers %v: %v", m.Headers, err)
		}
		rows[string(m.Key)] = row{Title: v.Title, Version: version}
		expired[string(m.Key)] = v.Expired
	}
	return rows, expired
}

// deadKeys reads the dead letters.
func deadKeys(t *testing.T, at target) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(at.dir + "/dead/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			var l struct{ Key, Step, Code, Class string }
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if l.Step != "transforms.0.derive" || l.Code != "transform.expression" || l.Class != "permanent" {
				t.Errorf("dead letter %+v", l)
			}
			keys[l.Key] = true
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}
