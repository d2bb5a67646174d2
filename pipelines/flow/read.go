package flow

import (
	"context"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func init() {
	register.DoFn3x1[context.Context, int, func(work), error](&loadFn{})
	register.DoFn6x1[context.Context, *sdf.LockRTracker, work, func(*record.Record), func(*record.DeadLetter), func(tally), error](&readFn{})
}

// loadFn fetches a chunk of the plan from the journal, so that the plan need not travel in the graph.
type loadFn struct {
	Setting Setting
	worker  *worker
}

// Setup opens the journal.
func (f *loadFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	return err
}

// ProcessElement emits the splits of chunk n.
func (f *loadFn) ProcessElement(ctx context.Context, n int, emit func(work)) (err error) {
	defer f.worker.guard(ctx, "plan", &err)
	splits, err := f.worker.journal.Chunk(ctx, f.worker.run.ID, n)
	if err != nil {
		return err
	}
	emit(work{Splits: splits})
	return nil
}

// Teardown closes the journal.
func (f *loadFn) Teardown() { f.worker.close() }

// readFn reads splits: a splittable DoFn whose restriction is a list of them.
type readFn struct {
	Setting Setting
	worker  *worker
	source  connector.Source
}

// CreateInitialRestriction is the whole of the work.
func (f *readFn) CreateInitialRestriction(w work) work { return w }

// SplitRestriction keeps the work whole: the plan has cut it for the runner already.
func (f *readFn) SplitRestriction(_ work, r work) []work { return []work{r} }

// RestrictionSize is the number of rows that the plan expects.
func (f *readFn) RestrictionSize(_ work, r work) float64 {
	rows := 0.0
	for _, s := range r.Splits {
		rows += float64(max(1, s.Rows))
	}
	return rows
}

// CreateTracker tracks by split and position.
func (f *readFn) CreateTracker(r work) *sdf.LockRTracker { return sdf.NewLockRTracker(newTracker(r)) }

// Setup opens the source.
func (f *readFn) Setup(ctx context.Context) (err error) {
	if f.worker, err = f.Setting.open(ctx); err != nil {
		return err
	}
	f.source, err = f.worker.job.Source.Open(f.worker.job.Need(f.worker.run.ID))
	return err
}

// ProcessElement claims each page before it emits its records. Rows that could not be decoded are dead letters here.
func (f *readFn) ProcessElement(ctx context.Context, rt *sdf.LockRTracker, _ work, emit func(*record.Record), dead func(*record.DeadLetter), count func(tally)) (err error) {
	defer f.worker.guard(ctx, "source", &err)
	w := f.worker
	splits := rt.GetRestriction().(work).Splits
	names := make([]string, len(splits))
	for i, s := range splits {
		names[i] = s.String()
	}
	counts := newTallies(stageSource)
	ahead := connector.Ahead{Readers: w.job.Limits.Readers, Bytes: int64(w.job.Limits.ReadAhead)}
	err = connector.ReadAhead(ctx, f.source, splits, ahead, func(i int, p connector.Page, end bool) (bool, error) {
		if !rt.TryClaim(claim{split: i, last: p.Last, end: end}) {
			return false, rt.GetError()
		}
		if end {
			w.heart.split()
			return true, nil
		}
		c := counts.of(names[i])
		c.In += p.Rows()
		c.Out += int64(len(p.Records))
		c.Outcomes[record.Dead] += int64(len(p.Dead))
		w.heart.page(p)
		if len(p.Dead) > 0 {
			w.heart.outcomes("", record.Counts{record.Dead: int64(len(p.Dead))})
		}
		for _, l := range p.Dead {
			l.Step, l.Split = stageSource, names[i]
			dead(w.address(l))
		}
		for _, r := range p.Records {
			r.Origin.Split = names[i]
			emit(r)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	counts.flush(count)
	return nil
}

// Teardown closes the source.
func (f *readFn) Teardown() error {
	f.worker.close()
	if f.source == nil {
		return nil
	}
	return f.source.Close()
}

// address fills in what every dead letter of the run has in common.
func (w *worker) address(l *record.DeadLetter) *record.DeadLetter {
	l.Run = w.run.ID
	l.At = time.Now().UnixMilli()
	l.Attempts = max(1, l.Attempts)
	if l.Record != nil && l.Split == "" {
		l.Split = l.Record.Origin.Split
	}
	return l
}

// deadLetter is the dead letter of a record that failed in a step.
func (w *worker) deadLetter(r *record.Record, step, sink string, attempts int, err error) *record.DeadLetter {
	return w.address(&record.DeadLetter{Record: r, Step: step, Sink: sink, Attempts: attempts,
		Class: fail.ClassOf(err).String(), Code: fail.CodeOf(err), Message: err.Error()})
}
