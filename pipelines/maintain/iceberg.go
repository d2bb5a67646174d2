// Package maintain looks after what runs leave at systems: it compacts tables of Iceberg, expires their snapshots,
// and puts back settings of indices that a crash has left as they were for loading.
package maintain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"reprise/io/icebergio"
	"reprise/io/icebergio/upkeep"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// lake is the Iceberg sink of a job, by its name or as the only one.
func lake(of *job.Job, name string) (*icebergio.Sink, error) {
	var found []string
	var config *icebergio.SinkConfig
	for _, sink := range slices.Sorted(maps.Keys(of.Sinks)) {
		if c, ok := of.Sinks[sink].SinkConfig.(*icebergio.SinkConfig); ok && (name == "" || name == sink) {
			found, config = append(found, sink), c
		}
	}
	switch len(found) {
	case 1:
		return icebergio.NewSink(*config), nil
	case 0:
		return nil, fail.Job("cli.no_table", "the job has no Iceberg sink %s", name).
			WithFix("the job has the sinks %s", strings.Join(slices.Sorted(maps.Keys(of.Sinks)), ", "))
	}
	return nil, fail.Job("cli.which_table", "the job has several Iceberg sinks").
		WithFix("name one with --sink: %s", strings.Join(found, ", "))
}

// Compact compacts the table of an Iceberg sink; name may be empty where there is one.
func Compact(ctx context.Context, of *job.Job, name string, dry bool, tell func(string)) error {
	sink, err := lake(of, name)
	if err != nil {
		return err
	}
	defer sink.Close()
	return sink.Compact(ctx, dry, tell)
}

// Expire expires snapshots of the table of an Iceberg sink. It keeps what those runs of the job's journal need that
// are not over: the snapshots that they read, whichever table's they are, the files that they have written, and all
// snapshots since the first of them began that upserts into the table.
func Expire(ctx context.Context, of *job.Job, name string, e upkeep.Expiry, dry bool, tell func(string)) error {
	sink, err := lake(of, name)
	if err != nil {
		return err
	}
	defer sink.Close()
	j, err := runs.Existing(ctx, of)
	if err != nil {
		return err
	}
	if j != nil {
		defer j.Close()
		list, err := j.List(ctx)
		if err != nil {
			return err
		}
		e.Snapshots = map[int64]string{}
		for _, run := range list {
			if run.State == journal.Complete {
				continue
			}
			e.Runs = append(e.Runs, run.ID)
			if (e.Began.IsZero() || run.Started.Before(e.Began)) && upserts(run, sink.Table()) {
				e.Began = run.Started
			}
			for split, err := range j.Plan(ctx, run.ID) {
				if fail.CodeOf(err) == "journal.no_plan" {
					break
				}
				if err != nil {
					return err
				}
				number, _, ok := strings.Cut(split.Partition, "/")
				if id, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
					e.Snapshots[id] = fmt.Sprintf("run %s (%s)", run.ID, run.State)
				}
			}
		}
	}
	return sink.Expire(ctx, e, dry, tell)
}

// upserts tells whether a run upserts into a table of Iceberg.
func upserts(run journal.RunInfo, table string) bool {
	of, err := runs.JobOf(run)
	if err != nil {
		return false // it cannot be resumed
	}
	for _, s := range of.Sinks {
		if c, ok := s.SinkConfig.(*icebergio.SinkConfig); ok && c.Table == table && c.Upserts() {
			return true
		}
	}
	return false
}
