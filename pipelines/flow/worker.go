package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Setting is what every DoFn of a run carries: the job with references to secrets, never secrets, and the schema of the source.
type Setting struct {
	Run    connector.Run
	Job    []byte // as JSON
	Schema []byte // of the source, by record.Schema's MarshalBinary
}

// worker is what a Setting becomes where a DoFn runs.
type worker struct {
	run     connector.Run
	job     *job.Job
	source  *record.Schema
	chain   *transforms.Chain
	journal *journal.Journal
	heart   *heart
}

// open builds a worker. Every DoFn calls it in Setup, or where it is first needed.
func (s Setting) open(ctx context.Context) (*worker, error) {
	w := &worker{run: s.Run, job: &job.Job{}}
	if err := json.Unmarshal(s.Job, w.job); err != nil {
		return nil, fmt.Errorf("the job as it travelled: %w", err)
	}
	var err error
	if w.source, err = record.UnmarshalSchema(s.Schema); err != nil {
		return nil, fmt.Errorf("the schema as it travelled: %w", err)
	}
	if w.chain, err = transforms.Compile(w.job.Transforms, w.source, s.options()); err != nil {
		return nil, err
	}
	debug.SetMemoryLimit(int64(w.job.Limits.Memory))
	if w.journal, err = journal.Open(ctx, w.job.Journal); err != nil {
		return nil, err
	}
	w.heart = startHeart(w.journal, s.Run.ID)
	return w, nil
}

// options fix what would differ between workers and retries.
func (s Setting) options() transforms.Options { return transforms.Options{Now: s.Run.Started} }

// sinkChain is the chain of one sink's own transforms, with its condition as the first step.
func (w *worker) sinkChain(name string) (*transforms.Chain, error) {
	return w.job.SinkChain(name, w.chain.Out, transforms.Options{Now: w.run.Started})
}

func (w *worker) close() {
	if w == nil {
		return
	}
	w.heart.stop()
	w.journal.Close()
}

// guard turns a panic of a DoFn into an error, and writes down an error that ends the run, since what the runner tells
// of it is only text. Beam's emitters panic with the error of the step that they feed, which has written it down itself.
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
		w.journal.Fail(context.WithoutCancel(ctx), w.run.ID, *err)
	}
}

// tallies counts by split; records of one split mostly come in a row.
type tallies struct {
	stage string
	all   map[string]*tally
	last  *tally
}

func newTallies(stage string) tallies { return tallies{stage: stage, all: map[string]*tally{}} }

func (t *tallies) of(split string) *tally {
	if t.last != nil && t.last.Split == split {
		return t.last
	}
	c, ok := t.all[split]
	if !ok {
		c = &tally{Stage: t.stage, Split: split}
		t.all[split] = c
	}
	t.last = c
	return c
}

// apply runs a record through a chain and counts what becomes of it. An error that is no matter of the record ends the run.
func (t *tally) apply(chain *transforms.Chain, r *record.Record, emit func(*record.Record), dead func(*record.Record, string, error)) (fatal error) {
	before := t.Out + t.Outcomes[record.Filtered] + t.Outcomes[record.Dead]
	t.In++
	filtered := chain.Apply(r,
		func(out *record.Record) {
			t.Out++
			emit(out)
		},
		func(in *record.Record, step string, err error) {
			if fail.ClassOf(err) == fail.Fatal {
				fatal = fmt.Errorf("%s: %w", step, err)
			}
			t.Outcomes[record.Dead]++
			dead(in, step, err)
		})
	t.Outcomes[record.Filtered] += int64(filtered)
	t.Made += t.Out + t.Outcomes[record.Filtered] + t.Outcomes[record.Dead] - before - 1
	return fatal
}

// flush emits the counts and forgets them.
func (t *tallies) flush(emit func(tally)) {
	for _, c := range t.all {
		emit(*c)
	}
	clear(t.all)
	t.last = nil
}
