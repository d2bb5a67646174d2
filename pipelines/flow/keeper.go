package flow

import (
	"context"
	"errors"
	"slices"
	"time"

	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/transforms/record"
)

// keeper makes checkpoints: it tells sinks to send what they gather, and writes down in the journal what has been
// finished.
type keeper struct {
	*lanes
	cancel  context.CancelCauseFunc // of the pass
	queue   *queue
	told    map[[2]string]bool // kinds of dead letters that the log knows
	nudged  time.Time          // when the sinks were last told to send what they have
	linger  time.Duration      // how long sinks may gather where little comes
	commits *commits           // nil: what sinks commit is committed at the end of the run
}

func newKeeper(cancel context.CancelCauseFunc, ls *lanes) *keeper {
	return &keeper{lanes: ls, cancel: cancel, told: map[[2]string]bool{}, nudged: time.Now(),
		linger: 2 * time.Second}
}

// open opens the dead-letter queue. What is finished is written down also when the run is to stop.
func (k *keeper) open() (err error) {
	k.queue, err = k.openQueue(context.WithoutCancel(k.ctx))
	return err
}

func (k *keeper) close() {
	if k.queue != nil {
		k.queue.close()
	}
}

// need is how badly room is needed in the window.
type need int

const (
	calm     need = iota
	hungry        // a reader waits for room
	starving      // and nothing has come for a while: the window may be full of what sinks only gather
)

// nudge makes the sinks send what they have only gathered, and writes down what is finished, when it is time for
// either.
func (k *keeper) nudge(n need) error {
	now := time.Now()
	late := now.Sub(k.nudged) > k.linger
	checked, err := k.checkpoint(n, late)
	if err != nil {
		return err
	}
	due := k.ledger.due()
	if late || n == starving {
		k.nudged = now
	}
	if len(checked) > 0 || due >= k.window.quarter() || due > 0 && (late || n > calm) {
		if err := k.writeDown(checked...); err != nil {
			return err
		}
		if err := k.letGo(); err != nil {
			return err
		}
		if err := k.heart.budget(k.ctx, k.recents()...); err != nil {
			return err
		}
	}
	return k.commitDue(now)
}

// checkpoint makes the sinks send for which it is time, and gives their lanes. Those before one that ends the pass
// keep their parts for the next time that they are written down.
func (k *keeper) checkpoint(n need, late bool) (checked []*lane, err error) {
	commitsOnly := !slices.ContainsFunc(k.sinks(), func(l *lane) bool { return !l.commits && l.down == nil })
	for _, l := range k.sinks() {
		enough := k.window.gathers(l.commits, commitsOnly)
		pressed := n == starving || !l.commits && late
		// A starving pass also asks for what was sent: its sink may have given up since. So does one that goes on,
		// since no end would ask.
		asks := n == starving || late && k.commits != nil && k.ledger.open() > 0
		nothing := l.since == 0 && (l.commits || !asks)
		if l.down != nil || nothing || l.since < enough && !pressed {
			continue
		}
		check := l.writer.Checkpoint
		if l.commits && k.member != "" {
			check = l.writer.Flush // another member may commit it: no file may go on behind it
		}
		bodies, err := check(k.ctx)
		if err != nil {
			if err = k.leaveBehind(l, err); err != nil {
				return nil, err
			}
			continue
		}
		l.since = 0
		l.parts = append(l.parts, bodies...)
		checked = append(checked, l)
	}
	return checked, nil
}

// writeDown tells the journal what has been finished: pages whose records are settled, once their dead letters are in
// the queue. What a sink that commits has settled counts only with the parts of a checkpoint after it. It does so
// also when the pass is to stop.
func (k *keeper) writeDown(checked ...*lane) error {
	ctx := context.WithoutCancel(k.ctx)
	ready, parts := k.ready(checked)
	batch := journal.Batch{Parts: parts}
	var letters []*record.Record
	for _, s := range ready {
		done, err := s.done(k.all[s.lane].name)
		if err != nil {
			return err
		}
		batch.Done = append(batch.Done, done)
		for _, l := range s.account.letters[s.lane] {
			k.tell(l)
			r := deadletter.ToRecord(l)
			letters = append(letters, r)
			batch.Letters = append(batch.Letters, k.indexed(l, r))
		}
	}
	if len(letters) > 0 {
		bodies, err := k.queue.write(ctx, letters)
		if err != nil {
			return err
		}
		batch.Parts = appendParts(batch.Parts, partsQueue, bodies)
		k.all[0].fresh.rows += int64(len(letters))
	}
	if len(batch.Done)+len(batch.Parts) == 0 {
		return nil
	}
	if err := k.record(ctx, batch); err != nil {
		return err
	}
	k.ledger.finish(ready)
	return nil
}

// ready are the shares and the parts that may be written down, after a checkpoint of some lanes. They are handed
// out once.
func (k *keeper) ready(checked []*lane) (ready []share, parts []journal.Part) {
	for _, s := range k.ledger.take() {
		l := k.all[s.lane]
		if l.commits && s.account.rows > 0 { // without rows it needs no checkpoint
			l.settled = append(l.settled, s)
		} else {
			ready = append(ready, s)
		}
	}
	for _, l := range k.all {
		switch {
		case l.down != nil:
			k.ledger.finish(l.settled)
			l.settled, l.parts = nil, nil
		case slices.Contains(checked, l):
			for _, s := range l.settled {
				l.fresh.rows, l.fresh.bytes = l.fresh.rows+s.account.rows, l.fresh.bytes+s.account.memory
			}
			ready, parts = append(ready, l.settled...), appendParts(parts, l.name, l.parts)
			l.settled, l.parts = nil, nil
		}
	}
	return ready, parts
}

func appendParts(all []journal.Part, sink string, bodies [][]byte) []journal.Part {
	for _, b := range bodies {
		all = append(all, journal.Part{Sink: sink, Body: b})
	}
	return all
}

// tell logs the first dead letter of each kind, without anything of its record.
func (k *keeper) tell(l *record.DeadLetter) {
	const enough = 20 // a flood of codes must not flood the log
	kind := [2]string{l.Step, l.Code}
	if k.told[kind] || len(k.told) == enough {
		return
	}
	k.told[kind] = true
	k.heart.log.Warn("a record becomes a dead letter; further ones of this kind are not logged",
		"step", l.Step, "class", l.Class, "code", l.Code, "split", l.Split)
}

// drain waits until everything is settled, and writes it down. What a sink does not settle because the run is to stop
// stays open.
func (k *keeper) drain() error {
	for _, rank := range k.ranks() {
		err := k.flush(rank)
		if err == nil {
			err = k.writeDown()
		}
		if err == nil {
			err = k.letGo()
		}
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	return nil
}

// flush waits until some lanes have settled all that they have, and writes it down as it comes.
func (k *keeper) flush(lanes []*lane) error {
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
				parts, err := l.writer.Flush(k.ctx)
				answers <- flushed{l, parts, err}
			}()
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var failed error
	for waiting > 0 {
		var checked []*lane
		var err error
		select {
		case a := <-answers:
			waiting--
			if a.err != nil {
				if err = k.leaveBehind(a.lane, a.err); errors.Is(err, errStop) {
					err = nil
				}
				break
			}
			a.lane.parts = append(a.lane.parts, a.parts...)
			checked = append(checked, a.lane)
		case <-ticker.C:
		}
		if failed == nil && err == nil {
			err = k.writeDown(checked...)
		}
		if err != nil {
			failed = errors.Join(failed, err)
			k.cancel(failed)
		}
	}
	return failed
}
