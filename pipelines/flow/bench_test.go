package flow

import (
	"context"
	"encoding/binary"
	"runtime/debug"
	"testing"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/transforms/record"
)

// many is a source of so many rows of one partition, which costs next to nothing.
type many struct {
	connector.Source
	rows int
}

func (m many) Close() error { return nil }

func (m many) Read(_ context.Context, _ connector.Split, page func(connector.Page) error) error {
	const size = 500
	pattern := iotest.Record(assets, 1, iotest.Base)
	bytes := int64(pattern.Size())
	for n := 0; n < m.rows; n += size {
		rows := make([]record.Record, size)
		p := connector.Page{Last: binary.BigEndian.AppendUint64(nil, uint64(n)), Bytes: size * bytes}
		for i := range rows {
			rows[i] = *pattern
			p.Records = append(p.Records, &rows[i])
		}
		if err := page(p); err != nil {
			return err
		}
	}
	return nil
}

// nowhere is a sink that writes at once.
type nowhere struct{ connector.Sink }

func (nowhere) Close() error { return nil }

func (nowhere) Open(ctx context.Context, _ connector.Run, _ *record.Schema, settle connector.Settle) (
	connector.Writer, error) {
	write := func(_ context.Context, batch []*record.Record) []connector.Result {
		return make([]connector.Result, len(batch))
	}
	limits := connector.BatchLimits{Rows: 1000, Bytes: 1 << 20, InFlight: 4}
	return connector.NewBatcher(ctx, limits, connector.DefaultRetry, write, settle), nil
}

// BenchmarkPass is what the engine itself costs for a row at two sinks.
func BenchmarkPass(b *testing.B) {
	w := newWorld(b, 1)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(w.job.Limits.Memory))) // as a worker has it
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	w.job.Limits.Readers = 1
	w.setting = func(s *Setting) { s.Window = 20_000 }
	w.source = func(connector.Source) connector.Source { return many{rows: b.N} }
	w.sink = func(name string, s connector.Sink) connector.Sink {
		if name == "queue" {
			return s
		}
		return nowhere{}
	}
	b.ReportAllocs()
	b.ResetTimer()
	if r := w.must(); r.State != journal.Complete {
		b.Fatalf("%+v", r)
	}
}
