package flow

import (
	"context"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/transforms/record"
)

func init() {
	register.DoFn5x1[context.Context, *record.Record, func(*record.Record), func(*record.DeadLetter), func(tally), error](&transformFn{})
}

// transformFn runs the job's transforms, which all sinks share.
type transformFn struct {
	Setting Setting
	worker  *worker
	counts  tallies
}

// Setup compiles the transforms.
func (f *transformFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	f.counts = newTallies(stageTransforms)
	return err
}

// ProcessElement emits what becomes of a record.
func (f *transformFn) ProcessElement(ctx context.Context, r *record.Record, emit func(*record.Record), dead func(*record.DeadLetter), _ func(tally)) (err error) {
	defer f.worker.guard(ctx, stageTransforms, &err)
	c := f.counts.of(r.Origin.Split)
	return c.apply(f.worker.chain, r, emit, func(in *record.Record, step string, err error) {
		dead(f.worker.deadLetter(in, step, "", 1, err))
	})
}

// FinishBundle emits the counts.
func (f *transformFn) FinishBundle(_ context.Context, _ func(*record.Record), _ func(*record.DeadLetter), count func(tally)) {
	var sum record.Counts
	for _, c := range f.counts.all {
		sum.Add(c.Outcomes)
	}
	f.worker.heart.outcomes("", sum)
	f.counts.flush(count)
}

// Teardown closes the journal.
func (f *transformFn) Teardown() { f.worker.close() }
