package flow

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/record"
)

// TestASinkAfterAnother gets a page once the journal knows that the other has finished it, and not what failed there.
func TestASinkAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.setting = func(s *Setting) { s.Window = 4 }
		w.change("b", func(s *job.Sink) { s.After = []string{"a"} })
		w.sinks["a"].Refuse = refusing(3)
		w.sinks["b"].Serve = func(_ context.Context, kind string, work func() error) error {
			err := work()
			if early := w.early("b"); early != "" {
				t.Error(early)
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
		why := r.Sinks["c"].Reason
		if r.State != journal.Incomplete || r.Sinks["a"].Open != 0 || !strings.Contains(why, "it comes after sink b") {
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

// early tells which row a sink has before those that it comes after have finished it, by the journal; "": none.
func (w *world) early(sink string) string {
	for _, before := range w.job.Sinks[sink].After {
		for row := range w.sinks[sink].Rows() {
			finished := false
			for _, d := range w.journal.finished() {
				split := connector.Split{Start: d.Start, End: d.End}
				finished = finished || d.Sink == before && split.Contains([]byte(row))
			}
			if !finished {
				return fmt.Sprintf("sink %s has row %q, which sink %s has not finished", sink, row, before)
			}
		}
	}
	return ""
}
