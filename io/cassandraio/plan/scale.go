package plan

import (
	"bytes"
	"math/big"
	"slices"

	"reprise/transforms/record"
)

// scale makes numbers of positions, so that there are positions between two others, and distances. What all have
// in common at their beginning is left out; text is read as digits, of which there are as many as different bytes
// have been seen. (Hadoop's org.apache.hadoop.mapreduce.lib.db.TextSplitter does so too, but always with 65536
// digits, of which keys use few.)
type scale struct {
	prefix []byte // of all positions
	digits []byte // sorted; nil: all 256
}

const scaleDigits = 24

func newScale(head, tail [][]byte, order Order) scale {
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
		if p.Kind != record.Text {
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
func partSize(p Part, b []byte) int {
	if p.Desc {
		b = bytes.Clone(b)
		invert(b)
	}
	_, n, err := cutOrdered(p.Kind, b)
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

// Between is a position about halfway between two of a partition; nil stands for its beginning and its end.
// It is nil where there is none.
func Between(order Order, from, to []byte) []byte {
	if len(order) == 0 {
		return nil
	}
	if bytes.Equal(to, PastAll) {
		to = nil
	}
	s := scale{}
	for len(s.prefix) < min(len(from), len(to)) && from[len(s.prefix)] == to[len(s.prefix)] {
		s.prefix = from[:len(s.prefix)+1]
	}
	high := new(big.Int).Lsh(big.NewInt(1), 8*scaleDigits)
	if to != nil {
		high = s.number(to)
	}
	low := new(big.Int)
	if from != nil {
		low = s.number(from)
	}
	at, err := order.Near(s.bytes(low.Add(low, high).Rsh(low, 1)))
	if err != nil || bytes.Compare(at, from) <= 0 || to != nil && bytes.Compare(at, to) >= 0 {
		return nil
	}
	return at
}

// PastAll is a position behind all rows of a partition.
var PastAll = bytes.Repeat([]byte{0xff}, 256)
