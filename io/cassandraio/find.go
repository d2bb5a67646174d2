package cassandraio

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var (
	_ connector.Finder  = (*Source)(nil)
	_ connector.Partial = (*Source)(nil)
)

// Partial implements connector.Partial: rows are found wherever they lie.
func (s *Source) Partial() bool {
	c := s.config
	return len(c.Partitions) > 0 || c.IDs != nil || c.Buckets != nil && !c.Buckets.Discover
}

// finders is how many rows are looked up at once.
const finders = 8

// Find implements connector.Finder.
func (s *Source) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	o, err := s.open(ctx, connector.DefaultRetry.Deadline)
	if err != nil {
		return err
	}
	layout := newLayout(o.table, true)
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var giving sync.Mutex
	for range min(finders, len(keys)) {
		group.Go(func() error {
			d := newRowDecoder(layout, "", nil, o.config.MaxRow.Or(defaultMaxRow))
			for {
				i := int(next.Add(1)) - 1
				if i >= len(keys) {
					return nil
				}
				p, err := o.find(ctx, d, keys[i])
				if err != nil {
					return err
				}
				giving.Lock()
				err = found(i, p)
				giving.Unlock()
				if err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// find looks one row up.
func (o *tableSource) find(ctx context.Context, d *rowDecoder, key *record.Record) (p connector.Page, err error) {
	s, err := o.table.keyScan(key)
	if err != nil {
		return deadKey(key, fail.New(fail.Permanent, "cassandra.bad_key", "the row cannot be looked up: %w", err)), nil
	}
	size := &pageSize{target: math.MaxInt64, most: mostRows, passes: true}
	size.limit.Store(1)
	a, err := o.request(ctx, d.list, s, nil, size)
	if errors.As(err, &stuck{}) {
		return deadKey(key, errUnreadable(err)), nil
	}
	if err != nil {
		return p, err
	}
	d.origin = key.Origin
	for a.iter.Scan(d.dest...) {
		o.decoded.Add(d.size())
		if d.isRow() {
			d.add(&p, a.sent.Unix())
		}
	}
	return p, classify(a.iter.Close())
}

// keyScan reads the row with the key of a record.
func (t *table) keyScan(key *record.Record) (scan, error) {
	b := &binder{data: []byte{}}
	var where []byte
	for _, c := range t.keysOnly().columns {
		v := key.Get(c.name)
		if v.IsNull() {
			return scan{}, errors.New("the key field " + c.name + " has no value")
		}
		if where != nil {
			where = append(where, " AND "...)
		}
		where = append(append(where, c.quoted...), " = "...)
		var err error
		if where, err = b.term(where, c.typ, v); err != nil {
			return scan{}, err
		}
	}
	return scan{where: string(where), args: b.args}, nil
}

// deadKey is a dead letter for a row of which only the key is known.
func deadKey(key *record.Record, err *fail.Error) connector.Page {
	only := &record.Record{Schema: key.Schema, Values: slices.Clone(key.Values)}
	for i := range only.Values {
		if !slices.Contains(key.Schema.Key, i) {
			only.Values[i] = record.Value{}
		}
	}
	return connector.Page{Dead: []*record.DeadLetter{{Raw: only.AppendJSON(nil), Class: err.Class.String(), Code: err.Code, Message: err.Error(), Attempts: 1}}}
}
