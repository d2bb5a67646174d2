package compare

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"reprise/transforms/record"
)

// segments are what keys are counted in. A segment holds whole buckets (rows whose keys differ in the last field
// alone), so that live writes, which mostly come to few buckets, leave the other segments as they are.
const segments = 4096

// Tally is, by segment, the number of some keys and what their hashes are together, in any order.
type Tally map[uint16]Segment

// Segment is the tally of one segment.
type Segment struct {
	Count int64
	Hash  [16]byte
}

// segmentOf is the segment of a key.
func segmentOf(key [][]byte) uint16 {
	bucket := key
	if len(key) > 1 {
		bucket = key[:len(key)-1]
	}
	sum := sha256.Sum256(bytes.Join(bucket, nil))
	return binary.BigEndian.Uint16(sum[:]) % segments
}

// Add counts a record that has a key alone.
func (t Tally) Add(key *record.Record) {
	parts := keyForms(key)
	t.add(segmentOf(parts), bytes.Join(parts, nil))
}

// add counts the form of a key.
func (t Tally) add(at uint16, key []byte) {
	s := t[at]
	s.Count++
	sum := sha256.Sum256(key)
	for i := range s.Hash {
		s.Hash[i] ^= sum[i]
	}
	t[at] = s
}

// Merge adds another tally.
func (t Tally) Merge(o Tally) {
	for at, add := range o {
		s := t[at]
		s.Count += add.Count
		for i := range s.Hash {
			s.Hash[i] ^= add.Hash[i]
		}
		t[at] = s
	}
}

// Keys is the number of keys.
func (t Tally) Keys() (n int64) {
	for _, s := range t {
		n += s.Count
	}
	return n
}

// Differ are the segments that two tallies do not have in common, in order.
func Differ(a, b Tally) (found []uint16) {
	all := maps.Clone(a)
	if all == nil {
		all = Tally{}
	}
	maps.Copy(all, b)
	for at := range all {
		if a[at] != b[at] {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	return found
}

// MarshalBinary writes 2 bytes of segment, the count as a varint and 16 bytes of hash for each.
func (t Tally) MarshalBinary() (b []byte, err error) {
	for _, at := range slices.Sorted(maps.Keys(t)) {
		s := t[at]
		b = binary.BigEndian.AppendUint16(b, at)
		b = binary.AppendVarint(b, s.Count)
		b = append(b, s.Hash[:]...)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (t *Tally) UnmarshalBinary(b []byte) error {
	*t = Tally{}
	for len(b) > 0 {
		if len(b) < 2 {
			return errShort
		}
		at := binary.BigEndian.Uint16(b)
		count, n := binary.Varint(b[2:])
		if n <= 0 || len(b) < 2+n+16 {
			return errShort
		}
		(*t)[at] = Segment{count, [16]byte(b[2+n:])}
		b = b[2+n+16:]
	}
	return nil
}

var errShort = errors.New("a tally is cut short")
