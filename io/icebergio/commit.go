package icebergio

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What the summary of a snapshot says about the run that made it.
const (
	jobProperty     = "reprise.job"
	recordsProperty = "reprise.records" // of the run up to this snapshot
	filesProperty   = "reprise.files"   // digest of the paths of these records' data files
	offsetsProperty = "reprise.offsets" // of a run that goes on: how far the source has been read, as JSON by partition
	// Of an upsert: how many of these records lost to newer ones, and how many of them are deletes.
	supersededProperty = "reprise.superseded"
	lateProperty       = "reprise.superseded-deletes"
)

// Commit implements connector.Committer. A run that wrote nothing makes no snapshot; one that goes on after a commit
// and commits again makes another snapshot, of the files that are new.
//
// Whatever a catalog answers, the table tells whether a commit has happened, so after any error the table is loaded
// again and searched for the run. To try again is safe even while an earlier attempt is still under way: each asserts
// the snapshot that it found, so of all of them the catalog accepts one. Data files are never deleted here.
func (s *Sink) Commit(ctx context.Context, run connector.Run, schema *record.Schema, parts [][]byte) (int64, error) {
	if len(parts) == 0 {
		return 0, nil
	}
	var n int64
	var err error
	if s.config.Upserts() {
		n, err = s.merge(ctx, run, schema, parts)
	} else {
		n, err = tables.Request(ctx, s.deadline, func() (int64, error) { return s.commitOnce(ctx, run, parts) })
	}
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
	staged, err := decodeParts(t, parts, nil)
	if err != nil {
		return 0, err
	}
	missing, _, err := s.notCommitted(ctx, t, run, staged)
	if err != nil || len(missing) == 0 {
		return staged.records, err
	}
	tx := t.NewTransaction()
	if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
		return 0, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
	}
	if err := tx.AddDataFiles(ctx, missing, staged.summary(run)); err != nil {
		if tables.ContainsAny(err, "already referenced") {
			return 0, fail.New(fail.Fatal, "iceberg.run_committed",
				"run %s was committed to table %s, but its snapshot has expired: %w", run.ID, s.config.Table, err).
				WithFix("the records are there; start a new run for more")
		}
		return 0, tables.Classify(err, "committing to table "+s.config.Table)
	}
	if _, err := tx.Commit(ctx); err != nil {
		return 0, tables.Classify(err, "committing to table "+s.config.Table)
	}
	return staged.records, nil
}

// summary is what the snapshot says.
func (s *staged) summary(run connector.Run) iceberg.Properties {
	p := iceberg.Properties{tables.RunProperty: run.ID, jobProperty: run.Job,
		recordsProperty: strconv.FormatInt(s.records, 10), filesProperty: s.digest}
	if run.Offsets != "" {
		p[offsetsProperty] = run.Offsets
	}
	return p
}

// notCommitted are those of the run's data files that no snapshot holds. last is the summary of the run's
// latest snapshot; nil: there is none.
func (s *Sink) notCommitted(ctx context.Context, t *table.Table, run connector.Run,
	staged *staged) (files []iceberg.DataFile, last iceberg.Properties, err error) {
	var snapshots []table.Snapshot
	for _, snapshot := range t.Metadata().Snapshots() {
		if snapshot.Summary == nil || snapshot.Summary.Properties[tables.RunProperty] != run.ID {
			continue
		}
		last = snapshot.Summary.Properties
		if last[filesProperty] == staged.digest {
			return nil, last, nil
		}
		snapshots = append(snapshots, snapshot)
	}
	if len(snapshots) == 0 {
		return staged.files, nil, nil
	}
	done, err := addedFiles(ctx, t, snapshots)
	if err != nil {
		return nil, nil, tables.Classify(err, "reading the snapshots of table "+s.config.Table)
	}
	var missing []iceberg.DataFile
	for _, df := range staged.files {
		if done[df.FilePath()] {
			delete(done, df.FilePath())
		} else {
			missing = append(missing, df)
		}
	}
	if len(done) > 0 {
		return nil, nil, fail.New(fail.Fatal, "iceberg.run_committed",
			"run %s has already committed other files to table %s", run.ID, s.config.Table).
			WithFix("give each sink of a job a table of its own, and each run its own id")
	}
	return missing, last, nil
}

// addedFiles are the paths of the data files that were added by some snapshots.
func addedFiles(ctx context.Context, t *table.Table, snapshots []table.Snapshot) (map[string]bool, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return nil, err
	}
	added := map[string]bool{}
	for _, snapshot := range snapshots {
		manifests, err := snapshot.Manifests(files)
		if err != nil {
			return nil, err
		}
		for _, m := range manifests {
			if m.SnapshotID() != snapshot.SnapshotID {
				continue
			}
			for entry, err := range m.Entries(files, true) {
				if err != nil {
					return nil, err
				}
				if entry.Status() == iceberg.EntryStatusADDED && entry.SnapshotID() == snapshot.SnapshotID {
					added[entry.DataFile().FilePath()] = true
				}
			}
		}
	}
	return added, nil
}
