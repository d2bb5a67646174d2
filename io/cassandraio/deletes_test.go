package cassandraio

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/runners/services"
	"reprise/transforms/record"
)

func deleted(r *record.Record) *record.Record {
	d := r.Clone()
	d.Op = record.Delete
	for i := range d.Values {
		if i > 1 {
			d.Values[i] = record.Value{}
		}
	}
	return d
}

// As many rows of each partition are deleted as may be, whole rows, and the others are dead letters; also
// by several writers of one sink.
func TestTombstoneBudget(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, func(c *SinkConfig) { c.Deletes, c.BatchRows = &Deletes{PerPartition: 7}, 3 })
	var rows, gone []*record.Record
	for i := range 60 {
		r := asset(int64(i), 1000, "x")
		r.Values[0] = record.String(fmt.Sprint("b", i%3))
		rows, gone = append(rows, r), append(gone, deleted(r))
	}
	put(t, s, rows...)
	count := map[string]int{}
	for _, part := range [][]*record.Record{gone[:25], gone[25:]} {
		for _, o := range outcomes(put(t, s, part...)) {
			count[o]++
		}
	}
	if diff := cmp.Diff(map[string]int{"written": 21, "dead cassandra.tombstones": 39}, count); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	left := map[string]int{}
	var bucket string
	for iter := db.query("SELECT bucket FROM %s").Iter(); iter.Scan(&bucket); {
		left[bucket]++
	}
	if diff := cmp.Diff(map[string]int{"b0": 13, "b1": 13, "b2": 13}, left); diff != "" {
		t.Errorf("rows left (-want +got):\n%s", diff)
	}
	// The next run has a budget of its own.
	next := NewSink(db.config(db.table, func(c *SinkConfig) { c.Deletes = &Deletes{PerPartition: 7} }))
	defer next.Close()
	var dead []*record.Record
	for _, r := range gone {
		dead = append(dead, r)
	}
	count = map[string]int{}
	for _, o := range outcomes(put(t, next, dead...)) {
		count[o]++
	}
	if count["written"] != 21 {
		t.Errorf("the next run: %v", count)
	}
}

// What is written again counts once.
func TestTombstonesCountOnce(t *testing.T) {
	b := newTombstones(&Deletes{PerPartition: 2})
	rows := []*record.Record{asset(1, 1, ""), asset(2, 1, ""), asset(3, 1, "")}
	for _, r := range []*record.Record{rows[0], rows[0], rows[1], rows[0]} {
		if err := b.take([]byte("p"), r); err != nil {
			t.Fatal(err)
		}
	}
	if b.take([]byte("p"), rows[2]) == nil {
		t.Error("a third row is deleted")
	}
	if err := b.take([]byte("q"), rows[2]); err != nil {
		t.Errorf("another partition: %v", err)
	}
	for _, r := range rows {
		b.settle(r)
	}
	if len(b.taken) != 0 {
		t.Errorf("%d records are remembered", len(b.taken))
	}
	if newTombstones(nil) != nil || newTombstones(&Deletes{}) != nil {
		t.Error("a budget that nobody asked for")
	}
}
