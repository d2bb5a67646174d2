package pace

import (
	"math"
	"slices"
	"time"

	"reprise/io/journal"
)

// unit is what a rate counts.
type unit int

const (
	inRecords unit = iota
	inBytes
	units
)

const (
	burst   = 0.25 // seconds of its rate that a worker may pass at once
	catchUp = 1.25 // times its rate that the run goes at most, to make up for what it missed
	expiry  = 0.5  // seconds after which the run's unused allowance is lost
	debt    = 2.0  // seconds of its rate that the run is at most made to wait for what it passed too much
	slack   = 1.1  // times its speed that is left to another worker that does not use all of its share
	hungry  = 0.8  // of its share, which a worker has used that is thought to be able to use more
)

// forever is a wait that only a wake-up ends.
const forever = time.Duration(math.MaxInt64)

// quota is what a worker may pass of one unit: a token bucket that may be overdrawn.
type quota struct {
	rate   float64 // tokens a second; +Inf: no limit
	tokens float64
	at     time.Time // of tokens
	passed float64   // ever
	share  float64   // of the run's rate; +Inf: it has none

	allowed  float64   // of the whole run, if all were measured from the same start
	run      float64   // rate of the whole run at that time; 0: none
	reckoned time.Time // of allowed
	before   float64   // counted at that time
	speed    float64   // of this worker, a second, lately
}

// peer is another worker, as its heartbeats show it.
type peer struct {
	at       time.Time     // of its last heartbeat, by its own clock
	seen     time.Time     // when that was first seen here, by ours
	interval time.Duration // between its heartbeats
	count    [units]float64
	speed    [units]float64 // a second, lately
	asked    [units]float64 // its share at that time; 0: not known
	hungry   [units]bool    // it used all of its share
	known    bool           // speed and hungry are
}

// late is the age of a heartbeat from which on its worker counts as dead. One that is only late is back soon, and the
// sums tell what passed meanwhile.
func (p *peer) late() time.Duration { return p.interval*5/4 + 150*time.Millisecond }

func (q *quota) refill(now time.Time) {
	if elapsed := now.Sub(q.at).Seconds(); elapsed > 0 && !math.IsInf(q.rate, 1) {
		q.tokens = min(q.tokens+q.rate*elapsed, q.rate*burst)
	}
	q.at = now
}

func (q *quota) charge(n float64) {
	q.passed += n
	if !math.IsInf(q.rate, 1) {
		q.tokens -= n
	}
}

// wait is how long to wait until something may pass.
func (q *quota) wait() time.Duration {
	const rounding = 1e-6
	switch {
	case math.IsInf(q.rate, 1):
		return 0
	case q.rate == 0:
		return forever
	case q.tokens >= -rounding:
		return 0
	}
	seconds := -q.tokens / q.rate
	if seconds > 1e6 {
		return forever
	}
	return time.Duration(seconds*float64(time.Second)) + 1
}

// setRate also forgives debts where there is no limit any more.
func (q *quota) setRate(now time.Time, rate float64) {
	q.refill(now)
	q.rate = rate
	if math.IsInf(rate, 1) {
		q.tokens = 0
	}
}

// counted is what has passed, less what the bucket is overdrawn by: a large request counts while it is paid for, so
// that counts of workers are as steady as their rates.
func (q *quota) counted() float64 { return q.passed + min(0, q.tokens) }

// hear takes in the heartbeats of the other workers.
func (s *system) hear(now time.Time, self string, beats []journal.Beat) {
	for _, b := range beats {
		if b.Worker == self {
			continue
		}
		g := b.Systems[s.name]
		count := [units]float64{float64(g.Records), float64(g.Bytes)}
		asked := [units]float64{g.Asked.Records, float64(g.Asked.Bytes)}
		p := s.peers[b.Worker]
		if p == nil {
			s.peers[b.Worker] = &peer{at: b.At, seen: now, interval: time.Second, count: count, asked: asked}
			for u := range s.quotas {
				s.quotas[u].allowed += count[u] // what it passed before we knew of it is not owed
			}
			continue
		}
		elapsed := b.At.Sub(p.at)
		if elapsed == 0 {
			continue
		}
		if elapsed > 0 {
			for u := range count {
				speed := (count[u] - p.count[u]) / elapsed.Seconds()
				if p.known {
					speed = p.speed[u] + (speed-p.speed[u])*min(1, elapsed.Seconds()) // over the last second, about
				}
				p.speed[u] = speed
				p.hungry[u] = speed >= hungry*min(asked[u], p.asked[u]) // a share that grew could not be used before
			}
			p.interval, p.known = min(elapsed, 2*time.Second), true
		}
		p.at, p.seen, p.count, p.asked = b.At, now, count, asked
	}
}

// share is this worker's part of the run's rate, a second; +Inf: there is no limit.
func (s *system) share(now time.Time, u unit) float64 {
	q := &s.quotas[u]
	q.refill(now)
	own := q.counted()
	run := s.rate[u]
	scaled := run * s.order.scale

	total := own
	demands := make([]float64, 0, len(s.peers))
	for _, p := range s.peers {
		total += p.count[u]
		if age := now.Sub(p.seen); age < p.late() {
			total += min(p.speed[u], catchUp*scaled) * age.Seconds()
			demand := slack*p.speed[u] + 0.01*scaled
			if p.hungry[u] || !p.known {
				demand = math.Inf(1)
			}
			demands = append(demands, demand)
		}
	}

	elapsed := now.Sub(q.reckoned).Seconds()
	if elapsed > 0 {
		q.speed = (q.speed + (own-q.before)/elapsed) / 2
	}
	q.allowed += scaled * elapsed
	if run != q.run { // what was missed or done at another rate does not count
		q.allowed = total
	}
	q.allowed = min(max(q.allowed, total-debt*scaled), total+expiry*scaled)
	q.reckoned, q.before, q.run = now, own, run

	switch {
	case run == 0:
		return math.Inf(1)
	case !s.order.joined:
		return 0
	}
	whole := min(max(scaled+q.allowed-total, 0), catchUp*scaled) // to make up for it within a second
	fair := whole / float64(len(demands)+1)
	most := max(fair, 2*q.speed) // workers that all wake up at once must not take the whole each
	return min(part(whole, demands), most)
}

// part is what is left of a whole for one who can use all of it: nobody gets more than it demands, nor more than others
// who lack.
func part(whole float64, others []float64) float64 {
	slices.Sort(others)
	for i, demand := range others {
		if fair := whole / float64(len(others)+1-i); demand > fair {
			return fair
		}
		whole -= demand
	}
	return whole
}
