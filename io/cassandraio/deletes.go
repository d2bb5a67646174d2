package cassandraio

import (
	"hash/maphash"
	"sync"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Deletes bound what a run deletes.
type Deletes struct {
	PerPartition int `json:"per_partition,omitempty" jsonschema:"minimum=1,maximum=1000000000" jsonschema_description:"The most rows of one partition that a run deletes. Each delete leaves a tombstone, which reads of the partition have to pass until it is compacted away (gc_grace_seconds at the earliest). Further deletes become dead letters (cassandra.tombstones), to be sent again later: reprise redrive RUN. It holds for each worker and each attempt: so a resumed run, or one with several workers, may delete several times as many."`
}

// tombstones counts the rows that are deleted in each partition. It takes the same memory for any number of partitions:
// each counts in two of many counters, the lower of which is never too low. So no partition gets more than its share,
// and one gets less only where a run deletes rows by the million.
type tombstones struct {
	most  uint32
	seeds [2]maphash.Seed

	mu     sync.Mutex
	counts [2][]uint32
	taken  map[*record.Record]struct{} // counted, and not settled yet: they may be written again
}

const tombstoneCounters = 1 << 20

// newTombstones gives nil where nothing is bounded.
func newTombstones(d *Deletes) *tombstones {
	if d == nil || d.PerPartition == 0 {
		return nil
	}
	t := &tombstones{most: uint32(d.PerPartition), taken: map[*record.Record]struct{}{}}
	for i := range t.counts {
		t.seeds[i], t.counts[i] = maphash.MakeSeed(), make([]uint32, tombstoneCounters)
	}
	return t
}

// take counts the delete of a row of a partition, once; its error is that there were too many.
func (t *tombstones) take(partition []byte, r *record.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.taken[r]; again {
		return nil
	}
	var counters [2]*uint32
	for i := range counters {
		counters[i] = &t.counts[i][maphash.Bytes(t.seeds[i], partition)%tombstoneCounters]
	}
	n := min(*counters[0], *counters[1])
	if n >= t.most {
		return fail.New(fail.Permanent, "cassandra.tombstones",
			"this run has deleted %d rows of the partition already, which is as many as it may", t.most).
			WithFix("let the tombstones be compacted away (gc_grace_seconds), then: reprise redrive RUN --code " +
				"cassandra.tombstones")
	}
	for _, c := range counters {
		*c = max(*c, n+1)
	}
	t.taken[r] = struct{}{}
	return nil
}

// settle forgets a record that is not written again.
func (t *tombstones) settle(r *record.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.taken, r)
}
