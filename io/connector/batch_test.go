package connector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var batchSchema = record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)},
	{Name: "text", Type: record.Of(record.Text)}}, "id")

func numbered(n int, text string) *record.Record {
	return &record.Record{Schema: batchSchema,
		Values: []record.Value{record.Number(record.Int, int64(n)), record.String(text)}}
}

func number(r *record.Record) int { return int(r.Values[0].Int()) }

// settled collects results and fails when a record comes twice.
type settled struct {
	t   interface{ Errorf(string, ...any) }
	mu  sync.Mutex
	all map[int]Result
}

func (s *settled) settle(results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if _, twice := s.all[number(r.Record)]; twice {
			s.t.Errorf("record %d was settled twice", number(r.Record))
		}
		s.all[number(r.Record)] = r
	}
}

func ledger(t interface{ Errorf(string, ...any) }) *settled {
	return &settled{t: t, all: map[int]Result{}}
}

var (
	errBusy   = fail.New(fail.Transient, "test.busy", "busy")
	errSlow   = fail.New(fail.Throttled, "test.slow", "slow down")
	errBad    = fail.New(fail.Permanent, "test.bad", "bad record")
	errBroken = fail.New(fail.Fatal, "test.broken", "broken")
	testRetry = Retry{First: 100 * time.Millisecond, Max: time.Second, Deadline: 10 * time.Second}
)

// writeAll writes n records and flushes.
func writeAll(ctx context.Context, b *Batcher, n int) error {
	for i := range n {
		if err := b.Write(ctx, numbered(i, "")); err != nil {
			return err
		}
	}
	_, err := b.Flush(ctx)
	return err
}

func TestBatcherLimits(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits BatchLimits
		texts  []int
		want   string
	}{
		{"rows", BatchLimits{Rows: 2, Bytes: 1 << 20, InFlight: 1}, []int{1, 1, 1, 1, 1}, "[2 2 1]"},
		{"bytes", BatchLimits{Rows: 100, Bytes: 1000, InFlight: 1}, []int{300, 300, 300, 300}, "[2 2]"},
		{"one large record", BatchLimits{Rows: 100, Bytes: 1000, InFlight: 1}, []int{1, 5000, 1}, "[1 1 1]"},
		{"no limits given", BatchLimits{}, []int{1, 1}, "[1 1]"},
		{"nothing", BatchLimits{Rows: 2}, nil, "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, sizes := ledger(t), []int{}
			var mu sync.Mutex
			b := NewBatcher(t.Context(), test.limits, testRetry,
				func(_ context.Context, batch []*record.Record) []Result {
					mu.Lock()
					defer mu.Unlock()
					sizes = append(sizes, len(batch))
					return make([]Result, len(batch))
				}, l.settle)
			for i, size := range test.texts {
				if err := b.Write(t.Context(), numbered(i, strings.Repeat("x", size))); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(sizes); got != test.want {
				t.Errorf("batches of %s records, want %s", got, test.want)
			}
			if len(l.all) != len(test.texts) {
				t.Errorf("%d of %d records settled", len(l.all), len(test.texts))
			}
		})
	}
}

// While nothing comes back, no more than the batches in flight and one are taken in.
func TestBatcherInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		flying, l := 0, ledger(t)
		b := NewBatcher(t.Context(), BatchLimits{Rows: 10, Bytes: 1 << 20, InFlight: 3}, testRetry,
			func(_ context.Context, batch []*record.Record) []Result {
				l.mu.Lock()
				flying++
				l.mu.Unlock()
				<-gate
				return make([]Result, len(batch))
			}, l.settle)
		accepted, done := 0, make(chan error)
		go func() {
			for i := range 1000 {
				if err := b.Write(t.Context(), numbered(i, "")); err != nil {
					t.Error(err)
				}
				accepted++
			}
			_, err := b.Flush(t.Context())
			done <- err
		}()
		synctest.Wait()
		if accepted != 40 || flying != 3 {
			t.Errorf("%d records taken in and %d batches under way, want 40 and 3", accepted, flying)
		}
		close(gate)
		if err := <-done; err != nil || len(l.all) != 1000 {
			t.Errorf("%d records settled, error %v", len(l.all), err)
		}
		b.Close()
	})
}

// Writers that share their slots have no more batches under way together than there are.
func TestBatchersShareSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var flying atomic.Int32
		limits := BatchLimits{Rows: 1, Bytes: 1 << 20, Slots: NewSlots(3)}
		l, done := ledger(t), make(chan error)
		for w := range 4 {
			b := NewBatcher(t.Context(), limits, testRetry, func(_ context.Context, batch []*record.Record) []Result {
				flying.Add(1)
				<-gate
				return make([]Result, len(batch))
			}, l.settle)
			defer b.Close()
			go func() {
				for i := range 10 {
					if err := b.Write(t.Context(), numbered(10*w+i, "")); err != nil {
						t.Error(err)
					}
				}
				_, err := b.Flush(t.Context())
				done <- err
			}()
		}
		synctest.Wait()
		if n := flying.Load(); n != 3 {
			t.Errorf("%d batches under way, want 3", n)
		}
		close(gate)
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if len(l.all) != 40 {
			t.Errorf("%d records settled, want 40", len(l.all))
		}
	})
}

// What passes by and by is written again alone, with growing pauses.
func TestBatcherRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t)
		var calls []string
		began := time.Now()
		b := NewBatcher(t.Context(), BatchLimits{Rows: 10, Bytes: 1 << 20}, testRetry,
			func(_ context.Context, batch []*record.Record) []Result {
				results := make([]Result, len(batch))
				var ids []int
				for i, r := range batch {
					ids = append(ids, number(r))
					switch n := number(r); {
					case n == 3:
						results[i].Err = errBad
					case n < 3 && len(calls) < n:
						results[i].Err = []error{errBusy, errSlow, errors.New("of no class")}[n]
					default:
						results[i].Outcome = record.Superseded
					}
				}
				calls = append(calls, fmt.Sprint(ids))
				return results
			}, l.settle)
		if err := writeAll(t.Context(), b, 5); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if got, want := strings.Join(calls, " "), "[0 1 2 3 4] [1 2] [2]"; got != want {
			t.Errorf("batches %s, want %s", got, want)
		}
		for n, attempts := range []int{1, 2, 3, 1, 1} {
			r := l.all[n]
			if r.Attempts != attempts || (n == 3) != (r.Outcome == record.Dead) ||
				(n != 3 && r.Outcome != record.Superseded) {
				t.Errorf("record %d: %+v after %d attempts, want %d", n, r.Outcome, r.Attempts, attempts)
			}
		}
		if !errors.Is(l.all[3].Err, errBad) {
			t.Errorf("the error is %v", l.all[3].Err)
		}
		// Full jitter: up to 200 ms, then up to 400 ms.
		if took := time.Since(began); took > 601*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// What never passes is given up when others passed, and ends the run when none did.
func TestBatcherDeadline(t *testing.T) {
	for _, test := range []struct {
		name    string
		passing func(n int) error
		want    error
		dead    int
	}{
		{"one of many", func(n int) error {
			if n == 2 {
				return errBusy
			}
			return nil
		}, nil, 1},
		{"the whole system", func(int) error { return errBusy }, errBusy, 0},
		{"refusals are no writes", func(n int) error {
			if n == 2 {
				return errBad
			}
			return errSlow
		}, errSlow, 0},
		{"all refused", func(int) error { return errBad }, nil, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, began := ledger(t), time.Now()
				b := NewBatcher(t.Context(), BatchLimits{Rows: 10, Bytes: 1 << 20}, testRetry,
					func(_ context.Context, batch []*record.Record) []Result {
						results := make([]Result, len(batch))
						for i, r := range batch {
							results[i].Err = test.passing(number(r))
						}
						return results
					}, l.settle)
				if err := writeAll(t.Context(), b, 5); !errors.Is(err, test.want) {
					t.Errorf("the error is %v, want %v", err, test.want)
				}
				b.Close()
				dead := 0
				for n, r := range l.all {
					if r.Outcome == record.Dead {
						dead++
					}
					if fail.ClassOf(r.Err) == fail.Transient && r.Err != nil && r.Attempts < 8 {
						t.Errorf("record %d was given up after %d attempts", n, r.Attempts)
					}
				}
				if test.want == nil && (dead != test.dead || len(l.all) != 5) {
					t.Errorf("%d of %d results are dead, want %d of 5", dead, len(l.all), test.dead)
				}
				if took := time.Since(began); took > testRetry.Deadline+testRetry.Max {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// A fatal error stops every batch at once and comes back from whatever is called.
func TestBatcherFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := ledger(t), time.Now()
		b := NewBatcher(t.Context(), BatchLimits{Rows: 1, Bytes: 1 << 20, InFlight: 4}, testRetry,
			func(ctx context.Context, batch []*record.Record) []Result {
				if number(batch[0]) == 3 {
					return AllFailed(batch, fmt.Errorf("wrapped: %w", errBroken))
				}
				<-ctx.Done()
				return AllFailed(batch, ctx.Err())
			}, l.settle)
		if err := writeAll(t.Context(), b, 100); !errors.Is(err, errBroken) {
			t.Errorf("Write gave %v", err)
		}
		if _, err := b.Flush(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Flush gave %v", err)
		}
		if err := b.Write(t.Context(), numbered(1000, "")); !errors.Is(err, errBroken) {
			t.Errorf("a later Write gave %v", err)
		}
		b.Close()
		if len(l.all) > 0 || time.Since(began) > 0 {
			t.Errorf("%d records settled, %s passed", len(l.all), time.Since(began))
		}
	})
}

func TestBatcherWrongNumberOfResults(t *testing.T) {
	for _, n := range []int{0, 2, 4} {
		l := ledger(t)
		b := NewBatcher(t.Context(), BatchLimits{Rows: 10, Bytes: 1 << 20}, testRetry,
			func(context.Context, []*record.Record) []Result {
				return make([]Result, n)
			}, l.settle)
		if err := writeAll(t.Context(), b, 3); fail.CodeOf(err) != "connector.results" ||
			fail.ClassOf(err) != fail.Fatal {
			t.Errorf("%d results for 3 records: %v", n, err)
		}
		b.Close()
		if len(l.all) > 0 {
			t.Errorf("%d records settled", len(l.all))
		}
	}
}

// A cancellation ends calls that wait, and a Flush after one never says that all is settled. synctest
// finds goroutines that stay behind.
func TestBatcherCancel(t *testing.T) {
	hang := func(ctx context.Context, batch []*record.Record) []Result {
		<-ctx.Done()
		return AllFailed(batch, ctx.Err())
	}
	busy := func(_ context.Context, batch []*record.Record) []Result { return AllFailed(batch, errBusy) }
	for name, write := range map[string]WriteBatch{"in a request": hang, "in a pause": busy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := ledger(t)
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				b := NewBatcher(t.Context(), BatchLimits{Rows: 1, Bytes: 1 << 20, InFlight: 2},
					testRetry, write, l.settle)
				if err := writeAll(ctx, b, 10); !errors.Is(err, context.Canceled) {
					t.Errorf("Write gave %v", err)
				}
				if _, err := b.Flush(t.Context()); !errors.Is(err, context.Canceled) {
					t.Errorf("Flush gave %v", err)
				}
				b.Close()
				if len(l.all) > 0 {
					t.Errorf("%d records settled", len(l.all))
				}

				b = NewBatcher(t.Context(), BatchLimits{Rows: 1, Bytes: 1 << 20, InFlight: 2},
					testRetry, write, l.settle)
				if err := b.Write(t.Context(), numbered(0, "")); err != nil {
					t.Error(err)
				}
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Flush gave %v", err)
				}
				b.Close()
				_ = NewBatcher(t.Context(), BatchLimits{}, testRetry, write, l.settle).Close()
			})
		})
	}
}

// Whatever mixture of errors a system gives, each record settles exactly once or the run ends by an error.
func TestBatcherSettlesEachOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 60).Draw(rt, "records")
		limits := BatchLimits{Rows: rapid.IntRange(1, 20).Draw(rt, "rows"), Bytes: 1 << 20,
			InFlight: rapid.IntRange(1, 4).Draw(rt, "in flight")}
		errs := rapid.SliceOfN(rapid.SampledFrom([]error{nil, nil, errBusy, errSlow, errBad}), 64, 64).
			Draw(rt, "errors")
		var mu sync.Mutex
		call := 0
		l := ledger(rt)
		var err error
		synctest.Test(t, func(t *testing.T) {
			b := NewBatcher(t.Context(), limits, testRetry, func(_ context.Context, batch []*record.Record) []Result {
				mu.Lock()
				defer mu.Unlock()
				results := make([]Result, len(batch))
				for i := range batch {
					call++
					results[i].Err = errs[call%len(errs)]
				}
				return results
			}, l.settle)
			err = writeAll(t.Context(), b, n)
			b.Close()
		})
		if err == nil && len(l.all) != n {
			rt.Errorf("%d of %d records settled", len(l.all), n)
		}
		if err != nil && fail.ClassOf(err) != fail.Transient && fail.ClassOf(err) != fail.Throttled {
			rt.Errorf("the run ends by %v", err)
		}
	})
}

// A record that always fails alone dies of it at the deadline, behind a gate too, while others are written; when
// nothing else is, its time stands still.
func TestBatcherLoneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t)
		write := func(_ context.Context, batch []*record.Record) []Result {
			time.Sleep(100 * time.Millisecond)
			if number(batch[0]) == 0 {
				return AllFailed(batch, errBusy)
			}
			return make([]Result, len(batch))
		}
		b := NewBatcher(WithGate(t.Context(), &seen{}), BatchLimits{Rows: 1, Bytes: 1 << 20, InFlight: 2},
			testRetry, write, l.settle)
		defer b.Close()
		began, n := time.Now(), 0
		more := func(until time.Duration) {
			for ; time.Since(began) < until; n++ {
				if err := b.Write(t.Context(), numbered(n, "")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		dead := func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.all[0].Err != nil
		}
		more(testRetry.Deadline / 2)
		time.Sleep(10 * testRetry.Deadline) // there is nothing else to write
		if dead() {
			t.Error("it is dead although nothing was written meanwhile")
		}
		began = time.Now()
		more(testRetry.Deadline)
		if _, err := b.Flush(t.Context()); err != nil || !dead() || len(l.all) != n {
			t.Errorf("dead %t, %d of %d settled: %v", dead(), len(l.all), n, err)
		}
	})
}

// A system that goes down in the middle of a batch is a matter of the gate, however long it is down; the rest
// of the batch does not die of it.
func TestBatcherOutageAfterPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began, down := ledger(t), time.Now(), false
		write := func(_ context.Context, batch []*record.Record) []Result {
			results := make([]Result, len(batch))
			for i := range batch {
				if down && time.Since(began) < 10*testRetry.Deadline || !down && i > 0 {
					results[i].Err = errBusy
				}
			}
			down = true
			return results
		}
		b := NewBatcher(WithGate(t.Context(), &seen{}), BatchLimits{Rows: 3, Bytes: 1 << 20},
			testRetry, write, l.settle)
		defer b.Close()
		if err := writeAll(t.Context(), b, 3); err != nil {
			t.Fatal(err)
		}
		for n, res := range l.all {
			if res.Err != nil {
				t.Errorf("record %d: %v", n, res.Err)
			}
		}
	})
}
