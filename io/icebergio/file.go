package icebergio

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/record"
)

// batchesUnderWay is how many batches of all files are made or compressed at once: the compressor of each takes 10 MiB.
const batchesUnderWay = 3

// tracked is a batch that tells when nobody holds it any more.
type tracked struct {
	arrow.RecordBatch
	holders atomic.Int64
	done    func()
}

func newTracked(b arrow.RecordBatch, done func()) *tracked {
	t := &tracked{RecordBatch: b, done: done}
	t.holders.Store(1)
	return t
}

// Retain implements arrow.RecordBatch.
func (t *tracked) Retain() { t.holders.Add(1) }

// Release implements arrow.RecordBatch.
func (t *tracked) Release() {
	if t.holders.Add(-1) == 0 {
		t.RecordBatch.Release()
		t.done()
	}
}

// file writes batches of records into data files of one partition, one after the other, on goroutines of its own.
type file struct {
	in   chan []*record.Record
	done chan struct{} // closed when files and err are final

	files []iceberg.DataFile
	err   error
}

// ended is why a file's writer has ended although there is more to write.
func (f *file) ended() error {
	if f.err == nil {
		return errors.New("the writer of the file has ended")
	}
	return f.err
}

func (w *writer) newFile() *file {
	f := &file{in: make(chan []*record.Record), done: make(chan struct{})}
	opts := []table.WriteRecordOption{table.WithWriteUUID(tables.FileID(w.run.ID)),
		table.WithRecordBatchBufferSize(tables.QueuedBatches)}
	if len(w.layout.partitions) > 0 {
		opts = append(opts, table.WithClusteredWrite())
	}
	go func() {
		defer close(f.done)
		for df, err := range table.WriteRecords(w.ctx, w.table, w.layout.arrow, w.batches(f.in), opts...) {
			if err != nil {
				f.err = err
				return
			}
			f.files = append(f.files, df)
		}
	}()
	return f
}

// batches makes records Arrow. A batch is settled as soon as the file's writer has taken it.
func (w *writer) batches(in <-chan []*record.Record) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		b := w.layout.newBatcher()
		defer b.builder.Release()
		for {
			var records []*record.Record
			select {
			case next, more := <-in:
				if !more {
					return
				}
				records = next
			case <-w.ctx.Done():
				yield(nil, context.Cause(w.ctx))
				return
			}
			batch, err := b.batch(records)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(newTracked(batch, func() { <-w.slots }), nil) {
				return
			}
			results := make([]connector.Result, len(records))
			for i, r := range records {
				results[i] = connector.Result{Record: r, Outcome: record.Written, Attempts: 1}
			}
			w.settle(results)
		}
	}
}
