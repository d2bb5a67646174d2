package soak

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/corpusio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/runners/corpus"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// mainJob is the main job: one scan of assets into four systems.
const mainJob = `
name: main-job
source:
  cassandra:
    connection: {hosts: ["%[1]s"]}
    keyspace: %[2]s
    table: assets
    buckets: {table: asset_buckets}
    page: %[8]s
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
  copied:
    transforms:
      - project: {drop: [format, licence_expired]}
    cassandra:
      connection: {hosts: ["%[1]s"]}
      keyspace: %[2]s
      table: %[6]s
dead_letters:
  files: {path: %[3]s/dead}
journal: %[7]s
`

var sinks = []string{"copied", "events", "lake", "search"}

// target is where one run of the main job writes.
type target struct {
	cassandra, search, kafka, keyspace, dir, name string
	journal                                       *store
}

// settings are what changes with each attempt at a run.
type settings struct {
	Readers    int
	SplitRows  int
	Unfinished int // rows
	ReadAhead  string
	Page       string
	Rate       int // rows a second
	Flink      int // its parallelism; 0: Prism
}

func draw(r *rand.Rand) settings {
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	return settings{Readers: 1 + r.IntN(8), SplitRows: pick(300, 1000, 5000), Unfinished: pick(400, 1000, 2000),
		ReadAhead: fmt.Sprint(pick(2, 8, 32)) + "MiB",
		Page:      fmt.Sprint(pick(64, 256, 1024)) + "KiB", Rate: pick(3000, 6000, 12000)}
}

// command gives what that begins the run, or goes on with it.
func (at target) command(t *testing.T, s settings, begun bool) []string {
	t.Helper()
	where, err := json.Marshal(at.journal.Config)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(mainJob, at.cassandra, at.keyspace, at.dir, at.search, at.kafka, at.name, where, s.Page) +
		fmt.Sprintf("limits: {readers: %d, split_rows: %d, unfinished: \"%d\", read_ahead: %s}\n", s.Readers,
			s.SplitRows, s.Unfinished, s.ReadAhead) +
		fmt.Sprintf("pace: {rates: {source: {records: %d}}}\n", s.Rate)
	file := filepath.Join(at.dir, "job.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", file}
	if begun {
		args = []string{"resume", "last", "--job", file}
	}
	if s.Flink > 0 {
		args = append(args, "--runner", "flink", "--endpoint", services.Need(t, services.Flink), "--parallelism",
			fmt.Sprint(s.Flink))
	}
	return args
}

// report is what the run says of itself, without what may differ from another run's.
func (at target) report(t *testing.T) (r flow.Report) {
	t.Helper()
	if err := json.Unmarshal(look(t, at.journal).Report, &r); err != nil {
		t.Fatal(err)
	}
	r.Run, r.Attempt, r.Splits = "", 0, 0
	return r
}

// moments are those of an attempt, counted from its start. 0: it did not get there.
type moments struct {
	begun time.Duration // the attempt is in the journal
	first time.Duration // the first page is finished
	all   time.Duration // everything is finished, and is to be committed
	end   time.Duration
}

// aim is a moment for a kill: some time after something has come about.
type aim struct {
	at    string // start, plan, page, commit
	after time.Duration
}

// watch follows an attempt until it ends, or is killed as the aim says; nil: it is left alone.
func (at target) watch(t *testing.T, c *child, before state, total int64, a *aim) (m moments, killed bool) {
	t.Helper()
	const often = 20 * time.Millisecond
	var due time.Time
	if a != nil && a.at == "start" {
		due = c.began.Add(a.after)
	}
	for {
		pause := often
		if !due.IsZero() {
			pause = min(often, max(0, time.Until(due)))
		}
		select {
		case <-c.ended:
			c.wait(t)
			m.end = time.Since(c.began)
			return m, false
		case <-time.After(pause):
		}
		if !due.IsZero() && time.Now().After(due) {
			return m, c.kill(t)
		}
		now := look(t, at.journal, sinks...)
		reached := func(moment *time.Duration, yes bool) {
			if yes && *moment == 0 {
				*moment = time.Since(c.began)
			}
		}
		reached(&m.begun, now.Attempt > before.Attempt)
		reached(&m.first, now.least > before.least)
		reached(&m.all, now.least == total && now.Attempt > before.Attempt)
		if a != nil && due.IsZero() && (a.at == "plan" && now.ID != "" || a.at == "page" && m.first > 0 ||
			a.at == "commit" && m.all > 0) {
			due = time.Now().Add(a.after)
		}
	}
}

// phase says what a killed attempt was at.
func phase(before, after state, total int64) string {
	switch {
	case after.State == journal.Complete:
		return "after the end"
	case after.ID == "":
		return "before the run"
	case !after.planned:
		return "planning"
	case after.Attempt == before.Attempt:
		return "starting"
	case after.least == total:
		return "committing"
	case after.least == before.least:
		return "opening"
	}
	return "reading"
}

const killsOfRound = 10 // of one run

// TestKills kills runs of the main job at random moments, on Prism and on Flink, with a journal in a file or, for every
// other run, in a keyspace, and lets each go on with other settings. In the end everything is as after a run that
// nobody disturbed.
func TestKills(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	at := target{cassandra: services.Need(t, services.Cassandra), search: services.Need(t, services.Elasticsearch),
		kafka: services.Need(t, services.Kafka), keyspace: services.Name(t)}
	source := corpusio.SourceConfig{Rows: *rows}
	if _, err := (corpus.Corpus{Connection: cassandraio.Connection{Hosts: []string{at.cassandra}},
		Keyspace: at.keyspace, Source: source,
		Journal: filepath.Join(t.TempDir(), "load.db")}).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	total := int64(len(corpusio.NewModel(source).Rows))

	calm := at.fresh(t, false)
	usual, _ := calm.watch(t,
		start(t, calm.dir, calm.command(t, settings{Readers: 4, SplitRows: 5000, Unfinished: 2000, ReadAhead: "32MiB",
			Page: "1MiB", Rate: 12000}, false)...),
		state{}, total, nil)
	want, wantReport := calm.readAll(t), calm.report(t)
	if want.repeats > 0 || wantReport.Read != total || wantReport.DeadLetters == 0 ||
		wantReport.Sinks["search"].Outcomes[record.Filtered] == 0 {
		t.Fatalf("the undisturbed run is not what it should be: %d messages repeated, of %d rows %+v", want.repeats,
			total, wantReport)
	}
	t.Logf("undisturbed: %d rows, attempt after %v, first page %v, all finished %v, end %v", total, usual.begun,
		usual.first, usual.all, usual.end)

	s := statistics{phases: map[string]int{}}
	for keyspace := random.IntN(2) == 0; s.kills < *kills; keyspace = !keyspace {
		r := round{target: at.fresh(t, keyspace), random: random, usual: usual, total: total, statistics: &s}
		t.Logf("journal in a keyspace: %t", keyspace)
		r.run(t, min(killsOfRound, *kills-s.kills))
		got := r.readAll(t)
		compare(t, "Iceberg", want.lake, got.lake)
		compare(t, "Elasticsearch", want.search, got.search)
		compare(t, "Kafka", want.events, got.events)
		compare(t, "Cassandra", want.copied, got.copied)
		compare(t, "dead letters", want.letters, got.letters)
		if diff := cmp.Diff(wantReport, r.report(t)); diff != "" {
			t.Errorf("sums differ from those of the undisturbed run: %s", diff)
		}
		t.Logf("%d of %d messages repeated", got.repeats, len(got.events))
		if t.Failed() {
			t.Fatalf("the run's files are in %s", r.keep())
		}
	}
	s.log(t)
}
