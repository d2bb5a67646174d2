package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Setting is what every DoFn of an attempt carries: the job with references to secrets, never secrets, and the schema
// of the source.
type Setting struct {
	Run     connector.Run
	Attempt int
	Sinks   []string         // that take part; nil: all
	Floors  map[string]int64 // by sink: connector.Run.Floor
	Hands   int              // parts that the plan is dealt into
	Stage   float64          // of a canary, in percent of the partitions; 0: all
	Window  int              // of each worker, as WindowOf gives it
	Member  string           // that shares the run with others; "": nobody does
	Share   []string         // partitions of the member
	Job     []byte           // as JSON
	Schema  []byte           // of the source, by record.Schema's MarshalBinary
}

// systems opens what a job names. Tests open systems in memory instead.
var systems = struct {
	source  func(connector.SourceSpec, connector.Need) (connector.Source, error)
	sink    func(connector.SinkSpec) (connector.Sink, error)
	journal func(context.Context, journal.Config) (journal.Journal, error)
}{connector.SourceSpec.Open, connector.SinkSpec.Open, journal.Open}

// Opened is told the limits of each job that this process works at, before the work begins: what concerns all of a
// process, such as its memory, is set by whoever has started it. It is set before any graph runs; nil: nobody wants
// to know.
var Opened func(job.Limits)

// worker is what a Setting becomes where a DoFn runs.
type worker struct {
	run     connector.Run
	attempt int
	member  string
	window  window
	sinks   []string // of this attempt, in the order of their names
	floors  map[string]int64
	job     *job.Job
	schema  *record.Schema // of the source
	chain   *transforms.Chain
	journal journal.Journal
}

// open builds a worker. Every DoFn calls it in Setup.
func (s Setting) open(ctx context.Context) (*worker, error) {
	w := &worker{run: s.Run, attempt: s.Attempt, member: s.Member, window: window(s.Window), floors: s.Floors,
		job: &job.Job{}}
	if err := json.Unmarshal(s.Job, w.job); err != nil {
		return nil, fmt.Errorf("the job as it travelled: %w", err)
	}
	if w.sinks = s.Sinks; len(w.sinks) == 0 {
		w.sinks = slices.Collect(maps.Keys(w.job.Sinks))
	}
	slices.Sort(w.sinks)
	var err error
	if w.schema, err = record.UnmarshalSchema(s.Schema); err != nil {
		return nil, fmt.Errorf("the schema as it travelled: %w", err)
	}
	if w.chain, err = transforms.Compile(w.job.Transforms, w.schema, w.options()); err != nil {
		return nil, err
	}
	if Opened != nil {
		Opened(w.job.Limits)
	}
	w.journal, err = systems.journal(ctx, *w.job.Journal)
	return w, err
}

// runOf is the run as a sink knows it.
func (w *worker) runOf(sink string) connector.Run {
	run := w.run
	run.Floor = w.floors[sink]
	return run
}

// options fix what would differ between workers and retries.
func (w *worker) options() transforms.Options { return transforms.Options{Now: w.run.Started} }

// sinkChain is the chain of one sink's own transforms, with its condition as the first step.
func (w *worker) sinkChain(name string) (*transforms.Chain, error) {
	return w.job.SinkChain(name, w.chain.Out, w.options())
}

// record writes to the journal, also when it is busy for a while. After other errors it is open whether it was
// written.
func (w *worker) record(ctx context.Context, b journal.Batch) error {
	b.Member = w.member
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := w.journal.Record(ctx, w.run.ID, w.attempt, b)
		if err != nil && fail.CodeOf(err) != "journal.busy" {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(time.Minute))
	return err
}

func (w *worker) close() {
	if w != nil && w.journal != nil {
		w.journal.Close()
	}
}

// guard turns a panic of a DoFn into an error, and writes down an error that ends the attempt, since what the runner
// tells of it is only text. Beam's emitters panic with the error of the step that they feed, which has written it
// down itself.
func (w *worker) guard(ctx context.Context, step string, err *error) {
	if p := recover(); p != nil {
		below, ok := p.(error)
		if bug := runtime.Error(nil); ok && !errors.As(below, &bug) {
			*err = below
			return
		}
		*err = fail.New(fail.Fatal, "internal.panic", "%s: %v\n%s", step, p, debug.Stack())
	}
	if *err != nil && ctx.Err() == nil && w != nil {
		w.journal.Fail(context.WithoutCancel(ctx), w.run.ID, w.attempt, *err)
	}
}
