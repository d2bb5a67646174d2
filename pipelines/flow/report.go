package flow

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/record"
)

// Report is what a run did, over all of its attempts: for each sink the closed sum of design rule 5.
type Report struct {
	Run         string                `json:"run"`
	Job         string                `json:"job"`
	Attempt     int                   `json:"attempt"` // the last
	State       journal.State         `json:"state"`
	Reason      string                `json:"reason,omitempty"` // why it is not done
	Stage       float64               `json:"stage,omitempty"`  // of a canary, in percent, that is done
	Splits      int                   `json:"splits"`           // of the plan
	Read        int64                 `json:"read"`
	DeadLetters int64                 `json:"dead_letters"`
	Sinks       map[string]SinkReport `json:"sinks"`
	Faults      []string              `json:"faults,omitempty"` // sums that do not balance; none: all do
}

// SinkReport is the sum of one sink: Read + Made = the sum of Outcomes.
type SinkReport struct {
	Read      int64         `json:"read"`
	Made      int64         `json:"made,omitempty"` // further records that transforms made of one
	Outcomes  record.Counts `json:"outcomes"`
	Newest    int64         `json:"newest,omitempty"` // highest version that it wrote
	Committed *int64        `json:"committed,omitempty"`
	Open      int           `json:"open,omitempty"` // splits that it has not finished
	// Uncommitted is whether the commit failed, which would have made all visible.
	Uncommitted bool   `json:"uncommitted,omitempty"`
	Reason      string `json:"reason,omitempty"` // why it is not done
}

// Sum adds up what all attempts at a run have finished so far.
func Sum(ctx context.Context, j journal.Journal, run connector.Run, of *job.Job) (*Report, error) {
	r := &Report{Run: run.ID, Job: run.Job, Sinks: map[string]SinkReport{}}
	done, err := loadFinished(ctx, j, run.ID)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(of.Sinks))
	open := map[string]int{}
	for split, err := range j.Plan(ctx, run.ID) {
		if err != nil {
			return nil, err
		}
		r.Splits++
		for _, name := range names {
			if split.For(name) && len(done.rest(split, []string{laneShared, name})) > 0 {
				open[name]++
			}
		}
	}
	total := func(sink string) (sum journal.Sum) {
		for _, all := range done[sink] {
			for _, d := range all {
				sum.Add(d.Sum)
			}
		}
		return sum
	}
	shared := total(laneShared)
	r.Read, r.DeadLetters = shared.Read, shared.Letters
	for _, name := range names {
		sum := total(name)
		if sum.Read+sum.Made != sum.Outcomes.Total() {
			r.fault("sink %s: %d read and %d made, but %d ended", name, sum.Read, sum.Made, sum.Outcomes.Total())
		}
		r.DeadLetters += sum.Letters
		r.Sinks[name] = SinkReport{Read: sum.Read, Made: sum.Made, Outcomes: sum.Outcomes, Newest: sum.Newest,
			Open: open[name]}
	}
	return r, nil
}

func (r *Report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}
