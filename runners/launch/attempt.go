package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Watch is told of an attempt once it begins. What it gives, nil or not, is called when the attempt has ended, while the journal is still open.
type Watch func(j journal.Journal, run string, attempt int, total journal.Total) (ended func())

// Execute makes a run of the job, to its report, which it also leaves in the journal. watch may be nil.
func (p *Prepared) Execute(ctx context.Context, o Runner, watch Watch) (*flow.Report, error) {
	if err := o.reachable(ctx); err != nil {
		return nil, err
	}
	// Planning only reads: it goes on beside the checks of the targets.
	planning, stop := context.WithCancel(ctx)
	plan := p.planner(planning)
	go plan()
	defer func() { stop(); plan() }()
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
	if err := p.savePlan(ctx, j, plan); err != nil {
		return nil, p.failed(ctx, j, 0, err)
	}
	return p.attempt(ctx, j, o, nil, watch)
}

// begin writes the run down.
func (p *Prepared) begin(ctx context.Context, j journal.Journal) error {
	text, err := json.Marshal(p.Job)
	if err != nil {
		return err
	}
	schema, err := p.Schema.MarshalBinary()
	if err != nil {
		return err
	}
	fingerprint, err := p.fingerprint()
	if err != nil {
		return err
	}
	return j.Begin(ctx, journal.Run{ID: p.Run.ID, Job: p.Run.Job, Started: p.Run.Started, JobFile: text, Schema: schema,
		Fingerprint: fingerprint, Parent: p.Parent})
}

func (p *Prepared) fingerprint() (string, error) {
	identity, err := p.Job.Identity(p.Schema)
	if err != nil {
		return "", err
	}
	return job.Fingerprint(identity)
}

// planner gives a plan, made on its first call.
func (p *Prepared) planner(ctx context.Context) func() ([]connector.Split, error) {
	return sync.OnceValues(func() ([]connector.Split, error) { return p.Plan(ctx) })
}

func (p *Prepared) savePlan(ctx context.Context, j journal.Journal, plan func() ([]connector.Split, error)) error {
	splits, err := plan()
	if err != nil {
		return err
	}
	return j.SavePlan(ctx, p.Run.ID, slices.Values(splits), Sum(splits))
}

// attempt does what is not finished of the plan, the stages of a canary first: each is an attempt of its own.
func (p *Prepared) attempt(ctx context.Context, j journal.Journal, o Runner, sinks []string, watch Watch) (*flow.Report, error) {
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
			report, err := p.stage(ctx, j, o, sinks, percent, watch)
			if err != nil || report.Stage == 0 || report.State != journal.Incomplete {
				return report, err
			}
			if err := j.Note(ctx, p.Run.ID, journal.Event{At: time.Now(), Kind: "canary", Text: fmt.Sprintf("%g %% of the partitions are done", percent)}); err != nil {
				return nil, err
			}
		}
	}
	if p.Job.Source.Follows() {
		return p.follow(ctx, j, o, sinks, watch)
	}
	return p.stage(ctx, j, o, sinks, 0, watch)
}

// stage runs the graph over what is not finished of a stage of a canary, in percent, or of all (0). When ctx ends, the run is asked to stop
// and given some time to.
func (p *Prepared) stage(ctx context.Context, j journal.Journal, o Runner, sinks []string, percent float64, watch Watch) (*flow.Report, error) {
	run := p.Run.ID
	total, err := j.Total(ctx, run)
	if err != nil {
		return nil, err
	}
	n, err := j.Attempt(ctx, run)
	if err != nil {
		return nil, err
	}
	if err := j.Note(ctx, run, journal.Event{At: time.Now(), Kind: "attempt", Text: fmt.Sprintf("attempt %d on %s", n, o.Name)}); err != nil {
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
	if watch != nil {
		if ended := watch(j, run, n, total); ended != nil {
			defer ended()
		}
	}
	if p.Floors == nil {
		if p.Floors, err = p.floors(ctx, j); err == nil {
			err = p.settled(ctx, p.Floors)
		}
		if err == nil && len(p.Floors) > 0 {
			err = noteFloors(ctx, j, run, p.Floors)
		}
		if err != nil {
			return nil, p.failed(ctx, j, n, err)
		}
	}
	setting := flow.Setting{Run: p.Run, Attempt: n, Sinks: sinks, Floors: p.Floors, Stage: percent,
		Window: flow.WindowOf(p.Job.Limits, total.Rows, o.workers()), Job: text, Schema: schema}
	unload, err := p.load(ctx, j, n)
	if err != nil {
		return nil, p.failed(ctx, j, n, err)
	}
	until, stop := p.stopWith(ctx, j)
	err = o.execute(until, p.Run, flow.Graph(setting, o.hands()))
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
		return nil, p.failed(ctx, j, n, fail.New(fail.Fatal, "run.no_report", "the runner ended without an error, but also without a report"))
	}
	if _, err := Settle(ctx, j, run); err != nil {
		return nil, err
	}
	report := &flow.Report{}
	return report, errors.Join(json.Unmarshal(info.Report, report), left)
}

// patience is how long a run that is asked to stop may take before it is cut off.
const patience = 15 * time.Second

// stopWith gives a context for the graph that outlives ctx: when that ends, the run is asked to stop.
func (p *Prepared) stopWith(ctx context.Context, j journal.Journal) (until context.Context, stop func()) {
	outer := context.WithoutCancel(ctx)
	until, cut := context.WithCancel(outer)
	unhook := context.AfterFunc(ctx, func() {
		err := j.SetControl(outer, p.Run.ID, journal.Event{At: time.Now(), Kind: "stop", Text: "by a signal"}, func(c *journal.Control) {
			c.Want, c.Reason = journal.Stop, ""
		})
		if err != nil {
			cut()
		}
		time.AfterFunc(patience, cut)
	})
	return until, func() { unhook(); cut() }
}

// failed marks an attempt that did not come to its report, and prefers what a worker wrote down about its end to what the runner
// tells. What may pass leaves the run paused.
func (p *Prepared) failed(ctx context.Context, j journal.Journal, attempt int, err error) error {
	state := journal.Failed
	if stopped := context.Cause(ctx); stopped != nil {
		state, err = journal.Stopped, stopped
	}
	ctx = context.WithoutCancel(ctx)
	cause, e := j.Failure(ctx, p.Run.ID, attempt)
	switch class := fail.ClassOf(cause); {
	case e != nil || cause == nil:
	case fail.CodeOf(cause) == "journal.fenced":
		return fmt.Errorf("run %s: %w", p.Run.ID, cause) // how the run ends is said by the attempt that goes on with it
	case state == journal.Failed:
		err = cause
		if class == fail.Transient || class == fail.Throttled {
			state = journal.Paused
		}
	}
	if e := j.Finish(ctx, p.Run.ID, attempt, state, nil); e != nil {
		return fmt.Errorf("run %s did not finish: %w; and the journal: %w", p.Run.ID, err, e)
	}
	return fmt.Errorf("run %s did not finish: %w", p.Run.ID, err)
}

// JobOf is the job as a run began with it.
func JobOf(r journal.RunInfo) (*job.Job, error) {
	j := &job.Job{}
	if err := json.Unmarshal(r.JobFile, j); err != nil {
		return nil, fmt.Errorf("the job of run %s: %w", r.ID, err)
	}
	return j, nil
}

// Resumption says how a run goes on.
type Resumption struct {
	Job   *job.Job // with other settings; nil: as it was
	Force bool     // also where the job reads, does or writes something else than before
	Sinks []string // these alone; nil: all that are not finished

	floors map[string]int64 // nil: those that earlier runs ask for
}

// Resume makes another attempt at a run: only what is not finished is read.
func Resume(ctx context.Context, j journal.Journal, run string, r Resumption, o Runner, watch Watch) (*Prepared, *flow.Report, error) {
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
	if err := o.reachable(ctx); err != nil {
		return nil, nil, err
	}
	was, err := JobOf(info)
	if err != nil {
		return nil, nil, err
	}
	now := r.Job
	if now == nil {
		now = was
	}
	p, err := Prepare(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	p.Run, p.Floors = connector.Run{ID: info.ID, Job: info.Job, Started: info.Started}, r.floors
	report, err := p.resume(ctx, j, info, was, r, o, watch)
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, report, nil
}

func (p *Prepared) resume(ctx context.Context, j journal.Journal, info journal.RunInfo, was *job.Job, r Resumption, o Runner, watch Watch) (*flow.Report, error) {
	for _, name := range r.Sinks {
		if _, ok := p.Job.Sinks[name]; !ok {
			return nil, fail.Job("run.no_sink", "run %s has no sink %q", info.ID, name)
		}
	}
	if err := p.inOrder(ctx, j, r.Sinks); err != nil {
		return nil, err
	}
	if err := p.same(info, was); err != nil && !r.Force {
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
	return p.attempt(ctx, j, o, r.Sinks, watch)
}

// inOrder refuses sinks alone that come after others which have not finished.
func (p *Prepared) inOrder(ctx context.Context, j journal.Journal, sinks []string) error {
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
				return fail.Job("run.order", "sink %s comes after sink %s, which has %d splits open", name, first, sum.Sinks[first].Open).
					WithFix("name both: --sink %s --sink %s", first, name)
			}
		}
	}
	return nil
}

// same refuses a job that is not the one that the run began with.
func (p *Prepared) same(info journal.RunInfo, was *job.Job) error {
	schema, err := record.UnmarshalSchema(info.Schema)
	if err != nil {
		return err
	}
	before, err := was.Identity(schema)
	if err != nil {
		return err
	}
	after, err := p.Job.Identity(p.Schema)
	if err != nil {
		return err
	}
	if found := job.Differences(before, after); len(found) > 0 {
		return fail.Job("run.changed", "run %s began with another job:\n  %s", info.ID, strings.Join(found, "\n  ")).
			WithFix("what is finished was done the old way; start anew with reprise run, or go on all the same with --force")
	}
	return nil
}

// fresh is the age of a beat up to which its worker counts as alive.
const fresh = 4 * time.Second

// Alive gives the workers of a run that have shown themselves lately, without those of this machine whose process is gone.
func Alive(ctx context.Context, j journal.Journal, run string) ([]journal.Beat, error) {
	beats, err := j.Beats(ctx, run)
	host, _ := os.Hostname()
	return slices.DeleteFunc(beats, func(b journal.Beat) bool {
		return time.Since(b.At) > fresh || b.Host == host && errors.Is(syscall.Kill(b.PID, 0), syscall.ESRCH)
	}), err
}

// alone waits until no worker of an earlier attempt shows itself any more. One that was killed is silent soon.
func alone(ctx context.Context, j journal.Journal, info journal.RunInfo) error {
	if info.State != journal.Running {
		return nil
	}
	for began := time.Now(); ; {
		alive, err := Alive(ctx, j, info.ID)
		if err != nil || len(alive) == 0 {
			return err
		}
		if time.Since(began) > 2*fresh {
			return fail.Job("run.alive", "run %s goes on: worker %s on %s (process %d) works at it", info.ID, alive[0].Worker, alive[0].Host, alive[0].PID).
				WithFix("stop it first: reprise stop %s", info.ID)
		}
		select {
		case <-time.After(fresh / 8):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
