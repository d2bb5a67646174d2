package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/table/compaction"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
	"reprise/transforms/fail"
)

// Compact keeps the newest row of each key, where the table is upserted, and puts small files, and files of which much
// is deleted, together into larger ones. Each group of files is a commit of its own; a group that somebody else
// changes meanwhile is left for the next time. Memory is that of one file that is written. tell gets what has been
// done, or with dry what would be.
//
// A group is replaced by a snapshot of operation replace (spec: Snapshots, "operation"), so no reader takes its
// rows for new ones. That nobody has deleted of a file since it was read is told by the files of deletes that
// apply to it: a position delete names the file that it is of, so one that came meanwhile would be lost with it
// (spec: Position Delete Files).
func (u Table) Compact(ctx context.Context, dry bool, tell func(string)) error {
	if err := u.dedupe(ctx, dry, tell); err != nil {
		return err
	}
	t, err := tables.Request(ctx, u.Deadline, func() (*table.Table, error) { return u.Find(ctx) })
	if err != nil {
		return err
	}
	tasks, err := tables.PlanFiles(ctx, t, connector.DefaultRetry)
	if err != nil {
		return err
	}
	size := u.FileSize(t)
	c := compaction.DefaultConfig()
	c.TargetFileSizeBytes, c.MinFileSizeBytes, c.MaxFileSizeBytes = size, size*3/4, size*9/5
	plan, err := c.PlanCompaction(tasks)
	if err != nil {
		return fail.New(fail.Fatal, "iceberg.compact", "table %s: %w", u.Name, err)
	}
	if dry {
		files := 0
		for _, g := range plan.Groups {
			files += len(g.Tasks)
		}
		tell(fmt.Sprintf("%d of %d data files would be put together, in %d groups", files,
			len(tasks), len(plan.Groups)))
		return nil
	}
	for _, g := range plan.Groups {
		what, err := u.compact(ctx, table.CompactionTaskGroup{PartitionKey: g.PartitionKey, Tasks: g.Tasks,
			TotalSizeBytes: g.TotalSizeBytes})
		if err != nil {
			return err
		}
		tell(what)
	}
	if len(plan.Groups) == 0 {
		tell(fmt.Sprintf("none of %d data files needs it", len(tasks)))
	}
	return nil
}

// compact writes a group of files anew and commits it.
func (u Table) compact(ctx context.Context, group table.CompactionTaskGroup) (string, error) {
	t, err := u.Find(ctx)
	if err != nil {
		return "", err
	}
	to, err := u.Writable(t)
	if err != nil {
		return "", tables.Classify(err, "writing to table "+u.Name)
	}
	written, err := table.ExecuteCompactionGroup(ctx, to, group, table.WithCompactionScanConcurrency(1),
		table.WithCompactionArrowBatchSize(4096),
		table.WithCompactionRecordBatchBufferSize(tables.QueuedBatches))
	if err != nil {
		return "", tables.Classify(err, "compacting table "+u.Name)
	}
	if u.BeforeCommit != nil {
		u.BeforeCommit()
	}
	done, err := tables.Request(ctx, u.Deadline, func() (bool, error) {
		for {
			t, err := u.Find(ctx)
			if err != nil {
				return false, err
			}
			is, err := u.compacted(ctx, t, group, written)
			if err != nil || is != unchanged {
				return is == replaced, err
			}
			tx := t.NewTransaction()
			if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
				return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", u.Name, err)
			}
			if err := tx.NewRewrite(iceberg.Properties{tables.CompactionProperty: strconv.Itoa(len(group.Tasks))}).
				ApplyResult(written).Commit(ctx); err != nil {
				return false, tables.Classify(err, "compacting table "+u.Name)
			}
			if _, err := tx.Commit(ctx); err == nil {
				return true, nil
			} else if !errors.Is(err, table.ErrCommitFailed) {
				return false, tables.Classify(err, "compacting table "+u.Name)
			}
		}
	})
	if err != nil {
		return "", err
	}
	if !done {
		if files, err := to.FS(ctx); err == nil {
			for _, df := range written.NewDataFiles {
				_ = files.Remove(df.FilePath()) // what stays is removed as an orphan
			}
		}
		return fmt.Sprintf("%d files were changed meanwhile, and are left for the next time", len(group.Tasks)), nil
	}
	return fmt.Sprintf("%d files of %d bytes are now %d of %d bytes", len(group.Tasks), written.BytesBefore,
		len(written.NewDataFiles), written.BytesAfter), nil
}

// What became of a group of files that was read.
type became int

const (
	unchanged became = iota // it can be replaced
	replaced                // by what was written
	changed                 // by somebody else
)

func (u Table) compacted(ctx context.Context, t *table.Table, group table.CompactionTaskGroup,
	written table.CompactionGroupResult) (became, error) {
	tasks, err := t.Scan(table.WithScanPlanningMode(table.ScanPlanningLocal)).PlanFiles(ctx)
	if err != nil {
		return changed, tables.Classify(err, "reading the manifests of table "+u.Name)
	}
	now := map[string][]string{}
	for _, task := range tasks {
		now[task.File.FilePath()] = tables.DeletesOf(task)
	}
	if len(written.NewDataFiles) > 0 {
		if _, there := now[written.NewDataFiles[0].FilePath()]; there {
			return replaced, nil
		}
	}
	for _, task := range group.Tasks {
		if is, there := now[task.File.FilePath()]; !there || !slices.Equal(is, tables.DeletesOf(task)) {
			return changed, nil
		}
	}
	return unchanged, nil
}

// dedupe deletes all rows but the newest of each key.
func (u Table) dedupe(ctx context.Context, dry bool, tell func(string)) error {
	if !u.Upserts {
		return nil
	}
	var m *merge.Merge
	for {
		t, err := tables.Request(ctx, u.Deadline, func() (*table.Table, error) { return u.Find(ctx) })
		if err != nil {
			return err
		}
		if m == nil {
			columns := merge.Columns{Version: u.VersionColumn}
			for _, id := range t.Schema().IdentifierFieldIDs {
				name, _ := t.Schema().FindColumnName(id)
				columns.Key = append(columns.Key, name)
			}
			if len(columns.Key) == 0 {
				return fail.Job("iceberg.no_key",
					"table %s has no identifier fields, by which rows of the same key are told", u.Name).
					WithFix("set them (ALTER TABLE ... SET IDENTIFIER FIELDS)")
			}
			rows := int64(0)
			if now := t.CurrentSnapshot(); now != nil && now.Summary != nil {
				rows, _ = strconv.ParseInt(now.Summary.Properties["total-records"], 10, 64)
			}
			m = merge.New(merge.Options{Table: u.Name, Columns: columns, Retry: connector.DefaultRetry, All: true,
				Rows: rows, Memory: u.Memory})
			defer m.Close()
		}
		to, err := u.Writable(t)
		if err != nil {
			return tables.Classify(err, "writing to table "+u.Name)
		}
		if err := m.CatchUp(ctx, to); err != nil {
			return err
		}
		rows := m.Losses()
		if rows == 0 || dry {
			tell(fmt.Sprintf("%d rows are older than another one of their key", rows))
			return nil
		}
		deletes, err := m.Positions(ctx, to, "compact")
		if err != nil {
			return err
		}
		// A commit that is not confirmed is found in the table as it is then: nothing is left to delete.
		committed, err := tables.Request(ctx, u.Deadline, func() (bool, error) {
			t, err := u.Find(ctx)
			if err != nil || tables.Head(t) != tables.Head(m.At()) {
				return false, err
			}
			tx := t.NewTransaction()
			if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
				return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", u.Name, err)
			}
			if err := tx.NewRowDelta(iceberg.Properties{tables.CompactionProperty: "keys"}).AddDeletes(deletes...).
				Commit(ctx); err != nil {
				return false, tables.Classify(err, "compacting table "+u.Name)
			}
			if _, err = tx.Commit(ctx); errors.Is(err, table.ErrCommitFailed) {
				return false, nil
			}
			return err == nil, tables.Classify(err, "compacting table "+u.Name)
		})
		if err != nil {
			return err
		}
		if committed {
			tell(fmt.Sprintf("%d rows were older than another one of their key, and are deleted", rows))
			return nil
		}
	}
}
