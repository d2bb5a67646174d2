package icebergio

import (
	"context"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/io/icebergio/merge"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What a writer holds of records that wait for their batch: of one partition, and of all.
const (
	batchRows  = 8192
	batchBytes = 1 << 20
	heldBytes  = 8 << 20
)

// writer implements connector.Writer. It gathers records by partition and hands full batches to the partition's file.
type writer struct {
	run    connector.Run
	layout *layout
	table  *table.Table
	disk   *watchedIO
	open   int // most files open at once
	settle connector.Settle
	ctx    context.Context // of the whole life
	cancel context.CancelCauseFunc

	slots  chan struct{}       // taken by batches under way
	parts  map[string]*waiting // by partition key
	files  int                 // open ones
	held   int                 // bytes that wait in all partitions
	clock  int                 // counts batches
	key    []byte
	closed []iceberg.DataFile // not yet flushed

	keys         *keyBatcher      // of deletes
	deletes      []*record.Record // that wait
	deletesBytes int
	deleted      []deletes // not yet flushed

	err error // the first, which ends the writer
}

// waiting are the records of a partition that wait for their batch.
type waiting struct {
	key     string
	records []*record.Record
	bytes   int
	file    *file // nil: none is open
	used    int   // clock of the last batch
}

// Write implements connector.Writer.
func (w *writer) Write(ctx context.Context, r *record.Record) error {
	if w.err != nil {
		return w.err
	}
	if r.Op == record.Delete {
		return w.delete(ctx, r)
	}
	part, err := w.partition(r)
	if err != nil {
		w.settle([]connector.Result{{Record: r, Outcome: record.Dead, Err: err, Attempts: 1}})
		return nil
	}
	size := r.Size()
	part.records = append(part.records, r)
	part.bytes += size
	w.held += size
	switch {
	case len(part.records) >= batchRows || part.bytes >= batchBytes:
		return w.send(ctx, part)
	case w.held >= heldBytes:
		return w.send(ctx, w.largest())
	}
	return nil
}

// delete gathers deletes.
func (w *writer) delete(ctx context.Context, r *record.Record) error {
	if err := w.layout.fits(r); err != nil {
		w.settle([]connector.Result{{Record: r, Outcome: record.Dead, Err: err, Attempts: 1}})
		return nil
	}
	w.deletes = append(w.deletes, r)
	w.deletesBytes += r.Size()
	if len(w.deletes) < batchRows && w.deletesBytes < batchBytes {
		return nil
	}
	return w.sendDeletes(ctx)
}

// sendDeletes makes a list of the deletes that wait.
func (w *writer) sendDeletes(ctx context.Context) error {
	if len(w.deletes) == 0 {
		return nil
	}
	return w.pass(ctx, len(w.deletes), int64(w.deletesBytes), func() error {
		if w.keys == nil {
			w.keys = w.layout.keyBatcher()
		}
		keys, bounds, err := w.keys.keys(w.deletes)
		if err != nil {
			return err
		}
		list := make([]byte, 0, len(keys)*merge.DeleteBytes)
		results := make([]connector.Result, len(keys))
		for i, r := range w.deletes {
			list = merge.AppendDelete(list, keys[i], max(r.Version, w.run.Floor))
			results[i] = connector.Result{Record: r, Outcome: record.Written, Attempts: 1}
		}
		w.deleted = append(w.deleted, deletes{list, bounds})
		w.deletes, w.deletesBytes = nil, 0
		w.settle(results)
		return nil
	})
}

// partition is where a record that the table can hold goes.
func (w *writer) partition(r *record.Record) (*waiting, error) {
	if err := w.layout.fits(r); err != nil {
		return nil, err
	}
	var err error
	if w.key, err = w.layout.partitionKey(w.key[:0], r); err != nil {
		return nil, err
	}
	part := w.parts[string(w.key)]
	if part == nil {
		if err := w.layout.partitionFits(r); err != nil {
			return nil, err
		}
		part = &waiting{key: string(w.key)}
		w.parts[part.key] = part
	}
	return part, nil
}

func (w *writer) largest() *waiting {
	var most *waiting
	for _, p := range w.parts {
		if most == nil || p.bytes > most.bytes {
			most = p
		}
	}
	return most
}

// send hands the waiting records of a partition to its file.
func (w *writer) send(ctx context.Context, part *waiting) error {
	if part.file == nil && w.files >= w.open {
		if err := w.closeOldest(ctx); err != nil {
			return err
		}
	}
	return w.pass(ctx, len(part.records), int64(part.bytes), func() error {
		if part.file == nil {
			part.file = w.newFile()
			w.files++
		}
		w.clock++
		part.used = w.clock
		select {
		case w.slots <- struct{}{}:
		case <-part.file.done:
			return part.file.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case part.file.in <- part.records:
		case <-part.file.done:
			return part.file.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		w.held -= part.bytes
		part.records, part.bytes = make([]*record.Record, 0, len(part.records)), 0
		return nil
	})
}

// pass does something behind the gate. An error ends the writer.
func (w *writer) pass(ctx context.Context, records int, bytes int64, do func() error) error {
	waiting, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	leave, _, err := connector.Enter(waiting, records, bytes)
	if err == nil {
		err = do()
		leave(0, 0, err)
	}
	if err != nil {
		return w.failed(err)
	}
	return nil
}

// closeOldest makes room for another partition.
func (w *writer) closeOldest(ctx context.Context) error {
	var oldest *waiting
	for _, p := range w.parts {
		if p.file != nil && (oldest == nil || p.used < oldest.used) {
			oldest = p
		}
	}
	if len(oldest.records) > 0 { // else they would make a small file of their own
		if err := w.send(ctx, oldest); err != nil {
			return err
		}
	}
	return w.close(ctx, oldest)
}

// close ends a partition's file and keeps what it wrote.
func (w *writer) close(ctx context.Context, part *waiting) error {
	return w.pass(ctx, 0, 0, func() error {
		close(part.file.in)
		select {
		case <-part.file.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		w.closed = append(w.closed, part.file.files...)
		delete(w.parts, part.key)
		w.files--
		return part.file.err
	})
}

// failed ends the writer.
func (w *writer) failed(err error) error {
	if first := w.disk.first(); first != nil {
		err = first
	}
	w.err = tables.Classify(err, fmt.Sprintf("writing a data file of table %s", tables.Name(w.table)))
	w.cancel(w.err)
	return w.err
}

// Checkpoint implements connector.Writer.
func (w *writer) Checkpoint(ctx context.Context) ([][]byte, error) { return w.Flush(ctx) }

// Flush implements connector.Writer. A part is the description of one data file.
func (w *writer) Flush(ctx context.Context) ([][]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	if err := w.sendDeletes(ctx); err != nil {
		return nil, err
	}
	for _, key := range sortedKeys(w.parts) {
		// To make room for one partition, another one may have been closed.
		if part := w.parts[key]; part != nil && len(part.records) > 0 {
			if err := w.send(ctx, part); err != nil {
				return nil, err
			}
		}
	}
	for _, part := range w.parts {
		if err := w.close(ctx, part); err != nil {
			return nil, err
		}
	}
	parts := make([][]byte, len(w.closed))
	for i, df := range w.closed {
		var err error
		if parts[i], err = encodePart(w.table, df); err != nil {
			return nil, w.failed(err)
		}
	}
	for _, list := range w.deleted {
		p, err := encodeDeletes(w.table, list)
		if err != nil {
			return nil, w.failed(err)
		}
		parts = append(parts, p)
	}
	w.closed, w.deleted = nil, nil
	return parts, nil
}

// Close implements connector.Writer. Files that were not flushed are deleted, as far as that is possible.
func (w *writer) Close() error {
	w.cancel(context.Canceled)
	if w.keys != nil {
		w.keys.builder.Release()
		w.keys = nil
	}
	for _, part := range w.parts {
		if part.file != nil {
			<-part.file.done
			w.closed = append(w.closed, part.file.files...)
		}
	}
	w.parts = nil
	if w.err == nil {
		w.err = fail.New(fail.Fatal, "iceberg.closed", "the writer is closed")
	}
	if len(w.closed) == 0 {
		return nil
	}
	files, err := w.table.FS(context.WithoutCancel(w.ctx))
	if err != nil {
		return nil
	}
	for _, df := range w.closed {
		_ = files.Remove(df.FilePath()) // what stays is as if the worker had crashed
	}
	w.closed = nil
	return nil
}
