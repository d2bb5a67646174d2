package cassandraio

import (
	"context"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// ringName is the partition of all splits by token ranges.
const ringName = "ring"

const (
	ringLooks      = 16   // places of the ring at which the table is sampled
	lookRows       = 1000 // rows counted at each
	smallTable     = 1000 // rows: a table that has fewer is counted
	lookPartitions = 50
)

// planRing cuts the ring into splits of equal width, by what samples tell of the table: tokens are hashes, so partitions are spread
// evenly. A partition is never cut here.
func (o *tableSource) planRing(ctx context.Context, opts connector.PlanOptions, split func(connector.Split) error) error {
	rows, rowBytes, err := o.sizeOfRing(ctx)
	if err != nil || rows == 0 {
		return err
	}
	target := fill * float64(max(1, min(opts.Rows, opts.Bytes/rowBytes)))
	ring, err := o.ringTokens(ctx)
	if err != nil {
		return err
	}
	cuts := cutRing(ring, int(min(math.Ceil(float64(rows)/target), 1<<20)))
	start := []byte(nil)
	from := uint64(0)
	for _, at := range append(cuts, 0) {
		s := connector.Split{Partition: ringName, Start: start, Rows: share(rows, at-from)}
		if at != 0 {
			s.End = appendToken(nil, int64(at^1<<63))
		}
		s.Bytes = s.Rows * rowBytes
		if err := split(s); err != nil {
			return err
		}
		start, from = s.End, at
	}
	return nil
}

// share is the part of n that a width of the ring has; 0 is the whole ring.
func share(n int64, width uint64) int64 {
	if width == 0 {
		return n
	}
	high, _ := bits.Mul64(uint64(n), width)
	return int64(high)
}

// cutRing gives the places, ascending, at which to cut a ring into about n parts of equal width. Places are tokens counted from the
// least one. Where there are enough parts, none reaches over the border between the tokens of two nodes, whose rows
// lie on other replicas.
func cutRing(ring []int64, n int) []uint64 {
	if n <= 1 {
		return nil
	}
	var borders []uint64
	if n >= 2*len(ring) {
		for _, token := range ring {
			if place := uint64(token) ^ 1<<63; place != math.MaxUint64 {
				borders = append(borders, place+1) // a node owns its token, and what precedes it
			}
		}
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	var cuts []uint64
	from := uint64(0)
	for _, to := range append(borders, 0) {
		parts := uint64(n)
		if width := to - from; width != 0 {
			high, low := bits.Mul64(width, uint64(n))
			if parts = high; low > 0 {
				parts++
			}
		}
		for i := uint64(1); i < parts; i++ {
			cuts = append(cuts, from+fraction(to-from, i, parts))
		}
		if to != 0 {
			cuts = append(cuts, to)
		}
		from = to
	}
	return slices.Compact(cuts)
}

// fraction is width * i / n; width 0 is the whole ring.
func fraction(width, i, n uint64) uint64 {
	high, low := i, uint64(0)
	if width != 0 {
		high, low = bits.Mul64(width, i)
	}
	quotient, _ := bits.Div64(high, low, n)
	return quotient
}

// ringTokens are the tokens of all nodes.
func (o *tableSource) ringTokens(ctx context.Context) ([]int64, error) {
	var all []int64
	for _, cql := range []string{"SELECT tokens FROM system.local", "SELECT tokens FROM system.peers"} {
		err := retry(ctx, connector.DefaultRetry.Deadline, func() (came, error) {
			iter := o.session.Query(cql).WithContext(ctx).Consistency(gocql.LocalOne).Iter()
			for tokens := []string(nil); iter.Scan(&tokens); tokens = nil {
				for _, text := range tokens {
					token, err := strconv.ParseInt(text, 10, 64)
					if err != nil {
						iter.Close()
						return came{}, fail.Job("cassandra.partitioner", "the cluster has a token %q, which Murmur3Partitioner does not make", text).
							WithFix("read the table by buckets")
					}
					all = append(all, token)
				}
			}
			return came{}, classify(iter.Close())
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// sizeOfRing is about the number of rows of the table and the bytes of each. Small tables are counted. Of a partition that has more
// than lookRows rows the rest is not seen: tables of such are better read by buckets. (The server's own system.size_estimates
// know no rows, lag by minutes, and are of one node alone.)
func (o *tableSource) sizeOfRing(ctx context.Context) (rows, rowBytes int64, err error) {
	keys := newLayout(o.table.keysOnly(), true)
	head, err := o.lookRing(ctx, keys, math.MinInt64, smallTable)
	switch {
	case fail.CodeOf(err) == codeTombstones: // there is more than can be counted
		head.rows = smallTable
	case err != nil || head.rows == 0:
		return 0, 1, err
	}
	looks := make([]ringLook, ringLooks)
	var sampled, bytes atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	for i := range looks {
		group.Go(func() error {
			from := int64(fraction(0, uint64(i), ringLooks) ^ 1<<63)
			n, size, err := o.sample(ctx, newRowDecoder(o.layout, "", nil, math.MaxInt64), o.table.tokenScan(from, math.MaxInt64))
			sampled.Add(n)
			bytes.Add(size)
			if err != nil || head.rows < smallTable {
				return err
			}
			look, err := o.lookRing(ctx, keys, from, lookRows)
			if err == nil {
				look.perToken, err = o.partitionDensity(ctx, from)
			}
			if fail.CodeOf(err) == codeTombstones {
				return nil
			}
			looks[i] = look
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 1, err
	}
	partitions, density := int64(0), 0.0
	for _, l := range looks {
		rows, partitions = rows+l.rows, partitions+l.partitions
		density += l.perToken / ringLooks
	}
	rowBytes = max(1, bytes.Load()/max(1, sampled.Load()))
	if head.rows < smallTable {
		return head.rows, rowBytes, nil
	}
	return max(1, int64(density*0x1p64*float64(rows)/float64(max(1, partitions)))), rowBytes, nil
}

// ringLook is what a few rows from a token on tell.
type ringLook struct {
	rows, partitions int64
	perToken         float64 // partitions for each token
}

func (o *tableSource) lookRing(ctx context.Context, keys layout, from int64, limit int) (look ringLook, err error) {
	s := o.table.tokenScan(from, math.MaxInt64)
	s.tail = " LIMIT ?"
	s.args = append(s.args, limit)
	d := newRowDecoder(keys, "", nil, 0)
	last := int64(0)
	err = o.eachRow(ctx, d.list, s, d.dest, func() error {
		if token := d.rowToken(); look.rows == 0 || token != last {
			look.partitions++
			last = token
		}
		look.rows++
		return nil
	})
	return look, err
}

// partitionDensity is the number of partitions for each token from one on.
func (o *tableSource) partitionDensity(ctx context.Context, from int64) (perToken float64, err error) {
	s := o.table.tokenScan(from, math.MaxInt64)
	s.tail = " LIMIT ?"
	s.args = append(s.args, lookPartitions)
	n, to := 0, slot{}
	// A tuple would be taken apart, so the partition key is not selected itself.
	err = o.eachRow(ctx, "DISTINCT "+o.table.tokenOf(), s, []any{&to}, func() error {
		n++
		return nil
	})
	width := float64(math.MaxInt64) - float64(from)
	if n == lookPartitions {
		width = float64(int64(binary.BigEndian.Uint64(to.data))) - float64(from)
	}
	return float64(n) / max(1, width), err
}
