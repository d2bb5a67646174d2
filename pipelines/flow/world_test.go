package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/fileio"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/io/kafkaio"
	"reprise/pipelines/job"
	"reprise/pipelines/travel"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	transforms.Register(transforms.Transform{Name: "trap", Config: new(map[string]string), Compile: compileTrap})
	open := systems
	systems.source = func(s connector.SourceSpec, need connector.Need) (connector.Source, error) {
		path := ""
		switch c := s.SourceConfig.(type) {
		case *fileio.SourceConfig:
			path = c.Path
		case *kafkaio.SourceConfig:
			path = c.Topic
		}
		if w, _ := worldAt(path); w != nil {
			return w.openSource(need)
		}
		return open.source(s, need)
	}
	systems.sink = func(t connector.SinkSpec) (connector.Sink, error) {
		if w, name := worldAt(t.SinkConfig.(*fileio.SinkConfig).Path); w != nil {
			return w.openSink(name)
		}
		return open.sink(t)
	}
	systems.journal = func(ctx context.Context, c journal.Config) (journal.Journal, error) {
		if w, _ := worldAt(c.SQLite); w != nil {
			return w.openJournal(), nil
		}
		return open.journal(ctx, c)
	}
	os.Exit(m.Run())
}

// worlds are those of the tests that are running, by name. A path "memory:NAME/..." in a job leads there.
var worlds sync.Map

func worldAt(path string) (w *world, name string) {
	path, ok := strings.CutPrefix(path, "memory:")
	path, name, _ = strings.Cut(path, "/")
	if at, there := worlds.Load(path); ok && there {
		return at.(*world), name
	}
	return nil, ""
}

// world is all that a run of a test deals with: a table of several partitions, sinks, a dead-letter queue and a
// journal, in memory.
type world struct {
	t       testing.TB
	ctx     context.Context // of the process that works at the run
	job     *job.Job
	setting func(*Setting) // changes it; nil: does not

	tables  map[string]*iotest.Memory // by partition
	sinks   map[string]*iotest.Memory
	queue   *iotest.Memory
	journal *memoryJournal
	stream  *stream               // the source, where it goes on
	commits map[string]*committed // that sinks have made, where they are watched

	// What is put around what is opened; nil: nothing.
	source      func(connector.Source) connector.Source
	sink        func(name string, s connector.Sink) connector.Sink
	openJournal func() journal.Journal

	page    func(*connector.Page)                 // changes the pages that are read; nil: does not
	reading func(tracker *sdf.LockRTracker) error // is called before each page is handed on

	tracker   *sdf.LockRTracker // of the pass that is running
	residuals []travel.Work     // that were split off it
}

var assets = iotest.AssetSchema()

// newWorld gives a world with a table, of which each partition has so many rows, and two sinks, "a" and "b". Rows are
// numbered throughout, pages have two of them.
func newWorld(t testing.TB, rows ...int) *world {
	w := &world{t: t, ctx: t.Context(), queue: iotest.NewMemory(),
		tables: map[string]*iotest.Memory{}, sinks: map[string]*iotest.Memory{}}
	w.queue.Schema = deadletter.Schema()
	name := strings.ReplaceAll(t.Name(), "/", " ")
	worlds.Store(name, w)
	t.Cleanup(func() { worlds.Delete(name) })
	at := func(s string) string { return "memory:" + name + "/" + s }
	w.job = &job.Job{Name: "job", Sinks: map[string]job.Sink{}, Journal: &journal.Config{SQLite: at("journal")},
		Source:      connector.From(&fileio.SourceConfig{Path: at("source")}),
		DeadLetters: new(connector.To(&fileio.SinkConfig{Path: at("queue")}))}
	for _, sink := range []string{"a", "b"} {
		w.sinks[sink] = iotest.NewMemory()
		w.job.Sinks[sink] = job.Sink{SinkSpec: connector.To(&fileio.SinkConfig{Path: at(sink)})}
	}
	w.job.SetDefaults()
	w.job.Limits.ErrorBudget = &job.ErrorBudget{}
	var splits []connector.Split
	first := 0
	for i, n := range rows {
		part := fmt.Sprint("part", i)
		w.tables[part] = iotest.NewMemory()
		w.tables[part].PageRows = 2
		w.tables[part].Load(iotest.Records(assets, first, n, iotest.Base)...)
		splits = append(splits, connector.Split{Partition: part, Rows: int64(n)})
		first += n
	}
	w.journal = newMemoryJournal(splits...)
	w.openJournal = func() journal.Journal { return w.journal }
	return w
}

// change changes the settings of a sink.
func (w *world) change(name string, change func(*job.Sink)) {
	s := w.job.Sinks[name]
	change(&s)
	w.job.Sinks[name] = s
}

func (w *world) openSource(connector.Need) (connector.Source, error) {
	if w.source != nil {
		return w.source(table{w}), nil
	}
	return table{w}, nil
}

func (w *world) openSink(name string) (connector.Sink, error) {
	sink := w.queue.Sink
	if m := w.sinks[name]; m != nil {
		sink = m.Sink
	}
	if w.sink != nil {
		return w.sink(name, sink()), nil
	}
	return sink(), nil
}

// settings are those of an attempt.
func (w *world) settings(attempt int) Setting {
	text, err := json.Marshal(w.job)
	if err != nil {
		w.t.Fatal(err)
	}
	schema, err := assets.MarshalBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	s := Setting{Run: connector.Run{ID: "run", Job: "job", Started: time.Unix(0, 0)}, Attempt: attempt,
		Hands: 1, Window: 100, Job: text, Schema: schema}
	if w.setting != nil {
		w.setting(&s)
	}
	return s
}

// attempt makes an attempt at the run by the DoFns, as Prism does, and gives its report.
func (w *world) attempt() (*Report, error) {
	n, err := w.journal.Attempt(w.ctx, "run")
	if err != nil {
		return nil, err
	}
	s := w.settings(n)
	deal, pass, end := &dealFn{Setting: s}, &passFn{Setting: s}, &endFn{Setting: s}
	defer func() { deal.Teardown(); pass.Teardown(); end.Teardown() }()
	if err := deal.Setup(w.ctx); err != nil {
		return nil, err
	}
	var dealt []travel.Work
	for n := range s.Hands {
		if err := deal.ProcessElement(w.ctx, n, func(of travel.Work) { dealt = append(dealt, of) }); err != nil {
			return nil, err
		}
	}
	if err := pass.Setup(w.ctx); err != nil {
		return nil, err
	}
	for len(dealt) > 0 {
		of := dealt[0]
		for _, part := range pass.SplitRestriction(of, pass.CreateInitialRestriction(of)) {
			w.tracker = pass.CreateTracker(part)
			if err := pass.ProcessElement(w.ctx, w.tracker, of, func(int) {}); err != nil {
				return nil, err
			}
			if !w.tracker.IsDone() {
				return nil, fmt.Errorf("the pass has ended, but its tracker is not done")
			}
		}
		dealt, w.residuals = append(dealt[1:], w.residuals...), nil
	}
	if err := end.Setup(w.ctx); err != nil {
		return nil, err
	}
	if err := end.ProcessElement(w.ctx, 0, nil); err != nil {
		return nil, err
	}
	r := &Report{}
	return r, json.Unmarshal(w.journal.report, r)
}

// must is attempt without an error.
func (w *world) must() *Report {
	w.t.Helper()
	r, err := w.attempt()
	if err != nil {
		w.t.Fatalf("attempt %d: %v", w.journal.attempt, err)
	}
	return r
}

// fails is attempt with an error of a code.
func (w *world) fails(code string) error {
	w.t.Helper()
	r, err := w.attempt()
	if err == nil {
		w.t.Fatalf("attempt %d: %s, want the error %s", w.journal.attempt, r.State, code)
	}
	if fail.CodeOf(err) != code {
		w.t.Fatalf("attempt %d: %v, want the error %s", w.journal.attempt, err, code)
	}
	return err
}

// is checks the state and the outcomes of a report.
func (w *world) is(r *Report, state journal.State, of map[string]record.Counts) {
	w.t.Helper()
	if r.State != state || len(r.Faults) > 0 {
		w.t.Errorf("%s (%s), want %s; faults %q", r.State, r.Reason, state, r.Faults)
	}
	for name, want := range of {
		if got := r.Sinks[name].Outcomes; got != want {
			w.t.Errorf("sink %s: %v, want %v", name, got, want)
		}
	}
}

// complete checks that a run is done and that every sink has the rows from 0 up to n, but for some.
func (w *world) complete(r *Report, n int, without ...int) {
	w.t.Helper()
	w.is(r, journal.Complete, nil)
	if r.Read != int64(n) {
		w.t.Errorf("%d rows read, want %d", r.Read, n)
	}
	for name := range w.sinks {
		w.has(name, n, without...)
	}
}

// has checks the rows of a sink.
func (w *world) has(name string, n int, without ...int) {
	w.t.Helper()
	want := []string{}
	for i := range n {
		if !slices.Contains(without, i) {
			want = append(want, key(i))
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(w.sinks[name].Rows())); !slices.Equal(got, want) {
		w.t.Errorf("sink %s has %d rows %v, want %d %v", name, len(got), got, len(want), want)
	}
}

// key is that of a row.
func key(n int) string { return iotest.Record(assets, n, iotest.Base).KeyText() }

// refusing gives a Refuse by keys.
func refusing(rows ...int) func(*record.Record) error {
	return func(r *record.Record) error {
		for _, n := range rows {
			if r.KeyText() == key(n) {
				return fail.New(fail.Permanent, "memory.refused", "row %d is refused", n)
			}
		}
		return nil
	}
}

// counts are outcomes.
func counts(written, unchanged, superseded, filtered, dead int64) (c record.Counts) {
	c[record.Written], c[record.Unchanged], c[record.Superseded] = written, unchanged, superseded
	c[record.Filtered], c[record.Dead] = filtered, dead
	return c
}
