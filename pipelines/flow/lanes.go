package flow

import (
	"context"
	"errors"
	"fmt"

	"reprise/io/connector"
	"reprise/pipelines/pace"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// lanes are the ways of records from the reader to the sinks, of one pass.
type lanes struct {
	*worker
	ctx    context.Context
	heart  *heart
	ledger *ledger
	all    []*lane // the shared one, then one for each sink
	later  []*postponed
}

func newLanes(ctx context.Context, w *worker, h *heart, sinks map[string]connector.Sink) *lanes {
	ls := &lanes{worker: w, ctx: ctx, heart: h, all: []*lane{{name: laneShared, chain: w.chain}}}
	floors := []int64{0}
	for i, name := range w.sinks {
		_, commits := sinks[name].(connector.Committer)
		ls.all = append(ls.all, &lane{name: name, index: i + 1, sink: sinks[name], commits: commits})
		floors = append(floors, w.floors[name])
	}
	ls.ledger = newLedger(floors)
	ls.order()
	return ls
}

func (ls *lanes) sinks() []*lane { return ls.all[1:] }

// open opens the writers of all lanes. One that does not open is left behind.
func (ls *lanes) open(source connector.Source) error {
	for _, l := range ls.sinks() {
		if err := ls.openOne(l, source); err != nil {
			if err = ls.leaveBehind(l, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// openOne opens a lane's writer, whose requests pass the gate of that sink. source is asked again about what is held
// for long.
func (ls *lanes) openOne(l *lane, source connector.Source) (err error) {
	if l.chain, err = ls.sinkChain(l.name); err != nil {
		return err
	}
	letter := func(res connector.Result) *record.DeadLetter {
		return ls.deadLetter(res.Record, stepSink(l.name), l.name, res.Attempts, res.Err)
	}
	ctx := connector.WithGate(ls.ctx, ls.heart.pace.Gate(l.name))
	if finder, ok := connector.FinderOf(source); ok {
		ctx = connector.WithRecheck(ctx, func(_ context.Context, records []*record.Record) ([]bool, error) {
			return ls.gone(finder, records)
		})
	}
	l.writer, err = l.sink.Open(ctx, ls.runOf(l.name), l.chain.Out, func(results []connector.Result) {
		ls.heart.outcomes(l.name, ls.ledger.settle(l.index, results, letter))
	})
	return err
}

// gone tells of which records the row is not at the source any more.
func (ls *lanes) gone(finder connector.Finder, records []*record.Record) ([]bool, error) {
	gone := make([]bool, len(records))
	var keys []*record.Record
	var at []int
	for i, r := range records {
		if len(r.Origin.Key) == 0 {
			continue
		}
		key := &record.Record{Schema: ls.schema, Values: make([]record.Value, len(ls.schema.Fields)), Origin: r.Origin}
		for k, field := range ls.schema.Key {
			key.Values[field] = r.Origin.Key[k]
		}
		keys, at = append(keys, key), append(at, i)
	}
	ctx := connector.Uncounted(connector.WithGate(ls.ctx, ls.heart.pace.Gate(systemSource)))
	err := finder.Find(ctx, keys, func(i int, row connector.Page) error {
		gone[at[i]] = row.Rows() == 0
		return nil
	})
	return gone, err
}

// of are the lanes, by name, that are to do a split.
func (ls *lanes) of(split connector.Split) (names []string) {
	for _, l := range ls.all {
		if l.down == nil && (l.name == laneShared || split.For(l.name)) {
			names = append(names, l.name)
		}
	}
	return names
}

func (ls *lanes) close() {
	for _, l := range ls.all {
		if l.writer != nil {
			l.writer.Close()
		}
	}
}

// leaveBehind gives up a sink that has failed, and leaves its intervals open, while others go on. It gives the error
// back where it concerns the whole run.
func (ls *lanes) leaveBehind(l *lane, err error) error {
	up := 0
	for _, other := range ls.sinks() {
		if other != l && other.down == nil && !other.comesAfter(l) {
			up++
		}
	}
	switch {
	case ls.ctx.Err() != nil:
		return context.Cause(ls.ctx)
	case errors.Is(err, pace.ErrStopped):
		return errStop
	}
	if fail.ClassOf(err) == fail.Fatal || up == 0 {
		return fmt.Errorf("%s: %w", stepSink(l.name), err)
	}
	ls.heart.log.Warn("a sink is left behind, the others go on; resume the run once it is well",
		"sink", l.name, "error", err)
	l.down = err
	ls.heart.down(l.name, err)
	ls.ledger.abandon(l.index)
	if l.writer != nil {
		l.writer.Close()
		l.writer = nil
	}
	for _, other := range ls.sinks() {
		if other.down == nil && other.comesAfter(l) {
			err := ls.leaveBehind(other, fmt.Errorf("it comes after sink %s, which is left behind: %w", l.name, err))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// recents are what became of the last records in each chain, and at each sink.
func (ls *lanes) recents() []recent {
	all := ls.ledger.recently()
	for _, l := range ls.all {
		all = append(all, l.recent)
	}
	return all
}
