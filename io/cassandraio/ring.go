package cassandraio

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
)

const (
	ringLooks      = 16   // places of the ring at which the table is sampled
	lookRows       = 1000 // rows counted at each
	smallTable     = 1000 // rows: a table that has fewer is counted
	lookPartitions = 50
)

// planRing cuts the ring by what samples tell of the table. A partition is never cut here.
func (o *tableSource) planRing(ctx context.Context, opts connector.PlanOptions,
	split func(connector.Split) error) error {
	rows, rowBytes, err := o.sizeOfRing(ctx)
	if err != nil || rows == 0 {
		return err
	}
	tokens, err := o.ringTokens(ctx)
	if err != nil {
		return err
	}
	for _, s := range (plan.Ring{Rows: rows, RowBytes: rowBytes, Tokens: tokens}).Splits(opts) {
		if err := split(s); err != nil {
			return err
		}
	}
	return nil
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
						return came{}, fail.Job("cassandra.partitioner",
							"the cluster has a token %q, which Murmur3Partitioner does not make", text).
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

// sizeOfRing is about the number of rows of the table and the bytes of each. Small tables are counted, others
// estimated by plan.EstimateRows.
func (o *tableSource) sizeOfRing(ctx context.Context) (rows, rowBytes int64, err error) {
	keys := newLayout(o.table.keysOnly(), true)
	head, err := o.lookRing(ctx, keys, math.MinInt64, smallTable)
	switch {
	case fail.CodeOf(err) == codeTombstones: // there is more than can be counted
		head.Rows = smallTable
	case err != nil || head.Rows == 0:
		return 0, 1, err
	}
	looks := make([]plan.Look, ringLooks)
	var sampled, bytes atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	for i := range looks {
		group.Go(func() error {
			from := plan.LookAt(i, ringLooks)
			n, size, err := o.sample(ctx, newRowDecoder(o.layout, "", nil, math.MaxInt64),
				o.table.tokenScan(from, math.MaxInt64))
			sampled.Add(n)
			bytes.Add(size)
			if err != nil || head.Rows < smallTable {
				return err
			}
			look, err := o.lookRing(ctx, keys, from, lookRows)
			if err == nil {
				look.PerToken, err = o.partitionDensity(ctx, from)
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
	rowBytes = max(1, bytes.Load()/max(1, sampled.Load()))
	if head.Rows < smallTable {
		return head.Rows, rowBytes, nil
	}
	return plan.EstimateRows(looks), rowBytes, nil
}

func (o *tableSource) lookRing(ctx context.Context, keys layout, from int64, limit int) (look plan.Look, err error) {
	s := o.table.tokenScan(from, math.MaxInt64)
	s.tail = " LIMIT ?"
	s.args = append(s.args, limit)
	d := newRowDecoder(keys, "", nil, 0)
	last := int64(0)
	err = o.eachRow(ctx, d.list, s, d.dest, func() error {
		if token := d.rowToken(); look.Rows == 0 || token != last {
			look.Partitions++
			last = token
		}
		look.Rows++
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
