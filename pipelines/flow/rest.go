package flow

import (
	"bytes"
	"context"
	"slices"

	"reprise/io/connector"
	"reprise/io/journal"
)

// laneShared is, among the sinks, what stands before all of them: reading and the transforms that they share.
const laneShared = ""

// finished is what the journal holds of a run: intervals by sink and partition, in the order of their starts.
type finished map[string]map[string][]journal.Done

func loadFinished(ctx context.Context, j journal.Journal, run string) (finished, error) {
	f := finished{}
	for d, err := range j.Finished(ctx, run) {
		if err != nil {
			return nil, err
		}
		if f[d.Sink] == nil {
			f[d.Sink] = map[string][]journal.Done{}
		}
		f[d.Sink][d.Partition] = append(f[d.Sink][d.Partition], d)
	}
	for _, of := range f {
		for _, all := range of {
			slices.SortFunc(all, func(a, b journal.Done) int { return bytes.Compare(a.Start, b.Start) })
		}
	}
	return f, nil
}

// rest is what is left of a split: its parts, in order, each with the sinks that have not finished it.
func (f finished) rest(split connector.Split, sinks []string) []connector.Split {
	whole := split
	// Every bound of a finished interval may end a part.
	cuts := [][]byte{}
	cut := func(at []byte) {
		if at != nil && split.Contains(at) && !bytes.Equal(at, split.End) {
			cuts = append(cuts, at)
		}
	}
	overlapping := map[string][]journal.Done{}
	for _, sink := range sinks {
		for _, d := range f[sink][split.Partition] {
			if !before(d.End, split.Start) && !before(split.End, d.Start) {
				cut(d.Start)
				cut(d.End)
				overlapping[sink] = append(overlapping[sink], d)
			}
		}
	}
	slices.SortFunc(cuts, bytes.Compare)
	cuts = slices.CompactFunc(cuts, bytes.Equal)
	var parts []connector.Split
	add := func(part connector.Split) {
		part.Sinks = nil
		for _, sink := range sinks {
			if !slices.ContainsFunc(overlapping[sink], func(d journal.Done) bool { return covers(d, part) }) {
				part.Sinks = append(part.Sinks, sink)
			}
		}
		if last := len(parts) - 1; last >= 0 && parts[last].End != nil && bytes.Equal(parts[last].End, part.Start) &&
			slices.Equal(parts[last].Sinks, part.Sinks) {
			parts[last].End = part.End
			return
		}
		if len(part.Sinks) > 0 {
			parts = append(parts, part)
		}
	}
	for _, at := range cuts {
		var part connector.Split
		part, split = split.Cut(at)
		add(part)
	}
	add(split)
	for i, part := range parts {
		if !bytes.Equal(part.Start, whole.Start) || !bytes.Equal(part.End, whole.End) {
			parts[i].Rows, parts[i].Bytes = 0, 0 // the estimates were of the whole
		}
	}
	return parts
}

// before tells whether an interval that ends at end lies before one that starts at start.
func before(end, start []byte) bool {
	return end != nil && start != nil && bytes.Compare(end, start) <= 0
}

func covers(d journal.Done, s connector.Split) bool {
	return (d.Start == nil || s.Start != nil && bytes.Compare(d.Start, s.Start) <= 0) &&
		(d.End == nil || s.End != nil && bytes.Compare(s.End, d.End) <= 0)
}
