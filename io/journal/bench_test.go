package journal_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"reprise/io/journal"
)

// benchmark measures what is called often: Record with ten entries, each of which carries
// on with an interval of before.
func benchmark(b *testing.B, c journal.Config) {
	j := open(b, c)
	run := attempt(b, j)
	n := uint32(0)
	at := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	record := func(b *testing.B, letters int) {
		for b.Loop() {
			var batch journal.Batch
			for i := range 10 {
				batch.Done = append(batch.Done, done(fmt.Sprint("sink", i%5),
					fmt.Sprint("image/2024-0", i/5), at(n), at(n+1), 5000))
			}
			for range letters {
				batch.Letters = append(batch.Letters,
					journal.Letter{ID: fmt.Sprint("id", n), Step: "enrich", Code: "cel.type", Message: "no field",
						At: time.Now(), State: journal.Waits})
			}
			if err := j.Record(b.Context(), run, 1, batch); err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	b.Run("record", func(b *testing.B) { record(b, 0) })
	b.Run("record with a letter", func(b *testing.B) { record(b, 1) })
	b.Run("control", func(b *testing.B) {
		for b.Loop() {
			if _, err := j.Control(b.Context(), run); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("beat", func(b *testing.B) {
		for b.Loop() {
			if err := j.Beat(b.Context(), run, journal.Beat{Worker: "w", Attempt: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("beats", func(b *testing.B) {
		for b.Loop() {
			if _, err := j.Beats(b.Context(), run); err != nil {
				b.Fatal(err)
			}
		}
	})
}
