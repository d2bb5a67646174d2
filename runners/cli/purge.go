package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/purge"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// purgeCommand is `reprise purge JOB`.
type purgeCommand struct {
	File    string `arg:"" name:"job" help:"The job file; it needs a purge section."`
	Purge   string `placeholder:"RUN" help:"Delete what this run marked, as long as the job's conditions still hold. Without --yes it only shows what it would do."`
	Restore string `placeholder:"RUN" help:"Restore what this run deleted. Without --yes it only shows what it would do."`
	Yes     bool   `help:"Do it."`
	DryRun  bool   `help:"Only show what would be done, as --purge and --restore do without --yes."`
	runner
}

// Help explains the steps.
func (c *purgeCommand) Help() string {
	return `Without a RUN it marks: what the job reads, and its transforms let through, is written to a manifest with the reason, and nothing is deleted.
After the time of grace, --purge RUN reads each of these rows again, as it is then: one that is gone, or that the transforms do not let through any more, is filtered.
What is left is put down in a second manifest and then deleted at the sinks, up to the version that was read: whatever is newer stays.
--restore RUN writes the rows of the second manifest again, unless they were written since.`
}

// Run marks, purges or restores.
func (c *purgeCommand) Run(ctx context.Context, con *console) error {
	if c.Purge != "" && c.Restore != "" || c.Yes && c.DryRun {
		return fail.Job("cli.purge", "--purge and --restore, or --yes and --dry-run, do not go together")
	}
	of, err := job.Load(c.File)
	if err != nil {
		return err
	}
	p, err := c.prepare(ctx, of)
	if err != nil {
		return err
	}
	defer p.Close()
	if c.DryRun || (c.Purge != "" || c.Restore != "") && !c.Yes {
		return c.tell(ctx, con, p)
	}
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	if err := offer(ctx, con, p); err != nil {
		return err
	}
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
	switch {
	case c.Restore != "":
	case c.Purge != "":
		fmt.Fprintf(con.out, "\nto write again what was deleted: reprise purge %s --restore %s\n", c.File, p.Run.ID)
	default:
		fmt.Fprintf(con.out, "\nnothing is deleted yet; from %s on: reprise purge %s --purge %s\n",
			time.Now().Add(time.Duration(of.Purge.Grace)).Format(time.DateTime), c.File, p.Run.ID)
	}
	return nil
}

// prepare prepares the run that is asked for.
func (c *purgeCommand) prepare(ctx context.Context, of *job.Job) (*runs.Prepared, error) {
	if c.Purge == "" && c.Restore == "" {
		return purge.Mark(ctx, of)
	}
	if file := of.Journal.SQLite; file != "" {
		if _, err := os.Stat(file); err != nil {
			return nil, fail.Job("journal.none", "there is no journal: %w", err).WithFix("mark first: reprise purge %s",
				c.File)
		}
	}
	j, err := journal.Open(ctx, *of.Journal)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	info, err := find(ctx, j, c.Purge+c.Restore)
	if err != nil {
		return nil, err
	}
	if c.Restore != "" {
		return purge.Restore(ctx, of, info)
	}
	return purge.Delete(ctx, of, info)
}

// tell says what a run would do.
func (c *purgeCommand) tell(ctx context.Context, con *console, p *runs.Prepared) error {
	if err := p.Targets(ctx, true); err != nil {
		return err
	}
	sum, err := purge.Foresee(ctx, p)
	if err != nil {
		return err
	}
	of, does, gone := "of the table", "marked", "left out by the source"
	switch {
	case c.Purge != "":
		of, does, gone = "of the manifest", "deleted", "gone"
	case c.Restore != "":
		of, does, gone = "of the manifest", "written again", "written since"
	}
	fmt.Fprintf(con.out, "%s rows %s: %s would be %s; %s are %s, %s are filtered by the job, %s would be dead "+
		"letters\n", grouped(sum.Read), of, grouped(sum.Left), does,
		grouped(sum.Gone), gone, grouped(sum.Filtered), grouped(sum.Dead))
	if len(sum.Examples) > 0 {
		fmt.Fprintf(con.out, "such as %s\n", strings.Join(sum.Examples, ", "))
	}
	fmt.Fprintf(con.out, "each goes to %s\nnothing was written; --yes does it\n", purge.Order(p.Job))
	return nil
}
