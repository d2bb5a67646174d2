package merge

import (
	"context"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
)

// strike notes the keys that others have deleted since.
func (m *Merge) strike(ctx context.Context, t *table.Table, touched filter) error {
	snapshots, err := m.foreign(t)
	if err != nil {
		return err
	}
	struck := func(k Key) error {
		if !m.mine.has(k) {
			return nil
		}
		if touched != nil {
			touched.add(k)
		}
		return tables.Classify(m.spill.add(entry{key: k, file: foreignEntry}), "comparing keys with table "+m.Table)
	}
	var equality []iceberg.DataFile
	for _, s := range snapshots {
		var positions bool
		var added []iceberg.DataFile
		err := connector.Request(ctx, m.Retry, func() (int, int64, error) {
			added, positions, err = addedDeletes(ctx, t, s)
			return 0, 0, tables.Classify(err, "reading the manifests of table "+m.Table)
		})
		if err != nil {
			return err
		}
		equality = append(equality, added...)
		if removed, _ := strconv.Atoi(s.Summary.Properties["deleted-data-files"]); positions || removed > 0 {
			if err := m.strikeRows(ctx, t, s, struck); err != nil {
				return err
			}
		}
	}
	return m.strikeEqual(ctx, t, equality, struck)
}

// foreign are the snapshots of others since, oldest first, that may have deleted something.
func (m *Merge) foreign(t *table.Table) (found []table.Snapshot, err error) {
	for at := t.CurrentSnapshot(); at != nil && at.SequenceNumber > m.since; {
		if at.Summary != nil && at.Summary.Operation != table.OpAppend && at.Summary.Operation != table.OpReplace &&
			at.Summary.Properties[tables.RunProperty] == "" && at.Summary.Properties[tables.CompactionProperty] == "" {
			found = append(found, *at)
		}
		if at.ParentSnapshotID == nil {
			break
		}
		before := t.SnapshotByID(*at.ParentSnapshotID)
		if before == nil && at.SequenceNumber > m.since+1 {
			return nil, m.expired()
		}
		at = before
	}
	slices.Reverse(found)
	return found, nil
}

func (m *Merge) expired() error {
	return fail.New(fail.Fatal, "iceberg.expired",
		"snapshots of table %s that others committed since the run began are not there any more, so what they have "+
			"deleted cannot be told", m.Table).
		WithFix("keep snapshots for longer than a run takes, and start a new run")
}

// addedDeletes are the equality deletes that a snapshot added, and whether it added position deletes.
func addedDeletes(ctx context.Context, t *table.Table,
	s table.Snapshot) (equality []iceberg.DataFile, positions bool, err error) {
	files, err := t.FS(ctx)
	if err != nil {
		return nil, false, err
	}
	manifests, err := s.Manifests(files)
	if err != nil {
		return nil, false, err
	}
	for _, m := range manifests {
		if m.SnapshotID() != s.SnapshotID || m.ManifestContent() != iceberg.ManifestContentDeletes {
			continue
		}
		for entry, err := range m.Entries(files, true) {
			switch {
			case err != nil:
				return nil, false, err
			case entry.Status() != iceberg.EntryStatusADDED || entry.SnapshotID() != s.SnapshotID:
			case entry.DataFile().ContentType() == iceberg.EntryContentEqDeletes:
				equality = append(equality, entry.DataFile())
			default:
				positions = true
			}
		}
	}
	return equality, positions, nil
}

// strikeRows gives the keys of the files from which a snapshot took rows by position or by writing them anew: all that
// they had, since a key that still has a row anywhere is not deleted.
func (m *Merge) strikeRows(ctx context.Context, t *table.Table, s table.Snapshot, struck func(Key) error) error {
	plan := func(id int64) (map[string]table.FileScanTask, error) {
		tasks, err := m.Plan(ctx, t, table.WithSnapshotID(id))
		byPath := map[string]table.FileScanTask{}
		for _, task := range tasks {
			byPath[task.File.FilePath()] = task
		}
		return byPath, err
	}
	before := map[string]table.FileScanTask{}
	if s.ParentSnapshotID != nil {
		if t.SnapshotByID(*s.ParentSnapshotID) == nil {
			return m.expired()
		}
		var err error
		if before, err = plan(*s.ParentSnapshotID); err != nil {
			return err
		}
	}
	after, err := plan(s.SnapshotID)
	if err != nil {
		return err
	}
	var from []table.FileScanTask
	for path, task := range before {
		if now, still := after[path]; !still || !slices.Equal(positionsOf(task), positionsOf(now)) {
			from = append(from, task)
		}
	}
	for path, task := range after {
		if _, was := before[path]; !was && len(positionsOf(task)) > 0 {
			from = append(from, table.FileScanTask{File: task.File}) // a row that came and went in one commit
		}
	}
	for _, task := range from {
		for r, err := range m.Columns.rows(ctx, t, m.Retry, task) {
			if err == nil {
				err = struck(r.key)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func positionsOf(task table.FileScanTask) []string {
	task.EqualityDeleteFiles = nil
	return tables.DeletesOf(task)
}

// equalityRows bounds the equality deletes that are held at once.
const equalityRows = 200_000

// strikeEqual gives the keys of the staged rows that equality deletes would have removed,
// had the rows been there before.
func (m *Merge) strikeEqual(ctx context.Context, t *table.Table, equality []iceberg.DataFile,
	struck func(Key) error) error {
	for len(equality) > 0 {
		n, held := 1, equality[0].Count()
		for n < len(equality) && held+equality[n].Count() <= equalityRows {
			held += equality[n].Count()
			n++
		}
		for _, f := range m.files[:m.staged] {
			task := table.FileScanTask{File: f.file}
			for _, df := range equality[:n] {
				spec := t.Metadata().PartitionSpecByID(int(df.SpecID()))
				if spec != nil && spec.NumFields() == 0 || df.SpecID() == f.file.SpecID() && samePartition(df, f.file) {
					task.EqualityDeleteFiles = append(task.EqualityDeleteFiles, df)
				}
			}
			if len(task.EqualityDeleteFiles) == 0 {
				continue
			}
			err := m.each(ctx, t, task, func(r row, dead bool) error {
				if !dead {
					return nil
				}
				return struck(r.key)
			})
			if err != nil {
				return err
			}
		}
		equality = equality[n:]
	}
	return nil
}

// samePartition tells whether two files of the same spec are of the same partition, as far as that can be told.
func samePartition(a, b iceberg.DataFile) bool {
	for id, v := range a.Partition() {
		is, ok := partitionText(v)
		other, known := partitionText(b.Partition()[id])
		if ok && known && is != other {
			return false
		}
	}
	return true
}

// partitionText tells values of a field of a partition apart; false: it does not know the type.
func partitionText(v any) (string, bool) {
	switch v.(type) {
	case nil:
		return "", true
	case bool, int32, int64, iceberg.Date, iceberg.Timestamp, string, []byte:
		return string(tables.AppendPartitionValue([]byte{1}, v)), true
	}
	return "", false
}
