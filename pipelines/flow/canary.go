package flow

import (
	"cmp"
	"context"
	"hash/fnv"
	"math"
	"slices"

	"reprise/io/journal"
)

// inStage tells which partitions of a plan belong to a stage of a canary, in percent; 0: all. It takes them evenly,
// whatever their names, and those of a later stage are those of an earlier one and more.
func inStage(ctx context.Context, j journal.Journal, run string, percent float64) (func(partition string) bool, error) {
	if percent == 0 {
		return func(string) bool { return true }, nil
	}
	var all []place
	for split, err := range j.Plan(ctx, run) {
		if err != nil {
			return nil, err
		}
		if at := placeOf(split.Partition); len(all) == 0 || all[len(all)-1] != at {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, place.compare)
	all = slices.Compact(all)
	if len(all) == 0 {
		return func(string) bool { return false }, nil
	}
	last := all[min(len(all), int(math.Ceil(percent/100*float64(len(all)))))-1]
	return func(partition string) bool { return placeOf(partition).compare(last) <= 0 }, nil
}

// place is where a partition stands among all others.
type place struct {
	hash      uint64
	partition string
}

func placeOf(partition string) place {
	h := fnv.New64a()
	h.Write([]byte(partition))
	return place{h.Sum64(), partition}
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.hash, other.hash), cmp.Compare(p.partition, other.partition))
}

// Left is the number of splits of a stage, in percent, that some sinks have not finished.
func Left(ctx context.Context, j journal.Journal, run string, sinks []string, percent float64) (left int, err error) {
	chosen, err := inStage(ctx, j, run, percent)
	if err != nil {
		return 0, err
	}
	done, err := loadFinished(ctx, j, run)
	if err != nil {
		return 0, err
	}
	for split, err := range j.Plan(ctx, run) {
		if err != nil {
			return 0, err
		}
		if !chosen(split.Partition) {
			continue
		}
		of := []string{laneShared}
		for _, name := range sinks {
			if split.For(name) {
				of = append(of, name)
			}
		}
		if len(done.rest(split, of)) > 0 {
			left++
		}
	}
	return left, nil
}
