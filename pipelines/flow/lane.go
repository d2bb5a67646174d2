package flow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// lane is the way of records to one sink: the sink's own transforms, then its writer. The first lane of a pass has no sink: it stands for
// what comes before all of them.
type lane struct {
	name    string
	index   int
	chain   *transforms.Chain
	sink    connector.Sink
	writer  connector.Writer
	commits bool  // what is written becomes durable at a checkpoint
	since   int64 // rows handed to the writer since the last checkpoint
	settled []share
	down    error // why it is left behind; nil: it is not

	after []*lane           // that come before it
	lost  map[string]string // keys of rows that failed there in earlier attempts, with the sink

	tally   tally // of the page that is being handed out
	letters []*record.DeadLetter
	recent  recent // of the records that entered the chain
}

// begin makes ready for another page.
func (l *lane) begin() { l.tally, l.letters = tally{}, nil }

// tally counts what becomes of the records of one page in a chain.
type tally struct {
	made     int64 // further records of steps that make several of one
	out      int64 // that come out
	outcomes record.Counts
}

// apply is tally.apply, and remembers whether the record came through.
func (l *lane) apply(chain *transforms.Chain, r *record.Record, emit func(*record.Record), dead func(*record.Record, string, error)) error {
	before := l.tally.outcomes[record.Dead]
	err := l.tally.apply(chain, r, emit, dead)
	l.recent.add(l.tally.outcomes[record.Dead] > before)
	return err
}

// apply runs a record through a chain and counts what becomes of it. An error that is no matter of the record ends the run.
func (t *tally) apply(chain *transforms.Chain, r *record.Record, emit func(*record.Record), dead func(*record.Record, string, error)) (fatal error) {
	ended := int64(0)
	filtered := int64(chain.Apply(r,
		func(out *record.Record) {
			ended++
			t.out++
			emit(out)
		},
		func(in *record.Record, step string, err error) {
			if fail.ClassOf(err) == fail.Fatal {
				fatal = fmt.Errorf("%s: %w", step, err)
			}
			ended++
			t.outcomes[record.Dead]++
			dead(in, step, err)
		}))
	t.outcomes[record.Filtered] += filtered
	t.made += ended + filtered - 1
	return fatal
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

// queue is where dead letters go.
type queue struct {
	sink   connector.Sink
	writer connector.Writer
	failed chan error // the first letter that was not written
}

func (w *worker) openQueue(ctx context.Context) (*queue, error) {
	sink, err := systems.sink(*w.job.DeadLetters)
	if err != nil {
		return nil, err
	}
	q := &queue{sink: sink, failed: make(chan error, 1)}
	q.writer, err = sink.Open(ctx, w.run, deadletter.Schema(), func(results []connector.Result) {
		for _, res := range results {
			if res.Err != nil {
				select {
				case q.failed <- res.Err:
				default:
				}
			}
		}
	})
	if err != nil {
		sink.Close()
		return nil, queueFailed(err)
	}
	return q, nil
}

// write writes letters and returns once they are durable. A letter that is not written fails the run: nothing else
// would know of it.
func (q *queue) write(ctx context.Context, letters []*record.Record) (parts [][]byte, err error) {
	for _, l := range letters {
		if err := q.writer.Write(ctx, l); err != nil {
			return nil, queueFailed(err)
		}
	}
	if parts, err = q.writer.Flush(ctx); err != nil {
		return nil, queueFailed(err)
	}
	select {
	case err := <-q.failed:
		return nil, queueFailed(err)
	default:
		return parts, nil
	}
}

func (q *queue) close() {
	q.writer.Close()
	q.sink.Close()
}

func queueFailed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	failed := fail.New(fail.Fatal, "dead_letters.not_written", "a dead letter could not be written: %w", err)
	if known := (*fail.Error)(nil); errors.As(err, &known) && known.Fix != "" {
		failed.Message = "a dead letter could not be written: " + known.Message
		return failed.WithFix("%s; then resume the run", known.Fix)
	}
	return failed.WithFix("mend the queue that dead_letters names in the job file, then resume the run")
}
