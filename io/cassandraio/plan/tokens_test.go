package plan

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"reprise/io/connector"
)

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
			end := AppendToken(nil, int64(at^1<<63))
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
		for _, token := range probe {
			row, _ := Order{}.AppendRingRow(nil, token, [][]byte{[]byte("key")}, nil)
			done := AfterToken(token)
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

// The splits of a ring have about all of its rows, each no more than wanted.
func TestRingSplitsShareTheRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Ring{Rows: rapid.Int64Range(1, 1e9).Draw(t, "rows"), RowBytes: rapid.Int64Range(1, 1e6).Draw(t, "bytes"),
			Tokens: rapid.SliceOfN(rapid.Int64(), 1, 20).Draw(t, "tokens")}
		o := connector.PlanOptions{Rows: rapid.Int64Range(max(1, r.Rows/1000), 2e9).Draw(t, "most"),
			Bytes: math.MaxInt64}
		rows := int64(0)
		var end []byte
		splits := r.Splits(o)
		for i, s := range splits {
			if !slices.Equal(s.Start, end) || (s.End == nil) != (i == len(splits)-1) {
				t.Fatalf("split %d of %d is %x to %x, after %x", i, len(splits), s.Start, s.End, end)
			}
			if s.Rows > o.Rows || s.Bytes != s.Rows*r.RowBytes {
				t.Fatalf("split %d has %d rows, %d bytes", i, s.Rows, s.Bytes)
			}
			rows, end = rows+s.Rows, s.End
		}
		if rows > r.Rows || rows < r.Rows-int64(len(splits)) {
			t.Fatalf("%d rows are planned, want %d", rows, r.Rows)
		}
	})
}

// Looks at a ring whose tokens are spread evenly tell its rows.
func TestEstimateRows(t *testing.T) {
	const looks, partitions, rowsEach = 16, 1e6, 3
	var all []Look
	for range looks {
		all = append(all, Look{Rows: 1000, Partitions: 1000 / rowsEach, PerToken: partitions / 0x1p64})
	}
	if n := EstimateRows(all); n < partitions*rowsEach*0.99 || n > partitions*rowsEach*1.01 {
		t.Errorf("%d rows are estimated, want about %d", n, int(partitions*rowsEach))
	}
	if first, second := LookAt(0, looks), LookAt(1, looks); first != math.MinInt64 || second != math.MinInt64+1<<60 {
		t.Errorf("looks begin at %d, %d", first, second)
	}
}

// What cqlsh tells of ints: SELECT token(k). TestLocate compares the tokens of texts, with bytes
// taken as signed, with a server.
func TestTokensAreCassandras(t *testing.T) {
	for key, want := range map[string]int64{
		"\x00\x00\x00\x00": -3485513579396041028, "\x00\x00\x00\x01": -4069959284402364209,
		"\x00\x00\x00\x03": 9010454139840013625,
	} {
		if is := Token([]byte(key)); is != want {
			t.Errorf("the token of %x is %d, want %d", key, is, want)
		}
	}
}
