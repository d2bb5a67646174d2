package flow

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// TestASlowSinkHoldsReadingBack: what is read and not finished stays within the window, and the pages that readers
// hold.
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
				if r.State != journal.Incomplete || r.Sinks["b"].Open != 2 || r.Sinks["a"].Open != 0 ||
					len(r.Faults) > 0 {
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
		want := map[string]record.Counts{"a": counts(5, 0, 1, 0, 0), "b": counts(6, 0, 0, 0, 0)}
		w.is(w.must(), journal.Complete, want)
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

// TestCommits: a commit that may pass is made by another attempt, one that does not add up is told, one that is
// refused ends the attempt.
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
		want := []string{"sink b wrote 6 records, but committed 5"}
		if r := w.must(); r.State != journal.Unbalanced || !slices.Equal(r.Faults, want) {
			t.Errorf("%+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begin(t, commit(0, fail.Job("memory.schema", "changed"))).fails("memory.schema")
	})
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
