package connector

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// BatchLimits bound a Batcher.
type BatchLimits struct {
	Rows     int // records of a batch
	Bytes    int // bytes of a batch, by record.Size
	InFlight int // batches under way at once
}

// Retry says how long a batch is tried again.
type Retry struct {
	First    time.Duration // pause after the first failure, about; doubles from there, with full jitter
	Max      time.Duration // longest pause
	Deadline time.Duration // after which a record that still fails is given up
}

// DefaultRetry suits servers that restart.
var DefaultRetry = Retry{First: 100 * time.Millisecond, Max: 10 * time.Second, Deadline: 2 * time.Minute}

// WriteBatch writes a batch and returns one result for each record, in order (only Outcome and Err count). What failed by
// an error of class Transient or Throttled is written again, alone.
type WriteBatch func(ctx context.Context, batch []*record.Record) []Result

// AllFailed is the results of a batch that failed as a whole.
func AllFailed(batch []*record.Record, err error) []Result {
	results := make([]Result, len(batch))
	for i := range results {
		results[i].Err = err
	}
	return results
}

// Batcher is the Writer of sinks that write in batches: it keeps several under way, writes again what may pass,
// and settles every record once. It holds at most Bytes * (InFlight + 1).
type Batcher struct {
	limits BatchLimits
	retry  Retry
	write  WriteBatch
	settle Settle

	ctx    context.Context
	cancel context.CancelCauseFunc
	slots  chan struct{}
	flying sync.WaitGroup

	batch []*record.Record
	bytes int
}

// NewBatcher gives a Writer over write. ctx bounds its whole life.
func NewBatcher(ctx context.Context, limits BatchLimits, retry Retry, write WriteBatch, settle Settle) *Batcher {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Batcher{limits: limits, retry: retry, write: write, settle: settle,
		ctx: ctx, cancel: cancel, slots: make(chan struct{}, max(1, limits.InFlight))}
}

// Write implements Writer.
func (b *Batcher) Write(ctx context.Context, r *record.Record) error {
	size := r.Size()
	if len(b.batch) > 0 && (len(b.batch) >= b.limits.Rows || b.bytes+size > b.limits.Bytes) {
		if err := b.send(ctx); err != nil {
			return err
		}
	}
	b.batch = append(b.batch, r)
	b.bytes += size
	return nil
}

// Flush implements Writer.
func (b *Batcher) Flush(ctx context.Context) ([][]byte, error) {
	if len(b.batch) > 0 {
		if err := b.send(ctx); err != nil {
			return nil, err
		}
	}
	done := make(chan struct{})
	go func() { b.flying.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		b.cancel(context.Cause(ctx))
		<-done
	}
	return nil, context.Cause(b.ctx)
}

// Close implements Writer.
func (b *Batcher) Close() error {
	b.cancel(context.Canceled)
	b.flying.Wait()
	return nil
}

func (b *Batcher) send(ctx context.Context) error {
	batch := b.batch
	b.batch, b.bytes = make([]*record.Record, 0, len(batch)), 0
	select {
	case b.slots <- struct{}{}:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.flying.Add(1)
	go func() {
		defer func() { <-b.slots; b.flying.Done() }()
		if err := b.deliver(batch); err != nil {
			b.cancel(err)
		}
	}()
	return nil
}

// deliver writes a batch until each of its records is settled. Its error ends the run.
func (b *Batcher) deliver(batch []*record.Record) error {
	pause := &backoff.ExponentialBackOff{InitialInterval: b.retry.First, MaxInterval: b.retry.Max,
		Multiplier: 2, RandomizationFactor: 1}
	pause.Reset()
	began := time.Now()
	for attempt := 1; ; attempt++ {
		whole := len(batch)
		results := b.write(b.ctx, batch)
		if err := b.ctx.Err(); err != nil {
			return context.Cause(b.ctx)
		}
		settled, again := results[:0:0], batch[:0:0]
		var last error
		for i, res := range results {
			res.Record, res.Attempts = batch[i], attempt
			if res.Err != nil {
				switch fail.ClassOf(res.Err) {
				case fail.Fatal:
					return res.Err
				case fail.Transient, fail.Throttled:
					last = res.Err
					if time.Since(began) < b.retry.Deadline {
						again = append(again, batch[i])
						continue
					}
				}
				res.Outcome = record.Dead
			}
			settled = append(settled, res)
		}
		// A batch of which nothing passes to the last is no matter of its records: the system is down.
		if last != nil && len(again) == 0 && allTransient(results) && whole == len(results) {
			return last
		}
		if len(settled) > 0 {
			b.settle(settled)
		}
		if len(again) == 0 {
			return nil
		}
		batch = again
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-timer.C:
		case <-b.ctx.Done():
			timer.Stop()
			return context.Cause(b.ctx)
		}
	}
}

func allTransient(results []Result) bool {
	for _, r := range results {
		if r.Err == nil || fail.ClassOf(r.Err) == fail.Permanent {
			return false
		}
	}
	return true
}
