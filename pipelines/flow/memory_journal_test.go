package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

// memoryJournal is the journal of one run in memory, as far as the engine uses it. It refuses what the real ones refuse
// (TestTheJournalInMemoryIsOne), so what it has taken adds up. What it embeds panics when it is called.
type memoryJournal struct {
	journal.Journal

	mu       sync.Mutex
	splits   []connector.Split
	attempt  int
	control  journal.Control
	done     []journal.Done
	parts    []journal.Part
	letters  map[string]journal.Letter
	beats    map[int]map[string]journal.Beat
	failures map[int][]error
	events   []journal.Event
	sealed   map[string]journal.Commit // that have not ended, by sink
	ended    map[string]journal.Committed
	state    journal.State
	report   []byte

	// serve decides what becomes of a call, as iotest.Memory.Serve does; nil: the work is done and answered at once.
	serve func(ctx context.Context, kind string, work func() error) error
}

func newMemoryJournal(splits ...connector.Split) *memoryJournal {
	return &memoryJournal{splits: splits, control: journal.Control{Want: journal.Go},
		letters: map[string]journal.Letter{}, beats: map[int]map[string]journal.Beat{}, failures: map[int][]error{},
		sealed: map[string]journal.Commit{}, ended: map[string]journal.Committed{}}
}

func (j *memoryJournal) do(ctx context.Context, kind string, work func() error) error {
	locked := func() error {
		j.mu.Lock()
		defer j.mu.Unlock()
		return work()
	}
	if j.serve != nil {
		return j.serve(ctx, kind, locked)
	}
	return locked()
}

func (j *memoryJournal) Plan(ctx context.Context, _ string) iter.Seq2[connector.Split, error] {
	return each(func() (all []connector.Split, err error) {
		return all, j.do(ctx, "plan", func() error { all = slices.Clone(j.splits); return nil })
	})
}

// each gives what get gives, or its error.
func each[T any](get func() ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		all, err := get()
		if err != nil {
			yield(*new(T), err)
			return
		}
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}

func (j *memoryJournal) Attempt(context.Context, string) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.attempt++
	if j.control.Want == journal.Stop || j.control.Want == journal.Restart {
		j.control = journal.Control{Want: journal.Go}
	}
	j.state = journal.Running
	return j.attempt, nil
}

func (j *memoryJournal) Record(ctx context.Context, _ string, attempt int, b journal.Batch) error {
	return j.do(ctx, "record", func() error {
		if attempt != j.attempt {
			return fail.New(fail.Fatal, "journal.fenced", "attempt %d is over", attempt)
		}
		done := slices.Clone(j.done)
		for _, d := range b.Done {
			if d.Start != nil && d.End != nil && bytes.Compare(d.Start, d.End) >= 0 {
				return fail.New(fail.Fatal, "journal.no_interval", "(%x..%x] holds nothing", d.Start, d.End)
			}
			for _, old := range done {
				apart := old.Sink != d.Sink || old.Partition != d.Partition
				if !apart && !before(old.End, d.Start) && !before(d.End, old.Start) {
					return fail.New(fail.Fatal, "journal.overlap", "sink %q has finished (%x..%x] of (%x..%x] before",
						d.Sink, old.Start, old.End, d.Start, d.End)
				}
			}
			done = append(done, d)
		}
		j.done = done
		j.parts = append(j.parts, b.Parts...)
		for _, l := range b.Letters {
			if _, there := j.letters[l.ID]; !there {
				j.letters[l.ID] = l
			}
		}
		j.commits(b)
		return nil
	})
}

// commits ends commits, then seals others.
func (j *memoryJournal) commits(b journal.Batch) {
	for _, e := range b.Committed {
		c, open := j.sealed[e.Sink]
		if !open || c.Number != e.Number {
			continue
		}
		delete(j.sealed, e.Sink)
		sum := j.ended[e.Sink]
		j.ended[e.Sink] = journal.Committed{Commits: sum.Commits + 1, Records: sum.Records + e.Records,
			Superseded: sum.Superseded + e.Superseded}
		left := len(c.Parts)
		j.parts = slices.DeleteFunc(slices.Clone(j.parts), func(p journal.Part) bool {
			if p.Sink != e.Sink || left == 0 {
				return false
			}
			left--
			return true
		})
	}
	for _, s := range b.Seal {
		if _, open := j.sealed[s.Sink]; !open {
			j.sealed[s.Sink] = journal.Commit{Number: j.ended[s.Sink].Commits + 1, Note: s.Note, Parts: j.of(s.Sink)}
		}
	}
}

// of are the parts of a sink.
func (j *memoryJournal) of(sink string) (bodies [][]byte) {
	for _, p := range j.parts {
		if p.Sink == sink {
			bodies = append(bodies, p.Body)
		}
	}
	return bodies
}

func (j *memoryJournal) Sealed(ctx context.Context, _, sink string) (c journal.Commit, open bool, err error) {
	return c, open, j.do(ctx, "sealed", func() error { c, open = j.sealed[sink]; return nil })
}

func (j *memoryJournal) Committed(ctx context.Context, _, sink string) (c journal.Committed, err error) {
	return c, j.do(ctx, "committed", func() error { c = j.ended[sink]; return nil })
}

func (j *memoryJournal) ExtendPlan(ctx context.Context, _ string, splits []connector.Split) error {
	return j.do(ctx, "extend plan", func() error {
		for _, s := range splits {
			known := func(old connector.Split) bool { return reflect.DeepEqual(old, s) }
			if !slices.ContainsFunc(j.splits, known) {
				j.splits = append(j.splits, s)
			}
		}
		return nil
	})
}

// finished is what has been finished, also when the process is gone that asks.
func (j *memoryJournal) finished() []journal.Done {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.done)
}

func (j *memoryJournal) Finished(ctx context.Context, _ string) iter.Seq2[journal.Done, error] {
	return each(func() (all []journal.Done, err error) {
		return all, j.do(ctx, "finished", func() error { all = slices.Clone(j.done); return nil })
	})
}

func (j *memoryJournal) Parts(ctx context.Context, _, sink string) (bodies [][]byte, err error) {
	return bodies, j.do(ctx, "parts", func() error { bodies = j.of(sink); return nil })
}

func (j *memoryJournal) Finish(ctx context.Context, _ string, attempt int, s journal.State, report []byte) error {
	return j.do(ctx, "finish", func() error {
		if attempt != j.attempt {
			return fail.New(fail.Fatal, "journal.fenced", "attempt %d is over", attempt)
		}
		j.state, j.report = s, report
		return nil
	})
}

func (j *memoryJournal) Fail(_ context.Context, _ string, attempt int, cause error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failures[attempt] = append(j.failures[attempt], cause)
	return nil
}

func (j *memoryJournal) Control(ctx context.Context, _ string) (c journal.Control, err error) {
	return c, j.do(ctx, "control", func() error { c = j.control; return nil })
}

func (j *memoryJournal) SetControl(ctx context.Context, _ string, e journal.Event,
	change func(*journal.Control)) error {
	return j.do(ctx, "set control", func() error {
		change(&j.control)
		j.events = append(j.events, e)
		return nil
	})
}

func (j *memoryJournal) Beat(ctx context.Context, _ string, b journal.Beat) error {
	return j.do(ctx, "beat", func() error {
		if j.beats[b.Attempt] == nil {
			j.beats[b.Attempt] = map[string]journal.Beat{}
		}
		j.beats[b.Attempt][b.Worker] = b
		return nil
	})
}

func (j *memoryJournal) Beats(ctx context.Context, _ string) (all []journal.Beat, err error) {
	return all, j.do(ctx, "beats", func() error {
		for _, worker := range slices.Sorted(maps.Keys(j.beats[j.attempt])) {
			all = append(all, j.beats[j.attempt][worker])
		}
		return nil
	})
}

func (j *memoryJournal) Letters(ctx context.Context, _ string, f journal.LetterFilter) iter.Seq2[
	journal.Letter, error] {
	return each(func() (all []journal.Letter, err error) {
		return all, j.do(ctx, "letters", func() error {
			for _, id := range slices.Sorted(maps.Keys(j.letters)) {
				if l := j.letters[id]; len(f.Sinks) == 0 || slices.Contains(f.Sinks, l.Sink) {
					all = append(all, l)
				}
			}
			return nil
		})
	})
}

func (j *memoryJournal) Close() error { return nil }

// TestTheJournalInMemoryIsOne plays batches to it and to the journal in SQLite: both take and refuse the same.
func TestTheJournalInMemoryIsOne(t *testing.T) {
	stored, err := journal.Open(t.Context(), journal.Config{SQLite: filepath.Join(t.TempDir(), "journal.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		run := fmt.Sprint("run", n)
		plan := []connector.Split{{Partition: "p"}}
		memory := newMemoryJournal(plan...)
		begin := journal.Run{ID: run, Job: "job", Started: time.Now(), JobFile: []byte("{}"), Schema: []byte{0}}
		if err := stored.Begin(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
		if err := stored.SavePlan(t.Context(), run, slices.Values(plan), journal.Total{Splits: 1}); err != nil {
			t.Fatal(err)
		}
		for _, j := range []journal.Journal{memory, stored} {
			if _, err := j.Attempt(t.Context(), run); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			var b journal.Batch
			for range rapid.IntRange(0, 2).Draw(t, "intervals") {
				i := drawInterval(t, "done", -1, keys)
				sink := rapid.SampledFrom([]string{"", "a"}).Draw(t, "sink")
				d := journal.Done{Sink: sink, Partition: "p", Sum: journal.Sum{Read: 1}}
				d.Start, d.End = i.bounds()
				if rapid.IntRange(0, 9).Draw(t, "empty") == 0 && d.Start != nil {
					d.End = d.Start
				}
				b.Done = append(b.Done, d)
			}
			drawCommits(t, &b)
			attempt := rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "attempt")
			ours, theirs := memory.Record(t.Context(), run, attempt, b), stored.Record(t.Context(), run, attempt, b)
			if fail.CodeOf(ours) != fail.CodeOf(theirs) {
				t.Fatalf("%v; the real journal: %v", ours, theirs)
			}
			if more := rapid.IntRange(0, 3).Draw(t, "partition"); more > 0 {
				split := []connector.Split{{Partition: fmt.Sprint("p", more)}}
				for _, j := range []journal.Journal{memory, stored} {
					if err := j.ExtendPlan(t.Context(), run, split); err != nil {
						t.Fatal(err)
					}
				}
			}
			if d := cmp.Diff(committing(t, stored, run), committing(t, memory, run)); d != "" {
				t.Fatal(d)
			}
		}
		if got, want := covered(t, memory, run), covered(t, stored, run); !maps.Equal(got, want) {
			t.Fatalf("finished: %v; the real journal: %v", got, want)
		}
	})
}

// covered are the keys that each sink has finished, and the sums of all.
func covered(t *rapid.T, j journal.Journal, run string) map[string]int64 {
	all := map[string]int64{}
	for d, err := range j.Finished(context.Background(), run) {
		if err != nil {
			t.Fatal(err)
		}
		for key := range keys + 1 {
			if (connector.Split{Start: d.Start, End: d.End}).Contains(position(key)) {
				all[fmt.Sprint(d.Sink, " key ", key)]++
			}
		}
		all[d.Sink+" read"] += d.Sum.Read
	}
	return all
}

// drawCommits adds parts to a batch, seals commits and ends some, also such that are not there.
func drawCommits(t *rapid.T, b *journal.Batch) {
	sinks := rapid.SampledFrom([]string{"", "a"})
	for range rapid.IntRange(0, 2).Draw(t, "parts") {
		body := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "part")
		b.Parts = append(b.Parts, journal.Part{Sink: sinks.Draw(t, "sink"), Body: []byte(body)})
	}
	for range rapid.IntRange(0, 2).Draw(t, "ends") {
		b.Committed = append(b.Committed, journal.CommitEnd{Sink: sinks.Draw(t, "sink"),
			Number: rapid.IntRange(0, 3).Draw(t, "number"), Records: rapid.Int64Range(0, 5).Draw(t, "records"),
			Superseded: rapid.Int64Range(0, 1).Draw(t, "superseded")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "seals") {
		note := rapid.SampledFrom([]string{"", "at 1"}).Draw(t, "note")
		b.Seal = append(b.Seal, journal.Seal{Sink: sinks.Draw(t, "sink"), Note: note})
	}
}

// committing is all that a journal tells of a run's plan, parts and commits.
func committing(t *rapid.T, j journal.Journal, run string) (all []string) {
	for split, err := range j.Plan(t.Context(), run) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, split.String())
	}
	for _, sink := range []string{"", "a"} {
		parts, err := j.Parts(t.Context(), run, sink)
		c, open, e := j.Sealed(t.Context(), run, sink)
		sum, er := j.Committed(t.Context(), run, sink)
		if err := errors.Join(err, e, er); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("sink %q: parts %s; %d %q of %s, %t; %+v", sink, parts, c.Number, c.Note, c.Parts,
			open, sum))
	}
	return all
}
