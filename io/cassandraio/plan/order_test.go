package plan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"reprise/transforms/record"
)

var orderedKinds = []record.Kind{record.Boolean, record.TinyInt, record.SmallInt, record.Int, record.BigInt,
	record.Varint, record.Float,
	record.Double, record.Text, record.Blob, record.UUID, record.TimeUUID, record.Inet, record.Timestamp,
	record.Date, record.Time}

// compareRaw is Cassandra's order of two values in binary form, written down after the comparators of its types.
func compareRaw(k record.Kind, a, b []byte) int {
	switch k {
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Timestamp, record.Time, record.Varint:
		return number(a).Cmp(number(b))
	case record.Boolean:
		return cmp.Compare(min(a[0], 1), min(b[0], 1))
	case record.Float, record.Double:
		x, y := float(a), float(b)
		switch {
		case x != x || y != y:
			return -cmp.Compare(btoi(x == x), btoi(y == y))
		case x == 0 && y == 0:
			return -cmp.Compare(btoi(math.Signbit(x)), btoi(math.Signbit(y)))
		}
		return cmp.Compare(x, y)
	case record.TimeUUID:
		if c := cmp.Compare(ticks(a), ticks(b)); c != 0 {
			return c
		}
		for i := 8; i < 16; i++ {
			if c := cmp.Compare(int8(a[i]), int8(b[i])); c != 0 {
				return c
			}
		}
		return 0
	case record.UUID:
		if c := cmp.Compare(a[6]>>4, b[6]>>4); c != 0 {
			return c
		}
		if a[6]>>4 == 1 {
			if c := cmp.Compare(ticks(a), ticks(b)); c != 0 {
				return c
			}
			return bytes.Compare(a[8:], b[8:])
		}
	}
	return bytes.Compare(a, b)
}

// number is a two's complement number of any length.
func number(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

func float(b []byte) float64 {
	if len(b) == 4 {
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func ticks(u []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(u[6:])&0xfff)<<48 | uint64(binary.BigEndian.Uint16(u[4:]))<<32 | uint64(
		binary.BigEndian.Uint32(u))
}

// drawRaw draws a value, often one of those at an edge.
func drawRaw(t *rapid.T, k record.Kind) []byte {
	edge := func(n int) []byte {
		b := bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}).Draw(t, "fill")}, n)
		b[0] = rapid.SampledFrom([]byte{0, 0x7f, 0x80, 0xff}).Draw(t, "first")
		return b
	}
	size := Size(k)
	switch k {
	case record.Boolean:
		return []byte{byte(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case record.Text:
		return []byte(rapid.StringOf(rapid.SampledFrom([]rune("\x00\x01aZ\x7fé\U0010ffff"))).Draw(t, "text"))
	case record.Blob:
		return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0xfe, 0xff}), 0, 5).Draw(t, "blob")
	case record.Inet:
		size = rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
	case record.Varint:
		n := rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "digits")
		x := new(big.Int).SetBytes(n)
		if rapid.Bool().Draw(t, "negative") {
			x.Neg(x)
		}
		return []byte(record.VarintBytes(x))
	}
	b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "bytes")
	if rapid.Bool().Draw(t, "edge") {
		b = edge(size)
	}
	if k == record.TimeUUID {
		b[6] = 0x10 | b[6]&0xf
	}
	return b
}

func TestPositionsAreInOrder(t *testing.T) {
	for _, kind := range orderedKinds {
		for range 10 {
			rapid.Check(t, func(t *rapid.T) { checkOrder(t, kind) })
		}
	}
}

// checkOrder checks keys that have a column of a kind.
func checkOrder(t *rapid.T, one record.Kind) {
	parts := rapid.IntRange(1, 3).Draw(t, "parts")
	order := make(Order, parts)
	a, b := make([][]byte, parts), make([][]byte, parts)
	want := 0
	chosen := rapid.IntRange(0, parts-1).Draw(t, "chosen")
	for i := range order {
		order[i] = Part{Name: fmt.Sprint("c", i), Kind: rapid.SampledFrom(orderedKinds).Draw(t, "kind"),
			Desc: rapid.Bool().Draw(t, "desc")}
		if i == chosen {
			order[i].Kind = one
		}
		a[i] = drawRaw(t, order[i].Kind)
		b[i] = a[i]
		switch rapid.IntRange(0, 2).Draw(t, "like") {
		case 0:
			b[i] = drawRaw(t, order[i].Kind)
		case 1: // one byte differs, if the kind has so many
			if n := Size(order[i].Kind); n > 1 {
				b[i] = bytes.Clone(a[i])
				b[i][rapid.IntRange(0, n-1).Draw(t, "at")] ^= 1 << rapid.SampledFrom([]int{0, 7}).Draw(t, "bit")
				if order[i].Kind == record.TimeUUID {
					b[i][6] = 0x10 | b[i][6]&0xf
				}
			}
		}
		if want == 0 {
			want = compareRaw(order[i].Kind, a[i], b[i])
			if order[i].Desc {
				want = -want
			}
		}
	}
	x, err := order.Append(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := order.Append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Compare(x, y); got != want {
		t.Fatalf("%v: %x and %x compare as %d, want %d", order, a, b, got, want)
	}
	if want != 0 && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
		t.Fatalf("%v: %x is the beginning of %x or the other way round", order, x, y)
	}
	back, err := order.Values(x)
	if err != nil {
		t.Fatal(err)
	}
	again, err := order.Append(nil, back)
	if err != nil || !bytes.Equal(again, x) {
		t.Fatalf("%v: %x became %x, %v", order, a, back, err)
	}
	for i, p := range order {
		if compareRaw(p.Kind, a[i], back[i]) != 0 {
			t.Fatalf("%s: %x became %x", p.Kind, a[i], back[i])
		}
	}
	if near, err := order.Near(x); err != nil || !bytes.Equal(near, x) {
		t.Fatalf("%v: near %x is %x, %v", order, x, near, err)
	}
}

func TestPositionsOfOthersAreRefused(t *testing.T) {
	order := Order{{Name: "a", Kind: record.Text}, {Name: "b", Kind: record.BigInt, Desc: true}}
	for _, b := range []string{"", "a", "a\x00", "a\x00\x01", "a\x00\x00", "a\x00\x00123456789", "\x00"} {
		if v, err := order.Values([]byte(b)); err == nil {
			t.Errorf("%q is %q", b, v)
		}
	}
}
