package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"reprise/io/journal"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// pauseCommand is `reprise pause RUN`.
type pauseCommand struct{ one }

// Run asks every worker to hold its requests back.
func (c *pauseCommand) Run(ctx context.Context, con *console) error {
	return c.set(ctx, con, "pause", "by the operator", "pausing; continue with: reprise resume",
		func(w *journal.Control) {
			w.Want, w.Reason = journal.Pause, "by the operator"
		})
}

// stopCommand is `reprise stop RUN`.
type stopCommand struct{ one }

// Run asks every worker to finish what is on its way and end.
func (c *stopCommand) Run(ctx context.Context, con *console) error {
	return c.set(ctx, con, "stop", "by the operator", "stopping; continue later with: reprise resume",
		func(w *journal.Control) {
			w.Want, w.Reason = journal.Stop, ""
		})
}

// throttleCommand is `reprise throttle RUN`.
type throttleCommand struct {
	one
	System string `default:"source" help:"What to throttle: source, or the name of a sink."`
	Rows   string `placeholder:"N" help:"Records per second for the whole run; 0: no limit."`
	Bytes  string `placeholder:"SIZE" help:"Bytes per second, such as 10MiB; 0: no limit."`
}

// Run changes a rate.
func (c *throttleCommand) Run(ctx context.Context, con *console) error {
	var rate journal.Rate
	if c.Rows == "" && c.Bytes == "" {
		return fail.Job("cli.no_rate", "no rate is given").WithFix("give --rows N, --bytes SIZE or both")
	}
	if c.Rows != "" {
		n, err := strconv.ParseFloat(c.Rows, 64)
		if err != nil || n < 0 {
			return fail.Job("cli.rate", "--rows %s is not a number of records per second", c.Rows)
		}
		rate.Records = n
	}
	if c.Bytes != "" {
		if err := rate.Bytes.UnmarshalText([]byte(c.Bytes)); err != nil {
			return fail.Job("cli.rate", "--bytes: %w", err)
		}
	}
	return c.change(ctx, con, c.System, "throttle", fmt.Sprintf("%s: %s", c.System, rateText(rate)),
		func(w *journal.Control) {
			if w.Rates == nil {
				w.Rates = map[string]journal.Rate{}
			}
			w.Rates[c.System] = rate
		})
}

func rateText(r journal.Rate) string {
	var parts []string
	if r.Records > 0 {
		parts = append(parts, strconv.FormatFloat(math.Round(10*r.Records)/10, 'f', -1, 64)+" records/s")
	}
	if r.Bytes > 0 {
		parts = append(parts, r.Bytes.String()+"/s")
	}
	if len(parts) == 0 {
		return "no limit"
	}
	return strings.Join(parts, ", ")
}

// scaleCommand is `reprise scale RUN`.
type scaleCommand struct {
	one
	System   string `default:"source" help:"What to scale: source, or the name of a sink."`
	Requests int    `required:"" help:"Concurrent requests per worker; 0: as the job says."`
}

// Run changes how many requests a system gets at once.
func (c *scaleCommand) Run(ctx context.Context, con *console) error {
	return c.change(ctx, con, c.System, "scale", fmt.Sprintf("%s: %d requests at once", c.System, c.Requests),
		func(w *journal.Control) {
			if w.Limits == nil {
				w.Limits = map[string]int{}
			}
			w.Limits[c.System] = c.Requests
			if c.Requests <= 0 {
				delete(w.Limits, c.System)
			}
		})
}

// change is set for a system that must be one of the run's.
func (o one) change(ctx context.Context, con *console, system, kind, told string, change func(*journal.Control)) error {
	j, info, err := o.find(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	of, err := runs.JobOf(info)
	if err != nil {
		return err
	}
	known := append([]string{journal.Source}, slices.Sorted(maps.Keys(of.Sinks))...)
	if !slices.Contains(known, system) {
		return fail.Job("cli.no_system", "run %s has no system %q", info.ID, system).WithFix("there are %s",
			strings.Join(known, ", "))
	}
	return o.apply(ctx, con, j, info, journal.Event{Kind: kind, Text: told}, told, change)
}

// set changes what is wanted of the run.
func (o one) set(ctx context.Context, con *console, kind, text, told string, change func(*journal.Control)) error {
	j, info, err := o.find(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	return o.apply(ctx, con, j, info, journal.Event{Kind: kind, Text: text}, told+" "+info.ID+o.flags(), change)
}

func (o one) apply(ctx context.Context, con *console, j journal.Journal, info journal.RunInfo, event journal.Event,
	told string, change func(*journal.Control)) error {
	if info.State != journal.Running {
		return fail.Job("run.not_running", "run %s is %s", info.ID,
			info.State).WithFix("only a run in progress can be controlled; see: reprise status %s", info.ID)
	}
	alive, err := runs.Alive(ctx, j, info.ID)
	if err != nil {
		return err
	}
	if err := j.SetControl(ctx, info.ID, event, change); err != nil {
		return err
	}
	fmt.Fprintf(con.out, "run %s: %s\n", info.ID, told)
	if len(alive) == 0 {
		fmt.Fprintln(con.err, "reprise: no worker of the run is alive: it was killed or has not started; resume it "+
			"with: reprise resume", info.ID+o.flags())
	}
	return nil
}
