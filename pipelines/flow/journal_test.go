package flow

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// TestADeadLetterThatIsNotWrittenEndsTheAttempt: nothing else would know of its record.
func TestADeadLetterThatIsNotWrittenEndsTheAttempt(t *testing.T) {
	full := fail.New(fail.Permanent, "disk.full", "the disk is full").WithFix("make room")
	gone := fail.New(fail.Fatal, "disk.gone", "no disk")
	const lost = "dead_letters.not_written"
	for name, c := range map[string]struct {
		breaks func(w *world)
		code   string
	}{
		"refused":          {func(w *world) { w.queue.Refuse = func(*record.Record) error { return full } }, lost},
		"not opened":       {func(w *world) { w.with("queue", faulty{open: always(full)}) }, lost},
		"not taken":        {func(w *world) { w.with("queue", faulty{write: always(errors.New("no"))}) }, lost},
		"not flushed":      {func(w *world) { w.queue.Serve = once("write", gone) }, lost},
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
	refused := fail.Job("journal.no_run", "no such run")
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
		"refused":                {serve: once("beat", refused), code: "journal.no_run", change: hangs},
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
