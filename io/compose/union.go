package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// skew is how far the clock of whoever writes rows may be from that of who started the run.
const skew = time.Minute

// Union is several sources of the same key as one. A partition is that of a part behind its number, from 1:
// "2/image/2024-05".
//
// Deduplicated, a row gives way to a row of the same key in another part, if that has a later version, or the same and
// stands earlier in the list: its outcome is filtered. It does so only if that row was there before the run began, by
// its version: one that was written since may lie where its part has been read already, so that nobody would read it,
// and then both come. So each key that is there when the run begins, and is not deleted while it goes on, comes at
// least once in its latest version; mostly it comes once. Where two come, the later wins at the sinks, as always. With
// equal versions the part that rows are copied from, not the one that they are copied to, should stand first.
type Union struct {
	parts       []connector.Source
	deduplicate bool
	rivals      []connector.Finder // of the parts; nil: rows do not give way to those of this part
	before      int64              // rows of earlier versions were there before the run began, microseconds since 1970

	mu    sync.Mutex
	form  *unionForm
	sizes []connector.Split // of the parts, as far as planned: their estimates added up
}

// unionForm is how the records of the parts become records of one schema.
type unionForm struct {
	schema *record.Schema
	of     []*record.Schema
	places [][]int // for each part the place of each of its fields
}

// unionFinder is a Union of Finders.
type unionFinder struct{ *Union }

var (
	_ connector.Explainer = (*Union)(nil)
	_ connector.Locator   = (*Union)(nil)
	_ connector.Finder    = (*unionFinder)(nil)
	_ connector.Partial   = (*unionFinder)(nil)
)

// NewUnion gives a source, which is a Finder if all parts are. Deduplicated, Rival must hold of all parts but the last,
// whose rows otherwise only give way themselves. started is the start of the run; where it is zero no row gives way.
func NewUnion(parts []connector.Source, deduplicate bool, started time.Time) connector.Source {
	u := &Union{parts: parts, deduplicate: deduplicate, rivals: make([]connector.Finder, len(parts))}
	if !started.IsZero() {
		u.before = started.Add(-skew).UnixMicro()
	}
	finders := true
	for i, part := range parts {
		if deduplicate && Rival(part) == nil {
			u.rivals[i] = part.(connector.Finder)
		}
		_, ok := part.(connector.Finder)
		finders = finders && ok
	}
	if finders {
		return &unionFinder{u}
	}
	return u
}

// Rival tells why rows of other sources cannot give way to those of a source; nil: they can.
func Rival(s connector.Source) error {
	if _, ok := s.(connector.Finder); !ok {
		return errors.New("it cannot find single rows by their keys")
	}
	if p, ok := s.(connector.Partial); ok && p.Partial() {
		return errors.New("it finds rows that it does not read, since its settings choose some of them")
	}
	return nil
}

// open fits the parts together.
func (s *Union) open(ctx context.Context) (*unionForm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.form != nil {
		return s.form, nil
	}
	f := &unionForm{places: make([][]int, len(s.parts))}
	var fields []record.Field
	var first []int // the part that has brought each field
	var faults []string
	for i, part := range s.parts {
		schema, err := part.Schema(ctx)
		if err != nil {
			return nil, err
		}
		f.of = append(f.of, schema)
		if key := schema.KeyNames(); !slices.Equal(key, f.of[0].KeyNames()) {
			faults = append(faults, fmt.Sprintf("the key of part %d is %s, that of part 1 is %s", i+1,
				strings.Join(key, ", "), strings.Join(f.of[0].KeyNames(), ", ")))
		}
		for _, field := range schema.Fields {
			at := slices.IndexFunc(fields, func(known record.Field) bool { return known.Name == field.Name })
			if at < 0 {
				at = len(fields)
				fields, first = append(fields, field), append(first, i)
			} else if known := fields[at].Type; !known.Same(field.Type) {
				faults = append(faults, fmt.Sprintf("the field %q is a %s in part %d, a %s in part %d", field.Name,
					field.Type, i+1, known, first[at]+1))
			}
			f.places[i] = append(f.places[i], at)
		}
	}
	if len(faults) > 0 {
		return nil, fail.Job("union.fields", "the parts of the union do not fit together: %s",
			strings.Join(faults, "; ")).
			WithFix("read those fields as one type, or leave them out")
	}
	var err error
	if f.schema, err = record.NewSchema(fields, f.of[0].KeyNames()...); err != nil {
		return nil, err
	}
	s.form = f
	return f, nil
}

// record makes a record of the union of one of a part; fields that the part does not have are Unset.
func (f *unionForm) record(part int, r *record.Record) {
	places := f.places[part]
	r.Schema = f.schema
	if len(places) == len(f.schema.Fields) && slices.IsSorted(places) {
		return
	}
	values := make([]record.Value, len(f.schema.Fields))
	for i, at := range places {
		values[at] = r.Values[i]
	}
	r.Values = values
	if r.Cells != nil {
		cells := make([]record.Cell, len(values))
		for i, at := range places {
			cells[at] = r.Cells[i]
		}
		r.Cells = cells
	}
}

// page makes the records of a part's page records of the union.
func (f *unionForm) page(part int, p *connector.Page) {
	for _, r := range p.Records {
		f.record(part, r)
	}
	for _, l := range p.Dead {
		if l.Record != nil {
			f.record(part, l.Record)
		}
	}
}

// keys are the keys of some records, in the schema of a part.
func (f *unionForm) keys(part int, of []*record.Record) []*record.Record {
	schema := f.of[part]
	keys := make([]*record.Record, len(of))
	for i, r := range of {
		keys[i] = &record.Record{Schema: schema, Values: make([]record.Value, len(schema.Fields)), Origin: r.Origin}
		for n, k := range schema.Key {
			keys[i].Values[k] = r.Values[r.Schema.Key[n]]
		}
	}
	return keys
}

// Schema implements connector.Source: the fields of the first part, then what others have more.
func (s *Union) Schema(ctx context.Context) (*record.Schema, error) {
	f, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return f.schema, nil
}

// Close implements connector.Source.
func (s *Union) Close() error {
	var all []error
	for _, part := range s.parts {
		all = append(all, part.Close())
	}
	return errors.Join(all...)
}

// Plan implements connector.Source.
func (s *Union) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	if _, err := s.open(ctx); err != nil {
		return err
	}
	sizes := make([]connector.Split, len(s.parts))
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sizes = sizes
	}()
	for i, part := range s.parts {
		err := part.Plan(ctx, o, func(x connector.Split) error {
			sizes[i].Rows, sizes[i].Bytes = sizes[i].Rows+x.Rows, sizes[i].Bytes+x.Bytes
			x.Partition = numbered(i, x.Partition)
			return split(x)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// numbered is the name of a part's partition in the union.
func numbered(part int, partition string) string { return strconv.Itoa(part+1) + "/" + partition }

// Locate implements connector.Locator, where all parts do: the places of the row in each of them.
func (s *Union) Locate(ctx context.Context, key *record.Record) (places []connector.Split, err error) {
	f, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	for i, part := range s.parts {
		at, err := connector.Locate(ctx, part, f.keys(i, []*record.Record{key})[0])
		if err != nil {
			return nil, fmt.Errorf("part %d of the union: %w", i+1, err)
		}
		for _, place := range at {
			place.Partition = numbered(i, place.Partition)
			places = append(places, place)
		}
	}
	return places, nil
}

// Explain implements connector.Explainer.
func (s *Union) Explain() (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, size := range s.sizes {
		line := fmt.Sprintf("part %d: about %d rows, %s", i+1, size.Rows, connector.HumanBytes(size.Bytes))
		if s.rivals[i] != nil {
			line += "; those of other parts that it has as new or newer are filtered"
		}
		lines = append(append(lines, line), explain(fmt.Sprintf("part %d: ", i+1), s.parts[i])...)
	}
	return lines
}

// Read implements connector.Source.
func (s *Union) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	f, err := s.open(ctx)
	if err != nil {
		return err
	}
	inner := split
	number, partition, _ := strings.Cut(split.Partition, "/")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(s.parts) {
		return fail.New(fail.Fatal, "union.split", "%s is not part of the union", split).WithFix("plan the run anew")
	}
	part := n - 1
	inner.Partition = partition
	name := split.String()
	return s.parts[part].Read(ctx, inner, func(p connector.Page) error {
		if err := s.giveWay(ctx, f, part, &p); err != nil {
			return err
		}
		f.page(part, &p)
		for _, r := range p.Records {
			r.Origin.Split = name
		}
		return page(p)
	})
}

// giveWay leaves out the records of a part's page that give way to rows of other parts.
func (s *Union) giveWay(ctx context.Context, f *unionForm, part int, p *connector.Page) error {
	gone := make([]bool, len(p.Records))
	for rival, finder := range s.rivals {
		if rival == part || finder == nil {
			continue
		}
		keys := f.keys(rival, p.Records)
		err := find(ctx, finder, keys, func(i int, other connector.Page) error {
			for _, r := range other.Records {
				// A document may be found by an id that does not tell its key.
				if r.Version < s.before && later(r.Version, rival, p.Records[i].Version, part) &&
					r.KeyText() == keys[i].KeyText() {
					gone[i] = true
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	kept := p.Records[:0]
	for i, r := range p.Records {
		if gone[i] {
			p.Filtered++
			p.Bytes -= int64(r.Size())
		} else {
			kept = append(kept, r)
		}
	}
	clear(p.Records[len(kept):])
	p.Records, p.Bytes = kept, max(0, p.Bytes)
	return nil
}

// later tells whether a version of one part goes before that of another.
func later(version int64, part int, than int64, of int) bool {
	return version > than || version == than && part < of
}

// Partial implements connector.Partial.
func (s *unionFinder) Partial() bool {
	return slices.ContainsFunc(s.parts, func(part connector.Source) bool { return Rival(part) != nil })
}

// Find implements connector.Finder: of a row that several parts have it finds the latest version, without deduplication
// all.
func (s *unionFinder) Find(ctx context.Context, keys []*record.Record,
	found func(i int, p connector.Page) error) error {
	f, err := s.open(ctx)
	if err != nil {
		return err
	}
	all := make([]connector.Page, len(keys))
	for part, source := range s.parts {
		err := source.(connector.Finder).Find(ctx, f.keys(part, keys), func(i int, p connector.Page) error {
			f.page(part, &p)
			sum := &all[i]
			if s.deduplicate && len(sum.Records) > 0 && len(p.Records) > 0 {
				if latest(p.Records) <= latest(sum.Records) {
					p.Records = sum.Records
				}
				sum.Records = nil
			}
			sum.Records, sum.Dead = append(sum.Records, p.Records...), append(sum.Dead, p.Dead...)
			sum.Filtered, sum.Bytes = sum.Filtered+p.Filtered, sum.Bytes+p.Bytes
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i, p := range all {
		if err := found(i, p); err != nil {
			return err
		}
	}
	return nil
}

// latest is the highest version of some records.
func latest(records []*record.Record) (version int64) {
	for _, r := range records {
		version = max(version, r.Version)
	}
	return version
}
