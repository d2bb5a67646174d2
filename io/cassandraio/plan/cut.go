package plan

import (
	"bytes"
	"context"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"

	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
)

// Piece is a part of a partition, from the end of the one before.
type Piece struct {
	End  []byte // its last position, which belongs to it; nil: the partition's end
	Rows int64  // estimate
}

// Probe gives the positions of the first rows of a partition after a position (nil: its beginning), at most limit of
// them, or with backwards those of its last rows; ascending in any case. It is called by several goroutines at once.
type Probe func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error)

// Cut cuts a partition into pieces of at most about target rows each. There are none where there are no rows.
//
// A partition of fewer than 200 rows is counted. In a wide one Cut looks at 16 rows after some positions, which gives
// the density there (rows for each unit of a scale over the keys), and looks again
//   - within what may hold more than a quarter of a piece by the greater of the densities at its ends,
//   - in search of bursts, within the widest rest: some hundred times, which costs a few hundredths of reading the
//     partition, and more often where it may hold more than half of a piece by the greatest density seen anywhere.
//
// A burst so short that no look falls into it stays unknown, and makes its piece larger than wanted. Cassandra itself
// tells nothing that could replace the looks: its statistics know partitions and bytes, not where in a partition the
// rows lie, and its index of a partition's rows (column_index_size) cannot be read by a client.
func Cut(ctx context.Context, order Order, target int64, probe Probe) ([]Piece, error) {
	c := &cutter{target: target, order: order, probe: probe}
	return c.cut(ctx)
}

// Target is how many rows a split may have, by the options and the bytes of a row.
func Target(o connector.PlanOptions, rowBytes int64) int64 {
	const most = 1 << 40
	return max(1, min(o.Rows, o.Bytes/rowBytes, most))
}

// Splits are the splits of a partition that was cut.
func Splits(partition string, pieces []Piece, rowBytes int64) []connector.Split {
	all := make([]connector.Split, 0, len(pieces))
	var start []byte
	for _, p := range pieces {
		all = append(all, connector.Split{Partition: partition, Start: start, End: p.End, Rows: p.Rows,
			Bytes: p.Rows * rowBytes})
		start = p.End
	}
	return all
}

const (
	smallBucket = 200  // rows: a bucket that has fewer is counted
	countRows   = 1000 // keys that one probe asks for at most
	probeRows   = 16
	firstLooks  = 8   // places at which a bucket is looked at first
	fill        = 0.7 // of its target is what a piece is filled up to by the estimate
	looksAtOnce = 8
)

type cutter struct {
	target int64
	order  Order
	probe  Probe

	known  []stretch // in order, none overlapping
	scale  scale
	random *rand.Rand // always the same, so that a plan can be made again
}

// stretch is an interval of positions, the first exclusive, the second inclusive, whose rows have been counted.
type stretch struct {
	from, to []byte
	rows     int64
	density  float64 // of rows at from, in units of the scale; it may have been seen beyond to
}

func (c *cutter) cut(ctx context.Context) ([]Piece, error) {
	if len(c.order) == 0 {
		return []Piece{{Rows: 1}}, nil
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
func (c *cutter) even(rows [][]byte) []Piece {
	n := (int64(len(rows))-1)/c.target + 1
	var all []Piece
	for i, from := int64(1), int64(0); i <= n; i++ {
		to := i * int64(len(rows)) / n
		p := Piece{Rows: to - from}
		if i < n {
			p.End = rows[to-1]
		}
		all = append(all, p)
		from = to
	}
	return all
}

// walk cuts a bucket by reading the keys of all its rows.
func (c *cutter) walk(ctx context.Context, rows [][]byte) ([]Piece, error) {
	var all []Piece
	var last []byte
	count := int64(0)
	for len(rows) > 0 {
		for _, at := range rows {
			if count == c.target {
				all = append(all, Piece{End: last, Rows: count})
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
	return append(all, Piece{Rows: count}), nil
}

// learn adds what the rows after a position tell: where the next stretch begins at until,
// the rows beyond belong to that.
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
		at, err := c.order.Near(c.scale.bytes(n.Add(n, c.scale.number(a.to))))
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
	group.SetLimit(looksAtOnce)
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
func (c *cutter) pieces() []Piece {
	var all []Piece
	var most, mean float64
	var end []byte
	add := func(to []byte, n, about float64) {
		if most > 0 && most+n > fill*float64(c.target) {
			all = append(all, Piece{End: end, Rows: int64(mean)})
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
	return append(all, Piece{Rows: int64(mean)})
}
