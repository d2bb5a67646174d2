// Package launch takes a job from its file to its report: it opens and checks the systems, plans, and runs the graph on Prism
// in this process or on Flink.
package launch

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
	Parent   string           // the run whose dead letters it sends again; "": none
}

// Open loads a job file and prepares its job.
func Open(ctx context.Context, path string) (*Prepared, error) {
	j, err := job.Load(path)
	if err != nil {
		return nil, err
	}
	return Prepare(ctx, j)
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

// Targets checks every sink and the dead-letter queue against what they will get, and creates what the job asks for unless
// dry. All that is wrong is told at once.
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
				return fail.Job("job.same_place", "%s writes to %s as well, and a run commits to a place once", other, t.Place()).
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
	err := p.Source.Plan(ctx, connector.PlanOptions{Rows: p.Job.Limits.SplitRows, Bytes: int64(p.Job.Limits.SplitBytes)},
		func(s connector.Split) error {
			splits = append(splits, s)
			return nil
		})
	return splits, err
}

// Sum is the total of a plan.
func Sum(splits []connector.Split) journal.Total {
	var sum journal.Total
	for _, s := range splits {
		sum.Splits++
		sum.Rows += s.Rows
		sum.Bytes += s.Bytes
	}
	return sum
}

// Unfinished is the last run of the same job, if it can be resumed and nobody works at it; "": there is none.
func (p *Prepared) Unfinished(ctx context.Context) (string, error) {
	j, err := existing(ctx, p.Job)
	if err != nil || j == nil {
		return "", err
	}
	defer j.Close()
	fingerprint, err := p.fingerprint()
	if err != nil {
		return "", err
	}
	all, err := j.List(ctx)
	for _, r := range all {
		if r.Job != p.Job.Name || r.Fingerprint != fingerprint || r.Parent != "" {
			continue
		}
		if r.State == journal.Complete || r.State == journal.Unbalanced || r.Attempt == 0 {
			return "", nil
		}
		alive, err := Alive(ctx, j, r.ID)
		if err != nil || len(alive) > 0 {
			return "", err
		}
		return r.ID, nil
	}
	return "", err
}
