package icebergio

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

// rowReader reads a part of a data file, batch by batch, and begins anew after a failure where it was.
type rowReader struct {
	table   *table.Table
	options []table.ScanOption
	retry   connector.Retry
	task    table.FileScanTask
	size    int   // rows of a batch
	next    int64 // row that comes next

	columns []iceberg.NestedField // of the batches
	cancel  context.CancelFunc    // nil: nothing is open
	pull    func() (arrow.RecordBatch, error, bool)
	stop    func()
	at      int64 // row that comes next from pull
}

// read gives the next rows, to be released by the caller; nil at the end.
func (r *rowReader) read(ctx context.Context) (batch arrow.RecordBatch, err error) {
	err = connector.Request(ctx, r.retry, func() (records int, bytes int64, err error) {
		if batch, err = r.fetch(ctx); err != nil {
			r.close()
			return 0, 0, r.failed(err)
		}
		if batch == nil {
			return 0, 0, nil
		}
		for _, column := range batch.Columns() {
			bytes += int64(column.Data().SizeInBytes())
		}
		r.next += batch.NumRows()
		return int(batch.NumRows()), bytes, nil
	})
	return batch, err
}

func (r *rowReader) failed(err error) error {
	doing := "reading " + r.task.File.FilePath()
	if errors.Is(err, fs.ErrNotExist) || containsAny(err, "NoSuchKey") {
		return fail.New(fail.Fatal, "iceberg.expired", "%s: the file is not there any more: %w", doing, err).
			WithFix("keep snapshots for longer than a run takes, and start a new run")
	}
	if errors.Is(err, iceberg.ErrNotImplemented) || errors.Is(err, iceberg.ErrInvalidSchema) || errors.Is(err, iceberg.ErrInvalidArgument) {
		return fail.New(fail.Fatal, "iceberg.unreadable", "%s: %w", doing, err).WithFix("let an engine write the table anew (rewrite_data_files)")
	}
	return classify(err, doing)
}

// fetch gives the next batch of which something has not been read yet.
func (r *rowReader) fetch(ctx context.Context) (arrow.RecordBatch, error) {
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
		if r.at <= r.next {
			batch.Release()
			continue
		}
		if from >= r.next {
			return batch, nil
		}
		rest := batch.NewSlice(r.next-from, rows)
		batch.Release()
		return rest, nil
	}
}

func (r *rowReader) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	scan := r.table.Scan(append(slices.Clone(r.options), table.WithMaxConcurrency(1), table.WithArrowBatchSize(r.size))...)
	columns, err := scan.Projection()
	if err != nil {
		cancel()
		return err
	}
	_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{r.task})
	if err != nil {
		cancel()
		return err
	}
	r.columns = columns.Fields()
	r.pull, r.stop = iter.Pull2(batches)
	r.cancel, r.at = cancel, 0
	return nil
}

func (r *rowReader) close() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.stop()
	r.cancel = nil
}
