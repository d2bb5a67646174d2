package kafkaio

import (
	"encoding/binary"

	"github.com/IBM/sarama"
)

// partitioner chooses the partition that Kafka's Java producer chooses for the same key, so that a key stays in
// one partition whoever writes it.
type partitioner struct{}

func newPartitioner(string) sarama.Partitioner { return partitioner{} }

func (partitioner) Partition(m *sarama.ProducerMessage, partitions int32) (int32, error) {
	key, err := m.Key.Encode()
	return int32(murmur2(key)&0x7fffffff) % partitions, err
}

// RequiresConsistency: a partition without a leader is waited for.
func (partitioner) RequiresConsistency() bool { return true }

// murmur2 is MurmurHash2 with the seed that Kafka uses.
func murmur2(key []byte) uint32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	h := seed ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		k = (k ^ k>>24) * m
		h = h*m ^ k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
