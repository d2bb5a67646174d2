package plan

import (
	"math"
	"math/bits"
	"slices"

	"reprise/io/connector"
)

// RingName is the partition of all splits by token ranges.
const RingName = "ring"

// Ring is about what a table holds.
type Ring struct {
	Rows     int64
	RowBytes int64   // of one row, at least 1
	Tokens   []int64 // of all nodes, in any order: a node owns the tokens from the one before, exclusive, up to its own
}

// Splits cuts the ring into splits of equal width. Tokens are hashes, so partitions are spread evenly,
// and a partition is never cut; where there are enough splits none reaches over the border of two nodes,
// whose rows lie on other replicas.
func (r Ring) Splits(o connector.PlanOptions) []connector.Split {
	target := fill * float64(max(1, min(o.Rows, o.Bytes/r.RowBytes)))
	cuts := cutRing(r.Tokens, int(min(math.Ceil(float64(r.Rows)/target), 1<<20)))
	all := make([]connector.Split, 0, len(cuts)+1)
	start := []byte(nil)
	from := uint64(0)
	for _, at := range append(cuts, 0) {
		s := connector.Split{Partition: RingName, Start: start, Rows: share(r.Rows, at-from)}
		if at != 0 {
			s.End = AppendToken(nil, int64(at^1<<63))
		}
		s.Bytes = s.Rows * r.RowBytes
		all = append(all, s)
		start, from = s.End, at
	}
	return all
}

// Look is what the first rows from a token on tell.
type Look struct {
	Rows, Partitions int64   // that were counted
	PerToken         float64 // partitions for each token
}

// LookAt is the token at which the i-th of n looks begins.
func LookAt(i, n int) int64 { return int64(fraction(0, uint64(i), uint64(n)) ^ 1<<63) }

// EstimateRows is about the number of rows of a table by looks at places that are evenly spread over the ring: the mean
// number of partitions for each of its 2^64 tokens, times the mean number of rows of a partition. Of a partition that
// has more rows than a look counts the rest is not seen: tables of such are better read by buckets.
//
// The server's own system.size_estimates (CASSANDRA-7688) would not do: they are of one node's primary ranges alone,
// know partitions and bytes but no rows, are recorded every few minutes, and leave out what is not flushed yet. Scaling
// them up to the ring went wrong elsewhere: SPARKC-492 (apache/cassandra-spark-connector#1111),
// apache/flink-connector-cassandra#24.
func EstimateRows(looks []Look) int64 {
	rows, partitions, density := int64(0), int64(0), 0.0
	for _, l := range looks {
		rows, partitions = rows+l.Rows, partitions+l.Partitions
		density += l.PerToken / float64(len(looks))
	}
	return max(1, int64(density*0x1p64*float64(rows)/float64(max(1, partitions))))
}

// share is the part of n that a width of the ring has; 0 is the whole ring.
func share(n int64, width uint64) int64 {
	if width == 0 {
		return n
	}
	high, _ := bits.Mul64(uint64(n), width)
	return int64(high)
}

// cutRing gives the places, ascending, at which to cut a ring into about n parts of equal width. Places are tokens
// counted from the least one. Where there are enough parts, none reaches over the border between the tokens of two
// nodes, whose rows lie on other replicas.
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
