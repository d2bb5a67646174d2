package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A run that goes on has no end at which its sinks could commit, so they commit every so often. What a commit holds is
// sealed in the journal before, and counted there after: one that is repeated, after a crash or by another worker, is
// the same one, and the sink knows it by its name, the run's with the commit's number.

// commits are those under way in a pass, each in a goroutine of its own.
type commits struct {
	last  map[*lane]time.Time // when each lane last committed, or began
	under map[*lane]bool
	ended chan ended
	all   sync.WaitGroup
}

// ended is how a commit has ended.
type ended struct {
	lane *lane
	left bool // there are parts that came after it was sealed
	err  error
}

// amount is what has been written and not committed, about.
type amount struct{ rows, bytes int64 }

// newCommits needs the number of lanes: of each there is one commit under way at most.
func newCommits(lanes int) *commits {
	return &commits{last: map[*lane]time.Time{}, under: map[*lane]bool{}, ended: make(chan ended, lanes)}
}

// wait waits for the commits under way. What has failed that may pass is tried again as the attempt ends.
func (c *commits) wait() (err error) {
	if c == nil {
		return nil
	}
	c.all.Wait()
	close(c.ended)
	for e := range c.ended {
		if fail.ClassOf(e.err) == fail.Fatal && !errors.Is(e.err, context.Canceled) && !errors.Is(e.err, errStop) {
			err = errors.Join(err, e.err)
		}
	}
	return err
}

// committing are the lanes that commit; the shared one stands for the queue of dead letters.
func (k *keeper) committing() (all []*lane) {
	for _, l := range k.all {
		_, queue := k.queue.sink.(connector.Committer)
		if l.commits && l.down == nil || l.name == laneShared && queue {
			all = append(all, l)
		}
	}
	return all
}

// commitLeft begins the commits that an earlier attempt has sealed and not ended.
func (k *keeper) commitLeft() error {
	for _, l := range k.committing() {
		k.commits.last[l] = time.Now()
		_, open, err := k.journal.Sealed(k.ctx, k.run.ID, l.name)
		if err != nil {
			return err
		}
		if open {
			k.commit(l)
			continue
		}
		left, err := k.left(k.ctx, l.name)
		if err != nil {
			return err
		}
		l.owe(left)
	}
	return nil
}

// left tells whether there are parts that no commit has.
func (w *worker) left(ctx context.Context, sink string) (bool, error) {
	parts, err := w.journal.Parts(ctx, w.run.ID, sink)
	return len(parts) > 0, err
}

// owe has the lane commit in time, though nobody knows how many rows there are: others have written them.
func (l *lane) owe(parts bool) {
	if parts {
		l.fresh.rows = max(1, l.fresh.rows)
	}
}

// commitDue commits at the sinks where it is time, and takes in what has become of commits.
func (k *keeper) commitDue(now time.Time) error {
	if k.commits == nil {
		return nil
	}
	select {
	case e := <-k.commits.ended:
		k.commits.under[e.lane] = false
		e.lane.owe(e.left)
		if err := k.commitFailed(e); err != nil {
			return err
		}
	default:
	}
	for _, l := range k.committing() {
		due := k.job.Limits.CommitEvery.Due(now.Sub(k.commits.last[l]), l.unseen(), l.fresh.bytes)
		if !due || k.commits.under[l] {
			continue
		}
		k.commits.last[l] = now
		if l.commits {
			parts, err := l.writer.Flush(k.ctx)
			if err != nil {
				if err = k.leaveBehind(l, err); err != nil {
					return err
				}
				continue
			}
			l.since = 0
			l.parts = append(l.parts, parts...)
			if err := k.writeDown(l); err != nil {
				return err
			}
		}
		l.fresh = amount{}
		if err := k.seal(k.ctx, l.name); err != nil {
			return err
		}
		k.commit(l)
	}
	return nil
}

// unseen is about how many rows a lane has taken that are not visible, or are letters of the queue.
func (l *lane) unseen() int64 {
	if l.commits {
		return l.fresh.rows + l.since
	}
	return l.fresh.rows
}

func (k *keeper) commitFailed(e ended) error {
	if e.err == nil || e.lane.down != nil {
		return nil
	}
	if e.lane.name == laneShared {
		return fmt.Errorf("dead letters: %w", e.err)
	}
	return k.leaveBehind(e.lane, e.err)
}

// commit commits what is sealed of a lane, beside what goes on.
func (k *keeper) commit(l *lane) {
	target, schema := *k.job.DeadLetters, deadletter.Schema()
	if l.commits {
		target, schema = k.job.Sinks[l.name].SinkSpec, l.chain.Out
	}
	k.commits.under[l] = true
	k.commits.all.Go(func() {
		err := k.commitSealed(connector.WithGate(k.ctx, k.heart.pace.Gate(l.name)), l.name, target, schema)
		left := false
		if err == nil {
			left, err = k.left(k.ctx, l.name)
		}
		k.commits.ended <- ended{l, left, err}
	})
}

// seal seals what a sink has written, with the positions up to which the source has been read for it.
func (w *worker) seal(ctx context.Context, sink string) error {
	offsets, err := w.offsets(ctx, sink)
	if err != nil {
		return err
	}
	return w.record(ctx, journal.Batch{Seal: []journal.Seal{{Sink: sink, Note: offsets}}})
}

// offsets are the positions up to which a sink has finished each partition without a gap, as JSON.
func (w *worker) offsets(ctx context.Context, sink string) (string, error) {
	source, err := systems.source(w.job.Source, w.job.Need(w.run))
	if err != nil {
		return "", err
	}
	defer source.Close()
	follower, ok := connector.FollowerOf(source)
	if !ok {
		return "", nil
	}
	var plan []connector.Split
	for split, err := range w.journal.Plan(ctx, w.run.ID) {
		if err != nil {
			return "", err
		}
		plan = append(plan, split)
	}
	standing, err := Standing(ctx, w.journal, w.run.ID, []string{sink}, plan)
	if err != nil {
		return "", err
	}
	at := map[string]string{}
	for _, split := range standing {
		at[split.Partition] = follower.Position(split)
	}
	text, err := json.Marshal(at)
	return string(text), err
}

// commitSealed commits what is sealed of a sink, if anything is.
func (w *worker) commitSealed(ctx context.Context, name string, target connector.SinkSpec,
	schema *record.Schema) error {
	c, open, err := w.journal.Sealed(ctx, w.run.ID, name)
	if err != nil || !open {
		return err
	}
	run := w.runOf(name)
	run.ID, run.Offsets = fmt.Sprintf("%s.%d", run.ID, c.Number), c.Note
	records, superseded, err := commitParts(ctx, run, name, target, schema, c.Parts)
	if err != nil {
		return err
	}
	end := journal.CommitEnd{Sink: name, Number: c.Number, Superseded: superseded}
	if records != nil {
		end.Records = *records
	}
	return w.record(ctx, journal.Batch{Committed: []journal.CommitEnd{end}})
}

// commitRest commits all that a sink of a run that goes on has brought, and gives what it has committed in all; nil:
// it does not commit.
func (w *worker) commitRest(ctx context.Context, name string, target connector.SinkSpec, schema *record.Schema) (
	records *int64, superseded int64, err error) {
	sink, err := systems.sink(target)
	if err != nil {
		return nil, 0, err
	}
	defer sink.Close()
	if _, commits := sink.(connector.Committer); !commits {
		return nil, 0, nil
	}
	// What an earlier attempt has sealed comes first, then what has come since.
	if err := w.commitSealed(ctx, name, target, schema); err != nil {
		return nil, 0, err
	}
	left, err := w.left(ctx, name)
	if err == nil && left {
		if err = w.seal(ctx, name); err == nil {
			err = w.commitSealed(ctx, name, target, schema)
		}
	}
	if err != nil {
		return nil, 0, err
	}
	sum, err := w.journal.Committed(ctx, w.run.ID, name)
	if err != nil {
		return nil, 0, err
	}
	return &sum.Records, sum.Superseded, nil
}
