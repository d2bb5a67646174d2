package icebergio

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// corpusSchema is that of an asset: 16 fields of the usual types, about 300 bytes.
func corpusSchema() *record.Schema {
	text := record.Of(record.Text)
	return record.MustSchema([]record.Field{
		{Name: "asset_type", Type: text}, {Name: "bucket", Type: text}, {Name: "id", Type: record.Of(record.TimeUUID)},
		{Name: "title", Type: text}, {Name: "description", Type: text}, {Name: "owner", Type: record.Of(record.UUID)},
		{Name: "size", Type: record.Of(record.BigInt)}, {Name: "width", Type: record.Of(record.Int)},
		{Name: "height", Type: record.Of(record.Int)},
		{Name: "created", Type: record.Of(record.Timestamp)}, {Name: "updated", Type: record.Of(record.Timestamp)},
		{Name: "price", Type: record.Of(record.Decimal)}, {Name: "licensed", Type: record.Of(record.Boolean)},
		{Name: "checksum", Type: record.Of(record.Blob)}, {Name: "tags", Type: record.SetOf(text)},
		{Name: "attrs", Type: record.MapOf(text, text)},
	}, "asset_type", "bucket", "id")
}

var words = []string{"sunset", "river", "Grüße", "portrait", "city", "night", "forest", "studio", "archive",
	"drone", "winter", "日本"}

// corpusRecord is the n-th record.
func corpusRecord(s *record.Schema, n int) *record.Record {
	h := uint64(n)*0x9e3779b97f4a7c15 ^ 0x5bf03635
	word := func(i int) string { return words[(h>>(i*4))%uint64(len(words))] }
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], h)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	owner := string(b[:])
	b[6] = b[6]&0x0f | 0x10
	text := func(n int) record.Value {
		var t []byte
		for i := 0; len(t) < n; i++ {
			t = append(append(t, word(i)...), ' ')
			t = strconv.AppendUint(t, h>>(i%40), 36)
		}
		return record.String(string(t))
	}
	at := int64(1_700_000_000_000) + int64(n)*137
	return &record.Record{Schema: s, Version: at * 1000, Origin: record.Origin{Split: "bench"}, Values: []record.Value{
		record.String([]string{"image", "video", "audio", "text"}[n/50_000%4]),
		record.String(fmt.Sprintf("2024-%02d", n/10_000%12+1)),
		record.Bytes(record.TimeUUID, string(b[:])), text(30), text(110), record.Bytes(record.UUID, owner),
		record.Number(record.BigInt, int64(h>>30)), record.Number(record.Int, int64(h%8000)),
		record.Number(record.Int, int64(h>>13%8000)),
		record.Number(record.Timestamp, at), record.Number(record.Timestamp, at+int64(h%1e6)),
		record.Dec(record.VarintBytes(big.NewInt(int64(h%1e7))), 2), record.Bool(h&1 == 0),
		record.Bytes(record.Blob, owner),
		record.Nested(record.Set, []record.Value{record.String(word(1)), record.String(word(2))}),
		record.Nested(record.Map, []record.Value{record.String("camera"), record.String(word(3)), record.String("mood"),
			record.String(word(5))}),
	}}
}

// BenchmarkWriter tells rows/s, the speed by CPU time as a ratio to iceberg-go fed with the same rows as Arrow batches
// made before, and the peak of resident memory. One iteration writes ICEBERG_ROWS rows (100,000).
func BenchmarkWriter(b *testing.B) {
	rows := 100_000
	if n, err := strconv.Atoi(os.Getenv("ICEBERG_ROWS")); err == nil {
		rows = n
	}
	for _, partition := range [][]string{nil, {"asset_type", "bucket"}, {"bucket(16, id)"}} {
		b.Run(fmt.Sprint(partition), func(b *testing.B) {
			for b.Loop() {
				benchmarkWriter(b, rows, SinkConfig{Partition: partition})
			}
		})
	}
}

func benchmarkWriter(b *testing.B, rows int, c SinkConfig) {
	ctx := b.Context()
	dir := b.TempDir()
	c.Catalog, c.Table, c.Create = CatalogConfig{SQLite: filepath.Join(dir, "catalog.db"), Warehouse: dir},
		"bench.assets", true
	schema, run := corpusSchema(), connector.Run{ID: "bench", Job: "bench"}
	s := NewSink(c)
	defer s.Close()
	if err := s.Prepare(ctx, run, schema, false); err != nil {
		b.Fatal(err)
	}
	debug.FreeOSMemory()
	before := residentMemory(b, "VmRSS:")
	rss := peakRSS(b)
	began, cpu := time.Now(), cpuTime(b)
	w, err := s.Open(ctx, run, schema, func([]connector.Result) {})
	if err != nil {
		b.Fatal(err)
	}
	var making time.Duration // the time that the records themselves take
	var chunk []*record.Record
	for n := 0; n < rows; n += 5000 {
		at := cpuTime(b)
		chunk = chunk[:0]
		for i := range 5000 {
			chunk = append(chunk, corpusRecord(schema, n+i))
		}
		making += cpuTime(b) - at
		for _, r := range chunk {
			if err := w.Write(ctx, r); err != nil {
				b.Fatal(err)
			}
		}
	}
	parts, err := w.Flush(ctx)
	if err != nil {
		b.Fatal(err)
	}
	cpu = cpuTime(b) - cpu - making
	b.ReportMetric(float64(rows)/time.Since(began).Seconds(), "rows/s")
	b.ReportMetric(float64(rss())/1e6, "MB-peak")
	b.ReportMetric(float64(before)/1e6, "MB-before")
	b.ReportMetric(float64(len(parts)), "files")
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	if c.Partition != nil {
		return
	}
	bare := bareWrite(b, ctx, s, schema, run, rows)
	b.ReportMetric(float64(bare)/float64(cpu), "ratio-to-bare")
}

// BenchmarkCheckpoint is what a file costs beyond its rows.
func BenchmarkCheckpoint(b *testing.B) {
	for _, rows := range []int{1, 250, 1000} {
		b.Run(fmt.Sprintf("%d rows", rows), func(b *testing.B) {
			s, schema, run := newSink(b, local(b)), corpusSchema(), newRun()
			if err := s.Prepare(b.Context(), run, schema, false); err != nil {
				b.Fatal(err)
			}
			w, err := s.Open(b.Context(), run, schema, func([]connector.Result) {})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			for b.Loop() {
				for i := range rows {
					if err := w.Write(b.Context(), corpusRecord(schema, i)); err != nil {
						b.Fatal(err)
					}
				}
				if parts, err := w.Checkpoint(b.Context()); err != nil || len(parts) != 1 {
					b.Fatal(parts, err)
				}
			}
		})
	}
}

// bareWrite is the time that iceberg-go takes for batches that were made before.
func bareWrite(b *testing.B, ctx context.Context, s *Sink, schema *record.Schema, run connector.Run,
	rows int) time.Duration {
	t, err := s.find(ctx)
	if err != nil {
		b.Fatal(err)
	}
	l, err := newLayout(t, schema, s.config, run)
	if err != nil {
		b.Fatal(err)
	}
	if t, _, err = s.config.writable(t, 1); err != nil {
		b.Fatal(err)
	}
	var batches []arrow.RecordBatch
	builder := l.newBatcher()
	for n := 0; n < rows; n += 5000 {
		var records []*record.Record
		for i := range 5000 {
			records = append(records, corpusRecord(schema, n+i))
		}
		batch, err := builder.batch(records)
		if err != nil {
			b.Fatal(err)
		}
		batches = append(batches, batch)
	}
	began := cpuTime(b)
	for _, err := range table.WriteRecords(ctx, t, l.arrow, func(yield func(arrow.RecordBatch, error) bool) {
		for batch := range slices.Values(batches) {
			if !yield(batch, nil) {
				return
			}
		}
	}, table.WithRecordBatchBufferSize(2)) {
		if err != nil {
			b.Fatal(err)
		}
	}
	return cpuTime(b) - began
}

// cpuTime is what the process has used, which other processes on the machine do not change.
func cpuTime(b *testing.B) time.Duration { return usedBy(b, syscall.RUSAGE_SELF) }

func usedBy(b *testing.B, who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS begins a measurement of the peak of resident memory; what it returns ends it.
func peakRSS(b *testing.B) func() int64 {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return func() int64 { return residentMemory(b, "VmHWM:") }
}

func residentMemory(b *testing.B, line string) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte(line))
	kb, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb << 10
}

// BenchmarkMerge tells how many rows/s the commit of an upsert compares: as many are in the table as the run brings,
// half of either lose. ICEBERG_ROWS rows (100,000) each, in memory and with temporary files, and for comparison what
// rewriting the table takes: copy-on-write.
func BenchmarkMerge(b *testing.B) {
	rows := 100_000
	if n, err := strconv.Atoi(os.Getenv("ICEBERG_ROWS")); err == nil {
		rows = n
	}
	for _, memory := range []connector.Bytes{0, 1 << 20} {
		b.Run(fmt.Sprintf("memory %d", memory), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := local(b)
				c.Mode, c.MergeMemory = modeUpsert, memory
				schema := corpusSchema()
				record := func(run, n int) *record.Record {
					r := corpusRecord(schema, n)
					r.Version += int64(run * (n%2*2 - 1))
					return r
				}
				s := newSink(b, c)
				for run := range 2 {
					id := newRun()
					if err := s.Prepare(b.Context(), id, schema, false); err != nil {
						b.Fatal(err)
					}
					w, err := s.Open(b.Context(), id, schema, func([]connector.Result) {})
					if err != nil {
						b.Fatal(err)
					}
					began := time.Now()
					for n := range rows {
						if err := w.Write(b.Context(), record(run, n)); err != nil {
							b.Fatal(err)
						}
					}
					parts, err := w.Flush(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					w.Close()
					if run == 1 {
						b.ReportMetric(time.Since(began).Seconds(), "s/writing")
						b.StartTimer()
						began = time.Now()
					}
					rss := peakRSS(b)
					if _, err := s.Commit(b.Context(), id, schema, parts); err != nil {
						b.Fatal(err)
					}
					if run == 1 {
						b.ReportMetric(2*float64(rows)/time.Since(began).Seconds(), "rows/s")
						b.ReportMetric(float64(rss())/(1<<20), "MiB")
					}
				}
				b.StopTimer()
				sizes := map[bool]int64{}
				tasks, err := tables.PlanFiles(b.Context(), current(b, s), connector.DefaultRetry)
				if err != nil {
					b.Fatal(err)
				}
				for _, task := range tasks {
					sizes[false] += task.File.FileSizeBytes()
					for _, d := range task.DeleteFiles {
						sizes[true] += d.FileSizeBytes()
					}
				}
				b.ReportMetric(float64(sizes[false])/float64(2*rows), "B/row")
				b.ReportMetric(float64(sizes[true])/float64(rows), "B/delete")
				b.StartTimer()
			}
		})
	}
}

// BenchmarkUpsertWays compares ways to carry an upsert out, on the same data: ICEBERG_ROWS rows (100,000) in the
// table meet as many of the same keys, half of either losing. The ways are what the sink does; equality deletes of
// all keys that the run writes, which also take rows that are newer; and the sink's comparison, but with the files
// written anew that have rows which lose. Then the table is read whole: by iceberg-go, and by Iceberg's own library
// with the start of its Java machine.
func BenchmarkUpsertWays(b *testing.B) {
	rows := 100_000
	if n, err := strconv.Atoi(os.Getenv("ICEBERG_ROWS")); err == nil {
		rows = n
	}
	for _, way := range []string{"positions", "equality deletes", "copy-on-write"} {
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				c := local(b)
				c.Mode = modeUpsert
				schema, s := corpusSchema(), newSink(b, c)
				write := func(run int) (connector.Run, [][]byte) {
					id := newRun()
					if err := s.Prepare(b.Context(), id, schema, false); err != nil {
						b.Fatal(err)
					}
					w, err := s.Open(b.Context(), id, schema, func([]connector.Result) {})
					if err != nil {
						b.Fatal(err)
					}
					defer w.Close()
					for n := range rows {
						r := corpusRecord(schema, n)
						r.Version += int64(run * (n%2*2 - 1))
						if err := w.Write(b.Context(), r); err != nil {
							b.Fatal(err)
						}
					}
					parts, err := w.Flush(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					return id, parts
				}
				id, parts := write(0)
				if _, err := s.Commit(b.Context(), id, schema, parts); err != nil {
					b.Fatal(err)
				}
				id, parts = write(1)
				began, cpu := time.Now(), cpuTime(b)
				if way == "equality deletes" {
					commitEqual(b, s, parts)
				} else if _, err := s.Commit(b.Context(), id, schema, parts); err != nil {
					b.Fatal(err)
				}
				if way == "copy-on-write" {
					compactAll(b, s)
				}
				b.ReportMetric(time.Since(began).Seconds(), "s/commit")
				b.ReportMetric((cpuTime(b) - cpu).Seconds(), "CPU-s/commit")

				tasks, err := tables.PlanFiles(b.Context(), current(b, s), connector.DefaultRetry)
				if err != nil {
					b.Fatal(err)
				}
				files, size := map[string]bool{}, int64(0)
				for _, task := range tasks {
					files[task.File.FilePath()] = true
					for _, d := range slices.Concat(task.DeleteFiles, task.EqualityDeleteFiles) {
						if !files[d.FilePath()] {
							size += d.FileSizeBytes()
						}
						files[d.FilePath()] = true
					}
				}
				b.ReportMetric(float64(len(files)), "files")
				b.ReportMetric(float64(size)/1e3, "kB-of-deletes")

				began, cpu = time.Now(), cpuTime(b)
				_, batches, err := current(b, s).Scan(table.WithMaxConcurrency(1)).ToArrowRecords(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				found := int64(0)
				for batch, err := range batches {
					if err != nil {
						b.Fatal(err)
					}
					found += batch.NumRows()
					batch.Release()
				}
				if found != int64(rows) {
					b.Fatalf("%d rows, want %d", found, rows)
				}
				b.ReportMetric(time.Since(began).Seconds(), "s/scan")
				b.ReportMetric((cpuTime(b) - cpu).Seconds(), "CPU-s/scan")
				began, cpu = time.Now(), usedBy(b, syscall.RUSAGE_CHILDREN)
				if n := len(services.ReadIceberg(b, reader(c))); n != rows {
					b.Fatalf("%d rows, want %d", n, rows)
				}
				b.ReportMetric(time.Since(began).Seconds(), "s/Java")
				b.ReportMetric((usedBy(b, syscall.RUSAGE_CHILDREN) - cpu).Seconds(), "CPU-s/Java")
			}
		})
	}
}

// commitEqual adds staged files with equality deletes of all their keys.
func commitEqual(b *testing.B, s *Sink, parts [][]byte) {
	t := current(b, s)
	staged, err := decodeParts(t, parts, nil)
	if err != nil {
		b.Fatal(err)
	}
	ids := t.Schema().IdentifierFieldIDs
	var names []string
	for _, id := range ids {
		name, _ := t.Schema().FindColumnName(id)
		names = append(names, name)
	}
	var tasks []table.FileScanTask
	for _, df := range staged.files {
		tasks = append(tasks, table.FileScanTask{File: df, Length: df.FileSizeBytes()})
	}
	_, keys, err := t.Scan(table.WithSelectedFields(names...), table.WithMaxConcurrency(1)).
		ReadTasks(b.Context(), tasks)
	if err != nil {
		b.Fatal(err)
	}
	tx := t.NewTransaction()
	deletes, err := tx.WriteEqualityDeletes(b.Context(), ids, keys)
	if err == nil {
		err = tx.NewRowDelta(nil).AddRows(staged.files...).AddDeletes(deletes...).Commit(b.Context())
	}
	if err == nil {
		_, err = tx.Commit(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
}
