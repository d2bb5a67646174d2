package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// which says where the journal of a command is.
type which struct {
	Journal string `placeholder:"FILE" help:"The journal, an SQLite file. Default: .reprise/journal.db."`
	Job     string `placeholder:"FILE" help:"Read the journal location from this job file instead."`
}

// flags are what a further command needs to find the same journal, with a blank before.
func (w which) flags() string {
	switch {
	case w.Journal != "":
		return " --journal " + w.Journal
	case w.Job != "":
		return " --job " + w.Job
	}
	return ""
}

// flagsFor are the same for the journal of a job.
func flagsFor(c *journal.Config) string {
	switch {
	case c == nil || c.SQLite == job.DefaultJournal:
		return ""
	case c.SQLite != "":
		return which{Journal: c.SQLite}.flags()
	}
	return which{Job: "JOB.yaml"}.flags()
}

// open opens the journal.
func (w which) open(ctx context.Context) (journal.Journal, error) {
	config := journal.Config{SQLite: w.Journal}
	switch {
	case w.Journal != "" && w.Job != "":
		return nil, fail.Job("cli.two_journals", "--journal and --job both name a journal").WithFix("give one of them")
	case w.Job != "":
		j, err := job.Load(w.Job)
		if err != nil {
			return nil, err
		}
		config = *j.Journal
	case w.Journal == "":
		config.SQLite = job.DefaultJournal
	}
	if config.SQLite != "" {
		if _, err := os.Stat(config.SQLite); err != nil {
			return nil, fail.Job("journal.none", "there is no journal: %w",
				err).WithFix("name it with --journal FILE or --job FILE")
		}
	}
	return journal.Open(ctx, config)
}

// one is a run of a journal.
type one struct {
	which
	ID string `arg:"" name:"run" help:"The run: its id, a prefix of it, or last."`
}

// find opens the journal and finds the run.
func (o one) find(ctx context.Context) (journal.Journal, journal.RunInfo, error) {
	j, err := o.open(ctx)
	if err != nil {
		return nil, journal.RunInfo{}, err
	}
	info, err := find(ctx, j, o.ID)
	if err != nil {
		j.Close()
		return nil, info, err
	}
	return j, info, nil
}

// origin is a run as the origin of dead letters.
type origin struct {
	which
	ID string `arg:"" name:"run" help:"The run: its id, a prefix of it, or last (redrives and verifications are skipped)."`
}

// find opens the journal and finds the run, and says which one last is.
func (o origin) find(ctx context.Context, con *console) (journal.Journal, journal.RunInfo, error) {
	if o.ID != last {
		return one(o).find(ctx)
	}
	j, err := o.open(ctx)
	if err != nil {
		return nil, journal.RunInfo{}, err
	}
	info, err := lastOrigin(ctx, j, con)
	if err != nil {
		j.Close()
	}
	return j, info, err
}

func lastOrigin(ctx context.Context, j journal.Journal, con *console) (journal.RunInfo, error) {
	all, err := j.List(ctx)
	for i, r := range all {
		of, err := runs.JobOf(r)
		if verifies := err == nil && of.Verifies(); r.Parent == "" && !verifies {
			why := ""
			if i > 0 {
				why = ": what came after it are redrives and verifications"
			}
			fmt.Fprintf(con.err, "reprise: last is run %s of %s%s\n", r.ID, r.Job, why)
			return r, nil
		}
	}
	if err == nil {
		err = noRun(last)
	}
	return journal.RunInfo{}, err
}

// last names the latest run.
const last = "last"

func noRun(name string) error {
	return fail.Job("journal.no_run", "there is no run %s in the journal", name).
		WithFix("list them: reprise status")
}

func find(ctx context.Context, j journal.Journal, name string) (journal.RunInfo, error) {
	all, err := j.List(ctx)
	if err != nil {
		return journal.RunInfo{}, err
	}
	if name == last && len(all) > 0 {
		return latest(all), nil
	}
	var found []journal.RunInfo
	for _, r := range all {
		if r.ID == name {
			return r, nil
		}
		if strings.HasPrefix(r.ID, name) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return journal.RunInfo{}, noRun(name)
	}
	return journal.RunInfo{}, fail.Job("journal.several_runs", "%d runs begin with %s: %s, %s ...", len(found), name,
		found[0].ID, found[1].ID).
		WithFix("give more of the id")
}

// latest is the last run. One that goes on sends its dead letters again by runs of its own, which nobody means.
func latest(all []journal.RunInfo) journal.RunInfo {
	for _, r := range all {
		goesOn := func(of journal.RunInfo) bool { return of.ID == r.Parent && of.State == journal.Running }
		if r.Parent == "" || r.State != journal.Complete || !slices.ContainsFunc(all, goesOn) {
			return r
		}
	}
	return all[0]
}

func runOf(r journal.RunInfo) connector.Run {
	return connector.Run{ID: r.ID, Job: r.Job, Started: r.Started}
}
