package cassandraio

import (
	"fmt"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/runners/services"
)

// BenchmarkRead reads the same rows by a source and by a loop over gocql that scans into typed variables.
func BenchmarkRead(b *testing.B) {
	db := newDatabase(b, services.Need(b, services.Cassandra))
	db.exec(b, `CREATE TABLE %s (asset_type text, bucket text, id timeuuid, title text, status text, size bigint, width int, height int,
		score double, created timestamp, owner uuid, tags set<text>, attrs map<text, text>, PRIMARY KEY ((asset_type, bucket), id)) WITH CLUSTERING ORDER BY (id DESC)`)
	const buckets, perBucket = 5, 10_000
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for bucket := range buckets {
		for from := 0; from < perBucket; from += 100 {
			batch := db.session.NewBatch(gocql.UnloggedBatch)
			for i := from; i < from+100; i++ {
				batch.Query("INSERT INTO "+db.keyspace+"."+db.table+` (asset_type, bucket, id, title, status, size, width, height, score, created, owner, tags, attrs)
					VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, "image", fmt.Sprintf("2024-%02d", bucket+1), gocql.UUIDFromTime(start.Add(time.Duration(i)*time.Second)),
					fmt.Sprintf("title of the asset number %d", i), "active", int64(i), 1920, 1080, 0.5,
					start, gocql.TimeUUID(),
					[]string{"red", "green", "blue"}, map[string]string{"camera": "x100", "lens": "35mm", "iso": "400"})
			}
			if err := db.session.ExecuteBatch(batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	report := func(b *testing.B, rows int) {
		if rows != b.N*buckets*perBucket {
			b.Fatalf("%d rows", rows)
		}
		b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	}
	read := func(change func(*SourceConfig)) func(b *testing.B) {
		return func(b *testing.B) {
			s := db.source(b, change)
			var splits []connector.Split
			if err := s.Plan(b.Context(), connector.PlanOptions{Rows: 20_000},
				func(sp connector.Split) error { splits = append(splits, sp); return nil }); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			rows := 0
			for b.Loop() {
				for _, sp := range splits {
					if err := s.Read(b.Context(), sp,
						func(p connector.Page) error { rows += len(p.Records); return nil }); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b, rows)
		}
	}
	loop := func(extra string, more int) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			rows := 0
			for b.Loop() {
				for bucket := range buckets {
					iter := db.session.Query("SELECT id, title, status, size, width, height, score, created, owner, "+
						"tags, attrs"+extra+" FROM "+db.keyspace+"."+db.table+
						" WHERE asset_type = ? AND bucket = ?", "image", fmt.Sprintf("2024-%02d", bucket+1)).Iter()
					var (
						id, owner     gocql.UUID
						title, status string
						size          int64
						width, height int
						score         float64
						created       time.Time
						tags          []string
						attrs         map[string]string
					)
					times := make([]int64, more)
					dest := []any{&id, &title, &status, &size, &width, &height, &score, &created, &owner, &tags, &attrs}
					for i := range times {
						dest = append(dest, &times[i])
					}
					for iter.Scan(dest...) {
						rows++
					}
					if err := iter.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b, rows)
		}
	}
	times := ""
	for _, c := range []string{"title", "status", "size", "width", "height", "score", "created",
		"owner", "tags", "attrs"} {
		times += ", MAXWRITETIME(" + c + ")"
	}
	for _, bench := range []struct {
		name string
		run  func(b *testing.B)
	}{
		{"loop", loop("", 0)},
		{"loop with write times", loop(times, 10)},
		{"source", read(discover)},
		{"source, version from a column",
			read(func(c *SourceConfig) { c.Buckets, c.Version = &Buckets{Discover: true}, "created" })},
		{"source, with expiry", read(func(c *SourceConfig) { c.Buckets, c.Expiry = &Buckets{Discover: true}, true })},
		{"source, ring", read(nil)},
	} {
		b.Run(bench.name, bench.run)
	}
}
