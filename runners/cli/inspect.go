package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// validateCommand is `reprise validate JOB`.
type validateCommand struct {
	Job     string `arg:"" help:"The job file."`
	Connect bool   `help:"Also ask the systems whether tables, columns and targets fit."`
}

// Run checks the job.
func (c *validateCommand) Run(ctx context.Context, con *console) error {
	j, err := job.Load(c.Job)
	if err != nil {
		return err
	}
	if !c.Connect {
		fmt.Fprintf(con.out, "%s is valid; --connect also checks it against its systems\n", c.Job)
		return nil
	}
	p, err := runs.Prepare(ctx, j)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Targets(ctx, true); err != nil {
		return err
	}
	fmt.Fprintf(con.out, "%s is valid, and its systems accept it\n", c.Job)
	return nil
}

// planCommand is `reprise plan JOB`.
type planCommand struct {
	Job   string `arg:"" help:"The job file."`
	Top   int    `default:"10" help:"How many of the largest partitions to show."`
	Speed int64  `default:"0" placeholder:"ROWS/S" help:"Estimate the duration at this speed; default: measured by reading briefly."`
}

// Run shows the plan.
func (c *planCommand) Run(ctx context.Context, con *console) error {
	p, err := runs.OpenEnded(ctx, c.Job)
	if err != nil {
		return err
	}
	defer p.Close()
	targets := p.Targets(ctx, true)
	splits, err := p.Plan(ctx)
	if err != nil {
		return errors.Join(targets, err)
	}
	sum := runs.TotalOf(splits)
	type partition struct {
		name   string
		splits int
		rows   int64
	}
	of := map[string]*partition{}
	for _, s := range splits {
		if of[s.Partition] == nil {
			of[s.Partition] = &partition{name: s.Partition}
		}
		of[s.Partition].splits++
		of[s.Partition].rows += s.Rows
	}
	all := slices.SortedFunc(maps.Values(of), func(a, b *partition) int {
		return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(a.name, b.name))
	})
	fmt.Fprintf(con.out, "%s partitions, %s splits of at most %s rows, about %s rows and %s\n\n",
		grouped(int64(len(all))), grouped(int64(sum.Splits)),
		grouped(p.Job.Limits.SplitRows), grouped(sum.Rows), connector.HumanBytes(sum.Bytes))
	rows := [][]string{{"largest partitions", "splits", "rows, about"}}
	for _, x := range all[:min(c.Top, len(all))] {
		rows = append(rows, []string{x.name, fmt.Sprint(x.splits), grouped(x.rows)})
	}
	table(con.out, rows)
	if x, ok := p.Source.(connector.Explainer); ok {
		fmt.Fprintln(con.out)
		for _, line := range x.Explain() {
			fmt.Fprintln(con.out, line)
		}
	}

	speed := c.Speed
	if speed == 0 {
		if speed, err = p.Measure(ctx, splits, 2*time.Second); err != nil {
			return err
		}
	}
	fmt.Fprintln(con.out)
	if speed > 0 && sum.Rows > 0 {
		fmt.Fprintf(con.out, "reading alone takes about %s at %s rows/s\n",
			(time.Duration(sum.Rows/speed) * time.Second).Round(time.Second), grouped(speed))
	}
	fmt.Fprintln(con.out, "steps that group records: none; only dead letters and counts are grouped")
	return targets
}

// sampleCommand is `reprise sample JOB`.
type sampleCommand struct {
	Job  string `arg:"" help:"The job file."`
	Rows int    `default:"100" help:"Number of records to show."`
}

// Run shows what each transform does to some records.
func (c *sampleCommand) Run(ctx context.Context, con *console) error {
	p, err := runs.OpenEnded(ctx, c.Job)
	if err != nil {
		return err
	}
	defer p.Close()
	records, err := p.Sample(ctx, c.Rows, 0)
	if err != nil {
		return err
	}
	for _, r := range records {
		fmt.Fprintf(con.out, "%s\n", r.KeyText())
		for _, out := range con.trace(p.Compiled.Shared, []*record.Record{r}, "  ") {
			for _, name := range slices.Sorted(maps.Keys(p.Job.Sinks)) {
				if chain := p.Compiled.Sinks[name]; len(chain.Steps) > 0 {
					fmt.Fprintf(con.out, "  sink %s\n", name)
					con.trace(chain, []*record.Record{out.Clone()}, "    ")
				}
			}
		}
	}
	fmt.Fprintf(con.out, "%d records; nothing was written\n", len(records))
	return nil
}

// trace runs records through a chain step by step, prints what changes, and gives what comes out.
func (con *console) trace(chain *transforms.Chain, in []*record.Record, indent string) []*record.Record {
	for _, step := range chain.Steps {
		var out []*record.Record
		for _, r := range in {
			before := r.Clone()
			var made []*record.Record
			label := fmt.Sprintf("%s%d %s: ", indent, step.Index+1, step.Name)
			if step.Index < 0 {
				label = indent + step.Name + ": "
			}
			if err := step.Apply(r, func(x *record.Record) { made = append(made, x) }); err != nil {
				fmt.Fprintf(con.out, "%sdead letter: %v\n", label, err)
				continue
			}
			if len(made) == 0 {
				fmt.Fprintf(con.out, "%sfiltered\n", label)
			}
			for _, x := range made {
				changes := transforms.Diff(before, x)
				if len(changes) == 0 {
					fmt.Fprintf(con.out, "%sunchanged\n", label)
				}
				for _, ch := range changes {
					fmt.Fprintf(con.out, "%s%s\n", label, ch)
				}
			}
			out = append(out, made...)
		}
		in = out
	}
	return in
}

// schemaCommand is `reprise schema`.
type schemaCommand struct{}

// Run prints the schema.
func (schemaCommand) Run(con *console) error {
	text, err := json.MarshalIndent(job.Schema(), "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(con.out, "%s\n", text)
	return err
}

// transformsCommand is `reprise transforms`.
type transformsCommand struct {
	Name string `arg:"" optional:"" help:"The transform to explain."`
}

// Run lists or explains.
func (c *transformsCommand) Run(con *console) error {
	all := transforms.All()
	if c.Name == "" {
		rows := [][]string{}
		for _, t := range all {
			rows = append(rows, []string{t.Name, t.Summary})
		}
		for _, r := range rows {
			fmt.Fprintf(con.out, "%-14s %s\n", r[0], r[1])
		}
		fmt.Fprintln(con.out, "\nfor more: reprise transforms NAME")
		return nil
	}
	for _, t := range all {
		if t.Name == c.Name {
			return transforms.Describe(con.out, t)
		}
	}
	return fail.Job("transform.unknown", "there is no transform %q", c.Name).WithFix("see: reprise transforms")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
