package pace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func quiet(c Config) *Pace { return New(c, "w", Options{Log: slog.New(slog.DiscardHandler)}) }

// opened is a pace that has begun, with one gate.
func opened(c Config) (*Pace, connector.Gate) {
	p := quiet(c)
	p.Apply(journal.Control{}, []journal.Beat{{Worker: "w"}})
	return p, p.Gate("sink")
}

// drive calls Apply as a worker does, for some time.
func drive(p *Pace, c journal.Control, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		p.Apply(c, []journal.Beat{{Worker: "w"}})
	}
}

func must(t testing.TB, gate connector.Gate, records int) func(int, int64, error) {
	t.Helper()
	leave, err := gate.Enter(context.Background(), records, 0)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// entering is a request that waits in a goroutine.
func entering(gate connector.Gate) (passed *atomic.Bool, err chan error) {
	passed, err = new(atomic.Bool), make(chan error, 1)
	go func() {
		leave, e := gate.Enter(context.Background(), 1, 1)
		if e == nil {
			passed.Store(true)
			leave(0, 0, nil)
		}
		err <- e
	}()
	synctest.Wait()
	return passed, err
}

func TestNothingPassesBeforeTheFirstApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := quiet(Config{})
		passed, err := entering(p.Gate("sink"))
		if passed.Load() || p.Waiting() != "starting" {
			t.Errorf("passed %v, waiting %q", passed.Load(), p.Waiting())
		}
		p.Apply(journal.Control{}, nil)
		if e := <-err; e != nil || p.Waiting() != "" {
			t.Errorf("%v, waiting %q", e, p.Waiting())
		}
	})
}

// A sink that would gather large batches keeps its rate over any second, the first one included.
func TestRateIsEvenWhateverTheBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, seconds = 250, 20
		p, gate := opened(Config{Rates: map[string]journal.Rate{"sink": {Records: rate}}})
		ctx, cancel := context.WithCancel(connector.WithGate(t.Context(), gate))
		defer cancel()
		var mu sync.Mutex
		var times []time.Time
		write := func(_ context.Context, batch []*record.Record) []connector.Result {
			mu.Lock()
			defer mu.Unlock()
			for range batch {
				times = append(times, time.Now())
			}
			return make([]connector.Result, len(batch))
		}
		b := connector.NewBatcher(ctx, connector.BatchLimits{Rows: 5000, Bytes: 1 << 30, InFlight: 4},
			connector.DefaultRetry, write, func([]connector.Result) {})
		defer b.Close()
		schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)}}, "id")
		var driving sync.WaitGroup
		driving.Go(func() { drive(p, journal.Control{}, (seconds+2)*time.Second) })
		defer driving.Wait()
		began := time.Now()
		for i := range rate * seconds {
			if err := b.Write(ctx, &record.Record{Schema: schema,
				Values: []record.Value{record.Number(record.Int, int64(i))}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if took := time.Since(began); took > (seconds+1)*time.Second {
			t.Errorf("%d records took %v", rate*seconds, took)
		}
		for second := range seconds {
			from, n := began.Add(time.Duration(second)*time.Second), 0
			for _, at := range times {
				if !at.Before(from) && at.Before(from.Add(time.Second)) {
					n++
				}
			}
			if n > rate*13/10 {
				t.Errorf("%d records in second %d, at a rate of %d", n, second, rate)
			}
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		p.Apply(journal.Control{Want: journal.Pause, Reason: "operator"}, nil)
		began := time.Now()
		passed, err := entering(gate)
		drive(p, journal.Control{Want: journal.Pause, Reason: "operator"}, time.Hour)
		if why, cause := p.Why(); passed.Load() || why != "paused: operator" || cause != journal.ByOperator {
			t.Errorf("passed %v, waiting %q (%s)", passed.Load(), why, cause)
		}
		p.Apply(journal.Control{Want: journal.Go}, nil)
		if e := <-err; e != nil || time.Since(began) != time.Hour {
			t.Errorf("%v after %v", e, time.Since(began))
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{Requests: map[string]int{"sink": 1}})
		leave := must(t, gate, 1)
		_, first := entering(gate)
		_, second := entering(gate)
		p.Apply(journal.Control{Want: journal.Stop}, nil)
		for _, err := range []chan error{first, second} {
			if e := <-err; !errors.Is(e, ErrStopped) || fail.ExitOf(e) != fail.ExitStopped ||
				!errors.Is(e, context.Canceled) {
				t.Errorf("got %v", e)
			}
		}
		leave(0, 0, nil)
		must(t, gate, 1)(0, 0, nil) // what need not wait still passes
	})
}

func TestRequestsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{Requests: map[string]int{"sink": 2}})
		a, b := must(t, gate, 1), must(t, gate, 1)
		passed, err := entering(gate)
		if passed.Load() {
			t.Error("a third request passed")
		}
		a(0, 0, nil)
		if e := <-err; e != nil {
			t.Error(e)
		}
		c := must(t, gate, 1)
		_, err = entering(gate)
		p.Apply(journal.Control{Limits: map[string]int{"sink": 3}}, nil)
		if e := <-err; e != nil {
			t.Error(e)
		}
		b(0, 0, nil)
		c(0, 0, nil)
	})
}

func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		p.Apply(journal.Control{Want: journal.Pause}, nil)
		ctx, cancel := context.WithCancelCause(context.Background())
		errs := make(chan error)
		for range 3 {
			go func() {
				_, err := gate.Enter(ctx, 1, 1)
				errs <- err
			}()
		}
		synctest.Wait()
		cancel(io.ErrClosedPipe)
		for range 3 {
			if err := <-errs; !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestLargeRequestsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate := opened(Config{Rates: map[string]journal.Rate{"sink": {Bytes: 1000}}})
		began := time.Now()
		for range 3 {
			leave, err := gate.Enter(context.Background(), 1, 5000)
			if err != nil {
				t.Fatal(err)
			}
			leave(0, 0, nil)
		}
		if got := time.Since(began).Round(time.Millisecond); got != 10*time.Second {
			t.Errorf("three requests of 5000 bytes at 1000/s: the third after %v, want 10s", got)
		}
	})
}

// TestSharesAddUp: nobody gets more than it demands, all who lack get the same, and no share is lost.
func TestSharesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		others := rapid.SliceOfN(rapid.Float64Range(0, 100), 0, 8).Draw(t, "others")
		whole := rapid.Float64Range(0, 300).Draw(t, "whole")
		mine := part(whole, others)
		sum := mine
		for _, demand := range others {
			sum += min(demand, mine)
		}
		if diff := sum - whole; diff > 1e-6 || diff < -1e-6 {
			t.Fatalf("shares of %v are %v together", whole, sum)
		}
	})
}

// server is a system that can be down, reject, or be slow.
type server struct {
	down     atomic.Bool
	requests atomic.Int64
}

var errDown = fail.Unreachable("sink.unreachable", "no answer")

func (s *server) try(gate connector.Gate) error {
	leave, err := gate.Enter(context.Background(), 10, 1000)
	if err != nil {
		return err
	}
	s.requests.Add(1)
	time.Sleep(10 * time.Millisecond)
	if s.down.Load() {
		err = errDown
	}
	leave(0, 0, err)
	return nil
}

func TestBreakerWaitsForTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		var s server
		var stop atomic.Bool
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for !stop.Load() {
					if err := s.try(gate); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		drive(p, journal.Control{}, 5*time.Second)
		s.down.Store(true)
		since := time.Now().Format("15:04")
		before := s.requests.Load()
		drive(p, journal.Control{}, 10*time.Minute)
		if n := s.requests.Load() - before; n < 100 || n > 1000 { // one each 2.5 s on average, and 8 or so at first
			t.Errorf("%d requests to a server that was down for 10 minutes", n)
		}
		if got, want := p.Waiting(), "sink is down since "+since+": no answer"; got != want {
			t.Errorf("waiting %q, want %q", got, want)
		}
		_, cause := p.Why()
		if g := p.Gauges()["sink"]; cause != journal.BySystem || !g.Down || g.Errors["transient"] == 0 ||
			g.Errors["transient"] != g.Retries {
			t.Errorf("cause %q, %+v", cause, g)
		}
		s.down.Store(false)
		before = s.requests.Load()
		drive(p, journal.Control{}, 6*time.Second)
		if n := s.requests.Load() - before; n < 500 || p.Waiting() != "" {
			t.Errorf("%d requests within 6 s after the server came back, waiting %q", n, p.Waiting())
		}
		stop.Store(true)
		workers.Wait()
	})
}

// What is under way and not answered is told before it has failed; answers end that.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		enter := func() func(int, int64, error) {
			leave, err := gate.Enter(t.Context(), 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		tells := func(want string) {
			t.Helper()
			if why, cause := p.Why(); why != want || cause != "" {
				t.Errorf("it waits for %q, by %q, want %q", why, cause, want)
			}
		}
		drive(p, journal.Control{}, time.Minute)
		tells("")
		first := enter()
		drive(p, journal.Control{}, 4*time.Second)
		tells("")
		second := enter()
		drive(p, journal.Control{}, 8*time.Second)
		tells("no answer from sink for 12s")
		second(1, 0, nil)
		tells("")
		drive(p, journal.Control{}, 6*time.Second)
		tells("no answer from sink for 6s")
		first(1, 0, nil)
		drive(p, journal.Control{}, time.Minute)
		tells("")
	})
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		var s server
		s.down.Store(true)
		began := time.Now()
		errs := make(chan error, 4)
		for range cap(errs) {
			go func() {
				for {
					if err := s.try(gate); err != nil {
						errs <- err
						return
					}
				}
			}()
		}
		pause := journal.Control{Want: journal.Pause}
		drive(p, journal.Control{}, 10*time.Minute)
		drive(p, pause, time.Hour) // a paused run does not ask whether the system is back
		p.Apply(journal.Control{}, nil)
		for range cap(errs) {
			err := <-errs
			if fail.ClassOf(err) != fail.Transient || fail.CodeOf(err) != "sink.unreachable" ||
				fail.ExitOf(err) != fail.ExitUnreachable ||
				!strings.HasPrefix(err.Error(), "sink has not answered for ") ||
				!strings.Contains(err.Error(), ": no answer [sink.unreachable]") {
				t.Errorf("got %v", err)
			}
		}
		if got := time.Since(began).Round(time.Minute); got != 85*time.Minute {
			t.Errorf("given up after %v, want 15m without the pause: 1h25m", got)
		}
	})
}

// TestSlowFailures: a system is also given up when each request takes longer to fail than a system may be down.
func TestSlowFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate := opened(Config{Outage: connector.Duration(10 * time.Second)})
		failed := 0
		for {
			leave, err := gate.Enter(t.Context(), 1, 0)
			if err != nil {
				if fail.ExitOf(err) != fail.ExitUnreachable {
					t.Errorf("a run that ends by %v exits with %d", err, fail.ExitOf(err))
				}
				break
			}
			time.Sleep(30 * time.Second)
			leave(0, 0, fail.New(fail.Transient, "sink.silent", "no answer"))
			if failed++; failed > 3 {
				t.Fatalf("%d requests of 30s each have failed, and another may be sent", failed)
			}
		}
		if failed < 2 {
			t.Errorf("given up after %d failures", failed)
		}
	})
}

// TestRecordErrorsAreNoOutage: what is wrong with records says nothing about the system.
func TestRecordErrorsAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		for range 100 {
			must(t, gate, 1)(0, 0, fail.New(fail.Permanent, "sink.mapping", "no such field"))
			must(t, gate, 1)(0, 0, context.Canceled)
		}
		g := p.Gauges()["sink"]
		if diff := cmp.Diff(map[string]int64{"permanent": 100}, g.Errors); p.Waiting() != "" || g.Retries != 0 ||
			diff != "" {
			t.Errorf("waiting %q, %d retries, %s", p.Waiting(), g.Retries, diff)
		}
	})
}

// TestRetryBudget: where every second request fails, the failures come to less than 20 % of what would be sent freely.
func TestRetryBudget(t *testing.T) {
	failures := func(retries string) (n int64) {
		synctest.Test(t, func(t *testing.T) {
			p, gate := opened(Config{Retries: retries, Adaptive: &Adaptive{Off: true}})
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var flip atomic.Int64
			var requesters sync.WaitGroup
			for range 4 {
				requesters.Go(func() {
					for {
						leave, err := gate.Enter(ctx, 1, 1)
						if err != nil {
							return
						}
						time.Sleep(5 * time.Millisecond)
						if flip.Add(1)%2 == 0 {
							leave(0, 0, errDown)
						} else {
							leave(0, 0, nil)
						}
					}
				})
			}
			drive(p, journal.Control{}, time.Minute)
			requesters.Wait()
			n = p.Gauges()["sink"].Retries
		})
		return n
	}
	free, held := failures("100%"), failures("20%")
	if held > free/5 {
		t.Errorf("%d retries with a budget, %d without", held, free)
	}
}

func TestDurationsInMessages(t *testing.T) {
	for d, want := range map[time.Duration]string{15 * time.Minute: "15m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		30 * time.Second: "30s", 61 * time.Second: "1m1s"} {
		if got := short(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// TestNeverStuck: whatever is ordered, no more passes than the rate allows, and nobody waits for ever once nothing
// stands in the way.
func TestNeverStuck(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			control journal.Control
			down    bool
			lasts   time.Duration
		}
		const rate, largest, requesters = 1000.0, 300, 4
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				control: journal.Control{
					Want:   rapid.SampledFrom([]journal.Want{journal.Go, journal.Go, journal.Pause}).Draw(t, "want"),
					Limits: map[string]int{"sink": rapid.IntRange(0, 5).Draw(t, "limit")},
					Rates: map[string]journal.Rate{"sink": {Records: rate * rapid.Float64Range(0.01, 1).Draw(t,
						"part")}},
				},
				down:  rapid.IntRange(0, 3).Draw(t, "down") == 0,
				lasts: time.Duration(rapid.IntRange(1, 5000).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, 8).Draw(rt, "steps")
		sizes := rapid.SliceOfN(rapid.IntRange(0, largest), 1, 20).Draw(rt, "sizes")
		problem := ""
		synctest.Test(t, func(t *testing.T) {
			p, gate := opened(Config{Rates: map[string]journal.Rate{"sink": {Records: rate}}})
			began := time.Now()
			var down, stop atomic.Bool
			var passed atomic.Int64
			var workers sync.WaitGroup
			for w := range requesters {
				workers.Go(func() {
					for i := w; !stop.Load(); i++ {
						n := sizes[i%len(sizes)]
						leave, err := gate.Enter(context.Background(), n, 0)
						if err != nil {
							return
						}
						passed.Add(int64(n))
						time.Sleep(time.Millisecond)
						if down.Load() {
							leave(1, 0, fail.New(fail.Throttled, "sink.throttled", "slower"))
						} else {
							leave(1, 0, nil)
						}
						passed.Add(1)
					}
				})
			}
			for _, s := range steps {
				down.Store(s.down)
				drive(p, s.control, s.lasts)
			}
			if n, most := float64(passed.Load()),
				rate*(catchUp*time.Since(began).Seconds()+burst)+largest+2*requesters; n > most {
				problem = fmt.Sprintf("%v passed, at most %v may", n, most)
			}
			down.Store(false)
			stop.Store(true)
			done := make(chan struct{})
			go func() { workers.Wait(); close(done) }()
			for range 4 * 600 {
				drive(p, journal.Control{Rates: map[string]journal.Rate{"sink": {}}}, 250*time.Millisecond)
				select {
				case <-done:
					return
				default:
				}
			}
			problem = "somebody still waits ten minutes after all obstacles are gone"
			p.Apply(journal.Control{Want: journal.Stop}, nil)
			<-done
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

func BenchmarkGate(b *testing.B) {
	for name, c := range map[string]Config{"free": {},
		"with rates": {Rates: map[string]journal.Rate{"sink": {Records: 1e12, Bytes: 1e15}}}} {
		b.Run(name, func(b *testing.B) {
			_, gate := opened(c)
			b.ReportAllocs()
			for b.Loop() {
				leave, err := gate.Enter(b.Context(), 1, 100)
				if err != nil {
					b.Fatal(err)
				}
				leave(0, 0, nil)
			}
		})
	}
}
