package flow

import (
	"context"
	"errors"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

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
