package outage

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/runners/corpus"
	"reprise/runners/faults"
	"reprise/runners/services"
)

// server is a server of the test's own; runs reach it through a proxy, the test reads it without.
type server struct {
	*services.Instance
	proxy *faults.Proxy
}

// fleet is what the runs of the test read and write.
type fleet struct {
	calm     string            // a Cassandra with the corpus that nobody disturbs
	keyspace string            // of the corpus, in both
	rows     map[string]string // of the corpus: title and version by key
	servers  map[string]*server
}

// systems are the servers that are disturbed. What they are to a run: cassandra is its source or the sink copied,
// catalog and store are of the sink lake.
var systems = []string{"cassandra", "search", "events", "catalog", "store"}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{calm: services.Need(t, services.Cassandra), keyspace: services.Name(t), rows: map[string]string{},
		servers: map[string]*server{}}
	var mu sync.Mutex
	start := func(name string, s services.Service, options ...services.Option) *server {
		started := &server{Instance: services.Own(t, s, options...)}
		if name == "events" {
			// Kafka tells its clients to connect here.
			host := func(offset int) string { return fmt.Sprintf("127.0.0.1:%d", started.Port+offset) }
			started.proxy = faults.At(t, host(3), host(2))
		} else {
			started.proxy = faults.New(t, started.Addr)
		}
		mu.Lock()
		defer mu.Unlock()
		f.servers[name] = started
		return started
	}
	var all sync.WaitGroup
	all.Go(func() { start("cassandra", services.Cassandra, services.Env("CASSANDRA_SYNC=1")) })
	// A short queue is full with two requests at once.
	all.Go(func() {
		search := start("search", services.Elasticsearch,
			services.Env("ELASTICSEARCH_SETTINGS=thread_pool.write: {size: 1, queue_size: 1}"))
		warm(t, "http://"+search.Addr+"/first")
	})
	all.Go(func() { start("events", services.Kafka, services.Env("KAFKA_PROXY=1")) })
	all.Go(func() {
		store := start("store", services.S3)
		start("catalog", services.IcebergREST,
			services.Env("ICEBERG_WAREHOUSE=s3://warehouse/tables", "ICEBERG_S3=http://"+store.Addr))
	})
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	source := corpusio.SourceConfig{Rows: *rows}
	for row := range corpusio.Rows(source) {
		if r := row.Record; row.Deletion == nil {
			f.rows[r.KeyText()] = held(r.Get("title").Str(), r.Version)
		}
	}
	for _, host := range []string{f.calm, f.servers["cassandra"].Addr} {
		if _, err := (corpus.Corpus{Connection: cassandraio.Connection{Hosts: []string{host}}, Keyspace: f.keyspace,
			Source:  source,
			Journal: filepath.Join(t.TempDir(), "load.db")}).Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// warm makes an index: the first one of a fresh server may take longer than the runs wait for an answer.
func warm(t *testing.T, index string) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, index, nil)
	if err != nil {
		t.Error(err)
		return
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", index, answer.Status)
	}
}

// held is what stands for a record.
func held(title string, version int64) string { return fmt.Sprintf("%s@%d", title, version) }

// job is a job of a scenario. It reads slowly enough to be disturbed.
const job = `
name: outage
source:
  cassandra:
    connection: {hosts: ["$SOURCE"], timeout: 4s, connect_timeout: 4s}
    keyspace: $KEYSPACE
    table: assets
    buckets: {table: asset_buckets}
    page: 64KiB
transforms:
  - project: {keep: [asset_type, bucket, id, title, created_at]}
sinks:
$SINKSdead_letters: {files: {path: dead}}
limits: {split_rows: 400, readers: 3, unfinished: "500"}
pace: {rates: {source: {records: $RATE}}, outage: $OUTAGE, adaptive: {off: $STEADY}}
journal: {sqlite: journal.db}
`

// sinks are those of the job, by name.
var sinks = map[string]string{
	"lines":  `files: {path: lines, meta: true, file_size: 100KiB}`,
	"search": `elasticsearch: {urls: ["http://$SEARCH"], index: $NAME, timeout: 4s, connect_timeout: 2s, batch: {rows: $BATCH}, create: {}}`,
	"events": `kafka: {brokers: ["$EVENTS"], topic: $NAME, create: {partitions: 2}, batch: {rows: 100}}`,
	"copied": `cassandra: {connection: {hosts: ["$CASSANDRA"], timeout: 4s, connect_timeout: 4s}, keyspace: $KEYSPACE, table: $NAME,
      create: true, partition_key: [asset_type, bucket], clustering: [id]}`,
	"lake": `iceberg: {catalog: {rest: "http://$CATALOG"}, table: outage.$NAME, create: true, row_group: 1MiB,
      s3: {endpoint: "http://$STORE", region: us-east-1, access_key: "env:OUTAGE_ACCESS", secret_key: "env:OUTAGE_SECRET"}}`,
}

// write writes the job file of a run.
func (f *fleet) job(r *run, s scenario) string {
	var text strings.Builder
	for _, name := range s.sinks {
		fmt.Fprintf(&text, "  %s:\n    %s\n", name, sinks[name])
	}
	source := f.calm
	if s.reads {
		source = f.servers["cassandra"].proxy.Addr
	}
	outage := s.outage
	if outage == 0 {
		outage = 5 * time.Minute // what comes back is waited for
	}
	values := []string{"$SINKS", text.String(), "$SOURCE", source, "$KEYSPACE", f.keyspace, "$OUTAGE", outage.String(),
		"$NAME", r.name,
		"$RATE", "0", "$BATCH", "20", "$STEADY", "false"}
	if !s.overload {
		values = append([]string{"$RATE", fmt.Sprint(*rows / seconds), "$BATCH", "100", "$STEADY", "true"}, values...)
	}
	for name, server := range f.servers {
		values = append(values, "$"+strings.ToUpper(name), server.proxy.Addr)
	}
	replace := strings.NewReplacer(values...)
	return replace.Replace(replace.Replace(job)) // what replaces holds names, too
}
