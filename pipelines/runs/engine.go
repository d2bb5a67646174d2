package runs

import (
	"context"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
)

// Engine makes runs. Package runners/launch has the one for Prism and Flink.
type Engine interface {
	// Reachable gives an error where no run can begin.
	Reachable(ctx context.Context) error

	// OneMachine tells whether all workers see the files of this machine.
	OneMachine() bool

	// Execute makes a run of a job, to its report, which it also leaves in the journal.
	Execute(ctx context.Context, p *Prepared) (*flow.Report, error)

	// Resume makes another attempt at a run: only what is not finished is read.
	Resume(ctx context.Context, j journal.Journal, run string, r Resumption) (*Prepared, *flow.Report, error)
}

// Watch is told when an attempt begins. The function that it returns, which may be nil, is called when the attempt has
// ended, while the journal is still open.
type Watch func(j journal.Journal, run string, attempt int, total journal.Total) (ended func())

// Resumption says how a run goes on.
type Resumption struct {
	Job    *job.Job         // with other settings; nil: as it was
	Force  bool             // even if the job reads, does or writes something else than before
	Sinks  []string         // only these; nil: all that are not finished
	Floors map[string]int64 // see Prepared.Floors; nil: those that earlier runs ask for
}
