package launch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/transforms/fail"
)

// grownEach is how often a run that goes on looks for new partitions.
const grownEach = 30 * time.Second

// How long a run that goes on waits before it begins anew, after a system stayed down.
const (
	leastRest = 5 * time.Second
	mostRest  = time.Minute
)

// follow makes attempts at a run that goes on, one after the other, until it is stopped or something is wrong that does
// not pass: a new attempt is how it takes up new partitions, and sinks that were down.
func (p prepared) follow(ctx context.Context, j journal.Journal, o Runner, sinks []string) (
	*flow.Report, error) {
	rest := leastRest
	for {
		if err := p.grow(ctx, j); err != nil && fail.ClassOf(err) == fail.Fatal {
			return nil, err
		}
		began := time.Now()
		watching, stop := context.WithCancel(ctx)
		var beside sync.WaitGroup
		beside.Go(func() { p.watchGrowth(watching, j) })
		beside.Go(func() { p.retry(watching, j) })
		report, err := p.attempt(ctx, j, o, sinks, 0)
		stop()
		beside.Wait()
		switch {
		case ctx.Err() != nil || err != nil && !fail.ClassOf(err).Passes():
			return report, err
		case err == nil && report.State == journal.Incomplete && len(report.Faults) == 0:
			continue
		case err == nil:
			return report, nil
		}
		if time.Since(began) > 2*mostRest {
			rest = leastRest
		}
		slog.Warn("the run goes on once this has passed", "run", p.Run.ID, "in", rest, "error", err)
		if control, err := j.Control(ctx, p.Run.ID); err != nil || control.Want == journal.Stop {
			return report, err
		}
		select {
		case <-time.After(rest):
			rest = min(2*rest, mostRest)
		case <-ctx.Done():
			return report, err
		}
	}
}

// kept is how long the journal of a run that goes on keeps its history.
const kept = 7 * 24 * time.Hour

// watchGrowth has the run begin anew when its source gets new partitions. It also keeps the journal small.
func (p prepared) watchGrowth(ctx context.Context, j journal.Journal) {
	for n := 0; ; n++ {
		if n%120 == 0 { // each hour
			if err := j.Trim(ctx, p.Run.ID, time.Now().Add(-kept)); err != nil && ctx.Err() == nil {
				slog.Warn("the journal keeps what is old", "run", p.Run.ID, "error", err)
			}
		}
		select {
		case <-time.After(grownEach):
		case <-ctx.Done():
			return
		}
		added, err := p.added(ctx, j)
		if err == nil && len(added) > 0 {
			err = flow.Restart(ctx, j, p.Run.ID, fmt.Sprintf("the source has %d new partitions", len(added)))
		}
		if err != nil && ctx.Err() == nil {
			slog.Warn("whether the source has new partitions is not known", "run", p.Run.ID, "error", err)
		}
	}
}

// grow takes new partitions of the source into the plan.
func (p prepared) grow(ctx context.Context, j journal.Journal) error {
	added, err := p.added(ctx, j)
	if err != nil || len(added) == 0 {
		return err
	}
	return j.ExtendPlan(ctx, p.Run.ID, added)
}

// added are the partitions that the plan does not have, from their beginnings: nothing of them has been read.
func (p prepared) added(ctx context.Context, j journal.Journal) (added []connector.Split, err error) {
	known := map[string]bool{}
	for split, err := range j.Plan(ctx, p.Run.ID) {
		if err != nil {
			return nil, err
		}
		known[split.Partition] = true
	}
	source, _ := connector.FollowerOf(p.Source)
	now, err := source.Partitions(ctx)
	for _, name := range now {
		if !known[name] {
			added = append(added, connector.Split{Partition: name})
		}
	}
	return added, err
}
