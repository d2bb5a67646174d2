package flow

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/iotest"
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

func (f faulty) Open(ctx context.Context, run connector.Run, s *record.Schema, settle connector.Settle) (connector.Writer, error) {
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

// TestASlowSinkHoldsReadingBack: what is read and not finished stays within the window, and the pages that readers hold.
func TestASlowSinkHoldsReadingBack(t *testing.T) {
	for _, committing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 30, 30)
			w.setting = func(s *Setting) { s.Window = 8 }
			w.job.Limits.Readers = 2
			w.sinks["b"].Serve = slow("write", 3*time.Second)
			w.sinks["b"].Committing = committing
			w.sinks["b"].Batch = connector.BatchLimits{Rows: 2, Bytes: 1 << 20, InFlight: 1}
			read, most := int64(0), int64(0)
			var mu sync.Mutex
			w.page = func(p *connector.Page) {
				mu.Lock()
				defer mu.Unlock()
				read += p.Rows()
				done := int64(0)
				for d := range w.journal.Finished(context.Background(), "run") {
					if d.Sink == "b" {
						done += d.Sum.Read
					}
				}
				most = max(most, read-done)
			}
			w.complete(w.must(), 60)
			// The window, the page that fills it, and the page that each reader has at hand.
			if most > 8+2+2*2 {
				t.Errorf("%d rows were read and not finished", most)
			}
			if most < 8 {
				t.Errorf("no more than %d rows were under way: the window was not used", most)
			}
		})
	}
}

// TestASmallMemoryHoldsReadingBack: pages that fill the memory make sinks send what they only gather.
func TestASmallMemoryHoldsReadingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 40)
		w.job.Limits.ReadAhead = connector.Bytes(3 * iotest.Record(assets, 0, iotest.Base).Size())
		w.sinks["b"].Committing = true
		w.sinks["a"].Serve = slow("write", time.Second)
		w.complete(w.must(), 40)
	})
}

// TestASinkIsLeftBehind: others go on, it says why, and a resumption does its part alone.
func TestASinkIsLeftBehind(t *testing.T) {
	for name, breaks := range map[string]func(w *world) (mend func()){
		"it stops answering": func(w *world) func() {
			w.sinks["b"].Stop()
			return w.sinks["b"].Start
		},
		"it does not open": func(w *world) func() {
			w.with("b", faulty{open: always(errDown)})
			return func() { w.sink = nil }
		},
		"it takes no record": func(w *world) func() {
			w.with("b", faulty{write: always(errDown)})
			return func() { w.sink = nil }
		},
		"its checkpoints fail": func(w *world) func() {
			w.sinks["b"].Committing = true
			w.with("b", faulty{check: always(errDown)})
			w.setting = func(s *Setting) { s.Window = 4 }
			return func() { w.sink = nil }
		},
		"half of it is written": func(w *world) func() {
			n := 0
			w.sinks["b"].Batch = connector.BatchLimits{Rows: 1, Bytes: 1, InFlight: 1}
			w.sinks["b"].Serve = func(_ context.Context, kind string, work func() error) error {
				if n++; n > 5 {
					return errDown
				}
				return work()
			}
			return func() { n = -1000 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10, 10)
				w.job.Limits.ReadAhead = 3000
				mend := breaks(w)
				r := w.must()
				if r.State != journal.Incomplete || r.Sinks["b"].Open != 2 || r.Sinks["a"].Open != 0 || len(r.Faults) > 0 {
					t.Fatalf("%+v", r)
				}
				if why := r.Sinks["b"].Reason; !strings.Contains(why, "down") && !strings.Contains(why, "stopped") {
					t.Errorf("sink b was left behind for: %s", why)
				}
				w.has("a", 20)
				mend()
				w.sinks["a"].Serve = func(_ context.Context, kind string, _ func() error) error {
					return fail.New(fail.Fatal, "test.again", "sink a is asked again (%s)", kind)
				}
				r = w.must()
				w.complete(r, 20)
				w.is(r, journal.Complete, map[string]record.Counts{"a": counts(20, 0, 0, 0, 0)})
			})
		})
	}
}

// TestTheOnlySinkIsNotLeftBehind: then the attempt ends with the sink's own error; what is finished stays.
func TestTheOnlySinkIsNotLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.setting = func(s *Setting) { s.Sinks = []string{"b"} }
		w.with("b", faulty{open: always(errDown)})
		w.fails("memory.down")
		if got := w.journal.failures[1]; len(got) != 1 || fail.CodeOf(got[0]) != "memory.down" {
			t.Errorf("the journal was told of %v", got)
		}
		w.sink = nil
		r := w.must()
		if r.State != journal.Incomplete || r.Sinks["a"].Reason != "it took no part in this attempt" {
			t.Errorf("%+v", r)
		}
		w.has("a", 0)
		w.setting = nil
		w.complete(w.must(), 10)
	})
}

// TestAFatalErrorOfASinkEndsTheAttempt, whoever else is well.
func TestAFatalErrorOfASinkEndsTheAttempt(t *testing.T) {
	fatal := fail.Job("memory.mapping", "no record fits")
	for name, f := range map[string]faulty{
		"opening": {open: always(fatal)}, "a record": {write: always(fatal)}, "a checkpoint": {check: always(fatal)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10)
				w.setting = func(s *Setting) { s.Window = 4 }
				w.with("b", f)
				w.fails("memory.mapping")
				w.sink = nil
				w.complete(w.must(), 10)
			})
		})
	}
}

// TestASinkAfterAnother gets a page once the journal knows that the other has finished it, and not what failed there.
func TestASinkAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.setting = func(s *Setting) { s.Window = 4 }
		w.change("b", func(s *job.Sink) { s.After = []string{"a"} })
		w.sinks["a"].Refuse = refusing(3)
		w.sinks["b"].Serve = func(_ context.Context, kind string, work func() error) error {
			err := work()
			rows := w.sinks["b"].Rows()
			for row := range rows {
				finished := false
				for d := range w.journal.Finished(context.Background(), "run") {
					split := connector.Split{Start: d.Start, End: d.End}
					finished = finished || d.Sink == "a" && split.Contains([]byte(row))
				}
				if !finished {
					t.Errorf("sink b has row %q, which sink a has not finished", row)
				}
			}
			return err
		}
		r := w.must()
		w.is(r, journal.Complete, map[string]record.Counts{"a": counts(11, 0, 0, 0, 1), "b": counts(11, 0, 0, 0, 1)})
		w.has("b", 12, 3)
		for _, l := range w.journal.letters {
			if l.Sink == "b" && l.Code != "sink.after" {
				t.Errorf("%+v", l)
			}
		}
	})
}

// TestASinkAfterAnotherKnowsWhatFailedEarlier: in an attempt before, of which the journal's letters tell.
func TestASinkAfterAnotherKnowsWhatFailedEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.change("b", func(s *job.Sink) { s.After = []string{"a"} })
		w.sinks["a"].Refuse = refusing(3)
		w.with("b", faulty{write: always(errDown)})
		r := w.must()
		if r.State != journal.Incomplete {
			t.Fatalf("%+v", r)
		}
		w.sink, w.sinks["a"].Refuse = nil, nil
		w.is(w.must(), journal.Complete, map[string]record.Counts{"b": counts(11, 0, 0, 0, 1)})
		w.has("b", 12, 3)
	})
}

// TestASinkAfterOneThatIsLeftBehind is left behind with it.
func TestASinkAfterOneThatIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.setting = func(s *Setting) { s.Window = 4 }
		w.sinks["c"] = iotest.NewMemory()
		c := w.job.Sinks["b"]
		at := *c.SinkConfig.(*fileio.SinkConfig)
		at.Path = strings.TrimSuffix(at.Path, "b") + "c"
		c.SinkConfig, c.After = &at, []string{"b"}
		w.job.Sinks["c"] = c
		w.sinks["b"].Stop()
		r := w.must()
		if r.State != journal.Incomplete || r.Sinks["a"].Open != 0 || !strings.Contains(r.Sinks["c"].Reason, "it comes after sink b") {
			t.Fatalf("%+v", r)
		}
		w.has("c", 0)
		w.sinks["b"].Start()
		w.complete(w.must(), 12)
		// With nobody else there is nothing to go on with.
		w = newWorld(t, 12)
		w.change("b", func(s *job.Sink) { s.After = []string{"a"} })
		w.with("a", faulty{open: always(errDown)})
		w.fails("memory.down")
	})
}

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
				w.is(r, journal.Complete, map[string]record.Counts{"a": counts(22, 0, 0, 0, 0), "b": counts(22, 0, 0, 0, 0)})
			})
		}
	}
}

// TestAStopIsQuick: also where a sink does not answer, or the run is paused; the rest is done by another attempt.
func TestAStopIsQuick(t *testing.T) {
	for name, hang := range map[string]func(w *world) (mend func()){
		"a sink that hangs": func(w *world) func() {
			w.sinks["b"].Pause()
			return w.sinks["b"].Resume
		},
		"a source that hangs": func(w *world) func() {
			w.tables["part1"].Pause()
			return w.tables["part1"].Resume
		},
		"a paused run": func(w *world) func() {
			w.journal.control = journal.Control{Want: journal.Pause}
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10, 10)
				mend := hang(w)
				began := time.Now()
				time.AfterFunc(10*time.Second, func() { w.want(journal.Stop, "") })
				r := w.must()
				if took := time.Since(began); took < 10*time.Second || took > 13*time.Second {
					t.Errorf("it took %v", took)
				}
				w.is(r, journal.Stopped, nil)
				mend()
				w.complete(w.must(), 20)
			})
		})
	}
}

func (w *world) want(want journal.Want, reason string) {
	w.journal.mu.Lock()
	defer w.journal.mu.Unlock()
	w.journal.control = journal.Control{Want: want, Reason: reason}
}

// TestAPauseAndARate hold the run back for as long as they say.
func TestAPauseAndARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.journal.control = journal.Control{Want: journal.Pause, Reason: "operator"}
		began := time.Now()
		time.AfterFunc(30*time.Second, func() {
			for _, b := range w.journal.beats[1] {
				if b.Cause != journal.ByOperator {
					t.Errorf("it waits for %q", b.Waiting)
				}
			}
			w.journal.mu.Lock()
			defer w.journal.mu.Unlock()
			w.journal.control = journal.Control{Want: journal.Go, Rates: map[string]journal.Rate{journal.Source: {Records: 10}}}
		})
		w.complete(w.must(), 100)
		if took := time.Since(began); took < 38*time.Second || took > 45*time.Second {
			t.Errorf("100 rows, 10 a second after a pause of 30 s: it took %v", took)
		}
	})
}

// TestAnErrorBudget pauses a run before the queue fills.
func TestAnErrorBudget(t *testing.T) {
	for name, budget := range map[string]job.ErrorBudget{
		"of the last records": {Recent: 5, Of: 10}, "of all": {Letters: 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 200)
				w.setting = func(s *Setting) { s.Window = 8 }
				w.job.Limits.ErrorBudget = &budget
				bad := true
				w.sinks["a"].Refuse = func(r *record.Record) error {
					if bad {
						return fail.New(fail.Permanent, "memory.refused", "everything is refused")
					}
					return nil
				}
				w.sinks["a"].Serve = slow("write", time.Second)
				r := w.must()
				if r.State != journal.Paused || !strings.Contains(r.Reason, "dead letters") || r.Read == 200 {
					t.Fatalf("%+v", r)
				}
				if len(w.journal.events) == 0 || w.journal.events[0].Kind != "pause" {
					t.Errorf("the history says %v", w.journal.events)
				}
				bad = false
				w.job.Limits.ErrorBudget = &job.ErrorBudget{}
				r = w.must()
				w.is(r, journal.Complete, nil)
				if dead := r.Sinks["a"].Outcomes[record.Dead]; dead == 0 || dead+r.Sinks["a"].Outcomes[record.Written] != 200 {
					t.Errorf("%+v", r.Sinks["a"])
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // the pause cannot be written down
		w := newWorld(t, 20)
		w.setting = func(s *Setting) { s.Window = 4 }
		w.job.Limits.ErrorBudget = &job.ErrorBudget{Recent: 1, Of: 1}
		w.sinks["a"].Refuse = func(*record.Record) error { return fail.New(fail.Permanent, "memory.refused", "no") }
		w.journal.serve = once("set control", errDown)
		w.fails("memory.down")
	})
}

// TestStagesOfACanary: each does its part of the partitions, and the last attempt the rest.
func TestStagesOfACanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 4, 4, 4, 4)
		w.job.Canary = &job.Canary{Stages: []float64{20, 60}, DeadLetters: "1%"}
		stage := 0.0
		w.setting = func(s *Setting) { s.Stage = stage }
		for stage = range w.stages(20, 60) {
			left, err := Left(t.Context(), w.journal, "run", []string{"a", "b"}, stage)
			if err != nil || left == 0 {
				t.Fatalf("%d splits are left of stage %v, %v", left, stage, err)
			}
			r := w.must()
			if want := int64(stage / 100 * 20); r.State != journal.Incomplete || r.Stage != stage || r.Read != want {
				t.Fatalf("%+v", r)
			}
			if left, err = Left(t.Context(), w.journal, "run", []string{"a", "b"}, stage); err != nil || left > 0 {
				t.Fatalf("%d splits are left of stage %v, %v", left, stage, err)
			}
		}
		stage = 0
		w.complete(w.must(), 20)
	})
}

func (w *world) stages(all ...float64) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// TestACanaryPauses where a stage has too many dead letters.
func TestACanaryPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 4)
		w.job.Canary = &job.Canary{Stages: []float64{50}, DeadLetters: "1%"}
		w.setting = func(s *Setting) { s.Stage = 50 }
		w.sinks["a"].Refuse = refusing(0, 4)
		if r := w.must(); r.State != journal.Paused || !strings.Contains(r.Reason, "canary of 50 %") {
			t.Errorf("%+v", r)
		}
	})
}

// TestADeadLetterThatIsNotWrittenEndsTheAttempt: nothing else would know of its record.
func TestADeadLetterThatIsNotWrittenEndsTheAttempt(t *testing.T) {
	full := fail.New(fail.Permanent, "disk.full", "the disk is full").WithFix("make room")
	for name, c := range map[string]struct {
		breaks func(w *world)
		code   string
	}{
		"refused":          {func(w *world) { w.queue.Refuse = func(*record.Record) error { return full } }, "dead_letters.not_written"},
		"not opened":       {func(w *world) { w.with("queue", faulty{open: always(full)}) }, "dead_letters.not_written"},
		"not taken":        {func(w *world) { w.with("queue", faulty{write: always(errors.New("no"))}) }, "dead_letters.not_written"},
		"not flushed":      {func(w *world) { w.queue.Serve = once("write", fail.New(fail.Fatal, "disk.gone", "no disk")) }, "dead_letters.not_written"},
		"opening is ended": {func(w *world) { w.with("queue", faulty{open: always(context.Canceled)}) }, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10)
				w.sinks["a"].Refuse = refusing(3)
				c.breaks(w)
				err := w.fails(c.code)
				if name == "refused" && !strings.Contains(err.Error(), "make room; then resume the run") {
					t.Errorf("%v", err)
				}
				w.sink, w.queue.Refuse, w.queue.Serve = nil, nil, nil
				w.is(w.must(), journal.Complete, nil)
				w.has("a", 10, 3)
				w.has("b", 10)
				if len(w.queue.Rows()) != 1 {
					t.Errorf("%d letters in the queue", len(w.queue.Rows()))
				}
			})
		})
	}
}

// TestErrorsOfTheJournal end the attempt where what is done would not count; what passes is waited for.
func TestErrorsOfTheJournal(t *testing.T) {
	busy := fail.New(fail.Transient, "journal.busy", "it is in use")
	gone := fail.New(fail.Transient, "journal.gone", "no answer")
	for name, c := range map[string]struct {
		serve  func(context.Context, string, func() error) error
		code   string // "": the attempt is done
		change func(w *world)
	}{
		"busy for a while":       {serve: times(3, "record", busy)},
		"beats fail for a while": {serve: times(3, "beat", gone)},
		"busy for long":          {serve: times(1000, "record", busy), code: "journal.busy"},
		"a batch is lost":        {serve: once("record", gone), code: "journal.gone"},
		"no plan":                {serve: once("plan", gone), code: "journal.gone"},
		"no intervals":           {serve: once("finished", gone), code: "journal.gone"},
		"no sums":                {serve: second("finished", gone), code: "journal.gone"},
		"no plan at the end":     {serve: second("plan", gone), code: "journal.gone"},
		"no parts of the queue":  {serve: nth(3, "parts", gone), code: "journal.gone"},
		"no report":              {serve: once("finish", gone), code: "journal.gone"},
		"gone for good":          {serve: times(10_000, "beats", gone), code: "journal.gone", change: hangs},
		"no control for good":    {serve: times(10_000, "control", gone), code: "journal.gone", change: hangs},
		"refused":                {serve: once("beat", fail.Job("journal.no_run", "no such run")), code: "journal.no_run", change: hangs},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10)
				w.journal.serve = c.serve
				if c.change != nil {
					c.change(w)
				}
				if c.code == "" {
					w.complete(w.must(), 10)
					return
				}
				w.fails(c.code)
				w.journal.serve = nil
				for _, m := range w.tables {
					m.Serve = nil
				}
				w.complete(w.must(), 10)
			})
		})
	}
}

// TestPartsThatAreNotFound leave the sink's commit to another attempt.
func TestPartsThatAreNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.sinks["a"].Committing = true
		w.journal.serve = once("parts", errDown)
		if r := w.must(); r.State != journal.Incomplete || !r.Sinks["a"].Uncommitted {
			t.Errorf("%+v", r)
		}
		w.complete(w.must(), 10)
	})
}

// hangs makes the source wait for two minutes.
func hangs(w *world) { w.tables["part0"].Serve = slow("read", 2*time.Minute) }

// second is a Serve that fails the second request of a kind.
func second(kind string, err error) func(context.Context, string, func() error) error {
	return nth(2, kind, err)
}

func nth(n int, kind string, err error) func(context.Context, string, func() error) error {
	return func(_ context.Context, of string, work func() error) error {
		if of == kind {
			if n--; n == 0 {
				return err
			}
		}
		return work()
	}
}

// TestABatchThatWasWrittenAndNotAnswered: the attempt ends, since it cannot know; the next one finds it done.
func TestABatchThatWasWrittenAndNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		first := true
		w.journal.serve = func(_ context.Context, kind string, work func() error) error {
			err := work()
			if kind == "record" && first && err == nil {
				first = false
				return fail.New(fail.Transient, "journal.timeout", "no answer in time")
			}
			return err
		}
		w.fails("journal.timeout")
		w.complete(w.must(), 10)
	})
}

// TestAnAttemptThatIsOverStops: a process that was frozen finds that another goes on with the run.
func TestAnAttemptThatIsOverStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.tables["part0"].Pause()
		time.AfterFunc(10*time.Second, func() {
			w.journal.Attempt(t.Context(), "run")
			w.journal.Beat(t.Context(), "run", journal.Beat{Worker: "other", Attempt: 2})
		})
		w.fails("journal.fenced")
	})
}

// TestPanics of a step are dead letters; those of a sink or a source's page end the attempt with their stack.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.job.Transforms = []transforms.Spec{traps(map[int]string{3: "panic"})}
		w.is(w.must(), journal.Complete, map[string]record.Counts{"a": counts(9, 0, 0, 0, 1), "b": counts(9, 0, 0, 0, 1)})
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.with("b", faulty{write: func() error { panic("oops") }})
		if err := w.fails("internal.panic"); !strings.Contains(err.Error(), "oops") || !strings.Contains(err.Error(), "faults_test.go") {
			t.Errorf("%v", err)
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

// TestARowThatIsGoneIsNotBroughtBack: a sink that forgets deletes asks again about what it has held for long.
func TestARowThatIsGoneIsNotBroughtBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.sinks["a"].Batch = connector.BatchLimits{Rows: 100, Bytes: 1 << 20, InFlight: 1, Forgets: time.Minute}
		w.job.Pace.Rates = map[string]journal.Rate{}
		w.journal.control = journal.Control{Want: journal.Go, Limits: map[string]int{"a": 1}}
		held := false
		w.sinks["a"].Serve = func(ctx context.Context, kind string, work func() error) error {
			if kind == "write" && !held {
				held = true
				time.Sleep(45 * time.Second)
				w.tables["part0"].Load(iotest.Deletion(assets, 2, iotest.Base+1))
				return fail.New(fail.Transient, "memory.slow", "late")
			}
			return work()
		}
		w.is(w.must(), journal.Complete, map[string]record.Counts{"a": counts(5, 0, 1, 0, 0), "b": counts(6, 0, 0, 0, 0)})
		w.has("a", 6, 2)
	})
}

// TestFloors: what earlier runs wrote loses, and the newest version that was written is reported.
func TestFloors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.sinks["a"].Load(iotest.Records(assets, 0, 4, iotest.Base+5)...)
		w.setting = func(s *Setting) { s.Floors = map[string]int64{"a": iotest.Base + 7} }
		r := w.must()
		w.is(r, journal.Complete, map[string]record.Counts{"a": counts(4, 0, 0, 0, 0)})
		if r.Sinks["a"].Newest != iotest.Base+7 || r.Sinks["b"].Newest != iotest.Base {
			t.Errorf("%+v", r.Sinks)
		}
	})
}

// committer is a sink with a Commit of the test's own.
type committer struct {
	connector.Sink
	commit func() (int64, error)
}

func (c committer) Commit(ctx context.Context, run connector.Run, s *record.Schema, parts [][]byte) (int64, error) {
	if n, err := c.commit(); n != 0 || err != nil {
		return n, err
	}
	return c.Sink.(connector.Committer).Commit(ctx, run, s, parts)
}

// merging is one whose commit tells how many records lost.
type merging struct {
	committer
	superseded int64
}

func (m merging) Superseded(context.Context, connector.Run) (int64, error) { return m.superseded, nil }

// TestCommits: a commit that may pass is made by another attempt, one that does not add up is told, one that is refused ends the attempt.
func TestCommits(t *testing.T) {
	begin := func(t *testing.T, put func(connector.Sink) connector.Sink) *world {
		w := newWorld(t, 6)
		w.sinks["b"].Committing = true
		w.sink = func(name string, s connector.Sink) connector.Sink {
			if name == "b" && put != nil {
				return put(s)
			}
			return s
		}
		return w
	}
	commit := func(n int64, err error) func(connector.Sink) connector.Sink {
		return func(s connector.Sink) connector.Sink { return committer{s, func() (int64, error) { return n, err }} }
	}
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, commit(0, errDown))
		r := w.must()
		if r.State != journal.Incomplete || !r.Sinks["b"].Uncommitted || len(r.Faults) > 0 {
			t.Errorf("%+v", r)
		}
		w.has("b", 0)
		w.sink = nil
		w.complete(w.must(), 6)
	})
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, commit(5, nil))
		if r := w.must(); r.State != journal.Unbalanced || !slices.Equal(r.Faults, []string{"sink b wrote 6 records, but committed 5"}) {
			t.Errorf("%+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) { begin(t, commit(0, fail.Job("memory.schema", "changed"))).fails("memory.schema") })
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, func(s connector.Sink) connector.Sink {
			return merging{committer{s, func() (int64, error) { return 0, nil }}, 2}
		})
		w.is(w.must(), journal.Complete, map[string]record.Counts{"b": counts(4, 0, 2, 0, 0)})
	})
	synctest.Test(t, func(t *testing.T) { // parts from whoever cannot commit them
		w := begin(t, nil)
		w.sinks["b"].Committing = false
		w.journal.parts = []journal.Part{{Sink: "b", Body: []byte("x")}}
		w.fails("internal.no_committer")
	})
	synctest.Test(t, func(t *testing.T) { // the queue commits too
		w := newWorld(t, 6)
		w.queue.Committing = true
		w.sinks["a"].Refuse = refusing(1, 2)
		w.is(w.must(), journal.Complete, nil)
		if len(w.queue.Rows()) != 2 {
			t.Errorf("%d letters", len(w.queue.Rows()))
		}
	})
	synctest.Test(t, func(t *testing.T) { // and is held to account
		w := newWorld(t, 6)
		w.queue.Committing = true
		w.sinks["a"].Refuse = refusing(1, 2)
		w.sink = func(name string, s connector.Sink) connector.Sink {
			if name == "queue" {
				return committer{s, func() (int64, error) { return 1, nil }}
			}
			return s
		}
		if r := w.must(); r.State != journal.Unbalanced {
			t.Errorf("%+v", r)
		}
	})
}

// TestAnOpenSplitWithoutAReason makes the run unbalanced: it would look done.
func TestAnOpenSplitWithoutAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.must()
		w.journal.splits = append(w.journal.splits, connector.Split{Partition: "part9"})
		n, _ := w.journal.Attempt(t.Context(), "run")
		end := &endFn{Setting: w.settings(n)}
		if err := end.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer end.Teardown()
		if err := end.ProcessElement(t.Context(), 0, nil); err != nil {
			t.Fatal(err)
		}
		if w.journal.state != journal.Unbalanced || !bytes.Contains(w.journal.report, []byte("nothing tells why")) {
			t.Errorf("%s: %s", w.journal.state, w.journal.report)
		}
	})
}

// TestSumsThatDoNotAddUp are faults, whoever wrote them.
func TestSumsThatDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.journal.done = []journal.Done{{Sink: "a", Partition: "part0", Sum: journal.Sum{Read: 6}}}
		if r := w.must(); r.State != journal.Unbalanced || !slices.Equal(r.Faults, []string{"sink a: 6 read and 0 made, but 0 ended"}) {
			t.Errorf("%+v", r)
		}
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
