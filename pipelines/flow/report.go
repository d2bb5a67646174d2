package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func init() {
	register.DoFn4x1[context.Context, int, func(*[]byte) bool, func(tally), error](&commitFn{})
	register.DoFn3x1[context.Context, int, func(*tally) bool, error](&reportFn{})
}

// The stages of a run, as tallies and dead letters name them.
const (
	stagePlan       = "plan"
	stageSource     = "source"
	stageTransforms = "transforms"
	stageQueue      = "dead letters"
)

func stageSink(name string) string    { return "sink " + name }
func stageCommit(stage string) string { return "commit " + stage }

// Report is what a run did: for each sink the closed sum of design rule 5.
type Report struct {
	Run         string                `json:"run"`
	Job         string                `json:"job"`
	Splits      int                   `json:"splits"` // with at least one row
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
	Committed *int64        `json:"committed,omitempty"`
}

// commitFn makes the parts of one sink, or of the queue, visible.
type commitFn struct {
	Setting Setting
	Sink    string // "": the dead-letter queue
	worker  *worker
}

// Setup opens the journal.
func (f *commitFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	return err
}

// ProcessElement commits all parts at once.
func (f *commitFn) ProcessElement(ctx context.Context, _ int, parts func(*[]byte) bool, count func(tally)) (err error) {
	stage, target, schema := stageQueue, *f.worker.job.DeadLetters, deadletter.Schema()
	if f.Sink != "" {
		chain, err := f.worker.sinkChain(f.Sink)
		if err != nil {
			return err
		}
		stage, target, schema = stageSink(f.Sink), f.worker.job.Sinks[f.Sink].Target, chain.Out
	}
	defer f.worker.guard(ctx, stageCommit(stage), &err)
	sink, err := target.Open()
	if err != nil {
		return err
	}
	defer sink.Close()
	committer, ok := sink.(connector.Committer)
	if !ok {
		return fail.New(fail.Fatal, "internal.no_committer", "%s gave parts, but cannot commit them", stage)
	}
	var all [][]byte
	for p := []byte(nil); parts(&p); p = nil {
		all = append(all, p)
	}
	n, err := committer.Commit(ctx, f.worker.run, schema, all)
	if err != nil {
		return err
	}
	count(tally{Stage: stageCommit(stage), Out: n})
	return nil
}

// Teardown closes the journal.
func (f *commitFn) Teardown() { f.worker.close() }

// reportFn sums the tallies of all stages and ends the run in the journal.
type reportFn struct {
	Setting Setting
	worker  *worker
}

// Setup opens the journal.
func (f *reportFn) Setup(ctx context.Context) (err error) {
	f.worker, err = f.Setting.open(ctx)
	return err
}

// ProcessElement sums and checks. A run that does not balance has failed, whatever it wrote.
func (f *reportFn) ProcessElement(ctx context.Context, _ int, all func(*tally) bool) (err error) {
	defer f.worker.guard(ctx, "report", &err)
	sums := map[string]map[string]tally{} // stage → split
	for t := (tally{}); all(&t); t = (tally{}) {
		if sums[t.Stage] == nil {
			sums[t.Stage] = map[string]tally{}
		}
		s := sums[t.Stage][t.Split]
		s.add(t)
		sums[t.Stage][t.Split] = s
	}
	report := balance(f.worker.run, slices.Sorted(maps.Keys(f.worker.job.Sinks)), sums)
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	state := journal.Done
	if len(report.Faults) > 0 {
		state = journal.Unbalanced
	}
	return f.worker.journal.Finish(ctx, f.worker.run.ID, state, body)
}

// Teardown closes the journal.
func (f *reportFn) Teardown() { f.worker.close() }

func (t *tally) add(u tally) {
	t.In, t.Made, t.Out = t.In+u.In, t.Made+u.Made, t.Out+u.Out
	t.Outcomes.Add(u.Outcomes)
}

// balance checks that for each split every stage took what the one before handed on, and ended each of its records
// once; that each dead letter is in the queue; and that what was to be committed was.
func balance(run connector.Run, sinks []string, sums map[string]map[string]tally) Report {
	r := Report{Run: run.ID, Job: run.Job, Sinks: map[string]SinkReport{}}
	fault := func(format string, args ...any) {
		const enough = 20
		if len(r.Faults) < enough {
			r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
		}
	}
	splits := map[string]bool{}
	for stage, of := range sums {
		if stage == stageSource || stage == stageTransforms || strings.HasPrefix(stage, stageSink("")) {
			for s := range of {
				splits[s] = true
			}
		}
	}
	r.Splits = len(splits)
	for _, s := range slices.Sorted(maps.Keys(splits)) {
		source, shared := sums[stageSource][s], sums[stageTransforms][s]
		r.Read += source.In
		if source.In != source.Out+source.Outcomes.Total() {
			fault("%s: the source read %d rows, but handed on %d and set aside %d", s, source.In, source.Out, source.Outcomes.Total())
		}
		if shared.In != source.Out {
			fault("%s: the source handed on %d records, the transforms got %d", s, source.Out, shared.In)
		}
		if shared.In+shared.Made != shared.Out+shared.Outcomes.Total() {
			fault("%s: the transforms got %d and made %d records, but handed on %d and ended %d", s, shared.In, shared.Made, shared.Out, shared.Outcomes.Total())
		}
		for _, name := range sinks {
			sink := sums[stageSink(name)][s]
			if sink.In != shared.Out {
				fault("%s: the transforms handed on %d records, sink %s got %d", s, shared.Out, name, sink.In)
			}
			if sink.In+sink.Made != sink.Outcomes.Total() {
				fault("%s: sink %s got %d and made %d records, but ended %d", s, name, sink.In, sink.Made, sink.Outcomes.Total())
			}
		}
	}
	var before tally // what ended before any sink
	for _, stage := range []string{stageSource, stageTransforms} {
		for _, t := range sums[stage] {
			before.add(t)
		}
	}
	r.DeadLetters = before.Outcomes[record.Dead]
	for _, name := range sinks {
		var sum tally
		for _, t := range sums[stageSink(name)] {
			sum.add(t)
		}
		r.DeadLetters += sum.Outcomes[record.Dead]
		written := sum.Outcomes[record.Written]
		report := SinkReport{Read: r.Read, Made: before.Made + sum.Made}
		if committed, ok := sums[stageCommit(stageSink(name))]; ok {
			n := committed[""].Out
			report.Committed = &n
			if n != written {
				fault("sink %s wrote %d records, but committed %d", name, written, n)
			}
		}
		sum.add(tally{Outcomes: before.Outcomes})
		report.Outcomes = sum.Outcomes
		if report.Read+report.Made != sum.Outcomes.Total() {
			fault("sink %s: %d read and %d made, but %d ended", name, report.Read, report.Made, sum.Outcomes.Total())
		}
		r.Sinks[name] = report
	}
	if queued := sums[stageQueue][""].Out; queued != r.DeadLetters {
		fault("%d records are dead, but %d dead letters were written", r.DeadLetters, queued)
	}
	if committed, ok := sums[stageCommit(stageQueue)]; ok && committed[""].Out != r.DeadLetters {
		fault("%d records are dead, but %d dead letters were committed", r.DeadLetters, committed[""].Out)
	}
	return r
}
