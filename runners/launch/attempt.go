// Package launch makes runs: it runs the graph of a job on Prism in this process, or on Flink, from its plan to its
// report.
package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/redrive"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// prepared is a job on its way.
type prepared struct{ *runs.Prepared }

// Execute implements runs.Engine.
func (o Runner) Execute(ctx context.Context, of *runs.Prepared) (*flow.Report, error) {
	if err := o.Reachable(ctx); err != nil {
		return nil, err
	}
	p := prepared{of}
	plan := p.planner(ctx)
	if p.Begun == nil {
		// Planning only reads: it goes on beside the checks of the targets.
		planning, stop := context.WithCancel(ctx)
		plan = p.planner(planning)
		go plan()
		defer func() { stop(); plan() }()
	}
	// Nothing is created for one sink where another is wrong.
	if err := p.Targets(ctx, true); err != nil {
		return nil, err
	}
	j, err := journal.Open(ctx, *p.Job.Journal)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := p.Targets(ctx, false); err != nil {
		return nil, err
	}
	if err := p.begin(ctx, j); err != nil {
		return nil, err
	}
	if p.Begun != nil {
		err = p.Begun(ctx, j)
	}
	if err == nil {
		err = p.savePlan(ctx, j, plan)
	}
	if err != nil {
		return nil, p.failed(ctx, j, 0, err)
	}
	return p.stages(ctx, j, o, nil)
}

// begin writes the run down.
func (p prepared) begin(ctx context.Context, j journal.Journal) error {
	text, err := json.Marshal(p.Job)
	if err != nil {
		return err
	}
	schema, err := p.Schema.MarshalBinary()
	if err != nil {
		return err
	}
	fingerprint, err := p.Fingerprint()
	if err != nil {
		return err
	}
	return j.Begin(ctx, journal.Run{ID: p.Run.ID, Job: p.Run.Job, Started: p.Run.Started, JobFile: text, Schema: schema,
		Fingerprint: fingerprint, Parent: p.Parent})
}

// planner gives a plan, made on its first call.
func (p prepared) planner(ctx context.Context) func() ([]connector.Split, error) {
	return sync.OnceValues(func() ([]connector.Split, error) { return p.Plan(ctx) })
}

func (p prepared) savePlan(ctx context.Context, j journal.Journal, plan func() ([]connector.Split, error)) error {
	splits, err := plan()
	if err != nil {
		return err
	}
	return j.SavePlan(ctx, p.Run.ID, slices.Values(splits), runs.TotalOf(splits))
}

// stages does what is not finished of the plan, the stages of a canary first: each is an attempt of its own.
func (p prepared) stages(ctx context.Context, j journal.Journal, o Runner, sinks []string) (*flow.Report, error) {
	if p.Job.Canary != nil {
		of := sinks
		if of == nil {
			of = slices.Collect(maps.Keys(p.Job.Sinks))
		}
		for _, percent := range p.Job.Canary.Stages {
			left, err := flow.Left(ctx, j, p.Run.ID, of, percent)
			if err != nil {
				return nil, err
			}
			if left == 0 {
				continue
			}
			report, err := p.attempt(ctx, j, o, sinks, percent)
			if err != nil || report.Stage == 0 || report.State != journal.Incomplete {
				return report, err
			}
			done := fmt.Sprintf("%g %% of the partitions are done", percent)
			if err := j.Note(ctx, p.Run.ID, journal.Event{At: time.Now(), Kind: "canary", Text: done}); err != nil {
				return nil, err
			}
		}
	}
	if p.Job.Source.Follows() {
		return p.follow(ctx, j, o, sinks)
	}
	return p.attempt(ctx, j, o, sinks, 0)
}

// attempt runs the graph over what is not finished of a stage of a canary, in percent, or of all (0). When ctx ends,
// the run is asked to stop and given some time to.
func (p prepared) attempt(ctx context.Context, j journal.Journal, o Runner, sinks []string, percent float64) (
	*flow.Report, error) {
	run := p.Run.ID
	total, err := j.Total(ctx, run)
	if err != nil {
		return nil, err
	}
	n, err := j.Attempt(ctx, run)
	if err != nil {
		return nil, err
	}
	begins := fmt.Sprintf("attempt %d on %s", n, o.Name)
	if err := j.Note(ctx, run, journal.Event{At: time.Now(), Kind: "attempt", Text: begins}); err != nil {
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
	if o.Watch != nil {
		if ended := o.Watch(j, run, n, total); ended != nil {
			defer ended()
		}
	}
	if p.Floors == nil {
		if p.Floors, err = p.FindFloors(ctx, j); err == nil && len(p.Floors) > 0 {
			err = runs.NoteFloors(ctx, j, run, p.Floors)
		}
		if err != nil {
			return nil, p.failed(ctx, j, n, err)
		}
	}
	goesOn := p.Job.Source.Follows()
	setting := flow.Setting{Run: p.Run, Attempt: n, Sinks: sinks, Floors: p.Floors, Stage: percent,
		Window: flow.WindowOf(p.Job.Limits, total.Rows, o.workers(goesOn)), Job: text, Schema: schema}
	unload, err := p.load(ctx, j, n)
	if err != nil {
		return nil, p.failed(ctx, j, n, err)
	}
	until, stop := p.stopWith(ctx, j)
	err = o.execute(until, p.Run, flow.Graph(setting, o.hands(goesOn)))
	stop()
	left := unload()
	if err != nil {
		return nil, p.failed(ctx, j, n, err)
	}
	info, err := j.Get(context.WithoutCancel(ctx), run)
	if err != nil {
		return nil, err
	}
	if info.State == journal.Running {
		return nil, p.failed(ctx, j, n, fail.New(fail.Fatal, "run.no_report",
			"the runner ended without an error, but also without a report"))
	}
	if _, err := redrive.Settle(ctx, j, run); err != nil {
		return nil, err
	}
	report := &flow.Report{}
	return report, errors.Join(json.Unmarshal(info.Report, report), left)
}

// patience is how long a run that is asked to stop may take before it is cut off.
const patience = 15 * time.Second

// stopWith gives a context for the graph that outlives ctx: when that ends, the run is asked to stop.
func (p prepared) stopWith(ctx context.Context, j journal.Journal) (until context.Context, stop func()) {
	outer := context.WithoutCancel(ctx)
	until, cut := context.WithCancel(outer)
	unhook := context.AfterFunc(ctx, func() {
		told := journal.Event{At: time.Now(), Kind: "stop", Text: "by a signal"}
		err := j.SetControl(outer, p.Run.ID, told, func(c *journal.Control) {
			c.Want, c.Reason = journal.Stop, ""
		})
		if err != nil {
			cut()
		}
		time.AfterFunc(patience, cut)
	})
	return until, func() { unhook(); cut() }
}

// failed marks an attempt that did not come to its report, and prefers what a worker wrote down about its end to what
// the runner tells. What may pass leaves the run paused.
func (p prepared) failed(ctx context.Context, j journal.Journal, attempt int, err error) error {
	state := journal.Failed
	if stopped := context.Cause(ctx); stopped != nil {
		state, err = journal.Stopped, stopped
	}
	ctx = context.WithoutCancel(ctx)
	cause, e := j.Failure(ctx, p.Run.ID, attempt, time.Time{})
	switch class := fail.ClassOf(cause); {
	case e != nil || cause == nil:
	case fail.CodeOf(cause) == "journal.fenced":
		return fmt.Errorf("run %s: %w", p.Run.ID, cause) // how the run ends is said by the attempt that goes on with it
	case state == journal.Failed:
		err = cause
		if class.Passes() {
			state = journal.Paused
		}
	}
	if e := j.Finish(ctx, p.Run.ID, attempt, state, nil); e != nil {
		return fmt.Errorf("run %s did not finish: %w; and the journal: %w", p.Run.ID, err, e)
	}
	return fmt.Errorf("run %s did not finish: %w", p.Run.ID, err)
}

// Resume implements runs.Engine.
func (o Runner) Resume(ctx context.Context, j journal.Journal, run string, r runs.Resumption) (
	*runs.Prepared, *flow.Report, error) {
	info, err := j.Get(ctx, run)
	if err != nil {
		return nil, nil, err
	}
	if info.State == journal.Complete {
		return nil, nil, fail.Job("run.done", "run %s is done: there is nothing left of it", run)
	}
	if err := alone(ctx, j, info); err != nil {
		return nil, nil, err
	}
	if err := o.Reachable(ctx); err != nil {
		return nil, nil, err
	}
	was, err := runs.JobOf(info)
	if err != nil {
		return nil, nil, err
	}
	now := r.Job
	if now == nil {
		now = was
	}
	p, err := runs.Prepare(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	p.Run, p.Floors = connector.Run{ID: info.ID, Job: info.Job, Started: info.Started}, r.Floors
	report, err := prepared{p}.resume(ctx, j, info, was, r, o)
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, report, nil
}

func (p prepared) resume(ctx context.Context, j journal.Journal, info journal.RunInfo, was *job.Job, r runs.Resumption,
	o Runner) (*flow.Report, error) {
	for _, name := range r.Sinks {
		if _, ok := p.Job.Sinks[name]; !ok {
			return nil, fail.Job("run.no_sink", "run %s has no sink %q", info.ID, name)
		}
	}
	if err := p.inOrder(ctx, j, r.Sinks); err != nil {
		return nil, err
	}
	if err := p.Same(info, was); err != nil && !r.Force {
		return nil, err
	}
	if err := p.Targets(ctx, false); err != nil {
		return nil, err
	}
	if _, err := j.Total(ctx, info.ID); fail.CodeOf(err) == "journal.no_plan" {
		if err := p.savePlan(ctx, j, p.planner(ctx)); err != nil {
			return nil, p.failed(ctx, j, info.Attempt, err)
		}
	} else if err != nil {
		return nil, err
	}
	return p.stages(ctx, j, o, r.Sinks)
}

// inOrder refuses sinks alone that come after others which have not finished.
func (p prepared) inOrder(ctx context.Context, j journal.Journal, sinks []string) error {
	for _, name := range sinks {
		for _, first := range p.Job.Sinks[name].After {
			if slices.Contains(sinks, first) {
				continue
			}
			sum, err := flow.Sum(ctx, j, p.Run, p.Job)
			if err != nil {
				return err
			}
			if sum.Sinks[first].Open > 0 {
				return fail.Job("run.order", "sink %s comes after sink %s, which has %d splits open",
					name, first, sum.Sinks[first].Open).
					WithFix("name both: --sink %s --sink %s", first, name)
			}
		}
	}
	return nil
}

// alone waits until no worker of an earlier attempt shows itself any more. One that was killed is silent soon.
func alone(ctx context.Context, j journal.Journal, info journal.RunInfo) error {
	if info.State != journal.Running {
		return nil
	}
	for began := time.Now(); ; {
		alive, err := runs.Alive(ctx, j, info.ID)
		if err != nil || len(alive) == 0 {
			return err
		}
		if time.Since(began) > 2*runs.Fresh {
			w := alive[0]
			return fail.Job("run.alive", "run %s goes on: worker %s on %s (process %d) works at it",
				info.ID, w.Worker, w.Host, w.PID).
				WithFix("stop it first: reprise stop %s", info.ID)
		}
		select {
		case <-time.After(runs.Fresh / 8):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
