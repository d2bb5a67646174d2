package icebergio

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cenkalti/backoff/v5"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Superseded implements connector.Merger.
func (s *Sink) Superseded(_ context.Context, run connector.Run) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.superseded[run.ID], nil
}

// merge commits an upsert. Whoever commits first meanwhile is caught up with: only what they added is read, only keys
// that they touched are compared again.
func (s *Sink) merge(ctx context.Context, run connector.Run, schema *record.Schema, parts [][]byte) (int64, error) {
	c := &mergeCommit{sink: s, run: run, columns: merge.Columns{Version: s.config.versionColumn()}}
	for _, at := range schema.Key {
		c.columns.Key = append(c.columns.Key, schema.Fields[at].Name)
	}
	defer func() {
		if c.merge != nil {
			c.merge.Close()
		}
	}()
	pause := &backoff.ExponentialBackOff{InitialInterval: tables.FirstPause, MaxInterval: tables.LongestPause,
		Multiplier: 2, RandomizationFactor: 1}
	for {
		t, err := tables.Request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
		if err != nil {
			return 0, err
		}
		if c.staged, err = decodeParts(t, parts, c.columns.Key); err != nil {
			return 0, err
		}
		if err := c.catchUp(ctx, t); err != nil {
			return 0, err
		}
		done := c.done
		if !done {
			if s.beforeCommit != nil {
				s.beforeCommit()
			}
			if done, err = tables.Request(ctx, s.deadline, func() (bool, error) { return c.commit(ctx) }); err != nil {
				return 0, err
			}
		}
		if done {
			s.mu.Lock()
			s.superseded[run.ID] = c.superseded
			s.mu.Unlock()
			return c.staged.records, nil
		}
		timer := time.NewTimer(min(pause.NextBackOff(), tables.LongestPause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, context.Cause(ctx)
		}
	}
}

// mergeCommit is the commit of an upsert under way.
type mergeCommit struct {
	sink    *Sink
	run     connector.Run
	columns merge.Columns
	staged  *staged
	merge   *merge.Merge // nil: nothing has been read yet

	missing    []iceberg.DataFile // staged files that are not in the table
	deletes    []iceberg.DataFile // position deletes
	remembered string             // path of the file of the run's deletes; empty: it has not been written
	rows, late int64              // that lost: rows, with those of earlier commits of the run, and deletes
	done       bool
	superseded int64
}

// look finds out what of the run the table has, and gives the rows that lost at its earlier commits.
func (c *mergeCommit) look(ctx context.Context, t *table.Table) (rows int64, err error) {
	var last iceberg.Properties
	if c.missing, last, err = c.sink.notCommitted(ctx, t, c.run, c.staged); err != nil {
		return 0, err
	}
	superseded, _ := strconv.ParseInt(last[supersededProperty], 10, 64)
	late, _ := strconv.ParseInt(last[lateProperty], 10, 64)
	if c.done = last[filesProperty] == c.staged.digest; c.done {
		c.superseded = superseded
	}
	return superseded - late, nil
}

// catchUp compares what is staged with the table as it is now, and writes the deletes of what loses.
func (c *mergeCommit) catchUp(ctx context.Context, t *table.Table) error {
	s := c.sink
	earlier, err := tables.Request(ctx, s.deadline, func() (int64, error) { return c.look(ctx, t) })
	if err != nil || c.done {
		return err
	}
	t, _, err = s.config.writable(t, 1)
	if err != nil {
		return tables.Classify(err, "writing to table "+s.config.Table)
	}
	if c.merge != nil && len(c.merge.Staged) != len(c.missing) { // an earlier attempt's commit has come in
		c.merge.Close()
		c.merge = nil
	}
	if c.merge == nil {
		if err := c.begin(ctx, t); err != nil {
			return err
		}
	}
	if err := c.merge.CatchUp(ctx, t); err != nil {
		return err
	}
	if c.deletes, err = c.merge.Positions(ctx, t, c.run.ID); err != nil {
		return err
	}
	c.rows, c.late = earlier+c.merge.RowsLost(), c.merge.DeletesLost()
	c.superseded = c.rows + c.late
	if len(c.staged.deletes) > 0 && c.remembered == "" {
		c.remembered, err = tables.Request(ctx, s.deadline, func() (string, error) {
			path, err := merge.WriteDeletes(ctx, t, c.staged.deletes)
			return path, tables.Classify(err, "writing deletes to table "+s.config.Table)
		})
	}
	return err
}

// begin reads what is staged.
func (c *mergeCommit) begin(ctx context.Context, t *table.Table) error {
	rows := int64(0)
	if now := t.CurrentSnapshot(); now != nil && now.Summary != nil {
		rows, _ = strconv.ParseInt(now.Summary.Properties["total-records"], 10, 64)
	}
	c.merge = merge.New(merge.Options{Table: c.sink.config.Table, Run: c.run.ID, Columns: c.columns,
		Retry: connector.DefaultRetry,
		Floor: c.run.Floor, Since: c.staged.since,
		Reach:  merge.NewReach(t, c.columns.Key, c.staged.bounds, c.staged.files, len(c.staged.deletes) > 0),
		Staged: c.missing, Deletes: c.staged.deleted(), Rows: rows,
		Memory: c.sink.config.MergeMemory.Or(defaultMergeMemory)})
	number := 0
	for _, list := range c.staged.deletes {
		err := merge.EachDelete(list, func(k merge.Key, version int64) error {
			number++
			return c.merge.Delete(k, version, number-1)
		})
		if err != nil {
			return tables.Classify(err, "comparing keys with table "+c.sink.config.Table)
		}
	}
	return c.merge.Stage(ctx, t)
}

// commit tells whether the run is in the table; false: somebody else has committed meanwhile.
func (c *mergeCommit) commit(ctx context.Context) (bool, error) {
	s := c.sink
	t, err := s.find(ctx)
	if err != nil {
		return false, err
	}
	missing := c.missing
	if _, err := c.look(ctx, t); err != nil || c.done {
		return c.done, err
	}
	if len(c.missing) != len(missing) || tables.Head(t) != tables.Head(c.merge.At()) {
		return false, nil
	}
	doing := "committing to table " + s.config.Table
	tx := t.NewTransaction()
	if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
		return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
	}
	if c.remembered != "" {
		if err := tx.SetProperties(iceberg.Properties{merge.DeletesProperty + c.run.ID: c.remembered}); err != nil {
			return false, tables.Classify(err, doing)
		}
	}
	if len(c.missing)+len(c.deletes) > 0 {
		summary := c.staged.summary(c.run)
		summary[supersededProperty], summary[lateProperty] = strconv.FormatInt(c.superseded, 10),
			strconv.FormatInt(c.late, 10)
		if err := tx.NewRowDelta(summary).AddRows(c.missing...).AddDeletes(c.deletes...).Commit(ctx); err != nil {
			return false, tables.Classify(err, doing)
		}
	}
	if _, err := tx.Commit(ctx); errors.Is(err, table.ErrCommitFailed) {
		return false, nil
	} else if err != nil {
		return false, tables.Classify(err, doing)
	}
	return true, nil
}
