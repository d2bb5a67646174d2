package fileio

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
		return fail.Job("files.meta_field",
			"the records have a field %s, which files use for key, version and operation", metaField).
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
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	if err := os.MkdirAll(s.c.Path, 0o755); err != nil {
		return nil, folderError(s.c.Path, err)
	}
	w := &writer{c: s.c, run: run, schema: schema, prefix: prefix(run) + uuid.NewString()}
	// One batch at a time: it is written by this process alone, and files have an order.
	w.batches = connector.NewBatcher(ctx, connector.BatchLimits{Rows: 256, Bytes: 1 << 20, InFlight: 1},
		connector.Retry{}, w.write, settle)
	return w, nil
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

// part is what a checkpoint hands to Commit, as JSON: the records that a file has since the part before.
type part struct {
	File    string `json:"file"` // final name, within the folder
	From    int64  `json:"from"` // length of the file without these records
	Length  int64  `json:"length"`
	Records int64  `json:"records"`
	Ended   bool   `json:"ended,omitempty"` // its writer has nothing more to write to the file
}

type writer struct {
	c       SinkConfig
	run     connector.Run
	schema  *record.Schema
	prefix  string
	batches *connector.Batcher
	broken  error // the first of a checkpoint, which ends the writer

	// Of the batch under way, or of the caller while there is none.
	number int // of the next file
	out    *output
	parts  [][]byte // not handed out yet
}

// encoder writes records to one file.
type encoder interface {
	write(r *record.Record) error // of class Permanent: the record's own, nothing of it is written
	size() int64                  // about the bytes that the file has by now
	// Completes what was written, so that the file may end here; false: it ends by close alone
	cut() (bool, error)
	close() error
}

// Write implements connector.Writer. A record counts as written once it is with the file's buffer: what goes wrong
// later fails the next checkpoint.
func (w *writer) Write(ctx context.Context, r *record.Record) error {
	if w.broken != nil {
		return w.broken
	}
	return w.batches.Write(ctx, r)
}

// write implements connector.WriteBatch.
func (w *writer) write(_ context.Context, batch []*record.Record) []connector.Result {
	results := make([]connector.Result, len(batch))
	for i, r := range batch {
		if err := w.writeOne(r); fail.ClassOf(err) == fail.Fatal {
			return connector.AllFailed(batch, err)
		} else {
			results[i].Err = err
		}
	}
	return results
}

func (w *writer) writeOne(r *record.Record) error {
	if w.out == nil {
		if err := w.begin(); err != nil {
			return w.diskError(err)
		}
	}
	if err := w.out.encoder.write(r); err != nil {
		if fail.ClassOf(err) == fail.Permanent {
			return err
		}
		return w.diskError(err)
	}
	w.out.records++
	if w.out.encoder.size() >= w.c.FileSize.Or(256<<20) {
		return w.end()
	}
	return nil
}

// Checkpoint implements connector.Writer. What was written survives a crash of the
// process; Commit brings it to the disk.
func (w *writer) Checkpoint(ctx context.Context) ([][]byte, error) { return w.settled(ctx, w.cut) }

// Flush implements connector.Writer.
func (w *writer) Flush(ctx context.Context) ([][]byte, error) { return w.settled(ctx, w.end) }

// settled waits for all records, does what makes the current file's part, and hands out all parts.
func (w *writer) settled(ctx context.Context, do func() error) ([][]byte, error) {
	if w.broken != nil {
		return nil, w.broken
	}
	if _, err := w.batches.Flush(ctx); err != nil {
		return nil, err
	}
	if w.broken = do(); w.broken != nil {
		return nil, w.broken
	}
	parts := w.parts
	w.parts = nil
	return parts, nil
}

// Close implements connector.Writer. A file that has a part stays: Commit cuts off what follows.
func (w *writer) Close() error {
	_ = w.batches.Close()
	return w.drop()
}

// output is a file being written.
type output struct {
	name    string // final
	file    *os.File
	buffer  *bufio.Writer
	encoder encoder
	records int64 // since the last part
	length  int64 // of the file, up to the last part; 0: there is none
}

func (w *writer) begin() error {
	name := fmt.Sprintf("%s-%d%s", w.prefix, w.number, w.c.extension())
	w.number++
	file, err := os.OpenFile(filepath.Join(w.c.Path, name+partSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
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

// drop closes the current file; without a part it is deleted.
func (w *writer) drop() error {
	if w.out == nil {
		return nil
	}
	o := w.out
	w.out = nil
	_ = o.file.Close()
	if o.length > 0 {
		return nil
	}
	return os.Remove(o.file.Name())
}

// cut makes a part of the records that the current file has got since the last one; the file goes
// on where its format allows that.
func (w *writer) cut() error {
	o := w.out
	if o == nil || o.records == 0 {
		return nil
	}
	if ok, err := o.encoder.cut(); err != nil || !ok {
		if err != nil {
			return w.diskError(err)
		}
		return w.end()
	}
	// A part counts once the journal has it, also after a power cut
	if err := errors.Join(o.buffer.Flush(), o.file.Sync()); err != nil {
		return w.diskError(err)
	}
	return w.addPart(o, false)
}

// end closes the current file for good.
func (w *writer) end() error {
	if w.out == nil {
		return nil
	}
	o := w.out
	if o.records == 0 {
		return w.drop()
	}
	for _, step := range []func() error{o.encoder.close, o.buffer.Flush, o.file.Sync} {
		if err := step(); err != nil {
			return w.diskError(err)
		}
	}
	if err := w.addPart(o, true); err != nil {
		return err
	}
	w.out = nil
	if err := o.file.Close(); err != nil {
		return w.diskError(err)
	}
	return nil
}

func (w *writer) addPart(o *output, ended bool) error {
	info, err := o.file.Stat()
	if err != nil {
		return w.diskError(err)
	}
	p, err := json.Marshal(part{File: o.name, From: o.length, Length: info.Size(), Records: o.records, Ended: ended})
	w.parts = append(w.parts, p)
	o.records, o.length = 0, info.Size()
	return err
}

func (w *writer) diskError(err error) error { return diskError(w.c.Path, err) }

func diskError(folder string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fail.New(fail.Fatal, "files.disk_full", "the disk of %s is full: %w", folder, err).
			WithFix("free space, or name another folder in path; files named *%s there belong to runs that have "+
				"not ended", partSuffix)
	}
	return fail.New(fail.Fatal, "files.write", "a file cannot be written: %w", err).
		WithFix("check the disk and the rights of %s", folder)
}

// Commit cuts each file to its longest part, gives it its final name, and deletes what else the run left behind: files
// without a part, of bundles that failed. A file that already has its final name counts as committed and is left alone.
// Of a file that was not ended a copy gets the name: its writer may only be frozen, and go on writing to it.
func (s *Sink) Commit(ctx context.Context, run connector.Run, _ *record.Schema,
	parts [][]byte) (records int64, err error) {
	files, records, err := decodeParts(parts)
	if err != nil {
		return 0, err
	}
	var pending []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		open, err := s.check(name, files[name].length)
		if err != nil {
			return 0, err
		}
		if open {
			pending = append(pending, name)
		}
	}
	for _, name := range pending {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err := s.finish(name, files[name]); err != nil {
			return 0, diskError(s.c.Path, err)
		}
	}
	if err := s.removeRest(run); err != nil {
		return 0, diskError(s.c.Path, err)
	}
	return records, syncFolder(s.c.Path)
}

// written is what the parts tell of a file.
type written struct {
	length int64
	ended  bool
}

// decodeParts gives each file and the number of all records. The parts of a file must follow each other: what lies
// between two of them would be committed without being counted.
func decodeParts(parts [][]byte) (files map[string]written, records int64, err error) {
	all := make([]part, len(parts))
	for i, encoded := range parts {
		if err := json.Unmarshal(encoded, &all[i]); err != nil || all[i].File == "" {
			return nil, 0, fail.New(fail.Fatal, "files.part", "a part of the commit cannot be read: %.200q", encoded)
		}
	}
	slices.SortFunc(all,
		func(a, b part) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.From, b.From)) })
	files = map[string]written{}
	for _, p := range slices.Compact(all) {
		if before := files[p.File].length; p.From != before {
			return nil, 0, fail.New(fail.Fatal, "files.gap",
				"of the file %s what lies between bytes %d and %d is not part of the commit", p.File, before, p.From).
				WithFix("run the job again")
		}
		files[p.File] = written{p.Length, p.Ended}
		records += p.Records
	}
	return files, records, nil
}

// check tells whether a file has yet to get its final name; it must be as long as its parts say.
func (s *Sink) check(name string, length int64) (open bool, err error) {
	final := filepath.Join(s.c.Path, name)
	info, err := os.Stat(final + partSuffix)
	open = err == nil
	if err != nil {
		info, err = os.Stat(final)
	}
	if err == nil && info.Size() < length {
		err = fmt.Errorf("it has %d bytes of %d", info.Size(), length)
	}
	if err != nil {
		return false, fail.New(fail.Fatal, "files.missing",
			"the file %s%s, written by this run, is gone or damaged: %w", name, partSuffix, err).
			WithFix("all workers must write to the same folder; run the job again")
	}
	return open, nil
}

// finish gives a file its length and its final name, unless another process has done so meanwhile.
func (s *Sink) finish(name string, w written) error {
	final := filepath.Join(s.c.Path, name)
	from := final + partSuffix
	if !w.ended {
		from = final + "." + uuid.NewString() + partSuffix
	}
	err := complete(final+partSuffix, from, w.length)
	if err == nil {
		err = os.Rename(from, final)
	}
	if err == nil && !w.ended {
		err = os.Remove(final + partSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(final)
	}
	return err
}

// complete brings the first bytes of a file to the disk, and nothing else, as that file or as another one.
func complete(file, as string, length int64) error {
	in, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if file == as {
		return errors.Join(in.Truncate(length), in.Sync(), in.Close())
	}
	defer in.Close()
	out, err := os.OpenFile(as, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, in, length)
	return errors.Join(err, out.Sync(), out.Close())
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
