package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A worker records what it has finished; another attempt finds it, and the worker of the attempt before is shut out.
func Example() {
	folder, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(folder)
	ctx := context.Background()
	j, _ := journal.Open(ctx, journal.Config{SQLite: filepath.Join(folder, "journal.db")})
	defer j.Close()
	_ = j.Begin(ctx, journal.Run{ID: "r1", Job: "backfill", JobFile: []byte("{}")})

	first, _ := j.Attempt(ctx, "r1")
	finish := func(start, end string, n int64) error {
		return j.Record(ctx, "r1", first,
			journal.Batch{Done: []journal.Done{{Sink: "lake", Partition: "image/2024-05",
				Start: []byte(start), End: []byte(end),
				Sum: journal.Sum{Read: n, Outcomes: record.Counts{record.Written: n}}}}})
	}
	_ = finish("a", "f", 5000)
	_ = finish("f", "k", 5000)
	fmt.Println(fail.CodeOf(finish("j", "m", 5000)))

	second, _ := j.Attempt(ctx, "r1")
	for d := range j.Finished(ctx, "r1") {
		fmt.Printf("attempt %d: %s has %s(%s..%s]: %d records\n", second, d.Sink, d.Partition,
			d.Start, d.End, d.Sum.Read)
	}
	fmt.Println(fail.CodeOf(finish("k", "m", 5000)))
	// Output:
	// journal.overlap
	// attempt 2: lake has image/2024-05(a..k]: 10000 records
	// journal.fenced
}
