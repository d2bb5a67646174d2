package cassandraio

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/runners/services"
)

// One bucket has half of all rows, which came in bursts; every row is in one split, and none is larger than wanted.
func TestPlanOfASkewedTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (asset_type text, bucket int, id timeuuid, title text, PRIMARY KEY ((asset_type, "+
		"bucket), id)) WITH CLUSTERING ORDER BY (id DESC)")
	const total, target = 24_000, 2000
	r := rand.New(rand.NewPCG(1, 1))
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	batches := map[int][][]any{}
	for i := range total {
		bucket, at := 0, r.Float64()
		if r.IntN(2) == 1 { // in five imports of three hours each
			at = 0.1 + float64(r.IntN(5))*0.17 + r.Float64()/240
		}
		if i%2 == 1 {
			bucket, at = 1+r.IntN(30), r.Float64()
		}
		id := gocql.UUIDFromTime(start.Add(time.Duration(at * float64(30*24*time.Hour))))
		binary.BigEndian.PutUint64(id[8:], uint64(i))
		batches[bucket] = append(batches[bucket], []any{"image", bucket, id, fmt.Sprintf("title %d", i)})
	}
	for _, rows := range batches {
		for chunk := range slices.Chunk(rows, 200) {
			b := db.session.NewBatch(gocql.UnloggedBatch)
			for _, args := range chunk {
				b.Query("INSERT INTO "+db.keyspace+"."+db.table+" (asset_type, bucket, id, title) VALUES (?, ?, ?, ?)",
					args...)
			}
			if err := db.session.ExecuteBatch(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, change := range map[string]func(*SourceConfig){"buckets": discover, "ring": nil} {
		s := db.source(t, change)
		found, splits := collect(t, s, connector.PlanOptions{Rows: target})
		if len(found) != total {
			t.Errorf("%s: %d rows, want %d", name, len(found), total)
		}
		counts := map[string]int64{}
		for _, r := range found {
			counts[r.Origin.Split]++
		}
		estimated := int64(0)
		for _, sp := range splits {
			estimated += sp.Rows
			if sp.Bytes < 50*sp.Rows {
				t.Errorf("%s: split %s has %d rows and %d bytes", name, sp, sp.Rows, sp.Bytes)
			}
			if n := counts[sp.String()]; n > target && name == "buckets" {
				t.Errorf("%s: split %s has %d rows, was planned with %d", name, sp, n, sp.Rows)
			}
		}
		if estimated < total*2/3 || estimated > total*3/2 {
			t.Logf("%s: %d rows were estimated as %d", name, total, estimated)
		}
		t.Logf("%s: %d splits", name, len(splits))
	}
}
