package verify

import (
	"context"
	"fmt"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Keys is the sink of the direction from target to source; its records are keys of the target. Without sides it only counts them. With sides
// it asks the source for the rows that the keys of some segments were made of: a key that the job would not write counts as written, as what
// is to be committed; the others are unchanged.
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

// NewExtras gives a sink that looks for keys without a row at the source. inverse names the fields of its records that hold the source's key.
func NewExtras(sides *Sides, inverse []string, segments []uint16) *Keys {
	return &Keys{sides: sides, inverse: inverse, segments: segments}
}

// Prepare implements connector.Sink.
func (s *Keys) Prepare(ctx context.Context, _ connector.Run, schema *record.Schema, _ bool) error {
	_, err := s.look(ctx, schema)
	return err
}

// Open implements connector.Sink.
func (s *Keys) Open(ctx context.Context, _ connector.Run, schema *record.Schema, settle connector.Settle) (connector.Writer, error) {
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

func (s *Keys) extras(ctx context.Context, m *comparer, source *record.Schema, fields []int, batch []*record.Record) ([]connector.Result, *Found, error) {
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
		if w := want[keyForm(r)]; w == nil || w.Op == record.Delete {
			ended[i].Outcome = record.Written
			found.Wrong++
			found.Suspects = append(found.Suspects, Suspect{Kind: Extra, Key: encodeKey(keyValues(r)), Source: encodeKey(keyValues(of[i]))})
		}
	}
	return ended, found, nil
}
