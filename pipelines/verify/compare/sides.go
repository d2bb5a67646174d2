package compare

import (
	"context"
	"slices"
	"sync"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Sides are the two sides of a sink.
type Sides struct {
	Source      connector.Finder
	Shared, Own *transforms.Chain // of the job, and of the sink alone
	Target      connector.Finder
	View        connector.View
	Config      Config

	// Versions of the target below it were written by runs, and are no newer than what the source shows.
	Floor int64
	// Some records do not hold the key of their row at the source in fields of the same names.
	Foreign bool

	Scan func(ctx context.Context, row func(*record.Record) error) error // reads all rows of the source

	applying sync.Mutex // chains serve one record at a time
}

// match gives the comparer of both sides.
func (s *Sides) match(ctx context.Context) (*comparer, error) {
	got, err := s.Target.Schema(ctx)
	if err != nil {
		return nil, err
	}
	m, err := newComparer(s.Own.Out, got, s.View, s.Config)
	if err == nil {
		m.floor = s.Floor
	}
	return m, err
}

// Many tells whether several rows of the source may become one of the target.
func (s *Sides) Many(ctx context.Context) (bool, error) {
	m, err := s.match(ctx)
	if err != nil {
		return false, err
	}
	source, err := s.Source.Schema(ctx)
	return err == nil && (s.Foreign || m.many(source)), err
}

// made is what the job makes of a row for the sink. dead tells that a step failed: then the target may hold what it
// likes.
func (s *Sides) made(row *record.Record, emit func(*record.Record)) (dead bool, err error) {
	failed := func(_ *record.Record, step string, cause error) {
		if dead = true; fail.ClassOf(cause) == fail.Fatal {
			err = cause
		}
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	s.Shared.Apply(row.Clone(), func(r *record.Record) { s.Own.Apply(r.Clone(), emit, failed) }, failed)
	return dead, err
}

// expectations are what the job would write.
type expectations struct {
	records map[string]newest // by the form of the key at the target
	dead    map[string]bool   // rows that fail in a step, by the form of the key at the source
}

// add adds what the job makes of a row.
func (s *Sides) add(want *expectations, m *comparer, row *record.Record) error {
	if want.records == nil {
		want.records, want.dead = map[string]newest{}, map[string]bool{}
	}
	dead, err := s.made(row, func(r *record.Record) {
		key, err := m.keyOf(r)
		if err != nil {
			return // no target can hold it
		}
		r.Origin.Key = keyValues(row)
		at := keyForm(key)
		want.records[at] = want.records[at].add(r)
	})
	if dead && row.Op != record.Delete {
		want.dead[keyForm(row)] = true
	}
	return err
}

// expected is what the job would write for some rows of the source.
func (s *Sides) expected(ctx context.Context, m *comparer, rows []*record.Record) (want expectations, err error) {
	err = s.Source.Find(ctx, rows, func(_ int, p connector.Page) error {
		row, _ := latest(p)
		if row == nil {
			return nil
		}
		return s.add(&want, m, row)
	})
	return want, err
}

// scanned is what the job would write of some keys, found by reading the whole source.
func (s *Sides) scanned(ctx context.Context, m *comparer, keys map[string]bool) (expectations, error) {
	want := expectations{records: map[string]newest{}}
	err := s.Scan(ctx, func(row *record.Record) error {
		var one expectations
		err := s.add(&one, m, row)
		for at, of := range one.records {
			for _, r := range of {
				if keys[at] {
					want.records[at] = want.records[at].add(r)
				}
			}
		}
		return err
	})
	return want, err
}

// KeysIn gives the key that a record has in a target, as a record that asks for its row and as a text.
func KeysIn(want, got *record.Schema, view connector.View) (
	func(*record.Record) (*record.Record, string, error), error) {
	m, err := newComparer(want, got, view, Config{})
	if err != nil {
		return nil, err
	}
	return func(r *record.Record) (*record.Record, string, error) {
		key, err := m.keyOf(r)
		if err != nil {
			return nil, "", err
		}
		return key, m.keyText(key), nil
	}, nil
}

// Inverse are the fields of the target that may hold the key of the source, in its order; ok is false where one is
// missing or of another type. Whether they do hold it the records tell (Found.Foreign).
func Inverse(source, want, got *record.Schema, view connector.View) (names []string, ok bool) {
	for _, k := range source.Key {
		f := source.Fields[k]
		name := f.Name
		if other, renamed := view.Names[name]; renamed {
			name = other
		}
		i, j := want.Index(f.Name), got.Index(name)
		if i < 0 || j < 0 || slices.Contains(view.Leave, f.Name) || !want.Fields[i].Type.Same(f.Type) {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

// asked is a list of distinct keys.
type asked struct {
	keys []*record.Record
	at   map[string]int
}

// ask gives the place of a key in the list.
func (a *asked) ask(key *record.Record) int {
	form := keyForm(key)
	if a.at == nil {
		a.at = map[string]int{}
	}
	i, ok := a.at[form]
	if !ok {
		i = len(a.keys)
		a.at[form] = i
		a.keys = append(a.keys, key)
	}
	return i
}
