package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// load sets up for loading what the sinks write to, and puts it back while somebody holds the run. unload, which is
// to be called once the attempt has ended, puts it back for good; its error tells what is left as it was during the
// load.
func (p prepared) load(ctx context.Context, j journal.Journal, attempt int) (unload func() error, err error) {
	ctx = context.WithoutCancel(ctx)
	loaders := map[string]connector.Loader{}
	var opened []connector.Sink
	closeAll := func() {
		for _, sink := range opened {
			sink.Close()
		}
	}
	for name, s := range p.Job.Sinks {
		sink, err := s.Open()
		if err != nil {
			closeAll()
			return nil, err
		}
		opened = append(opened, sink)
		if l, ok := sink.(connector.Loader); ok && l.Loads() {
			loaders[name] = l
		}
	}
	if len(loaders) == 0 {
		closeAll()
		return func() error { return nil }, nil
	}
	// each calls a method of every loader and tells what it has changed.
	each := func(do func(connector.Loader) ([]string, error)) error {
		var faults []error
		for _, name := range slices.Sorted(maps.Keys(loaders)) {
			told, err := do(loaders[name])
			if err != nil {
				faults = append(faults, fmt.Errorf("sink %s: %w", name, err))
			}
			for _, text := range told {
				slog.Info(text, "run", p.Run.ID, "sink", name)
				if err := j.Note(ctx, p.Run.ID, journal.Event{Kind: "load", Text: text}); err != nil {
					slog.Warn("the history of the run is not written", "run", p.Run.ID, "error", err)
				}
			}
		}
		return errors.Join(faults...)
	}
	set := func() error {
		return each(func(l connector.Loader) ([]string, error) { return l.Load(ctx, p.Run, attempt) })
	}
	back := func() error {
		return each(func(l connector.Loader) ([]string, error) { return l.Unload(ctx, p.Run, attempt) })
	}
	if err := set(); err != nil {
		err = errors.Join(err, back())
		closeAll()
		return nil, err
	}
	following, unfollow := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.putBackWhileHeld(following, j, back, set)
	}()
	return func() error {
		defer closeAll()
		unfollow()
		<-done
		if err := back(); err != nil {
			e := fail.New(fail.Fatal, "run.unload",
				"run %s has ended, but what it has changed for loading is not put back: %w", p.Run.ID, err).
				WithFix("once the system is well: reprise unload JOB")
			e.Exit = fail.ExitUnreachable
			slog.Error(e.Error(), "run", p.Run.ID)
			return e
		}
		return nil
	}, nil
}

// putBackWhileHeld follows a run: while an operator has paused it, targets are as they were.
func (p prepared) putBackWhileHeld(ctx context.Context, j journal.Journal, back, set func() error) {
	paused := false
	for {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
		control, err := j.Control(ctx, p.Run.ID)
		if err != nil || (control.Want == journal.Pause) == paused {
			continue // the workers notice as well that the journal is gone
		}
		turn := set
		if !paused {
			turn = back
		}
		if err := turn(); err != nil {
			slog.Warn("settings for loading are not changed", "run", p.Run.ID, "error", err)
			continue
		}
		paused = !paused
	}
}
