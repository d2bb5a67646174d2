package redrive

import (
	"context"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
)

// Due gives the ids of a run's letters that its job wants to be sent again by now: those that failed by something that
// may pass, each after the delay that belongs to the number of times that it was sent. A letter is left for a while
// where the queue shows it only after a commit.
func Due(ctx context.Context, j journal.Journal, run string, of *job.Job, now time.Time) (ids []string, err error) {
	if of.Retry == nil {
		return nil, nil
	}
	const slack = 5 * time.Second // of a commit
	visible := time.Duration(0)
	if of.Limits.CommitEvery != nil {
		visible = of.Limits.CommitEvery.Time.Std() + slack
	}
	for l, err := range j.Letters(ctx, run, journal.LetterFilter{States: []journal.LetterState{journal.Waits}}) {
		if err != nil {
			return nil, err
		}
		passes := l.Class == fail.Transient.String() || l.Class == fail.Throttled.String()
		if !passes || l.Step == stepSource || l.Redrives >= len(of.Retry.After) || len(ids) == mostLetters {
			continue
		}
		var delay time.Duration
		for _, d := range of.Retry.After[:l.Redrives+1] {
			delay += d.Std()
		}
		if !now.Before(l.At.Add(max(delay, visible))) {
			ids = append(ids, l.ID)
		}
	}
	return ids, nil
}

// stepSource is the step of rows that were never decoded: no queue keeps a record of them.
const stepSource = "source"
