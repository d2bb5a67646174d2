package flow

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms"
	"reprise/transforms/record"
)

// TestEveryRecordIsAccountedFor: of each kind of end that a record can come to, one row.
func TestEveryRecordIsAccountedFor(t *testing.T) {
	for _, hands := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 9, 0, 3)
			w.setting = func(s *Setting) { s.Hands = hands }
			w.tables["part0"].LoadRaw("zz", []byte("{"))
			w.job.Transforms = []transforms.Spec{traps(map[int]string{0: "drop", 1: "dead", 2: "twice", 3: "panic"})}
			w.change("b", func(s *job.Sink) {
				s.Transforms = []transforms.Spec{traps(map[int]string{4: "drop", 5: "dead", 6: "twice"})}
			})
			w.sinks["a"].Refuse = refusing(7)
			w.sinks["b"].Committing = true
			w.sinks["a"].Load(iotest.Record(assets, 8, iotest.Base+1))
			w.sinks["a"].Load(iotest.Record(assets, 9, iotest.Base))
			var first sync.Once
			w.page = func(p *connector.Page) { first.Do(func() { p.Filtered++ }) }
			r := w.must()
			// 12 rows, one that does not decode and one that the source leaves out; a twin is made of row 2 and, for
			// sink b, of row 6.
			w.is(r, journal.Complete, map[string]record.Counts{
				"a": counts(7, 1, 1, 2, 4),
				"b": counts(8+1, 0, 0, 2+1, 3+1),
			})
			if got, want := r.Sinks["a"].Made, int64(1); got != want {
				t.Errorf("%d made for sink a, want %d", got, want)
			}
			if got, want := r.Sinks["b"].Made, int64(2); got != want {
				t.Errorf("%d made for sink b, want %d", got, want)
			}
			if r.Read != 14 || r.DeadLetters != 5 || r.Splits != 3 || *r.Sinks["b"].Committed != 9 {
				t.Errorf("%+v", r)
			}
			if got := len(w.queue.Rows()); got != 5 {
				t.Errorf("%d letters in the queue, want 5", got)
			}
		})
	}
}

// TestALetterTellsWhereItsRowStands: by key where it has one, else by place, with the step that it failed in.
func TestALetterTellsWhereItsRowStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.tables["part0"].LoadRaw("zz", []byte("{"))
		w.page = func(p *connector.Page) {
			for _, l := range p.Dead {
				l.Place = &record.Place{Partition: "part0", Start: []byte("x"), End: []byte("zz")}
			}
		}
		w.job.Transforms = []transforms.Spec{traps(map[int]string{1: "dead"})}
		w.change("b", func(s *job.Sink) { s.Transforms = []transforms.Spec{traps(map[int]string{2: "dead"})} })
		w.sinks["a"].Refuse = refusing(3)
		w.is(w.must(), journal.Complete, nil)
		type entry struct {
			Sink, Step, Code, Key string
			Placed                bool
		}
		var got []entry
		for l, err := range w.journal.Letters(t.Context(), "run", journal.LetterFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			placed := l.Place != nil && bytes.Equal(l.Position, []byte("x"))
			got = append(got, entry{l.Sink, l.Step, l.Code, l.Key, placed})
		}
		want := []entry{
			{"", "source", "memory.malformed", "", true},
			{"", "transforms.0.trap", "trap.dead", key(1), false},
			{"a", "sink a", "memory.refused", key(3), false},
			{"b", "sink b transforms.0.trap", "trap.dead", key(2), false},
		}
		less := func(a, b entry) bool { return a.Step < b.Step }
		if diff := cmp.Diff(sorted(want, less), sorted(got, less)); diff != "" {
			t.Error(diff)
		}
	})
}

func sorted[T any](all []T, less func(a, b T) bool) []T {
	slices.SortFunc(all, func(a, b T) int {
		switch {
		case less(a, b):
			return -1
		case less(b, a):
			return 1
		}
		return 0
	})
	return all
}
