package icebergio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// What a file's writer buffers. Pages and dictionaries are held for each column, so they are smaller than Iceberg's defaults.
const (
	pageSize       = 128 << 10
	dictionarySize = 256 << 10
	queuedBatches  = 1
	// Against the default level: 2 % larger files, a quarter less time, half of the encoder's 16 MiB.
	zstdLevel = "1"
)

// writable is the table with settings for this write alone, which go to no catalog.
func (c SinkConfig) writable(t *table.Table) (*table.Table, *watchedIO, error) {
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err != nil {
		return nil, nil, err
	}
	spec := t.Spec()
	partitioned, page, dictionary := !spec.IsUnpartitioned(), pageSize, dictionarySize
	if partitioned {
		page, dictionary = page/2, dictionary/2 // for each open partition
	}
	fileSize := c.FileSize.Or(int64(t.Properties().GetInt(table.WriteTargetFileSizeBytesKey, defaultFileSize)))
	props := iceberg.Properties{
		table.WriteFormatDefaultKey:       "parquet",
		table.WriteTargetFileSizeBytesKey: strconv.FormatInt(fileSize, 10),
		// Trap: files are only closed where row groups end.
		table.ParquetRowGroupSizeBytesKey: strconv.FormatInt(min(fileSize, c.rowGroup(partitioned)), 10),
		table.ParquetPageSizeBytesKey:     strconv.Itoa(page),
		table.ParquetDictSizeBytesKey:     strconv.Itoa(dictionary),
	}
	codec, level := t.Properties().Get(table.ParquetCompressionKey, table.ParquetCompressionDefault), t.Properties().Get(table.ParquetCompressionLevelKey, "")
	if c.Compression != "" && c.Compression != codec {
		codec, level = c.Compression, "-1"
	}
	if codec == "zstd" && (level == "" || level == "-1") {
		level = zstdLevel
	}
	props[table.ParquetCompressionKey] = codec
	if level != "" {
		props[table.ParquetCompressionLevelKey] = level
	}
	// Trap: file:// locations are decoded on disk, but not in manifests.
	location := plainPath(t.Location())
	if data, ok := t.Properties()[table.WriteDataPathKey]; ok {
		props[table.WriteDataPathKey] = plainPath(data)
	}
	if location != t.Location() {
		err = b.SetLoc(location)
	}
	if err := errors.Join(err, b.SetProperties(props)); err != nil {
		return nil, nil, err
	}
	meta, err := b.Build()
	if err != nil {
		return nil, nil, err
	}
	watched := &watchedIO{}
	files := func(ctx context.Context) (iceio.IO, error) {
		inner, err := t.FS(ctx)
		if err != nil {
			return nil, err
		}
		w, ok := inner.(iceio.WriteFileIO)
		if !ok {
			return nil, table.ErrWriteIORequired
		}
		return watchedFiles{WriteFileIO: w, watched: watched}, nil
	}
	return table.New(t.Identifier(), meta, t.MetadataLocation(), files, nil), watched, nil
}

// plainPath is a location on the local disk as a plain path; other locations stay as they are.
func plainPath(location string) string {
	if rest, ok := strings.CutPrefix(location, "file:"); ok {
		return "/" + strings.TrimLeft(rest, "/")
	}
	return location
}

// watchedIO keeps the first error of a write: iceberg-go may return only that a writer is closed.
type watchedIO struct {
	mu  sync.Mutex
	err error
}

func (w *watchedIO) note(err error) error {
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err == nil {
			w.err = err
		}
	}
	return err
}

func (w *watchedIO) first() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

type watchedFiles struct {
	iceio.WriteFileIO
	watched *watchedIO
}

func (f watchedFiles) Create(name string) (iceio.FileWriter, error) {
	w, err := f.WriteFileIO.Create(name)
	if f.watched.note(err) != nil {
		return nil, err
	}
	return watchedFile{w, f.watched}, nil
}

type watchedFile struct {
	iceio.FileWriter
	watched *watchedIO
}

func (f watchedFile) Write(b []byte) (int, error) {
	n, err := f.FileWriter.Write(b)
	return n, f.watched.note(err)
}

func (f watchedFile) Close() error { return f.watched.note(f.FileWriter.Close()) }

// FilePrefix is how the part of data files' names begins that tells the run: in 00000-0-XXXXXXXX-XXXX-8XXX-...-00001.parquet it is
// the twelve digits after the second hyphen.
func FilePrefix(run string) string {
	id := fileID(run)
	return id.String()[:13]
}

// fileID is unique, so that a bundle that is tried again overwrites nothing; its first 48 bits are those of the run.
func fileID(run string) uuid.UUID {
	id := uuid.New()
	sum := sha256.Sum256([]byte(run))
	copy(id[:6], sum[:6])
	id[6] = id[6]&0x0f | 0x80 // version 8: of our own making
	return id
}

// file writes batches of records into data files of one partition, one after the other, on goroutines of its own.
type file struct {
	in   chan []*record.Record
	done chan struct{} // closed when files and err are final

	files []iceberg.DataFile
	err   error
}

func (w *writer) newFile() *file {
	f := &file{in: make(chan []*record.Record), done: make(chan struct{})}
	opts := []table.WriteRecordOption{table.WithWriteUUID(fileID(w.run.ID)), table.WithRecordBatchBufferSize(queuedBatches)}
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
			if !yield(batch, err) || err != nil {
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

// filesDigest tells one set of files from another.
func filesDigest(sorted []string) string {
	h := sha256.New()
	for _, path := range sorted {
		h.Write([]byte(path))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
