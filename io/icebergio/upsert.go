package icebergio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// deletesProperty begins the names of table properties that remember a run's deletes, so that no older row comes after them: the value is the
// path of a file of them.
const deletesProperty = "reprise.deletes."

// deletesFile begins the name of such a file; the milliseconds since 1970 follow.
const deletesFile = "reprise-deletes-"

// Superseded implements connector.Merger.
func (s *Sink) Superseded(_ context.Context, run connector.Run) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.superseded[run.ID], nil
}

// merge commits an upsert. Whoever commits first meanwhile is caught up with: only what they added is read, only keys that they touched
// are compared again.
func (s *Sink) merge(ctx context.Context, run connector.Run, schema *record.Schema, parts [][]byte) (int64, error) {
	c := &mergeCommit{sink: s, run: run, columns: keyColumns{version: s.config.versionColumn()}}
	for _, at := range schema.Key {
		c.columns.key = append(c.columns.key, schema.Fields[at].Name)
	}
	defer func() {
		if c.merge != nil {
			c.merge.close()
		}
	}()
	pause := &backoff.ExponentialBackOff{InitialInterval: firstPause, MaxInterval: longestPause, Multiplier: 2, RandomizationFactor: 1}
	for {
		t, err := request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
		if err != nil {
			return 0, err
		}
		if c.staged, err = decodeParts(t, parts, c.columns.key); err != nil {
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
			if done, err = request(ctx, s.deadline, func() (bool, error) { return c.commit(ctx) }); err != nil {
				return 0, err
			}
		}
		if done {
			s.mu.Lock()
			s.superseded[run.ID] = c.superseded
			s.mu.Unlock()
			return c.staged.records, nil
		}
		timer := time.NewTimer(min(pause.NextBackOff(), longestPause))
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
	columns keyColumns
	staged  *staged
	merge   *merge // nil: nothing has been read yet

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
	earlier, err := request(ctx, s.deadline, func() (int64, error) { return c.look(ctx, t) })
	if err != nil || c.done {
		return err
	}
	t, _, err = s.config.writable(t, 1)
	if err != nil {
		return classify(err, "writing to table "+s.config.Table)
	}
	if c.merge != nil && c.merge.staged != len(c.missing) { // an earlier attempt's commit has come in
		c.merge.close()
		c.merge = nil
	}
	if c.merge == nil {
		if err := c.begin(ctx, t); err != nil {
			return err
		}
	}
	if err := c.merge.catchUp(ctx, t); err != nil {
		return err
	}
	if c.deletes, err = c.merge.positions(ctx, t, c.run.ID); err != nil {
		return err
	}
	c.rows, c.late = earlier+c.merge.rowsLost(), c.merge.lateDeletes()
	c.superseded = c.rows + c.late
	if len(c.staged.deletes) > 0 && c.remembered == "" {
		c.remembered, err = request(ctx, s.deadline, func() (string, error) {
			path, err := writeDeleted(ctx, t, c.staged.deletes)
			return path, classify(err, "writing deletes to table "+s.config.Table)
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
	memory := c.sink.config.MergeMemory.Or(defaultMergeMemory)
	c.merge = newMerge(c.sink.config.Table, c.run.ID, c.columns, connector.DefaultRetry, c.missing, c.staged.deleted(), rows, memory)
	c.merge.floor, c.merge.since, c.merge.reach = c.run.Floor, c.staged.since, newReach(t, c.columns.key, c.staged)
	number := 0
	for _, list := range c.staged.deletes {
		err := eachDelete(list, func(k keyID, version int64) error {
			number++
			return c.merge.delete(k, version, number-1)
		})
		if err != nil {
			return classify(err, "comparing keys with table "+c.sink.config.Table)
		}
	}
	return c.merge.stage(ctx, t)
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
	if len(c.missing) != len(missing) || head(t) != head(c.merge.table) {
		return false, nil
	}
	doing := "committing to table " + s.config.Table
	tx := t.NewTransaction()
	if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
		return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
	}
	if c.remembered != "" {
		if err := tx.SetProperties(iceberg.Properties{deletesProperty + c.run.ID: c.remembered}); err != nil {
			return false, classify(err, doing)
		}
	}
	if len(c.missing)+len(c.deletes) > 0 {
		summary := c.staged.summary(c.run)
		summary[supersededProperty], summary[lateProperty] = strconv.FormatInt(c.superseded, 10), strconv.FormatInt(c.late, 10)
		if err := tx.NewRowDelta(summary).AddRows(c.missing...).AddDeletes(c.deletes...).Commit(ctx); err != nil {
			return false, classify(err, doing)
		}
	}
	if _, err := tx.Commit(ctx); errors.Is(err, table.ErrCommitFailed) {
		return false, nil
	} else if err != nil {
		return false, classify(err, doing)
	}
	return true, nil
}

// head is the current snapshot; 0: there is none.
func head(t *table.Table) int64 {
	if now := t.CurrentSnapshot(); now != nil {
		return now.SnapshotID
	}
	return 0
}

// writeDeleted writes a file of deletes.
func writeDeleted(ctx context.Context, t *table.Table, lists [][]byte) (string, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return "", err
	}
	to, ok := files.(iceio.WriteFileIO)
	if !ok {
		return "", table.ErrWriteIORequired
	}
	places, err := t.LocationProvider()
	if err != nil {
		return "", err
	}
	path := places.NewMetadataLocation(fmt.Sprintf("%s%d-%s", deletesFile, time.Now().UnixMilli(), uuid.NewString()))
	return path, to.WriteFile(path, bytes.Join(lists, nil))
}

// readEarlier adds the deletes that earlier runs left in the table. A file of them that somebody has cleaned away is as good as expired.
func (m *merge) readEarlier(ctx context.Context, t *table.Table, touched filter) error {
	for name, path := range t.Properties() {
		if !strings.HasPrefix(name, deletesProperty) || name == deletesProperty+m.run || m.deletes[path] {
			continue
		}
		m.deletes[path] = true
		list := make([]byte, 4096*deleteBytes)
		for from := int64(0); ; from += int64(len(list)) {
			n := 0
			err := connector.Request(ctx, m.retry, func() (_ int, _ int64, err error) {
				n, err = readAt(ctx, t, path, list, from)
				return n / deleteBytes, int64(n), classify(err, "reading "+path)
			})
			if err != nil {
				return err
			}
			err = eachDelete(list[:n], func(k keyID, version int64) error {
				if !m.mine.has(k) {
					return nil
				}
				if touched != nil {
					touched.add(k)
				}
				return m.spill.add(entry{key: k, version: version, file: earlierEntry})
			})
			if err != nil {
				return classify(err, "comparing keys with table "+m.name)
			}
			if n < len(list) {
				break
			}
		}
	}
	return nil
}

// readAt reads a part of a file, less at its end; of a file that is not there nothing.
func readAt(ctx context.Context, t *table.Table, path string, b []byte, from int64) (int, error) {
	files, err := t.FS(ctx)
	if err != nil {
		return 0, err
	}
	f, err := files.Open(path)
	if errors.Is(err, fs.ErrNotExist) || err != nil && containsAny(err, "NoSuchKey") {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(b, from)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
