package plan

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
func cutMemory(t rapid.TB, order Order, rows [][]byte, target int64) (sizes []int, b *bucketOf) {
	slices.SortFunc(rows, bytes.Compare)
	rows = slices.CompactFunc(rows, bytes.Equal)
	b = &bucketOf{rows: rows}
	serial := make(chan struct{}, 1)
	probe := func(ctx context.Context, after []byte, limit int, backwards bool) ([][]byte, error) {
		serial <- struct{}{}
		defer func() { <-serial }()
		return b.probe(ctx, after, limit, backwards)
	}
	pieces, err := Cut(context.Background(), order, target, probe)
	if err != nil {
		t.Fatal(err)
	}
	start, estimated := []byte(nil), int64(0)
	for i, p := range pieces {
		if (p.End == nil) != (i == len(pieces)-1) {
			t.Fatalf("piece %d of %d ends at %x", i, len(pieces), p.End)
		}
		if p.End != nil {
			if start != nil && bytes.Compare(start, p.End) >= 0 {
				t.Fatalf("a piece ends at %x after one that ends at %x", p.End, start)
			}
			if _, err := order.Values(p.End); err != nil {
				t.Fatal(err)
			}
		}
		split := connector.Split{Start: start, End: p.End}
		n := 0
		for _, at := range rows {
			if split.Contains(at) {
				n++
			}
		}
		sizes = append(sizes, n)
		estimated += p.Rows
		start = p.End
	}
	if len(rows) > 0 && (estimated < int64(len(rows))/3 || estimated > int64(len(rows))*3) {
		t.Logf("%d rows were estimated as %d", len(rows), estimated)
	}
	return sizes, b
}

// layouts of ids in a bucket, as positions.
var idLayouts = []struct {
	name  string
	order Order
	id    func(r *rand.Rand, at float64) []byte // at a place between 0 and 1 of the bucket's time
}{
	{"timeuuid", Order{{Kind: record.TimeUUID, Desc: true}}, func(r *rand.Rand, at float64) []byte {
		u := gocql.UUIDFromTime(time.Unix(1_700_000_000, int64(at*30*86400e9)))
		binary.BigEndian.PutUint64(u[8:], r.Uint64())
		return u[:]
	}},
	{"ulid", Order{{Kind: record.Text}}, func(r *rand.Rand, at float64) []byte {
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
	{"sequence", Order{{Kind: record.Text, Desc: true}}, func(_ *rand.Rand, at float64) []byte {
		return fmt.Appendf(nil, "asset-%012d", int64(at*1e9))
	}},
	{"bigint", Order{{Kind: record.BigInt}}, func(_ *rand.Rand, at float64) []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(at*1e12))
	}},
	{"timestamp", Order{{Kind: record.Timestamp, Desc: true}}, func(_ *rand.Rand, at float64) []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(1_700_000_000_000+at*30*86400e3))
	}},
	{"uuid", Order{{Kind: record.UUID}}, func(r *rand.Rand, _ float64) []byte {
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
						if rows[i], err = l.order.Append(nil, [][]byte{l.id(r, at(r))}); err != nil {
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
					t.Logf("%d pieces, the largest %d; %d keys in %d looks", len(sizes),
						slices.Max(sizes), b.looked, b.looks)
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
		order := Order{{Kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind"), Desc: rapid.Bool().Draw(t, "desc")},
			{Kind: rapid.SampledFrom([]record.Kind{record.Int, record.Text, record.TimeUUID}).Draw(t, "second"),
				Desc: rapid.Bool().Draw(t, "desc2")}}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		few := rapid.IntRange(1, 4).Draw(t, "few")
		rows := make([][]byte, rapid.SampledFrom([]int{0, 1, 999, 1000, 1001, 1100, 3000}).Draw(t, "rows"))
		for i := range rows {
			var err error
			if rows[i], err = order.Append(nil, [][]byte{randomRaw(r, order[0].Kind, few),
				randomRaw(r, order[1].Kind, 4)}); err != nil {
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
	n := Size(k)
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
