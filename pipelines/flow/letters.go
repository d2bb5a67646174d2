package flow

import (
	"time"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// StepSource is the step of dead letters for rows that the source could not read.
const StepSource = "source"

// stepSink is the step of dead letters of a sink.
func stepSink(name string) string { return "sink " + name }

// deadLetter is the dead letter of a record that failed in a step.
func (w *worker) deadLetter(r *record.Record, step, sink string, attempts int, err error) *record.DeadLetter {
	return w.address(&record.DeadLetter{Record: r, Step: step, Sink: sink, Attempts: attempts,
		Class: fail.ClassOf(err).String(), Code: fail.CodeOf(err), Message: err.Error()})
}

// address fills in what every dead letter of the run has in common.
func (w *worker) address(l *record.DeadLetter) *record.DeadLetter {
	l.Run = w.run.ID
	l.At = time.Now().UnixMilli()
	l.Attempts = max(1, l.Attempts)
	if l.Record != nil && l.Split == "" {
		l.Split = l.Record.Origin.Split
	}
	return l
}

// indexed is the entry of a dead letter in the journal's index.
func (w *worker) indexed(l *record.DeadLetter, r *record.Record) journal.Letter {
	entry := journal.Letter{ID: r.KeyText(), Sink: l.Sink, Step: l.Step, Class: l.Class, Code: l.Code,
		Message: l.Message, Split: l.Split,
		At: time.UnixMilli(l.At), State: journal.Waits}
	if l.Record != nil {
		entry.Key, entry.Position = w.sourceKey(l.Record), l.Record.Origin.Position
	} else if l.Place != nil {
		entry.Position, entry.Place = l.Place.Start, l.Place
	}
	return entry
}

// sourceKey is the key that a record had at the source, by which its row is found again.
func (w *worker) sourceKey(r *record.Record) string {
	if r.Origin.Key == nil {
		return r.KeyText()
	}
	row := record.Record{Schema: w.schema, Values: make([]record.Value, len(w.schema.Fields))}
	for i, k := range w.schema.Key {
		row.Values[k] = r.Origin.Key[i]
	}
	return row.KeyText()
}
