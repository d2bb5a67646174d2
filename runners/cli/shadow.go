package cli

import (
	"context"
	"fmt"
	"io"

	"reprise/pipelines/job"
	"reprise/pipelines/shadow"
	"reprise/transforms/fail"
)

// shadowCommand is `reprise shadow OLD NEW`.
type shadowCommand struct {
	Old  string `arg:"" help:"The old version of the job file; its source provides the records."`
	New  string `arg:"" help:"The new version of the job file."`
	Rows int    `default:"1000" help:"Number of records to compare, spread over the planned splits."`
	Seed uint64 `default:"0" help:"A different seed picks different records."`
	JSON bool   `name:"json" help:"Print the differences as JSON."`
}

// Run compares the two.
func (c *shadowCommand) Run(ctx context.Context, con *console) error {
	was, err := job.Load(c.Old)
	if err != nil {
		return err
	}
	is, err := job.Load(c.New)
	if err != nil {
		return err
	}
	report, err := shadow.Run(ctx, was, is, c.Rows, c.Seed)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(con.out, report); err != nil {
			return err
		}
	} else {
		showShadow(con.out, report)
	}
	if report.Equal() {
		return nil
	}
	different := fail.New(fail.Fatal, "shadow.different", "the two jobs make different records of these")
	different.Exit = fail.ExitMismatch
	return different
}

// showShadow prints the differences for a person.
func showShadow(w io.Writer, r shadow.Report) {
	fmt.Fprintf(w, "%s rows went through both jobs; nothing was written\n", grouped(r.Rows))
	for _, s := range r.Sinks {
		fmt.Fprintf(w, "\nsink %s: ", s.Name)
		if s.Only != "" {
			fmt.Fprintln(w, s.Only)
			continue
		}
		fmt.Fprintf(w, "%s rows the same, %s different\n", grouped(s.Same), grouped(s.Different))
		for _, side := range []struct {
			name string
			shadow.Ends
		}{{"old", s.Old}, {"new", s.New}} {
			fmt.Fprintf(w, "  %s: %s records, %s filtered, %s dead\n", side.name, grouped(side.Records),
				grouped(side.Filtered), grouped(side.Dead))
		}
		for _, d := range s.Differences {
			what := d.Class
			if d.Field != "" {
				what = d.Field + ": " + d.Class
			}
			fmt.Fprintf(w, "  %s, %s\n", what, grouped(d.Count))
			for _, e := range d.Examples {
				fmt.Fprintf(w, "    %s: %s\n", e.Key, change(e.Old, e.New))
			}
		}
	}
}

// change is what stands on one side, or on both.
func change(old, now string) string {
	switch {
	case old == "":
		return now
	case now == "":
		return old
	}
	return old + " → " + now
}
