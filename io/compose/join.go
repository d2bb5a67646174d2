package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Side is a table whose fields a Join adds.
type Side struct {
	Name      string
	Of        connector.Source  // a Finder, unless Broadcast
	On        map[string]string // field of the row → field of the table's key; all of its key
	Fields    map[string]string // new field → field of the table
	Missing   string            // MissingEmpty, MissingDead or MissingFilter
	Broadcast bool              // the table is read once into memory
	Memory    int64             // bytes that it may take there
	Cache     int64             // bytes of rows that are kept after they were looked up
	CacheFor  time.Duration     // for how long
}

// Join is a source with fields of other tables added to each row. Each table is looked up by its key, once for each key
// of a page, or held in memory. A row whose key field is null has no row in the table. Deletes get no fields.
//
// Records keep version and expiry of the row: what is written in the table later makes no newer version, so that a live
// write of the row still wins at every sink.
type Join struct {
	of    connector.Source
	sides []*side

	mu     sync.Mutex
	schema *record.Schema
}

// side is a Side at work.
type side struct {
	Side
	schema *record.Schema // of the table
	keying keying
	places []int // of the joined fields, in the table
	at     int   // of the first of them, in the joined record
	cache  *cache
	whole  *whole
}

// joinFinder is a Join with a Finder.
type joinFinder struct{ *Join }

var (
	_ connector.Explainer = (*Join)(nil)
	_ connector.Locator   = (*Join)(nil)
	_ connector.Finder    = (*joinFinder)(nil)
	_ connector.Partial   = (*joinFinder)(nil)
)

// NewJoin gives a source, which is a Finder if of is one.
func NewJoin(of connector.Source, sides ...Side) connector.Source {
	j := &Join{of: of}
	for _, s := range sides {
		x := &side{Side: s}
		if s.Broadcast {
			x.whole = newWhole(s.Name, s.Of, s.Memory)
		} else {
			x.cache = newCache(s.Cache, s.CacheFor)
		}
		j.sides = append(j.sides, x)
	}
	slices.SortFunc(j.sides, func(a, b *side) int { return cmp.Compare(a.Name, b.Name) })
	if _, ok := of.(connector.Finder); ok {
		return &joinFinder{j}
	}
	return j
}

// Schema implements connector.Source: the fields of the source, then those of the tables by the tables' names and their
// own.
func (s *Join) Schema(ctx context.Context) (*record.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schema != nil {
		return s.schema, nil
	}
	of, err := s.of.Schema(ctx)
	if err != nil {
		return nil, err
	}
	fields := slices.Clone(of.Fields)
	var faults []string
	for _, x := range s.sides {
		if x.schema, err = x.Of.Schema(ctx); err != nil {
			return nil, fmt.Errorf("the table %s: %w", x.Name, err)
		}
		more, wrong := x.fit(of)
		for _, f := range more {
			if slices.ContainsFunc(fields, func(known record.Field) bool { return known.Name == f.Name }) {
				wrong = append(wrong, fmt.Sprintf("there is a field %q already", f.Name))
			}
		}
		for _, w := range wrong {
			faults = append(faults, x.Name+": "+w)
		}
		x.at = len(fields)
		fields = append(fields, more...)
	}
	if len(faults) > 0 {
		return nil, fail.Job("join.fields", "the join does not fit: %s", strings.Join(faults, "; ")).
			WithFix("on names, for each field of the table's key, the field of the row with its value; fields gives " +
				"new names to fields of the table")
	}
	s.schema, err = record.NewSchema(fields, of.KeyNames()...)
	return s.schema, err
}

// fit finds the fields of key and table, and gives the new fields.
func (x *side) fit(of *record.Schema) (fields []record.Field, faults []string) {
	by := map[string]string{}
	for _, field := range slices.Sorted(maps.Keys(x.On)) {
		key := x.On[field]
		if !slices.Contains(x.schema.KeyNames(), key) {
			faults = append(faults, fmt.Sprintf("%q is not a field of the table's key, which is %s", key,
				strings.Join(x.schema.KeyNames(), ", ")))
		}
		by[key] = field
	}
	for _, key := range x.schema.KeyNames() {
		if by[key] == "" {
			faults = append(faults, fmt.Sprintf("on does not name the field %q of the table's key", key))
		}
	}
	if len(faults) == 0 {
		x.keying, faults = newKeying(of, x.schema, func(key string) string { return by[key] })
	}
	x.places = nil
	for _, name := range slices.Sorted(maps.Keys(x.Fields)) {
		at := x.schema.Index(x.Fields[name])
		if at < 0 {
			faults = append(faults, fmt.Sprintf("the table has no field %q; there are %s", x.Fields[name],
				strings.Join(x.schema.Names(), ", ")))
			continue
		}
		x.places = append(x.places, at)
		fields = append(fields, record.Field{Name: name, Type: x.schema.Fields[at].Type})
	}
	return fields, faults
}

// Close implements connector.Source.
func (s *Join) Close() error {
	all := []error{s.of.Close()}
	for _, x := range s.sides {
		all = append(all, x.Of.Close())
	}
	return errors.Join(all...)
}

// Plan implements connector.Source. It refuses tables that are too large to be held in memory.
func (s *Join) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	if _, err := s.Schema(ctx); err != nil {
		return err
	}
	for _, x := range s.sides {
		if x.whole != nil {
			if err := x.whole.check(ctx); err != nil {
				return err
			}
		}
	}
	return s.of.Plan(ctx, o, split)
}

// Explain implements connector.Explainer.
func (s *Join) Explain() []string {
	lines := explain("", s.of)
	for _, x := range s.sides {
		if x.whole != nil {
			lines = append(lines, fmt.Sprintf("with %s: about %s are read into the memory of each worker, at most %s",
				x.Name, connector.HumanBytes(x.whole.planned.Load()), connector.HumanBytes(x.Memory)))
		} else {
			lines = append(lines, fmt.Sprintf("with %s: rows are looked up by key; %s of them are kept for %s", x.Name,
				connector.HumanBytes(x.Cache), x.CacheFor))
		}
	}
	return lines
}

// Read implements connector.Source.
func (s *Join) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	return s.of.Read(ctx, split, func(p connector.Page) error {
		if err := s.join(ctx, schema, []*connector.Page{&p}); err != nil {
			return err
		}
		return page(p)
	})
}

// Partial implements connector.Partial.
func (s *joinFinder) Partial() bool { return Rival(s.of) != nil }

// Follower is the source, where that goes on: splits and positions are its.
func (s *Join) Follower() (connector.Follower, bool) { return connector.FollowerOf(s.of) }

// Locate implements connector.Locator, where the source does.
func (s *Join) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	of, err := s.of.Schema(ctx)
	if err != nil {
		return nil, err
	}
	return connector.Locate(ctx, s.of, own(of, key))
}

// own is a record as its source has it, without the fields of the tables.
func own(of *record.Schema, r *record.Record) *record.Record {
	return &record.Record{Schema: of, Values: r.Values[:len(of.Fields):len(of.Fields)], Origin: r.Origin}
}

// Find implements connector.Finder.
func (s *joinFinder) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	of, err := s.of.Schema(ctx)
	if err != nil {
		return err
	}
	plain := make([]*record.Record, len(keys))
	for i, key := range keys {
		plain[i] = own(of, key)
	}
	// All at once, so that each table is asked once for each key.
	pages := make([]*connector.Page, len(keys))
	err = s.of.(connector.Finder).Find(ctx, plain, func(i int, p connector.Page) error {
		pages[i] = &p
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.join(ctx, schema, pages); err != nil {
		return err
	}
	for i, p := range pages {
		if err := found(i, *p); err != nil {
			return err
		}
	}
	return nil
}

// join adds the fields to the records of some pages.
func (s *Join) join(ctx context.Context, schema *record.Schema, pages []*connector.Page) error {
	var records []*record.Record // that look for rows
	for _, p := range pages {
		for _, r := range p.Records {
			extend(r, schema)
			if r.Op == record.Upsert {
				records = append(records, r)
			}
		}
		for _, l := range p.Dead {
			if l.Record != nil {
				extend(l.Record, schema)
			}
		}
	}
	dead := map[*record.Record]*record.DeadLetter{}
	filtered := map[*record.Record]bool{}
	for _, x := range s.sides {
		rows, err := x.rows(ctx, records)
		if err != nil {
			return err
		}
		left := records[:0:0]
		for i, r := range records {
			row := rows[i]
			switch {
			case row.dead != nil:
				dead[r] = &record.DeadLetter{Record: r, Class: row.dead.Class, Code: row.dead.Code,
					Message: "the table " + x.Name + ": " + row.dead.Message, Attempts: 1}
				continue
			case row.values == nil && x.Missing == MissingDead:
				dead[r] = &record.DeadLetter{Record: r, Class: fail.Permanent.String(), Code: "join.missing",
					Message: "the table " + x.Name + " has no row for it", Attempts: 1}
				continue
			case row.values == nil && x.Missing == MissingFilter:
				filtered[r] = true
				continue
			}
			copy(r.Values[x.at:], row.values)
			left = append(left, r)
		}
		records = left
	}
	for _, p := range pages {
		kept := p.Records[:0]
		for _, r := range p.Records {
			switch {
			case dead[r] != nil:
				p.Dead = append(p.Dead, dead[r])
			case filtered[r]:
				p.Filtered++
			default:
				kept = append(kept, r)
			}
			for _, v := range r.Values[s.sides[0].at:] {
				p.Bytes += int64(v.Size())
			}
		}
		clear(p.Records[len(kept):])
		p.Records = kept
	}
	return nil
}

// extend gives a record the joined fields: without a value yet, and never with one in a delete.
func extend(r *record.Record, schema *record.Schema) {
	n := len(r.Values)
	values := make([]record.Value, len(schema.Fields))
	copy(values, r.Values)
	if r.Op == record.Upsert {
		for i := n; i < len(values); i++ {
			values[i] = record.NullValue
		}
	}
	if r.Cells != nil {
		cells := make([]record.Cell, len(values))
		for i := copy(cells, r.Cells); i < len(cells); i++ {
			cells[i] = record.Cell{Version: r.Version, Expires: r.Expires}
		}
		r.Cells = cells
	}
	r.Schema, r.Values = schema, values
}

// rows are the rows of the table for some records.
func (x *side) rows(ctx context.Context, records []*record.Record) ([]*row, error) {
	rows := make([]*row, len(records))
	keys := map[string]*record.Record{}
	texts := make([]string, len(records))
	for i, r := range records {
		key, err := x.keying.key(r)
		switch {
		case err != nil:
			rows[i] = &row{dead: &record.DeadLetter{Class: fail.Permanent.String(), Code: "join.no_key",
				Message: err.Error()}}
		case key == nil:
			rows[i] = &row{}
		default:
			texts[i] = key.KeyText()
			keys[texts[i]] = key
		}
	}
	known, err := x.known(ctx, keys)
	if err != nil {
		return nil, err
	}
	for i, text := range texts {
		if rows[i] == nil {
			rows[i] = known[text]
		}
		if rows[i] == nil {
			rows[i] = &row{}
		}
	}
	return rows, nil
}

// known are the rows with some keys: all that there are in memory, or those looked up.
func (x *side) known(ctx context.Context, keys map[string]*record.Record) (map[string]*row, error) {
	if x.whole != nil {
		return x.whole.load(ctx, x.places)
	}
	known := make(map[string]*row, len(keys))
	var asked []*record.Record
	var texts []string
	now := time.Now()
	for text, key := range keys {
		if r := x.cache.get(text, now); r != nil {
			known[text] = r
		} else {
			asked, texts = append(asked, key), append(texts, text)
		}
	}
	err := find(ctx, x.Of.(connector.Finder), asked, func(i int, p connector.Page) error {
		r := pick(texts[i], p.Records, x.places)
		if len(p.Dead) > 0 {
			r.dead = p.Dead[0]
		}
		r.at = now
		known[texts[i]] = r
		x.cache.put(texts[i], r)
		return nil
	})
	return known, err
}
