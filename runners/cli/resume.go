package cli

import (
	"context"
	"fmt"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/transforms/fail"
)

// runner are the flags that say where a run goes on.
type runner struct {
	Runner      string `enum:"prism,flink" default:"prism" help:"Where to run: prism (in this process) or flink."`
	Endpoint    string `placeholder:"HOST:PORT" help:"Flink: Beam's job service."`
	Environment string `enum:"LOOPBACK,PROCESS,DOCKER,EXTERNAL" default:"LOOPBACK" help:"Flink: where the workers run; LOOPBACK is this process."`
	EnvConfig   string `placeholder:"CONFIG" help:"Flink: configuration of the environment, as in Beam's --environment_config."`
	Parallelism int    `help:"Flink: number of slots; 0 is the cluster's default."`
	Report      string `placeholder:"FILE" help:"Also write the report to this file, as JSON."`
}

func (r runner) of(con *console) (launch.Runner, error) {
	if r.Runner == "flink" && r.Endpoint == "" {
		return launch.Runner{}, fail.Job("flink.no_endpoint",
			"--runner flink needs --endpoint HOST:PORT").WithFix("name the address of Beam's Flink job service")
	}
	return launch.Runner{Name: r.Runner, Endpoint: r.Endpoint, Environment: r.Environment, Config: r.EnvConfig,
		Parallelism: r.Parallelism, Verbose: con.verbose}, nil
}

// resumeCommand is `reprise resume RUN`.
type resumeCommand struct {
	one
	runner
	exposed
	Sink  []string `help:"Only these sinks."`
	Force bool     `help:"Continue even though the job now reads, does or writes something different."`
}

// Run lets a paused run go on, or begins another attempt at one that has ended before it was done.
func (c *resumeCommand) Run(ctx context.Context, con *console) error {
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	j, info, err := c.find(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	if goesOn, err := c.unpause(ctx, con, j, info); goesOn || err != nil {
		return err
	}
	r := runs.Resumption{Force: c.Force, Sinks: c.Sink}
	if c.Job != "" {
		if r.Job, err = job.Load(c.Job); err != nil {
			return err
		}
	}
	served, err := c.serve(con)
	if err != nil {
		return err
	}
	defer served.Close()
	began := time.Now()
	follow := follower{w: con.err, served: served}
	runner.Watch = follow.attempt
	p, report, err := runner.Resume(ctx, j, info.ID, r)
	follow.stop()
	if err != nil {
		return err
	}
	defer p.Close()
	return conclude(con, p.Job, report, time.Since(began), c.Report)
}

// unpause lets the workers of a paused run go on.
func (c *resumeCommand) unpause(ctx context.Context, con *console, j journal.Journal,
	info journal.RunInfo) (goesOn bool, err error) {
	control, err := j.Control(ctx, info.ID)
	if err != nil || info.State != journal.Running || control.Want != journal.Pause {
		return false, err
	}
	alive, err := runs.Alive(ctx, j, info.ID)
	if err != nil {
		return false, err
	}
	err = j.SetControl(ctx, info.ID, journal.Event{Kind: "resume", Text: "by the operator"}, func(w *journal.Control) {
		w.Want, w.Reason = journal.Go, ""
	})
	if err != nil || len(alive) == 0 {
		return false, err
	}
	fmt.Fprintf(con.out, "run %s goes on\n", info.ID)
	return true, nil
}
