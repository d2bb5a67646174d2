package connector

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// BatchLimits bound a Batcher.
type BatchLimits struct {
	Rows     int   // records of a batch
	Bytes    int   // bytes of a batch, by record.Size
	InFlight int   // batches under way at once
	Slots    Slots // those of several batchers together, instead of InFlight

	// Forgets is how long the system remembers what was deleted (0: for ever). A record that was read longer ago would
	// bring a row back that was deleted meanwhile: half of the time after it was read, the source is asked again
	// whether it is still there (see WithRecheck).
	Forgets time.Duration
}

// Slots bound the batches under way of all batchers that share them. A server bounds what it takes from all of them,
// too: beyond that it refuses whole batches, and sending them again costs both sides more than waiting.
type Slots chan struct{}

// NewSlots gives room for n batches, at least for one.
func NewSlots(n int) Slots { return make(Slots, max(1, n)) }

// Retry says how long a batch is tried again.
type Retry struct {
	First time.Duration // pause after the first failure, about; doubles from there, with full jitter
	Max   time.Duration // longest pause
	// Deadline is after what time a record that still fails is given up, not counting the time at the gate; 0: at once.
	Deadline time.Duration
}

// DefaultRetry suits servers that restart.
var DefaultRetry = Retry{First: 100 * time.Millisecond, Max: 10 * time.Second, Deadline: 2 * time.Minute}

// gatedPause is the longest pause behind a gate.
const gatedPause = time.Second

// WriteBatch writes a batch and returns one result for each record, in order (only Outcome and Err count). What failed
// by an error of class Transient or Throttled is written again, alone. It returns soon after ctx ends.
type WriteBatch func(ctx context.Context, batch []*record.Record) []Result

// AllFailed is the results of a batch that failed as a whole.
func AllFailed(batch []*record.Record, err error) []Result {
	results := make([]Result, len(batch))
	for i := range results {
		results[i].Err = err
	}
	return results
}

// Batcher is the Writer of sinks that write in batches: it keeps several under way, writes again what may
// pass, and settles every record once. It holds at most Bytes for each of its batches under way and once more,
// or a record where that is larger.
//
// A record that fails by a transient error until the deadline is given up as Dead when others of its batch were
// written; when none was, the system is down, which is no matter of its records: the gate says how long it is waited
// for, and without a gate the writer fails at the deadline. Behind a gate the deadline counts only time in which the
// writer writes something, so that at the deadline the system is known to be well. A record that fails when nothing
// else is left to write cannot be told from a system that is down: the gate gives up, and the interval stays open.
type Batcher struct {
	limits BatchLimits
	retry  Retry
	write  WriteBatch
	settle Settle

	ctx    context.Context
	cancel context.CancelCauseFunc
	slots  Slots
	flying sync.WaitGroup
	wrote  atomic.Int64 // requests that wrote something

	batch      []*record.Record
	bytes      int
	rows, most int // records and bytes that the batch may have
}

// NewBatcher gives a Writer over write. ctx bounds its whole life.
func NewBatcher(ctx context.Context, limits BatchLimits, retry Retry, write WriteBatch, settle Settle) *Batcher {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &Batcher{limits: limits, retry: retry, write: write, settle: settle, ctx: ctx,
		cancel: cancel, slots: limits.Slots}
	if b.slots == nil {
		b.slots = NewSlots(limits.InFlight)
	}
	return b
}

// Write implements Writer.
func (b *Batcher) Write(ctx context.Context, r *record.Record) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	size := r.Size()
	if len(b.batch) == 0 {
		b.rows, b.most = b.limits.Rows, b.limits.Bytes
		records, bytes := Largest(b.ctx)
		if records > 0 {
			b.rows = min(b.rows, records)
		}
		if bytes > 0 {
			b.most = int(min(int64(b.most), bytes))
		}
	}
	if len(b.batch) > 0 && (len(b.batch) >= b.rows || b.bytes+size > b.most) {
		if err := b.send(ctx); err != nil {
			return err
		}
	}
	b.batch = append(b.batch, r)
	b.bytes += size
	return nil
}

// Checkpoint implements Writer.
func (b *Batcher) Checkpoint(ctx context.Context) ([][]byte, error) {
	if b.ctx.Err() != nil {
		return nil, context.Cause(b.ctx)
	}
	if len(b.batch) == 0 {
		return nil, nil
	}
	return nil, b.send(ctx)
}

// Flush implements Writer.
func (b *Batcher) Flush(ctx context.Context) ([][]byte, error) {
	if _, err := b.Checkpoint(ctx); err != nil {
		return nil, err
	}
	Await(ctx, &b.flying, b.cancel)
	return nil, context.Cause(b.ctx)
}

// Await waits for what a writer has under way; when ctx ends first, it cancels that and waits for its end.
func Await(ctx context.Context, flying *sync.WaitGroup, cancel context.CancelCauseFunc) {
	done := make(chan struct{})
	go func() { flying.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		cancel(context.Cause(ctx))
		<-done
	}
}

// Close implements Writer.
func (b *Batcher) Close() error {
	b.cancel(context.Canceled)
	b.flying.Wait()
	return nil
}

func (b *Batcher) send(ctx context.Context) error {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		b.cancel(context.Cause(ctx)) // a later Flush must not claim that all is settled
		return context.Cause(ctx)
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	batch, bytes := b.batch, int64(b.bytes)
	b.batch, b.bytes = make([]*record.Record, 0, len(batch)), 0
	b.flying.Add(1)
	go func() {
		defer func() { <-b.slots; b.flying.Done() }()
		if err := b.deliver(batch, bytes); err != nil {
			b.cancel(err)
		}
	}()
	return nil
}

// deliver writes a batch until each of its records is settled. Its error ends the run.
func (b *Batcher) deliver(batch []*record.Record, bytes int64) error {
	pause := &backoff.ExponentialBackOff{InitialInterval: b.retry.First, MaxInterval: b.retry.Max,
		Multiplier: 2, RandomizationFactor: 1}
	spent := time.Duration(0)
	written := false
	before := b.wrote.Load()
	var checked time.Time
	for attempt := 1; ; attempt++ {
		leave, gated, err := Enter(b.ctx, len(batch), bytes)
		if err != nil {
			return err
		}
		if batch, err = b.recheck(batch, &checked, attempt); err != nil || len(batch) == 0 {
			leave(0, 0, nil)
			return err
		}
		began := time.Now()
		results := b.write(b.ctx, batch)
		leave(0, 0, worst(results))
		if b.ctx.Err() != nil {
			return context.Cause(b.ctx)
		}
		if len(results) != len(batch) {
			return fail.New(fail.Fatal, "connector.results", "a sink gave %d results for %d records",
				len(results), len(batch)).
				WithFix("report this bug of the sink")
		}
		for _, res := range results {
			if res.Err != nil && fail.ClassOf(res.Err) == fail.Fatal {
				return res.Err
			}
			written = written || res.Err == nil
		}
		if slices.ContainsFunc(results, func(res Result) bool { return res.Err == nil }) {
			b.wrote.Add(1)
		}
		// Behind a gate no time counts in which nothing at all is written: the system may have gone
		// down in the middle of the batch.
		now := b.wrote.Load()
		counts := !gated || now != before
		before = now
		if counts {
			spent += time.Since(began)
		}
		late := spent >= b.retry.Deadline
		bytes = 0
		settled := make([]Result, 0, len(results))
		var again []*record.Record
		for i, res := range results {
			res.Record, res.Attempts = batch[i], attempt
			if res.Err != nil {
				res.Outcome = record.Dead
				if fail.ClassOf(res.Err) != fail.Permanent {
					if late && !written && !gated {
						return res.Err
					}
					if !late || !written && !gated {
						again = append(again, batch[i])
						bytes += int64(batch[i].Size())
						continue
					}
				}
			}
			settled = append(settled, res)
		}
		if len(settled) > 0 {
			b.settle(settled)
		}
		if len(again) == 0 {
			return nil
		}
		batch = again
		wait := min(pause.NextBackOff(), b.retry.Max)
		if gated {
			wait = min(wait, gatedPause) // the gate makes it wait for a system that is down
		}
		if counts {
			spent += wait
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-b.ctx.Done():
			timer.Stop()
			return context.Cause(b.ctx)
		}
	}
}

// recheck leaves out the records of a batch that the system may have forgotten the deletes of, and whose rows
// are gone: superseded by a delete.
func (b *Batcher) recheck(batch []*record.Record, checked *time.Time, attempt int) ([]*record.Record, error) {
	again, ok := b.ctx.Value(recheckKey{}).(Recheck)
	if !ok || b.limits.Forgets <= 0 {
		return batch, nil
	}
	old := time.Now().Add(-b.limits.Forgets / 2)
	if checked.After(old) {
		return batch, nil
	}
	isOld := func(r *record.Record) bool {
		return r.Op == record.Upsert && r.Origin.Asked != 0 && r.Origin.Asked <= old.UnixMicro()
	}
	if !slices.ContainsFunc(batch, isOld) {
		return batch, nil
	}
	now := time.Now()
	gone, err := again(b.ctx, batch)
	if err != nil {
		return nil, fmt.Errorf("looking whether rows that were held for long are still there: %w", err)
	}
	*checked = now
	var kept []*record.Record
	var settled []Result
	for i, r := range batch {
		if gone[i] && r.Op == record.Upsert {
			settled = append(settled, Result{Record: r, Outcome: record.Superseded, Attempts: attempt})
		} else {
			kept = append(kept, r)
		}
	}
	if len(settled) > 0 {
		b.settle(settled)
	}
	return kept, nil
}

// Recheck tells for each record whether its row is gone from the source.
type Recheck func(ctx context.Context, records []*record.Record) (gone []bool, err error)

type recheckKey struct{}

// WithRecheck gives a context whose writers can ask again about records that they have held for long.
func WithRecheck(ctx context.Context, f Recheck) context.Context {
	return context.WithValue(ctx, recheckKey{}, f)
}

// worst is the error that tells most about the system: one of the request, else of class Throttled or Transient. What
// is wrong with single records is no matter of the system.
func worst(results []Result) error {
	var found error
	for _, res := range results {
		switch fail.ClassOf(res.Err) {
		case fail.Throttled:
			if res.Err != nil {
				return res.Err
			}
		case fail.Transient, fail.Fatal:
			if res.Err != nil {
				found = res.Err
			}
		}
	}
	return found
}
