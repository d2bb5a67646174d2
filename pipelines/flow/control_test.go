package flow

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/pace"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

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
			w.journal.mu.Lock()
			defer w.journal.mu.Unlock()
			for _, b := range w.journal.beats[1] {
				if b.Cause != journal.ByOperator {
					t.Errorf("it waits for %q", b.Waiting)
				}
			}
			rates := map[string]journal.Rate{journal.Source: {Records: 10}}
			w.journal.control = journal.Control{Want: journal.Go, Rates: rates}
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
				of := r.Sinks["a"].Outcomes
				if of[record.Dead] == 0 || of[record.Dead]+of[record.Written] != 200 {
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

// TestAPartIsNotLostWhenAnotherSinkStops: a sink has made its checkpoint when another one finds that the run is to
// stop. What the first has settled is written down with its parts, or not at all.
func TestAPartIsNotLostWhenAnotherSinkStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.setting = func(s *Setting) { s.Window = 4 }
		w.sinks["a"].Committing = true
		w.with("b", faulty{check: func() error {
			w.want(journal.Stop, "")
			return pace.ErrStopped
		}})
		w.is(w.must(), journal.Stopped, nil)
		w.sink = nil
		w.complete(w.must(), 10)
	})
}
