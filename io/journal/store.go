package journal

import (
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// What the stores have in common.

func errNoRun(run, where string) error {
	return fail.Job("journal.no_run", "there is no run %s in the journal %s", run, where).
		WithFix("reprise list shows the runs")
}

func errHasRun(run string) error {
	return fail.New(fail.Fatal, "journal.has_run", "run %s has begun already", run)
}

func errNoPlan(run string) error {
	return fail.Job("journal.no_plan", "run %s has no stored plan", run).WithFix("start the job anew: reprise run")
}

func errHasPlan(run string) error {
	return fail.New(fail.Fatal, "journal.has_plan", "run %s has a plan already", run)
}

func errExtended(run string) error {
	return fail.New(fail.Transient, "journal.busy", "somebody else extends the plan of run %s", run)
}

// missing are those of some splits that are not in a plan.
func missing(plan, splits []connector.Split) (added []connector.Split) {
	for _, s := range splits {
		same := func(o connector.Split) bool { return o.String() == s.String() }
		if !slices.ContainsFunc(plan, same) && !slices.ContainsFunc(added, same) {
			added = append(added, s)
		}
	}
	return added
}

func errNoLetter(run, id string) error {
	return fail.Job("journal.no_letter", "run %s has no dead letter %s", run, id)
}

func errFenced(run string, attempt, last int) error {
	err := fail.New(fail.Fatal, "journal.fenced", "attempt %d at run %s is over: attempt %d goes on with it", attempt,
		run, last).
		WithFix("nothing to fix: what this one has not written down is done by the other; reprise status %s shows it",
			run)
	err.Exit = fail.ExitStopped
	return err
}

func errTaken(run, partition, by string) error {
	err := fail.New(fail.Fatal, "journal.taken", "run %s: member %s has taken over partition %s", run, by, partition).
		WithFix("nothing to mend: what this one has not written down is done by the other")
	err.Exit = fail.ExitStopped
	return err
}

// partitions are those of what was finished, each once.
func partitions(all []Done) (names []string) {
	for _, d := range all {
		if !slices.Contains(names, d.Partition) {
			names = append(names, d.Partition)
		}
	}
	return names
}

// micros is a time in microseconds since 1970; 0 where there is none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// known is an error with its class, code, message and fix alone.
func known(cause error) *fail.Error {
	e := &fail.Error{Class: fail.ClassOf(cause), Code: fail.CodeOf(cause), Message: cause.Error(),
		Exit: fail.ExitOf(cause)}
	if f := (*fail.Error)(nil); errors.As(cause, &f) {
		e.Message, e.Fix = f.Message, f.Fix
	}
	return e
}

// chunkSize is how many splits are stored together: some 100 KB.
const chunkSize = 1000

func chunks(splits iter.Seq[connector.Split]) iter.Seq[[]connector.Split] {
	return func(yield func([]connector.Split) bool) {
		var chunk []connector.Split
		for s := range splits {
			if chunk = append(chunk, s); len(chunk) == chunkSize {
				if !yield(chunk) {
					return
				}
				chunk = chunk[:0]
			}
		}
		if len(chunk) > 0 {
			yield(chunk)
		}
	}
}

func collect[T any](all iter.Seq2[T, error]) ([]T, error) {
	var list []T
	for v, err := range all {
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func scanBeat(scan func(...any) error) (b Beat, err error) {
	var text []byte
	if err := scan(&text); err != nil {
		return b, err
	}
	return b, json.Unmarshal(text, &b)
}

func parseControl(text []byte) (Control, error) {
	c := Control{Want: Go}
	err := json.Unmarshal(text, &c)
	return c, err
}

// afresh is what is wanted as an attempt begins.
func (c Control) afresh() Control {
	if c.Want == Stop || c.Want == Restart {
		c.Want, c.Reason = Go, ""
	}
	return c
}

// at is the event's time, now where it has none.
func (e Event) at() time.Time {
	if e.At.IsZero() {
		return time.Now()
	}
	return e.At
}

func (f LetterFilter) among(all iter.Seq2[Letter, error]) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		for l, err := range all {
			if err != nil || f.takes(l) {
				if !yield(l, err) {
					return
				}
			}
		}
	}
}

func (f LetterFilter) takes(l Letter) bool {
	return oneOf(f.IDs, l.ID) && oneOf(f.Sinks, l.Sink) && oneOf(f.Codes, l.Code) && oneOf(f.Steps, l.Step) &&
		oneOf(f.States, l.State) &&
		!l.At.Before(f.Since) && (f.Until.IsZero() || l.At.Before(f.Until))
}

func oneOf[T comparable](wanted []T, v T) bool { return len(wanted) == 0 || slices.Contains(wanted, v) }
