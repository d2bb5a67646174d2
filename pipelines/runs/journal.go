package runs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Existing opens a job's journal; nil where there is none yet.
func Existing(ctx context.Context, of *job.Job) (journal.Journal, error) {
	if file := of.Journal.SQLite; file != "" {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	return journal.Open(ctx, *of.Journal)
}

// JobOf is the job as a run began with it.
func JobOf(r journal.RunInfo) (*job.Job, error) {
	j := &job.Job{}
	if err := json.Unmarshal(r.JobFile, j); err != nil {
		return nil, fmt.Errorf("the job of run %s: %w", r.ID, err)
	}
	return j, nil
}

// Fresh is the age of a beat up to which its worker counts as alive.
const Fresh = 4 * time.Second

// Alive gives the workers of a run that have sent a beat lately, except those of this machine whose process is gone.
func Alive(ctx context.Context, j journal.Journal, run string) ([]journal.Beat, error) {
	beats, err := j.Beats(ctx, run)
	host, _ := os.Hostname()
	return slices.DeleteFunc(beats, func(b journal.Beat) bool {
		return time.Since(b.At) > Fresh || b.Host == host && errors.Is(syscall.Kill(b.PID, 0), syscall.ESRCH)
	}), err
}

// Fingerprint is that of the job and the schema of its source.
func (p *Prepared) Fingerprint() (string, error) {
	identity, err := p.Job.Identity(p.Schema)
	if err != nil {
		return "", err
	}
	return job.Fingerprint(identity)
}

// Same refuses a job that is not the one that a run began with.
func (p *Prepared) Same(info journal.RunInfo, was *job.Job) error {
	schema, err := record.UnmarshalSchema(info.Schema)
	if err != nil {
		return err
	}
	before, err := was.Identity(schema)
	if err != nil {
		return err
	}
	after, err := p.Job.Identity(p.Schema)
	if err != nil {
		return err
	}
	if found := job.Differences(before, after); len(found) > 0 {
		return fail.Job("run.changed", "run %s began with another job:\n  %s", info.ID, strings.Join(found, "\n  ")).
			WithFix("what is finished was done the old way; start anew with reprise run, " +
				"or go on all the same with --force")
	}
	return nil
}

// Unfinished is the last run of the same job, if it can be resumed and no worker is at it; "": there is none.
func (p *Prepared) Unfinished(ctx context.Context) (string, error) {
	j, err := Existing(ctx, p.Job)
	if err != nil || j == nil {
		return "", err
	}
	defer j.Close()
	fingerprint, err := p.Fingerprint()
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
