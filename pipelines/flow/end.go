package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/pipelines/pace"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// partsQueue is the dead-letter queue among the sinks whose parts are in the journal.
const partsQueue = ""

// endFn ends an attempt: it looks whether all of the plan is finished, commits what is to be committed, and reports.
type endFn struct {
	Setting Setting
	worker  *worker
}

// Setup opens the journal.
func (f *endFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	return err
}

// ProcessElement comes once, after all splits. A run that does not balance has failed, whatever it wrote.
func (f *endFn) ProcessElement(ctx context.Context, _ int, _ func(*int) bool) (err error) {
	defer f.worker.guard(ctx, "end", &err)
	// Whoever watches the run sees that it lives, also while a commit takes long.
	h := startHeart(ctx, f.worker, func(error) {})
	defer h.stop()
	report, err := f.worker.end(ctx, h, f.Setting.Stage)
	if err != nil {
		return err
	}
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	if f.Setting.Member != "" && report.State != journal.Stopped && report.State != journal.Unbalanced &&
		report.State != journal.Paused {
		return nil // others go on
	}
	return f.worker.journal.Finish(ctx, f.worker.run.ID, f.worker.attempt, report.State, body)
}

// Teardown closes the journal.
func (f *endFn) Teardown() { f.worker.close() }

func (w *worker) end(ctx context.Context, h *heart, stage float64) (*Report, error) {
	// An attempt that is over must not commit under the hands of the one that goes on.
	if err := w.journal.Record(ctx, w.run.ID, w.attempt, journal.Batch{}); err != nil {
		return nil, err
	}
	r, err := Sum(ctx, w.journal, w.run, w.job)
	if err != nil {
		return nil, err
	}
	r.Attempt = w.attempt
	goesOn, commit := w.job.Source.Follows(), w.commit
	if goesOn {
		commit = w.commitRest
	}
	for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
		s := r.Sinks[name]
		if s.Open > 0 && !goesOn {
			continue
		}
		chain, err := w.sinkChain(name)
		if err != nil {
			return nil, err
		}
		var superseded int64
		gated := connector.WithGate(ctx, h.pace.Gate(name))
		s.Committed, superseded, err = commit(gated, name, w.job.Sinks[name].SinkSpec, chain.Out)
		if err != nil && !later(err) {
			return nil, err
		} else if err != nil { // the others do not wait for it
			s.Uncommitted, s.Reason = true, err.Error()
			h.log.Warn("a sink is left behind: what it got is not committed; resume the run once it is well",
				"sink", name, "error", err)
		}
		// What others who share the run have written may not be committed yet.
		if written := s.Outcomes[record.Written]; w.member == "" && s.Committed != nil && *s.Committed != written {
			r.fault("sink %s wrote %d records, but committed %d", name, written, *s.Committed)
		}
		s.Outcomes[record.Written] -= superseded
		s.Outcomes[record.Superseded] += superseded
		r.Sinks[name] = s
	}
	queued, _, err := commit(ctx, partsQueue, *w.job.DeadLetters, deadletter.Schema())
	if err != nil && goesOn && later(err) {
		h.log.Warn("the last dead letters are not committed; the next attempt does it", "error", err)
	} else if err != nil {
		return nil, err
	}
	if w.member == "" && queued != nil && *queued != r.DeadLetters {
		r.fault("%d records are dead, but %d dead letters were committed", r.DeadLetters, *queued)
	}
	if stage > 0 {
		left, err := Left(ctx, w.journal, w.run.ID, w.sinks, stage)
		if err != nil {
			return nil, err
		}
		if left == 0 {
			r.Stage = stage
		}
	}
	return r, w.verdict(ctx, r)
}

// later tells whether what failed may be done by another attempt: it may pass, or the run is to stop before it has.
func later(err error) bool {
	return fail.ClassOf(err).Passes() || errors.Is(err, pace.ErrStopped)
}

// commit makes the parts of a sink visible and tells how many of their records lost to newer ones; nil: it does not
// commit.
func (w *worker) commit(ctx context.Context, name string, target connector.SinkSpec, schema *record.Schema) (
	records *int64, superseded int64, err error) {
	parts, err := w.journal.Parts(ctx, w.run.ID, name)
	if err != nil {
		return nil, 0, err
	}
	return commitParts(ctx, w.runOf(name), name, target, schema, parts)
}

// commitParts makes parts visible, as those of a run.
func commitParts(ctx context.Context, run connector.Run, name string, target connector.SinkSpec,
	schema *record.Schema, parts [][]byte) (records *int64, superseded int64, err error) {
	sink, err := systems.sink(target)
	if err != nil {
		return nil, 0, err
	}
	defer sink.Close()
	committer, ok := sink.(connector.Committer)
	switch {
	case !ok && len(parts) > 0:
		return nil, 0, fail.New(fail.Fatal, "internal.no_committer", "%s gave parts, but cannot commit them", name)
	case !ok:
		return nil, 0, nil
	}
	var n int64
	if err := connector.Request(ctx, connector.DefaultRetry, func() (_ int, _ int64, err error) {
		n, err = committer.Commit(ctx, run, schema, parts)
		if merger, ok := sink.(connector.Merger); ok && err == nil {
			superseded, err = merger.Superseded(ctx, run)
		}
		return 0, 0, err
	}); err != nil {
		return nil, 0, err
	}
	return &n, superseded, nil
}

// verdict is the state that the run is in.
func (w *worker) verdict(ctx context.Context, r *Report) error {
	control, err := w.journal.Control(ctx, w.run.ID)
	if err != nil {
		return err
	}
	beats, err := w.journal.Beats(ctx, w.run.ID)
	if err != nil {
		return err
	}
	open := false
	for name, s := range r.Sinks {
		open = open || s.Uncommitted
		if s.Open == 0 {
			continue
		}
		open = true
		switch {
		case !slices.Contains(w.sinks, name):
			s.Reason = "it took no part in this attempt"
		case r.Stage > 0:
			s.Reason = fmt.Sprintf("%g %% of the partitions are done, as a canary", r.Stage)
		}
		for _, b := range beats {
			if why, down := b.Down[name]; down {
				s.Reason = why
			}
		}
		r.Sinks[name] = s
	}
	switch {
	case len(r.Faults) > 0:
		r.State = journal.Unbalanced
	case !open:
		r.State = journal.Complete
	case control.Want == journal.Stop && control.Reason != "":
		r.State, r.Reason = journal.Paused, control.Reason
	case control.Want == journal.Stop:
		r.State = journal.Stopped
	case control.Ends(w.member):
		r.State, r.Reason = journal.Incomplete, control.Reason
	case r.Stage > 0 && w.job.Canary.Spent(r.Stage, r.DeadLetters, r.Read) != "":
		r.State, r.Reason = journal.Paused, w.job.Canary.Spent(r.Stage, r.DeadLetters, r.Read)
	default:
		r.State = journal.Incomplete
		for name, s := range r.Sinks {
			if s.Open > 0 && s.Reason == "" {
				r.fault("sink %s has not finished %d splits, and nothing tells why", name, s.Open)
				r.State = journal.Unbalanced
			}
		}
	}
	return nil
}
