package fileio

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const partSuffix = ".part"

// Sink writes records to files.
type Sink struct {
	c SinkConfig
}

var (
	_ connector.Sink      = (*Sink)(nil)
	_ connector.Committer = (*Sink)(nil)
)

// NewSink gives a sink of valid settings.
func NewSink(c SinkConfig) *Sink { return &Sink{c: c} }

// Prepare checks that the folder can be written to, and makes it where it is missing.
func (s *Sink) Prepare(_ context.Context, _ connector.Run, schema *record.Schema, dry bool) error {
	if schema.Index(metaField) >= 0 {
		return fail.Job("files.meta_field", "the records have a field %s, which files use for key, version and operation", metaField).
			WithFix("rename the field by a transform")
	}
	if !dry {
		if err := os.MkdirAll(s.c.Path, 0o755); err != nil {
			return folderError(s.c.Path, err)
		}
	}
	folder := s.c.Path
	info, err := os.Stat(folder)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(folder) != folder { // dry: what would it be made in?
		folder = filepath.Dir(folder)
		info, err = os.Stat(folder)
	}
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil {
		const writeAndEnter = 2 | 1
		err = syscall.Access(folder, writeAndEnter)
	}
	if err != nil {
		return folderError(folder, err)
	}
	return nil
}

func folderError(path string, err error) error {
	return fail.Job("files.folder", "files cannot be written to %s: %w", path, err).
		WithFix("name a folder in path that this user may write to")
}

// Close implements connector.Sink.
func (s *Sink) Close() error { return nil }

// Open gives a writer with files of its own.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema, settle connector.Settle) (connector.Writer, error) {
	if err := os.MkdirAll(s.c.Path, 0o755); err != nil {
		return nil, folderError(s.c.Path, err)
	}
	return &writer{c: s.c, ctx: ctx, run: run.ID, schema: schema, settle: settle, prefix: prefix(run) + uuid.NewString()}, nil
}

// prefix begins the names of all files of a run.
func prefix(run connector.Run) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r < ' ' {
			return '_'
		}
		return r
	}, run.ID) + "-"
}

// part is what Flush hands to Commit, as JSON.
type part struct {
	File    string `json:"file"` // final name, within the folder
	Records int64  `json:"records"`
}

type writer struct {
	c      SinkConfig
	ctx    context.Context
	run    string
	schema *record.Schema
	settle connector.Settle
	prefix string

	number  int // of the next file
	out     *output
	parts   [][]byte
	results []connector.Result
	broken  error
}

// encoder writes records to one file.
type encoder interface {
	write(r *record.Record) error // of class Permanent: the record's own, nothing of it is written
	size() int64                  // about the bytes that the file has by now
	close() error
}

// Write implements connector.Writer. A record counts as written from here on: what goes wrong later fails the Flush, and with it the bundle.
func (w *writer) Write(ctx context.Context, r *record.Record) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	if w.out == nil {
		if w.broken = w.begin(); w.broken != nil {
			return w.broken
		}
	}
	res := connector.Result{Record: r, Attempts: 1}
	err := w.out.encoder.write(r)
	switch {
	case err == nil:
		w.out.records++
	case fail.ClassOf(err) == fail.Permanent:
		res.Outcome, res.Err = record.Dead, err
	default:
		w.broken = w.diskError(err)
		return w.broken
	}
	const settleTogether = 256
	if w.results = append(w.results, res); len(w.results) == settleTogether {
		w.settleAll()
	}
	if w.out.encoder.size() >= w.c.FileSize.Or(256<<20) {
		w.broken = w.end()
	}
	return w.broken
}

func (w *writer) check(ctx context.Context) error {
	if w.broken == nil && ctx.Err() != nil {
		w.broken = context.Cause(ctx)
	}
	if w.broken == nil && w.ctx.Err() != nil {
		w.broken = context.Cause(w.ctx)
	}
	return w.broken
}

func (w *writer) settleAll() {
	if len(w.results) > 0 {
		w.settle(w.results)
	}
	w.results = nil
}

// Checkpoint implements connector.Writer.
func (w *writer) Checkpoint(ctx context.Context) ([][]byte, error) { return w.Flush(ctx) }

// Flush implements connector.Writer: the files are closed and synced.
func (w *writer) Flush(ctx context.Context) ([][]byte, error) {
	if err := w.check(ctx); err != nil {
		return nil, err
	}
	if w.broken = w.end(); w.broken != nil {
		return nil, w.broken
	}
	w.settleAll()
	parts := w.parts
	w.parts = nil
	return parts, nil
}

// Close implements connector.Writer.
func (w *writer) Close() error {
	if w.out == nil {
		return nil
	}
	_ = w.out.file.Close()
	err := os.Remove(w.out.file.Name())
	w.out = nil
	return err
}

// output is a file being written.
type output struct {
	name    string // final
	file    *os.File
	buffer  *bufio.Writer
	encoder encoder
	records int64
}

func (w *writer) begin() error {
	name := fmt.Sprintf("%s-%d%s", w.prefix, w.number, w.c.extension())
	w.number++
	file, err := os.OpenFile(filepath.Join(w.c.Path, name+partSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return w.diskError(err)
	}
	o := &output{name: name, file: file, buffer: bufio.NewWriterSize(file, 256<<10)}
	w.out = o
	if w.c.format() == parquet {
		o.encoder, err = newParquetEncoder(o.buffer, w.c, w.schema, w.run)
	} else {
		o.encoder, err = newLineEncoder(o.buffer, w.c, w.run)
	}
	return err
}

// end closes the current file for good.
func (w *writer) end() error {
	if w.out == nil {
		return nil
	}
	o := w.out
	if o.records == 0 {
		return w.Close()
	}
	for _, step := range []func() error{o.encoder.close, o.buffer.Flush, o.file.Sync, o.file.Close} {
		if err := step(); err != nil {
			return w.diskError(err)
		}
	}
	w.out = nil
	p, err := json.Marshal(part{File: o.name, Records: o.records})
	w.parts = append(w.parts, p)
	return err
}

func (w *writer) diskError(err error) error { return diskError(w.c.Path, err) }

func diskError(folder string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fail.New(fail.Fatal, "files.disk_full", "the disk of %s is full: %w", folder, err).
			WithFix("free space, or name another folder in path; files named *%s there belong to runs that have not ended", partSuffix)
	}
	return fail.New(fail.Fatal, "files.write", "a file cannot be written: %w", err).WithFix("check the disk and the rights of %s", folder)
}

// Commit gives the files their final names and deletes what else the run left behind: files of bundles that failed. A file that already has its
// final name counts as committed.
func (s *Sink) Commit(ctx context.Context, run connector.Run, _ *record.Schema, parts [][]byte) (records int64, err error) {
	var pending []string
	for _, encoded := range parts {
		var p part
		if err := json.Unmarshal(encoded, &p); err != nil {
			return 0, fail.New(fail.Fatal, "files.part", "a part of the commit cannot be read: %w", err)
		}
		records += p.Records
		final := filepath.Join(s.c.Path, p.File)
		if _, err := os.Stat(final + partSuffix); err == nil {
			pending = append(pending, final)
			continue
		}
		if _, err := os.Stat(final); err != nil {
			return 0, fail.New(fail.Fatal, "files.missing", "the file %s%s, written by this run, is gone: %w", p.File, partSuffix, err).
				WithFix("all workers must write to the same folder; run the job again")
		}
	}
	for _, final := range pending {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err := os.Rename(final+partSuffix, final); err != nil {
			return 0, diskError(s.c.Path, err)
		}
	}
	if err := s.removeRest(run); err != nil {
		return 0, diskError(s.c.Path, err)
	}
	return records, syncFolder(s.c.Path)
}

func (s *Sink) removeRest(run connector.Run) error {
	entries, err := os.ReadDir(s.c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		rest, ours := strings.CutPrefix(e.Name(), prefix(run))
		return !ours || !strings.HasSuffix(rest, partSuffix) || uuid.Validate(rest[:min(36, len(rest))]) != nil
	})
	for _, e := range entries {
		if err := os.Remove(filepath.Join(s.c.Path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// syncFolder makes new names durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = folder.Sync()
		_ = folder.Close()
	}
	if err != nil {
		return diskError(path, err)
	}
	return nil
}
