package upkeep

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
)

// Expiry says what of a table's past may go.
type Expiry struct {
	OlderThan time.Duration    // snapshots of less age stay
	Keep      int              // so many of the last snapshots stay in any case
	Orphans   time.Duration    // files of this sink that no snapshot holds go when they are older; 0: they stay
	Snapshots map[int64]string // that somebody still reads, and who: they and all later ones stay
	Runs      []string         // that are not over: their files stay
	// When the first run began that is not over and upserts: what there was then stays, and what
	// came after; zero: there is none
	Began time.Time
}

// Expire forgets old snapshots with the files that they alone hold (spec: Snapshot Retention Policy), deletes that are
// remembered for longer than that, and files of runs that were given up. Only files whose names tell that a sink of
// this project wrote them are taken for such: files of an engine that has not committed yet look like orphans, too.
// tell gets what has been done, or with dry what would be.
func (u Table) Expire(ctx context.Context, e Expiry, dry bool, tell func(string)) error {
	t, err := tables.Request(ctx, u.Deadline, func() (*table.Table, error) { return u.Find(ctx) })
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
			tell(fmt.Sprintf("snapshots since %s stay: an upsert that began then is not over",
				e.Began.Local().Format(time.DateTime)))
		}
	}
	gone, err := tables.Request(ctx, u.Deadline, func() (int, error) { return u.expire(ctx, age, e.Keep, now, dry) })
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
	return u.orphans(ctx, e, dry, tell)
}

func (u Table) expire(ctx context.Context, age time.Duration, keep int, now time.Time, dry bool) (int, error) {
	doing := "expiring snapshots of table " + u.Name
	for {
		t, err := u.Find(ctx)
		if err != nil {
			return 0, err
		}
		tx := t.NewTransaction()
		if err := tx.ExpireSnapshots(table.WithOlderThan(age), table.WithRetainLast(max(1, keep))); err != nil {
			return 0, tables.Classify(err, doing)
		}
		var forgotten []string
		for name, file := range t.Properties() {
			if strings.HasPrefix(name, merge.DeletesProperty) && merge.DeletedAt(file).Before(now.Add(-age)) {
				forgotten = append(forgotten, name)
			}
		}
		if len(forgotten) > 0 {
			if err := tx.RemoveProperties(forgotten); err != nil {
				return 0, tables.Classify(err, doing)
			}
		}
		staged, err := tx.StagedTable()
		if err != nil {
			return 0, tables.Classify(err, doing)
		}
		gone := len(t.Metadata().Snapshots()) - len(staged.Metadata().Snapshots())
		if dry || gone+len(forgotten) == 0 {
			return gone, nil
		}
		if _, err = tx.Commit(ctx); err == nil {
			return gone, nil
		} else if !errors.Is(err, table.ErrCommitFailed) {
			return 0, tables.Classify(err, doing)
		}
	}
}

// ours is how names of files begin that this sink has written; the group is tables.FilePrefix.
var ours = regexp.MustCompile(`^(?:[0-9]{5}-[0-9]+-([0-9a-f]{8}-[0-9a-f]{4})-8|(reprise-deletes-))`)

// orphans removes files of this sink that nothing tells of any more.
func (u Table) orphans(ctx context.Context, e Expiry, dry bool, tell func(string)) error {
	t, err := u.Find(ctx)
	if err != nil {
		return err
	}
	plan, err := t.PlanOrphanFiles(ctx, table.WithFilesOlderThan(e.Orphans), table.WithCleanupMaxConcurrency(2))
	if err != nil {
		return tables.Classify(err, "looking for orphan files of table "+u.Name)
	}
	keep := map[string]bool{}
	for _, run := range e.Runs {
		keep[tables.FilePrefix(run)] = true
	}
	remembered := map[string]bool{}
	for name, file := range t.Properties() {
		if strings.HasPrefix(name, merge.DeletesProperty) {
			remembered[path.Base(file)] = true
		}
	}
	files, err := t.FS(ctx)
	if err != nil {
		return tables.Classify(err, "removing orphan files of table "+u.Name)
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
				return tables.Classify(err, "removing "+f.Path)
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
