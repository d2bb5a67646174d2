package icebergio

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cenkalti/backoff/v5"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What the summary of a snapshot says about the run that made it.
const (
	runProperty     = "reprise.run-id"
	jobProperty     = "reprise.job"
	recordsProperty = "reprise.records"
	filesProperty   = "reprise.files" // digest of the data files' paths
)

// How long the catalog is tried: against others who append, and while it does not answer.
const (
	firstPause      = 50 * time.Millisecond
	longestPause    = 5 * time.Second
	defaultDeadline = 2 * time.Minute
)

// retry does again what may pass, until the deadline.
func retry[T any](ctx context.Context, deadline time.Duration, do func() (T, error)) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstPause, longestPause
	return backoff.Retry(ctx, func() (T, error) {
		v, err := do()
		if class := fail.ClassOf(err); class == fail.Fatal || class == fail.Permanent {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(deadline))
}

// Commit implements connector.Committer. A run that wrote nothing makes no snapshot.
//
// Whatever a catalog answers, the table tells whether a commit has happened, so after any error the table is loaded again and
// searched for the run. To try again is safe even while an earlier attempt is still under way: each asserts the snapshot that it found,
// so of all of them the catalog accepts one. Data files are never deleted here.
func (s *Sink) Commit(ctx context.Context, run connector.Run, _ *record.Schema, parts [][]byte) (int64, error) {
	if len(parts) == 0 {
		return 0, nil
	}
	n, err := retry(ctx, s.deadline, func() (int64, error) { return s.commitOnce(ctx, run, parts) })
	if err == nil {
		return n, nil
	}
	var known *fail.Error
	if !errors.As(err, &known) || known.Class == fail.Fatal {
		return 0, err
	}
	return 0, &fail.Error{Class: known.Class, Code: known.Code, Exit: fail.ExitUnreachable, Err: err,
		Message: fmt.Sprintf("the commit to table %s was not confirmed: %s", s.config.Table, known.Message),
		Fix:     "resume the run: its data files are kept, and the commit is repeated only if it has not happened"}
}

// commitOnce looks for the run in the table and commits it if it is not there.
func (s *Sink) commitOnce(ctx context.Context, run connector.Run, parts [][]byte) (int64, error) {
	t, err := s.find(ctx)
	if err != nil {
		return 0, err
	}
	files, records, digest, err := decodeParts(t, parts)
	if err != nil {
		return 0, err
	}
	if n, done, err := committed(t, run, digest); done || err != nil {
		return n, err
	}
	tx := t.NewTransaction()
	if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
		return 0, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
	}
	summary := iceberg.Properties{runProperty: run.ID, jobProperty: run.Job, recordsProperty: strconv.FormatInt(records, 10), filesProperty: digest}
	if err := tx.AddDataFiles(ctx, files, summary); err != nil {
		if containsAny(err, "already referenced") {
			return 0, fail.New(fail.Fatal, "iceberg.run_committed", "run %s was committed to table %s, but its snapshot has expired: %w", run.ID, s.config.Table, err).
				WithFix("the records are there; start a new run for more")
		}
		return 0, classify(err, "committing to table "+s.config.Table)
	}
	if _, err := tx.Commit(ctx); err != nil {
		return 0, classify(err, "committing to table "+s.config.Table)
	}
	return records, nil
}

// committed tells whether a snapshot of the table holds the run, and with how many records.
func committed(t *table.Table, run connector.Run, digest string) (records int64, done bool, err error) {
	for _, snapshot := range t.Metadata().Snapshots() {
		if snapshot.Summary == nil || snapshot.Summary.Properties[runProperty] != run.ID {
			continue
		}
		props := snapshot.Summary.Properties
		if props[filesProperty] != digest {
			return 0, false, fail.New(fail.Fatal, "iceberg.run_committed", "run %s has already committed other files to table %s (snapshot %d)", run.ID, tableName(t), snapshot.SnapshotID).
				WithFix("give each sink of a job a table of its own, and each run its own id")
		}
		if records, err = strconv.ParseInt(props[recordsProperty], 10, 64); err != nil {
			return 0, false, fmt.Errorf("snapshot %d: %s: %w", snapshot.SnapshotID, recordsProperty, err)
		}
		return records, true, nil
	}
	return 0, false, nil
}
