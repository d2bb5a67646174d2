package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// Several processes may share a run that goes on: members. The source shares its partitions out among them, and what
// each has claimed is in the journal, so that nothing of a member counts that was frozen, or cut off, after another one
// has taken over.

// Join takes part in the run of the job that all members share, and begins it where there is none. The run's name is
// made from the job, so that members find it which begin at once. It returns when ctx ends or the run is stopped.
func (o Runner) Join(ctx context.Context, of *runs.Prepared) (*flow.Report, error) {
	p := prepared{of}
	source, follows := connector.FollowerOf(p.Source)
	sharer, shares := source.(connector.Sharer)
	if !follows || !shares {
		return nil, fail.Job("run.join", "a run is shared only where its source goes on and shares itself out").
			WithFix("let a source of kind kafka follow, with a group")
	}
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
	if err := p.shared(ctx, j); err != nil {
		return nil, err
	}
	if p.Floors, err = p.FindFloors(ctx, j); err != nil {
		return nil, err
	}
	if sharer, err = p.nameRun(); err != nil {
		return nil, err
	}
	m := &member{prepared: p, journal: j, runner: o, name: uuid.NewString()[:8], sharer: sharer}
	err = sharer.Share(ctx, m.work)
	if errors.Is(err, errRunEnded) || ctx.Err() != nil {
		err = nil
	}
	report, e := flow.Sum(context.WithoutCancel(ctx), j, p.Run, p.Job)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	info, e := j.Get(context.WithoutCancel(ctx), p.Run.ID)
	report.Attempt, report.State, report.Reason = info.Attempt, info.State, "this member has left it"
	return report, errors.Join(err, e)
}

// nameRun opens the source anew: it tells the system which run it is of, and so far it knew another name.
func (p prepared) nameRun() (connector.Sharer, error) {
	source, err := p.Job.Source.Open(p.Job.Need(p.Run))
	if err != nil {
		return nil, err
	}
	p.Source.Close()
	p.Source = source
	follower, _ := connector.FollowerOf(source)
	return follower.(connector.Sharer), nil
}

// errRunEnded ends a member when the run was stopped.
var errRunEnded = errors.New("the run was stopped")

// shared finds the run that members share, or begins it.
func (p prepared) shared(ctx context.Context, j journal.Journal) error {
	fingerprint, err := p.Fingerprint()
	if err != nil {
		return err
	}
	p.Run.ID = fmt.Sprintf("%s-%.8s", p.Job.Name, fingerprint)
	err = p.begin(ctx, j)
	if fail.CodeOf(err) == "journal.has_run" {
		info, err := j.Get(ctx, p.Run.ID)
		if err != nil {
			return err
		}
		p.Run.Started = info.Started
	} else if err != nil {
		return err
	}
	if _, err := j.Total(ctx, p.Run.ID); fail.CodeOf(err) != "journal.no_plan" {
		return err
	}
	if err := p.savePlan(ctx, j, p.planner(ctx)); fail.CodeOf(err) != "journal.has_plan" {
		return err
	}
	return nil
}

// member is this process among those that share a run.
type member struct {
	prepared
	journal journal.Journal
	runner  Runner
	name    string
	sharer  connector.Sharer
}

// rejoin is how long a member waits before it begins anew, after something that passes.
const rejoin = 2 * time.Second

// work works on a share of the partitions until the share ends.
func (m *member) work(ctx context.Context, partitions []string) error {
	for ctx.Err() == nil {
		err := m.once(ctx, partitions)
		switch code := fail.CodeOf(err); {
		case errors.Is(err, errRunEnded):
			return err
		case err == nil || ctx.Err() != nil:
			continue
		case code == "journal.fenced" || code == "journal.taken":
			slog.Warn("another member has taken over; this one asks for a share again", "run", m.Run.ID, "member",
				m.name,
				"error", err)
		case fail.ClassOf(err) == fail.Fatal:
			return err
		default:
			slog.Warn("the member goes on once this has passed", "run", m.Run.ID, "member", m.name, "error", err)
		}
		select {
		case <-time.After(rejoin):
		case <-ctx.Done():
		}
	}
	return nil
}

// once claims the partitions and makes a pass at them, as part of the attempt that all members work at.
func (m *member) once(ctx context.Context, partitions []string) error {
	outer := context.WithoutCancel(ctx)
	attempt, err := m.attemptOfAll(ctx)
	if err != nil {
		return err
	}
	if err := m.grow(ctx, m.journal); err != nil {
		return err
	}
	if err := m.journal.Trim(ctx, m.Run.ID, time.Now().Add(-kept)); err != nil {
		return err
	}
	err = m.journal.Record(ctx, m.Run.ID, attempt, journal.Batch{Member: m.name, Claim: partitions})
	if err != nil {
		return err
	}
	slog.Info("member works", "run", m.Run.ID, "member", m.name, "attempt", attempt, "partitions", len(partitions))
	if len(partitions) == 0 {
		return m.waitForShare(ctx)
	}
	setting, err := m.setting(ctx, attempt, partitions)
	if err != nil {
		return err
	}
	until, cut := context.WithCancel(outer)
	defer cut()
	unhook := context.AfterFunc(ctx, func() {
		if err := m.leave(outer, true); err != nil {
			cut()
		}
		time.AfterFunc(patience, cut)
	})
	defer unhook()
	telling, stop := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() { m.tell(telling, partitions) })
	if m.first(ctx, partitions) {
		told.Go(func() { m.retry(telling, m.journal) })
	}
	began := time.Now() // failures of before are those of others, or have passed
	err = m.runner.execute(until, m.Run, flow.Graph(setting, m.runner.hands(true)))
	stop()
	told.Wait()
	m.acknowledge(outer, partitions)
	if e := m.leave(outer, false); err == nil {
		err = e
	}
	if err != nil {
		cause, e := m.journal.Failure(outer, m.Run.ID, attempt, began)
		if e == nil && cause != nil && ctx.Err() == nil {
			err = cause
		}
		return err
	}
	return m.ended(outer)
}

// first tells whether the member has the plan's first partition: it sees to what one member must.
func (m *member) first(ctx context.Context, partitions []string) bool {
	for split, err := range m.journal.Plan(ctx, m.Run.ID) {
		return err == nil && slices.Contains(partitions, split.Partition)
	}
	return false
}

// attemptOfAll is the attempt that the members work at; where none does, another one begins.
func (m *member) attemptOfAll(ctx context.Context) (int, error) {
	info, err := m.journal.Get(ctx, m.Run.ID)
	if err != nil {
		return 0, err
	}
	if info.Attempt > 0 && info.State == journal.Running {
		return info.Attempt, nil
	}
	return m.journal.Attempt(ctx, m.Run.ID)
}

// leave asks the pass of this member to end, or takes that back.
func (m *member) leave(ctx context.Context, yes bool) error {
	control, err := m.journal.Control(ctx, m.Run.ID)
	if err != nil || slices.Contains(control.Leave, m.name) == yes {
		return err
	}
	text := "member " + m.name + " has given its partitions back"
	if yes {
		text = "member " + m.name + " gives its partitions back"
	}
	return m.journal.SetControl(ctx, m.Run.ID, journal.Event{At: time.Now(), Kind: "member", Text: text},
		func(c *journal.Control) {
			c.Leave = slices.DeleteFunc(c.Leave, func(name string) bool { return name == m.name })
			if yes {
				c.Leave = append(c.Leave, m.name)
			}
		})
}

// waitForShare waits while there are more members than partitions.
func (m *member) waitForShare(ctx context.Context) error {
	for {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
		if control, err := m.journal.Control(ctx, m.Run.ID); err == nil && control.Want == journal.Stop {
			return errRunEnded
		}
	}
}

// ended tells whether the run was stopped; an attempt that is to begin anew does.
func (m *member) ended(ctx context.Context) error {
	control, err := m.journal.Control(ctx, m.Run.ID)
	if err != nil {
		return err
	}
	switch control.Want {
	case journal.Stop:
		return errRunEnded
	case journal.Restart:
		return m.journal.SetControl(ctx, m.Run.ID, journal.Event{At: time.Now(), Kind: "resume", Text: "by a member"},
			func(c *journal.Control) {
				if c.Want == journal.Restart {
					c.Want, c.Reason = journal.Go, ""
				}
			})
	}
	return nil
}

func (m *member) setting(ctx context.Context, attempt int, partitions []string) (flow.Setting, error) {
	text, err := json.Marshal(m.Job)
	if err != nil {
		return flow.Setting{}, err
	}
	schema, err := m.Schema.MarshalBinary()
	if err != nil {
		return flow.Setting{}, err
	}
	total, err := m.journal.Total(ctx, m.Run.ID)
	if err != nil {
		return flow.Setting{}, err
	}
	if m.runner.Watch != nil {
		m.runner.Watch(m.journal, m.Run.ID, attempt, total)
	}
	return flow.Setting{Run: m.Run, Attempt: attempt, Floors: m.Floors, Member: m.name, Share: partitions,
		Window: flow.WindowOf(m.Job.Limits, total.Rows, m.runner.workers(true)), Job: text, Schema: schema}, nil
}

// tell tells the source how far the member has come, until ctx ends.
func (m *member) tell(ctx context.Context, partitions []string) {
	for {
		select {
		case <-time.After(5 * time.Second):
			m.acknowledge(ctx, partitions)
		case <-ctx.Done():
			return
		}
	}
}

func (m *member) acknowledge(ctx context.Context, partitions []string) {
	var ours []connector.Split
	for split, err := range m.journal.Plan(ctx, m.Run.ID) {
		if err != nil {
			return
		}
		if slices.Contains(partitions, split.Partition) {
			ours = append(ours, split)
		}
	}
	at, err := flow.Standing(ctx, m.journal, m.Run.ID, slices.Collect(maps.Keys(m.Job.Sinks)), ours)
	if err == nil {
		err = m.sharer.Acknowledge(ctx, at)
	}
	if err != nil && ctx.Err() == nil {
		slog.Warn("the source is not told how far the member has come; the journal has it", "run", m.Run.ID, "error",
			err)
	}
}
