package letters

import (
	"context"
	"slices"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Rows is, as a source, the rows of dead letters that a redrive has chosen, as they are now at the source where they
// came from: looked up by their keys or, those that have none, read at their places. A partition is the letters of one
// sink, a position the key or the name of the place. A row that is gone is a dead letter of code CodeGone.
//
// Each record has its own position, not that of its page: so the letters of the redrive tell which rows failed again.
type Rows struct {
	list list
	of   connector.Source
	page int // rows
}

var _ connector.Source = (*Rows)(nil)

// NewRows gives the rows of the letters chosen by the run that need names.
func NewRows(j journal.Config, of connector.Source, need connector.Need) *Rows {
	s := &Rows{list: list{journal: j, run: need.Run}, of: of, page: 100}
	if need.PageRows > 0 {
		s.page = min(s.page, need.PageRows)
	}
	return s
}

// Check refuses rows that are to be looked up in a source that cannot.
func (s *Rows) Check(choices []Choice) error {
	_, ok := s.of.(connector.Finder)
	if !ok && slices.ContainsFunc(choices, func(c Choice) bool { return c.Place == nil }) {
		return fail.Job("redrive.no_finder", "this source cannot find single rows by their keys").
			WithFix("send the records again that the queue holds: reprise redrive RUN --kept; rows that were never " +
				"decoded can be read again: --step source")
	}
	return nil
}

// Schema implements connector.Source.
func (s *Rows) Schema(ctx context.Context) (*record.Schema, error) { return s.of.Schema(ctx) }

// Close implements connector.Source.
func (s *Rows) Close() error { return s.of.Close() }

// Finder gives what finds the rows; see connector.FinderOf.
func (s *Rows) Finder() (connector.Finder, bool) { return connector.FinderOf(s.of) }

const partitionLetters = "letters"

// Plan implements connector.Source.
func (s *Rows) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	all, err := s.list.load(ctx)
	if err != nil {
		return err
	}
	for i := 0; i < len(all); {
		next := connector.Split{Partition: partitionLetters}
		sink := all[i].Sink
		if sink != "" {
			next.Partition += "/" + sink
			next.Sinks = []string{sink}
		}
		for i < len(all) && all[i].Sink == sink {
			if next.Rows++; o.Rows > 0 && next.Rows >= o.Rows && i+1 < len(all) && all[i+1].Sink == sink {
				next.End = []byte(all[i].Key)
				if err := split(next); err != nil {
					return err
				}
				next.Start, next.End, next.Rows = next.End, nil, 0
			}
			i++
		}
		if err := split(next); err != nil {
			return err
		}
	}
	return nil
}

// Read implements connector.Source.
func (s *Rows) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	all, err := s.list.load(ctx)
	if err != nil {
		return err
	}
	schema, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	_, sink, _ := strings.Cut(split.Partition, "/")
	var keys []*record.Record
	read := func() error {
		p, err := s.find(ctx, keys)
		if err != nil {
			return err
		}
		p.Last = keys[len(keys)-1].Origin.Position
		keys = nil
		return page(p)
	}
	name := split.String()
	for _, c := range all {
		position := []byte(c.Key)
		if c.Sink != sink || !split.Contains(position) {
			continue
		}
		if c.Place != nil {
			if len(keys) > 0 { // pages come in order
				if err := read(); err != nil {
					return err
				}
			}
			p, err := s.at(ctx, *c.Place, record.Origin{Split: name, Position: position})
			if err != nil {
				return err
			}
			p.Last = position
			if err := page(p); err != nil {
				return err
			}
			continue
		}
		values, err := schema.ParseKey(c.Key)
		if err != nil {
			return fail.Job("redrive.key", "the rows of these dead letters cannot be found: %w", err).
				WithFix("send the records again that the queue holds: reprise redrive RUN --kept")
		}
		keys = append(keys, &record.Record{Schema: schema, Values: values,
			Origin: record.Origin{Split: name, Position: position}})
		if len(keys) == s.page {
			if err := read(); err != nil {
				return err
			}
		}
	}
	if len(keys) > 0 {
		return read()
	}
	return nil
}

// find makes a page of the rows with some keys.
func (s *Rows) find(ctx context.Context, keys []*record.Record) (all connector.Page, err error) {
	err = s.of.(connector.Finder).Find(ctx, keys, func(i int, p connector.Page) error {
		if p.Rows() == 0 {
			p.Dead = gone()
		}
		for _, l := range p.Dead {
			if l.Record == nil {
				l.Record = keys[i]
			}
			l.Record.Origin = keys[i].Origin
		}
		all.Records, all.Dead, all.Bytes = append(all.Records, p.Records...),
			append(all.Dead, p.Dead...), all.Bytes+p.Bytes
		all.Filtered += p.Filtered
		return nil
	})
	return all, err
}

// at makes a page of the row at a place.
func (s *Rows) at(ctx context.Context, place record.Place, origin record.Origin) (all connector.Page, err error) {
	err = s.of.Read(ctx, connector.Split{Partition: place.Partition, Start: place.Start, End: place.End},
		func(p connector.Page) error {
			all.Records, all.Dead = append(all.Records, p.Records...), append(all.Dead, p.Dead...)
			all.Filtered, all.Bytes = all.Filtered+p.Filtered, all.Bytes+p.Bytes
			return nil
		})
	if all.Rows() == 0 {
		all.Dead = gone()
	}
	for _, r := range all.Records {
		r.Origin = origin
	}
	for _, l := range all.Dead {
		l.Place = &place
	}
	return all, err
}

func gone() []*record.DeadLetter {
	return []*record.DeadLetter{{Class: fail.Permanent.String(), Code: CodeGone,
		Message: "the row is gone at the source; it is not brought back"}}
}

// list is the choice of a redrive, read once.
type list struct {
	journal journal.Config
	run     string

	mu  sync.Mutex
	all []Choice // nil: not read yet
}

func (l *list) load(ctx context.Context) ([]Choice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all != nil {
		return l.all, nil
	}
	j, err := journal.Open(ctx, l.journal)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	l.all, err = Choices(ctx, j, l.run)
	return l.all, err
}
