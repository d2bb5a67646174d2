package flow

import (
	"context"
	"errors"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func init() {
	register.DoFn5x1[context.Context, *record.Record, func(*record.DeadLetter), func(tally), func([]byte), error](&sinkFn{})
	register.DoFn4x1[context.Context, *record.DeadLetter, func(tally), func([]byte), error](&queueFn{})
}

// sinkFn runs a sink's own transforms and writes what comes out. Sinks settle records on goroutines of their own; their
// results wait in settled until the bundle's goroutine takes them.
type sinkFn struct {
	Setting Setting
	Name    string

	worker *worker
	chain  *transforms.Chain // nil: none
	sink   connector.Sink
	writer connector.Writer
	counts tallies

	settled mailbox
}

// mailbox takes results from any goroutine.
type mailbox struct {
	mu      sync.Mutex
	results []connector.Result
	spare   []connector.Result
}

func (m *mailbox) put(results []connector.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results = append(m.results, results...)
}

// take gives what has come since the last take; the slice is good until the next one.
func (m *mailbox) take() []connector.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	got := m.results
	m.results, m.spare = m.spare[:0], got
	return got
}

// Setup opens the sink.
func (f *sinkFn) Setup(ctx context.Context) (err error) {
	if f.worker, err = f.Setting.open(ctx); err != nil {
		return err
	}
	f.counts = newTallies(stageSink(f.Name))
	if f.chain, err = f.worker.sinkChain(f.Name); err != nil {
		return err
	}
	f.sink, err = f.worker.job.Sinks[f.Name].Target.Open()
	return err
}

// ProcessElement hands a record to the writer.
func (f *sinkFn) ProcessElement(ctx context.Context, r *record.Record, dead func(*record.DeadLetter), _ func(tally), _ func([]byte)) (err error) {
	defer f.worker.guard(ctx, stageSink(f.Name), &err)
	if f.writer == nil {
		if f.writer, err = f.sink.Open(ctx, f.worker.run, f.chain.Out, f.settled.put); err != nil {
			return err
		}
	}
	if len(f.chain.Steps) > 0 {
		r = r.Clone() // other sinks hold the record too
	}
	fatal := f.counts.of(r.Origin.Split).apply(f.chain, r,
		func(out *record.Record) {
			if err == nil {
				err = f.writer.Write(ctx, out)
			}
		},
		func(in *record.Record, step string, err error) {
			dead(f.worker.deadLetter(in, stageSink(f.Name)+" "+step, f.Name, 1, err))
		})
	f.collect(dead)
	return errors.Join(fatal, err)
}

// collect takes what the writer has settled.
func (f *sinkFn) collect(dead func(*record.DeadLetter)) {
	results := f.settled.take()
	if len(results) == 0 {
		return
	}
	var sum record.Counts
	for i := range results {
		res := &results[i]
		f.counts.of(res.Record.Origin.Split).Outcomes[res.Outcome]++
		sum[res.Outcome]++
		if res.Outcome == record.Dead {
			dead(f.worker.deadLetter(res.Record, stageSink(f.Name), f.Name, res.Attempts, res.Err))
		}
		res.Record = nil
	}
	f.worker.heart.outcomes(f.Name, sum)
}

// FinishBundle waits until every record is settled, and emits the counts and what is to be committed.
func (f *sinkFn) FinishBundle(ctx context.Context, dead func(*record.DeadLetter), count func(tally), part func([]byte)) (err error) {
	defer f.worker.guard(ctx, stageSink(f.Name), &err)
	if f.writer == nil {
		return nil
	}
	parts, err := f.writer.Flush(ctx)
	if err != nil {
		return err
	}
	f.collect(dead)
	f.counts.flush(count)
	for _, p := range parts {
		part(p)
	}
	err = f.writer.Close()
	f.writer = nil
	return err
}

// Teardown ends the sink; what a failed bundle has not flushed is given up.
func (f *sinkFn) Teardown() error {
	f.worker.close()
	return closeSink(f.sink, f.writer)
}

func closeSink(s connector.Sink, w connector.Writer) error {
	if w != nil {
		w.Close()
	}
	if s == nil {
		return nil
	}
	return s.Close()
}

// queueFn writes dead letters to their queue. A letter that is not written fails the run: nothing else would know of it.
type queueFn struct {
	Setting Setting

	worker  *worker
	sink    connector.Sink
	writer  connector.Writer
	letters int64
	settled mailbox
}

// Setup opens the queue.
func (f *queueFn) Setup(ctx context.Context) (err error) {
	if f.worker, err = f.Setting.open(ctx); err != nil {
		return err
	}
	f.sink, err = f.worker.job.DeadLetters.Open()
	return err
}

// ProcessElement writes a dead letter.
func (f *queueFn) ProcessElement(ctx context.Context, l *record.DeadLetter, _ func(tally), _ func([]byte)) (err error) {
	defer f.worker.guard(ctx, stageQueue, &err)
	if f.writer == nil {
		if f.writer, err = f.sink.Open(ctx, f.worker.run, deadletter.Schema(), f.settled.put); err != nil {
			return err
		}
	}
	if err := f.writer.Write(ctx, deadletter.ToRecord(l)); err != nil {
		return err
	}
	f.letters++
	return f.check()
}

func (f *queueFn) check() error {
	for _, res := range f.settled.take() {
		if res.Err != nil {
			return queueFailed(res.Err)
		}
	}
	return nil
}

func queueFailed(err error) error {
	failed := fail.New(fail.Fatal, "dead_letters.not_written", "a dead letter could not be written: %w", err)
	if known := (*fail.Error)(nil); errors.As(err, &known) && known.Fix != "" {
		failed.Message = "a dead letter could not be written: " + known.Message
		return failed.WithFix("%s; then run the job again", known.Fix)
	}
	return failed.WithFix("mend the queue that dead_letters names in the job file, then run the job again")
}

// FinishBundle waits until every letter is written.
func (f *queueFn) FinishBundle(ctx context.Context, count func(tally), part func([]byte)) (err error) {
	defer f.worker.guard(ctx, stageQueue, &err)
	if f.writer == nil {
		return nil
	}
	parts, err := f.writer.Flush(ctx)
	if err != nil {
		return queueFailed(err)
	}
	if err := f.check(); err != nil {
		return err
	}
	count(tally{Stage: stageQueue, Out: f.letters})
	f.letters = 0
	for _, p := range parts {
		part(p)
	}
	err = f.writer.Close()
	f.writer = nil
	return err
}

// Teardown ends the queue.
func (f *queueFn) Teardown() error {
	f.worker.close()
	return closeSink(f.sink, f.writer)
}
