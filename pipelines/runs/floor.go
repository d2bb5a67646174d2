package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/record"
)

// A version is the latest write time of what a row still holds: it goes back when the newest cell is deleted, expires
// or leaves a collection. What an earlier run wrote would then win over what the source shows. So each sink is told
// the highest version that earlier runs have written to its target, plus one (connector.Run.Floor): below it a record
// wins whatever its own version. All writes up to that time are in what the run reads, since it begins a settle time
// later; whatever production has written since is newer, and wins as always.

// FindFloors gives the floor of each sink that earlier runs have written to. It returns once all writes up to the
// floors are sure to be read.
func (p *Prepared) FindFloors(ctx context.Context, j journal.Journal) (map[string]int64, error) {
	floors, err := p.floors(ctx, j)
	if err != nil {
		return nil, err
	}
	return floors, p.settled(ctx, floors)
}

func (p *Prepared) floors(ctx context.Context, j journal.Journal) (map[string]int64, error) {
	if p.Job.EarlierRuns == job.Keep || !p.Job.Source.WriteTimes() {
		return map[string]int64{}, nil
	}
	newest, err := p.newest(ctx, j)
	if err != nil {
		return nil, err
	}
	floors := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		kept, err := p.keepsKey(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
		if kept {
			floors[name] = newest[name] + 1
			continue
		}
		slog.WarnContext(ctx, "several rows of the source may become one of the target, so only write times tell "+
			"which is the newest: what an earlier run wrote stays where a value was cleared since; "+
			"reprise verify finds it", "sink", name)
	}
	return floors, nil
}

// newest is the highest version that earlier runs have written to the target of each sink that any has written to.
func (p *Prepared) newest(ctx context.Context, j journal.Journal) (map[string]int64, error) {
	sinks := map[string][]string{} // by place
	for name, s := range p.Job.Sinks {
		if _, triggers := s.SinkConfig.(connector.Trigger); !triggers && s.Place() != "" {
			sinks[s.Place()] = append(sinks[s.Place()], name)
		}
	}
	runs, err := j.List(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]int64{}
	for _, r := range runs {
		// What a redrive sends was written neither by the run that it belongs to nor by other redrives of that run.
		ofThis := p.Parent != "" && (r.ID == p.Parent || r.Parent == p.Parent)
		if r.ID == p.Run.ID || r.Attempt == 0 || ofThis {
			continue
		}
		of, err := JobOf(r)
		if err != nil {
			return nil, err
		}
		var report *flow.Report
		for name, s := range of.Sinks {
			for _, sink := range sinks[s.Place()] {
				if report == nil {
					if report, err = reportOf(ctx, j, r, of); err != nil {
						return nil, err
					}
				}
				if v := newestWritten(r, report.Sinks[name]); v > 0 {
					found[sink] = max(found[sink], v)
				}
			}
		}
	}
	return found, nil
}

// reportOf is the report of a run, or what it has finished so far.
func reportOf(ctx context.Context, j journal.Journal, r journal.RunInfo, of *job.Job) (*flow.Report, error) {
	if r.State == journal.Complete {
		report := &flow.Report{}
		return report, json.Unmarshal(r.Report, report)
	}
	return flow.Sum(ctx, j, connector.Run{ID: r.ID, Job: r.Job, Started: r.Started}, of)
}

// newestWritten is the highest version that a run has written to a sink; 0: it wrote nothing. An older release did not
// note it: then it is no later than the end of the run.
func newestWritten(r journal.RunInfo, s flow.SinkReport) int64 {
	switch {
	case s.Outcomes[record.Written]+s.Outcomes[record.Unchanged] == 0:
		return 0
	case s.Newest > 0:
		return s.Newest
	case r.Ended.IsZero():
		return time.Now().UnixMicro()
	}
	return r.Ended.UnixMicro()
}

// keepsKey tells whether each row of a sink's target is made of one row of the source.
func (p *Prepared) keepsKey(ctx context.Context, name string) (bool, error) {
	c := p.Compiled.Sinks[name]
	fields, lost := transforms.KeptKey(p.Schema, p.Compiled.Shared, c)
	if lost != "" {
		return false, nil
	}
	sink, err := p.Job.Sinks[name].Open()
	if err != nil {
		return false, err
	}
	defer sink.Close()
	key := c.Out.KeyNames()
	if keyed, ok := sink.(connector.Keyed); ok {
		if key, err = keyed.Key(ctx, c.Out); err != nil {
			return false, err
		}
	}
	return !slices.ContainsFunc(fields, func(f string) bool { return !slices.Contains(key, f) }), nil
}

// settled waits until writes up to the floors are sure to be read, which takes no longer than the settle time of a
// verification. A floor that lies further ahead comes from a clock that is wrong, or from a write time that somebody
// made up: then only what has settled by now is replaced.
func (p *Prepared) settled(ctx context.Context, floors map[string]int64) error {
	settle := p.Job.Verify.SettleTime()
	now := time.Now()
	until := now
	for name, floor := range floors {
		at := time.UnixMicro(floor).Add(settle)
		if at.After(now.Add(settle)) {
			slog.WarnContext(ctx, "an earlier run has written versions that lie ahead of this machine's clock; "+
				"what it wrote later than now stays",
				"sink", name, "version", floor, "time", time.UnixMicro(floor).UTC())
			at = now
			floors[name] = now.Add(-settle).UnixMicro()
		}
		if at.After(until) {
			until = at
		}
	}
	if wait := until.Sub(now); wait > 0 {
		slog.InfoContext(ctx, "an earlier run has only just written: "+
			"waiting until production's writes of that time can be read", "wait", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// NoteFloors tells in the history of the run what it replaces.
func NoteFloors(ctx context.Context, j journal.Journal, run string, floors map[string]int64) error {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(floors)) {
		newest := time.UnixMicro(floors[name] - 1).UTC()
		parts = append(parts, fmt.Sprintf("%s up to %s", name, newest.Format("2006-01-02T15:04:05.000000Z")))
	}
	return j.Note(ctx, run, journal.Event{At: time.Now(), Kind: "replaces",
		Text: "what earlier runs wrote: " + strings.Join(parts, ", ")})
}
