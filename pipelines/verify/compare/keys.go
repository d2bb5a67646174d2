package compare

import (
	"context"
	"fmt"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Keys is the sink of the direction from target to source; its records are keys of the target. Without sides it only
// counts them. With sides it asks the source for the rows that the keys of some segments were made of: a key that the
// job would not write counts as written, as what is to be committed; the others are unchanged.
type Keys struct {
	sides    *Sides
	inverse  []string // fields that hold the key of the source
	segments []uint16 // in order
}

var (
	_ connector.Sink      = (*Keys)(nil)
	_ connector.Committer = (*Keys)(nil)
)

// NewTally gives a sink that counts keys.
func NewTally() *Keys { return &Keys{} }

// NewExtras gives a sink that looks for keys without a row at the source. inverse names the fields of its records
// that hold the source's key.
func NewExtras(sides *Sides, inverse []string, segments []uint16) *Keys {
	return &Keys{sides: sides, inverse: inverse, segments: segments}
}

// Prepare implements connector.Sink.
func (s *Keys) Prepare(ctx context.Context, _ connector.Run, schema *record.Schema, _ bool) error {
	_, err := s.look(ctx, schema)
	return err
}

// Open implements connector.Sink.
func (s *Keys) Open(ctx context.Context, _ connector.Run, schema *record.Schema, settle connector.Settle) (
	connector.Writer, error) {
	look, err := s.look(ctx, schema)
	if err != nil {
		return nil, err
	}
	return newWriter(ctx, settle, look), nil
}

// Commit implements connector.Committer.
func (s *Keys) Commit(_ context.Context, _ connector.Run, _ *record.Schema, parts [][]byte) (int64, error) {
	return committed(parts)
}

// Close implements connector.Sink.
func (s *Keys) Close() error {
	if s.sides == nil {
		return nil
	}
	s.sides.Source.Close()
	return s.sides.Target.Close()
}

func (s *Keys) look(ctx context.Context, schema *record.Schema) (look, error) {
	if s.sides == nil {
		return tally, nil
	}
	m, err := s.sides.match(ctx)
	if err != nil {
		return nil, err
	}
	source, err := s.sides.Source.Schema(ctx)
	if err != nil {
		return nil, err
	}
	var fields []int
	for _, name := range s.inverse {
		i := schema.Index(name)
		if i < 0 {
			return nil, fail.New(fail.Fatal, "internal.no_inverse", "the target has no field %q", name)
		}
		fields = append(fields, i)
	}
	return func(ctx context.Context, batch []*record.Record) ([]connector.Result, *Found, error) {
		return s.extras(ctx, m, source, fields, batch)
	}, nil
}

func allUnchanged(batch []*record.Record) []connector.Result {
	ended := make([]connector.Result, len(batch))
	for i, r := range batch {
		ended[i] = connector.Result{Record: r, Outcome: record.Unchanged, Attempts: 1}
	}
	return ended
}

func tally(_ context.Context, batch []*record.Record) ([]connector.Result, *Found, error) {
	found := &Found{Tally: Tally{}}
	for _, r := range batch {
		if r.Op != record.Delete {
			found.Tally.Add(r)
		}
	}
	return allUnchanged(batch), found, nil
}

func (s *Keys) extras(ctx context.Context, m *comparer, source *record.Schema, fields []int, batch []*record.Record) (
	[]connector.Result, *Found, error) {
	found := &Found{}
	ended := allUnchanged(batch)
	rows := asked{}
	of := make([]*record.Record, len(batch)) // the source's row; nil: not asked for
	for i, r := range batch {
		if _, in := slices.BinarySearch(s.segments, segmentOf(keyForms(r))); !in || r.Op == record.Delete {
			continue
		}
		key := make([]record.Value, len(fields))
		null := false
		for k, f := range fields {
			key[k] = r.Values[f]
			null = null || key[k].IsNull()
		}
		of[i] = keyRecord(source, key)
		if !null {
			rows.ask(of[i])
		}
	}
	if len(rows.keys) == 0 && !slices.ContainsFunc(of, func(r *record.Record) bool { return r != nil }) {
		return ended, found, nil
	}
	want, err := s.sides.expected(ctx, m, rows.keys)
	if err != nil {
		return nil, nil, fmt.Errorf("looking rows up at the source: %w", err)
	}
	for i, r := range batch {
		if of[i] == nil {
			continue
		}
		if !want.dead[keyForm(of[i])] && !want.records[keyForm(r)].written() {
			ended[i].Outcome = record.Written
			found.Wrong++
			found.Suspects = append(found.Suspects, Suspect{Kind: Extra, Key: encodeKey(keyValues(r)),
				Source: encodeKey(keyValues(of[i]))})
		}
	}
	return ended, found, nil
}

// Unexpected is the same sink where the keys of the target do not tell the rows that they were made of: expected
// finds the keys that the job would write. A row of a newer version than the job would write is one that it would
// not.
type Unexpected struct {
	expected connector.Finder
	segments []uint16
}

var (
	_ connector.Sink      = (*Unexpected)(nil)
	_ connector.Committer = (*Unexpected)(nil)
)

// NewUnexpected gives the sink.
func NewUnexpected(expected connector.Finder, segments []uint16) *Unexpected {
	return &Unexpected{expected: expected, segments: segments}
}

// Prepare implements connector.Sink.
func (s *Unexpected) Prepare(ctx context.Context, _ connector.Run, _ *record.Schema, _ bool) error {
	_, err := s.expected.Schema(ctx)
	return err
}

// Open implements connector.Sink.
func (s *Unexpected) Open(ctx context.Context, _ connector.Run, _ *record.Schema, settle connector.Settle) (
	connector.Writer, error) {
	return newWriter(ctx, settle, s.look), nil
}

// Commit implements connector.Committer.
func (s *Unexpected) Commit(_ context.Context, _ connector.Run, _ *record.Schema, parts [][]byte) (int64, error) {
	return committed(parts)
}

// Close implements connector.Sink.
func (s *Unexpected) Close() error { return s.expected.Close() }

func (s *Unexpected) look(ctx context.Context, batch []*record.Record) ([]connector.Result, *Found, error) {
	found, ended := &Found{}, allUnchanged(batch)
	var keys []*record.Record
	var at []int
	for i, r := range batch {
		if _, in := slices.BinarySearch(s.segments, segmentOf(keyForms(r))); in && r.Op != record.Delete {
			keys, at = append(keys, r), append(at, i)
		}
	}
	err := s.expected.Find(ctx, keys, func(i int, p connector.Page) error {
		if w, _ := latest(p); w == nil || w.Op == record.Delete || w.Version > 1 && keys[i].Version > w.Version {
			ended[at[i]].Outcome = record.Written
			found.Wrong++
			found.Suspects = append(found.Suspects, Suspect{Kind: Extra, Key: encodeKey(keyValues(keys[i]))})
		}
		return nil
	})
	return ended, found, err
}

// Made is, as a source, the keys in some segments of the target that the job would write.
type Made struct {
	Sides    *Sides
	From     connector.Source
	Segments []uint16
}

// Schema implements connector.Source: the key of the target alone.
func (s *Made) Schema(ctx context.Context) (*record.Schema, error) {
	got, err := s.Sides.Target.Schema(ctx)
	if err != nil {
		return nil, err
	}
	var fields []record.Field
	for _, k := range got.Key {
		fields = append(fields, got.Fields[k])
	}
	return record.NewSchema(fields, got.KeyNames()...)
}

// Plan implements connector.Source.
func (s *Made) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	return s.From.Plan(ctx, o, split)
}

// Read implements connector.Source.
func (s *Made) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	m, err := s.Sides.match(ctx)
	if err != nil {
		return err
	}
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	return s.From.Read(ctx, split, func(p connector.Page) error {
		var want expectations
		for _, row := range p.Records {
			if err := s.Sides.add(&want, m, row); err != nil {
				return err
			}
		}
		keys := connector.Page{Last: p.Last, Bytes: p.Bytes}
		for _, of := range want.records {
			r := of[0]
			key, err := m.keyOf(r)
			if err != nil {
				return err
			}
			if _, in := slices.BinarySearch(s.Segments, segmentOf(keyForms(key))); in {
				keys.Records = append(keys.Records, &record.Record{Schema: schema, Values: keyValues(key),
					Version: r.Version, Op: r.Op})
			}
		}
		return page(keys)
	})
}

// Close implements connector.Source.
func (s *Made) Close() error { return nil }
