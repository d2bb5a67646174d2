package cassandraio

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/record"
)

const benchRows, benchBucket = 20_000, 1000

// The sink, and a loop as one would write it by hand with the same driver: as many requests under way, each an
// unlogged batch of as many rows of one partition.
func BenchmarkWrite(b *testing.B) {
	db := newDatabase(b, services.Need(b, services.Cassandra))
	db.exec(b, assetsTable)
	records := make([]*record.Record, benchRows)
	for i := range records {
		r := asset(int64(i), 1000, fmt.Sprintf("the title of asset %d", i))
		r.Values[0] = record.String(fmt.Sprintf("bucket-%d", i/benchBucket))
		r.Values[3] = record.Number(record.BigInt, int64(i))
		r.Values[4] = textsOf(record.Set, "red", "round")
		r.Values[5] = textsOf(record.Map, "camera", "X100", "iso", "400")
		records[i] = r
	}
	s := NewSink(db.config(db.table, nil))
	defer s.Close()

	b.Run("sink", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w, err := s.Open(b.Context(), connector.Run{}, assets, func(results []connector.Result) {
				for _, r := range results {
					if r.Err != nil {
						b.Error(r.Err)
					}
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range records {
				if err := w.Write(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			w.Close()
		}
		b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("loop", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			batches := make(chan *gocql.Batch)
			var workers sync.WaitGroup
			for range 16 {
				workers.Go(func() {
					for batch := range batches {
						if err := db.session.ExecuteBatch(batch); err != nil {
							b.Error(err)
						}
					}
				})
			}
			insert := fmt.Sprintf("INSERT INTO %s.%s (bucket, id, title, size, tags, attrs) VALUES (?, ?, ?, ?, ?, "+
				"?) USING TIMESTAMP ? AND TTL ?", db.keyspace, db.table)
			for i := 0; i < benchRows; i += 100 {
				batch := db.session.NewBatch(gocql.UnloggedBatch).WithContext(b.Context())
				for n := i; n < i+100; n++ {
					batch.Query(insert, fmt.Sprintf("bucket-%d", n/benchBucket), n,
						fmt.Sprintf("the title of asset %d", n), n, []string{"red", "round"},
						map[string]string{"camera": "X100", "iso": "400"}, int64(1000), 0)
				}
				batches <- batch
			}
			close(batches)
			workers.Wait()
		}
		b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	})
}
