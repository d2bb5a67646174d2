package flow

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/travel"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// slow is a Serve that takes a while for each request of a kind.
func slow(kind string, d time.Duration) func(context.Context, string, func() error) error {
	return func(ctx context.Context, of string, work func() error) error {
		if of == kind {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return work()
	}
}

// once is a Serve that fails the first request of a kind.
func once(kind string, err error) func(context.Context, string, func() error) error {
	return times(1, kind, err)
}

// times is a Serve that fails the first n requests of a kind.
func times(n int, kind string, err error) func(context.Context, string, func() error) error {
	return func(_ context.Context, of string, work func() error) error {
		if of == kind && n > 0 {
			n--
			return err
		}
		return work()
	}
}

// faulty is a sink with some of its methods replaced.
type faulty struct {
	connector.Sink
	open  func() error
	write func() error
	check func() error
}

type faultyWriter struct {
	connector.Writer
	of faulty
}

func (f faulty) Open(ctx context.Context, run connector.Run, s *record.Schema, settle connector.Settle) (
	connector.Writer, error) {
	if f.open != nil {
		if err := f.open(); err != nil {
			return nil, err
		}
	}
	w, err := f.Sink.Open(ctx, run, s, settle)
	return faultyWriter{w, f}, err
}

func (f faultyWriter) Write(ctx context.Context, r *record.Record) error {
	if f.of.write != nil {
		if err := f.of.write(); err != nil {
			return err
		}
	}
	return f.Writer.Write(ctx, r)
}

func (f faultyWriter) Checkpoint(ctx context.Context) ([][]byte, error) {
	if f.of.check != nil {
		if err := f.of.check(); err != nil {
			return nil, err
		}
	}
	return f.Writer.Checkpoint(ctx)
}

// with puts a faulty sink around one of the world's.
func (w *world) with(name string, f faulty) {
	w.sink = func(of string, s connector.Sink) connector.Sink {
		if of == name {
			f.Sink = s
			return f
		}
		return s
	}
}

var errDown = fail.Unreachable("memory.down", "it is down")

func always(err error) func() error { return func() error { return err } }

// TestSplitsWhileRunning: a runner that gives parts of the work away while it is done loses none and doubles none.
func TestSplitsWhileRunning(t *testing.T) {
	for _, fraction := range []float64{0, 0.5} {
		for at := 1; at <= 12; at++ {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 7, 5, 6, 4)
				w.setting = func(s *Setting) { s.Hands = 2 } // one hand alone is not split
				w.job.Limits.Readers = 2
				w.sinks["b"].Committing = true
				n := 0
				var mu sync.Mutex
				w.reading = func(tracker *sdf.LockRTracker) error {
					mu.Lock()
					defer mu.Unlock()
					if n++; n != at {
						return nil
					}
					_, residual, err := tracker.TrySplit(fraction)
					if residual != nil {
						w.residuals = append(w.residuals, residual.(travel.Work))
					}
					return err
				}
				r := w.must()
				w.complete(r, 22)
				all := counts(22, 0, 0, 0, 0)
				w.is(r, journal.Complete, map[string]record.Counts{"a": all, "b": all})
			})
		}
	}
}

// second is a Serve that fails the second request of a kind.
func second(kind string, err error) func(context.Context, string, func() error) error {
	return nth(2, kind, err)
}

func nth(n int, kind string, err error) func(context.Context, string, func() error) error {
	var left atomic.Int64
	left.Store(int64(n))
	return func(_ context.Context, of string, work func() error) error {
		if of == kind && left.Add(-1) == 0 {
			return err
		}
		return work()
	}
}

// TestPanics of a step are dead letters; those of a sink or a source's page end the attempt with their stack.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.job.Transforms = []transforms.Spec{traps(map[int]string{3: "panic"})}
		all := counts(9, 0, 0, 0, 1)
		w.is(w.must(), journal.Complete, map[string]record.Counts{"a": all, "b": all})
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.with("b", faulty{write: func() error { panic("oops") }})
		text := w.fails("internal.panic").Error()
		if !strings.Contains(text, "oops") || !strings.Contains(text, "faults_test.go") {
			t.Error(text)
		}
		w.sink = nil
		w.complete(w.must(), 10)
	})
	synctest.Test(t, func(t *testing.T) { // what Beam's emitters panic with
		w := newWorld(t, 10)
		w.with("b", faulty{write: func() error { panic(errDown) }})
		w.fails("memory.down")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.with("b", faulty{write: func() error { var m map[string]int; m["x"] = 1; return nil }})
		w.fails("internal.panic")
	})
}

// TestAFatalErrorOfAStepEndsTheAttempt, be it of all sinks or of one.
func TestAFatalErrorOfAStepEndsTheAttempt(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 10)
			step := []transforms.Spec{traps(map[int]string{3: "fatal"})}
			if own {
				w.change("b", func(s *job.Sink) { s.Transforms = step })
			} else {
				w.job.Transforms = step
			}
			if err := w.fails("trap.fatal"); !strings.Contains(err.Error(), "transforms.0.trap") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestASourceThatFailsEndsTheAttempt: what is finished is written down.
func TestASourceThatFailsEndsTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.job.Limits.Readers = 1
		w.setting = func(s *Setting) { s.Window = 4 }
		n := 0
		w.reading = func(*sdf.LockRTracker) error {
			if n++; n == 4 {
				return fail.New(fail.Transient, "memory.gone", "the table is gone")
			}
			return nil
		}
		w.fails("memory.gone")
		if len(w.journal.done) == 0 {
			t.Error("nothing is written down of what was finished")
		}
		w.reading = nil
		r := w.must()
		w.complete(r, 10)
	})
}

// TestWhatDoesNotOpenEndsTheAttempt.
func TestWhatDoesNotOpenEndsTheAttempt(t *testing.T) {
	for name, c := range map[string]func(*Setting){
		"the job as it travelled":    func(s *Setting) { s.Job = []byte("{") },
		"the schema as it travelled": func(s *Setting) { s.Schema = []byte{255} },
		"no such transform": func(s *Setting) {
			s.Job = bytes.Replace(s.Job, []byte(`"sinks"`), []byte(`"transforms":[{"nonsense":{}}],"sinks"`), 1)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			w.setting = c
			if _, err := w.attempt(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for _, name := range []string{"source", "a"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			pass := &passFn{Setting: w.settings(1)}
			was := systems
			defer func() { systems = was }()
			systems.source = func(s connector.SourceSpec, need connector.Need) (connector.Source, error) {
				if name == "source" {
					return nil, errDown
				}
				return was.source(s, need)
			}
			systems.sink = func(target connector.SinkSpec) (connector.Sink, error) {
				if strings.HasSuffix(target.SinkConfig.(*fileio.SinkConfig).Path, "/"+name) {
					return nil, errDown
				}
				return was.sink(target)
			}
			if err := pass.Setup(t.Context()); fail.CodeOf(err) != "memory.down" {
				t.Errorf("%s: %v", name, err)
			}
			if err := pass.Teardown(); err != nil {
				t.Error(err)
			}
		})
	}
}
