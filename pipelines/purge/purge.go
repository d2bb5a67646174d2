// Package purge deletes what a job reads, in two runs: the first marks the rows in a manifest, and once a time of
// grace is over the second deletes those that still fulfil the job's conditions. A third one can write again what was
// deleted.
package purge

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Mark prepares the run that puts down what a purge would delete. It deletes nothing.
func Mark(ctx context.Context, j *job.Job) (*runs.Prepared, error) {
	schema, err := schemaOf(ctx, j)
	if err != nil {
		return nil, err
	}
	return runs.Prepare(ctx, markJob(j, schema))
}

// Delete prepares the run that deletes what a run of Mark has put down, once the time of grace is over.
func Delete(ctx context.Context, j *job.Job, marked journal.RunInfo) (*runs.Prepared, error) {
	schema, err := schemaOf(ctx, j)
	if err != nil {
		return nil, err
	}
	if err := proven(marked, markJob(j, schema).Name, "reprise purge JOB"); err != nil {
		return nil, err
	}
	if over := marked.Ended.Add(time.Duration(j.Purge.Grace)); time.Now().Before(over) {
		return nil, fail.Job("purge.grace",
			"what run %s has marked may be deleted from %s on, after the time of grace of %s",
			marked.ID, over.Local().Format(time.DateTime), time.Duration(j.Purge.Grace)).WithFix("wait until then")
	}
	return runs.Prepare(ctx, purgeJob(j, schema, marked.ID))
}

// Restore prepares the run that writes again what a run of Delete has deleted.
func Restore(ctx context.Context, j *job.Job, purged journal.RunInfo) (*runs.Prepared, error) {
	schema, err := schemaOf(ctx, j)
	if err != nil {
		return nil, err
	}
	if err := proven(purged, purgeJob(j, schema, "").Name, "reprise purge JOB --purge RUN"); err != nil {
		return nil, err
	}
	return runs.Prepare(ctx, restoreJob(j, schema, purged.ID))
}

// proven refuses to go by a run of another job, and by one that is not done and balanced.
func proven(run journal.RunInfo, job, command string) error {
	switch {
	case run.Job != job:
		return fail.Job("purge.other_run", "run %s is one of the job %s, not of %s", run.ID, run.Job, job).
			WithFix("name a run of %s", command)
	case run.State != journal.Complete:
		return fail.Job("purge.not_done", "run %s is %s: only what is done and balanced is gone by", run.ID, run.State).
			WithFix("bring it to its end: reprise resume %s", run.ID)
	}
	return nil
}

// schemaOf is the schema of the job's source, whose sinks and transforms it checks.
func schemaOf(ctx context.Context, j *job.Job) (*record.Schema, error) {
	if j.Purge == nil {
		return nil, fail.Job("purge.no_purge", "the job %s does not purge", j.Name).
			WithFix("add purge: {reason: ...} to its file")
	}
	p, err := runs.Prepare(ctx, j)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if _, ok := p.Source.(connector.Finder); !ok {
		return nil, fail.Job("purge.no_finder",
			"the source of the job cannot find single rows by their keys, which a purge needs").
			WithFix("read a Cassandra table")
	}
	return p.Schema, nil
}

// Prospect is what a run would do, as far as reading tells.
type Prospect struct {
	Read     int64 // entries
	Gone     int64 // that the source leaves out: rows that are gone or, of a restore, that were written since
	Filtered int64 // by the job's transforms: conditions that do not hold any more
	Left     int64 // what the sinks would get, before their own conditions
	Dead     int64
	Examples []string // keys
}

// Foresee reads what a run would read and applies the transforms that its sinks share. It writes nothing.
func Foresee(ctx context.Context, p *runs.Prepared) (*Prospect, error) {
	splits, err := p.Plan(ctx)
	if err != nil {
		return nil, err
	}
	sum := &Prospect{}
	for _, split := range splits {
		err := p.Source.Read(ctx, split, func(page connector.Page) error {
			sum.Read += page.Rows()
			sum.Gone += page.Filtered
			sum.Dead += int64(len(page.Dead))
			for _, r := range page.Records {
				sum.Filtered += int64(p.Compiled.Shared.Apply(r, func(r *record.Record) {
					if sum.Left++; len(sum.Examples) < 5 {
						sum.Examples = append(sum.Examples, r.KeyText())
					}
				}, func(*record.Record, string, error) { sum.Dead++ }))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// Order names the sinks of a job in the order in which a record comes to them: "deleted, then by_tag and search, then
// assets".
func Order(of *job.Job) string {
	var text string
	names := slices.SortedFunc(maps.Keys(of.Sinks), func(a, b string) int {
		return cmp.Or(of.Rank(a)-of.Rank(b), cmp.Compare(a, b))
	})
	for i, name := range names {
		switch {
		case i == 0:
		case of.Rank(name) > of.Rank(names[i-1]):
			text += ", then "
		default:
			text += " and "
		}
		text += name
	}
	return text
}
