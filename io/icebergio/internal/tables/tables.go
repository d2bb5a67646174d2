// Package tables has what writing, merging and upkeep of Iceberg tables share: what files and properties are called,
// which files a snapshot has and how they are read, and what the errors of catalogs and stores mean.
package tables

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// What the summary of a snapshot says about who made it ("summary" in the spec's section Snapshots, which lets
// writers add properties of their own).
const (
	RunProperty        = "reprise.run-id"
	CompactionProperty = "reprise.compaction" // what a snapshot of upkeep put together
)

// QueuedBatches is how many batches wait before the writer of a data file: each takes memory.
const QueuedBatches = 1

// Name is the table with its namespace.
func Name(t *table.Table) string { return strings.Join(t.Identifier(), ".") }

// Head is the id of the current snapshot; 0: there is none.
func Head(t *table.Table) int64 {
	if now := t.CurrentSnapshot(); now != nil {
		return now.SnapshotID
	}
	return 0
}

// FilePrefix is how the part of data files' names begins that tells the run: in
// 00000-0-XXXXXXXX-XXXX-8XXX-...-00001.parquet it is the twelve digits after the second hyphen.
func FilePrefix(run string) string {
	id := FileID(run)
	return id.String()[:13]
}

// FileID is unique, so that a bundle that is tried again overwrites nothing; its first 48 bits are those of the run.
func FileID(run string) uuid.UUID {
	id := uuid.New()
	sum := sha256.Sum256([]byte(run))
	copy(id[:6], sum[:6])
	id[6] = id[6]&0x0f | 0x80 // version 8: of our own making
	return id
}

// Pauses between tries of the catalog: against others who commit, and while it does not answer.
const (
	FirstPause   = 50 * time.Millisecond
	LongestPause = 5 * time.Second
)

// Request does what asks the catalog, through the gate, and again as long as it may pass;
// without a gate until the deadline.
func Request[T any](ctx context.Context, deadline time.Duration, do func() (T, error)) (v T, err error) {
	retry := connector.Retry{First: FirstPause, Max: LongestPause, Deadline: deadline}
	err = connector.Request(ctx, retry, func() (_ int, _ int64, err error) {
		v, err = do()
		return 0, 0, err
	})
	return v, err
}

// PlanFiles gives the data files of the current snapshot, or of that of an option, with the deletes that concern them.
func PlanFiles(ctx context.Context, t *table.Table, retry connector.Retry,
	options ...table.ScanOption) (tasks []table.FileScanTask, err error) {
	if t.CurrentSnapshot() == nil {
		return nil, nil
	}
	err = connector.Request(ctx, retry, func() (int, int64, error) {
		tasks, err = t.Scan(append(options, table.WithScanPlanningMode(table.ScanPlanningLocal))...).PlanFiles(ctx)
		return 0, 0, Classify(err, "reading the manifests of table "+Name(t))
	})
	for _, task := range tasks {
		if format := task.File.FileFormat(); format != iceberg.ParquetFile {
			return nil, fail.Job("iceberg.unreadable",
				"table %s has files of format %s; only Parquet can be read", Name(t), format).
				WithFix("let an engine write the table anew (rewrite_data_files)")
		}
	}
	return tasks, err
}

// DeletesOf are the paths of the files of deletes that concern a data file, sorted.
func DeletesOf(task table.FileScanTask) (paths []string) {
	for _, df := range slices.Concat(task.DeleteFiles, task.EqualityDeleteFiles, task.DeletionVectorFiles) {
		paths = append(paths, df.FilePath())
	}
	slices.Sort(paths)
	return paths
}

// AppendPartitionValue appends a value of a partition such that different values of a type differ.
func AppendPartitionValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case int32:
		return binary.AppendVarint(b, int64(v))
	case int64:
		return binary.AppendVarint(b, v)
	case iceberg.Date:
		return binary.AppendVarint(b, int64(v))
	case iceberg.Timestamp:
		return binary.AppendVarint(b, int64(v))
	case float32:
		return binary.BigEndian.AppendUint32(b, math.Float32bits(v))
	case float64:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v))
	case string:
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	case []byte:
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	case iceberg.Decimal:
		b = binary.BigEndian.AppendUint64(b, uint64(v.Val.HighBits()))
		return binary.BigEndian.AppendUint64(b, v.Val.LowBits())
	}
	return fmt.Appendf(b, "%v", v)
}
