package pace

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// ErrStopped is what Enter gives whoever would have to wait while the run is being stopped.
var ErrStopped error = &fail.Error{Class: fail.Fatal, Code: "pace.stopped", Message: "the run is being stopped",
	Exit: fail.ExitStopped, Err: context.Canceled}

// order is what concerns all systems alike.
type order struct {
	closed string // why nothing may pass; "": it may
	cause  journal.Cause
	stop   bool    // nobody waits any more
	scale  float64 // part of the full speed
	joined bool    // the other workers know of this one
}

// system is the gate of one system.
type system struct {
	name   string
	config *settings
	log    *slog.Logger

	turn    chan struct{} // whoever holds it is the next to pass; the others queue for it in order
	wake    chan struct{} // tells it to look again
	callers atomic.Int64  // that wait, or have a request under way

	mu       sync.Mutex
	order    order
	rate     [units]float64 // of the whole run; 0: no limit
	limit    int            // requests at once; 0: no limit
	quotas   [units]quota
	peers    map[string]*peer
	short    bool // something had to wait for its quota since the last order
	inFlight int
	heard    time.Time // when the last request ended, or the first of those under way began
	breaker  breaker
	adaptive adaptive
	requests int64
	errors   map[fail.Class]int64 // failed requests

	free     bool // it has been free to run since it was last measured
	measured time.Time
	before   float64 // records passed at that time
	speed    float64 // records a second when it was last free to run; 0: not known
	size     float64 // records of a request, on average
	latency  float64 // seconds of a request, on average
}

// settings are a Config made ready.
type settings struct {
	adaptive bool
	outage   time.Duration
	retries  float64 // a fraction of the requests
}

func newSystem(name string, c *settings, log *slog.Logger) *system {
	s := &system{name: name, config: c, log: log.With("system", name), turn: make(chan struct{}, 1),
		wake:  make(chan struct{}, 1),
		peers: map[string]*peer{}, errors: map[fail.Class]int64{}, measured: time.Now(),
		breaker: breaker{budget: reserve}}
	for u := range s.quotas {
		s.quotas[u].reckoned = s.measured
	}
	return s
}

var _ connector.Measure = (*system)(nil)

// Largest implements connector.Measure: what the bucket holds, where the run has a rate. A larger request passes too,
// but then nothing else does for a while.
func (s *system) Largest() (records int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if share := s.quotas[inRecords].share; s.rate[inRecords] > 0 && !math.IsInf(share, 1) {
		records = max(1, int(share*burst))
	}
	if share := s.quotas[inBytes].share; s.rate[inBytes] > 0 && !math.IsInf(share, 1) {
		bytes = max(1, int64(share*burst))
	}
	return records, bytes
}

// request is one that has passed.
type request struct {
	began   time.Time
	records int
	trial   bool // it finds out whether the system is back
}

// Enter implements connector.Gate.
func (s *system) Enter(ctx context.Context, records int, bytes int64) (func(int, int64, error), error) {
	s.callers.Add(1)
	r, err := s.enter(ctx, records, bytes)
	if err != nil {
		s.callers.Add(-1)
		return nil, err
	}
	return func(records int, bytes int64, err error) { s.leave(r, records, bytes, err) }, nil
}

func (s *system) enter(ctx context.Context, records int, bytes int64) (request, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return request{}, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	for {
		if ctx.Err() != nil {
			return request{}, context.Cause(ctx)
		}
		r, wait, err := s.admit(records, bytes)
		if wait == 0 || err != nil {
			return r, err
		}
		var ring <-chan time.Time
		if wait < forever {
			ring = time.After(wait)
		}
		select {
		case <-ring:
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// admit lets a request pass, or says how long to wait until it is worth asking again.
func (s *system) admit(n int, size int64) (request, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	wait, err := s.obstacle(now)
	switch {
	case err != nil:
		return request{}, 0, err
	case wait > 0 && s.order.stop:
		return request{}, 0, ErrStopped
	case wait > 0:
		return request{}, wait, nil
	}
	s.quotas[inRecords].charge(float64(n))
	s.quotas[inBytes].charge(float64(size))
	s.requests++
	if s.inFlight++; s.inFlight == 1 {
		s.heard = now
	}
	trial := s.breaker.open
	s.breaker.trying = s.breaker.trying || trial
	return request{began: now, records: n, trial: trial}, 0, nil
}

func (s *system) obstacle(now time.Time) (time.Duration, error) {
	if s.order.closed != "" || s.limit > 0 && s.inFlight >= s.limit {
		return forever, nil
	}
	if wait, err := s.breaker.wait(now, s.name); wait > 0 || err != nil {
		return wait, err
	}
	if s.guessing() && s.full() == 0 && s.inFlight > 0 {
		return forever, nil // the first request shows how fast the system is
	}
	wait := time.Duration(0)
	for u := range s.quotas {
		s.quotas[u].refill(now)
		wait = max(wait, s.quotas[u].wait())
	}
	s.short = s.short || wait > 0
	return wait, nil
}

// leave takes in how a request went.
func (s *system) leave(r request, n int, size int64, err error) {
	s.callers.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.inFlight--
	s.heard = now
	for u, x := range [units]float64{float64(n), float64(size)} {
		s.quotas[u].refill(now)
		s.quotas[u].charge(x)
	}
	if r.trial {
		s.breaker.trying = false
	}
	class := fail.ClassOf(err)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.errors[class]++
	}
	switch {
	case err == nil, class == fail.Permanent: // an answer
		s.succeeded(now, r, r.records+n)
	case class == fail.Transient, class == fail.Throttled:
		s.failed(now, r, err)
	}
	s.nudge()
}

func (s *system) succeeded(now time.Time, r request, n int) {
	if s.breaker.succeed(r.trial, s.config.retries) {
		s.log.Info("the system answers again")
	}
	const weight = 0.1
	took := max(now.Sub(r.began), time.Microsecond)
	first := s.latency == 0
	if first {
		s.size, s.latency = float64(n), took.Seconds()
	} else {
		if n > 0 { // a question after what is under way does not tell how many records a request has
			s.size += weight * (float64(n) - s.size)
		}
		s.latency += weight * (took.Seconds() - s.latency)
	}
	rising := s.adaptive.observe(now, took) && s.config.adaptive
	if rising && s.adaptive.slow(now, s.full(), lowSlow, took) {
		s.log.Info("slowed down: requests take longer than usual", "p99", s.adaptive.p99, "records_per_s",
			int(s.adaptive.limit))
		s.adjust(now)
	} else if first {
		s.adjust(now)
	}
}

func (s *system) failed(now time.Time, r request, err error) {
	down := s.breaker.open
	if s.breaker.fail(now, r.began, err, r.trial, s.config.outage) {
		s.free = false
		s.log.Warn("the system is down", "error", err)
	}
	if s.config.adaptive && !down && overloaded(err) &&
		s.adaptive.slow(now, s.full(), lowest, time.Duration(s.latency*float64(time.Second))) {
		s.log.Info("slowed down: the system is overloaded", "error", err, "records_per_s", int(s.adaptive.limit))
		s.adjust(now)
	}
}

// nudge makes whoever is next look again.
func (s *system) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// follow takes in an order and the heartbeats.
func (s *system) follow(now time.Time, o order, rate journal.Rate, limit int, self string, beats []journal.Beat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.closed != "" && o.closed == "" && s.breaker.failures > 0 {
		s.breaker.until = now.Add(s.config.outage) // nobody asked it while the run was paused
	}
	s.order, s.limit = o, limit
	s.rate = [units]float64{rate.Records, float64(rate.Bytes)}
	s.hear(now, self, beats)
	s.measure(now)
	s.adaptive.grow(now, s.short && s.quotas[inRecords].rate >= s.adaptive.limit)
	for u := range s.quotas {
		s.quotas[u].share = s.share(now, unit(u))
	}
	s.adjust(now)
	s.short = false
	s.nudge()
}

// adjust sets the rates of this worker.
func (s *system) adjust(now time.Time) {
	perRecord := s.quotas[inRecords].share
	if s.adaptive.limit > 0 {
		perRecord = min(perRecord, s.adaptive.limit)
	}
	if full := s.full(); s.guessing() && full > 0 {
		perRecord = min(perRecord, s.order.scale*full)
	}
	s.quotas[inRecords].setRate(now, perRecord)
	s.quotas[inBytes].setRate(now, s.quotas[inBytes].share)
}

// guessing tells whether the system must go slower than it could, and has no rate that says how slow.
func (s *system) guessing() bool {
	return s.order.scale < 1 && s.rate == [units]float64{}
}

// measure keeps the speed of the system while nothing but itself limits it.
func (s *system) measure(now time.Time) {
	free := s.order.closed == "" && s.order.scale == 1 && !s.breaker.open
	s.free = s.free && free
	elapsed := now.Sub(s.measured).Seconds()
	if elapsed < 1 {
		return
	}
	passed := s.quotas[inRecords].passed
	if speed := (passed - s.before) / elapsed; s.free && (speed > 0 || s.inFlight > 0) {
		if s.speed == 0 {
			s.speed = speed
		}
		s.speed += (speed - s.speed) / 4
	}
	s.measured, s.before, s.free = now, passed, free
}

// full is the speed of the system when it is free to run, in records a second; 0: nothing is known yet.
func (s *system) full() float64 {
	if s.speed > 0 || s.latency == 0 {
		return s.speed
	}
	return float64(max(1, s.callers.Load())) * s.size / s.latency
}

// gauge is what the heartbeat tells.
func (s *system) gauge() journal.Gauge {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for u := range s.quotas {
		s.quotas[u].refill(now)
	}
	g := journal.Gauge{Records: int64(s.quotas[inRecords].counted()), Bytes: int64(s.quotas[inBytes].counted()),
		Requests: s.requests, Retries: s.errors[fail.Transient] + s.errors[fail.Throttled], Errors: map[string]int64{},
		Down: s.breaker.open}
	g.P50, g.P99 = s.adaptive.current()
	for class, n := range s.errors {
		g.Errors[class.String()] = n
	}
	if rate := s.quotas[inRecords].rate; !math.IsInf(rate, 1) {
		g.Asked.Records = rate
	}
	if rate := s.quotas[inBytes].rate; !math.IsInf(rate, 1) {
		g.Asked.Bytes = connector.Bytes(rate)
	}
	return g
}

// down tells since when and why the system is down; "": it is not.
func (s *system) down() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.breaker.open {
		return ""
	}
	return s.name + " is down since " + s.breaker.since.Format("15:04") + ": " + message(s.breaker.last)
}

// silent tells for how long requests have been under way and none has ended, where that is long; "": they end. A client
// may wait for minutes before it takes that for a failure.
func (s *system) silent(now time.Time) string {
	const long = 5 * time.Second
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet := now.Sub(s.heard)
	if s.inFlight == 0 || s.breaker.open || quiet < long {
		return ""
	}
	return "no answer from " + s.name + " for " + short(quiet)
}

// message is an error without code and fix.
func message(err error) string {
	var known *fail.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return err.Error()
}
