// Package runs is what the features of Reprise have in common: jobs that are prepared to run, what a journal tells of
// earlier runs, and the Engine that makes runs.
package runs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Prepared is a job whose source is open and whose transforms are compiled. Nothing has been written.
type Prepared struct {
	Job      *job.Job
	Run      connector.Run
	Source   connector.Source
	Schema   *record.Schema
	Compiled *job.Compiled
	Floors   map[string]int64 // by sink: connector.Run.Floor; nil: not known yet
	Parent   string           // the run whose dead letters it sends again, or the verification it is part of; "": none

	// Begun, where set, is called once the run is in the journal: it writes there what the source is going to read.
	// Only then is the run planned.
	Begun func(ctx context.Context, j journal.Journal) error
}

// Open loads a job file and prepares its job.
func Open(ctx context.Context, path string) (*Prepared, error) {
	j, err := job.Load(path)
	if err != nil {
		return nil, err
	}
	return Prepare(ctx, j)
}

// OpenEnded is Open for whoever looks at what the source holds now, also where a run of the job goes on.
func OpenEnded(ctx context.Context, path string) (*Prepared, error) {
	j, err := job.Load(path)
	if err != nil {
		return nil, err
	}
	return Prepare(ctx, j.Ended())
}

// Prepare opens the source and compiles the transforms for its schema.
func Prepare(ctx context.Context, j *job.Job) (*Prepared, error) {
	now := time.Now().UTC()
	p := &Prepared{Job: j, Run: connector.Run{Job: j.Name, Started: now.Truncate(time.Millisecond),
		ID: now.Format("20060102-150405-") + uuid.NewString()[:8]}}
	var err error
	if p.Source, err = j.Source.Open(j.Need(p.Run)); err != nil {
		return nil, err
	}
	if p.Schema, err = p.Source.Schema(ctx); err != nil {
		p.Close()
		return nil, j.Placed(err)
	}
	if p.Compiled, err = j.Compile(p.Schema, transforms.Options{Now: p.Run.Started}); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the source.
func (p *Prepared) Close() { p.Source.Close() }

// Targets checks every sink and the dead-letter queue against what they will get and, unless dry, creates what the job
// asks for. Its error lists everything that is wrong.
func (p *Prepared) Targets(ctx context.Context, dry bool) error {
	var faults []error
	committed := map[string]string{} // who commits to a place
	check := func(who string, t connector.SinkSpec, schema *record.Schema) error {
		sink, err := t.Open()
		if err != nil {
			return err
		}
		defer sink.Close()
		where := t.Place()
		if l, ok := t.SinkConfig.(connector.Located); ok {
			where += l.Location()
		}
		if _, commits := sink.(connector.Committer); commits && where != "" {
			if other, taken := committed[where]; taken {
				return fail.Job("job.same_place", "%s writes to %s as well, and a run commits to a place once",
					other, t.Place()).
					WithFix("give each a place of its own")
			}
			committed[where] = who
		}
		return sink.Prepare(ctx, p.Run, schema, dry)
	}
	add := func(who string, t connector.SinkSpec, schema *record.Schema) {
		if err := check(who, t, schema); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", who, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Job.Sinks)) {
		add("sink "+name, p.Job.Sinks[name].SinkSpec, p.Compiled.Sinks[name].Out)
	}
	add("dead letters", *p.Job.DeadLetters, deadletter.Schema())
	return join(faults)
}

// join makes one error of several: the first decides the exit code.
func join(errs []error) error {
	if len(errs) < 2 {
		if len(errs) == 1 {
			return errs[0]
		}
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return fmt.Errorf("%w\n%s", errs[0], strings.Join(texts[1:], "\n"))
}

// Plan gives the splits of the job.
func (p *Prepared) Plan(ctx context.Context) ([]connector.Split, error) {
	var splits []connector.Split
	of := connector.PlanOptions{Rows: p.Job.Limits.SplitRows, Bytes: int64(p.Job.Limits.SplitBytes)}
	err := p.Source.Plan(ctx, of, func(s connector.Split) error {
		splits = append(splits, s)
		return nil
	})
	return splits, err
}

// TotalOf adds up a plan.
func TotalOf(splits []connector.Split) journal.Total {
	total := journal.Total{Splits: len(splits)}
	for _, s := range splits {
		total.Rows += s.Rows
		total.Bytes += s.Bytes
	}
	return total
}
