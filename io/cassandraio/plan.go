package cassandraio

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const (
	planners     = 8    // probes under way at once
	countRows    = 1000 // keys that a request for counting asks for
	sampleRows   = 20   // rows read whole, for their size
	sampledFirst = 16   // buckets of which some are
)

// planBuckets gives the splits of all buckets.
func (o *tableSource) planBuckets(ctx context.Context, opts connector.PlanOptions,
	split func(connector.Split) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	p := &bucketPlan{tableSource: o, opts: opts, split: split, keys: newLayout(o.table.keysOnly(), false),
		slots: make(chan struct{}, planners)}
	err := o.eachBucket(ctx, func(name string) error {
		group.Go(func() error { return p.bucket(ctx, name) })
		return ctx.Err()
	})
	if failed := group.Wait(); failed != nil {
		return failed
	}
	return err
}

// bucketPlan plans the buckets of a source.
type bucketPlan struct {
	*tableSource
	opts connector.PlanOptions
	keys layout

	slots       chan struct{} // one for each probe under way
	mu          sync.Mutex    // of what follows, and of calls to split
	split       func(connector.Split) error
	sampled     atomic.Int64 // buckets
	rows, bytes int64        // in the samples
}

func (p *bucketPlan) bucket(ctx context.Context, name string) error {
	values, key, err := p.table.parsePartition(name)
	if err != nil {
		return err
	}
	rowBytes, err := p.rowBytes(ctx, name, values, key)
	if err != nil {
		return err
	}
	var unplaced atomic.Bool // there are rows without a position
	probe := func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error) {
		found, some, err := p.positions(ctx, key, after, limit, backwards)
		if some {
			unplaced.Store(true)
		}
		return found, err
	}
	pieces, err := plan.Cut(ctx, p.table.order, plan.Target(p.opts, rowBytes), probe)
	if fail.CodeOf(err) == codeTombstones { // reading finds its way through them
		pieces, err = []plan.Piece{{}}, nil
	}
	if err != nil {
		return err
	}
	if len(pieces) == 0 && unplaced.Load() {
		pieces = []plan.Piece{{}}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range plan.Splits(name, pieces, rowBytes) {
		if err := p.split(s); err != nil {
			return err
		}
	}
	return nil
}

// rowBytes is about the size of a row, judging by some rows of the first buckets.
func (p *bucketPlan) rowBytes(ctx context.Context, name string, fixed []record.Value, key [][]byte) (int64, error) {
	if p.sampled.Add(1) <= sampledFirst {
		scans, err := p.bucketScans(key, nil, nil)
		if err != nil || len(scans) == 0 {
			return 1, err
		}
		rows, bytes, err := p.sample(ctx, newRowDecoder(p.layout, name, fixed, math.MaxInt64), scans[0])
		if err != nil {
			return 1, err
		}
		p.mu.Lock()
		p.rows, p.bytes = p.rows+rows, p.bytes+bytes
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == 0 {
		return 256, nil
	}
	return max(1, p.bytes/p.rows), nil
}

// sample reads the first rows of a scan, fewer where they do not come, and gives their number and size. Where not even
// one comes it gives none: reading will tell what is wrong.
func (o *tableSource) sample(ctx context.Context, d *rowDecoder, s scan) (rows, bytes int64, err error) {
	s.tail = " LIMIT ?"
	args := s.args
	for n := sampleRows; n >= 1; n /= 4 {
		s.args = append(args[:len(args):len(args)], n)
		rows, bytes, err = o.measure(ctx, d, s)
		if err == nil || !shrinks(err) && fail.CodeOf(err) != codeTombstones {
			return rows, bytes, err
		}
	}
	return 0, 0, nil
}

func (o *tableSource) measure(ctx context.Context, d *rowDecoder, s scan) (rows, bytes int64, err error) {
	var iter *gocql.Iter
	err = retry(ctx, connector.DefaultRetry.Deadline, func() (_ came, err error) {
		if iter, err = o.query(ctx, d.list, s, nil, sampleRows); shrinks(err) {
			err = stuck{err} // fewer may come
		}
		return came{}, err
	})
	if err != nil {
		return 0, 0, err
	}
	for iter.Scan(d.dest...) {
		if d.isRow() {
			rows, bytes = rows+1, bytes+d.size()+int64(perRecord+perValue*len(d.table.columns))
		}
	}
	return rows, bytes, classify(iter.Close())
}

// positions are those of the first rows of a partition after a position, or of its last rows, ascending. Rows without
// one are passed over: unplaced tells whether there are some, and the rows beside them where.
func (p *bucketPlan) positions(ctx context.Context, key [][]byte, after []byte, limit int,
	backwards bool) (found [][]byte, unplaced bool, err error) {
	scans, err := p.bucketScans(key, after, nil)
	if err != nil {
		return nil, false, err
	}
	tail := " LIMIT ?"
	if backwards {
		tail = p.table.backwards() + tail
		slices.Reverse(scans)
	}
	d := newRowDecoder(p.keys, "", []record.Value{}, 0)
	each := func() error {
		at, err := d.position(nil)
		if unplaced = unplaced || err != nil; err == nil {
			found = append(found, at)
		}
		return nil
	}
	for _, s := range scans {
		if len(found) == limit {
			break
		}
		s.tail, s.args = tail, append(s.args[:len(s.args):len(s.args)], limit-len(found))
		if err := p.probe(ctx, d, s, each); err != nil {
			return nil, false, err
		}
	}
	if backwards {
		slices.Reverse(found)
	}
	return found, unplaced, nil
}

func (p *bucketPlan) probe(ctx context.Context, d *rowDecoder, s scan, each func() error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.eachRow(ctx, d.list, s, d.dest, each)
}

// backwards is the order opposite to the table's.
func (t *table) backwards() string {
	if len(t.clustering) == 0 {
		return ""
	}
	order := " ORDER BY "
	for i, c := range t.clustering {
		if i > 0 {
			order += ", "
		}
		order += c.quoted
		if !c.desc {
			order += " DESC"
		}
	}
	return order
}
