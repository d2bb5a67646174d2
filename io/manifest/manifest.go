// Package manifest is what a purge is going to delete, and what it has deleted: the rows themselves, in files.
//
// An entry is a row with its key, why and when it was put down (reason and at), the row for people (row, as JSON) and
// the row exactly as it was, with its write times and expiry (record).
package manifest

import (
	"context"
	"fmt"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// The fields of an entry beside the key.
const (
	Reason = "_reason"
	At     = "_at"
	Row    = "_row"
	Record = "_record"
)

var own = []record.Field{{Name: Row, Type: record.Of(record.Text)}, {Name: Record, Type: record.Of(record.Blob)}}

// Marked is, as a source, the rows of another one with themselves in two further fields, so that they can be put down
// whatever transforms make of them.
type Marked struct{ of connector.Source }

var (
	_ connector.Finder  = (*Marked)(nil)
	_ connector.Locator = (*Marked)(nil)
)

// NewMarked gives a source.
func NewMarked(of connector.Source) *Marked { return &Marked{of} }

// Schema implements connector.Source.
func (s *Marked) Schema(ctx context.Context) (*record.Schema, error) {
	in, err := s.of.Schema(ctx)
	if err != nil {
		return nil, err
	}
	return record.NewSchema(slices.Concat(in.Fields, own), in.KeyNames()...)
}

// Plan implements connector.Source.
func (s *Marked) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	return s.of.Plan(ctx, o, split)
}

// Read implements connector.Source.
func (s *Marked) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	return s.of.Read(ctx, split, func(p connector.Page) error { return page(marked(schema, p)) })
}

// Find implements connector.Finder.
func (s *Marked) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	finder, ok := s.of.(connector.Finder)
	if !ok {
		return fail.Job("purge.no_finder", "this source cannot find single rows by their keys")
	}
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	in, err := s.of.Schema(ctx)
	if err != nil {
		return err
	}
	plain := make([]*record.Record, len(keys))
	for i, k := range keys {
		plain[i] = unmarked(in, k)
	}
	return finder.Find(ctx, plain, func(i int, p connector.Page) error { return found(i, marked(schema, p)) })
}

// Finder tells whether the other source finds rows; see connector.FinderOf.
func (s *Marked) Finder() (connector.Finder, bool) {
	_, ok := connector.FinderOf(s.of)
	return s, ok
}

// Locate implements connector.Locator, where the other source does.
func (s *Marked) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	in, err := s.of.Schema(ctx)
	if err != nil {
		return nil, err
	}
	return connector.Locate(ctx, s.of, unmarked(in, key))
}

func unmarked(in *record.Schema, r *record.Record) *record.Record {
	plain := *r
	plain.Schema, plain.Values = in, r.Values[:len(in.Fields)]
	return &plain
}

// Close implements connector.Source.
func (s *Marked) Close() error { return s.of.Close() }

func marked(schema *record.Schema, p connector.Page) connector.Page {
	for _, r := range p.Records {
		text, wire := string(r.AppendJSON(nil)), string(record.AppendRecord(nil, r))
		r.Schema = schema
		r.Values = append(slices.Clip(r.Values), record.String(text), record.Bytes(record.Blob, wire))
		if r.Cells != nil {
			r.Cells = append(slices.Clip(r.Cells), record.Cell{Version: r.Version}, record.Cell{Version: r.Version})
		}
		p.Bytes += int64(len(text) + len(wire))
	}
	return p
}

// Deleted is, as a source, the rows that a purge has deleted, from its manifest, each a microsecond later than it was:
// later than its tombstone, and earlier than whatever has been written since. A row that was written since is filtered;
// one that is there as the purge or an earlier attempt at the restore has left it is not, since what was made of it may
// be missing.
type Deleted struct {
	from  connector.Source
	of    connector.Finder
	floor int64
}

var _ connector.Locator = (*Deleted)(nil)

// NewDeleted gives a source: from is the manifest, of is where the rows were, floor as in connector.Need.
func NewDeleted(from connector.Source, of connector.Finder, floor int64) *Deleted {
	return &Deleted{from, of, floor}
}

// Schema implements connector.Source.
func (s *Deleted) Schema(ctx context.Context) (*record.Schema, error) { return s.of.Schema(ctx) }

// Plan implements connector.Source.
func (s *Deleted) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	return s.from.Plan(ctx, o, split)
}

// Read implements connector.Source.
func (s *Deleted) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	return s.from.Read(ctx, split, func(p connector.Page) error {
		all := connector.Page{Dead: p.Dead, Filtered: p.Filtered, Last: p.Last}
		var rows []*record.Record
		for _, entry := range p.Records {
			r, err := restored(entry, schema)
			if err != nil {
				all.Dead = append(all.Dead,
					&record.DeadLetter{Raw: entry.AppendJSON(nil), Class: fail.Permanent.String(), Code: "purge.entry",
						Message: err.Error(), Attempts: 1})
				continue
			}
			rows = append(rows, r)
		}
		again := make([]bool, len(rows))
		err := s.of.Find(connector.Uncounted(ctx), rows, func(i int, p connector.Page) error {
			again[i] = len(p.Dead) > 0 ||
				slices.ContainsFunc(p.Records,
					func(r *record.Record) bool { return r.Version > max(rows[i].Version, s.floor) })
			return nil
		})
		if err != nil {
			return err
		}
		for i, r := range rows {
			if again[i] {
				all.Filtered++
				continue
			}
			all.Records = append(all.Records, r)
			all.Bytes += int64(r.Size())
		}
		return page(all)
	})
}

// Locate implements connector.Locator: the places of the row's entries in the manifest, which it reads.
func (s *Deleted) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	wanted := key.KeyText()
	return connector.Search(ctx, s.from, func(entry *record.Record) bool { return entry.KeyText() == wanted })
}

// restored is the row of an entry, a microsecond later than it was.
func restored(entry *record.Record, schema *record.Schema) (*record.Record, error) {
	r, err := record.DecodeRecord([]byte(entry.Get(Record).Str()))
	if err != nil {
		return nil, fmt.Errorf("the entry does not hold its row: %w", err)
	}
	if !r.Schema.Same(schema) {
		return nil, fmt.Errorf("the table has other fields than it had when the row was deleted")
	}
	r.Schema, r.Origin = schema, entry.Origin
	r.Version++
	for i := range r.Cells {
		if r.Cells[i].Version != 0 {
			r.Cells[i].Version = r.Version
		}
	}
	return r, nil
}

// Close implements connector.Source.
func (s *Deleted) Close() error {
	err := s.from.Close()
	if e := s.of.Close(); err == nil {
		err = e
	}
	return err
}
