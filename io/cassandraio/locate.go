package cassandraio

import (
	"context"
	"encoding/binary"
	"math/bits"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var _ connector.Locator = (*Source)(nil)

// Locate implements connector.Locator.
func (s *Source) Locate(ctx context.Context, key *record.Record) ([]connector.Split, error) {
	o, err := s.open(ctx, 0)
	if err != nil {
		return nil, err
	}
	t := o.table
	var raw [][]byte
	for _, c := range t.keysOnly().columns {
		data, err := appendValue([]byte{}, c.typ, key.Get(c.name))
		if err != nil {
			return nil, fail.Job("cassandra.bad_key", "key column %q: %w", c.name, err)
		}
		raw = append(raw, data)
	}
	of, row := raw[:len(t.partition)], raw[len(t.partition):]
	at := connector.Split{Partition: ringName}
	switch token := token(serializeKey(of)); {
	case o.config.Buckets != nil:
		values := make([]record.Value, len(of))
		for i, c := range t.partition {
			values[i] = key.Get(c.name)
		}
		at.Partition, at.End = t.partitionName(values), onlyRow
		if len(row) > 0 {
			at.End, err = t.order.append(nil, row)
		}
	case !o.exact: // pages end behind all partitions of a token
		at.End = append(appendToken(nil, token), ringRow)
	default:
		at.End, err = t.appendRingRow(nil, token, of, row)
	}
	if err != nil {
		return nil, err
	}
	return []connector.Split{at}, nil
}

// token is the token of a partition key, by Cassandra's Murmur3Partitioner: the first half of MurmurHash3 x64 128, in which the
// bytes of an unfinished block are signed.
func token(key []byte) int64 {
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
