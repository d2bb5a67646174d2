package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/redrive"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/transforms/fail"
)

// redriveCommand is `reprise redrive RUN`.
type redriveCommand struct {
	origin
	letters
	runner
	Letter []string `placeholder:"ID" help:"Only these letters, by id or a prefix of it, including parked ones."`
	Kept   bool     `help:"Resend the records kept in the queue, starting at the step where they failed, instead of rereading the rows by key."`
	Due    bool     `help:"Only letters that the job's retry is about, and whose delay is over."`
	Max    int      `default:"5" help:"Park letters that have failed this many times."`
	Rate   float64  `placeholder:"N" help:"At most this many rows per second."`
	DryRun bool     `help:"Only show what would be resent."`
}

// Run sends dead letters again, as a run of its own, and tells what became of them.
func (c *redriveCommand) Run(ctx context.Context, con *console) error {
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	if c.Max < 1 || c.Rate < 0 {
		return fail.Job("cli.redrive", "--max is at least 1, and --rate is not negative")
	}
	j, info, err := c.find(ctx, con)
	if err != nil {
		return err
	}
	defer j.Close()
	r := redrive.Redrive{Run: info, Filter: c.filter(), Kept: c.Kept, Max: c.Max, Rate: c.Rate}
	r.Filter.IDs = c.Letter
	if c.Job != "" {
		if r.Job, err = job.Load(c.Job); err != nil {
			return err
		}
	}
	if c.Due {
		of := r.Job
		if of == nil {
			if of, err = runs.JobOf(info); err != nil {
				return err
			}
		}
		if r.Filter.IDs, err = redrive.Due(ctx, j, info.ID, of, time.Now()); err != nil {
			return err
		}
		if len(r.Filter.IDs) == 0 {
			fmt.Fprintf(con.out, "run %s has no dead letters whose delay is over: nothing to send\n", info.ID)
			return nil
		}
		r.Filter.States = []journal.LetterState{journal.Waits}
	}
	chosen, err := r.Choose(ctx, j)
	if err != nil {
		return err
	}
	for _, run := range chosen.Unfinished {
		fmt.Fprintf(con.err, "reprise: redrive %s of this run is unfinished; to continue it: "+
			"reprise resume %s%s\n", run, run, c.flags())
	}
	if chosen.Skipped > 0 {
		fmt.Fprintf(con.err, "reprise: %s dead letters cannot be sent again: their source cannot find them again, or "+
			"(with --kept) they were never decoded; see reprise dead list %s --step source%s\n",
			grouped(int64(chosen.Skipped)), info.ID, c.flags())
	}
	if len(chosen.Groups) == 0 {
		fmt.Fprintf(con.out, "run %s has no such dead letters: nothing to send\n", info.ID)
		return nil
	}
	if c.DryRun {
		printChosen(con.out, chosen)
		for _, g := range chosen.Groups { // would they be sent?
			p, err := r.Prepare(ctx, g)
			if err != nil {
				return err
			}
			p.Close()
		}
		return nil
	}
	for _, g := range chosen.Groups {
		if err := c.send(ctx, con, j, r, g, runner); err != nil {
			return err
		}
	}
	if chosen.More {
		fmt.Fprintf(con.out, "there are more such letters; send them too with the same command\n")
	}
	return nil
}

// send makes the run of one group.
func (c *redriveCommand) send(ctx context.Context, con *console, j journal.Journal, r redrive.Redrive, g redrive.Group,
	runner launch.Runner) error {
	p, err := r.Prepare(ctx, g)
	if err != nil {
		return err
	}
	defer p.Close()
	began := time.Now()
	follow := follower{w: con.err}
	runner.Watch = follow.attempt
	report, err := runner.Execute(ctx, p)
	follow.stop()
	if err != nil {
		return err
	}
	if err := conclude(con, p.Job, report, time.Since(began), c.Report); err != nil {
		return err
	}
	sent, err := redrive.Settle(ctx, j, p.Run.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "letters of run %s: %s\n", r.Run.ID, sent)
	return nil
}

func printChosen(w io.Writer, c *redrive.Chosen) {
	rows := [][]string{{"code", "step", "letters"}}
	for _, k := range c.Kinds {
		rows = append(rows, []string{k.Code, k.Step, grouped(int64(k.Letters))})
	}
	table(w, rows)
	for _, g := range c.Groups {
		if g.Step == "" {
			fmt.Fprintf(w, "\nwould read %s rows again, and send them through the whole job\n",
				grouped(int64(len(g.Choices))))
		} else {
			fmt.Fprintf(w, "\nwould send %s kept records again, from %s on\n", grouped(int64(g.Letters)), g.Step)
		}
	}
}
