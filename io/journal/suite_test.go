package journal_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// suite is what every store must do. A journal that is opened again is what other processes see.
func suite(t *testing.T, config journal.Config) {
	t.Helper()
	for name, check := range map[string]func(*testing.T, journal.Config){
		"run":              checkRun,
		"unknown run":      checkUnknownRun,
		"plan":             checkPlan,
		"failed plan":      checkFailedPlan,
		"extended plan":    checkExtendedPlan,
		"commits":          checkCommits,
		"members":          checkMembers,
		"failure":          checkFailure,
		"attempts":         checkAttempts,
		"record":           checkRecord,
		"record refused":   checkRecordRefused,
		"record much":      checkRecordMuch,
		"record at once":   checkRecordAtOnce,
		"record by random": checkRecordByRandom,
		"control":          checkControl,
		"control at once":  checkControlAtOnce,
		"beats":            checkBeats,
		"history":          checkHistory,
		"letters":          checkLetters,
		"trim":             checkTrim,
		"killed writers":   checkKilledWriters,
	} {
		t.Run(name, func(t *testing.T) { check(t, config) })
	}
}

func open(t testing.TB, config journal.Config) journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

var lastRun int

// begin begins a run with an id of its own.
func begin(t testing.TB, j journal.Journal) journal.Run {
	t.Helper()
	lastRun++
	r := journal.Run{ID: fmt.Sprintf("r%d", lastRun), Job: "backfill", Fingerprint: "f",
		Started: time.UnixMicro(1_700_000_000_000_001 + int64(lastRun)).UTC(),
		JobFile: []byte(`{"name":"backfill"}`), Schema: []byte{0, 1, 0xff}, Parent: "r0"}
	if err := j.Begin(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// attempt begins a run and an attempt at it.
func attempt(t testing.TB, j journal.Journal) (run string) {
	t.Helper()
	r := begin(t, j)
	if n, err := j.Attempt(t.Context(), r.ID); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return r.ID
}

func all[T any](t testing.TB, of iter.Seq2[T, error]) []T {
	t.Helper()
	var list []T
	for v, err := range of {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

// first is the error of the first element.
func first[T any](of iter.Seq2[T, error]) error {
	for _, err := range of {
		return err
	}
	return nil
}

func checkCode(t testing.TB, err error, code string) {
	t.Helper()
	if fail.CodeOf(err) != code || fail.ClassOf(err) != fail.Fatal {
		t.Errorf("want %s, fatal: %v", code, err)
	}
}

func checkRun(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	older, want := begin(t, j), begin(t, j)
	got, err := again.Get(ctx, want.ID)
	if d := cmp.Diff(journal.RunInfo{Run: want, State: journal.Running}, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	checkCode(t, j.Begin(ctx, want), "journal.has_run")
	if _, err := j.Attempt(ctx, want.ID); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		state        journal.State
		report, want []byte
	}{{journal.Paused, nil, nil}, {journal.Failed, []byte("{1}"), []byte("{1}")},
		{journal.Complete, nil, []byte("{1}")}} {
		if err := j.Finish(ctx, want.ID, 1, end.state, end.report); err != nil {
			t.Fatal(err)
		}
		got, err := again.Get(ctx, want.ID)
		if err != nil || got.State != end.state || got.Attempt != 1 || !slices.Equal(got.Report, end.want) ||
			time.Since(got.Ended).Abs() > time.Hour {
			t.Errorf("%+v, %v", got, err)
		}
	}
	runs, err := again.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := func(id string) int { return slices.IndexFunc(runs, func(r journal.RunInfo) bool { return r.ID == id }) }
	if at(want.ID) < 0 || at(older.ID) < at(want.ID) {
		t.Errorf("list: %+v", runs)
	}
}

func checkUnknownRun(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	for name, do := range map[string]func() error{
		"Get":        func() error { _, err := j.Get(ctx, "nobody"); return err },
		"Total":      func() error { _, err := j.Total(ctx, "nobody"); return err },
		"Plan":       func() error { return first(j.Plan(ctx, "nobody")) },
		"SavePlan":   func() error { return j.SavePlan(ctx, "nobody", splits(1), journal.Total{Splits: 1}) },
		"Attempt":    func() error { _, err := j.Attempt(ctx, "nobody"); return err },
		"Record":     func() error { return j.Record(ctx, "nobody", 0, journal.Batch{}) },
		"Finished":   func() error { return first(j.Finished(ctx, "nobody")) },
		"Parts":      func() error { _, err := j.Parts(ctx, "nobody", "s"); return err },
		"Finish":     func() error { return j.Finish(ctx, "nobody", 1, journal.Complete, nil) },
		"Control":    func() error { _, err := j.Control(ctx, "nobody"); return err },
		"SetControl": func() error { return j.SetControl(ctx, "nobody", journal.Event{}, func(*journal.Control) {}) },
		"Beats":      func() error { _, err := j.Beats(ctx, "nobody"); return err },
		"AllBeats":   func() error { _, err := j.AllBeats(ctx, "nobody"); return err },
		"Note":       func() error { return j.Note(ctx, "nobody", journal.Event{}) },
		"Beat":       func() error { return j.Beat(ctx, "nobody", journal.Beat{}) },
		"Fail":       func() error { return j.Fail(ctx, "nobody", 1, errors.New("no")) },
		"Failure":    func() error { _, err := j.Failure(ctx, "nobody", 1, time.Time{}); return err },
		"History":    func() error { _, err := j.History(ctx, "nobody"); return err },
		"Letters":    func() error { return first(j.Letters(ctx, "nobody", journal.LetterFilter{})) },
	} {
		if err := do(); fail.CodeOf(err) != "journal.no_run" || fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func splits(n int) iter.Seq[connector.Split] {
	return func(yield func(connector.Split) bool) {
		for i := range n {
			if !yield(connector.Split{Partition: fmt.Sprint("p", i/10), Start: []byte{byte(i), 0},
				End: []byte{byte(i), 0xff}, Rows: int64(i), Bytes: 7, Sinks: []string{"lake"}}) {
				return
			}
		}
	}
}

func checkPlan(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := begin(t, j).ID
	_, err := j.Total(ctx, run)
	checkCode(t, err, "journal.no_plan")
	checkCode(t, first(j.Plan(ctx, run)), "journal.no_plan")
	want := journal.Total{Splits: 100_000, Rows: 3, Bytes: 1 << 40}
	if err := j.SavePlan(ctx, run, splits(want.Splits), want); err != nil {
		t.Fatal(err)
	}
	checkCode(t, j.SavePlan(ctx, run, splits(1), journal.Total{Splits: 1}), "journal.has_plan")
	if got, err := again.Total(ctx, run); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if d := cmp.Diff(slices.Collect(splits(want.Splits)), all(t, again.Plan(ctx, run))); d != "" {
		t.Errorf("%.1000s", d)
	}
	empty := begin(t, j).ID
	if err := j.SavePlan(ctx, empty, splits(0), journal.Total{}); err != nil {
		t.Fatal(err)
	}
	if got := all(t, j.Plan(ctx, empty)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// A plan that fails halfway leaves nothing, and one can be stored in its place.
func checkFailedPlan(t *testing.T, config journal.Config) {
	j := open(t, config)
	run := begin(t, j).ID
	ctx, cancel := context.WithCancel(t.Context())
	halfway := func(yield func(connector.Split) bool) {
		n := 0
		for s := range splits(10_000) {
			if n++; n == 5000 {
				cancel()
			}
			if !yield(s) {
				return
			}
		}
	}
	if err := j.SavePlan(ctx, run, halfway, journal.Total{Splits: 10_000}); err == nil {
		t.Error("a cancelled plan was stored")
	}
	checkCode(t, first(j.Plan(t.Context(), run)), "journal.no_plan")
	if err := j.SavePlan(t.Context(), run, splits(1), journal.Total{Splits: 1}); err != nil {
		t.Error(err)
	}
	if got := all(t, j.Plan(t.Context(), run)); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func checkFailure(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := begin(t, j).ID
	if cause, err := j.Failure(ctx, run, 2, time.Time{}); cause != nil || err != nil {
		t.Fatal(cause, err)
	}
	cause := fail.Unreachable("kafka.unreachable", "no broker: %w", errors.New("refused")).WithFix("start it")
	for i, err := range []error{fmt.Errorf("sink events: %w", cause), errors.New("later"),
		errors.New("of another attempt")} {
		if err := j.Fail(ctx, run, 2-i/2, err); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Failure(ctx, run, 2, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if fail.CodeOf(got) != "kafka.unreachable" || fail.ClassOf(got) != fail.Transient ||
		fail.ExitOf(got) != fail.ExitUnreachable || got.Error() != cause.Error() {
		t.Errorf("failure: %v, exit %d", got, fail.ExitOf(got))
	}
	got, err = j.Failure(ctx, run, 1, time.Time{})
	if err != nil || !strings.Contains(got.Error(), "of another attempt") {
		t.Errorf("%v, %v", got, err)
	}
	// A member that begins later asks for what has failed since.
	began := time.Now().Add(time.Millisecond)
	if got, err := j.Failure(ctx, run, 2, began); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	time.Sleep(time.Until(began))
	if err := j.Fail(ctx, run, 2, errors.New("since")); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Failure(ctx, run, 2, began); err != nil || got == nil || !strings.HasPrefix(got.Error(), "since") {
		t.Errorf("%v, %v", got, err)
	}
}

func checkAttempts(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	overtaken := attempt(t, j)
	part := func(from, to string) journal.Batch {
		return journal.Batch{Done: []journal.Done{{Partition: "p", Start: []byte(from), End: []byte(to)}}}
	}
	if err := j.Record(ctx, overtaken, 1, part("a", "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Attempt(ctx, overtaken); err != nil {
		t.Fatal(err)
	}
	if err := again.Record(ctx, overtaken, 2, part("b", "c")); err != nil {
		t.Fatal(err)
	}
	checkCode(t, j.Record(ctx, overtaken, 1, part("b", "c")), "journal.fenced")

	run := attempt(t, j)
	if err := j.Finish(ctx, run, 1, journal.Stopped, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := again.Attempt(ctx, run); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	checkCode(t, j.Finish(ctx, run, 1, journal.Failed, nil), "journal.fenced")
	if got, err := j.Get(ctx, run); err != nil || got.State != journal.Running || got.Attempt != 2 ||
		!got.Ended.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	checkCode(t, j.Record(ctx, run, 1, journal.Batch{Done: []journal.Done{{Partition: "p"}},
		Parts: []journal.Part{{Body: []byte("x")}}}), "journal.fenced")
	if got := all(t, j.Finished(ctx, run)); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got, err := j.Parts(ctx, run, ""); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	// Of those who begin an attempt at once each has its own.
	var mu sync.Mutex
	var numbers []int
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			n, err := again.Attempt(ctx, run)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, n)
		})
	}
	group.Wait()
	if slices.Sort(numbers); !slices.Equal(numbers, []int{3, 4, 5, 6}) {
		t.Errorf("attempts %v", numbers)
	}
}

// sum is that of n records.
func sum(n int64) journal.Sum {
	return journal.Sum{Read: n, Made: 2 * n, Letters: n, Outcomes: record.Counts{record.Written: 3 * n}}
}

func done(sink, partition string, start, end []byte, n int64) journal.Done {
	return journal.Done{Sink: sink, Partition: partition, Start: start, End: end, Sum: sum(n)}
}

var anyOrder = cmpopts.SortSlices(func(a, b journal.Done) bool { return fmt.Sprint(a) < fmt.Sprint(b) })

func checkFinished(t testing.TB, j journal.Journal, run string, want ...journal.Done) {
	t.Helper()
	if d := cmp.Diff(want, all(t, j.Finished(t.Context(), run)), anyOrder, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("finished: %s", d)
	}
}

// Splits are added once, whoever adds them.
func checkExtendedPlan(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := begin(t, j).ID
	more := []connector.Split{{Partition: "new/1"}, {Partition: "new/2", Start: []byte{1}}}
	checkCode(t, j.ExtendPlan(ctx, run, more), "journal.no_plan")
	if err := j.SavePlan(ctx, run, splits(3), journal.Total{Splits: 3, Rows: 7}); err != nil {
		t.Fatal(err)
	}
	for _, add := range [][]connector.Split{more[:1], more, more} {
		if err := j.ExtendPlan(ctx, run, add); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(append(slices.Collect(splits(3)), more...), all(t, again.Plan(ctx, run))); d != "" {
		t.Error(d)
	}
	if total, err := again.Total(ctx, run); err != nil || total != (journal.Total{Splits: 5, Rows: 7}) {
		t.Errorf("%+v, %v", total, err)
	}
}

// What is sealed stays the same until it has ended, and is then counted once, and gone.
func checkCommits(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	write := func(b journal.Batch) {
		t.Helper()
		if err := j.Record(ctx, run, 1, b); err != nil {
			t.Fatal(err)
		}
	}
	part := func(sink, body string) []journal.Part { return []journal.Part{{Sink: sink, Body: []byte(body)}} }
	seal := func(sink, note string) []journal.Seal { return []journal.Seal{{Sink: sink, Note: note}} }
	sealed := func(sink string, number int, note string, parts ...string) {
		t.Helper()
		c, open, err := again.Sealed(ctx, run, sink)
		if err != nil || open != (number > 0) || c.Number != number || c.Note != note ||
			!slices.Equal(texts(c.Parts), parts) {
			t.Errorf("sink %q: commit %d %q of %q, %v, %v; want %d %q of %q", sink, c.Number, c.Note, texts(c.Parts),
				open, err, number, note, parts)
		}
	}
	committed := func(sink string, want journal.Committed) {
		t.Helper()
		if got, err := again.Committed(ctx, run, sink); err != nil || got != want {
			t.Errorf("sink %q: %+v, %v; want %+v", sink, got, err, want)
		}
	}
	sealed("s", 0, "")
	write(journal.Batch{Parts: part("s", "one")})
	write(journal.Batch{Parts: part("s", "two"), Seal: seal("s", "at 2")})
	write(journal.Batch{Parts: append(part("s", "three"), part("", "queue")...), Seal: seal("s", "at 3")})
	sealed("s", 1, "at 2", "one", "two")
	committed("s", journal.Committed{})
	end := []journal.CommitEnd{{Sink: "s", Number: 1, Records: 20, Superseded: 3}}
	write(journal.Batch{Committed: end})
	write(journal.Batch{Committed: end}) // by another worker, which did the same
	sealed("s", 0, "")
	committed("s", journal.Committed{Commits: 1, Records: 20, Superseded: 3})
	write(journal.Batch{Seal: append(seal("s", "at 4"), seal("", "")...)})
	sealed("s", 2, "at 4", "three")
	sealed("", 1, "", "queue")
	write(journal.Batch{Committed: end}) // late
	sealed("s", 2, "at 4", "three")
	write(journal.Batch{Committed: []journal.CommitEnd{{Sink: "s", Number: 2, Records: 1}}})
	committed("s", journal.Committed{Commits: 2, Records: 21, Superseded: 3})
	committed("", journal.Committed{})
	if left, err := again.Parts(ctx, run, "s"); err != nil || len(left) > 0 {
		t.Errorf("%q, %v", left, err)
	}
	write(journal.Batch{Parts: part("s", "four"), Seal: seal("s", "")})
	sealed("s", 3, "", "four")
	if _, err := j.Attempt(ctx, run); err != nil {
		t.Fatal(err)
	}
	checkCode(t, j.Record(ctx, run, 1, journal.Batch{Committed: []journal.CommitEnd{{Sink: "s", Number: 3}}}),
		"journal.fenced")
	sealed("s", 3, "", "four")
}

// A member that is late writes nothing down of what another one has taken over, and nothing beside it.
func checkMembers(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	of := func(member string, b journal.Batch) journal.Batch {
		b.Member = member
		return b
	}
	at := func(n byte) []byte { return []byte{n} }
	p := func(from, to byte) []journal.Done { return []journal.Done{done("s", "p", at(from), at(to), 1)} }
	if err := j.Record(ctx, run, 1, of("a", journal.Batch{Claim: []string{"p", "q"}})); err != nil {
		t.Fatal(err)
	}
	if err := j.Record(ctx, run, 1, of("a", journal.Batch{Done: p(1, 2)})); err != nil {
		t.Fatal(err)
	}
	checkCode(t, again.Record(ctx, run, 1, of("b", journal.Batch{Done: p(2, 3)})), "journal.taken")
	if err := again.Record(ctx, run, 1, of("b", journal.Batch{Claim: []string{"p"}})); err != nil {
		t.Fatal(err)
	}
	late := of("a", journal.Batch{Done: append(p(2, 3), done("s", "q", at(1), at(2), 1)),
		Parts: []journal.Part{{Sink: "s", Body: []byte("x")}}})
	checkCode(t, j.Record(ctx, run, 1, late), "journal.taken")
	if err := again.Record(ctx, run, 1, of("b", journal.Batch{Done: p(2, 4)})); err != nil {
		t.Fatal(err)
	}
	late.Done = late.Done[1:]
	if err := j.Record(ctx, run, 1, late); err != nil {
		t.Errorf("what is its own: %v", err)
	}
	checkFinished(t, again, run, done("s", "p", at(1), at(4), 2), done("s", "q", at(1), at(2), 1))
}

func checkRecord(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	write := func(b journal.Batch) {
		t.Helper()
		if err := j.Record(ctx, run, 1, b); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := []byte{1}, []byte{1, 0}, []byte{0xff}
	write(journal.Batch{})
	write(journal.Batch{Done: []journal.Done{done("", "p", a, b, 1), done("s", "p", a, b, 2),
		done("", "q", nil, nil, 3)},
		Parts: []journal.Part{{"s", []byte("one")}, {"", []byte("queue")}, {"s", []byte("two")}}})
	write(journal.Batch{Done: []journal.Done{done("", "p", c, nil, 10), done("s", "p", nil, a, 20)},
		Parts: []journal.Part{{"s", []byte{0, 0xff}}}})
	checkFinished(t, again, run, done("", "p", a, b, 1), done("", "p", c, nil, 10), done("s", "p", nil, b, 22),
		done("", "q", nil, nil, 3))
	// One that fits between two makes them one, as do several of one batch in any order.
	write(journal.Batch{Done: []journal.Done{done("", "p", b, c, 100), done("s", "p", c, []byte{0xff, 1}, 200),
		done("s", "p", b, c, 400), done("s", "p", []byte{0xff, 1}, nil, 800)}})
	checkFinished(t, again, run, done("", "p", a, nil, 111), done("s", "p", nil, nil, 1422), done("", "q", nil, nil, 3))
	for sink, want := range map[string][]string{"s": {"one", "two", "\x00\xff"}, "": {"queue"}, "none": nil} {
		got, err := again.Parts(ctx, run, sink)
		if d := cmp.Diff(want, texts(got)); err != nil || d != "" {
			t.Errorf("parts of %q: %v\n%s", sink, err, d)
		}
	}
	// What is empty but not open.
	write(journal.Batch{Done: []journal.Done{done("s", "e", nil, []byte{}, 1), done("t", "e", []byte{}, nil, 2)}})
	checkFinished(t, again, run, done("", "p", a, nil, 111), done("s", "p", nil, nil, 1422), done("", "q", nil, nil, 3),
		done("s", "e", nil, []byte{}, 1), done("t", "e", []byte{}, nil, 2))
}

func texts(all [][]byte) []string {
	var list []string
	for _, b := range all {
		list = append(list, string(b))
	}
	return list
}

func checkRecordRefused(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := attempt(t, j)
	at := func(n byte) []byte { return []byte{n} }
	if err := j.Record(ctx, run, 1,
		journal.Batch{Done: []journal.Done{done("s", "p", at(10), at(20), 1),
			done("s", "p", at(30), at(40), 2)}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range [][]journal.Done{
		{done("s", "p", at(10), at(20), 1)}, {done("s", "p", at(11), at(12), 1)}, {done("s", "p", at(5), at(11), 1)},
		{done("s", "p", at(19), at(30), 1)},
		{done("s", "p", nil, nil, 1)}, {done("s", "p", at(20), at(31), 1)}, {done("s", "p", nil, at(11), 1)},
		{done("s", "p", at(39), nil, 1)},
		{done("s", "p", at(50), at(60), 1), done("s", "p", at(55), at(56), 1)},
	} {
		checkCode(t, j.Record(ctx, run, 1,
			journal.Batch{Done: append([]journal.Done{done("s", "q", nil, nil, 1)}, d...),
				Parts:   []journal.Part{{"s", []byte("x")}},
				Letters: []journal.Letter{{ID: "l", At: time.Now()}}}), "journal.overlap")
	}
	for _, d := range []journal.Done{done("s", "p", at(50), at(50), 1), done("s", "p", at(51), at(50), 1)} {
		checkCode(t, j.Record(ctx, run, 1, journal.Batch{Done: []journal.Done{d}}), "journal.no_interval")
	}
	checkFinished(t, j, run, done("s", "p", at(10), at(20), 1), done("s", "p", at(30), at(40), 2))
	if parts, err := j.Parts(ctx, run, "s"); len(parts) != 0 || err != nil {
		t.Errorf("%q, %v", parts, err)
	}
	if letters := all(t, j.Letters(ctx, run, journal.LetterFilter{})); len(letters) != 0 {
		t.Errorf("%v", letters)
	}
}

// One Record may hold much, and so may a run.
func checkRecordMuch(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := attempt(t, j)
	const n = 3000
	var want journal.Batch
	for i := range n {
		want.Done = append(want.Done, done("s", fmt.Sprint("p", i), nil, nil, int64(i)))
		want.Parts = append(want.Parts, journal.Part{Sink: "s", Body: fmt.Appendf(nil, "part %d", i)})
		want.Letters = append(want.Letters, journal.Letter{ID: fmt.Sprintf("%05d", i),
			Message: strings.Repeat("m", 500), At: time.Unix(0, 0).UTC(), State: journal.Waits})
	}
	if err := j.Record(ctx, run, 1, want); err != nil {
		t.Fatal(err)
	}
	checkFinished(t, j, run, want.Done...)
	parts, err := j.Parts(ctx, run, "s")
	if err != nil || len(parts) != n || string(parts[n-1]) != "part 2999" {
		t.Errorf("%d parts, %v", len(parts), err)
	}
	if d := cmp.Diff(want.Letters, all(t, j.Letters(ctx, run, journal.LetterFilter{}))); d != "" {
		t.Errorf("letters: %.1000s", d)
	}
}

// Workers that record at once lose nothing.
func checkRecordAtOnce(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := attempt(t, j)
	const workers, records = 4, 20
	var group sync.WaitGroup
	for w := range workers {
		j := open(t, config)
		group.Go(func() {
			for i := range records {
				// Neighbours belong to different workers.
				n := byte(i*workers + w)
				err := j.Record(ctx, run, 1,
					journal.Batch{Done: []journal.Done{done("s", "p", []byte{n}, []byte{n + 1}, int64(n))},
						Parts: []journal.Part{{"s", []byte{n}}}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	const n = workers * records
	checkFinished(t, j, run, done("s", "p", []byte{0}, []byte{n}, n*(n-1)/2))
	parts, err := j.Parts(ctx, run, "s")
	if list := texts(parts); err != nil || len(list) != n ||
		len(slices.Compact(slices.Sorted(slices.Values(list)))) != n {
		t.Errorf("%q, %v", list, err)
	}
}

func checkControl(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := begin(t, j).ID
	check := func(want journal.Control) {
		t.Helper()
		got, err := again.Control(ctx, run)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	}
	check(journal.Control{Want: journal.Go})
	full := journal.Control{Want: journal.Pause, Reason: "operator",
		Rates: map[string]journal.Rate{"source": {Records: 0.5, Bytes: 7}}, Limits: map[string]int{"s": 2}}
	set := func(kind string, change func(c *journal.Control)) {
		t.Helper()
		if err := j.SetControl(ctx, run, journal.Event{Kind: kind, Text: "by me"}, change); err != nil {
			t.Fatal(err)
		}
	}
	set("pause", func(c *journal.Control) { *c = full })
	check(full)
	next := func() {
		t.Helper()
		if _, err := j.Attempt(ctx, run); err != nil {
			t.Fatal(err)
		}
	}
	next()
	check(full)
	set("stop", func(c *journal.Control) { c.Want = journal.Stop })
	next()
	full.Want, full.Reason = journal.Go, ""
	check(full)
	events, err := j.History(ctx, run)
	if err != nil || len(events) != 2 || events[0].Kind != "pause" || events[1].Kind != "stop" ||
		events[0].Text != "by me" || time.Since(events[0].At).Abs() > time.Hour {
		t.Errorf("%+v, %v", events, err)
	}
}

func checkControlAtOnce(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := begin(t, j).ID
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 3 {
				err := j.SetControl(ctx, run, journal.Event{Kind: "scale"}, func(c *journal.Control) {
					if c.Limits == nil {
						c.Limits = map[string]int{}
					}
					c.Limits["s"]++
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got, err := j.Control(ctx, run); err != nil || got.Limits["s"] != 12 {
		t.Errorf("%+v, %v", got, err)
	}
	if events, err := j.History(ctx, run); err != nil || len(events) != 12 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func checkBeats(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	beat := func(worker string, attempt, n int) journal.Beat {
		return journal.Beat{Worker: worker, Attempt: attempt, Host: "h", PID: 3,
			At: time.UnixMicro(1_700_000_000_000_001).UTC(), Splits: n,
			Outcomes: map[string]record.Counts{"lake": {record.Written: int64(n)}}, Waiting: "paused: operator",
			Cause: journal.ByOperator, Memory: 8,
			Down: map[string]string{"search": "no answer"},
			Systems: map[string]journal.Gauge{"source": {Records: 1, Bytes: 2, Requests: 3, Retries: 4,
				Errors: map[string]int64{"transient": 4}, Asked: journal.Rate{Records: 1.5},
				P50: time.Microsecond, P99: time.Millisecond, Down: true}}}
	}
	for _, b := range []journal.Beat{beat("w2", 1, 4), beat("w1", 1, 1), beat("w1", 1, 5)} {
		if err := j.Beat(ctx, run, b); err != nil {
			t.Fatal(err)
		}
	}
	check := func(of func(context.Context, string) ([]journal.Beat, error), want ...journal.Beat) {
		t.Helper()
		got, err := of(ctx, run)
		if d := cmp.Diff(want, got,
			cmpopts.SortSlices(func(a, b journal.Beat) bool { return a.Worker < b.Worker })); err != nil || d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	}
	check(again.Beats, beat("w1", 1, 5), beat("w2", 1, 4))
	if _, err := j.Attempt(ctx, run); err != nil {
		t.Fatal(err)
	}
	for _, b := range []journal.Beat{beat("w3", 2, 1), beat("w1", 1, 6)} {
		if err := j.Beat(ctx, run, b); err != nil {
			t.Fatal(err)
		}
	}
	check(again.Beats, beat("w3", 2, 1))
	check(again.AllBeats, beat("w1", 1, 6), beat("w2", 1, 4), beat("w3", 2, 1))
}

func checkHistory(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	run := begin(t, j).ID
	at := time.UnixMicro(1_700_000_000_000_001).UTC()
	want := []journal.Event{{at.Add(-time.Hour), "attempt", "1"}, {at, "throttle", "source: 5 records/s"},
		{at, "throttle", "again"}}
	for _, i := range []int{1, 2, 0} {
		if err := j.Note(ctx, run, want[i]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.History(ctx, run)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

// What is old goes, but for dead letters that somebody has still to see to.
func checkTrim(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	before := time.Now().Add(-time.Hour).Truncate(time.Microsecond).UTC()
	for i, at := range []time.Time{before.Add(-time.Second), before.Add(time.Second)} {
		name := "ab"[i : i+1]
		if err := j.Note(ctx, run, journal.Event{At: at, Kind: "note", Text: name}); err != nil {
			t.Fatal(err)
		}
		if err := j.Beat(ctx, run, journal.Beat{Worker: name, Attempt: 1, At: at}); err != nil {
			t.Fatal(err)
		}
		for _, state := range []journal.LetterState{journal.Sent, journal.Waits} {
			l := journal.Letter{ID: name + string(state), At: at, State: state}
			if err := j.Record(ctx, run, 1, journal.Batch{Letters: []journal.Letter{l}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.Trim(ctx, run, before); err != nil {
		t.Fatal(err)
	}
	var left []string
	history, err := again.History(ctx, run)
	for _, e := range history {
		left = append(left, "event "+e.Text)
	}
	beats, e := again.AllBeats(ctx, run)
	for _, b := range beats {
		left = append(left, "beat "+b.Worker)
	}
	for _, l := range all(t, again.Letters(ctx, run, journal.LetterFilter{})) {
		left = append(left, "letter "+l.ID)
	}
	want := []string{"event b", "beat b", "letter awaits", "letter bsent", "letter bwaits"}
	if d := cmp.Diff(want, left); err != nil || e != nil || d != "" {
		t.Errorf("%v, %v, %s", err, e, d)
	}
}

func checkLetters(t *testing.T, config journal.Config) {
	ctx, j, again := t.Context(), open(t, config), open(t, config)
	run := attempt(t, j)
	at := time.UnixMicro(1_700_000_000_000_001).UTC()
	letter := func(id, sink, code string, hours int) journal.Letter {
		return journal.Letter{ID: id, Sink: sink, Step: "step " + code, Class: "permanent", Code: code,
			Message: "m\xc3\xa9", Key: "a|b", Split: "p(..00]", Position: []byte{0, 0xff},
			At: at.Add(time.Duration(hours) * time.Hour), State: journal.Waits}
	}
	a, b, c := letter("a", "", "x", 0), letter("b", "s", "x", 1), letter("c", "s", "y", 2)
	for _, batch := range [][]journal.Letter{{c, a}, {b, letter("a", "other", "z", 9)},
		{letter("c", "other", "z", 9)}} {
		if err := j.Record(ctx, run, 1, journal.Batch{Letters: batch}); err != nil {
			t.Fatal(err)
		}
	}
	// Which may be marked meanwhile
	for letter, err := range j.Letters(ctx, run, journal.LetterFilter{IDs: []string{"a", "b"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Mark(ctx, run, letter.ID, journal.Sent, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Mark(ctx, run, "b", journal.Parked, 3); err != nil {
		t.Fatal(err)
	}
	checkCode(t, j.Mark(ctx, run, "d", journal.Sent, 1), "journal.no_letter")
	// A letter that comes again keeps its mark.
	if err := j.Record(ctx, run, 1, journal.Batch{Letters: []journal.Letter{a, b}}); err != nil {
		t.Fatal(err)
	}
	a.State, a.Redrives, b.State, b.Redrives = journal.Sent, 1, journal.Parked, 3
	for _, test := range []struct {
		filter journal.LetterFilter
		want   []journal.Letter
	}{
		{journal.LetterFilter{}, []journal.Letter{a, b, c}},
		{journal.LetterFilter{IDs: []string{"c", "a", "no"}}, []journal.Letter{a, c}},
		{journal.LetterFilter{Sinks: []string{""}}, []journal.Letter{a}},
		{journal.LetterFilter{Codes: []string{"x"}}, []journal.Letter{a, b}},
		{journal.LetterFilter{Codes: []string{"x"}, Sinks: []string{"s"}}, []journal.Letter{b}},
		{journal.LetterFilter{Steps: []string{"step y"}}, []journal.Letter{c}},
		{journal.LetterFilter{States: []journal.LetterState{journal.Waits, journal.Parked}}, []journal.Letter{b, c}},
		{journal.LetterFilter{Since: b.At}, []journal.Letter{b, c}},
		{journal.LetterFilter{Since: a.At, Until: b.At}, []journal.Letter{a}},
	} {
		if d := cmp.Diff(test.want, all(t, again.Letters(ctx, run, test.filter))); d != "" {
			t.Errorf("%+v: %s", test.filter, d)
		}
	}
}

// checkRecordByRandom makes random calls of Record, of which a model in memory tells what becomes.
func checkRecordByRandom(t *testing.T, config journal.Config) {
	ctx, j := t.Context(), open(t, config)
	rapid.Check(t, func(r *rapid.T) {
		run := attempt(t, j)
		// Of each sink and partition, the sum of what is finished between two positions next to each other.
		const positions = 12
		model := map[[2]string]*[positions]int64{}
		steps := rapid.IntRange(1, 15).Draw(r, "steps")
		for range steps {
			var batch journal.Batch
			next := map[[2]string]*[positions]int64{}
			for at, cells := range model {
				c := *cells
				next[at] = &c
			}
			code := "unknown" // of no error
			for range rapid.IntRange(1, 4).Draw(r, "entries") {
				at := [2]string{rapid.SampledFrom([]string{"", "s"}).Draw(r, "sink"),
					rapid.SampledFrom([]string{"p", "q"}).Draw(r, "partition")}
				from, to := rapid.IntRange(0, positions).Draw(r, "from"), rapid.IntRange(0, positions).Draw(r, "to")
				d := done(at[0], at[1], position(from), position(to), 1)
				if from == 0 && to > 0 {
					d.Start = nil
				}
				if to == positions && from < to {
					d.End = nil
				}
				batch.Done = append(batch.Done, d)
				if next[at] == nil {
					next[at] = &[positions]int64{}
				}
				switch {
				case code != "unknown":
				case from >= to:
					code = "journal.no_interval"
				case slices.ContainsFunc(next[at][from:to], func(n int64) bool { return n != 0 }):
					code = "journal.overlap"
				default:
					for i := from; i < to; i++ {
						next[at][i] = 1
					}
					next[at][from] += 100
				}
			}
			err := j.Record(ctx, run, 1, batch)
			if err == nil && code != "unknown" || err != nil && fail.CodeOf(err) != code {
				r.Fatalf("%v: error %v, want %s", batch.Done, err, code)
			}
			if err == nil {
				model = next
			}
			want := finishedOf(model)
			if d := cmp.Diff(want, all(t, j.Finished(ctx, run)), anyOrder, cmpopts.EquateEmpty()); d != "" {
				r.Fatal(d)
			}
		}
	})
}

// position n, in the order of n, of different lengths.
func position(n int) []byte { return slices.Concat([]byte{byte(n / 3)}, make([]byte, n%3)) }

// finishedOf is what the journal should hold: a cell of a hundred more than 1 begins an entry that counts 1.
func finishedOf(model map[[2]string]*[12]int64) []journal.Done {
	var all []journal.Done
	for at, cells := range model {
		for i := 0; i < len(cells); i++ {
			if cells[i] == 0 {
				continue
			}
			d, n := journal.Done{Sink: at[0], Partition: at[1], Start: position(i)}, int64(0)
			if i == 0 {
				d.Start = nil
			}
			for ; i < len(cells) && cells[i] != 0; i++ {
				n += cells[i] / 100
			}
			if i < len(cells) {
				d.End = position(i)
			}
			d.Sum = sum(n)
			all = append(all, d)
		}
	}
	return all
}
