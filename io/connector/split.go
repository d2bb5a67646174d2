package connector

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
)

// Split is what one reader reads: of one partition, the keys after Start up to and with End, in the order of reading.
// Positions are order-preserving: bytes.Compare gives the order in which the source reads them. A nil bound is open.
type Split struct {
	Partition string   `json:"partition"`       // the source's own name of the partition, readable: "image/2024-05"
	Start     []byte   `json:"start,omitzero"`  // exclusive
	End       []byte   `json:"end,omitzero"`    // inclusive
	Rows      int64    `json:"rows,omitempty"`  // estimate; 0: unknown
	Bytes     int64    `json:"bytes,omitempty"` // estimate; 0: unknown
	Sinks     []string `json:"sinks,omitempty"` // that it is for; nil: all
}

// String names the split in outcomes, dead letters and logs: "image/2024-05(3fa0..81c2]".
// Different splits have different names.
func (s Split) String() string {
	if s.Start == nil && s.End == nil {
		return s.Partition
	}
	return fmt.Sprintf("%s(%s..%s]", s.Partition, short(s.Start), short(s.End))
}

// short is the position in hex; a long one is cut, with a hash of the whole behind.
func short(position []byte) string {
	if len(position) <= 24 {
		return hex.EncodeToString(position)
	}
	h := fnv.New64a()
	h.Write(position)
	return hex.EncodeToString(position[:16]) + "~" + hex.EncodeToString(h.Sum(nil))
}

// Cut divides the split after position at, which must lie within it.
func (s Split) Cut(at []byte) (done, rest Split) {
	done, rest = s, s
	done.End, rest.Start = at, at
	return done, rest
}

// Contains tells whether a position lies within the split.
func (s Split) Contains(at []byte) bool {
	return (s.Start == nil || bytes.Compare(at, s.Start) > 0) && (s.End == nil || bytes.Compare(at, s.End) <= 0)
}

// For tells whether the split is for a sink.
func (s Split) For(sink string) bool { return len(s.Sinks) == 0 || slices.Contains(s.Sinks, sink) }
