package deadletter

import (
	"context"
	"strings"
	"sync"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Rows is, as a source, the rows of dead letters that a redrive has chosen, as they are now at the source where they came from. A
// partition is the letters of one sink, a position the key of a row. A row that is gone is a dead letter of code CodeGone.
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

// Schema implements connector.Source.
func (s *Rows) Schema(ctx context.Context) (*record.Schema, error) {
	if _, ok := s.of.(connector.Finder); !ok {
		return nil, fail.Job("redrive.no_finder", "this source cannot find single rows by their keys").
			WithFix("send the records again that the queue holds: reprise redrive RUN --kept")
	}
	return s.of.Schema(ctx)
}

// Close implements connector.Source.
func (s *Rows) Close() error { return s.of.Close() }

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
		values, err := schema.ParseKey(c.Key)
		if err != nil {
			return fail.Job("redrive.key", "the rows of these dead letters cannot be found: %w", err).
				WithFix("send the records again that the queue holds: reprise redrive RUN --kept")
		}
		keys = append(keys, &record.Record{Schema: schema, Values: values, Origin: record.Origin{Split: name, Position: position}})
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
			p.Dead = []*record.DeadLetter{{Class: fail.Permanent.String(), Code: CodeGone, Message: "the row is gone at the source; it is not brought back"}}
		}
		for _, l := range p.Dead {
			if l.Record == nil {
				l.Record = keys[i]
			}
		}
		all.Records, all.Dead, all.Bytes = append(all.Records, p.Records...), append(all.Dead, p.Dead...), all.Bytes+p.Bytes
		all.Filtered += p.Filtered
		return nil
	})
	return all, err
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
