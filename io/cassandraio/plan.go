package cassandraio

import (
	"bytes"
	"context"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const (
	planners     = 8    // probes under way at once
	smallBucket  = 200  // rows: a bucket that has fewer is counted
	countRows    = 1000 // keys that a request for counting asks for
	sampleRows   = 20   // rows read whole, for their size
	sampledFirst = 16   // buckets of which some are
)

// planBuckets gives the splits of all buckets.
func (o *tableSource) planBuckets(ctx context.Context, opts connector.PlanOptions, split func(connector.Split) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	p := &bucketPlan{tableSource: o, opts: opts, split: split, keys: newLayout(o.table.keysOnly(), false), slots: make(chan struct{}, planners)}
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
	c := &cutter{target: max(1, min(p.opts.Rows, p.opts.Bytes/rowBytes, noLimit)), order: p.table.order,
		probe: func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error) {
			found, some, err := p.positions(ctx, key, after, limit, backwards)
			if some {
				unplaced.Store(true)
			}
			return found, err
		}}
	pieces, err := c.cut(ctx)
	if fail.CodeOf(err) == codeTombstones { // reading finds its way through them
		pieces, err = []piece{{}}, nil
	}
	if err != nil {
		return err
	}
	if len(pieces) == 0 && unplaced.Load() {
		pieces = []piece{{}}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var start []byte
	for _, piece := range pieces {
		s := connector.Split{Partition: name, Start: start, End: piece.end, Rows: piece.rows, Bytes: piece.rows * rowBytes}
		if err := p.split(s); err != nil {
			return err
		}
		start = piece.end
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

// sample reads the first rows of a scan, fewer where they do not come, and gives their number and size. Where not even one comes it
// gives none: reading will tell what is wrong.
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

// positions are those of the first rows of a partition after a position, or of its last rows, ascending. Rows without one are passed over: unplaced
// tells whether there are some, and the rows beside them where.
func (p *bucketPlan) positions(ctx context.Context, key [][]byte, after []byte, limit int, backwards bool) (found [][]byte, unplaced bool, err error) {
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

// piece is a part of a bucket.
type piece struct {
	end  []byte // nil: the bucket's
	rows int64  // estimate
}

// cutter cuts a bucket into pieces of at most target rows. It counts small buckets. In wide ones it looks at the next few rows after some
// positions, which gives the density there, and looks again
//   - within what may hold more than a quarter of a piece by the greater of the densities at its ends,
//   - in search of bursts, within the widest rest: some hundred times, which costs a few hundredths of reading the bucket, and more
//     often where it may hold more than half of a piece by the greatest density seen anywhere. A burst so short that no
//     look falls into it stays unknown, and makes its piece larger than wanted.
type cutter struct {
	target int64
	order  keyOrder
	probe  func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error)

	known  []stretch // in order, none overlapping
	scale  scale
	random *rand.Rand // always the same
}

// stretch is an interval of positions, the first exclusive, the second inclusive, whose rows have been counted.
type stretch struct {
	from, to []byte
	rows     int64
	density  float64 // of rows at from, in units of the scale; it may have been seen beyond to
}

const (
	probeRows  = 16
	firstLooks = 8 // places at which a bucket is looked at first
	fill       = 0.7
	noLimit    = 1 << 40
)

func (c *cutter) cut(ctx context.Context) ([]piece, error) {
	if len(c.order) == 0 {
		return []piece{{rows: 1}}, nil
	}
	head, err := c.probe(ctx, nil, smallBucket, false)
	if err != nil {
		return nil, err
	}
	if len(head) == 0 {
		return nil, nil
	}
	if len(head) < smallBucket {
		return c.even(head), nil
	}
	if c.target < 16*probeRows {
		return c.walk(ctx, head)
	}
	tail, err := c.probe(ctx, nil, 4*probeRows, true)
	if err != nil {
		return nil, err
	}
	if len(tail) == 0 || bytes.Compare(tail[0], head[len(head)-1]) <= 0 {
		for _, at := range tail {
			if bytes.Compare(at, head[len(head)-1]) > 0 {
				head = append(head, at)
			}
		}
		return c.even(head), nil
	}
	c.scale = newScale(head, tail, c.order)
	from := []byte(nil)
	for rows := range slices.Chunk(head, probeRows) {
		c.learn(from, rows, false, nil)
		from = rows[len(rows)-1]
	}
	c.learn(tail[0], tail[1:], true, nil)
	c.random = rand.New(rand.NewPCG(1, 2))
	for looks := c.spread(); ; {
		for len(looks) > 0 {
			if err := c.look(ctx, looks); err != nil {
				return nil, err
			}
			looks = c.dense()
		}
		if looks = c.search(); len(looks) == 0 {
			return c.pieces(), nil
		}
	}
}

// even cuts a bucket of which every row is known.
func (c *cutter) even(rows [][]byte) []piece {
	n := (int64(len(rows))-1)/c.target + 1
	var all []piece
	for i, from := int64(1), int64(0); i <= n; i++ {
		to := i * int64(len(rows)) / n
		p := piece{rows: to - from}
		if i < n {
			p.end = rows[to-1]
		}
		all = append(all, p)
		from = to
	}
	return all
}

// walk cuts a bucket by reading the keys of all its rows.
func (c *cutter) walk(ctx context.Context, rows [][]byte) ([]piece, error) {
	var all []piece
	var last []byte
	count := int64(0)
	for len(rows) > 0 {
		for _, at := range rows {
			if count == c.target {
				all = append(all, piece{end: last, rows: count})
				count = 0
			}
			count++
			last = at
		}
		var err error
		if rows, err = c.probe(ctx, last, countRows, false); err != nil {
			return nil, err
		}
	}
	return append(all, piece{rows: count}), nil
}

// learn adds what the rows after a position tell: where the next stretch begins at until, the rows beyond belong to that.
func (c *cutter) learn(from []byte, rows [][]byte, complete bool, until []byte) {
	s := stretch{from: from, to: until, density: c.scale.density(rows)}
	for _, at := range rows {
		if until != nil && bytes.Compare(at, until) > 0 {
			break
		}
		s.rows++
	}
	if int(s.rows) == len(rows) && !complete {
		s.to = rows[len(rows)-1]
	}
	c.known = append(c.known, s)
}

// gap is what lies between two stretches.
type gap struct {
	width *big.Int
	most  float64 // rows, by the greater density of both ends
	mean  float64
}

func (c *cutter) gap(a, b stretch) gap {
	g := gap{width: new(big.Int).Sub(c.scale.number(b.from), c.scale.number(a.to))}
	if g.width.Sign() > 0 {
		width, _ := new(big.Float).SetInt(g.width).Float64()
		g.most = width * max(a.density, b.density)
		g.mean = width * (a.density + b.density) / 2
	} else if bytes.Compare(a.to, b.from) < 0 {
		g.most, g.mean = math.Inf(1), 0 // too close for the scale
	}
	return g
}

// look is one probe.
type look struct {
	from  []byte
	limit int
	rows  [][]byte
}

// within are looks at places in a gap, given as parts of its width.
func (c *cutter) within(a, b stretch, width *big.Int, places ...float64) (looks []*look) {
	last := a.to
	for _, place := range places {
		n, _ := new(big.Float).Mul(new(big.Float).SetInt(width), big.NewFloat(place)).Int(nil)
		at, err := c.order.near(c.scale.bytes(n.Add(n, c.scale.number(a.to))))
		if err == nil && bytes.Compare(at, last) > 0 && bytes.Compare(at, b.from) < 0 {
			looks = append(looks, &look{from: at, limit: probeRows})
			last = at
		}
	}
	return looks
}

func evenly(n int) []float64 {
	places := make([]float64, n-1)
	for i := range places {
		places[i] = float64(i+1) / float64(n)
	}
	return places
}

// spread are the first looks, all over the bucket.
func (c *cutter) spread() []*look {
	a, b := c.known[len(c.known)-2], c.known[len(c.known)-1]
	return c.within(a, b, c.gap(a, b).width, evenly(firstLooks)...)
}

// dense are looks into every gap that may hold too much by the densities at its ends.
func (c *cutter) dense() (looks []*look) {
	enough := float64(c.target) / 4
	for i := range len(c.known) - 1 {
		a, b := c.known[i], c.known[i+1]
		g := c.gap(a, b)
		if g.most <= enough {
			continue
		}
		inside := c.within(a, b, g.width, evenly(int(min(16, max(2, math.Ceil(g.most/enough)))))...)
		if len(inside) == 0 { // too close for the scale: count on from here
			inside = []*look{{from: a.to, limit: int(min(c.target/4, countRows))}}
		}
		looks = append(looks, inside...)
	}
	return looks
}

// search are looks into the widest gaps, in search of bursts.
func (c *cutter) search() (looks []*look) {
	greatest, rows := 0.0, 0.0
	type candidate struct {
		at  int
		gap gap
	}
	var gaps []candidate
	for i, s := range c.known {
		greatest = max(greatest, s.density)
		rows += float64(s.rows)
		if i+1 < len(c.known) {
			g := c.gap(s, c.known[i+1])
			rows += g.mean
			gaps = append(gaps, candidate{i, g})
		}
	}
	least := firstLooks
	if rows > fill*float64(c.target) {
		least = 128 + int(rows/400)
	}
	most := 4 * least // where there are bursts
	slices.SortStableFunc(gaps, func(a, b candidate) int { return b.gap.width.Cmp(a.gap.width) })
	var chosen []candidate
	for _, g := range gaps {
		width, _ := new(big.Float).SetInt(g.gap.width).Float64()
		n := len(c.known) + len(chosen)
		if len(chosen) == firstLooks || n >= most || (n >= least && width*greatest <= float64(c.target)/2) {
			break
		}
		chosen = append(chosen, g)
	}
	slices.SortFunc(chosen, func(a, b candidate) int { return a.at - b.at })
	for _, g := range chosen {
		looks = append(looks, c.within(c.known[g.at], c.known[g.at+1], g.gap.width, 0.25+c.random.Float64()/2)...)
	}
	return looks
}

// look takes looks, which are in order, and learns from them.
func (c *cutter) look(ctx context.Context, looks []*look) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	for _, l := range looks {
		group.Go(func() (err error) {
			l.rows, err = c.probe(ctx, l.from, l.limit, false)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	old := c.known
	c.known = nil
	for i, s := range old {
		c.known = append(c.known, s)
		for len(looks) > 0 && i+1 < len(old) && bytes.Compare(looks[0].from, old[i+1].from) < 0 {
			l, until := looks[0], old[i+1].from
			if looks = looks[1:]; len(looks) > 0 && bytes.Compare(looks[0].from, until) < 0 {
				until = looks[0].from
			}
			c.learn(l.from, l.rows, len(l.rows) < l.limit, until)
		}
	}
	return nil
}

// pieces joins stretches and gaps until the next would make a piece too large.
func (c *cutter) pieces() []piece {
	var all []piece
	var most, mean float64
	var end []byte
	add := func(to []byte, n, about float64) {
		if most > 0 && most+n > fill*float64(c.target) {
			all = append(all, piece{end: end, rows: int64(mean)})
			most, mean = 0, 0
		}
		most, mean, end = most+n, mean+about, to
	}
	for i, s := range c.known {
		add(s.to, float64(s.rows), float64(s.rows))
		if i+1 < len(c.known) {
			g := c.gap(s, c.known[i+1])
			add(c.known[i+1].from, g.most, g.mean)
		}
	}
	return append(all, piece{rows: int64(mean)})
}

// scale makes numbers of positions, so that there are positions between two others and distances. Text is read as digits, of which
// there are as many as different bytes have been seen.
type scale struct {
	prefix []byte // of all positions
	digits []byte // sorted; nil: all 256
}

const scaleDigits = 24

func newScale(head, tail [][]byte, order keyOrder) scale {
	first, last := head[0], tail[len(tail)-1]
	n := 0
	for n < len(first) && n < len(last) && first[n] == last[n] {
		n++
	}
	s := scale{prefix: first[:n]}
	at := 0 // where the part begins in which the positions differ
	for _, p := range order {
		size := partSize(p, first[at:])
		if at+size <= n {
			at += size
			continue
		}
		if p.kind != record.Text {
			return s
		}
		var seen [256]bool
		for _, position := range slices.Concat(head, tail) {
			part := position[at : at+partSize(p, position[at:])]
			for _, b := range part[min(n-at, len(part)):] {
				seen[b] = true
			}
		}
		for b, ok := range seen {
			if ok {
				s.digits = append(s.digits, byte(b))
			}
		}
		return s
	}
	return s
}

// partSize is the number of bytes that a part takes at the beginning of a position.
func partSize(p keyPart, b []byte) int {
	if p.desc {
		b = bytes.Clone(b)
		invert(b)
	}
	_, n, err := cutOrdered(p.kind, b)
	if err != nil {
		return 0
	}
	return n
}

func (s scale) base() int64 {
	if s.digits == nil {
		return 256
	}
	return int64(len(s.digits))
}

// number is where a position stands.
func (s scale) number(position []byte) *big.Int {
	rest := position[min(len(position), len(s.prefix)):]
	n, base, digit := new(big.Int), big.NewInt(s.base()), new(big.Int)
	for i := range scaleDigits {
		d := int64(0)
		if i < len(rest) {
			d = int64(rest[i])
			if s.digits != nil {
				at, found := slices.BinarySearch(s.digits, rest[i])
				if !found && at > 0 {
					at--
				}
				d = int64(at)
			}
		}
		n.Add(n.Mul(n, base), digit.SetInt64(d))
	}
	return n
}

// bytes are about the position that stands at a number.
func (s scale) bytes(n *big.Int) []byte {
	b := make([]byte, len(s.prefix)+scaleDigits)
	copy(b, s.prefix)
	base, digit := big.NewInt(s.base()), new(big.Int)
	n = new(big.Int).Set(n)
	for i := len(b) - 1; i >= len(s.prefix); i-- {
		n.DivMod(n, base, digit)
		b[i] = byte(digit.Int64())
		if s.digits != nil {
			b[i] = s.digits[digit.Int64()]
		}
	}
	return b
}

// density is the number of rows for each number of the scale.
func (s scale) density(rows [][]byte) float64 {
	if len(rows) < 2 {
		return 0
	}
	width := new(big.Int).Sub(s.number(rows[len(rows)-1]), s.number(rows[0]))
	f, _ := new(big.Float).SetInt(width).Float64()
	return float64(len(rows)-1) / max(f, 1)
}
