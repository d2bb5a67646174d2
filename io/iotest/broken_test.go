package iotest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// brokenSink is a sink with some methods replaced.
type brokenSink struct {
	connector.Sink
	settle  func(connector.Settle) connector.Settle
	writer  func(connector.Writer, connector.Settle) connector.Writer
	prepare func(dry bool) error
	run     func(connector.Run) connector.Run     // that writers are opened for
	context func(context.Context) context.Context // that writers are opened with
}

func (s brokenSink) Prepare(ctx context.Context, run connector.Run, schema *record.Schema, dry bool) error {
	if s.prepare != nil {
		if err := s.prepare(dry); err != nil {
			return err
		}
	}
	return s.Sink.Prepare(ctx, run, schema, dry)
}

func (s brokenSink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	if s.settle != nil {
		settle = s.settle(settle)
	}
	if s.context != nil {
		ctx = s.context(ctx)
	}
	if s.run != nil {
		run = s.run(run)
	}
	w, err := s.Sink.Open(ctx, run, schema, settle)
	if s.writer != nil && err == nil {
		w = s.writer(w, settle)
	}
	return w, err
}

// brokenCommitter also commits, in its own way.
type brokenCommitter struct {
	brokenSink
	commit func(c connector.Committer, run connector.Run, parts [][]byte) (int64, error)
}

func (s brokenCommitter) Commit(
	ctx context.Context, run connector.Run, schema *record.Schema, parts [][]byte,
) (int64, error) {
	return s.commit(s.Sink.(connector.Committer), run, parts)
}

type brokenWriter struct {
	connector.Writer
	write      func(ctx context.Context, r *record.Record) error
	checkpoint func(ctx context.Context) ([][]byte, error)
	flush      func(ctx context.Context) ([][]byte, error)
	close      func() error
}

func (w brokenWriter) Write(ctx context.Context, r *record.Record) error {
	if w.write != nil {
		return w.write(ctx, r)
	}
	return w.Writer.Write(ctx, r)
}

func (w brokenWriter) Checkpoint(ctx context.Context) ([][]byte, error) {
	if w.checkpoint != nil {
		return w.checkpoint(ctx)
	}
	return w.Writer.Checkpoint(ctx)
}

func (w brokenWriter) Flush(ctx context.Context) ([][]byte, error) {
	if w.flush != nil {
		return w.flush(ctx)
	}
	return w.Writer.Flush(ctx)
}

func (w brokenWriter) Close() error {
	if w.close != nil {
		return errors.Join(w.close(), w.Writer.Close())
	}
	return w.Writer.Close()
}

// each lets f change every result before it is settled.
func each(f func(r connector.Result) (connector.Result, bool)) func(connector.Settle) connector.Settle {
	return func(settle connector.Settle) connector.Settle {
		return func(results []connector.Result) {
			var kept []connector.Result
			for _, r := range results {
				if r, ok := f(r); ok {
					kept = append(kept, r)
				}
			}
			settle(kept)
		}
	}
}

// title replaces the record's title before it is stored.
func title(f func(string) record.Value) func(*Memory, *record.Record) record.Outcome {
	return func(m *Memory, r *record.Record) record.Outcome {
		c := r.Clone()
		if c.Values[2].Kind() == record.Text {
			c.Values[2] = f(c.Values[2].Str())
		}
		return m.store(c)
	}
}

var errOdd = errors.New("something odd")

// brokenGate stands before the gate of a context.
type brokenGate struct {
	context.Context
	enter func(enter func() (leave func(int, int64, error), err error)) (func(int, int64, error), error)
}

func (g brokenGate) Enter(ctx context.Context, records int, bytes int64) (func(int, int64, error), error) {
	return g.enter(func() (func(int, int64, error), error) {
		leave, _, err := connector.Enter(g.Context, records, bytes)
		return leave, err
	})
}

// gateBroken is the context with another way through its gate.
func gateBroken(enter func(enter func() (func(int, int64, error), error)) (func(int, int64, error),
	error)) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context { return connector.WithGate(ctx, brokenGate{ctx, enter}) }
}

// leaving changes how the gate is left.
func leaving(f func(leave func(int, int64, error), records int, bytes int64,
	err error)) func(context.Context) context.Context {
	return gateBroken(func(enter func() (func(int, int64, error), error)) (func(int, int64, error), error) {
		leave, err := enter()
		return func(records int, bytes int64, err error) { f(leave, records, bytes, err) }, err
	})
}

// noGate lets everything pass.
func noGate(ctx context.Context) context.Context {
	return connector.WithGate(ctx, NewGate())
}

type brokenCase struct {
	name  string
	check string
	apply func(*Memory, *record.Record) record.Outcome
	wrap  func(m *Memory, s connector.Sink) connector.Sink
	set   func(*Memory)
}

var brokenSinks = []brokenCase{
	{name: "a dry Prepare clears the table", check: "prepare", wrap: func(m *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, prepare: func(dry bool) error { m.rows = map[string]*record.Record{}; return nil }}
	}},
	{name: "a second Prepare fails", check: "prepare", wrap: func() func(*Memory, connector.Sink) connector.Sink {
		prepared := 0
		return func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, prepare: func(bool) error {
				if prepared++; prepared > 1 {
					return errOdd
				}
				return nil
			}}
		}
	}()},
	{name: "a result is lost", check: "write", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, settle: each(func(r connector.Result) (connector.Result, bool) {
			return r, r.Record.KeyText() != "text-000200"
		})}
	}},
	{name: "results come twice", check: "write", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, settle: func(settle connector.Settle) connector.Settle {
			return func(r []connector.Result) { settle(r); settle(r[:1]) }
		}}
	}},
	{name: "results come after Flush", check: "write", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		var late []connector.Result
		var mu sync.Mutex
		var final connector.Settle
		return brokenSink{Sink: s, settle: func(settle connector.Settle) connector.Settle {
			final = settle
			return func(r []connector.Result) { mu.Lock(); defer mu.Unlock(); late = append(late, r...) }
		}, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
			return brokenWriter{Writer: w, close: func() error { final(late); late = nil; return nil }}
		}}
	}},
	{name: "a result has an error and no outcome", check: "write",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s,
				settle: each(func(r connector.Result) (connector.Result, bool) { r.Err = errOdd; return r, true })}
		}},
	{name: "a sink needs Prepare before Open", check: "write", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		prepared := false
		return brokenSink{Sink: s, prepare: func(bool) error { prepared = true; return nil },
			writer: func(w connector.Writer, settle connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, write: func(ctx context.Context, r *record.Record) error {
					if !prepared {
						return errOdd
					}
					return w.Write(ctx, r)
				}}
			}}
	}},
	{name: "parts without Commit", check: "write", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
			return brokenWriter{Writer: w, flush: func(ctx context.Context) ([][]byte, error) {
				_, err := w.Flush(ctx)
				return [][]byte{nil}, err
			}}
		}}
	}},
	{name: "a null in the place of an empty text", check: "values", apply: title(func(s string) record.Value {
		if s == "" {
			return record.NullValue
		}
		return record.String(s)
	})},
	{name: "control characters lost", check: "values",
		apply: title(func(s string) record.Value { return record.String(strings.ReplaceAll(s, "\x00", "")) })},
	{name: "long text cut", check: "values", apply: func(m *Memory, r *record.Record) record.Outcome {
		c := r.Clone()
		if text := c.Values[1].Str(); len(text) > 1<<16 {
			c.Values[1] = record.String(text[:1<<16])
		}
		return m.store(c)
	}},
	{name: "characters outside the first plane lost", check: "values",
		apply: title(func(s string) record.Value { return record.String(strings.ReplaceAll(s, "🎬", "?")) })},
	{name: "collections are appended to", check: "replace", apply: func(m *Memory, r *record.Record) record.Outcome {
		c := r.Clone()
		if old := m.rows[r.KeyText()]; old != nil {
			c.Values[4] = record.Nested(record.Set, append(old.Values[4].Elems(), c.Values[4].Elems()...))
		}
		return m.store(c)
	}},
	{name: "nulls are skipped", check: "replace", apply: func(m *Memory, r *record.Record) record.Outcome {
		c := r.Clone()
		if old := m.rows[r.KeyText()]; old != nil && c.Values[2].IsNull() {
			c.Values[2] = old.Values[2]
		}
		return m.store(c)
	}},
	{name: "the same version is superseded", check: "again", apply: func(m *Memory, r *record.Record) record.Outcome {
		if o := m.store(r); o == record.Written {
			return o
		}
		return record.Superseded
	}},
	{name: "the last write wins", check: "versions", apply: func(m *Memory, r *record.Record) record.Outcome {
		delete(m.rows, r.KeyText())
		return m.store(r)
	}},
	{name: "the first write wins", check: "versions", apply: func(m *Memory, r *record.Record) record.Outcome {
		if m.rows[r.KeyText()] != nil {
			return record.Superseded
		}
		return m.store(r)
	}},
	{name: "superseded is told as written", check: "versions",
		apply: func(m *Memory, r *record.Record) record.Outcome { m.store(r); return record.Written }},
	{name: "the last write wins over a live one", check: "live",
		apply: func(m *Memory, r *record.Record) record.Outcome {
			delete(m.rows, r.KeyText())
			return m.store(r)
		}},
	{name: "the floor is ignored", check: "floor", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, run: func(r connector.Run) connector.Run { r.Floor = 0; return r }}
	}},
	{name: "the floor wins over live writes", check: "floor", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, run: func(r connector.Run) connector.Run { r.Floor *= 2; return r }}
	}},
	{name: "deletes ignore versions", check: "deletes", apply: func(m *Memory, r *record.Record) record.Outcome {
		if r.Op == record.Delete {
			delete(m.rows, r.KeyText())
		}
		return m.store(r)
	}},
	{name: "deletes leave no trace", check: "deletes", apply: func(m *Memory, r *record.Record) record.Outcome {
		o := m.store(r)
		if m.rows[r.KeyText()].Op == record.Delete {
			delete(m.rows, r.KeyText())
		}
		return o
	}},
	{name: "deletes do nothing", check: "deletes", apply: func(m *Memory, r *record.Record) record.Outcome {
		if r.Op == record.Delete {
			return record.Written
		}
		return m.store(r)
	}},
	{name: "a refused record takes its neighbours along", check: "refused", set: func(m *Memory) {
		m.Refuse = func(r *record.Record) error { return fail.New(fail.Permanent, "memory.refused", "no") }
	}},
	{name: "a refused record is told as written", check: "refused", set: func(m *Memory) { m.Refuse = nil }},
	{name: "a refusal without a code", check: "refused", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, settle: each(func(r connector.Result) (connector.Result, bool) {
			if r.Err != nil {
				r.Err = fail.New(fail.Permanent, "", "no")
			}
			return r, true
		})}
	}},
	{name: "a refusal that could pass", check: "refused", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, settle: each(func(r connector.Result) (connector.Result, bool) {
			if r.Err != nil {
				r.Err = fail.New(fail.Transient, "memory.refused", "no")
			}
			return r, true
		})}
	}},
	{name: "one of many is not stored", check: "many", apply: func(m *Memory, r *record.Record) record.Outcome {
		if r.KeyText() == "text-004999" {
			return record.Written
		}
		return m.store(r)
	}},
	{name: "writers share their results", check: "writers", wrap: func() func(*Memory, connector.Sink) connector.Sink {
		var first connector.Settle
		var once sync.Once
		return func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, settle: func(settle connector.Settle) connector.Settle {
				once.Do(func() { first = settle })
				return first
			}}
		}
	}()},
	{name: "Flush does not hear a cancellation", check: "cancel",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, write: func(context.Context, *record.Record) error { return nil },
					flush: func(context.Context) ([][]byte, error) {
						time.Sleep(3 * time.Second) // longer than the check's patience
						return nil, nil
					}}
			}}
		}},
	{name: "Flush forgets what a cancellation left", check: "cancel",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, flush: func(ctx context.Context) ([][]byte, error) {
					parts, _ := w.Flush(ctx)
					return parts, nil
				}}
			}}
		}},
	{name: "a cancellation makes dead letters", check: "cancel",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, writer: func(w connector.Writer, settle connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, write: func(ctx context.Context, r *record.Record) error {
					if ctx.Err() != nil {
						settle([]connector.Result{{Record: r, Outcome: record.Dead, Err: errOdd, Attempts: 1}})
						return nil
					}
					return w.Write(ctx, r)
				}}
			}}
		}},
	{name: "writes are seen before Commit", check: "commit", wrap: func(m *Memory, s connector.Sink) connector.Sink {
		return brokenCommitter{brokenSink{Sink: s, settle: each(func(r connector.Result) (connector.Result, bool) {
			m.Load(r.Record)
			return r, true
		})}, commitAll}
	}},
	{name: "Commit commits nothing", check: "commit", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenCommitter{brokenSink{Sink: s},
			func(connector.Committer, connector.Run, [][]byte) (int64, error) { return 300, nil }}
	}},
	{name: "Commit commits one part alone", check: "commit", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenCommitter{brokenSink{Sink: s},
			func(c connector.Committer, run connector.Run, parts [][]byte) (int64, error) {
				return commitAll(c, run, parts[:min(1, len(parts))])
			}}
	}},
	{name: "Commit twice counts twice", check: "commit", wrap: func() func(*Memory, connector.Sink) connector.Sink {
		var total int64
		return func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenCommitter{brokenSink{Sink: s},
				func(c connector.Committer, run connector.Run, parts [][]byte) (int64, error) {
					n, err := commitAll(c, run, parts)
					total += n
					return total, err
				}}
		}
	}()},
	{name: "a part of more than 1 MiB", check: "commit", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenCommitter{brokenSink{Sink: s,
			writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, flush: func(ctx context.Context) ([][]byte, error) {
					parts, err := w.Flush(ctx)
					return append(parts, make([]byte, 1<<20+1)), err
				}}
			}}, commitAll}
	}},
	{name: "a checkpoint that does nothing", check: "checkpoint",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
				return brokenWriter{Writer: w, checkpoint: func(context.Context) ([][]byte, error) { return nil, nil }}
			}}
		}},
	{name: "a checkpoint that waits", check: "checkpoint", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
			return brokenWriter{Writer: w, checkpoint: w.Flush}
		}}
	}},
	{name: "parts that only Flush hands out", check: "checkpoint", set: committing,
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenCommitter{brokenSink{Sink: s,
				writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
					var held [][]byte
					return brokenWriter{Writer: w,
						checkpoint: func(ctx context.Context) ([][]byte, error) {
							parts, err := w.Checkpoint(ctx)
							held = append(held, parts...)
							return nil, err
						},
						flush: func(ctx context.Context) ([][]byte, error) {
							parts, err := w.Flush(ctx)
							return append(held, parts...), err
						}}
				}}, commitAll}
		}},
	{name: "a checkpoint of a sink that commits does not wait", check: "checkpoint", set: committing,
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenCommitter{brokenSink{Sink: s,
				writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
					return brokenWriter{Writer: w, checkpoint: w.(*committingWriter).Writer.Checkpoint}
				}}, commitAll}
		}},
	{name: "Close takes back what was handed out", check: "checkpoint", set: committing,
		wrap: func(m *Memory, s connector.Sink) connector.Sink {
			return brokenCommitter{brokenSink{Sink: s,
				writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
					flushed := false
					return brokenWriter{Writer: w,
						flush: func(ctx context.Context) ([][]byte, error) { flushed = true; return w.Flush(ctx) },
						close: func() error {
							if stage := w.(*committingWriter).stage; !flushed {
								m.mu.Lock()
								defer m.mu.Unlock()
								m.staged[stage] = nil
							}
							return nil
						}}
				}}, commitAll}
		}},
	{name: "the first Commit of a run is the last", check: "checkpoint", set: committing,
		wrap: func() func(*Memory, connector.Sink) connector.Sink {
			var done sync.Map
			return func(_ *Memory, s connector.Sink) connector.Sink {
				return brokenCommitter{brokenSink{Sink: s},
					func(c connector.Committer, run connector.Run, parts [][]byte) (int64, error) {
						if _, again := done.LoadOrStore(run.ID, true); again {
							return int64(len(parts)) * 100, nil
						}
						return commitAll(c, run, parts)
					}}
			}
		}()},
	{name: "a Commit also shows what was not handed out", check: "checkpoint", set: committing,
		wrap: func(m *Memory, s connector.Sink) connector.Sink {
			return brokenCommitter{brokenSink{Sink: s},
				func(c connector.Committer, run connector.Run, parts [][]byte) (int64, error) {
					m.mu.Lock()
					var all [][]byte
					for stage := range m.staged {
						all = append(all, []byte(stage))
					}
					m.mu.Unlock()
					_, err := commitAll(c, run, all)
					return int64(len(parts)) * 100, err
				}}
		}},
	{name: "requests beside the gate", check: "shut", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, context: noGate}
	}},
	{name: "a writer that waits at the gate for ever", check: "shut",
		wrap: func(_ *Memory, s connector.Sink) connector.Sink {
			return brokenSink{Sink: s, context: context.WithoutCancel,
				writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
					return brokenWriter{Writer: w,
						flush: func(context.Context) ([][]byte, error) { return w.Flush(context.Background()) }}
				}}
		}},
	{name: "records beside the gate", check: "gate", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		n := 0
		return brokenSink{Sink: s, context: func(ctx context.Context) context.Context {
			if n++; n > 1 {
				return noGate(ctx)
			}
			return ctx
		}, writer: func(w connector.Writer, settle connector.Settle) connector.Writer {
			return brokenWriter{Writer: w, write: func(ctx context.Context, r *record.Record) error {
				if r.KeyText() == "text-000007" {
					s := s.(memorySink)
					settle([]connector.Result{{Record: r, Outcome: s.m.apply(s.m, r), Attempts: 1}})
					return nil
				}
				return w.Write(ctx, r)
			}}
		}}
	}},
	{name: "the gate is not left", check: "gate", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, context: leaving(func(func(int, int64, error), int, int64, error) {})}
	}},
	{name: "the gate is left twice", check: "gate", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s,
			context: leaving(func(leave func(int, int64, error), records int, bytes int64, err error) {
				leave(records, bytes, err)
				leave(0, 0, nil)
			})}
	}},
	{name: "the gate is not told of errors", check: "outage", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s,
			context: leaving(func(leave func(int, int64, error), records int, bytes int64,
				_ error) {
				leave(records, bytes, nil)
			})}
	}},
	{name: "an unready server makes dead letters", check: "stop",
		set: func(m *Memory) { m.Retry = connector.Retry{First: 1, Max: 1, Deadline: 1} }},
	{name: "a pause loses what is under way", check: "pause", wrap: func(m *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, writer: func(w connector.Writer, settle connector.Settle) connector.Writer {
			return brokenWriter{Writer: w, write: func(ctx context.Context, r *record.Record) error {
				m.mu.Lock()
				gate := m.gate
				m.mu.Unlock()
				select {
				case <-gate:
					return w.Write(ctx, r)
				default:
					settle([]connector.Result{{Record: r, Outcome: record.Written, Attempts: 1}})
					return nil
				}
			}}
		}}
	}},
	{name: "a writer that takes everything", check: "bound", wrap: func(_ *Memory, s connector.Sink) connector.Sink {
		return brokenSink{Sink: s, writer: func(w connector.Writer, _ connector.Settle) connector.Writer {
			var all []*record.Record
			return brokenWriter{Writer: w,
				write: func(_ context.Context, r *record.Record) error { all = append(all, r); return nil },
				flush: func(ctx context.Context) ([][]byte, error) {
					for _, r := range all {
						if err := w.Write(ctx, r); err != nil {
							return nil, err
						}
					}
					return w.Flush(ctx)
				}}
		}}
	}},
}

func committing(m *Memory) { m.Committing = true }

func commitAll(c connector.Committer, run connector.Run, parts [][]byte) (int64, error) {
	return c.Commit(context.Background(), run, AssetSchema(), parts)
}

// TestBrokenSinks shows that the suite can fail: each broken sink is found by the check that is named.
func TestBrokenSinks(t *testing.T) {
	for _, b := range brokenSinks {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			ms := &memories{set: func(m *Memory) {
				m.Refuse, m.Committing = refuse, b.check == "commit"
				if b.set != nil {
					b.set(m)
				}
				if b.apply != nil {
					m.apply = b.apply
				}
			}}
			s := ms.sink()
			if b.wrap != nil {
				s.New = func(_ *testing.T, target string) connector.Sink {
					return b.wrap(ms.get(target),
						ms.get(target).Sink())
				}
			}
			found := s.check(t, sinkCheckNamed(t, b.check), time.Second, 100*time.Millisecond)
			if len(found) == 0 {
				t.Errorf("the check %q found nothing", b.check)
			}
			for _, problem := range found {
				t.Log(problem)
			}
		})
	}
}

func sinkCheckNamed(t *testing.T, name string) sinkCheck {
	for _, c := range sinkChecks {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("no check %q", name)
	return sinkCheck{}
}

// brokenSource is a source with some methods replaced.
type brokenSource struct {
	connector.Source
	plan func(split func(connector.Split) error) func(connector.Split) error
	page func(s connector.Split, page func(connector.Page) error) func(connector.Page) error
	read func(ctx context.Context, s connector.Split, page func(connector.Page) error) error
	key  bool
}

func (s brokenSource) Schema(ctx context.Context) (*record.Schema, error) {
	schema, err := s.Source.Schema(ctx)
	if s.key {
		schema = record.MustSchema(schema.Fields)
	}
	return schema, err
}

func (s brokenSource) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	if s.plan != nil {
		split = s.plan(split)
	}
	return s.Source.Plan(ctx, o, split)
}

func (s brokenSource) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	if s.page != nil {
		page = s.page(split, page)
	}
	if s.read != nil {
		return s.read(ctx, split, page)
	}
	return s.Source.Read(ctx, split, page)
}

// pages lets f change every page.
func pages(f func(s connector.Split, p *connector.Page)) func(connector.Split,
	func(connector.Page) error) func(connector.Page) error {
	return func(s connector.Split, page func(connector.Page) error) func(connector.Page) error {
		return func(p connector.Page) error { f(s, &p); return page(p) }
	}
}

var brokenSources = []struct {
	name, check string
	wrap        func(s connector.Source) connector.Source
}{
	{"no key", "schema", func(s connector.Source) connector.Source { return brokenSource{Source: s, key: true} }},
	{"a split comes twice", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, plan: func(split func(connector.Split) error) func(connector.Split) error {
			return func(s connector.Split) error { return errors.Join(split(s), split(s)) }
		}}
	}},
	{"splits overlap", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, plan: func(split func(connector.Split) error) func(connector.Split) error {
			return func(s connector.Split) error {
				if s.End != nil {
					s.End = append(s.End, 'x')
					s.Start = append([]byte(nil), s.Start[:max(0, len(s.Start)-1)]...)
				}
				return split(s)
			}
		}}
	}},
	{"the last split is missing", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, plan: func(split func(connector.Split) error) func(connector.Split) error {
			return func(s connector.Split) error {
				if s.End == nil {
					return nil
				}
				return split(s)
			}
		}}
	}},
	{"a record is lost", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, page: pages(func(_ connector.Split, p *connector.Page) {
			if len(p.Records) == 3 {
				p.Records = p.Records[:2]
			}
		})}
	}},
	{"no version", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			page: pages(func(_ connector.Split, p *connector.Page) { p.Records[0].Version = 0 })}
	}},
	{"no origin", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			page: pages(func(_ connector.Split, p *connector.Page) { p.Records[0].Origin.Split = "" })}
	}},
	{"a page that ends before its last record", "cut", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, page: pages(func(_ connector.Split, p *connector.Page) {
			if n := len(p.Records); n > 1 {
				p.Last = []byte(p.Records[n-2].KeyText())
			}
		})}
	}},
	{"a page that ends after what follows", "cut", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			page: pages(func(_ connector.Split, p *connector.Page) { p.Last[len(p.Last)-1]++ })}
	}},
	{"an origin after its record", "cut", func(s connector.Source) connector.Source {
		return brokenSource{Source: s, page: pages(func(_ connector.Split, p *connector.Page) {
			for _, r := range p.Records {
				r.Origin.Position = p.Last
			}
		})}
	}},
	{"pages that do not advance", "plan", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			page: pages(func(s connector.Split, p *connector.Page) { p.Last = []byte("text-000001") })}
	}},
	{"readers that disturb each other", "concurrent", func(s connector.Source) connector.Source {
		var mu sync.Mutex
		reading := 0
		return brokenSource{Source: s,
			read: func(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
				mu.Lock()
				reading++
				busy := reading > 1
				mu.Unlock()
				defer func() { mu.Lock(); defer mu.Unlock(); reading-- }()
				return s.Read(ctx, split, func(p connector.Page) error {
					if busy {
						p.Records = p.Records[1:]
					}
					time.Sleep(time.Millisecond) // so that readers meet
					return page(p)
				})
			}}
	}},
	{"an error in other words", "error", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			read: func(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
				if err := s.Read(ctx, split, page); err != nil {
					return fmt.Errorf("read: %w", err)
				}
				return nil
			}}
	}},
	{"pages after an error", "error", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			page: func(_ connector.Split, page func(connector.Page) error) func(connector.Page) error {
				return func(p connector.Page) error { _ = page(p); return nil }
			}}
	}},
	{"a cancellation is not heard", "cancel", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			read: func(_ context.Context, split connector.Split, page func(connector.Page) error) error {
				return s.Read(context.Background(), split, page)
			}}
	}},
	{"reading beside the gate", "gate", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			read: func(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
				return s.Read(noGate(ctx), split, page)
			}}
	}},
	{"a gate that is told nothing", "gate", func(s connector.Source) connector.Source {
		return brokenSource{Source: s,
			read: func(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
				ctx = leaving(func(leave func(int, int64, error), _ int, _ int64, err error) { leave(0, 0, err) })(ctx)
				return s.Read(ctx, split, page)
			}}
	}},
	{"a row that is found twice", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(key *record.Record, p *connector.Page, give func() error) error {
				return errors.Join(give(), give())
			}}
	}},
	{"a row that is not found", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(_ *record.Record, p *connector.Page, give func() error) error {
				if len(p.Records) > 0 && strings.HasSuffix(p.Records[0].KeyText(), "7") {
					p.Records = nil
				}
				return give()
			}}
	}},
	{"a row that is gone is found", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(key *record.Record, p *connector.Page, give func() error) error {
				if len(p.Records) == 0 {
					p.Records = []*record.Record{key}
				}
				return give()
			}}
	}},
	{"a row that is found with another version", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(_ *record.Record, p *connector.Page, give func() error) error {
				if len(p.Records) > 0 {
					p.Records[0].Version++
				}
				return give()
			}}
	}},
	{"a row that is found without an origin", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(_ *record.Record, p *connector.Page, give func() error) error {
				if len(p.Records) > 0 {
					p.Records[0].Origin = record.Origin{}
				}
				return give()
			}}
	}},
	{"an error of found is swallowed", "find", func(s connector.Source) connector.Source {
		return brokenFinder{brokenSource{Source: s},
			func(_ *record.Record, _ *connector.Page, give func() error) error {
				_ = give()
				return nil
			}}
	}},
}

// brokenFinder is a source that gives what it found in its own way.
type brokenFinder struct {
	brokenSource
	give func(key *record.Record, p *connector.Page, give func() error) error
}

func (s brokenFinder) Find(ctx context.Context, keys []*record.Record, found func(int, connector.Page) error) error {
	return s.Source.(connector.Finder).Find(ctx, keys, func(i int, p connector.Page) error {
		return s.give(keys[i], &p, func() error { return found(i, p) })
	})
}

// TestBrokenSources shows the same for sources.
func TestBrokenSources(t *testing.T) {
	m := NewMemory()
	m.PageRows = 7
	m.Load(Records(AssetSchema(), 0, 500, Base)...)
	for _, b := range brokenSources {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := Source{New: func(*testing.T) connector.Source { return b.wrap(m.Source()) }, Want: m.Rows()}
			for _, c := range sourceChecks {
				if c.name != b.check {
					continue
				}
				found := s.check(t, c, time.Second)
				if len(found) == 0 {
					t.Errorf("the check %q found nothing", b.check)
				}
				for _, problem := range found {
					t.Log(problem)
				}
			}
		})
	}
}
