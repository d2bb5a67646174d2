package flow

import (
	"fmt"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// lane is the way of records to one sink: the sink's own transforms, then its writer. The first lane of a pass has no
// sink: it stands for what comes before all of them.
type lane struct {
	name    string
	index   int
	chain   *transforms.Chain
	sink    connector.Sink
	writer  connector.Writer
	commits bool     // what is written becomes durable at a checkpoint
	since   int64    // rows handed to the writer since the last checkpoint
	settled []share  // of a sink that commits: they count with the parts of the next checkpoint
	parts   [][]byte // of checkpoints that are not in the journal yet
	fresh   amount   // in the journal, since the last commit of a run that goes on; of the shared lane the dead letters
	down    error    // why it is left behind; nil: it is not

	after []*lane           // that come before it
	lost  map[string]string // keys of rows that failed there in earlier attempts, with the sink

	tally   tally // of the page that is being handed out
	letters []*record.DeadLetter
	recent  recent // of the records that entered the chain
}

// begin makes ready for another page.
func (l *lane) begin() { l.tally, l.letters = tally{}, nil }

// tally counts what becomes of the records of one page in a chain.
type tally struct {
	made     int64 // further records of steps that make several of one
	outcomes record.Counts
}

// apply runs a record through the lane's chain, and counts what becomes of it. An error that is no matter of the
// record ends the run.
func (l *lane) apply(r *record.Record, emit func(*record.Record), dead func(*record.Record, string, error)) (
	fatal error) {
	ended, died := int64(0), int64(0)
	filtered := int64(l.chain.Apply(r,
		func(out *record.Record) {
			ended++
			emit(out)
		},
		func(in *record.Record, step string, err error) {
			if fail.ClassOf(err) == fail.Fatal {
				fatal = fmt.Errorf("%s: %w", step, err)
			}
			ended++
			died++
			dead(in, step, err)
		}))
	l.tally.outcomes[record.Dead] += died
	l.tally.outcomes[record.Filtered] += filtered
	l.tally.made += ended + filtered - 1
	l.recent.add(died > 0)
	return fatal
}
