package pace

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// bottleneck serves some records a second: it queues, and rejects what would wait for too long.
type bottleneck struct {
	mu       sync.Mutex
	capacity float64
	longest  time.Duration
	free     time.Time // when the queue is empty
	served   int       // requests
	rejected int
}

// rejections is the part of requests that were rejected since it was last asked.
func (b *bottleneck) rejections() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	part := float64(b.rejected) / float64(b.rejected+b.served)
	b.rejected, b.served = 0, 0
	return part
}

func (b *bottleneck) serve(n int) error {
	b.mu.Lock()
	now := time.Now()
	if b.free.Before(now) {
		b.free = now
	}
	if b.free.Sub(now) > b.longest {
		b.rejected++
		b.mu.Unlock()
		time.Sleep(time.Millisecond)
		return fail.New(fail.Throttled, "sink.throttled", "the queue is full")
	}
	b.free = b.free.Add(time.Duration(float64(n) / b.capacity * float64(time.Second)))
	b.served++
	done := b.free
	b.mu.Unlock()
	time.Sleep(time.Until(done))
	return nil
}

func (b *bottleneck) set(capacity float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.capacity = capacity
}

// against lets requesters go at a bottleneck; rejected requests come again after a moment.
func against(b *bottleneck, records int) work {
	return func(ctx context.Context, gate connector.Gate, passed func(int)) error {
		leave, err := gate.Enter(ctx, records, 0)
		if err != nil {
			return err
		}
		err = b.serve(records)
		if err == nil {
			passed(records)
		}
		leave(0, 0, err)
		if err != nil {
			time.Sleep(rand.N(50 * time.Millisecond))
		}
		return nil
	}
}

// TestAdaptiveConverges: workers that know nothing of each other come to use most of what the system takes, and follow
// it.
func TestAdaptiveConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun()
		b := &bottleneck{capacity: 10_000, longest: 100 * time.Millisecond}
		one := r.start(Config{}, "a", 16, time.Second, against(b, 100))
		two := r.start(Config{}, "b", 16, time.Second, against(b, 100))
		for _, c := range []struct {
			capacity float64
			lasts    time.Duration
		}{{10_000, 60 * time.Second}, {2000, 120 * time.Second}, {10_000, 120 * time.Second}} {
			b.set(c.capacity)
			time.Sleep(c.lasts / 2)
			b.rejections()
			time.Sleep(c.lasts / 2)
			part := b.rejections()
			t.Logf("at %v records/s %.1f %% of the requests are rejected", c.capacity, 100*part)
			if part > 0.15 {
				t.Errorf("%.0f %% of the requests are rejected at %v records/s", 100*part, c.capacity)
			}
		}
		one()
		two()
		r.all.Wait()
		for _, x := range []struct {
			capacity float64
			from, to time.Duration
		}{{10_000, 30 * time.Second, 60 * time.Second}, {2000, 120 * time.Second, 180 * time.Second},
			{10_000, 240 * time.Second, 300 * time.Second}} {
			got := r.sum(x.from, x.to) / (x.to - x.from).Seconds() / x.capacity
			t.Logf("from %v: %.0f %% of what the system takes", x.from, 100*got)
			if got < 0.7 || got > 1.02 {
				t.Errorf("from %v: %.0f %% of what the system takes, want 70 to 100 %%", x.from, 100*got)
			}
		}
	})
}

// TestRisingLatency: requests that take three times as long as usual slow the run down, but not below a fifth; what
// lasts becomes usual.
func TestRisingLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{})
		var mu sync.Mutex
		takes := 10 * time.Millisecond
		ctx, cancel := context.WithCancel(context.Background())
		var requesters sync.WaitGroup
		for range 8 {
			requesters.Go(func() {
				for {
					leave, err := gate.Enter(ctx, 10, 0)
					if err != nil {
						return
					}
					mu.Lock()
					d := takes
					mu.Unlock()
					time.Sleep(d + rand.N(d/5))
					leave(0, 0, nil)
				}
			})
		}
		speed := func(d time.Duration) float64 {
			before := p.Gauges()["sink"].Records
			drive(p, journal.Control{}, d)
			return float64(p.Gauges()["sink"].Records-before) / d.Seconds()
		}
		usual := speed(30 * time.Second)
		if asked := p.Gauges()["sink"].Asked; asked != (journal.Rate{}) {
			t.Errorf("slowed down to %v with nothing amiss", asked)
		}
		mu.Lock()
		takes = 30 * time.Millisecond
		mu.Unlock()
		speed(15 * time.Second)
		if slow := speed(10*time.Second) / usual; slow > 0.3 || slow < 0.15 {
			t.Errorf("%.0f %% of the usual speed at three times the latency", 100*slow)
		}
		speed(20 * time.Minute)
		if again := speed(10*time.Second) / usual; again < 0.3 {
			t.Errorf("%.0f %% of the usual speed where three times the latency has become usual", 100*again)
		}
		cancel()
		requesters.Wait()
	})
}

func TestTimeoutsSlowDown(t *testing.T) {
	for err, want := range map[error]bool{
		fail.New(fail.Transient, "cassandra.timeout", "late"):            true,
		fail.Unreachable("elasticsearch.timeout", "late"):                true,
		fail.New(fail.Throttled, "cassandra.overloaded", "slower"):       true,
		fail.New(fail.Throttled, "elasticsearch.throttled", "429"):       true,
		context.DeadlineExceeded:                                         true,
		fail.Unreachable("cassandra.unreachable", "no host"):             false,
		fail.New(fail.Transient, "cassandra.unavailable", "no replicas"): false,
	} {
		if got := overloaded(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestAdaptiveOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, gate := opened(Config{Adaptive: &Adaptive{Off: true}})
		for range 50 {
			leave := must(t, gate, 10)
			time.Sleep(10 * time.Millisecond)
			leave(0, 0, nil)
			must(t, gate, 10)(0, 0, fail.New(fail.Throttled, "x.y", "slower"))
		}
		if asked := p.Gauges()["sink"].Asked; asked != (journal.Rate{}) {
			t.Errorf("slowed down to %v", asked)
		}
	})
}

func TestHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(0.99) != 0 {
		t.Error("a quantile of nothing")
	}
	for i := range 1000 {
		h.Add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond,
		1: time.Second} {
		if got := h.Quantile(q); math.Abs(float64(got-want)) > 0.125*float64(want) {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	h.Add(0)
	h.Add(1000 * time.Hour)
}
