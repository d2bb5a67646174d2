package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/pipelines/advise"
	"reprise/pipelines/runs"
)

// adviseCommand is `reprise advise JOB`.
type adviseCommand struct {
	Job  string `arg:"" help:"The job file."`
	Rows int    `default:"5000" help:"Rows of the sample."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run weighs a sample and prints advice.
func (c *adviseCommand) Run(ctx context.Context, con *console) error {
	p, err := runs.OpenEnded(ctx, c.Job)
	if err != nil {
		return err
	}
	defer p.Close()
	all, err := advise.Weigh(ctx, p, c.Rows)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, all)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a := all[name]
		fmt.Fprintf(con.out, "sink %s: %s rows, of which %s were read and became %s documents of %s on disk and %s as "+
			"sent, by %s\n", name, grouped(a.Rows), grouped(int64(a.Sample)),
			grouped(int64(a.Documents)), connector.HumanBytes(int64(a.PerDocument)),
			connector.HumanBytes(a.JSON/int64(max(1, a.Documents))), a.From)
		if e := a.Existing; e.Documents > 0 {
			fmt.Fprintf(con.out, "what is there now: %s documents of %s, in %d shards\n", grouped(e.Documents),
				connector.HumanBytes(e.Bytes/e.Documents), e.Shards)
		}
		for code, n := range a.Refused {
			fmt.Fprintf(con.out, "refused: %s records of the sample (%s)\n", grouped(int64(n)), code)
		}
		rows := [][]string{{"index", "documents, about", "size, about", "shards", "largest shard"}}
		for _, i := range a.Indices {
			rows = append(rows, []string{i.Name, grouped(i.Documents), connector.HumanBytes(i.Bytes),
				fmt.Sprint(i.Shards), connector.HumanBytes(i.Largest)})
		}
		fmt.Fprintln(con.out)
		table(con.out, rows)
		fmt.Fprintln(con.out)
		for _, i := range a.Indices {
			for _, why := range i.Reasons {
				fmt.Fprintf(con.out, "%s: %s\n", i.Name, why)
			}
		}
		for _, text := range a.General {
			fmt.Fprintln(con.out, text)
		}
	}
	fmt.Fprintln(con.out, "sizes are without replicas; a small sample compresses worse than the whole, so they are "+
		"rather too large")
	return nil
}
