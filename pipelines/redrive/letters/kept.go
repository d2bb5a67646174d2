package letters

import (
	"context"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Kept is, as a source, the records that the queue holds of the dead letters that a redrive has chosen. Splits are
// those of the queue; the position of a record is the id of its letter.
type Kept struct {
	list   list
	queue  connector.Source
	schema *record.Schema
}

var _ connector.Source = (*Kept)(nil)

// NewKept gives the records, all of one schema, of the letters chosen by the run that need names.
func NewKept(j journal.Config, queue connector.Source, schema *record.Schema, need connector.Need) *Kept {
	return &Kept{list: list{journal: j, run: need.Run}, queue: queue, schema: schema}
}

// Schema implements connector.Source.
func (s *Kept) Schema(context.Context) (*record.Schema, error) { return s.schema, nil }

// Close implements connector.Source.
func (s *Kept) Close() error { return s.queue.Close() }

// Plan implements connector.Source. It reads the queue through, since a letter that is
// not there must not count as sent.
func (s *Kept) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	missing, err := s.wanted(ctx)
	if err != nil {
		return err
	}
	err = s.queue.Plan(ctx, o, func(part connector.Split) error {
		err := s.queue.Read(ctx, part, func(p connector.Page) error {
			for _, r := range p.Records {
				delete(missing, r.KeyText())
			}
			return nil
		})
		if err != nil {
			return err
		}
		return split(part)
	})
	if err != nil {
		return err
	}
	for id := range missing {
		return fail.Job("redrive.not_kept", "the queue does not hold %d of the dead letters, such as %s", len(missing),
			id).
			WithFix("files and Iceberg tables hold them once the run has ended; else read the rows again, without " +
				"--kept, or choose others")
	}
	return nil
}

func (s *Kept) wanted(ctx context.Context) (map[string]bool, error) {
	all, err := s.list.load(ctx)
	ids := map[string]bool{}
	for _, c := range all {
		for id := range c.Letters {
			ids[id] = true
		}
	}
	return ids, err
}

// Read implements connector.Source.
func (s *Kept) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	wanted, err := s.wanted(ctx)
	if err != nil {
		return err
	}
	return s.queue.Read(ctx, split, func(p connector.Page) error {
		kept := connector.Page{Last: p.Last}
		for _, r := range p.Records {
			id := r.KeyText()
			if !wanted[id] {
				continue
			}
			l, err := deadletter.FromRecord(r)
			if err != nil {
				return fail.New(fail.Fatal, "redrive.damaged", "%w", err)
			}
			if l.Record == nil || !l.Record.Schema.Same(s.schema) {
				return fail.Job("redrive.schema", "dead letter %s holds a record of other fields than its step takes",
					id).
					WithFix("read the row again, without --kept")
			}
			l.Record.Schema = s.schema
			l.Record.Origin = record.Origin{Split: split.String(), Position: []byte(id)}
			kept.Records = append(kept.Records, l.Record)
			kept.Bytes += int64(l.Record.Size())
		}
		return page(kept)
	})
}
