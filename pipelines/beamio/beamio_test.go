package beamio

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/util/reflectx"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"
	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/corpusio"
	"reprise/io/deadletter"
	"reprise/io/fileio"
	"reprise/io/iotest"
	_ "reprise/io/kafkaio"
	"reprise/pipelines/travel"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func TestMain(m *testing.M) {
	flag.Parse()
	beam.Init()
	os.Exit(m.Run())
}

func init() {
	register.Function2x1(outcomeOf)
	register.Function1x1(stepOf)
	register.Function1x1(versionOf)
	register.Function2x1(countOf)
}

func outcomeOf(outcome string, _ *record.Record) string { return outcome }

func versionOf(r *record.Record) int64 { return r.Version / int64(24*time.Hour/time.Microsecond) }

func countOf(day int64, n int) string { return fmt.Sprint(day, " ", n) }

func stepOf(l *record.DeadLetter) string { return l.Step }

// panics panics at some records of the corpus.
var panics = Func("test_panics", "Panics at odd sizes.", func(r *record.Record) error {
	if r.Get("size").Int()%2 == 1 {
		panic("odd")
	}
	return nil
})

const assets = 3000

// opAndKey tells apart what the corpus has of a key: a row, and often its delete.
func opAndKey(r *record.Record) string { return r.Op.String() + " " + r.KeyText() }

// keys are the operations and keys that files hold, and how often.
func keys(t *testing.T, folder string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, line := range lines(t, folder) {
		var row struct {
			Meta struct{ Key, Op string } `json:"_meta"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		found[row.Meta.Op+" "+row.Meta.Key]++
	}
	return found
}

func lines(t *testing.T, folder string) (all []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".jsonl") {
			t.Errorf("%s is left behind", name)
		}
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(file)
		scan.Buffer(nil, 64<<20)
		for scan.Scan() {
			all = append(all, scan.Text())
		}
		if err := scan.Err(); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	return all
}

// letters are the dead letters of a queue.
func letters(t *testing.T, folder string) (all []*record.DeadLetter) {
	t.Helper()
	source := fileio.NewSource(fileio.SourceConfig{Path: filepath.Join(folder, "*"), Key: []string{"id"},
		Fields: deadletter.Schema().Fields}, connector.Need{})
	err := source.Plan(t.Context(), connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(t.Context(), s, func(p connector.Page) error {
			for _, r := range p.Records {
				l, err := deadletter.FromRecord(r)
				if err != nil {
					return err
				}
				all = append(all, l)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copied is the pipeline that copies the corpus into files, with a transform that panics.
func copied(dir string, bundles int) *beam.Pipeline {
	p, s := beam.NewPipelineWithRoot()
	records, unread := Read(s, Source{Kind: "corpus", Config: corpusio.SourceConfig{Rows: assets}, SplitRows: 100,
		Bundles: bundles})
	applied, failed := Apply(s, records, Transform("filter", "size == null || size % 3 != 0"), panics)
	_, refused := Write(s, applied, files(dir, "out"))
	DeadLetters(s, files(dir, "dead"), unread, failed, refused)
	return p
}

func files(path ...string) Sink {
	return Sink{Kind: "files", Config: fileio.SinkConfig{Path: filepath.Join(path...), Meta: true}}
}

// everythingOnce checks what the pipeline of copied has left.
func everythingOnce(t *testing.T, dir string) {
	t.Helper()
	written := keys(t, filepath.Join(dir, "out"))
	dead := map[string]int{}
	for _, l := range letters(t, filepath.Join(dir, "dead")) {
		if l.Run == "" || l.Split == "" || l.At == 0 || l.Attempts != 1 {
			t.Errorf("a dead letter lacks something: %+v", l)
		}
		switch {
		case l.Step == stepSource:
		case l.Step == "transforms.1.test_panics" && l.Code == "transform.panic" && l.Record.Get("size").Int()%2 == 1:
			dead[opAndKey(l.Record)]++
		default:
			t.Fatalf("an unexpected dead letter: %+v", l)
		}
	}
	n := 0
	source := corpusio.NewSource(corpusio.SourceConfig{Rows: assets}, connector.Need{})
	page := func(p connector.Page) error {
		for _, r := range p.Records {
			n++
			key, size := opAndKey(r), r.Get("size")
			want := [2]int{}
			switch {
			case !size.IsNull() && size.Int()%3 == 0:
			case !size.IsNull() && size.Int()%2 == 1:
				want[1] = 1
			default:
				want[0] = 1
			}
			if got := [2]int{written[key], dead[key]}; got != want {
				t.Errorf("%s of size %d was written and dead %v times, not %v", key, size.Int(), got, want)
			}
			delete(written, key)
		}
		return nil
	}
	err := source.Plan(t.Context(), connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(t.Context(), s, page)
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < assets/2 || len(written) > 0 {
		t.Errorf("%d rows, and %d were written that are not there", n, len(written))
	}
}

// Everything that is read is written once, or left out by the filter, or a dead letter: with one bundle and with
// several.
func TestEverythingIsWrittenOnceOrADeadLetter(t *testing.T) {
	for _, bundles := range []int{1, 7} {
		t.Run(fmt.Sprint(bundles), func(t *testing.T) {
			dir := t.TempDir()
			ptest.RunAndValidate(t, copied(dir, bundles))
			everythingOnce(t, dir)
		})
	}
}

func TestEverythingIsWrittenOnceOnFlink(t *testing.T) {
	dir := t.TempDir()
	*jobopts.Endpoint, *jobopts.EnvironmentType, *jobopts.Parallelism = services.Need(t, services.Flink), "LOOPBACK", 2
	*jobopts.JobName = strings.ReplaceAll(services.Name(t), "_", "-")
	defer func() { *jobopts.Endpoint, *jobopts.EnvironmentType, *jobopts.Parallelism = "", "", -1 }()
	if _, err := universal.Execute(t.Context(), copied(dir, 8)); err != nil {
		t.Fatal(err)
	}
	everythingOnce(t, dir)
}

// Each step has its own dead letters, and the metrics tell the sums.
func TestDeadLettersNameTheirStep(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	text := strings.Join([]string{`{"id": "a", "n": "1"}`, `{"id": "b", "n": "x"}`, `no JSON`, `{"id": null, "n": "2"}`,
		`{"id": "c", "n": "3"}`, ``}, "\n")
	if err := os.WriteFile(in, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, s := beam.NewPipelineWithRoot()
	records, unread := Read(s, Source{Kind: "files", Config: map[string]any{"path": in, "key": []string{"id"},
		"fields": map[string]string{"id": "text", "n": "text"}}})
	cast, failed := Apply(s, records, Transform("cast", map[string]string{"n": "int"}))
	deletes, none := Apply(s, cast, Transform("delete", "n == 3"))
	passert.Empty(s, none)
	outcomes, refused := Write(s, deletes, Sink{Kind: "files", Name: "lake",
		Config: fileio.SinkConfig{Path: filepath.Join(dir, "out"), Format: "parquet"}})
	steps := beam.ParDo(s, stepOf, beam.Flatten(s, unread, failed, refused))
	passert.EqualsList(s, steps, []string{"source", "source", "transforms.0.cast", "sink lake"})
	passert.EqualsList(s, beam.ParDo(s, outcomeOf, outcomes), []string{"written"})
	result, err := ptest.RunWithMetrics(p)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, c := range result.Metrics().AllMetrics().Counters() {
		if c.Key.Namespace == "reprise" && c.Result() != 0 {
			got[c.Key.Name] += c.Result()
		}
	}
	if diff := cmp.Diff(map[string]int64{"read": 5, "dead": 4, "written": 1, "committed": 1}, got); diff != "" {
		t.Error(diff)
	}
}

// A tracker splits the work while it is read, at every page there is: nothing is lost or read twice.
func TestADynamicSplitLosesAndDoublesNothing(t *testing.T) {
	const rows = 60
	memory := iotest.NewMemory()
	memory.PageRows = 3
	memory.Load(iotest.Records(iotest.AssetSchema(), 0, rows, iotest.Base)...)
	source := memory.Source()
	var whole travel.Work
	err := source.Plan(t.Context(), connector.PlanOptions{Rows: 10}, func(s connector.Split) error {
		whole.Splits = append(whole.Splits, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fraction := range []float64{0, 0.5, 0.9} {
		for at := range rows {
			seen := map[string]int{}
			left := []travel.Work{whole}
			read := &readFn{Readers: 3, Ahead: 1 << 20, source: source}
			for splits := 0; len(left) > 0; {
				tracker := read.CreateTracker(left[0])
				left = left[1:]
				n := 0
				emit := func(_ beam.EventTime, r *record.Record) {
					if seen[r.KeyText()]++; n == at && splits < 5 {
						splits++
						_, residual, err := tracker.TrySplit(fraction)
						if err != nil {
							t.Fatal(err)
						}
						if w, ok := residual.(travel.Work); ok {
							left = append(left, w)
						}
					}
					n++
				}
				dead := func(*record.DeadLetter) { t.Error("a dead letter") }
				if err := read.ProcessElement(t.Context(), tracker, travel.Work{}, emit, dead); err != nil {
					t.Fatal(err)
				}
				if !tracker.IsDone() {
					t.Fatal("the tracker is not done")
				}
			}
			for key, n := range seen {
				if n != 1 {
					t.Errorf("fraction %v, record %d: %s was read %d times", fraction, at, key, n)
				}
			}
			if len(seen) != rows {
				t.Errorf("fraction %v, record %d: %d of %d rows were read", fraction, at, len(seen), rows)
			}
		}
	}
}

// Outcomes come back for each record, with its timestamp, also when the bundle is written again.
func TestOutcomesOfABundleThatIsWrittenAgain(t *testing.T) {
	memory := iotest.NewMemory()
	schema := iotest.AssetSchema()
	memory.Refuse = func(r *record.Record) error {
		if r.KeyText() == iotest.Record(schema, 7, 0).KeyText() {
			return fail.New(fail.Permanent, "test.refused", "not this one")
		}
		return nil
	}
	memory.Load(iotest.Records(schema, 0, 3, iotest.Base+5)...)
	fn := &writeFn{Writing: writing{Name: "memory"}, sink: memory.Sink(), ready: map[string]bool{}}
	for round, want := range []map[string]int{{"superseded": 3, "written": 246, "dead": 1},
		{"superseded": 3, "unchanged": 246, "dead": 1}} {
		got := map[string]int{}
		outcome := func(at beam.EventTime, o string, r *record.Record) {
			if got[o]++; at != mtime.Time(len(r.KeyText())) {
				t.Errorf("%s came back at %v", r.KeyText(), at)
			}
		}
		dead := func(_ beam.EventTime, l *record.DeadLetter) {
			if got["dead"]++; l.Step != "sink memory" || l.Sink != "memory" || l.Code != "test.refused" {
				t.Errorf("%+v", l)
			}
		}
		parts := func(part) { t.Error("a part of a sink that does not commit") }
		fn.StartBundle(t.Context(), outcome, dead, parts)
		for i, r := range iotest.Records(schema, 0, 250, iotest.Base) {
			before := *r
			at := mtime.Time(len(r.KeyText()))
			if err := fn.ProcessElement(t.Context(), at, r, outcome, dead, parts); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(before, *r) {
				t.Fatalf("record %d was changed", i)
			}
		}
		if err := fn.FinishBundle(t.Context(), outcome, dead, parts); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("round %d: %s", round, diff)
		}
	}
}

// A step that changes a record changes none that another step got.
func TestBranchesDoNotSeeEachOther(t *testing.T) {
	dir := t.TempDir()
	p, s := beam.NewPipelineWithRoot()
	records, _ := Read(s, Source{Kind: "corpus", Config: corpusio.SourceConfig{Rows: 200}})
	titled, _ := Apply(s, records, Transform("derive", map[string]string{"title": `"changed"`}))
	Write(s, titled, files(dir, "a"))
	Write(s, records, files(dir, "b"))
	ptest.RunAndValidate(t, p)
	changed := func(folder string) (n, all int) {
		for _, line := range lines(t, filepath.Join(dir, folder)) {
			if all++; strings.Contains(line, `"title":"changed"`) {
				n++
			}
		}
		return n, all
	}
	if n, all := changed("a"); n < all-5 || n == 0 { // the corpus has some deletes
		t.Errorf("%d of %d were changed where all rows should be", n, all)
	}
	if n, all := changed("b"); n != 0 || all == 0 {
		t.Errorf("%d of %d were changed where none should be", n, all)
	}
}

// Outcomes can be grouped by window again, whatever windows the records came in: they have their timestamps.
func TestOutcomesOfWindowedRecords(t *testing.T) {
	p, s := beam.NewPipelineWithRoot()
	records, _ := Read(s, Source{Kind: "corpus", Config: corpusio.SourceConfig{Rows: 300}})
	weeks := window.NewFixedWindows(7 * 24 * time.Hour)
	outcomes, _ := Write(s, beam.WindowInto(s, weeks, records), files(t.TempDir()))
	before := stats.Count(s, beam.WindowInto(s, weeks, beam.ParDo(s, versionOf, records)))
	after := stats.Count(s, beam.WindowInto(s, weeks, beam.ParDo(s, versionOf, beam.DropKey(s, outcomes))))
	global := func(counts beam.PCollection) beam.PCollection {
		return beam.ParDo(s, countOf, beam.WindowInto(s, window.NewGlobalWindows(), counts))
	}
	passert.Equals(s, global(after), global(before))
	ptest.RunAndValidate(t, p)
}

// The expiry and the write time of single cells go from table to table.
func TestCellsKeepTheirTimes(t *testing.T) {
	address, keyspace := services.Need(t, services.Cassandra), services.Name(t)
	cluster := gocql.NewCluster(address)
	cluster.ProtoVersion, cluster.Timeout = 4, time.Minute
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	do := func(cql string) {
		t.Helper()
		if err := session.Query(strings.ReplaceAll(cql, "KS", keyspace)).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	do("CREATE KEYSPACE KS WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
	defer do("DROP KEYSPACE KS")
	do("CREATE TABLE KS.a (id text PRIMARY KEY, title text, note text)")
	do("CREATE TABLE KS.b (id text PRIMARY KEY, title text, note text)")
	do("INSERT INTO KS.a (id, title) VALUES ('x', 'kept') USING TIMESTAMP 5000000")
	do("UPDATE KS.a USING TIMESTAMP 7000000 AND TTL 9000 SET note = 'passes' WHERE id = 'x'")

	p, s := beam.NewPipelineWithRoot()
	connection := cassandraio.Connection{Hosts: []string{address}}
	records, unread := Read(s, Source{Kind: "cassandra",
		Config: cassandraio.SourceConfig{Connection: connection, Keyspace: keyspace, Table: "a"}})
	_, refused := Write(s, records, Sink{Kind: "cassandra",
		Config: cassandraio.SinkConfig{Connection: connection, Keyspace: keyspace, Table: "b"}})
	passert.Empty(s, unread)
	passert.Empty(s, refused)
	ptest.RunAndValidate(t, p)

	var title, note int64
	var ttl *int
	cql := "SELECT WRITETIME(title), WRITETIME(note), TTL(note) FROM " + keyspace + ".b"
	if err := session.Query(cql).Scan(&title, &note, &ttl); err != nil {
		t.Fatal(err)
	}
	if title != 5000000 || note != 7000000 || ttl == nil || *ttl < 8000 {
		t.Errorf("written at %d and %d, expiring in %v", title, note, ttl)
	}
}

// A file that settings name is on this machine alone, so its content travels.
func TestFilesOfSettingsTravel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "index.json")
	if err := os.WriteFile(file, []byte(`{"mappings": {"properties": {"id": {"type": "keyword"}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _, err := travelling("elasticsearch", map[string]any{"urls": []string{"http://h:1"}, "index": "i",
		"create": map[string]string{"file": file}}, settings.sink)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(s.Config); strings.Contains(text, file) || !strings.Contains(text, "keyword") {
		t.Errorf("%s travels", text)
	}
}

// Wrong settings end the building of the graph, before anything runs.
func TestWrongSettingsAreRefusedAtOnce(t *testing.T) {
	corpus := func(config any) func(beam.Scope, beam.PCollection) {
		return func(s beam.Scope, _ beam.PCollection) { Read(s, Source{Kind: "corpus", Config: config}) }
	}
	load := map[string]any{"urls": []string{"http://h:1"}, "index": "i", "load": map[string]int{"replicas": 0}}
	for name, c := range map[string]struct {
		build func(s beam.Scope, in beam.PCollection)
		want  string
	}{
		"a setting that is not there": {corpus(map[string]int{"row": 1}), "row"},
		"a setting that is wrong":     {corpus(corpusio.SourceConfig{}), "corpus.rows"},
		"a kind that is not there": {func(s beam.Scope, _ beam.PCollection) {
			Read(s, Source{Kind: "floppy"})
		}, "floppy"},
		"a kind of the runner's own": {func(s beam.Scope, _ beam.PCollection) {
			Read(s, Source{Kind: "letters", Config: struct{}{}})
		}, "letters"},
		"a sink that is not there": {func(s beam.Scope, in beam.PCollection) {
			Write(s, in, Sink{Kind: "corpus"})
		}, "corpus"},
		"a setting of the runner's own": {func(s beam.Scope, in beam.PCollection) {
			Write(s, in, Sink{Kind: "elasticsearch", Config: load})
		}, "load"},
		"a transform that is not there": {func(s beam.Scope, in beam.PCollection) {
			Apply(s, in, Transform("filtre", "true"))
		}, "filtre"},
		"a queue of keys alone": {func(s beam.Scope, in beam.PCollection) {
			_, dead := Write(s, in, Sink{Kind: "files", Config: map[string]string{"path": t.TempDir()}})
			DeadLetters(s, Sink{Kind: "kafka", Config: map[string]any{"brokers": []string{"h:1"}, "topic": "dead",
				"value": "key"}}, dead)
		}, "kafka.value"},
		"dead letters of no step at all": {func(s beam.Scope, _ beam.PCollection) {
			DeadLetters(s, Sink{})
		}, "at least one"},
	} {
		t.Run(name, func(t *testing.T) {
			_, s := beam.NewPipelineWithRoot()
			in, _ := Read(s, Source{Kind: "corpus", Config: corpusio.SourceConfig{Rows: 1}})
			defer func() {
				err, _ := recover().(error)
				if err == nil || !strings.Contains(err.Error(), c.want) || fail.ClassOf(err) != fail.Fatal {
					t.Errorf("got %v", err)
				}
			}()
			c.build(s, in)
		})
	}
}

// A dead letter that its queue does not take ends the pipeline.
func TestADeadLetterThatIsNotWrittenEndsThePipeline(t *testing.T) {
	memory := iotest.NewMemory()
	memory.Schema = deadletter.Schema()
	memory.Refuse = func(*record.Record) error { return fail.New(fail.Permanent, "test.refused", "full") }
	fn := &writeFn{Writing: writing{Name: "queue"}, All: true, sink: memory.Sink(), ready: map[string]bool{}}
	outcome, dead := func(beam.EventTime, string, *record.Record) {}, func(beam.EventTime, *record.DeadLetter) {}
	parts := func(part) {}
	fn.StartBundle(t.Context(), outcome, dead, parts)
	r := deadletter.ToRecord(&record.DeadLetter{Run: "r", Step: "s", Raw: []byte("x")})
	if err := fn.ProcessElement(t.Context(), 0, r, outcome, dead, parts); err != nil {
		t.Fatal(err)
	}
	if err := fn.FinishBundle(t.Context(), outcome, dead, parts); fail.CodeOf(err) != "dead_letters.not_written" {
		t.Errorf("got %v", err)
	}
}

// What is committed must be what was written, and of one schema.
func TestACommitOfTwoSchemasIsRefused(t *testing.T) {
	one, _ := iotest.AssetSchema().MarshalBinary()
	two, _ := deadletter.Schema().MarshalBinary()
	left := []part{{Schema: one, Written: 1}, {Schema: two, Written: 1}}
	next := func(p *part) bool {
		if len(left) == 0 {
			return false
		}
		*p, left = left[0], left[1:]
		return true
	}
	fn := &commitFn{Writing: writing{Name: "lake"}}
	if err := fn.ProcessElement(t.Context(), 0, next); fail.CodeOf(err) != "beamio.schemas" {
		t.Errorf("got %v", err)
	}
}

// What travels must be in exported fields, of types that Beam carries.
func TestWhatTravels(t *testing.T) {
	for _, fn := range []any{&planFn{}, &readFn{}, &applyFn{}, &writeFn{}, &commitFn{}, &letterFn{}} {
		typ := reflect.TypeOf(fn).Elem()
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() {
				switch f.Type.Kind() {
				case reflect.Interface, reflect.Pointer, reflect.Func, reflect.Chan:
					t.Errorf("%s.%s: a %s does not travel", typ, f.Name, f.Type)
				}
			}
		}
	}
}

// Beam finds what it calls for each record by its type: it must be the one that is called without reflection.
func TestCallsWithoutReflection(t *testing.T) {
	for _, fn := range []any{(&applyFn{}).ProcessElement, (&writeFn{}).ProcessElement} {
		switch reflectx.MakeFunc(fn).(type) {
		case *applyCall, *writeCall:
		default:
			t.Errorf("%T goes by reflection", fn)
		}
	}
}
