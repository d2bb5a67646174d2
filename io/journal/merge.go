package journal

import (
	"bytes"
	"slices"

	"reprise/transforms/fail"
)

// interval is that of a Done in the form of the stores: bounds that bytes.Compare brings into order.
type interval struct {
	start, end []byte
	sum        Sum
}

// Bounds as stored: the open start, positions behind a 1, the open end.
var (
	lowest  = []byte{0}
	highest = []byte{2}
)

func storedStart(start []byte) []byte {
	if start == nil {
		return lowest
	}
	return append([]byte{1}, start...)
}

func storedEnd(end []byte) []byte {
	if end == nil {
		return highest
	}
	return append([]byte{1}, end...)
}

// bound is a stored bound as that of a split.
func bound(stored []byte) []byte {
	if stored[0] != 1 {
		return nil
	}
	return stored[1:]
}

// place is where intervals must not overlap.
type place struct{ sink, partition string }

// near is how many intervals decide whether another fits in: of those that start no later than it ends, the
// last ones. No others can touch it.
const near = 2

// merger adds intervals to those of a store, of which it knows the near ones.
type merger map[place]*held

type held struct {
	stored, now []interval // by start
}

// know tells the merger about stored intervals.
func (m merger) know(at place, stored []interval) {
	k := m[at]
	if k == nil {
		k = &held{}
		m[at] = k
	}
	for _, v := range stored {
		if i, there := slices.BinarySearchFunc(k.stored, v.start, byStart); !there {
			k.stored = slices.Insert(k.stored, i, v)
		}
	}
}

func byStart(v interval, start []byte) int { return bytes.Compare(v.start, start) }

// add adds what was finished, all of whose near intervals are known.
func (m merger) add(run string, d Done) error {
	k := m[place{d.Sink, d.Partition}]
	if k.now == nil {
		k.now = slices.Clone(k.stored)
	}
	v := interval{storedStart(d.Start), storedEnd(d.End), d.Sum}
	if bytes.Compare(v.start, v.end) >= 0 {
		return fail.New(fail.Fatal, "journal.no_interval", "run %s: nothing lies within %s(%x..%x]", run,
			d.Partition, d.Start, d.End)
	}
	// What lies from i up to j touches or overlaps v.
	i, _ := slices.BinarySearchFunc(k.now, v.start,
		func(o interval, start []byte) int { return bytes.Compare(o.end, start) })
	j := i
	for ; j < len(k.now) && bytes.Compare(k.now[j].start, v.end) <= 0; j++ {
		o := k.now[j]
		if bytes.Compare(o.start, v.end) < 0 && bytes.Compare(v.start, o.end) < 0 {
			return fail.New(fail.Fatal, "journal.overlap", "run %s: sink %q has finished a part of %s(%x..%x] before",
				run, d.Sink, d.Partition, d.Start, d.End).
				WithFix("two workers read the same part: nothing is lost or counted twice; resume the run")
		}
		v.sum.Add(o.sum)
	}
	if i < j {
		v.start = slices.MinFunc([][]byte{v.start, k.now[i].start}, bytes.Compare)
		v.end = slices.MaxFunc([][]byte{v.end, k.now[j-1].end}, bytes.Compare)
	}
	k.now = slices.Replace(k.now, i, j, v)
	return nil
}

// changes calls put for each interval that is new or changed, and drop for the start of each that is no more.
func (m merger) changes(put func(place, interval) error, drop func(place, []byte) error) error {
	for at, k := range m {
		for _, v := range k.now {
			i, there := slices.BinarySearchFunc(k.stored, v.start, byStart)
			if there && bytes.Equal(k.stored[i].end, v.end) {
				continue
			}
			if err := put(at, v); err != nil {
				return err
			}
		}
		for _, v := range k.stored {
			if _, there := slices.BinarySearchFunc(k.now, v.start, byStart); !there {
				if err := drop(at, v.start); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
