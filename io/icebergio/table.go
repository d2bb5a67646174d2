package icebergio

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/utils"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// What a file's writer buffers. Pages and dictionaries are held for each column, so they are
// smaller than Iceberg's defaults.
const (
	pageSize       = 128 << 10
	dictionarySize = 256 << 10
	// Against the default level: 2 % larger files, a quarter less time, half of the encoder's 16 MiB.
	zstdLevel = "1"
)

// writable is the table with settings for this write alone, which go to no catalog.
func (c SinkConfig) writable(t *table.Table, open int) (*table.Table, *watchedIO, error) {
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err != nil {
		return nil, nil, err
	}
	page, dictionary := pageSize, dictionarySize
	if open > 1 {
		page, dictionary = page/2, dictionary/2
	}
	fileSize := c.fileSize(t)
	props := iceberg.Properties{
		table.WriteFormatDefaultKey:       "parquet",
		table.WriteTargetFileSizeBytesKey: strconv.FormatInt(fileSize, 10),
		// Trap: files are only closed where row groups end.
		table.ParquetRowGroupSizeBytesKey: strconv.FormatInt(min(fileSize, c.rowGroup(open)), 10),
		table.ParquetPageSizeBytesKey:     strconv.Itoa(page),
		table.ParquetDictSizeBytesKey:     strconv.Itoa(dictionary),
	}
	codec, level := t.Properties().Get(table.ParquetCompressionKey, table.ParquetCompressionDefault),
		t.Properties().Get(table.ParquetCompressionLevelKey, "")
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
	local := !strings.Contains(location, "://")
	if data, ok := t.Properties()[table.WriteDataPathKey]; ok {
		props[table.WriteDataPathKey] = plainPath(data)
		local = local && !strings.Contains(plainPath(data), "://")
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
		var err error
		if !local {
			if ctx, err = patient(ctx); err != nil {
				return nil, err
			}
		}
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

// fileSize is the size of a table's data files in bytes.
func (c SinkConfig) fileSize(t *table.Table) int64 {
	return c.FileSize.Or(int64(t.Properties().GetInt(table.WriteTargetFileSizeBytesKey, defaultFileSize)))
}

// patient has requests to S3 tried again for about as long as others: what was handed to a
// data file cannot be written again.
func patient(ctx context.Context) (context.Context, error) {
	const attempts = 12 // pauses double up to 20 s, with full jitter
	answers := awshttp.NewBuildableClient().
		WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = 30 * time.Second })
	c, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(attempts), config.WithHTTPClient(answers))
	if err != nil {
		return nil, err
	}
	return utils.WithAwsConfig(ctx, &c), nil
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
