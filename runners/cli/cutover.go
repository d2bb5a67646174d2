package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"reprise/pipelines/cutover"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
)

// cutoverCommand is `reprise cutover JOB`.
type cutoverCommand struct {
	File     string `arg:"" name:"job" help:"The job file; its Elasticsearch sink needs index, alias and create."`
	Sink     string `help:"The sink; default: the only one with an alias."`
	To       string `placeholder:"STEP" enum:",create,backfill,catch-up,verify,swap,switch,settle,watch" default:"" help:"Continue up to this step: create, backfill, catch-up, verify, swap, switch (from another cluster), settle or watch. Default: only the next step; with --yes, all of them."`
	Yes      bool   `short:"y" help:"Skip the confirmation before each step."`
	Show     bool   `help:"Show the current step and the next one, and do nothing."`
	Rollback bool   `help:"Move the alias back to the old index; when coming from another cluster, remove it once the application searches there again."`
	Retire   bool   `help:"Delete the old index once the watch is over."`

	NewAlias    bool          `help:"Allow the alias to be new on this cluster."`
	Full        bool          `help:"Catch up by writing everything again; needed if versions are not write times."`
	Switch      time.Duration `default:"10m" help:"How long to wait for the application to search the new cluster."`
	Watch       time.Duration `default:"1m" help:"How long to watch searches after the swap."`
	Stay        bool          `help:"Leave the alias in place if the watch fails; by default it moves back to the old index."`
	Probe       string        `placeholder:"URL" help:"A URL that must respond with success during the watch, such as a health check of the application."`
	Query       string        `placeholder:"FILE" help:"The body of the search to watch; default: all documents."`
	Loss        float64       `default:"1" help:"Percentage of documents that may be deleted during the watch."`
	Near        float64       `help:"How many percent fewer documents the watched search may find than in the old index; default: not compared."`
	MaxFailures int           `default:"0" aliases:"bears" help:"Failed checks to tolerate."`
	runner
}

// Run shows each step before it does it.
func (c *cutoverCommand) Run(ctx context.Context, con *console) error {
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	of, err := job.Load(c.File)
	if err != nil {
		return err
	}
	o := cutover.Options{Sink: c.Sink, NewAlias: c.NewAlias, Full: c.Full,
		Watching: cutover.Watching{For: c.Watch, Probe: c.Probe, Come: c.Switch, Loss: c.Loss, Near: c.Near,
			MaxFailures: c.MaxFailures}}
	if c.Query != "" {
		if o.Watching.Query, err = os.ReadFile(c.Query); err != nil {
			return fail.Job("cutover.query", "the query cannot be read: %w", err)
		}
	}
	follow := follower{w: con.err}
	runner.Watch = follow.attempt
	o.Engine = runner
	x, err := cutover.New(of, o)
	if err != nil {
		return err
	}
	defer x.Close()
	in := bufio.NewReader(os.Stdin)
	if c.Rollback {
		_, err := c.back(ctx, con, in, x)
		return err
	}
	for shown := false; ; shown = true {
		v, err := x.Look(ctx)
		if err != nil {
			return err
		}
		if !shown {
			showCutover(con, x, v)
		}
		switch {
		case v.Next == "":
			fmt.Fprintln(con.out, "nothing is left to do")
			return nil
		case c.Retire && v.Next != cutover.Retire:
			return fail.Job("cutover.not_proven", "%s comes first: the old index stays until the watch is over",
				v.Next).WithFix("reprise cutover JOB")
		case v.Next == cutover.Retire && !c.Retire:
			fmt.Fprintf(con.out, "the old index %s is kept; --retire deletes it, --rollback goes back to it\n", v.Old)
			return nil
		case c.To != "" && cutover.Step(c.To).Before(v.Next):
			return nil
		case c.Show, !c.sure(con, in, x.Describe(v, v.Next)):
			return nil
		}
		step := v.Next
		proof, err := x.Do(ctx, v)
		follow.stop()
		// Searches that fail must not wait for somebody who looks. Those of another cluster only the application can
		// move.
		if fail.CodeOf(err) == cutover.WatchFailed && !c.Stay && x.From == nil && v.OldLeft {
			fmt.Fprintf(con.out, "%s: %v\n", step, err)
			switch moved, e := c.back(ctx, con, in, x); {
			case e != nil:
				return fmt.Errorf("the way back: %w", e)
			case moved:
				return fail.Job("cutover.rolled_back",
					"searches use the old index again, since the watch failed").WithFix(
					"fix what is wrong; the next cut-over begins with catch-up and verify")
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		fmt.Fprintf(con.out, "%s: %s\n", step, proof.Told)
		if c.To == "" && !c.Yes {
			return nil
		}
	}
}

// back moves searches back, if that is wanted.
func (c *cutoverCommand) back(ctx context.Context, con *console, in *bufio.Reader, x *cutover.Cutover) (
	moved bool, err error) {
	what := fmt.Sprintf("move the alias %s back to the old index", x.Alias)
	if x.From != nil {
		what = fmt.Sprintf("remove the alias %s, once the application uses %s again", x.Here(), x.There())
	}
	if !c.sure(con, in, what) {
		return false, nil
	}
	told, err := x.Back(ctx)
	if told != "" {
		fmt.Fprintln(con.out, told)
	}
	return told != "", err
}

// sure shows what comes next, and asks unless --yes was given.
func (c *cutoverCommand) sure(con *console, in *bufio.Reader, what string) bool {
	fmt.Fprintf(con.out, "next: %s\n", what)
	if c.Yes {
		return true
	}
	fmt.Fprint(con.out, "do it? [y/N] ")
	answer, err := in.ReadString('\n')
	if err != nil {
		fmt.Fprintln(con.out, "\nnothing was done; --yes continues without asking")
	}
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y")
}

func showCutover(con *console, x *cutover.Cutover, v *cutover.View) {
	points := v.Points
	if points == "" {
		points = "nothing yet"
	}
	fmt.Fprintf(con.out, "alias %s points to %s; the new index is %s\n", x.Alias, points, x.Index)
	if x.From != nil {
		fmt.Fprintf(con.out, "another cluster is replaced: %s becomes %s\n", x.There(), x.Here())
	}
	for _, s := range cutover.Steps {
		if s == cutover.Switch && x.From == nil {
			continue
		}
		switch p := v.Proven[s]; {
		case p != nil:
			fmt.Fprintf(con.out, "  %-9s done  %s\n", s, p.Told)
		case s == v.Next:
			fmt.Fprintf(con.out, "  %-9s next\n", s)
		default:
			fmt.Fprintf(con.out, "  %-9s -\n", s)
		}
	}
}
