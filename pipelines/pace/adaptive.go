package pace

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"strings"
	"time"

	"reprise/transforms/fail"
)

const (
	decrease = 0.7
	increase = 0.02 // of the speed at the first resistance, for each second
	lowest   = 0.01 // of that speed
	lowSlow  = 0.2  // of that speed, where only latencies rise
	// A speed, in records a second, that is not lowered: what only waits for others would stand still.
	standstill = 1
	calm       = time.Minute // without resistance, after which a limit is dropped

	longer     = 2.0                   // times the usual p99
	noise      = 20 * time.Millisecond // a p99 up to which only says how busy this machine is
	sample     = 100                   // requests that make a p99
	usualRises = 10 * time.Minute
	usualFalls = time.Minute
)

// adaptive is the speed that a system seems to bear, in records a second of this worker, and how long its answers take.
type adaptive struct {
	limit float64       // 0: no resistance so far
	first float64       // speed at the first resistance
	cut   time.Time     // last decrease
	grown time.Time     // last increase
	since time.Duration // for which it has held something back since the last decrease

	latencies Histogram
	began     time.Time     // of latencies
	p50, p99  time.Duration // of the last full sample; 0: none yet
	usual     time.Duration // average of p99
}

// overloaded tells whether an error says that the system has too much to do.
func overloaded(err error) bool {
	return fail.ClassOf(err) == fail.Throttled || strings.HasSuffix(fail.CodeOf(err), ".timeout") ||
		errors.Is(err, context.DeadlineExceeded)
}

// slow lowers the limit, to a part of the first speed at the lowest, at most once in a while. full is the speed where
// there is no limit yet.
func (a *adaptive) slow(now time.Time, full, floor float64, while time.Duration) bool {
	if now.Sub(a.cut) < max(while, time.Second) {
		return false
	}
	if a.limit == 0 {
		if full < standstill {
			return false
		}
		a.limit, a.first = full, full
	}
	a.limit = max(a.limit*decrease, min(a.limit, floor*a.first))
	a.cut, a.grown, a.since = now, now, 0
	return true
}

// grow raises the limit if it has held something back, and drops it after a while: it may stem from a time when all was
// slower.
func (a *adaptive) grow(now time.Time, binding bool) {
	if a.limit > 0 && binding && now.Sub(a.cut) >= time.Second {
		elapsed := min(now.Sub(a.grown), time.Second)
		a.limit += increase * a.first * elapsed.Seconds()
		if a.since += elapsed; a.since >= calm {
			a.limit = 0
		}
	}
	a.grown = now
}

// observe takes in how long a request took, and tells whether requests have come to take longer than usual.
func (a *adaptive) observe(now time.Time, took time.Duration) bool {
	if a.latencies.n == 0 {
		a.began = now
	}
	a.latencies.Add(took)
	elapsed := now.Sub(a.began)
	if a.latencies.n < sample || elapsed < time.Second {
		return false
	}
	a.p50, a.p99 = a.latencies.Quantile(0.5), a.latencies.Quantile(0.99)
	a.latencies = Histogram{}
	if a.usual == 0 {
		a.usual = a.p99
		return false
	}
	rising := a.p99 > noise && float64(a.p99) > longer*float64(a.usual)
	over := usualRises
	if a.p99 < a.usual {
		over = usualFalls
	}
	a.usual += time.Duration(min(1, elapsed.Seconds()/over.Seconds()) * float64(a.p99-a.usual))
	return rising
}

// current are quantiles of the last requests; 0: there were none.
func (a *adaptive) current() (p50, p99 time.Duration) {
	if a.p99 == 0 {
		return a.latencies.Quantile(0.5), a.latencies.Quantile(0.99)
	}
	return a.p50, a.p99
}

// Histogram counts durations in buckets that are an eighth of a power of two wide at most (as HdrHistogram does), in
// microseconds.
type Histogram struct {
	n       int
	buckets [8 * 33]uint32 // up to an hour
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 8))
	shift := bits.Len64(us) - 4 // leaves four bits, the first of which is set
	h.buckets[min(shift*8+int(us>>shift)-8, len(h.buckets)-1)]++
	h.n++
}

// Quantile is an upper bound of a quantile; 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	rest := int(math.Ceil(q * float64(h.n)))
	if rest == 0 {
		return 0
	}
	for i, n := range h.buckets {
		if rest -= int(n); rest <= 0 {
			return time.Duration((i%8+9)<<(i/8)) * time.Microsecond
		}
	}
	return 0
}
