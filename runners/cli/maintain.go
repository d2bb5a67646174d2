package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"reprise/io/icebergio/upkeep"
	"reprise/pipelines/job"
	"reprise/pipelines/maintain"
	"reprise/transforms/fail"
)

// lake is the table of a command.
type lake struct {
	Job  string `arg:"" help:"The job file."`
	Sink string `placeholder:"NAME" help:"The Iceberg sink; default: the only one."`
	Yes  bool   `help:"Do it. Without this flag it only shows what it would do."`
}

// load loads the job and gives where to tell what is done.
func (l lake) load(con *console) (*job.Job, func(string), error) {
	j, err := job.Load(l.Job)
	return j, func(text string) { fmt.Fprintln(con.out, text) }, err
}

// hint tells how to do it.
func (l lake) hint(con *console) {
	if !l.Yes {
		fmt.Fprintln(con.err, "nothing was changed; --yes does it")
	}
}

// compactCommand is `reprise compact JOB`.
type compactCommand struct{ lake }

// Run compacts the table.
func (c *compactCommand) Run(ctx context.Context, con *console) error {
	j, tell, err := c.load(con)
	if err != nil {
		return err
	}
	defer c.hint(con)
	return maintain.Compact(ctx, j, c.Sink, !c.Yes, tell)
}

// expireCommand is `reprise expire JOB`.
type expireCommand struct {
	lake
	OlderThan string `default:"7d" placeholder:"AGE" help:"Keep snapshots younger than this, such as 7d or 36h."`
	Keep      int    `default:"1" help:"Always keep this many of the latest snapshots."`
	Orphans   string `default:"3d" placeholder:"AGE" help:"Remove files left by crashed runs once they are older than this; 0 keeps them."`
}

// safeAge is the least age of files to be removed: a run may be about to commit younger ones that its journal does not
// tell of here.
const safeAge = 24 * time.Hour

// Run expires snapshots.
func (c *expireCommand) Run(ctx context.Context, con *console) error {
	j, tell, err := c.load(con)
	if err != nil {
		return err
	}
	var e upkeep.Expiry
	if e.OlderThan, err = age("--older-than", c.OlderThan); err != nil {
		return err
	}
	if e.Orphans, err = age("--orphans", c.Orphans); err != nil {
		return err
	}
	if e.Orphans > 0 && e.Orphans < safeAge {
		return fail.Job("cli.age", "--orphans %s: files may belong to runs in progress",
			c.Orphans).WithFix("give at least 1d, or 0 to keep them")
	}
	e.Keep = c.Keep
	defer c.hint(con)
	return maintain.Expire(ctx, j, c.Sink, e, !c.Yes, tell)
}

// age reads a time such as 7d or 36h.
func age(flag, text string) (time.Duration, error) {
	hours := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil {
			hours = fmt.Sprintf("%gh", 24*n)
		}
	}
	if text == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(hours)
	if err != nil || d < 0 {
		return 0, fail.Job("cli.age", "%s %s is not a duration such as 7d or 36h", flag, text)
	}
	return d, nil
}
