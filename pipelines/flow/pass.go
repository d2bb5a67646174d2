package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/cenkalti/backoff/v5"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/pipelines/pace"
	"reprise/pipelines/travel"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// passFn takes splits all the way: a splittable DoFn whose restriction is a list of them. Reading, transforms and sinks are
// one step, because only whoever sees all of them knows when a page is finished everywhere, which is what the journal is told.
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
	need.PageRows = max(1, f.worker.window/(4*f.worker.job.Limits.Readers))
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
	splits := rt.GetRestriction().(travel.Work).Splits
	p, err := f.newPass(ctx, rt)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.run(splits); err != nil {
		return err
	}
	emit(len(splits))
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

// pass is the work of one goroutine on some splits: it takes pages as they are read, hands their records to the lanes, and writes
// down in the journal what has been finished.
type pass struct {
	*worker
	source  connector.Source
	tracker *sdf.LockRTracker
	ctx     context.Context
	cancel  context.CancelCauseFunc
	heart   *heart
	ledger  *ledger
	ahead   *connector.Ahead
	lanes   []*lane
	queue   *queue
	later   []*postponed
	told    map[[2]string]bool // kinds of dead letters that the log knows

	splits []connector.Split
	queues []reading
	came   bool      // a page has come since the last tick
	nudged time.Time // when the sinks were last told to send what they have
}

// reading is what of one split is being read.
type reading struct {
	split int // of the restriction
	parts []connector.Split
	last  []byte // where reading stands in the current part
}

// tick is how often a pass looks around when nothing comes.
const tick = 100 * time.Millisecond

// errStop ends a pass that is to stop: nothing is wrong.
var errStop = errors.New("the run is to stop")

func (f *passFn) newPass(ctx context.Context, tracker *sdf.LockRTracker) (p *pass, err error) {
	w := f.worker
	p = &pass{worker: w, source: f.source, tracker: tracker, ledger: newLedger(1+len(w.sinks), w.floorsOf()), told: map[[2]string]bool{}, nudged: time.Now()}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.heart = startHeart(p.ctx, w, p.cancel)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.lanes = []*lane{{name: stageShared, chain: w.chain}}
	for i, name := range w.sinks {
		_, commits := f.sinks[name].(connector.Committer)
		p.lanes = append(p.lanes, &lane{name: name, index: i + 1, sink: f.sinks[name], commits: commits})
	}
	p.order()
	for _, l := range p.lanes[1:] {
		if err = p.open(l); err != nil {
			if err = p.fell(l, err); err != nil {
				return p, err
			}
		}
	}
	// What is finished is written down also when the run is to stop.
	p.queue, err = w.openQueue(context.WithoutCancel(p.ctx))
	return p, err
}

// open opens a lane's writer, whose requests pass the gate of that sink.
func (p *pass) open(l *lane) (err error) {
	if l.chain, err = p.sinkChain(l.name); err != nil {
		return err
	}
	letter := func(res connector.Result) *record.DeadLetter {
		return p.deadLetter(res.Record, stageSink(l.name), l.name, res.Attempts, res.Err)
	}
	ctx := connector.WithGate(p.ctx, p.heart.pace.Gate(l.name))
	if finder, ok := connector.FinderOf(p.source); ok {
		ctx = connector.WithRecheck(ctx, func(_ context.Context, records []*record.Record) ([]bool, error) { return p.gone(finder, records) })
	}
	l.writer, err = l.sink.Open(ctx, p.worker.runOf(l.name), l.chain.Out, func(results []connector.Result) {
		p.heart.outcomes(l.name, p.ledger.settle(l.index, results, letter))
	})
	return err
}

// gone tells of which records the row is not at the source any more.
func (p *pass) gone(finder connector.Finder, records []*record.Record) ([]bool, error) {
	gone := make([]bool, len(records))
	var keys []*record.Record
	var at []int
	for i, r := range records {
		if len(r.Origin.Key) == 0 {
			continue
		}
		key := &record.Record{Schema: p.worker.schema, Values: make([]record.Value, len(p.worker.schema.Fields)), Origin: r.Origin}
		for k, field := range p.worker.schema.Key {
			key.Values[field] = r.Origin.Key[k]
		}
		keys, at = append(keys, key), append(at, i)
	}
	ctx := connector.Uncounted(connector.WithGate(p.ctx, p.heart.pace.Gate(systemSource)))
	err := finder.Find(ctx, keys, func(i int, row connector.Page) error {
		gone[at[i]] = row.Rows() == 0
		return nil
	})
	return gone, err
}

func (p *pass) close() {
	p.cancel(context.Canceled)
	if p.ahead != nil {
		p.ahead.Stop()
	}
	for _, l := range p.lanes {
		if l.writer != nil {
			l.writer.Close()
		}
	}
	if p.queue != nil {
		p.queue.close()
	}
	p.heart.stop()
}

// run reads the rest of the splits, and finishes it.
func (p *pass) run(splits []connector.Split) error {
	p.splits = splits
	err := p.prepare()
	if err == nil {
		err = p.takeAll()
	}
	if p.ctx.Err() != nil {
		err = context.Cause(p.ctx) // not what broke by it
	}
	stop := errors.Is(err, errStop) || errors.Is(err, pace.ErrStopped)
	if stop || err == nil {
		if p.ahead != nil {
			p.ahead.Stop()
		}
		err = p.drain()
	}
	if stop {
		return errors.Join(err, p.giveBack())
	}
	if err != nil {
		// What is finished need not be done again.
		err = errors.Join(err, p.writeDown(nil))
	}
	return err
}

// prepare finds out what is left, and begins to read it.
func (p *pass) prepare() error {
	done, err := loadFinished(p.ctx, p.journal, p.worker.run.ID)
	if err != nil {
		return err
	}
	if err := p.loadLost(); err != nil {
		return err
	}
	var queues [][]connector.Split
	for i, split := range p.splits {
		var sinks []string
		for _, l := range p.lanes {
			if l.down == nil && (l.name == stageShared || split.For(l.name)) {
				sinks = append(sinks, l.name)
			}
		}
		parts := done.rest(split, sinks)
		if len(parts) == 0 {
			p.heart.split()
			if !p.tracker.TryClaim(travel.Claim{Split: i, End: true}) && p.tracker.GetError() != nil {
				return p.tracker.GetError()
			}
			continue
		}
		p.queues = append(p.queues, reading{split: i, parts: parts, last: parts[0].Start})
		queues = append(queues, parts)
	}
	limits := p.job.Limits
	p.ahead = connector.ReadAhead(connector.WithGate(p.ctx, p.heart.pace.Gate(systemSource)), p.source, queues,
		connector.Window{Readers: limits.Readers, Bytes: int64(limits.ReadAhead)})
	p.ledger.ahead = p.ahead
	return nil
}

// takeAll takes what is read until there is no more.
func (p *pass) takeAll() error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		items := p.ahead.Items
		full := p.ledger.open() >= int64(p.window)
		if full {
			items = nil // what is finished makes room
		}
		select {
		case it, ok := <-items:
			if !ok {
				return context.Cause(p.ctx)
			}
			if it.Err != nil {
				return it.Err
			}
			p.came = true
			if err := p.take(it); err != nil {
				return err
			}
		case <-p.ledger.wake:
			if full || p.ahead.Waits() {
				if err := p.nudge(hungry); err != nil {
					return err
				}
			}
		case <-ticker.C:
			n := calm
			if !p.came && (full || p.ahead.Waits()) {
				n = starving
			}
			p.came = false
			if err := p.nudge(n); err != nil {
				return err
			}
		case <-p.heart.stopping:
			return errStop
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// take claims an item and hands its records to the lanes.
func (p *pass) take(it connector.Item) error {
	q := &p.queues[it.Queue]
	part := q.parts[it.Split]
	c := travel.Claim{Split: q.split, Last: it.Page.Last}
	end := it.End && it.Split == len(q.parts)-1
	switch {
	case end:
		c.End = true
	case it.End:
		if c.Last = part.End; string(q.last) == string(part.End) {
			q.last = q.parts[it.Split+1].Start
			return nil
		}
	}
	if !p.tracker.TryClaim(c) {
		p.ahead.Release(it.Held)
		p.ahead.Drop(it.Queue)
		return p.tracker.GetError()
	}
	where := connector.Split{Partition: part.Partition, Start: q.last, End: it.Page.Last}
	if it.End {
		where.End = part.End
	}
	q.last = where.End
	if it.End && !end {
		q.last = q.parts[it.Split+1].Start
	}
	if end {
		p.heart.split()
		p.heart.log.Debug("a split is read", "split", p.splits[q.split].String())
		if string(where.Start) == string(where.End) && where.End != nil {
			return nil // its last page ended there
		}
	}
	return p.handOut(it, where, part)
}

// handOut hands a page to the lanes that have not finished it.
func (p *pass) handOut(it connector.Item, where, part connector.Split) error {
	name := p.splits[p.queues[it.Queue].split].String()
	in := make([]bool, len(p.lanes))
	for _, l := range p.lanes {
		in[l.index] = l.down == nil && slices.Contains(part.Sinks, l.name)
		l.begin()
	}
	if !slices.Contains(in, true) { // all that it is for have been left behind
		p.ahead.Release(it.Held)
		return nil
	}
	account := p.ledger.enter(it.Page.Rows(), it.Held, where, name, in)
	shared := p.lanes[0]
	for _, letter := range it.Page.Dead {
		letter.Step, letter.Split = StepSource, name
		if at := letter.Place; at != nil && at.Partition != part.Partition && !p.job.Redrives() {
			letter.Place = nil // of a source within this one, whose places are others
		}
		shared.letters = append(shared.letters, p.address(letter))
		shared.tally.outcomes[record.Dead]++
		shared.recent.add(true)
	}
	shared.tally.outcomes[record.Filtered] += it.Page.Filtered
	dead := func(r *record.Record, step string, err error) {
		shared.letters = append(shared.letters, p.deadLetter(r, step, stageShared, 1, err))
	}
	var failed error
	var key []record.Value // of the record that is being handed out
	asked := it.Page.Asked.UnixMicro()
	later := p.putOff(account, in)
	emit := func(r *record.Record) {
		r.Origin.Split, r.Origin.Page, r.Origin.Asked, r.Origin.Key = name, account.number, asked, key
		for _, l := range p.lanes[1:] {
			switch {
			case !in[l.index] || l.down != nil || failed != nil:
			case later[l.index] != nil:
				later[l.index].records = append(later[l.index].records, r)
			default:
				failed = p.send(account, l, r)
			}
		}
	}
	keys := make([]record.Value, 0, len(it.Page.Records)*len(p.worker.schema.Key))
	for _, r := range it.Page.Records {
		for _, k := range p.worker.schema.Key {
			keys = append(keys, r.Values[k])
		}
		key = keys[len(keys)-len(p.worker.schema.Key):]
		r.Origin.Split, r.Origin.Page, r.Origin.Asked, r.Origin.Key = name, account.number, asked, key
		if err := shared.apply(p.chain, r, emit, dead); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
	}
	account.shared = shared.tally
	for _, l := range p.lanes {
		if l.down == nil && later[l.index] == nil {
			p.handed(account, l)
		}
	}
	return p.nudge(calm)
}

// handed tells the ledger that a lane has got all of a page.
func (p *pass) handed(account *page, l *lane) {
	t := l.tally
	if l.index > 0 {
		t.made += account.shared.made
		t.outcomes.Add(account.shared.outcomes)
	}
	if p.ledger.handed(account, l.index, t, l.letters) {
		l.since += account.rows
	}
	p.heart.outcomes(l.name, l.tally.outcomes)
}

// need is how badly room is needed in the window.
type need int

const (
	calm     need = iota
	hungry        // a reader waits for room
	starving      // and nothing has come for a while: the window may be full of what sinks only gather
)

// send sends a record through a sink's own transforms to its writer.
func (p *pass) send(account *page, l *lane, r *record.Record) error {
	if before := p.lost(account, l, r); before != "" {
		l.tally.outcomes[record.Dead]++
		l.letters = append(l.letters, p.deadLetter(r, stageSink(l.name), l.name, 1, fail.New(fail.Permanent, "sink.after",
			"%s comes after sink %s, where this record failed", stageSink(l.name), before).WithFix("redrive sink %s first", before)))
		return nil
	}
	own := len(l.chain.Steps) > 0
	if own {
		r = r.Clone() // other sinks hold the record too
	}
	var failed error
	fatal := l.apply(l.chain, r,
		func(out *record.Record) {
			if failed != nil {
				return
			}
			if own {
				out.Origin.Split, out.Origin.Page, out.Origin.Asked, out.Origin.Key = account.name, account.number, r.Origin.Asked, r.Origin.Key
			}
			p.ledger.add(account, l.index, 1)
			failed = l.writer.Write(p.ctx, out)
		},
		func(in *record.Record, step string, err error) {
			l.letters = append(l.letters, p.deadLetter(in, stageSink(l.name)+" "+step, l.name, 1, err))
		})
	if failed != nil {
		failed = p.fell(l, failed)
	}
	return errors.Join(fatal, failed)
}

// fell leaves a sink behind that has failed, and its intervals open, while others go on. It gives the error back where it
// concerns the whole run.
func (p *pass) fell(l *lane, err error) error {
	up := 0
	for _, other := range p.lanes[1:] {
		if other != l && other.down == nil && !other.comesAfter(l) {
			up++
		}
	}
	switch {
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case errors.Is(err, pace.ErrStopped):
		return errStop
	}
	if fail.ClassOf(err) == fail.Fatal || up == 0 {
		return fmt.Errorf("%s: %w", stageSink(l.name), err)
	}
	p.heart.log.Warn("a sink is left behind, the others go on; resume the run once it is well", "sink", l.name, "error", err)
	l.down = err
	p.heart.down(l.name, err)
	p.ledger.abandon(l.index)
	if l.writer != nil {
		l.writer.Close()
		l.writer = nil
	}
	for _, other := range p.lanes[1:] {
		if other.down == nil && other.comesAfter(l) {
			if err := p.fell(other, fmt.Errorf("it comes after sink %s, which is left behind: %w", l.name, err)); err != nil {
				return err
			}
		}
	}
	return nil
}

// nudge makes the sinks send what they have only gathered, and writes down what is finished, when it is time for either.
func (p *pass) nudge(n need) error {
	now := time.Now()
	const idle = 2 * time.Second
	late := now.Sub(p.nudged) > idle
	window := int64(max(1, p.window))
	quarter := max(1, window/4)
	var parts []journal.Part
	var checked []*lane
	commitsOnly := !slices.ContainsFunc(p.lanes[1:], func(l *lane) bool { return !l.commits && l.down == nil })
	for _, l := range p.lanes[1:] {
		// What commits makes files, which should be few; what does not sends requests, of which several should be under way.
		enough := quarter
		switch {
		case l.commits && commitsOnly:
			enough = window
		case l.commits:
			enough = max(1, window/2)
		}
		pressed := n == starving || !l.commits && late
		// A starving pass also asks for what was sent: its sink may have given up since.
		nothing := l.since == 0 && (l.commits || n < starving)
		if l.down != nil || nothing || l.since < enough && !pressed {
			continue
		}
		bodies, err := l.writer.Checkpoint(p.ctx)
		if err != nil {
			if err = p.fell(l, err); err != nil {
				return err
			}
			continue
		}
		l.since = 0
		checked = append(checked, l)
		parts = appendParts(parts, l.name, bodies)
	}
	due := p.ledger.due()
	if late || n == starving {
		p.nudged = now
	}
	if len(checked) > 0 || due >= quarter || due > 0 && (late || n > calm) {
		if err := p.writeDown(parts, checked...); err != nil {
			return err
		}
		if err := p.letGo(); err != nil {
			return err
		}
		return p.heart.budget(p.ctx, p.recents()...)
	}
	return nil
}

// recents are what became of the last records in each chain, and at each sink.
func (p *pass) recents() []recent {
	all := p.ledger.recently()
	for _, l := range p.lanes {
		all = append(all, l.recent)
	}
	return all
}

// writeDown tells the journal what has been finished: pages whose records are settled, once their dead letters are in the queue. What a sink that
// commits has settled counts only with the parts of a checkpoint after it. It does so also when the pass is to stop.
func (p *pass) writeDown(parts []journal.Part, checked ...*lane) error {
	ctx := context.WithoutCancel(p.ctx)
	var ready []share
	for _, s := range p.ledger.take() {
		l := p.lanes[s.lane]
		if l.commits {
			l.settled = append(l.settled, s)
		} else {
			ready = append(ready, s)
		}
	}
	for _, l := range p.lanes {
		switch {
		case l.down != nil:
			p.ledger.finish(l.settled)
			l.settled = nil
		case slices.Contains(checked, l):
			ready, l.settled = append(ready, l.settled...), nil
		}
	}
	batch := journal.Batch{Parts: parts}
	var letters []*record.Record
	for _, s := range ready {
		done, err := s.done(p.lanes[s.lane].name)
		if err != nil {
			return err
		}
		batch.Done = append(batch.Done, done)
		for _, l := range s.page.letters[s.lane] {
			p.tell(l)
			r := deadletter.ToRecord(l)
			letters = append(letters, r)
			batch.Letters = append(batch.Letters, p.indexed(l, r))
		}
	}
	if len(letters) > 0 {
		bodies, err := p.queue.write(ctx, letters)
		if err != nil {
			return err
		}
		batch.Parts = appendParts(batch.Parts, partsQueue, bodies)
	}
	if len(batch.Done)+len(batch.Parts) == 0 {
		return nil
	}
	if err := p.record(ctx, batch); err != nil {
		return err
	}
	p.ledger.finish(ready)
	return nil
}

func appendParts(all []journal.Part, sink string, bodies [][]byte) []journal.Part {
	for _, b := range bodies {
		all = append(all, journal.Part{Sink: sink, Body: b})
	}
	return all
}

// tell logs the first dead letter of each kind, without anything of its record.
func (p *pass) tell(l *record.DeadLetter) {
	const enough = 20 // a flood of codes must not flood the log
	kind := [2]string{l.Step, l.Code}
	if p.told[kind] || len(p.told) == enough {
		return
	}
	p.told[kind] = true
	p.heart.log.Warn("a record becomes a dead letter; further ones of this kind are not logged", "step", l.Step, "class", l.Class, "code", l.Code, "split", l.Split)
}

// record writes to the journal, also when it is busy for a while. After other errors it is open whether it was written.
func (p *pass) record(ctx context.Context, b journal.Batch) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := p.journal.Record(ctx, p.worker.run.ID, p.attempt, b)
		if err != nil && fail.CodeOf(err) != "journal.busy" {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(time.Minute))
	return err
}

// indexed is the entry of a dead letter in the journal's index.
func (w *worker) indexed(l *record.DeadLetter, r *record.Record) journal.Letter {
	entry := journal.Letter{ID: r.KeyText(), Sink: l.Sink, Step: l.Step, Class: l.Class, Code: l.Code, Message: l.Message, Split: l.Split,
		At: time.UnixMilli(l.At), State: journal.Waits}
	if l.Record != nil {
		entry.Key, entry.Position = w.sourceKey(l.Record), l.Record.Origin.Position
	} else if l.Place != nil {
		entry.Position, entry.Place = l.Place.Start, l.Place
	}
	return entry
}

// sourceKey is the key that a record had at the source, by which its row is found again.
func (w *worker) sourceKey(r *record.Record) string {
	if r.Origin.Key == nil {
		return r.KeyText()
	}
	row := record.Record{Schema: w.schema, Values: make([]record.Value, len(w.schema.Fields))}
	for i, k := range w.schema.Key {
		row.Values[k] = r.Origin.Key[i]
	}
	return row.KeyText()
}

// drain waits until everything is settled, and writes it down. What a sink does not settle because the run is to stop stays open.
func (p *pass) drain() error {
	for _, rank := range p.ranks() {
		err := p.flush(rank)
		if err == nil {
			err = p.writeDown(nil)
		}
		if err == nil {
			err = p.letGo()
		}
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	return nil
}

// flush waits until some lanes have settled all that they have, and writes it down as it comes.
func (p *pass) flush(lanes []*lane) error {
	type flushed struct {
		lane  *lane
		parts [][]byte
		err   error
	}
	answers := make(chan flushed)
	waiting := 0
	for _, l := range lanes {
		if l.down == nil {
			waiting++
			go func() {
				parts, err := l.writer.Flush(p.ctx)
				answers <- flushed{l, parts, err}
			}()
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var failed error
	for waiting > 0 {
		var parts []journal.Part
		var checked []*lane
		var err error
		select {
		case a := <-answers:
			waiting--
			if a.err != nil {
				if err = p.fell(a.lane, a.err); errors.Is(err, errStop) {
					err = nil
				}
				break
			}
			checked = append(checked, a.lane)
			parts = appendParts(parts, a.lane.name, a.parts)
		case <-ticker.C:
		}
		if failed == nil && err == nil {
			err = p.writeDown(parts, checked...)
		}
		if err != nil {
			failed = errors.Join(failed, err)
			p.cancel(failed)
		}
	}
	return failed
}

// giveBack leaves the rest open in the journal; for Beam it is done.
func (p *pass) giveBack() error {
	for i := range p.splits {
		p.tracker.TryClaim(travel.Claim{Split: i, End: true})
	}
	return p.tracker.GetError()
}
