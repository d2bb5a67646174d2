package outage

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"reprise/io/corpusio"
	"reprise/runners/faults"
	"reprise/runners/services"
)

// alone is a job without servers, but for those of further sinks.
const alone = `
name: alone
source: {corpus: {rows: %d}}
sinks: {lines: {files: {path: lines}}%s}
dead_letters: {files: {path: dead}}
limits: {unfinished: "500"}
pace: {rates: {source: {records: 2000}}%s}
journal: {sqlite: journal.db}
`

func newAlone(t *testing.T, rows int, sinks, pace string) *run {
	total := 0
	for row := range corpusio.Rows(corpusio.SourceConfig{Rows: int64(rows)}) {
		if total++; row.Deletion != nil {
			total++
		}
	}
	r := newRun(t, total)
	if err := os.WriteFile(filepath.Join(r.dir, "job.yaml"), fmt.Appendf(nil, alone, rows, sinks, pace),
		0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestJournalGone deletes the journal under a run: it does not go on blindly.
func TestJournalGone(t *testing.T) {
	t.Parallel()
	r := newAlone(t, 20_000, "", "")
	r.start("run", "job.yaml")
	r.reach(0.05)
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(r.dir, "journal.db"+end)); err != nil {
			t.Fatal(err)
		}
	}
	if said := r.end(1); !strings.Contains(said, "journal.gone") {
		t.Errorf("it says\n%s", said)
	}
}

// TestProduction lets production suffer and recover: the run holds within two seconds, tells why, and goes on.
func TestProduction(t *testing.T) {
	t.Parallel()
	var p99 atomic.Value // as Prometheus writes numbers
	p99.Store("0.01")
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/api/v1/query" || q.FormValue("query") != "p99" {
			http.NotFound(w, q)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"%s"]}]}}`,
			time.Now().Unix(), p99.Load())
	}))
	defer prometheus.Close()
	const rows = 4000
	r := newAlone(t, rows, "", fmt.Sprintf(`, probe: {prometheus: {url: "%s", query: p99}, bound: 50ms, every: 500ms}`,
		prometheus.URL))
	r.start("run", "job.yaml")
	r.reach(0.05)
	p99.Store("3")
	suffers := time.Now()
	r.until("a pause", func(s state) bool { return strings.HasPrefix(s.waiting(), "paused: production is too slow") })
	t.Logf("paused after %s", time.Since(suffers).Round(10*time.Millisecond))
	time.Sleep(time.Until(suffers.Add(2 * time.Second)))
	const why = "paused: production is too slow: the probe's query is 3, bound 0.05"
	status, out := r.command(t.Context(), "status", "last", "--journal", "journal.db")
	if err := status.Run(); err != nil || !bytes.Contains(out.Bytes(), []byte(why)) {
		t.Errorf("the status does not say %q: %v\n%s", why, err, out)
	}
	held := r.look()
	time.Sleep(2 * time.Second)
	if now := r.look(); now.done[""] != held.done[""] || now.gauge("source").Records != held.gauge("source").Records {
		t.Errorf("it goes on while production suffers: %+v, then %+v", held.beats, now.beats)
	}
	p99.Store("0.01")
	r.until("an end of the pause",
		func(s state) bool { return s.waiting() == "" && s.done[""].Read > held.done[""].Read })
	// It comes back to its full speed slowly.
	if stop, out := r.command(t.Context(), "stop", "last", "--journal", "journal.db"); stop.Run() != nil {
		t.Error(out)
	}
	r.end(130)
}

// TestSilent holds up what goes to a broker and comes from it: the status tells what is waited for long before the
// client gives up, and the run goes on as soon as the broker answers.
func TestSilent(t *testing.T) {
	t.Parallel()
	kafka := services.Own(t, services.Kafka, services.Env("KAFKA_PROXY=1"))
	// where Kafka tells its clients to connect
	proxy := faults.At(t, fmt.Sprintf("127.0.0.1:%d", kafka.Port+3), fmt.Sprintf("127.0.0.1:%d", kafka.Port+2))
	r := newAlone(t, 8000, fmt.Sprintf(`, events: {kafka: {brokers: ["%s"], topic: silent, create: {partitions: 2}}}`,
		proxy.Addr), "")
	r.start("run", "job.yaml")
	r.until("enough sent", func(s state) bool { return s.done["events"].Read > 0 })
	proxy.Hold()
	const why = "no answer from events for "
	r.until("a word on it", func(s state) bool { return strings.HasPrefix(s.waiting(), why) })
	status, out := r.command(t.Context(), "status", "last", "--journal", "journal.db")
	if err := status.Run(); err != nil || !bytes.Contains(out.Bytes(), []byte("waiting: "+why)) {
		t.Errorf("the status does not say %q: %v\n%s", why, err, out)
	}
	held := r.look()
	proxy.Pass()
	r.until("an end of the silence",
		func(s state) bool { return s.waiting() == "" && s.done["events"].Read > held.done["events"].Read })
	r.end(0)
}
