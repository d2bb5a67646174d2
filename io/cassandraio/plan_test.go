package cassandraio

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// bucketOf is a bucket in memory, and how many keys were looked at.
type bucketOf struct {
	rows   [][]byte
	looked int
	looks  int
}

func (b *bucketOf) probe(_ context.Context, after []byte, limit int, backwards bool) ([][]byte, error) {
	from := 0
	if after != nil {
		from = sort.Search(len(b.rows), func(i int) bool { return bytes.Compare(b.rows[i], after) > 0 })
	}
	to := min(len(b.rows), from+limit)
	if backwards {
		from, to = max(0, len(b.rows)-limit), len(b.rows)
	}
	b.looked += to - from
	b.looks++
	return slices.Clone(b.rows[from:to]), nil
}

// cutMemory cuts keys and gives the number of rows in each piece.
func cutMemory(t rapid.TB, order keyOrder, rows [][]byte, target int64) (sizes []int, b *bucketOf) {
	slices.SortFunc(rows, bytes.Compare)
	rows = slices.CompactFunc(rows, bytes.Equal)
	b = &bucketOf{rows: rows}
	serial := make(chan struct{}, 1)
	c := &cutter{target: target, order: order, probe: func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error) {
		serial <- struct{}{}
		defer func() { <-serial }()
		return b.probe(ctx, after, limit, backwards)
	}}
	pieces, err := c.cut(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	start, estimated := []byte(nil), int64(0)
	for i, p := range pieces {
		if (p.end == nil) != (i == len(pieces)-1) {
			t.Fatalf("piece %d of %d ends at %x", i, len(pieces), p.end)
		}
		if p.end != nil {
			if start != nil && bytes.Compare(start, p.end) >= 0 {
				t.Fatalf("a piece ends at %x after one that ends at %x", p.end, start)
			}
			if _, err := order.values(p.end); err != nil {
				t.Fatal(err)
			}
		}
		split := connector.Split{Start: start, End: p.end}
		n := 0
		for _, at := range rows {
			if split.Contains(at) {
				n++
			}
		}
		sizes = append(sizes, n)
		estimated += p.rows
		start = p.end
	}
	if len(rows) > 0 && (estimated < int64(len(rows))/3 || estimated > int64(len(rows))*3) {
		t.Logf("%d rows were estimated as %d", len(rows), estimated)
	}
	return sizes, b
}

// layouts of ids in a bucket, as positions.
var idLayouts = []struct {
	name  string
	order keyOrder
	id    func(r *rand.Rand, at float64) []byte // at a place between 0 and 1 of the bucket's time
}{
	{"timeuuid", keyOrder{{kind: record.TimeUUID, desc: true}}, func(r *rand.Rand, at float64) []byte {
		u := gocql.UUIDFromTime(time.Unix(1_700_000_000, int64(at*30*86400e9)))
		binary.BigEndian.PutUint64(u[8:], r.Uint64())
		return u[:]
	}},
	{"ulid", keyOrder{{kind: record.Text}}, func(r *rand.Rand, at float64) []byte {
		const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
		n := uint64(1_700_000_000_000 + at*30*86400e3)
		b := make([]byte, 26)
		for i := 9; i >= 0; i-- {
			b[i], n = digits[n%32], n/32
		}
		for i := 10; i < 26; i++ {
			b[i] = digits[r.IntN(32)]
		}
		return b
	}},
	{"sequence", keyOrder{{kind: record.Text, desc: true}}, func(_ *rand.Rand, at float64) []byte {
		return fmt.Appendf(nil, "asset-%012d", int64(at*1e9))
	}},
	{"bigint", keyOrder{{kind: record.BigInt}}, func(_ *rand.Rand, at float64) []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(at*1e12))
	}},
	{"timestamp", keyOrder{{kind: record.Timestamp, desc: true}}, func(_ *rand.Rand, at float64) []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(1_700_000_000_000+at*30*86400e3))
	}},
	{"uuid", keyOrder{{kind: record.UUID}}, func(r *rand.Rand, _ float64) []byte {
		b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.Uint64()), r.Uint64())
		b[6] = 0x40 | b[6]&0xf
		return b
	}},
}

// times are how rows may be spread over a bucket.
var times = map[string]func(r *rand.Rand) float64{
	"even": func(r *rand.Rand) float64 { return r.Float64() },
	"evening": func(r *rand.Rand) float64 { // most in two hours of each day
		if r.IntN(10) == 0 {
			return r.Float64()
		}
		return (float64(r.IntN(30)) + 0.8 + r.Float64()/12) / 30
	},
	"bursts": func(r *rand.Rand) float64 { // half in five imports of three hours each
		if r.IntN(2) == 0 {
			return r.Float64()
		}
		return 0.1 + float64(r.IntN(5))*0.17 + r.Float64()/240
	},
	"outlier": func(r *rand.Rand) float64 { // one row long before all others
		if r.IntN(60_000) == 0 {
			return 0
		}
		return 0.999 + r.Float64()/1000
	},
}

func TestWideBucketsAreCutFinely(t *testing.T) {
	for _, l := range idLayouts {
		for name, at := range times {
			for seed := uint64(1); seed < 4; seed++ {
				t.Run(l.name+" "+name, func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, 7))
					rows := make([][]byte, 60_000)
					for i := range rows {
						var err error
						if rows[i], err = l.order.append(nil, [][]byte{l.id(r, at(r))}); err != nil {
							t.Fatal(err)
						}
					}
					const target = 5000
					sizes, b := cutMemory(t, l.order, rows, target)
					if largest := slices.Max(sizes); largest > target {
						t.Errorf("a piece has %d rows: %v", largest, sizes)
					}
					if len(sizes) > 5*len(rows)/target {
						t.Errorf("%d pieces for %d rows", len(sizes), len(rows))
					}
					t.Logf("%d pieces, the largest %d; %d keys in %d looks", len(sizes), slices.Max(sizes), b.looked, b.looks)
					if b.looked > len(rows)*2/3 {
						t.Errorf("%d of %d keys were looked at", b.looked, len(rows))
					}
				})
			}
		}
	}
}

func TestEveryRowIsInOnePiece(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := keyOrder{{kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind"), desc: rapid.Bool().Draw(t, "desc")},
			{kind: rapid.SampledFrom([]record.Kind{record.Int, record.Text, record.TimeUUID}).Draw(t, "second"), desc: rapid.Bool().Draw(t, "desc2")}}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		few := rapid.IntRange(1, 4).Draw(t, "few")
		rows := make([][]byte, rapid.SampledFrom([]int{0, 1, 999, 1000, 1001, 1100, 3000}).Draw(t, "rows"))
		for i := range rows {
			var err error
			if rows[i], err = order.append(nil, [][]byte{randomRaw(r, order[0].kind, few), randomRaw(r, order[1].kind, 4)}); err != nil {
				t.Fatal(err)
			}
		}
		target := rapid.SampledFrom([]int64{1, 10, 300, 1000, math.MaxInt64}).Draw(t, "target")
		sizes, b := cutMemory(t, order, rows, target)
		total := 0
		for _, n := range sizes {
			total += n
		}
		if total != len(b.rows) {
			t.Fatalf("%d rows in the pieces, want %d", total, len(b.rows))
		}
		if target < 16*probeRows && len(sizes) > 0 && int64(slices.Max(sizes)) > target {
			t.Fatalf("pieces of %v, target %d", sizes, target)
		}
	})
}

// randomRaw is a value in which so many bytes vary.
func randomRaw(r *rand.Rand, k record.Kind, vary int) []byte {
	n := fixedSize(k)
	if n == 0 {
		n = 4
	}
	b := make([]byte, n)
	for i := range min(n, vary) {
		b[n-1-i] = byte(r.IntN(256))
	}
	switch k {
	case record.Text:
		for i := range b {
			b[i] = 'a' + b[i]%26
		}
	case record.TimeUUID:
		b[6] = 0x10 | b[6]&0xf
	case record.Boolean:
		b[0] %= 2
	}
	return b
}

func TestCutRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		edges := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
		token := rapid.OneOf(rapid.Int64(), rapid.SampledFrom(edges))
		ring := rapid.SliceOfN(token, 1, 20).Draw(t, "ring")
		n := rapid.SampledFrom([]int{0, 1, 2, 3, 7, 40, 64, 1000}).Draw(t, "n")
		cuts := cutRing(ring, n)
		if n <= 1 && len(cuts) > 0 {
			t.Fatalf("%d cuts for one part", len(cuts))
		}
		if len(cuts) > n+2*len(ring) {
			t.Fatalf("%d cuts for %d parts and %d tokens", len(cuts), n, len(ring))
		}
		var splits []connector.Split
		start := []byte(nil)
		for i, at := range cuts {
			if at == 0 || i > 0 && at <= cuts[i-1] {
				t.Fatalf("cuts %v", cuts)
			}
			end := appendToken(nil, int64(at^1<<63))
			splits = append(splits, connector.Split{Start: start, End: end})
			start = end
		}
		splits = append(splits, connector.Split{Start: start})
		widest := math.Ldexp(1, 64) / float64(max(1, n)) * 1.001
		for i, at := range cuts {
			from := uint64(0)
			if i > 0 {
				from = cuts[i-1]
			}
			if float64(at-from) > widest+1 {
				t.Fatalf("a split is %g wide, want %g", float64(at-from), widest)
			}
		}
		probe := append([]int64{token.Draw(t, "token")}, edges...)
		for _, at := range cuts {
			probe = append(probe, int64(at^1<<63), int64((at-1)^1<<63))
		}
		tab := &table{}
		for _, token := range probe {
			row, _ := tab.appendRingRow(nil, token, [][]byte{[]byte("key")}, nil)
			done := append(appendToken(nil, token), ringDone)
			homes := 0
			for _, s := range splits {
				if s.Contains(row) {
					homes++
					if !s.Contains(done) {
						t.Fatalf("the end of token %d lies in another split", token)
					}
				}
			}
			if homes != 1 {
				t.Fatalf("token %d lies in %d splits", token, homes)
			}
		}
		if n >= 2*len(ring) { // no split reaches over a border between nodes
			for _, token := range ring {
				at := uint64(token) ^ 1<<63
				if _, found := slices.BinarySearch(cuts, at+1); !found && at != math.MaxUint64 {
					t.Fatalf("no cut after token %d", token)
				}
			}
		}
	})
}

// One bucket has half of all rows, which came in bursts; every row is in one split, and none is larger than wanted.
func TestPlanOfASkewedTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (asset_type text, bucket int, id timeuuid, title text, PRIMARY KEY ((asset_type, bucket), id)) WITH CLUSTERING ORDER BY (id DESC)")
	const total, target = 24_000, 2000
	r := rand.New(rand.NewPCG(1, 1))
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	batches := map[int][][]any{}
	for i := range total {
		bucket, at := 0, times["bursts"](r)
		if i%2 == 1 {
			bucket, at = 1+r.IntN(30), r.Float64()
		}
		id := gocql.UUIDFromTime(start.Add(time.Duration(at * float64(30*24*time.Hour))))
		binary.BigEndian.PutUint64(id[8:], uint64(i))
		batches[bucket] = append(batches[bucket], []any{"image", bucket, id, fmt.Sprintf("title %d", i)})
	}
	for _, rows := range batches {
		for chunk := range slices.Chunk(rows, 200) {
			b := db.session.NewBatch(gocql.UnloggedBatch)
			for _, args := range chunk {
				b.Query("INSERT INTO "+db.keyspace+"."+db.table+" (asset_type, bucket, id, title) VALUES (?, ?, ?, ?)", args...)
			}
			if err := db.session.ExecuteBatch(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, change := range map[string]func(*SourceConfig){"buckets": discover, "ring": nil} {
		s := db.source(t, change)
		found, splits := collect(t, s, connector.PlanOptions{Rows: target})
		if len(found) != total {
			t.Errorf("%s: %d rows, want %d", name, len(found), total)
		}
		counts := map[string]int64{}
		for _, r := range found {
			counts[r.Origin.Split]++
		}
		estimated := int64(0)
		for _, sp := range splits {
			estimated += sp.Rows
			if sp.Bytes < 50*sp.Rows {
				t.Errorf("%s: split %s has %d rows and %d bytes", name, sp, sp.Rows, sp.Bytes)
			}
			if n := counts[sp.String()]; n > target && name == "buckets" {
				t.Errorf("%s: split %s has %d rows, was planned with %d", name, sp, n, sp.Rows)
			}
		}
		if estimated < total*2/3 || estimated > total*3/2 {
			t.Logf("%s: %d rows were estimated as %d", name, total, estimated)
		}
		t.Logf("%s: %d splits", name, len(splits))
	}
}
