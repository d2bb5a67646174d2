package flow

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// quiet is a log of Beam that nobody reads.
type quiet struct{}

func (quiet) Log(context.Context, log.Severity, int, string) {}

// onPrism runs the graph itself, with a journal in SQLite, and gives the run as the journal knows it.
func (w *world) onPrism(hands int) (journal.RunInfo, error) {
	w.t.Helper()
	log.SetLogger(quiet{})
	*jobopts.Endpoint, *jobopts.EnvironmentType = "", ""
	path := filepath.Join(w.t.TempDir(), "journal.db")
	w.job.Journal = &journal.Config{SQLite: path}
	j, err := journal.Open(w.ctx, *w.job.Journal)
	if err != nil {
		w.t.Fatal(err)
	}
	defer j.Close()
	s := w.settings(1)
	begin := journal.Run{ID: "run", Job: "job", Started: time.Now(), JobFile: s.Job, Schema: s.Schema}
	if err := j.Begin(w.ctx, begin); err != nil {
		w.t.Fatal(err)
	}
	plan := func(yield func(connector.Split) bool) {
		for _, s := range w.journal.splits {
			if !yield(s) {
				return
			}
		}
	}
	if err := j.SavePlan(w.ctx, "run", plan, journal.Total{Splits: len(w.journal.splits)}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := j.Attempt(w.ctx, "run"); err != nil {
		w.t.Fatal(err)
	}
	_, failed := prism.Execute(w.ctx, Graph(s, hands))
	info, err := j.Get(w.ctx, "run")
	if err != nil {
		w.t.Fatal(err)
	}
	w.journal.report = info.Report
	if failed != nil {
		cause, err := j.Failure(w.ctx, "run", 1, time.Time{})
		if err != nil || cause == nil {
			w.t.Fatalf("the journal knows no cause (%v) of: %v", err, failed)
		}
		return info, cause
	}
	return info, nil
}

// TestTheGraphOnPrism: the run is the same, whether its plan goes to one hand or to several.
func TestTheGraphOnPrism(t *testing.T) {
	for _, hands := range []int{0, 3} {
		w := newWorld(t, 7, 0, 5)
		w.job.Transforms = []transforms.Spec{traps(map[int]string{1: "dead"})}
		w.sinks["b"].Committing = true
		info, err := w.onPrism(hands)
		if err != nil || info.State != journal.Complete {
			t.Fatalf("%s, %v: %s", info.State, err, info.Report)
		}
		w.has("a", 12, 1)
		w.has("b", 12, 1)
		if len(w.queue.Rows()) != 1 {
			t.Errorf("%d letters", len(w.queue.Rows()))
		}
	}
}

// TestAnErrorOnPrism is in the journal as it was: the runner tells of it by text alone.
func TestAnErrorOnPrism(t *testing.T) {
	w := newWorld(t, 7)
	w.sinks["b"].Refuse = func(*record.Record) error { return fail.Job("memory.mapping", "no record fits") }
	_, err := w.onPrism(1)
	if fail.CodeOf(err) != "memory.mapping" {
		t.Errorf("%v", err)
	}
}
