package icebergio

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/table/compaction"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// Compact keeps the newest row of each key, where the sink upserts, and puts small files, and files of which much is deleted, together into larger ones.
// Each group of files is a commit of its own; a group that somebody else changes meanwhile is left for the next time. Memory is that of one file
// that is written. tell gets what has been done, or with dry what would be.
func (s *Sink) Compact(ctx context.Context, dry bool, tell func(string)) error {
	if err := s.dedupe(ctx, dry, tell); err != nil {
		return err
	}
	t, err := request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
	if err != nil {
		return err
	}
	tasks, err := planFiles(ctx, t, connector.DefaultRetry)
	if err != nil {
		return err
	}
	size := s.config.FileSize.Or(int64(t.Properties().GetInt(table.WriteTargetFileSizeBytesKey, defaultFileSize)))
	c := compaction.DefaultConfig()
	c.TargetFileSizeBytes, c.MinFileSizeBytes, c.MaxFileSizeBytes = size, size*3/4, size*9/5
	plan, err := c.PlanCompaction(tasks)
	if err != nil {
		return fail.New(fail.Fatal, "iceberg.compact", "table %s: %w", s.config.Table, err)
	}
	if dry {
		files := 0
		for _, g := range plan.Groups {
			files += len(g.Tasks)
		}
		tell(fmt.Sprintf("%d of %d data files would be put together, in %d groups", files, len(tasks), len(plan.Groups)))
		return nil
	}
	for _, g := range plan.Groups {
		what, err := s.compact(ctx, table.CompactionTaskGroup{PartitionKey: g.PartitionKey, Tasks: g.Tasks, TotalSizeBytes: g.TotalSizeBytes})
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
func (s *Sink) compact(ctx context.Context, group table.CompactionTaskGroup) (string, error) {
	t, err := s.find(ctx)
	if err != nil {
		return "", err
	}
	to, _, err := s.config.writable(t, 1)
	if err != nil {
		return "", classify(err, "writing to table "+s.config.Table)
	}
	written, err := table.ExecuteCompactionGroup(ctx, to, group, table.WithCompactionScanConcurrency(1), table.WithCompactionArrowBatchSize(4096),
		table.WithCompactionRecordBatchBufferSize(queuedBatches))
	if err != nil {
		return "", classify(err, "compacting table "+s.config.Table)
	}
	if s.beforeCommit != nil {
		s.beforeCommit()
	}
	done, err := request(ctx, s.deadline, func() (bool, error) {
		for {
			t, err := s.find(ctx)
			if err != nil {
				return false, err
			}
			is, err := s.compacted(ctx, t, group, written)
			if err != nil || is != unchanged {
				return is == replaced, err
			}
			tx := t.NewTransaction()
			if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
				return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
			}
			if err := tx.NewRewrite(iceberg.Properties{compactionProperty: strconv.Itoa(len(group.Tasks))}).ApplyResult(written).Commit(ctx); err != nil {
				return false, classify(err, "compacting table "+s.config.Table)
			}
			if _, err := tx.Commit(ctx); err == nil {
				return true, nil
			} else if !errors.Is(err, table.ErrCommitFailed) {
				return false, classify(err, "compacting table "+s.config.Table)
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
	return fmt.Sprintf("%d files of %d bytes are now %d of %d bytes", len(group.Tasks), written.BytesBefore, len(written.NewDataFiles), written.BytesAfter), nil
}

// What became of a group of files that was read.
type became int

const (
	unchanged became = iota // it can be replaced
	replaced                // by what was written
	changed                 // by somebody else
)

func (s *Sink) compacted(ctx context.Context, t *table.Table, group table.CompactionTaskGroup, written table.CompactionGroupResult) (became, error) {
	tasks, err := t.Scan(table.WithScanPlanningMode(table.ScanPlanningLocal)).PlanFiles(ctx)
	if err != nil {
		return changed, classify(err, "reading the manifests of table "+s.config.Table)
	}
	now := map[string][]string{}
	for _, task := range tasks {
		now[task.File.FilePath()] = deletesOf(task)
	}
	if len(written.NewDataFiles) > 0 {
		if _, there := now[written.NewDataFiles[0].FilePath()]; there {
			return replaced, nil
		}
	}
	for _, task := range group.Tasks {
		if is, there := now[task.File.FilePath()]; !there || !slices.Equal(is, deletesOf(task)) {
			return changed, nil
		}
	}
	return unchanged, nil
}

// deletesOf are the paths of the files of deletes that concern a data file, sorted.
func deletesOf(task table.FileScanTask) (paths []string) {
	for _, df := range slices.Concat(task.DeleteFiles, task.EqualityDeleteFiles, task.DeletionVectorFiles) {
		paths = append(paths, df.FilePath())
	}
	slices.Sort(paths)
	return paths
}

// dedupe deletes all rows but the newest of each key.
func (s *Sink) dedupe(ctx context.Context, dry bool, tell func(string)) error {
	if !s.config.Upserts() {
		return nil
	}
	var m *merge
	for {
		t, err := request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
		if err != nil {
			return err
		}
		if m == nil {
			columns := keyColumns{version: s.config.versionColumn()}
			for _, id := range t.Schema().IdentifierFieldIDs {
				name, _ := t.Schema().FindColumnName(id)
				columns.key = append(columns.key, name)
			}
			if len(columns.key) == 0 {
				return fail.Job("iceberg.no_key", "table %s has no identifier fields, by which rows of the same key are told", s.config.Table).
					WithFix("set them (ALTER TABLE ... SET IDENTIFIER FIELDS)")
			}
			rows := int64(0)
			if now := t.CurrentSnapshot(); now != nil && now.Summary != nil {
				rows, _ = strconv.ParseInt(now.Summary.Properties["total-records"], 10, 64)
			}
			m = newMerge(s.config.Table, "", columns, connector.DefaultRetry, nil, 0, rows, s.config.MergeMemory.Or(defaultMergeMemory))
			m.all = true
			defer m.close()
		}
		to, _, err := s.config.writable(t, 1)
		if err != nil {
			return classify(err, "writing to table "+s.config.Table)
		}
		if err := m.catchUp(ctx, to); err != nil {
			return err
		}
		rows := int64(0)
		for _, f := range m.files {
			if !f.gone {
				rows += f.losses()
			}
		}
		if rows == 0 || dry {
			tell(fmt.Sprintf("%d rows are older than another one of their key", rows))
			return nil
		}
		deletes, err := m.positions(ctx, to, "compact")
		if err != nil {
			return err
		}
		// A commit that is not confirmed is found in the table as it is then: nothing is left to delete.
		committed, err := request(ctx, s.deadline, func() (bool, error) {
			t, err := s.find(ctx)
			if err != nil || head(t) != head(m.table) {
				return false, err
			}
			tx := t.NewTransaction()
			if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
				return false, fail.New(fail.Fatal, "iceberg.commit", "table %s: %w", s.config.Table, err)
			}
			if err := tx.NewRowDelta(iceberg.Properties{compactionProperty: "keys"}).AddDeletes(deletes...).Commit(ctx); err != nil {
				return false, classify(err, "compacting table "+s.config.Table)
			}
			if _, err = tx.Commit(ctx); errors.Is(err, table.ErrCommitFailed) {
				return false, nil
			}
			return err == nil, classify(err, "compacting table "+s.config.Table)
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

// Expiry says what of a table's past may go.
type Expiry struct {
	OlderThan time.Duration    // snapshots of less age stay
	Keep      int              // so many of the last snapshots stay in any case
	Orphans   time.Duration    // files of this sink that no snapshot holds go when they are older; 0: they stay
	Snapshots map[int64]string // that somebody still reads, and who: they and all later ones stay
	Runs      []string         // that are not over: their files stay
	Began     time.Time        // when the first run began that is not over and upserts: what there was then stays, and what came after; zero: there is none
}

// Expire forgets old snapshots with the files that they alone hold, deletes that are remembered for longer than that, and files of runs that were given up.
// Only files whose names tell that this sink wrote them are taken for such. tell gets what has been done, or with dry what would be.
func (s *Sink) Expire(ctx context.Context, e Expiry, dry bool, tell func(string)) error {
	t, err := request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
	if err != nil {
		return err
	}
	now := time.Now()
	age := e.OlderThan
	for _, snapshot := range t.Metadata().Snapshots() {
		if who, pinned := e.Snapshots[snapshot.SnapshotID]; pinned {
			if is := now.Sub(time.UnixMilli(snapshot.TimestampMs)) + time.Minute; is > age {
				age = is
				tell(fmt.Sprintf("snapshot %d and later ones stay: %s reads it", snapshot.SnapshotID, who))
			}
		}
	}
	if !e.Began.IsZero() {
		var current time.Time // then
		for _, snapshot := range t.Metadata().Snapshots() {
			if at := time.UnixMilli(snapshot.TimestampMs); !at.After(e.Began) && at.After(current) {
				current = at
			}
		}
		if current.IsZero() {
			current = e.Began
		}
		if is := now.Sub(current) + time.Minute; is > age {
			age = is
			tell(fmt.Sprintf("snapshots since %s stay: an upsert that began then is not over", e.Began.Local().Format(time.DateTime)))
		}
	}
	gone, err := request(ctx, s.deadline, func() (int, error) { return s.expire(ctx, age, e.Keep, now, dry) })
	if err != nil {
		return err
	}
	would := "%d snapshots of %d have expired"
	if dry {
		would = "%d snapshots of %d would expire"
	}
	tell(fmt.Sprintf(would, gone, len(t.Metadata().Snapshots())))
	if e.Orphans == 0 {
		return nil
	}
	return s.orphans(ctx, e, dry, tell)
}

func (s *Sink) expire(ctx context.Context, age time.Duration, keep int, now time.Time, dry bool) (int, error) {
	doing := "expiring snapshots of table " + s.config.Table
	for {
		t, err := s.find(ctx)
		if err != nil {
			return 0, err
		}
		tx := t.NewTransaction()
		if err := tx.ExpireSnapshots(table.WithOlderThan(age), table.WithRetainLast(max(1, keep))); err != nil {
			return 0, classify(err, doing)
		}
		var forgotten []string
		for name, file := range t.Properties() {
			if strings.HasPrefix(name, deletesProperty) && deletedAt(file).Before(now.Add(-age)) {
				forgotten = append(forgotten, name)
			}
		}
		if len(forgotten) > 0 {
			if err := tx.RemoveProperties(forgotten); err != nil {
				return 0, classify(err, doing)
			}
		}
		staged, err := tx.StagedTable()
		if err != nil {
			return 0, classify(err, doing)
		}
		gone := len(t.Metadata().Snapshots()) - len(staged.Metadata().Snapshots())
		if dry || gone+len(forgotten) == 0 {
			return gone, nil
		}
		if _, err = tx.Commit(ctx); err == nil {
			return gone, nil
		} else if !errors.Is(err, table.ErrCommitFailed) {
			return 0, classify(err, doing)
		}
	}
}

// ours is how names of files begin that this sink has written; the group is FilePrefix.
var ours = regexp.MustCompile(`^(?:[0-9]{5}-[0-9]+-([0-9a-f]{8}-[0-9a-f]{4})-8|(reprise-deletes-))`)

// orphans removes files of this sink that nothing tells of any more.
func (s *Sink) orphans(ctx context.Context, e Expiry, dry bool, tell func(string)) error {
	t, err := s.find(ctx)
	if err != nil {
		return err
	}
	plan, err := t.PlanOrphanFiles(ctx, table.WithFilesOlderThan(e.Orphans), table.WithCleanupMaxConcurrency(2))
	if err != nil {
		return classify(err, "looking for orphan files of table "+s.config.Table)
	}
	keep := map[string]bool{}
	for _, run := range e.Runs {
		keep[FilePrefix(run)] = true
	}
	remembered := map[string]bool{}
	for name, file := range t.Properties() {
		if strings.HasPrefix(name, deletesProperty) {
			remembered[path.Base(file)] = true
		}
	}
	files, err := t.FS(ctx)
	if err != nil {
		return classify(err, "removing orphan files of table "+s.config.Table)
	}
	n, size := 0, int64(0)
	for _, f := range plan.OrphanFiles() {
		name := path.Base(f.Path)
		is := ours.FindStringSubmatch(name)
		if is == nil || keep[is[1]] || remembered[name] {
			continue
		}
		if !dry {
			if err := files.Remove(f.Path); err != nil {
				return classify(err, "removing "+f.Path)
			}
		}
		n++
		size += f.SizeBytes
	}
	would := "%d files of runs that were given up, %d bytes, are removed"
	if dry {
		would = "%d files of runs that were given up, %d bytes, would be removed"
	}
	tell(fmt.Sprintf(would, n, size))
	return nil
}

// deletedAt is when a file of deletes was written, as its name tells.
func deletedAt(file string) time.Time {
	at, _, _ := strings.Cut(strings.TrimPrefix(path.Base(file), deletesFile), "-")
	ms, _ := strconv.ParseInt(at, 10, 64)
	return time.UnixMilli(ms)
}
