package maintain

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"reprise/io/elasticsearchio"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// Unload puts back what runs have changed at the sinks of a job for loading and a crash has left as it was. Where the
// run that has changed it goes on, it does so only with force. It tells what it has changed.
func Unload(ctx context.Context, of *job.Job, force bool) (told []string, err error) {
	j, err := runs.Existing(ctx, of)
	if err != nil {
		return nil, err
	}
	if j != nil {
		defer j.Close()
	}
	for _, name := range slices.Sorted(maps.Keys(of.Sinks)) {
		config, ok := of.Sinks[name].SinkConfig.(*elasticsearchio.SinkConfig)
		if !ok {
			continue
		}
		sink := elasticsearchio.NewSink(*config)
		defer sink.Close()
		loading, err := sink.Loading(ctx)
		if err != nil {
			return told, fmt.Errorf("sink %s: %w", name, err)
		}
		for _, index := range slices.Sorted(maps.Keys(loading)) {
			if err := over(ctx, j, loading[index]); err != nil && !force {
				return told, err
			}
		}
		changed, err := sink.Reset(ctx)
		if told = append(told, changed...); err != nil {
			return told, fmt.Errorf("sink %s: %w", name, err)
		}
	}
	return told, nil
}

// over refuses a run whose workers live.
func over(ctx context.Context, j journal.Journal, run string) error {
	if j == nil {
		return nil
	}
	alive, err := runs.Alive(ctx, j, run)
	if fail.CodeOf(err) == "journal.no_run" {
		return nil
	}
	if err == nil && len(alive) > 0 {
		err = fail.Job("run.alive", "run %s goes on and puts it back at its end", run).
			WithFix("stop it: reprise stop %s; or do it all the same with --force", run)
	}
	return err
}
