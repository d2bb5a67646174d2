// Package launch takes a job from its file to its report: it opens and checks the systems, plans, and runs the graph on Prism
// in this process or on Flink.
package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Prepared is a job whose source is open and whose transforms are compiled. Nothing has been written.
type Prepared struct {
	Job      *job.Job
	Run      connector.Run
	Source   connector.Source
	Schema   *record.Schema
	Compiled *job.Compiled
}

// Open loads a job file and prepares its job.
func Open(ctx context.Context, path string) (*Prepared, error) {
	j, err := job.Load(path)
	if err != nil {
		return nil, err
	}
	return Prepare(ctx, j)
}

// Prepare opens the source and compiles the transforms for its schema.
func Prepare(ctx context.Context, j *job.Job) (*Prepared, error) {
	now := time.Now().UTC()
	p := &Prepared{Job: j, Run: connector.Run{Job: j.Name, Started: now.Truncate(time.Millisecond),
		ID: now.Format("20060102-150405-") + uuid.NewString()[:8]}}
	var err error
	if p.Source, err = j.Source.Open(j.Need(p.Run.ID)); err != nil {
		return nil, err
	}
	if p.Schema, err = p.Source.Schema(ctx); err != nil {
		p.Close()
		return nil, err
	}
	if p.Compiled, err = j.Compile(p.Schema, transforms.Options{Now: p.Run.Started}); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the source.
func (p *Prepared) Close() { p.Source.Close() }

// Targets checks every sink and the dead-letter queue against what they will get, and creates what the job asks for unless
// dry. All that is wrong is told at once.
func (p *Prepared) Targets(ctx context.Context, dry bool) error {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(p.Job.Sinks)) {
		if err := p.target(ctx, p.Job.Sinks[name].Target, p.Compiled.Sinks[name].Out, dry); err != nil {
			faults = append(faults, fmt.Errorf("sink %s: %w", name, err))
		}
	}
	if err := p.target(ctx, *p.Job.DeadLetters, deadletter.Schema(), dry); err != nil {
		faults = append(faults, fmt.Errorf("dead letters: %w", err))
	}
	return join(faults)
}

func (p *Prepared) target(ctx context.Context, t job.Target, schema *record.Schema, dry bool) error {
	sink, err := t.Open()
	if err != nil {
		return err
	}
	defer sink.Close()
	return sink.Prepare(ctx, p.Run, schema, dry)
}

// join makes one error of several: the first decides the exit code.
func join(errs []error) error {
	if len(errs) < 2 {
		if len(errs) == 1 {
			return errs[0]
		}
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return fmt.Errorf("%w\n%s", errs[0], strings.Join(texts[1:], "\n"))
}

// Plan gives the splits of the job.
func (p *Prepared) Plan(ctx context.Context) ([]connector.Split, error) {
	var splits []connector.Split
	err := p.Source.Plan(ctx, connector.PlanOptions{Rows: p.Job.Limits.SplitRows, Bytes: int64(p.Job.Limits.SplitBytes)},
		func(s connector.Split) error {
			splits = append(splits, s)
			return nil
		})
	return splits, err
}

// Sum is the total of a plan.
func Sum(splits []connector.Split) journal.Plan {
	var sum journal.Plan
	for _, s := range splits {
		sum.Splits++
		sum.Rows += s.Rows
		sum.Bytes += s.Bytes
	}
	return sum
}

// chunks deals the splits out to n pieces of work, in turn, so that the parts of one wide bucket are read by different workers.
func chunks(splits []connector.Split, n int) [][]connector.Split {
	n = max(1, min(n, len(splits)))
	dealt := make([][]connector.Split, n)
	for i, s := range splits {
		dealt[i%n] = append(dealt[i%n], s)
	}
	return dealt
}

// Execute runs the job and returns its report, which it also leaves in the journal. watch, which may be nil, is told once the plan stands.
func (p *Prepared) Execute(ctx context.Context, o Runner, watch func(*journal.Journal, journal.Plan)) (*flow.Report, error) {
	if err := o.reachable(ctx); err != nil {
		return nil, err
	}
	// Nothing is created for one sink where another is wrong.
	if err := p.Targets(ctx, true); err != nil {
		return nil, err
	}
	j, err := journal.Open(ctx, p.Job.Journal)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := p.Targets(ctx, false); err != nil {
		return nil, err
	}
	text, err := json.Marshal(p.Job)
	if err != nil {
		return nil, err
	}
	schema, err := p.Schema.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if err := j.Begin(ctx, journal.Run{ID: p.Run.ID, Job: p.Run.Job, Started: p.Run.Started, JobFile: text}); err != nil {
		return nil, err
	}
	splits, err := p.Plan(ctx)
	if err != nil {
		return nil, p.end(ctx, j, err)
	}
	work := chunks(splits, o.chunks())
	if err := j.SavePlan(ctx, p.Run.ID, slices.Values(work), Sum(splits)); err != nil {
		return nil, p.end(ctx, j, err)
	}
	if watch != nil {
		watch(j, Sum(splits))
	}
	graph := flow.Graph(flow.Setting{Run: p.Run, Job: text, Schema: schema}, p.Job, len(work))
	if err := o.execute(ctx, p.Run, graph); err != nil {
		return nil, p.end(ctx, j, err)
	}
	info, err := j.Get(ctx, p.Run.ID)
	if err != nil {
		return nil, err
	}
	if info.State == journal.Running {
		return nil, p.end(ctx, j, fail.New(fail.Fatal, "run.no_report", "the runner ended without an error, but also without a report"))
	}
	report := &flow.Report{}
	return report, json.Unmarshal(info.Report, report)
}

// end marks a run that did not come to its report, and prefers what a worker wrote down about its end to what the runner tells.
func (p *Prepared) end(ctx context.Context, j *journal.Journal, err error) error {
	state := journal.Failed
	if stopped := context.Cause(ctx); stopped != nil {
		state, err = journal.Stopped, stopped
	}
	ctx = context.WithoutCancel(ctx)
	if cause, e := j.Failure(ctx, p.Run.ID); e == nil && cause != nil && state == journal.Failed {
		err = cause
	}
	if e := j.Finish(ctx, p.Run.ID, state, nil); e != nil {
		return fmt.Errorf("run %s did not finish: %w; and the journal: %w", p.Run.ID, err, e)
	}
	return fmt.Errorf("run %s did not finish: %w", p.Run.ID, err)
}
