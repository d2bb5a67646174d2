package fileio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A page ends at either of these.
const (
	pageRows  = 1000
	pageBytes = 1 << 20
)

// Source reads files. The partition of a split is a file's path; positions are 8 bytes, big-endian: for JSON lines the
// (uncompressed) offset at which a line begins, for Parquet the number of a row in its file.
type Source struct {
	c        SourceConfig
	pageRows int

	mu     sync.Mutex
	schema *record.Schema
}

var _ connector.Source = (*Source)(nil)

// NewSource gives a source of valid settings. Files hold no write times of cells.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{c: c, pageRows: need.Page(pageRows)}
}

// Close implements connector.Source.
func (s *Source) Close() error { return nil }

// files are the paths that the pattern matches, sorted; files that a sink has not committed are left out.
func (s *Source) files() ([]string, error) {
	paths, err := filepath.Glob(s.c.Path)
	if err != nil {
		return nil, fail.Job("files.pattern", "%q is not a pattern of file names: %w", s.c.Path, err)
	}
	paths = slices.DeleteFunc(paths, func(path string) bool {
		info, err := os.Stat(path)
		return strings.HasSuffix(path, partSuffix) || (err == nil && info.IsDir())
	})
	if len(paths) == 0 {
		return nil, fail.Job("files.none", "no file matches %s", s.c.Path).
			WithFix("check path; a folder's files are named by a pattern such as %s",
				filepath.Join(s.c.Path, "*.jsonl"))
	}
	return paths, nil
}

func readError(path string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fail.Job("files.read", "%s cannot be read: %w", path, err).
		WithFix("check that the file is there, whole, and may be read by this user on every worker")
}

// Schema implements connector.Source.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schema != nil {
		return s.schema, nil
	}
	paths, err := s.files()
	if err != nil {
		return nil, err
	}
	fields := []record.Field(s.c.Fields)
	switch {
	case fields != nil:
	case s.c.isParquet(paths[0]):
		fields, err = parquetFields(paths[0])
	default:
		fields, err = s.infer(paths)
	}
	if err != nil {
		return nil, err
	}
	schema, err := record.NewSchema(fields, s.c.Key...)
	if err != nil {
		return nil, fail.Job("files.fields", "the fields of %s: %w", s.c.Path, err).
			WithFix("there are %s", connector.Fields(fields).Names())
	}
	if i := schema.Index(s.c.Version); s.c.Version != "" && (i < 0 || !connector.IsVersion(fields[i].Type)) {
		return nil, fail.Job("files.version", "the version %q is not a field of type timestamp, timeuuid or bigint",
			s.c.Version).
			WithFix("name such a field in version, and its type in fields")
	}
	if s.c.isParquet(paths[0]) {
		if err := s.checkFiner(ctx, paths[0], schema); err != nil {
			return nil, err
		}
	}
	s.schema = schema
	return schema, nil
}

// infer guesses the fields from the first lines; lines that are no JSON are left to the reading.
func (s *Source) infer(paths []string) ([]record.Field, error) {
	all := &shape{kind: record.UDT}
	lines := 0
	for _, path := range paths {
		if s.c.isParquet(path) {
			continue
		}
		l, err := openLines(path, -1, int(s.c.MaxLine.Or(maxLine)))
		if err != nil {
			return nil, readError(path, err)
		}
		for lines < inferLines {
			line, at, tooLong, err := l.read()
			if err == io.EOF {
				break
			}
			if err != nil {
				l.close()
				return nil, readError(path, err)
			}
			text := strings.TrimSpace(string(line))
			if tooLong || !strings.HasPrefix(text, "{") ||
				record.JSONParts(text, func(string, string) error { return nil }) != nil {
				continue
			}
			lines++
			if err := all.note(text); err != nil {
				l.close()
				return nil, fail.Job("files.mixed_types",
					"the type of a field cannot be guessed, at byte %d of %s: %w", at, path, err).
					WithFix("name the fields and their types in fields")
			}
		}
		l.close()
	}
	if lines == 0 {
		return nil, fail.Job("files.empty", "no JSON object stands in %s, so that the fields cannot be guessed",
			s.c.Path).
			WithFix("check path, or name the fields and their types in fields")
	}
	return all.fields(), nil
}

// Plan cuts plain JSON lines by offset and Parquet by row groups; a compressed file is one split.
func (s *Source) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	paths, err := s.files()
	if err != nil {
		return err
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.c.isParquet(path) {
			err = s.planParquet(path, schema, split)
		} else {
			err = s.planLines(path, o, split)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) planLines(path string, o connector.PlanOptions, split func(connector.Split) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return readError(path, err)
	}
	size := info.Size()
	if size == 0 {
		return nil
	}
	if compressed(path) {
		return split(connector.Split{Partition: path, Bytes: size})
	}
	average, err := s.averageLine(path)
	if err != nil {
		return readError(path, err)
	}
	length := int64(64 << 20)
	if o.Bytes > 0 {
		length = min(length, o.Bytes)
	}
	if o.Rows > 0 {
		length = min(length, max(1, o.Rows*average))
	}
	var start []byte
	for at := int64(0); at < size; at += length {
		end := min(at+length, size)
		if err := split(connector.Split{Partition: path, Start: start, End: position(end - 1),
			Bytes: end - at, Rows: max(1, (end-at)/average)}); err != nil {
			return err
		}
		start = position(end - 1)
	}
	return nil
}

// averageLine is about the bytes of a line, by the first 100.
func (s *Source) averageLine(path string) (int64, error) {
	l, err := openLines(path, -1, 1<<20)
	if err != nil {
		return 0, err
	}
	defer l.close()
	n := int64(0)
	for ; n < 100; n++ {
		if _, _, _, err := l.read(); err != nil {
			break
		}
	}
	return max(1, l.next/max(1, n)), nil
}

func position(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// offset is the number in a position; -1 where the bound is open.
func offset(position []byte) (int64, error) {
	if position == nil {
		return -1, nil
	}
	if len(position) != 8 {
		return 0, fail.New(fail.Fatal, "files.position", "a position of %d bytes is none of a file", len(position))
	}
	return int64(binary.BigEndian.Uint64(position)), nil
}

// Read implements connector.Source.
func (s *Source) Read(ctx context.Context, split connector.Split, give func(connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	start, err := offset(split.Start)
	if err != nil {
		return err
	}
	end, err := offset(split.End)
	if err != nil {
		return err
	}
	info, err := os.Stat(split.Partition)
	if err != nil {
		return readError(split.Partition, err)
	}
	p := &pager{c: s.c, rows: s.pageRows, schema: schema, split: split, name: split.String(), give: give,
		readings: connector.Readings(schema, s.c.Version, s.c.CutTimestamps), modified: info.ModTime().UnixMicro()}
	if s.c.isParquet(split.Partition) {
		return p.readParquet(ctx, start, end)
	}
	if !compressed(split.Partition) && end >= info.Size() {
		return fail.New(fail.Fatal, "files.changed",
			"%s is shorter than it was when the run was planned", split.Partition).
			WithFix("leave files alone while they are read; start a new run")
	}
	return p.readLines(ctx, start, end)
}

// pager collects the records of a split into pages.
type pager struct {
	c        SourceConfig
	rows     int // of a full page
	schema   *record.Schema
	readings []record.Reading // of the fields
	split    connector.Split  // Start moves on with each page
	name     string
	modified int64 // microseconds since 1970
	give     func(connector.Page) error

	page connector.Page
	at   int64 // position of the page's last row
}

func (p *pager) full() bool { return p.page.Rows() >= int64(p.rows) || p.page.Bytes >= pageBytes }

// end hands on the page, with everything up to its last row.
func (p *pager) end(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.page.Rows() == 0 {
		return nil
	}
	leave, _, err := connector.Enter(ctx, int(p.page.Rows()), p.page.Bytes)
	if err != nil {
		return err
	}
	leave(0, 0, nil)
	p.page.Last = position(p.at)
	for _, r := range p.page.Records {
		r.Origin = record.Origin{Split: p.name, Position: p.split.Start}
	}
	page := p.page
	p.split.Start = page.Last
	p.page = connector.Page{}
	return p.give(page)
}

// dead adds a dead letter for a row that is no record.
func (p *pager) dead(code string, raw []byte, err error) {
	const most = 1 << 20
	if len(raw) > most {
		raw = raw[:most]
	}
	p.page.Dead = append(p.page.Dead, &record.DeadLetter{Raw: slices.Clone(raw),
		Class: fail.Permanent.String(), Code: code,
		Message: err.Error(), Attempts: 1, Place: &record.Place{Partition: p.split.Partition,
			Start: position(p.at - 1), End: position(p.at)}})
	p.page.Bytes += int64(len(raw))
}

// complete checks what a record needs beyond its fields, and sets its version.
func (p *pager) complete(r *record.Record) (code string, err error) {
	for _, k := range p.schema.Key {
		if r.Values[k].IsNull() {
			return "files.no_key", fmt.Errorf("the key field %s has no value", p.schema.Fields[k].Name)
		}
	}
	if r.Op == record.Delete {
		for i := range r.Values {
			if !slices.Contains(p.schema.Key, i) {
				r.Values[i] = record.Value{}
			}
		}
	}
	switch i := p.schema.Index(p.c.Version); {
	case i >= 0 && r.Op == record.Upsert:
		if r.Values[i].IsNull() {
			return "files.no_version", fmt.Errorf("the version field %s has no value", p.c.Version)
		}
		r.Version = connector.Version(r.Values[i])
	case r.Version == 0:
		r.Version = p.modified
	}
	return "", nil
}
