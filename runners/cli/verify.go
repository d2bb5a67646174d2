package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"reprise/pipelines/job"
	"reprise/pipelines/verify"
	"reprise/pipelines/verify/compare"
	"reprise/transforms/fail"
)

// verifyCommand is `reprise verify JOB`.
type verifyCommand struct {
	File   string `arg:"" name:"job" help:"The job file."`
	Resume string `placeholder:"RUN" help:"Continue an unfinished verification, by its id."`
	Folder string `default:"." placeholder:"FOLDER" help:"Folder for the repair job and the list of extra rows."`
	runner
}

// Run compares the targets with what the job would write. Anything but a clean verification is an error.
func (c *verifyCommand) Run(ctx context.Context, con *console) error {
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	j, err := job.Load(c.File)
	if err != nil {
		return err
	}
	began := time.Now()
	follow := follower{w: con.err}
	runner.Watch = follow.attempt
	report, err := verify.Run(ctx, j, runner, verify.Options{Resume: c.Resume, Folder: c.Folder})
	follow.stop()
	if err != nil {
		return err
	}
	printVerified(con.out, report, time.Since(began))
	if c.Report != "" {
		if err := writeJSON(c.Report, report); err != nil {
			return err
		}
	}
	if report.Clean() {
		return nil
	}
	e := &fail.Error{Class: fail.Fatal, Code: "verify.not_clean", Exit: fail.ExitMismatch,
		Message: "the targets do not hold what the job would write"}
	if report.Repair != "" {
		e.Fix = "to repair it: reprise run " + report.Repair
	}
	return e
}

func printVerified(w io.Writer, r *verify.Report, took time.Duration) {
	fmt.Fprintf(w, "verification %s of %s: %s rows of the source in %s, %s rows/s\n\n", r.Run, r.Job, grouped(r.Read),
		took.Round(100*time.Millisecond),
		grouped(int64(float64(r.Read)/max(took.Seconds(), 0.001))))
	header := []string{"sink", "checked", "rows there"}
	for _, kind := range compare.Kinds {
		header = append(header, string(kind))
	}
	rows := [][]string{append(header, "in flight", "unsettled")}
	names := slices.Sorted(maps.Keys(r.Sinks))
	for _, name := range names {
		s := r.Sinks[name]
		row := []string{name, grouped(s.Checked), grouped(s.Keys)}
		for _, kind := range compare.Kinds {
			row = append(row, grouped(s.Wrong[kind]))
		}
		rows = append(rows, append(row, grouped(s.InFlight), grouped(s.Unsettled)))
	}
	table(w, rows)
	for _, name := range names {
		s := r.Sinks[name]
		if len(s.Examples) > 0 {
			fmt.Fprintf(w, "\n%s\n", name)
		}
		for _, field := range slices.SortedFunc(maps.Keys(s.Fields),
			func(a, b string) int { return int(s.Fields[b] - s.Fields[a]) }) {
			fmt.Fprintf(w, "  %s differs in %s rows\n", field, grouped(s.Fields[field]))
		}
		for _, e := range s.Examples {
			fmt.Fprintf(w, "  %s %s\n", e.Kind, e.Key)
			for _, d := range e.Fields {
				fmt.Fprintf(w, "    %s: want %s, got %s\n", d.Field, d.Want, d.Got)
			}
		}
	}
	fmt.Fprintln(w)
	if r.Dead > 0 {
		fmt.Fprintf(w, "%s records fail in transforms and are dead letters: no target has to hold them\n",
			grouped(r.Dead))
	}
	if r.Unread > 0 {
		fmt.Fprintf(w, "%s rows of the source could not be read, so nothing is known of them: reprise dead list %s\n",
			grouped(r.Unread), r.Run)
	}
	if r.Clean() {
		fmt.Fprintln(w, "clean: the targets hold what the job would write, and nothing else")
	}
}
