package flow

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
)

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
		want := []string{"sink a: 6 read and 0 made, but 0 ended"}
		if r := w.must(); r.State != journal.Unbalanced || !slices.Equal(r.Faults, want) {
			t.Errorf("%+v", r)
		}
	})
}
