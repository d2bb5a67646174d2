package pace

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
)

// run is workers of one run in virtual time, a journal that they share, and what passed the gates of the system "sink".
type run struct {
	began  time.Time
	mu     sync.Mutex
	want   journal.Control
	beats  map[string]journal.Beat
	passed []passing
	all    sync.WaitGroup
}

type passing struct {
	after   time.Duration
	records int
}

func newRun() *run { return &run{began: time.Now(), beats: map[string]journal.Beat{}} }

// work is what each of several requesters of a worker does over and over.
type work func(ctx context.Context, gate connector.Gate, passed func(records int)) error

// writing sends requests of some records that take some time.
func writing(records int, takes time.Duration) work {
	return func(ctx context.Context, gate connector.Gate, passed func(int)) error {
		leave, err := gate.Enter(ctx, records, int64(records)*100)
		if err != nil {
			return err
		}
		passed(records)
		time.Sleep(takes)
		leave(0, 0, nil)
		return nil
	}
}

// reading learns what a request carries from its answer.
func reading(records int, takes time.Duration) work {
	return func(ctx context.Context, gate connector.Gate, passed func(int)) error {
		leave, err := gate.Enter(ctx, 0, 0)
		if err != nil {
			return err
		}
		time.Sleep(takes)
		passed(records)
		leave(records, int64(records)*100, nil)
		return nil
	}
}

// start lets a worker work until it is killed or the run is stopped.
func (r *run) start(c Config, name string, requesters int, beat time.Duration, w work) (kill func()) {
	ctx, cancel := context.WithCancel(context.Background())
	p := New(c, name, Options{Log: slog.New(slog.DiscardHandler)})
	gate := p.Gate("sink")
	r.all.Go(func() {
		defer p.Close()
		for last := (time.Time{}); ctx.Err() == nil; time.Sleep(250 * time.Millisecond) {
			r.mu.Lock()
			if time.Since(last) >= beat {
				last = time.Now()
				r.beats[name] = journal.Beat{Worker: name, At: last, Systems: p.Gauges()}
			}
			want, beats := r.want, slices.Collect(maps.Values(r.beats))
			r.mu.Unlock()
			p.Apply(want, beats)
		}
	})
	for range requesters {
		r.all.Go(func() {
			for w(ctx, gate, r.note) == nil && ctx.Err() == nil {
			}
		})
	}
	return cancel
}

func (r *run) note(records int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed = append(r.passed, passing{time.Since(r.began), records})
}

func (r *run) sum(from, to time.Duration) (n float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.passed {
		if from <= p.after && p.after < to {
			n += float64(p.records)
		}
	}
	return n
}

// worst is the largest relative error of a rate over any window of 10 s.
func (r *run) worst(rate float64, from, to time.Duration) (under, over float64, text string) {
	const window = 10 * time.Second
	for at := from; at+window <= to; at += 100 * time.Millisecond {
		e := r.sum(at, at+window)/(rate*window.Seconds()) - 1
		if e < under || e > over {
			text += fmt.Sprintf(" %+.1f %% from %v", 100*e, at)
		}
		under, over = min(under, e), max(over, e)
	}
	return under, over, text
}

func within(t *testing.T, r *run, rate float64, from, to time.Duration, bound float64) {
	t.Helper()
	under, over, text := r.worst(rate, from, to)
	t.Logf("error over 10 s from %v to %v: %.2f to %+.2f %%", from, to, 100*under, 100*over)
	if math.Max(-under, over) > bound {
		t.Errorf("errors above %v %%:%s", 100*bound, text)
	}
}

// TestRateOfTheRun measures the rate over every window of 10 s while a worker is killed, which no other notices but by
// its heartbeats.
func TestRateOfTheRun(t *testing.T) {
	const rate = 5000
	for _, x := range []struct {
		name    string
		workers int
		beat    time.Duration
		bound   float64
		work    work
	}{
		{"1 worker", 1, 250 * time.Millisecond, 0.02, writing(100, 5*time.Millisecond)},
		{"2 workers", 2, 250 * time.Millisecond, 0.05, writing(100, 5*time.Millisecond)},
		{"4 workers", 4, 250 * time.Millisecond, 0.05, writing(100, 5*time.Millisecond)},
		{"4 workers with large requests", 4, 250 * time.Millisecond, 0.05, writing(1000, 50*time.Millisecond)},
		{"2 workers reading", 2, 250 * time.Millisecond, 0.05, reading(200, 20*time.Millisecond)},
		{"4 workers that beat each second", 4, time.Second, 0.05, writing(100, 5*time.Millisecond)},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun()
				c := Config{Rates: map[string]journal.Rate{"sink": {Records: rate}}}
				kills := make([]func(), x.workers)
				for i := range kills {
					kills[i] = r.start(c, fmt.Sprint("w", i), 4, x.beat, x.work)
					time.Sleep(70 * time.Millisecond)
				}
				time.Sleep(20*time.Second + 130*time.Millisecond)
				if x.workers > 1 {
					kills[0]()
				}
				time.Sleep(20 * time.Second)
				for _, kill := range kills {
					kill()
				}
				r.all.Wait()
				within(t, r, rate, time.Second, 40*time.Second, x.bound)
			})
		})
	}
}

func TestBytesOfTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		c := Config{Rates: map[string]journal.Rate{"sink": {Records: 1e6, Bytes: 500_000}}} // 100 bytes a record
		a := r.start(c, "a", 4, 250*time.Millisecond, writing(100, time.Millisecond))
		b := r.start(c, "b", 4, 250*time.Millisecond, reading(100, time.Millisecond))
		time.Sleep(30 * time.Second)
		a()
		b()
		r.all.Wait()
		within(t, r, 5000, 2*time.Second, 30*time.Second, 0.05)
	})
}

// TestUnevenWorkers: who cannot use its share leaves it to the others.
func TestUnevenWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 5000
		r := newRun()
		c := Config{Rates: map[string]journal.Rate{"sink": {Records: rate}}}
		var kills []func()
		// they could do 400 k, 800, 800 and 40 a second
		for i, takes := range []time.Duration{time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond,
			10 * time.Second} {
			kills = append(kills, r.start(c, fmt.Sprint("w", i), 4, 250*time.Millisecond, writing(100, takes)))
		}
		time.Sleep(40 * time.Second)
		for _, kill := range kills {
			kill()
		}
		r.all.Wait()
		within(t, r, rate, 5*time.Second, 40*time.Second, 0.05)
	})
}

// TestRateChanges: throttling takes effect within two seconds, with no burst at its end.
func TestRateChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		c := Config{Rates: map[string]journal.Rate{"sink": {Records: 1000}}}
		var kills []func()
		for i := range 4 {
			kills = append(kills, r.start(c, fmt.Sprint("w", i), 4, 250*time.Millisecond, writing(2, time.Millisecond)))
		}
		set := func(c journal.Control) { r.mu.Lock(); r.want = c; r.mu.Unlock() }
		time.Sleep(15 * time.Second)
		set(journal.Control{Rates: map[string]journal.Rate{"sink": {Records: 100}}})
		time.Sleep(15 * time.Second)
		set(journal.Control{Want: journal.Pause, Rates: map[string]journal.Rate{"sink": {Records: 100}}})
		time.Sleep(15 * time.Second)
		set(journal.Control{Rates: map[string]journal.Rate{"sink": {Records: 4000}}})
		time.Sleep(15 * time.Second)
		for _, kill := range kills {
			kill()
		}
		r.all.Wait()
		within(t, r, 1000, 2*time.Second, 15*time.Second, 0.05)
		within(t, r, 100, 17*time.Second, 30*time.Second, 0.05)
		if n := r.sum(30*time.Second+300*time.Millisecond, 45*time.Second); n > 0 {
			t.Errorf("%v records passed while the run was paused", n)
		}
		within(t, r, 4000, 46*time.Second, 60*time.Second, 0.05)
		if n := r.sum(45*time.Second, 46*time.Second); n > 1.5*4000 {
			t.Errorf("%v records in the second after the pause, at 4000/s", n)
		}
	})
}
