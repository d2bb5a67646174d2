package plan

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A position in the ring is a token, in the order of tokens: 8 bytes. Alone it stands before all partitions of that
// token; followed by RingDone after them; followed by RingRow, the partition key and the clustering columns at a row.
const (
	RingRow  = 1
	RingDone = 2
)

// RingPosition is a position in the ring, taken apart.
type RingPosition struct {
	Token int64
	Tag   byte     // RingRow or RingDone; 0: before all partitions of the token
	Key   []byte   // of the partition, as Cassandra serializes it: the order of partitions with one token
	Row   [][]byte // the clustering columns
}

// AppendToken appends the position before all partitions of a token.
func AppendToken(b []byte, token int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(token)^1<<63)
}

// AfterToken is the position after all partitions of a token.
func AfterToken(token int64) []byte { return append(AppendToken(nil, token), RingDone) }

// AppendRingRow appends the position of a row: its token, the values of its partition key
// and of its clustering columns.
func (k Order) AppendRingRow(b []byte, token int64, partition, row [][]byte) ([]byte, error) {
	b = append(AppendToken(b, token), RingRow)
	b = appendEscaped(b, SerializeKey(partition))
	return k.Append(b, row)
}

// RingPosition takes a position in the ring apart, or fails with ErrPosition.
func (k Order) RingPosition(b []byte) (RingPosition, error) {
	if len(b) < 8 {
		return RingPosition{}, ErrPosition
	}
	p := RingPosition{Token: int64(binary.BigEndian.Uint64(b) ^ 1<<63)}
	if b = b[8:]; len(b) == 0 {
		return p, nil
	}
	p.Tag = b[0]
	switch {
	case p.Tag == RingDone && len(b) == 1:
		return p, nil
	case p.Tag != RingRow:
		return p, ErrPosition
	}
	key, n, err := cutEscaped(b[1:])
	if err != nil {
		return p, err
	}
	p.Key = key
	p.Row, err = k.Values(b[1+n:])
	return p, err
}

// Tokens are the first and the last token of which rows may lie between two positions in the ring; nil stands for its
// beginning and its end.
func (k Order) Tokens(from, to []byte) (low, high int64, err error) {
	low, high = math.MinInt64, math.MaxInt64
	var p RingPosition
	if from != nil {
		if p, err = k.RingPosition(from); err != nil {
			return low, high, err
		}
		if low = p.Token; p.Tag == RingDone && low < math.MaxInt64 {
			low++
		}
	}
	if to != nil {
		if p, err = k.RingPosition(to); err != nil {
			return low, high, err
		}
		if high = p.Token; p.Tag == 0 && high > math.MinInt64 {
			high--
		}
	}
	return low, high, nil
}

// BetweenTokens is the beginning of the token halfway between two positions in the ring;
// nil where both are of one token.
func BetweenTokens(order Order, from, to []byte) []byte {
	low, high, err := order.Tokens(from, to)
	if err != nil || low >= high {
		return nil
	}
	return AppendToken(nil, high-int64((uint64(high)-uint64(low))/2))
}

// SerializeKey is the partition key as Cassandra stores it and hashes it: a value alone, several each with its length
// (2 bytes) before it and a 0 after it (org.apache.cassandra.db.marshal.CompositeType).
func SerializeKey(values [][]byte) []byte {
	if len(values) == 1 {
		return values[0]
	}
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(append(b, v...), 0)
	}
	return b
}

// Token is the token of a serialized partition key by Cassandra's Murmur3Partitioner: the first half of MurmurHash3 x64
// 128 by Austin Appleby, but for the bytes of an unfinished block, which Cassandra takes as signed
// (org.apache.cassandra.utils.MurmurHash; drivers do the same, such as gocql in internal/murmur).
func Token(key []byte) int64 {
	const c1, c2 = 0x87c37b91114253d5, 0x4cf5ad432745937f
	mix1 := func(k uint64) uint64 { return bits.RotateLeft64(k*c1, 31) * c2 }
	mix2 := func(k uint64) uint64 { return bits.RotateLeft64(k*c2, 33) * c1 }
	var h1, h2 uint64
	rest := key
	for ; len(rest) >= 16; rest = rest[16:] {
		h1 ^= mix1(binary.LittleEndian.Uint64(rest))
		h1 = (bits.RotateLeft64(h1, 27)+h2)*5 + 0x52dce729
		h2 ^= mix2(binary.LittleEndian.Uint64(rest[8:]))
		h2 = (bits.RotateLeft64(h2, 31)+h1)*5 + 0x38495ab5
	}
	var k [2]uint64
	for i, c := range rest {
		k[i/8] ^= uint64(int64(int8(c))) << (8 * (i % 8))
	}
	h1 ^= mix1(k[0])
	h2 ^= mix2(k[1])
	h1 ^= uint64(len(key))
	h2 ^= uint64(len(key))
	h1 += h2
	h2 += h1
	h1, h2 = finish(h1), finish(h2)
	h1 += h2
	if int64(h1) == -1<<63 {
		return 1<<63 - 1 // the least token is none of a key
	}
	return int64(h1)
}

func finish(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
