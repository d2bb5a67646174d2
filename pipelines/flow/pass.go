package flow

import (
	"context"
	"errors"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/pipelines/pace"
	"reprise/pipelines/travel"
)

// passFn takes splits all the way: a splittable DoFn whose restriction is a list of them. Reading, transforms and
// sinks are one step, because only whoever sees all of them knows when a page is finished everywhere, which is what
// the journal is told.
type passFn struct {
	Setting Setting
	worker  *worker
	source  connector.Source
	sinks   map[string]connector.Sink
}

// CreateInitialRestriction is the whole of the work.
func (f *passFn) CreateInitialRestriction(w travel.Work) travel.Work { return w }

// SplitRestriction keeps the work whole: the plan has cut it for the runner already.
func (f *passFn) SplitRestriction(_, r travel.Work) []travel.Work { return []travel.Work{r} }

// RestrictionSize is the number of rows that the plan expects.
func (f *passFn) RestrictionSize(_, r travel.Work) float64 { return r.Rows() }

// CreateTracker tracks by split and position.
func (f *passFn) CreateTracker(r travel.Work) *sdf.LockRTracker {
	return sdf.NewLockRTracker(travel.NewTracker(r))
}

// Setup opens the source and the sinks.
func (f *passFn) Setup(ctx context.Context) (err error) {
	if f.worker, err = f.Setting.open(ctx); err != nil {
		return err
	}
	need := f.worker.job.Need(f.worker.run)
	need.PageRows = f.worker.window.page(f.worker.job.Limits.Readers)
	for _, floor := range f.worker.floors {
		need.Floor = max(need.Floor, floor)
	}
	if f.source, err = systems.source(f.worker.job.Source, need); err != nil {
		return err
	}
	f.sinks = map[string]connector.Sink{}
	for _, name := range f.worker.sinks {
		if f.sinks[name], err = systems.sink(f.worker.job.Sinks[name].SinkSpec); err != nil {
			return err
		}
	}
	return nil
}

// ProcessElement reads what is left of the splits and returns once all of it is finished, or the run is to stop.
func (f *passFn) ProcessElement(ctx context.Context, rt *sdf.LockRTracker, _ travel.Work, emit func(int)) (err error) {
	defer f.worker.guard(ctx, "pass", &err)
	p, err := f.newPass(ctx, rt)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.run(); err != nil {
		return err
	}
	emit(len(p.reader.splits))
	return nil
}

// Teardown closes the source and the sinks.
func (f *passFn) Teardown() error {
	f.worker.close()
	var all []error
	for _, sink := range f.sinks {
		if sink != nil {
			all = append(all, sink.Close())
		}
	}
	if f.source != nil {
		all = append(all, f.source.Close())
	}
	return errors.Join(all...)
}

// pass is the work of one goroutine on some splits: it takes pages as they are read, hands their records to the
// lanes, and has written down in the journal what has been finished.
type pass struct {
	*worker
	source connector.Source
	ctx    context.Context
	cancel context.CancelCauseFunc
	heart  *heart
	reader *reader
	lanes  *lanes
	keeper *keeper
	follow *follow // nil: the source ends
}

// tick is how often a pass looks around when nothing comes.
const tick = 100 * time.Millisecond

// errStop ends a pass that is to stop: nothing is wrong.
var errStop = errors.New("the run is to stop")

func (f *passFn) newPass(ctx context.Context, tracker *sdf.LockRTracker) (p *pass, err error) {
	p = &pass{worker: f.worker, source: f.source}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.heart = startHeart(p.ctx, f.worker, p.cancel)
	p.reader = newReader(tracker, p.ended)
	p.lanes = newLanes(p.ctx, f.worker, p.heart, f.sinks)
	p.keeper = newKeeper(p.cancel, p.lanes)
	if source, goesOn := connector.FollowerOf(f.source); goesOn {
		p.follow = &follow{source: source}
		p.keeper.linger = followLinger
		p.keeper.commits = newCommits(len(p.lanes.all))
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err = p.lanes.open(f.source); err != nil {
		return p, err
	}
	return p, p.keeper.open()
}

// ended notes that a split has been read to its end.
func (p *pass) ended(split string) {
	p.heart.split()
	p.heart.log.Debug("a split is read", "split", split)
}

func (p *pass) close() {
	p.cancel(context.Canceled)
	p.follow.stop()
	p.reader.stop()
	p.lanes.close()
	p.keeper.close()
	p.heart.stop()
}

// run reads the rest of the splits, and finishes it.
func (p *pass) run() error {
	err := p.begin()
	if err == nil {
		err = p.takeAll()
	}
	if p.ctx.Err() != nil {
		err = context.Cause(p.ctx) // not what broke by it
	}
	stop := errors.Is(err, errStop) || errors.Is(err, pace.ErrStopped)
	if stop || err == nil {
		p.reader.stop()
		err = errors.Join(p.keeper.drain(), p.keeper.commits.wait())
		if p.follow != nil && p.follow.cancel != nil {
			p.follow.last(p)
		}
	}
	if stop {
		return errors.Join(err, p.reader.giveBack())
	}
	if err != nil {
		// What is finished need not be done again.
		err = errors.Join(err, p.keeper.writeDown())
	}
	return err
}

// begin finds out what is left, and begins to read it.
func (p *pass) begin() error {
	done, err := loadFinished(p.ctx, p.journal, p.worker.run.ID)
	if err != nil {
		return err
	}
	if err := p.lanes.loadLost(); err != nil {
		return err
	}
	limits := p.job.Limits
	readers := limits.Readers
	if p.follow != nil {
		readers = max(readers, len(p.reader.splits)) // an open split never ends, and keeps its reader
	}
	err = p.reader.begin(connector.WithGate(p.ctx, p.heart.pace.Gate(systemSource)), p.source,
		connector.Window{Readers: readers, Bytes: int64(limits.ReadAhead)},
		func(split connector.Split) []connector.Split { return done.rest(split, p.lanes.of(split)) })
	p.lanes.ledger.ahead = p.reader.ahead
	if err == nil && p.follow != nil {
		p.follow.start(p)
		err = p.keeper.commitLeft()
	}
	return err
}

// takeAll takes what is read until there is no more.
func (p *pass) takeAll() error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	ahead, ledger := p.reader.ahead, p.lanes.ledger
	came := false // a page, since the last tick
	for {
		items := ahead.Items
		full := ledger.open() >= int64(p.window)
		if full {
			items = nil // what is finished makes room
		}
		var err error
		select {
		case it, ok := <-items:
			if !ok {
				return context.Cause(p.ctx)
			}
			came = true
			err = p.take(it)
		case <-ledger.wake:
			if full || ahead.Waits() {
				err = p.keeper.nudge(hungry)
			}
		case <-ticker.C:
			n := calm
			if !came && (full || ahead.Waits()) {
				n = starving
			}
			came = false
			err = p.keeper.nudge(n)
		case <-p.heart.stopping:
			err = errStop
		case <-p.ctx.Done():
			err = context.Cause(p.ctx)
		}
		if err != nil {
			return err
		}
	}
}

// take claims an item and hands its records to the lanes.
func (p *pass) take(it connector.Item) error {
	if it.Err != nil {
		return it.Err
	}
	got, err := p.reader.claim(it)
	if err != nil || got == nil {
		return err
	}
	if taken, err := p.lanes.handOut(got); err != nil || !taken {
		return err
	}
	return p.keeper.nudge(calm)
}
