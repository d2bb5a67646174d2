package pace

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
)

// starting is why nothing passes before the first Apply.
const starting = "starting"

// alone is how long a worker waits for its own heartbeat to appear before it takes itself for the only one.
const alone = 2 * time.Second

// Options are what code sets.
type Options struct {
	Log *slog.Logger // nil: slog.Default()
}

// Pace says how fast a worker may go. Its methods may be called from several goroutines.
type Pace struct {
	config   Config
	settings settings
	schedule []period
	worker   string
	log      *slog.Logger
	cancel   context.CancelFunc
	watching sync.WaitGroup

	mu      sync.Mutex
	systems map[string]*system
	began   time.Time // first Apply; zero: not yet
	joined  bool
	control journal.Control
	beats   []journal.Beat
	order   order
	guard   *guard // nil: there is no probe
}

// New gives the pace of a worker, by settings in which Validate finds no fault. Nothing passes its gates before the
// first Apply.
func New(c Config, worker string, o Options) *Pace {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pace{config: c, worker: worker, log: o.Log, cancel: cancel, systems: map[string]*system{},
		order: order{closed: starting, scale: 1},
		settings: settings{adaptive: c.Adaptive == nil || !c.Adaptive.Off, outage: c.Outage.Or(defaultOutage),
			retries: c.retries()}}
	for _, s := range c.Schedule {
		period, _ := s.compile()
		p.schedule = append(p.schedule, period)
	}
	if c.Probe != nil {
		p.guard = newGuard(*c.Probe)
		p.watching.Go(func() { p.watch(ctx, *c.Probe) })
	}
	return p
}

// Close ends the probe. Who waits at a gate goes on waiting.
func (p *Pace) Close() {
	p.cancel()
	p.watching.Wait()
}

// Gate is the gate of a system, always the same one.
func (p *Pace) Gate(name string) connector.Gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.systems[name]
	if s == nil {
		s = newSystem(name, &p.settings, p.log)
		p.systems[name] = s
		p.instruct(time.Now(), s)
	}
	return s
}

// Apply takes in what the journal says: what is wanted of the run, and the heartbeats of its workers, this one's
// included. It takes effect at once, also on whoever waits in Enter. It is to be called about four times a second; a
// worker beats before its first.
func (p *Pace) Apply(c journal.Control, beats []journal.Beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.began.IsZero() {
		p.began = now
	}
	p.joined = p.joined || now.Sub(p.began) >= alone ||
		slices.ContainsFunc(beats, func(b journal.Beat) bool { return b.Worker == p.worker })
	p.control, p.beats = c, beats
	p.decide(now)
}

// decide gives all systems their orders. It needs p.mu.
func (p *Pace) decide(now time.Time) {
	if p.began.IsZero() {
		return
	}
	scale, until := scheduled(p.schedule, now)
	o := order{stop: p.control.Want == journal.Stop, joined: p.joined, scale: scale}
	if p.guard != nil {
		o.scale *= p.guard.factor
	}
	switch {
	case p.control.Want == journal.Pause:
		o.cause, o.closed = journal.ByOperator, strings.TrimSuffix("paused: "+p.control.Reason, ": ")
	case scale == 0:
		o.cause, o.closed = journal.BySchedule, "paused by the schedule "+until
	case p.guard != nil && p.guard.far:
		o.cause, o.closed = journal.ByProduction, "paused: "+p.guard.why
	}
	switch {
	case o.closed == "" && p.order.closed != "" && p.order.closed != starting:
		p.log.Info("going on", "after", p.order.closed)
	case o.closed != "" && (p.order.closed == "" || p.order.closed == starting):
		p.log.Info("holding back", "reason", o.closed)
	}
	p.order = o
	for _, s := range p.systems {
		p.instruct(now, s)
	}
}

func (p *Pace) instruct(now time.Time, s *system) {
	rate, ok := p.control.Rates[s.name]
	if !ok {
		rate = p.config.Rates[s.name]
	}
	limit, ok := p.control.Limits[s.name]
	if !ok {
		limit = p.config.Requests[s.name]
	}
	s.follow(now, p.order, rate, limit, p.worker, p.beats)
}

// Gauges are what this worker's heartbeat tells of its systems.
func (p *Pace) Gauges() map[string]journal.Gauge {
	p.mu.Lock()
	defer p.mu.Unlock()
	gauges := make(map[string]journal.Gauge, len(p.systems))
	for name, s := range p.systems {
		gauges[name] = s.gauge()
	}
	return gauges
}

// Waiting says why nothing goes on, or goes on slowly because of production: "paused: operator", "search is down since
// 12:01: no answer in time", "no answer from events for 12s", "slowed to 30 %: production is too slow: ...". It is ""
// if all goes on.
func (p *Pace) Waiting() string {
	why, _ := p.Why()
	return why
}

// Why is Waiting, and its cause in a word; where there are several, the first that it names. A system that has only not
// answered yet is no cause.
func (p *Pace) Why() (string, journal.Cause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.order.closed != "" {
		return p.order.closed, p.order.cause
	}
	var reasons []string
	var cause journal.Cause
	for _, name := range slices.Sorted(maps.Keys(p.systems)) {
		if down := p.systems[name].down(); down != "" {
			reasons, cause = append(reasons, down), journal.BySystem
		} else if silent := p.systems[name].silent(time.Now()); silent != "" {
			reasons = append(reasons, silent)
		}
	}
	if p.guard != nil && p.guard.why != "" {
		reasons, cause = append(reasons, p.guard.slowed()), cmp.Or(cause, journal.ByProduction)
	}
	return strings.Join(reasons, "; "), cause
}
