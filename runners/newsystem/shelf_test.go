// Package newsystem_test is the recipe for a new system: one file makes Reprise read and write it, find rows in it,
// verify it and resume runs of it, and the suites of io/iotest say whether it does so rightly. Nothing else is touched.
// A system of the project has the same parts in config.go, kind.go, source.go and sink.go of its package io/NAMEio, and
// a line in runners/systems.
package newsystem_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A shelf is a folder with one file for each row. The name is the row's key in hex, so that names are in the order of
// keys; its content is the record, with its version.

func init() {
	connector.Register(connector.Kind{
		Name:      "shelf",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "A folder with one file for each row.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "A folder with one file for each row.",
	})
}

// SourceConfig are the settings of a shelf as a source. The schema of job files and its descriptions come from here.
type SourceConfig struct {
	Path   string           `json:"path" jsonschema:"required" jsonschema_description:"The folder."`
	Key    []string         `json:"key" jsonschema:"required,minItems=1" jsonschema_description:"The fields of the key."`
	Fields connector.Fields `json:"fields" jsonschema:"required" jsonschema_description:"Name and CQL type of each field."`
	Page   int              `json:"page,omitempty" reprise:"tuning" jsonschema_description:"Rows of a page. Default: 100."`
}

// SinkConfig are the settings of a shelf as a sink.
type SinkConfig struct {
	Path  string `json:"path" jsonschema:"required" jsonschema_description:"The folder."`
	Batch struct {
		Rows int `json:"rows,omitempty" jsonschema_description:"Rows that are written at once. Default: 50."`
	} `json:"batch,omitzero" reprise:"tuning" jsonschema_description:"What is written at once."`
}

// Validate implements connector.SourceConfig: what the schema of the settings cannot say, each fault at its place.
func (c SourceConfig) Validate() []connector.Fault { return c.Fields.Check(c.Key, "") }

// Validate implements connector.SinkConfig.
func (c SinkConfig) Validate() (faults []connector.Fault) {
	if strings.Contains(c.Path, "..") {
		faults = append(faults, connector.Faultf("path", "the path leads out of its folder"))
	}
	return faults
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	if c.Page == 0 {
		c.Page = 100
	}
	return &source{c, need.Page(c.Page)}, nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return sink{c}, nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the shelf " + c.Path }

// ReadBack implements connector.ReadBack: so reprise verify works.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	return &SourceConfig{Path: c.Path, Key: schema.KeyNames(), Fields: schema.Fields}, connector.View{Versions: true},
		nil
}

type source struct {
	c    SourceConfig
	page int
}

// Schema implements connector.Source.
func (s *source) Schema(context.Context) (*record.Schema, error) {
	if _, err := os.Stat(s.c.Path); err != nil {
		return nil, fail.Job("shelf.none", "there is no shelf %s", s.c.Path).WithFix("name a folder that is there")
	}
	return record.NewSchema(s.c.Fields, s.c.Key...)
}

// Plan implements connector.Source: two splits of each shelf, for more would need more knowledge of its keys.
func (s *source) Plan(ctx context.Context, _ connector.PlanOptions, split func(connector.Split) error) error {
	names, err := list(s.c.Path)
	if err != nil || len(names) == 0 {
		return err
	}
	all := connector.Split{Partition: s.c.Path, Rows: int64(len(names))}
	first, second := all.Cut([]byte(names[len(names)/2]))
	first.Rows, second.Rows = all.Rows/2+1, all.Rows/2
	return errors.Join(split(first), split(second))
}

// Read implements connector.Source. A position is the name of a file.
func (s *source) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	names, err := list(s.c.Path)
	if err != nil {
		return err
	}
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	start := split.Start
	for len(names) > 0 && !split.Contains([]byte(names[0])) {
		names = names[1:]
	}
	for len(names) > 0 && split.Contains([]byte(names[0])) {
		leave, _, err := connector.Enter(ctx, 0, 0) // the gate: rates, pauses
		if err != nil {
			return err
		}
		var p connector.Page
		for len(names) > 0 && p.Rows() < int64(s.page) && split.Contains([]byte(names[0])) {
			s.row(&p, schema, names[0], record.Origin{Split: split.String(), Position: start})
			p.Last, names = []byte(names[0]), names[1:]
		}
		leave(int(p.Rows()), p.Bytes, nil)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := page(p); err != nil {
			return err // as it is
		}
		start = p.Last
	}
	return nil
}

// Find implements connector.Finder: so the shelf can be joined, verified and read by lists of keys.
func (s *source) Find(ctx context.Context, keys []*record.Record, found func(int, connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	for i, key := range keys {
		leave, _, err := connector.Enter(ctx, 0, 0)
		if err != nil {
			return err
		}
		var p connector.Page
		s.row(&p, schema, name(key), key.Origin)
		leave(int(p.Rows()), p.Bytes, nil)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := found(i, p); err != nil {
			return err
		}
	}
	return nil
}

// Close implements connector.Source.
func (s *source) Close() error { return nil }

// row adds the row of a file to a page: as a record, or as a dead letter where it cannot be decoded.
func (s *source) row(p *connector.Page, schema *record.Schema, name string, from record.Origin) {
	text, err := os.ReadFile(filepath.Join(s.c.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return // deleted meanwhile
	}
	var r *record.Record
	if err == nil {
		r, err = record.DecodeRecord(text)
	}
	if err != nil {
		letter := &record.DeadLetter{Raw: text, Class: fail.Permanent.String(), Code: "shelf.damaged",
			Message: name + ": " + err.Error()}
		// With its key the row can be sent again once it is mended.
		key, _ := hex.DecodeString(name)
		if values, err := schema.ParseKey(string(key)); err == nil {
			letter.Record = &record.Record{Schema: schema, Values: values, Origin: from}
		}
		p.Dead = append(p.Dead, letter)
		return
	}
	if r.Op == record.Delete {
		return
	}
	row := &record.Record{Schema: schema, Version: r.Version, Origin: from,
		Values: make([]record.Value, len(schema.Fields))}
	for i, f := range schema.Fields {
		row.Values[i] = r.Get(f.Name)
	}
	p.Records, p.Bytes = append(p.Records, row), p.Bytes+int64(row.Size())
}

type sink struct{ c SinkConfig }

// Prepare implements connector.Sink.
func (s sink) Prepare(_ context.Context, _ connector.Run, _ *record.Schema, dry bool) error {
	if dry {
		return nil
	}
	return os.MkdirAll(s.c.Path, 0o755)
}

// Open implements connector.Sink. The batcher settles each record once, tries again what may pass and obeys the gate.
func (s sink) Open(
	ctx context.Context, run connector.Run, _ *record.Schema, settle connector.Settle,
) (connector.Writer, error) {
	limits := connector.BatchLimits{Rows: 50, Bytes: 1 << 20, InFlight: 2}
	if s.c.Batch.Rows > 0 {
		limits.Rows = s.c.Batch.Rows
	}
	return connector.NewBatcher(ctx, limits, connector.DefaultRetry,
		func(_ context.Context, batch []*record.Record) []connector.Result {
			results := make([]connector.Result, len(batch))
			for i, r := range batch {
				results[i].Outcome, results[i].Err = s.put(r.Raised(run.Floor))
			}
			return results
		}, settle), nil
}

// Close implements connector.Sink.
func (s sink) Close() error { return nil }

var writing sync.Mutex // a shelf has one program that writes it

// put keeps the version rule: a newer row stays, a delete is remembered.
func (s sink) put(r *record.Record) (record.Outcome, error) {
	writing.Lock()
	defer writing.Unlock()
	file := filepath.Join(s.c.Path, name(r))
	if text, err := os.ReadFile(file); err == nil {
		if was, err := record.DecodeRecord(text); err == nil && was.Version > r.Version {
			return record.Superseded, nil
		}
	}
	row := record.EncodeRecord(r)
	if len(row) > 1<<20 {
		return record.Dead, fail.New(fail.Permanent, "shelf.too_large", "a row of %d bytes is too large for a shelf",
			len(row))
	}
	return record.Written, os.WriteFile(file, row, 0o644)
}

// name is the file of a record; that of a long key ends in a hash, since names have 255 bytes at most.
func name(r *record.Record) string {
	name := hex.EncodeToString([]byte(r.KeyText()))
	if len(name) > 200 {
		name = fmt.Sprintf("%s%x", name[:136], sha256.Sum256([]byte(name)))
	}
	return name
}

// list gives the names of all files, in order.
func list(folder string) (names []string, err error) {
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
