package compare

import (
	"context"
	"fmt"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Check is the sink of the direction from source to target: it looks each record up in the target and compares the
// two. A record that the target holds is unchanged; one that it does not hold so counts as written, as what is to be
// committed. Where several rows of the source may become one of the target, a record may also have lost to a newer
// one: then it is unchanged, and its key is not counted, so that the direction from target to source asks for the
// newer one.
type Check struct {
	target connector.Finder
	view   connector.View
	config Config
	source *record.Schema // of the rows that the records were made of
}

var (
	_ connector.Sink      = (*Check)(nil)
	_ connector.Committer = (*Check)(nil)
)

// NewCheck gives the sink. source needs its key alone.
func NewCheck(target connector.Finder, view connector.View, c Config, source *record.Schema) *Check {
	return &Check{target: target, view: view, config: c, source: source}
}

// Prepare implements connector.Sink: it matches the fields of both sides, and writes nothing.
func (s *Check) Prepare(ctx context.Context, _ connector.Run, schema *record.Schema, _ bool) error {
	_, err := s.checker(ctx, schema)
	return err
}

// Open implements connector.Sink.
func (s *Check) Open(ctx context.Context, run connector.Run, schema *record.Schema, settle connector.Settle) (
	connector.Writer, error) {
	c, err := s.checker(ctx, schema)
	if err != nil {
		return nil, err
	}
	c.floor = run.Floor
	return newWriter(ctx, settle, c.look), nil
}

// Commit implements connector.Committer. What was found lies in the journal already.
func (s *Check) Commit(_ context.Context, _ connector.Run, _ *record.Schema, parts [][]byte) (int64, error) {
	return committed(parts)
}

// Close implements connector.Sink.
func (s *Check) Close() error { return s.target.Close() }

func (s *Check) checker(ctx context.Context, schema *record.Schema) (*checker, error) {
	got, err := s.target.Schema(ctx)
	if err != nil {
		return nil, err
	}
	m, err := newComparer(schema, got, s.view, s.config)
	if err != nil {
		return nil, err
	}
	c := &checker{comparer: m, target: s.target, many: m.many(s.source)}
	for _, k := range s.source.Key {
		f := s.source.Fields[k]
		i := schema.Index(f.Name)
		c.inverse = append(c.inverse, i)
		c.inverseTypes = append(c.inverseTypes, f.Type)
		c.foreign = c.foreign || i < 0
	}
	return c, nil
}

// checker looks at the records of one bundle.
type checker struct {
	*comparer
	target       connector.Finder
	inverse      []int // fields that may hold the key of the source
	inverseTypes []record.Type
	foreign      bool // they are not there
	many         bool // several rows of the source may become one of the target
}

func (c *checker) look(ctx context.Context, batch []*record.Record) ([]connector.Result, *Found, error) {
	found := &Found{Tally: Tally{}}
	ended := make([]connector.Result, len(batch))
	asked := asked{}
	place := make([]int, len(batch))
	for i, r := range batch {
		ended[i] = connector.Result{Record: r, Outcome: record.Unchanged, Attempts: 1}
		key, err := c.keyOf(r)
		if err != nil {
			place[i] = -1
			ended[i].Outcome, ended[i].Err = record.Dead, fail.New(fail.Permanent, "verify.key",
				"no target can hold the record: %w", err)
			continue
		}
		key.Origin = r.Origin
		place[i] = asked.ask(key)
		if c.foreign || !c.holdsKey(r) {
			found.Foreign++
		}
	}
	got := make([]connector.Page, len(asked.keys))
	err := c.target.Find(ctx, asked.keys, func(i int, p connector.Page) error {
		got[i] = p
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("looking rows up in the target: %w", err)
	}
	want := make([]newest, len(asked.keys))
	for i, r := range batch {
		if at := place[i]; at >= 0 {
			want[at] = want[at].add(r)
		}
	}
	wrong := make([]bool, len(asked.keys))
	for at, key := range asked.keys {
		v := c.compare(want[at], got[at])
		row, bad := latest(got[at])
		if c.many && v.kind == Newer {
			continue
		}
		if row != nil && row.Op != record.Delete || bad != nil {
			found.Tally.Add(key)
		}
		if wrong[at] = v.kind != ""; wrong[at] {
			found.Suspects = append(found.Suspects, Suspect{Kind: v.kind, Key: encodeKey(keyValues(key)),
				Source: encodeKey(want[at][0].Origin.Key), Digest: v.digest[:]})
		}
	}
	for i, at := range place {
		if at >= 0 && wrong[at] {
			ended[i].Outcome = record.Written
			found.Wrong++
		}
	}
	return ended, found, nil
}

// holdsKey tells whether the record holds the key of its row in fields of the same names.
func (c *checker) holdsKey(r *record.Record) bool {
	for i, k := range r.Origin.Key {
		v := r.Values[c.inverse[i]]
		if !v.Equal(k) && string(appendForm(nil, v, c.inverseTypes[i])) != string(appendForm(nil, k,
			c.inverseTypes[i])) {
			return false
		}
	}
	return true
}
