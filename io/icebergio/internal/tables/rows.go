package tables

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// RowReader reads a part of a data file, batch by batch, and begins anew after a failure where it was.
type RowReader struct {
	Table   *table.Table
	Options []table.ScanOption // columns, snapshot
	Retry   connector.Retry
	Task    table.FileScanTask
	Size    int   // rows of a batch
	Next    int64 // row of the file that comes next

	Columns []iceberg.NestedField // of the batches, once one has been read
	cancel  context.CancelFunc    // nil: nothing is open
	pull    func() (arrow.RecordBatch, error, bool)
	stop    func()
	at      int64 // row that comes next from pull
}

// Read gives the next rows, to be released by the caller; nil at the end.
func (r *RowReader) Read(ctx context.Context) (batch arrow.RecordBatch, err error) {
	err = connector.Request(ctx, r.Retry, func() (records int, bytes int64, err error) {
		if batch, err = r.fetch(ctx); err != nil {
			r.Close()
			return 0, 0, r.failed(err)
		}
		if batch == nil {
			return 0, 0, nil
		}
		for _, column := range batch.Columns() {
			bytes += int64(column.Data().SizeInBytes())
		}
		r.Next += batch.NumRows()
		return int(batch.NumRows()), bytes, nil
	})
	return batch, err
}

func (r *RowReader) failed(err error) error {
	doing := "reading " + r.Task.File.FilePath()
	if errors.Is(err, fs.ErrNotExist) || ContainsAny(err, "NoSuchKey") {
		return fail.New(fail.Fatal, "iceberg.expired", "%s: the file is not there any more: %w", doing, err).
			WithFix("keep snapshots for longer than a run takes, and start a new run")
	}
	if errors.Is(err, iceberg.ErrNotImplemented) || errors.Is(err, iceberg.ErrInvalidSchema) ||
		errors.Is(err, iceberg.ErrInvalidArgument) {
		return fail.New(fail.Fatal, "iceberg.unreadable", "%s: %w", doing, err).
			WithFix("let an engine write the table anew (rewrite_data_files)")
	}
	return Classify(err, doing)
}

// fetch gives the next batch of which something has not been read yet.
func (r *RowReader) fetch(ctx context.Context) (arrow.RecordBatch, error) {
	if r.cancel == nil {
		if err := r.open(ctx); err != nil {
			return nil, err
		}
	}
	for {
		batch, err, ok := r.pull()
		if !ok || err != nil {
			return nil, err
		}
		from, rows := r.at, batch.NumRows()
		r.at += rows
		if r.at <= r.Next {
			batch.Release()
			continue
		}
		if from >= r.Next {
			return batch, nil
		}
		rest := batch.NewSlice(r.Next-from, rows)
		batch.Release()
		return rest, nil
	}
}

func (r *RowReader) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	scan := r.Table.Scan(append(slices.Clone(r.Options), table.WithMaxConcurrency(1),
		table.WithArrowBatchSize(r.Size))...)
	columns, err := scan.Projection()
	if err != nil {
		cancel()
		return err
	}
	_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{r.Task})
	if err != nil {
		cancel()
		return err
	}
	r.Columns = columns.Fields()
	r.pull, r.stop = iter.Pull2(batches)
	r.cancel, r.at = cancel, 0
	return nil
}

// Close ends reading; the next Read begins anew at Next.
func (r *RowReader) Close() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.stop()
	r.cancel = nil
}
