package flow

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// How a run that goes on differs from one that ends.
const (
	followLinger = 200 * time.Millisecond // that sinks may gather where little comes, so that events do not wait
	lookEach     = time.Second            // how often a pass looks how far it is behind
	tellEach     = 5 * time.Second        // how often it tells the system
	downFor      = 30 * time.Second       // that a sink may be left behind, until the attempt begins anew with it
)

// follow tells how far a pass is behind what comes, and the source how far it has come. It looks at what the journal
// holds, since only that is sure.
type follow struct {
	source connector.Follower
	cancel context.CancelFunc
	done   sync.WaitGroup
	began  time.Time
	told   time.Time
	failed bool // to tell the source: the log knows
	downed time.Time
	delays map[string]journal.Delay // as last seen, by sink
	even   map[string]time.Time     // by partition: when nothing was left to do, as last seen
}

func (f *follow) start(p *pass) {
	ctx, cancel := context.WithCancel(connector.Uncounted(p.ctx))
	f.cancel, f.began, f.delays, f.even = cancel, time.Now(), map[string]journal.Delay{}, map[string]time.Time{}
	f.done.Go(func() {
		for {
			select {
			case <-time.After(lookEach):
			case <-ctx.Done():
				return
			}
			if err := f.look(ctx, p); err != nil && ctx.Err() == nil {
				if fail.ClassOf(err) == fail.Fatal {
					p.cancel(err)
					return
				}
				p.heart.log.Warn("how far the run is behind is not known", "error", err)
			}
			f.again(ctx, p)
		}
	})
}

// stop ends it.
func (f *follow) stop() {
	if f != nil && f.cancel != nil {
		f.cancel()
		f.done.Wait()
	}
}

// last tells the source how far the run has come, as the pass ends.
func (f *follow) last(p *pass) {
	f.stop()
	if p.member != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), stopGrace)
	defer cancel()
	at, err := f.finished(ctx, p)
	if err == nil {
		err = f.source.Acknowledge(ctx, at)
	}
	if err != nil {
		p.heart.log.Warn("the source is not told how far the run has come; the journal has it", "error", err)
	}
}

// look finds out how far the pass is behind.
func (f *follow) look(ctx context.Context, p *pass) error {
	at, err := f.finished(ctx, p)
	if err != nil {
		return err
	}
	if p.member == "" && time.Since(f.told) >= tellEach {
		f.told = time.Now()
		err := f.source.Acknowledge(ctx, at)
		if fail.ClassOf(err) == fail.Fatal && err != nil {
			return err
		}
		if err != nil && !f.failed && ctx.Err() == nil {
			p.heart.log.Warn("the source is not told how far the run has come; the journal has it", "error", err)
		}
		f.failed = err != nil
	}
	lags, err := f.source.Lags(ctx, at)
	if err != nil {
		return err
	}
	p.heart.behind(f.sum(lags, p))
	return nil
}

// finished are the splits of the pass that are open at their end, each from where all sinks have finished it.
func (f *follow) finished(ctx context.Context, p *pass) (at []connector.Split, err error) {
	return Standing(ctx, p.journal, p.worker.run.ID, p.worker.sinks, p.reader.splits)
}

// Standing gives those of some splits that are open at their ends, each from where all of some sinks have finished it.
func Standing(ctx context.Context, j journal.Journal, run string, sinks []string, splits []connector.Split) (
	at []connector.Split, err error) {
	done, err := loadFinished(ctx, j, run)
	if err != nil {
		return nil, err
	}
	names := append([]string{laneShared}, sinks...)
	for _, split := range splits {
		if split.End != nil {
			continue
		}
		if rest := done.rest(split, names); len(rest) > 0 {
			split.Start = rest[0].Start
		}
		at = append(at, split)
	}
	return at, nil
}

func (f *follow) sum(lags []connector.Lag, p *pass) *journal.Behind {
	delays, reached := p.lanes.ledger.lately()
	b := &journal.Behind{Delays: f.delays}
	for _, lag := range lags {
		b.Records += lag.Records
		if lag.Records == 0 {
			f.even[lag.Partition] = time.Now()
			continue
		}
		since, known := reached[lag.Partition]
		if !known {
			since = f.began
		}
		if even := f.even[lag.Partition]; even.After(since) {
			since = even // what is left has come since
		}
		b.Age = max(b.Age, time.Since(since))
	}
	slices.SortStableFunc(lags, func(x, y connector.Lag) int { return cmp.Compare(y.Records, x.Records) })
	b.Partitions = lags[:min(len(lags), journal.MostPartitions)]
	for _, l := range p.lanes.sinks() {
		if d := &delays[l.index]; d.Quantile(0.5) > 0 {
			b.Delays = maps.Clone(b.Delays)
			b.Delays[l.name] = journal.Delay{P50: d.Quantile(0.5), P99: d.Quantile(0.99)}
		}
	}
	f.delays = b.Delays
	return b
}

// again ends the attempt for another one to begin, once a sink has been left behind for a while: a run that goes on has
// no end after which it could be resumed.
func (f *follow) again(ctx context.Context, p *pass) {
	down := p.heart.now().Down
	switch {
	case len(down) == 0:
		f.downed = time.Time{}
	case f.downed.IsZero():
		f.downed = time.Now()
	case time.Since(f.downed) > downFor:
		err := Restart(ctx, p.journal, p.worker.run.ID, "sinks that were down take part again")
		if err != nil {
			p.heart.log.Warn("the attempt does not begin anew", "error", err)
		}
	}
}

// Restart asks for the end of a run's attempt and the begin of another one, unless something else is wanted.
func Restart(ctx context.Context, j journal.Journal, run, why string) error {
	return j.SetControl(ctx, run, journal.Event{At: time.Now(), Kind: "restart", Text: why}, func(c *journal.Control) {
		if c.Want == journal.Go {
			c.Want, c.Reason = journal.Restart, why
		}
	})
}
