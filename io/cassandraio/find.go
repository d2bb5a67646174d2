package cassandraio

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

// finders is how many requests look rows up at once, and together how many rows of one partition each asks for at most.
const (
	finders  = 8
	together = 50
)

// Find implements connector.Finder. Rows that differ in the last column of their keys alone are looked up together.
func (s *Source) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	o, err := s.open(ctx, connector.DefaultRetry.Deadline)
	if err != nil {
		return err
	}
	layout := newLayout(o.table, true)
	groups := o.table.groups(keys)
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var giving sync.Mutex
	give := func(i int, p connector.Page) error {
		giving.Lock()
		defer giving.Unlock()
		return found(i, p)
	}
	for range min(finders, len(groups)) {
		group.Go(func() error {
			d := newRowDecoder(layout, "", nil, o.config.MaxRow.Or(defaultMaxRow))
			for {
				i := int(next.Add(1)) - 1
				if i >= len(groups) {
					return nil
				}
				if err := o.findGroup(ctx, d, keys, groups[i], give); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// groups are the places of keys that are looked up by one request each.
func (t *table) groups(keys []*record.Record) (groups [][]int) {
	columns := t.keysOnly().columns
	last := columns[len(columns)-1]
	open := map[string]int{} // the group that takes more keys, by what they have in common
	for i, key := range keys {
		var common []byte
		for _, c := range columns[:len(columns)-1] {
			common = record.AppendValue(common, key.Get(c.name))
		}
		at, ok := open[string(common)]
		if !ok || len(groups[at]) == together || len(t.clustering) == 0 || last.typ.Kind == record.Tuple {
			at = len(groups)
			groups = append(groups, nil)
			open[string(common)] = at
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// findGroup looks some rows up together; where that does not work, one by one.
func (o *tableSource) findGroup(ctx context.Context, d *rowDecoder, keys []*record.Record, group []int,
	give func(int, connector.Page) error) error {
	var pages map[string]connector.Page // nil: one by one
	if len(group) > 1 {
		var err error
		if pages, err = o.findTogether(ctx, d, keys, group); err != nil {
			pages = nil
		}
	}
	given := map[string]bool{}
	for _, i := range group {
		var p connector.Page
		var err error
		if pages != nil {
			text := keys[i].KeyText()
			if p = pages[text]; len(p.Records) > 0 {
				if given[text] { // by another who asked for the same row
					p.Records = []*record.Record{p.Records[0].Clone()}
				}
				given[text] = true
				p.Records[0].Origin = keys[i].Origin
			}
		} else if p, err = o.find(ctx, d, keys[i]); err != nil {
			return err
		}
		if err := give(i, p); err != nil {
			return err
		}
	}
	return nil
}

// errAlone tells that rows must be looked up one by one.
var errAlone = errors.New("one by one")

// findTogether looks up rows of one group, by the text of their keys.
func (o *tableSource) findTogether(ctx context.Context, d *rowDecoder, keys []*record.Record,
	group []int) (map[string]connector.Page, error) {
	s, err := o.table.keysScan(keys, group)
	if err != nil {
		return nil, err
	}
	d.origin = record.Origin{}
	pages := map[string]connector.Page{}
	now := time.Now().Unix()
	err = o.eachRow(ctx, d.list, s, d.dest, func() error {
		o.decoded.Add(d.size())
		if !d.isRow() {
			return nil
		}
		var p connector.Page
		if d.add(&p, now); len(p.Dead) > 0 {
			return errAlone
		}
		pages[p.Records[0].KeyText()] = p
		return nil
	})
	return pages, err
}

// keysScan reads the rows with some keys that differ in their last column.
func (t *table) keysScan(keys []*record.Record, group []int) (scan, error) {
	b := &binder{data: []byte{}}
	var where []byte
	var err error
	columns := t.keysOnly().columns
	for n, c := range columns {
		asked := group[:1]
		if where = append(where, c.quoted...); n < len(columns)-1 {
			where = append(where, " = "...)
		} else {
			where = append(where, " IN ("...)
			asked = group
		}
		for k, i := range asked {
			v := keys[i].Get(c.name)
			if v.IsNull() {
				return scan{}, errAlone
			}
			if k > 0 {
				where = append(where, ", "...)
			}
			if where, err = b.term(where, c.typ, v); err != nil {
				return scan{}, errAlone
			}
		}
		if n < len(columns)-1 {
			where = append(where, " AND "...)
		}
	}
	return scan{where: string(append(where, ')')), args: b.args}, nil
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
	if errors.As(err, &stuck{}) || fail.CodeOf(err) == codeTombstones {
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
	return connector.Page{Dead: []*record.DeadLetter{
		{Raw: only.AppendJSON(nil), Class: err.Class.String(), Code: err.Code, Message: err.Error(), Attempts: 1}}}
}
