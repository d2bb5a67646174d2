package flow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A run that goes on takes what comes until it is stopped, tells how far it is behind, finishes what it has read when
// it is stopped, and goes on where the journal stands.
func TestARunGoesOnUntilItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		s := w.following()
		s.add("part0", 0, 1, 2)
		time.AfterFunc(10*time.Second, func() { s.add("part1", 3, 4, 5, 6, 7) })
		time.AfterFunc(time.Hour, func() {
			w.has("a", 8)
			if b := w.beat(1).Behind; b == nil || b.Records != 0 || b.Age != 0 || len(b.Partitions) != 2 {
				t.Errorf("nothing is to be done, and the run is behind by %+v", b)
			}
			if d := cmp.Diff(map[string]string{"part0": "3", "part1": "5"}, s.told()); d != "" {
				t.Error(d)
			}
			s.add("part0", 8)
		})
		began := time.Now()
		w.stopAfter(time.Hour + 50*time.Millisecond)
		r := w.must()
		if took := time.Since(began); took < time.Hour || took > time.Hour+2*time.Second {
			t.Errorf("it took %v", took)
		}
		w.is(r, journal.Stopped, map[string]record.Counts{"a": counts(9, 0, 0, 0, 0), "b": counts(9, 0, 0, 0, 0)})
		if d := cmp.Diff(map[string]string{"part0": "4", "part1": "5"}, s.told()); d != "" || r.Read != 9 {
			t.Errorf("%s, %d read", d, r.Read)
		}
		s.add("part1", 9)
		w.stopAfter(time.Minute)
		w.is(w.must(), journal.Stopped, map[string]record.Counts{"a": counts(10, 0, 0, 0, 0)})
		w.has("b", 10)
	})
}

// A place without a row, such as the end of a transaction, is done as rows are, also where nothing comes after it.
func TestAPlaceWithoutARowIsDone(t *testing.T) {
	for _, rows := range [][]int{{gap}, {0, gap}, {0, 1, gap}, {0, 1, gap, gap, gap}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 0)
			s := w.following()
			w.sinks["b"].Committing = true
			w.commitsEvery(job.CommitEvery{Time: connector.Duration(10 * time.Second)})
			s.add("part0", rows...)
			time.AfterFunc(time.Minute, func() {
				if b := w.beat(1).Behind; b == nil || b.Records != 0 || b.Age != 0 {
					t.Errorf("%v: the run is behind by %+v", rows, b)
				}
				if d := cmp.Diff(map[string]string{"part0": fmt.Sprint(len(rows))}, s.told()); d != "" {
					t.Errorf("%v: %s", rows, d)
				}
			})
			w.stopAfter(2 * time.Minute)
			w.is(w.must(), journal.Stopped, nil)
		})
	}
}

// How far a run is behind is told by its slowest sink, in records, in time, and by partition.
func TestHowFarARunIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		s := w.following()
		s.add("part0", 0, 1)
		time.AfterFunc(time.Hour, func() { w.sinks["b"].Pause() })
		time.AfterFunc(time.Hour+time.Second, func() {
			s.add("part0", 2)
			s.add("part1", 3, 4, 5)
		})
		time.AfterFunc(time.Hour+21*time.Second, func() {
			defer w.sinks["b"].Resume()
			b := w.beat(1).Behind
			if b.Records != 4 || b.Age < 18*time.Second || b.Age > 22*time.Second {
				t.Errorf("%+v", b)
			}
			want := []connector.Lag{{Partition: "part1", Position: "0", Records: 3},
				{Partition: "part0", Position: "2", Records: 1}}
			if d := cmp.Diff(want, b.Partitions); d != "" {
				t.Error(d)
			}
			if d := b.Delays["a"]; d.P50 <= 0 || d.P99 < d.P50 || d.P99 > time.Second {
				t.Errorf("the delays at sink a are %+v", d)
			}
		})
		time.AfterFunc(time.Hour+31*time.Second, func() {
			b := w.beat(1).Behind
			if d := b.Delays["b"]; b.Records != 0 || b.Age != 0 || d.P99 < 15*time.Second || d.P99 > 30*time.Second {
				t.Errorf("%+v", b)
			}
		})
		w.stopAfter(time.Hour + time.Minute)
		w.is(w.must(), journal.Stopped, nil)
		w.has("b", 6)
	})
}

// A source that is not told, or does not say how far the run is behind, does no harm; one that must not be told ends
// the run.
func TestASourceThatIsNotTold(t *testing.T) {
	down := fail.Unreachable("stream.down", "it does not answer")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		s.refuse, s.lagging = down, down
		s.add("part0", 0, 1, 2)
		time.AfterFunc(time.Minute, func() {
			if b := w.beat(1).Behind; b != nil {
				t.Errorf("%+v", b)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = nil
		})
		time.AfterFunc(70*time.Second, func() {
			if got := s.told()["part0"]; got != "3" {
				t.Errorf("it was told %q", got)
			}
		})
		w.stopAfter(2 * time.Minute)
		w.is(w.must(), journal.Stopped, nil)
		w.has("a", 3)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		s.refuse = fail.New(fail.Fatal, "stream.used", "somebody else tells it")
		s.add("part0", 0, 1, 2)
		w.fails("stream.used")
		s.refuse = nil
		w.stopAfter(time.Minute)
		w.is(w.must(), journal.Stopped, nil)
		w.has("a", 3)
	})
}

// A sink that was left behind gets its turn again without anybody's help.
func TestASinkThatWasDownTakesPartAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		s.add("part0", 0, 1, 2)
		w.sinks["b"].Retry = connector.Retry{First: time.Second, Max: time.Second, Deadline: 3 * time.Second}
		w.job.Pace.Outage = connector.Duration(time.Second)
		w.sinks["b"].Stop()
		r := w.must()
		if r.State != journal.Incomplete || !strings.Contains(r.Reason, "take part again") || len(r.Faults) > 0 {
			t.Fatalf("%+v", r)
		}
		w.has("a", 3)
		w.has("b", 0)
		w.sinks["b"].Start()
		w.want(journal.Go, "")
		w.stopAfter(time.Minute)
		w.is(w.must(), journal.Stopped, map[string]record.Counts{"a": counts(3, 0, 0, 0, 0)})
		w.has("b", 3)
	})
}

// A run that was asked to stop is not begun anew.
func TestAStopIsNoRestart(t *testing.T) {
	j := newMemoryJournal()
	for _, want := range []journal.Want{journal.Stop, journal.Pause} {
		j.control = journal.Control{Want: want}
		if err := Restart(t.Context(), j, "run", "why"); err != nil || j.control.Want != want {
			t.Errorf("%v, %+v", err, j.control)
		}
	}
}

// Sinks commit by time and by rows, each what it has got since; what is sealed for it tells where the source stands.
func TestCommitsOfARunThatGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		every job.CommitEvery
		want  []string // names, with what was visible behind each
	}{
		"by time": {job.CommitEvery{Time: connector.Duration(time.Minute)},
			[]string{`run.1 3 {"part0":"3"}`, `run.2 5 {"part0":"5"}`, `run.3 8 {"part0":"8"}`,
				`run.4 9 {"part0":"9"}`}},
		"by rows": {job.CommitEvery{Rows: 5}, []string{`run.1 5 {"part0":"5"}`, `run.2 9 {"part0":"9"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0)
				s := w.following()
				w.commitsEvery(c.every)
				w.sinks["b"].Committing = true
				commits := w.watch()["b"]
				var got []string
				commits.before = func(context.Context) error {
					run := commits.runs[len(commits.runs)-1]
					rows := 0
					for _, parts := range commits.of {
						for _, p := range parts {
							rows += len(w.sinks["b"].Staged([]byte(p)))
						}
					}
					got = append(got, fmt.Sprintf("%s %d %s", run.ID, rows, run.Offsets))
					return nil
				}
				s.add("part0", 0, 1, 2)
				time.AfterFunc(2*time.Minute, func() { s.add("part0", 3, 4, 5, 6, 7) })
				time.AfterFunc(150*time.Second, func() { w.has("b", 5) })
				time.AfterFunc(6*time.Minute, func() {
					if c.every.Time > 0 {
						w.has("b", 8)
					}
					s.add("part0", 8)
				})
				w.stopAfter(6*time.Minute + time.Second)
				r := w.must()
				w.is(r, journal.Stopped, map[string]record.Counts{"b": counts(9, 0, 0, 0, 0)})
				w.has("b", 9)
				if d := cmp.Diff(c.want, got); d != "" {
					t.Error(d)
				}
				if n := r.Sinks["b"].Committed; n == nil || *n != 9 {
					t.Errorf("%v committed", n)
				}
				if faults := commits.uneven(w.sinks["b"], w.keys(9)); len(faults) > 0 {
					t.Error(faults)
				}
				if len(w.journal.parts) > 0 || len(w.journal.sealed) > 0 {
					t.Errorf("%d parts are left, and %v is sealed", len(w.journal.parts), w.journal.sealed)
				}
			})
		})
	}
}

// keys are those of the first rows.
func (w *world) keys(n int) (all []string) {
	for i := range n {
		all = append(all, key(i))
	}
	return all
}

// A commit that fails leaves the sink behind; the next attempt makes it first, the same as it was, though more has
// come since. So it does with one that an earlier process was making when it was stopped or killed.
func TestACommitThatWasNotMadeIsMadeFirst(t *testing.T) {
	for name, breaks := range map[string]func(w *world, c *committed) journal.State{
		"it fails": func(w *world, c *committed) journal.State {
			c.before = func(context.Context) error { return errDown }
			return journal.Incomplete
		},
		"a stop": func(w *world, c *committed) journal.State {
			first := true
			c.before = func(ctx context.Context) error {
				if !first {
					return errDown
				}
				first = false
				w.want(journal.Stop, "")
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return journal.Stopped
		},
		"a kill": func(w *world, c *committed) journal.State {
			ctx, kill := context.WithCancel(w.ctx)
			w.ctx = ctx
			c.before = func(ctx context.Context) error {
				kill()
				<-ctx.Done()
				return ctx.Err()
			}
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0)
				s := w.following()
				w.commitsEvery(job.CommitEvery{Rows: 3})
				w.sinks["b"].Committing = true
				commits := w.watch()["b"]
				state := breaks(w, commits)
				s.add("part0", 0, 1, 2)
				r, err := w.attempt()
				if (state == "") != (err != nil) || r != nil && (r.State != state || len(r.Faults) > 0) {
					t.Fatalf("%+v, %v", r, err)
				}
				w.has("b", 0)
				if n := len(w.journal.sealed["b"].Parts); n == 0 {
					t.Fatal("nothing is sealed")
				}
				w.ctx, commits.before = t.Context(), nil
				w.want(journal.Go, "")
				s.add("part0", 3, 4, 5, 6)
				from := len(commits.runs)
				w.stopAfter(time.Minute)
				w.is(w.must(), journal.Stopped, map[string]record.Counts{"b": counts(7, 0, 0, 0, 0)})
				w.has("b", 7)
				if got := commits.names()[from:]; got[0] != "run.1" || slices.Contains(got[1:], "run.1") {
					t.Errorf("the commits are %q", got)
				}
				if faults := commits.uneven(w.sinks["b"], w.keys(7)); len(faults) > 0 {
					t.Error(faults)
				}
			})
		})
	}
}

// What an earlier attempt has written and not sealed becomes visible in time, also where nothing comes after it.
func TestWhatAnEarlierAttemptWroteIsCommittedInTime(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 0)
			s := w.following()
			w.commitsEvery(job.CommitEvery{Time: connector.Duration(time.Hour)})
			w.setting = func(s *Setting) { s.Window = 4 } // it is written down at once
			w.sinks["b"].Committing = true
			w.sinks["a"].Refuse = refusing(1)
			w.queue.Committing = true
			var kill context.CancelFunc
			w.ctx, kill = context.WithCancel(t.Context())
			s.add("part0", 0, 1, 2, 3)
			time.AfterFunc(time.Minute, func() {
				if len(w.journal.of("b")) == 0 || len(w.journal.of("")) == 0 {
					t.Error("nothing is written down")
				}
				if sealed {
					seal := []journal.Seal{{Sink: "b"}}
					if err := w.journal.Record(t.Context(), "run", 1, journal.Batch{Seal: seal}); err != nil {
						t.Error(err)
					}
					s.add("part0", 4, 5, 6, 7)
				}
			})
			time.AfterFunc(2*time.Minute, kill)
			if _, err := w.attempt(); err == nil {
				t.Fatal("the attempt was not killed")
			}
			w.ctx = t.Context()
			time.AfterFunc(65*time.Minute, func() {
				w.has("b", len(s.logs["part0"]))
				if n := len(w.queue.Rows()); n != 1 {
					t.Errorf("%d dead letters are there to be seen", n)
				}
				if left := w.journal.of("b"); len(left) > 0 {
					t.Errorf("%d parts are not committed", len(left))
				}
			})
			w.stopAfter(66 * time.Minute)
			w.must()
		})
	}
}

// The queue of dead letters commits as sinks do; where it cannot, the run does not go on.
func TestTheQueueCommitsToo(t *testing.T) {
	begin := func(t *testing.T) (*world, *committed) {
		w := newWorld(t, 0)
		s := w.following()
		w.commitsEvery(job.CommitEvery{Time: connector.Duration(time.Minute)})
		w.queue.Committing = true
		w.sinks["a"].Refuse = refusing(1, 2)
		s.add("part0", 0, 1, 2, 3)
		return w, w.watch()["queue"]
	}
	synctest.Test(t, func(t *testing.T) {
		w, queue := begin(t)
		time.AfterFunc(2*time.Minute, func() {
			if n := len(w.queue.Rows()); n != 2 {
				t.Errorf("%d letters", n)
			}
		})
		w.stopAfter(5 * time.Minute)
		r := w.must()
		w.is(r, journal.Stopped, map[string]record.Counts{"a": counts(2, 0, 0, 0, 2)})
		if got := queue.names(); !slices.Equal(got, []string{"run.1"}) || r.DeadLetters != 2 {
			t.Errorf("the commits are %q, %d letters", got, r.DeadLetters)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w, queue := begin(t)
		queue.before = func(context.Context) error { return errDown }
		w.fails("memory.down")
		queue.before = nil
		w.stopAfter(time.Minute)
		w.is(w.must(), journal.Stopped, nil)
		if got := slices.Compact(queue.names()); !slices.Equal(got, []string{"run.1"}) || len(w.queue.Rows()) != 2 {
			t.Errorf("the commits are %q, %d letters", got, len(w.queue.Rows()))
		}
	})
}

// A commit that is refused ends the run, as does one that does not add up.
func TestACommitThatIsRefusedEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		w.commitsEvery(job.CommitEvery{Rows: 1})
		w.sinks["b"].Committing = true
		w.watch()["b"].before = func(context.Context) error { return fail.Job("memory.schema", "changed") }
		s.add("part0", 0)
		w.fails("memory.schema")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		w.commitsEvery(job.CommitEvery{Rows: 1})
		w.sinks["b"].Committing = true
		w.sink = func(name string, s connector.Sink) connector.Sink {
			if name != "b" {
				return s
			}
			return committer{s, func() (int64, error) { return 5, nil }}
		}
		s.add("part0", 0)
		w.stopAfter(time.Minute)
		if r := w.must(); r.State != journal.Unbalanced || len(r.Faults) != 1 {
			t.Errorf("%+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) { // records that lose to newer ones are counted so
		w := newWorld(t, 0)
		s := w.following()
		w.commitsEvery(job.CommitEvery{Rows: 1})
		w.sinks["b"].Committing = true
		w.sink = func(name string, s connector.Sink) connector.Sink {
			if name != "b" {
				return s
			}
			return merging{committer{s, func() (int64, error) { return 0, nil }}, 1}
		}
		s.add("part0", 0, 1)
		time.AfterFunc(time.Minute, func() { s.add("part0", 2, 3) })
		w.stopAfter(2 * time.Minute)
		w.is(w.must(), journal.Stopped, map[string]record.Counts{"b": counts(2, 0, 2, 0, 0)})
	})
}

// Errors of the journal while a run commits end the attempt; the next one goes on.
func TestErrorsOfTheJournalWhileARunCommits(t *testing.T) {
	gone := fail.New(fail.Transient, "journal.gone", "no answer")
	for _, kind := range []string{"sealed", "committed", "parts", "finished", "plan", "record"} {
		for n := 1; n <= 8; n++ {
			t.Run(fmt.Sprint(kind, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 0)
					s := w.following()
					w.commitsEvery(job.CommitEvery{Time: connector.Duration(10 * time.Second)})
					w.sinks["a"].Committing, w.sinks["b"].Committing = true, true
					commits := w.watch()
					s.add("part0", 0, 1, 2)
					time.AfterFunc(15*time.Second, func() { s.add("part0", 3, 4) })
					w.journal.serve = nth(n, kind, gone)
					w.stopAfter(time.Minute)
					if r, err := w.attempt(); err == nil && r.State == journal.Unbalanced ||
						err != nil && fail.CodeOf(err) != "journal.gone" {
						t.Fatalf("%+v, %v", r, err)
					}
					w.journal.serve = nil
					w.want(journal.Go, "")
					s.add("part0", 5)
					w.stopAfter(2 * time.Minute)
					w.is(w.must(), journal.Stopped, map[string]record.Counts{"a": counts(6, 0, 0, 0, 0)})
					for name := range w.sinks {
						w.has(name, 6)
						if faults := commits[name].uneven(w.sinks[name], w.keys(6)); len(faults) > 0 {
							t.Error(faults)
						}
					}
				})
			})
		}
	}
}

// New partitions are read from the next attempt on.
func TestAPlanThatGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		s := w.following()
		s.add("part0", 0, 1, 2)
		s.add("part1", 3, 4)
		time.AfterFunc(time.Minute, func() {
			if err := Restart(t.Context(), w.journal, "run", "the source has 1 new partition"); err != nil {
				t.Error(err)
			}
		})
		if r := w.must(); r.State != journal.Incomplete || r.Reason != "the source has 1 new partition" {
			t.Fatalf("%+v", r)
		}
		w.has("a", 3)
		if err := w.journal.ExtendPlan(t.Context(), "run", []connector.Split{{Partition: "part1"}}); err != nil {
			t.Fatal(err)
		}
		w.want(journal.Go, "")
		w.stopAfter(time.Minute)
		r := w.must()
		w.is(r, journal.Stopped, map[string]record.Counts{"a": counts(5, 0, 0, 0, 0)})
		at, err := Standing(t.Context(), w.journal, "run", []string{"a", "b"}, []connector.Split{{Partition: "part1"}})
		if err != nil || len(at) != 1 || s.Position(at[0]) != "2" {
			t.Errorf("%v, %v", at, err)
		}
	})
}
