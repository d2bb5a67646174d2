package launch

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Mark prepares the run that puts down what a purge would delete. It deletes nothing.
func Mark(ctx context.Context, j *job.Job) (*Prepared, error) {
	schema, err := purgeSchema(ctx, j)
	if err != nil {
		return nil, err
	}
	return Prepare(ctx, j.MarkJob(schema))
}

// Purge prepares the run that deletes what a run of Mark has put down, once the time of grace is over.
func Purge(ctx context.Context, j *job.Job, marked journal.RunInfo) (*Prepared, error) {
	schema, err := purgeSchema(ctx, j)
	if err != nil {
		return nil, err
	}
	if err := proven(marked, j.MarkJob(schema).Name, "reprise purge JOB"); err != nil {
		return nil, err
	}
	if over := marked.Ended.Add(time.Duration(j.Purge.Grace)); time.Now().Before(over) {
		return nil, fail.Job("purge.grace", "what run %s has marked may be deleted from %s on, after the time of grace of %s", marked.ID,
			over.Local().Format(time.DateTime), time.Duration(j.Purge.Grace)).WithFix("wait until then")
	}
	return Prepare(ctx, j.PurgeJob(schema, marked.ID))
}

// Restore prepares the run that writes again what a run of Purge has deleted.
func Restore(ctx context.Context, j *job.Job, purged journal.RunInfo) (*Prepared, error) {
	schema, err := purgeSchema(ctx, j)
	if err != nil {
		return nil, err
	}
	if err := proven(purged, j.PurgeJob(schema, "").Name, "reprise purge JOB --purge RUN"); err != nil {
		return nil, err
	}
	return Prepare(ctx, j.RestoreJob(schema, purged.ID))
}

// proven refuses to go by a run of another job, and by one that is not done and balanced.
func proven(run journal.RunInfo, job, command string) error {
	switch {
	case run.Job != job:
		return fail.Job("purge.other_run", "run %s is one of the job %s, not of %s", run.ID, run.Job, job).WithFix("name a run of %s", command)
	case run.State != journal.Complete:
		return fail.Job("purge.not_done", "run %s is %s: only what is done and balanced is gone by", run.ID, run.State).WithFix("bring it to its end: reprise resume %s", run.ID)
	}
	return nil
}

// purgeSchema is the schema of the job's source, whose sinks and transforms it checks.
func purgeSchema(ctx context.Context, j *job.Job) (*record.Schema, error) {
	if j.Purge == nil {
		return nil, fail.Job("purge.no_purge", "the job %s does not purge", j.Name).WithFix("add purge: {reason: ...} to its file")
	}
	p, err := Prepare(ctx, j)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if _, ok := p.Source.(connector.Finder); !ok {
		return nil, fail.Job("purge.no_finder", "the source of the job cannot find single rows by their keys, which a purge needs").WithFix("read a Cassandra table")
	}
	return p.Schema, nil
}

// Prospect is what a run would do, as far as reading tells.
type Prospect struct {
	Read     int64 // entries
	Gone     int64 // that the source leaves out: of a purge rows that are gone, of a restore rows that were written since
	Filtered int64 // by the job's transforms: conditions that do not hold any more
	Left     int64 // what the sinks would get, before their own conditions
	Dead     int64
	Examples []string // keys
}

// Prospect reads what a run would read and applies the transforms that its sinks share. It writes nothing.
func (p *Prepared) Prospect(ctx context.Context) (*Prospect, error) {
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

// Order names the sinks of the job in the order in which a record comes to them: "deleted, then by_tag and search, then assets".
func (p *Prepared) Order() string {
	var text string
	names := slices.SortedFunc(maps.Keys(p.Job.Sinks), func(a, b string) int {
		return cmp.Or(p.Job.Rank(a)-p.Job.Rank(b), cmp.Compare(a, b))
	})
	for i, name := range names {
		switch {
		case i == 0:
		case p.Job.Rank(name) > p.Job.Rank(names[i-1]):
			text += ", then "
		default:
			text += " and "
		}
		text += name
	}
	return text
}
