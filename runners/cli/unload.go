package cli

import (
	"context"
	"fmt"

	"reprise/pipelines/job"
	"reprise/pipelines/maintain"
)

// unloadCommand is `reprise unload JOB`.
type unloadCommand struct {
	Job   string `arg:"" help:"The job file."`
	Force bool   `help:"Even if the run that changed them is still running."`
}

// Run puts back what a crash has left.
func (c *unloadCommand) Run(ctx context.Context, con *console) error {
	j, err := job.Load(c.Job)
	if err != nil {
		return err
	}
	told, err := maintain.Unload(ctx, j, c.Force)
	for _, text := range told {
		fmt.Fprintln(con.out, text)
	}
	if err == nil && len(told) == 0 {
		fmt.Fprintln(con.out, "no settings are left over from a load")
	}
	return err
}
