// Package redrive sends the dead letters of a run again, in runs of its own: the rows as they are now at the source, or
// the records that the queue has kept, from the step where they failed.
package redrive

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/redrive/letters"
	"reprise/pipelines/runs"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Redrive says which dead letters of a run are sent again, and how.
type Redrive struct {
	Run    journal.RunInfo
	Filter journal.LetterFilter // IDs: or prefixes; States nil: letters that wait, with IDs all that did not go through
	Job    *job.Job             // by which; nil: the run's own
	Kept   bool                 // kept records go on from the step where they failed; else the rows are read again
	Max    int                  // letters that failed so often are parked
	Rate   float64              // rows a second; 0: as the job says
}

// Chosen is what a redrive is going to do.
type Chosen struct {
	Kinds      []Kind
	Groups     []Group
	Skipped    int      // letters of rows without a known key or place or, with Kept, of rows that were never decoded
	More       bool     // there are more letters than one redrive takes
	Unfinished []string // earlier redrives that can be resumed, the latest first
}

// Kind counts letters that failed in the same way.
type Kind struct {
	Code, Step string
	Letters    int
}

// Group is what one run sends again.
type Group struct {
	Sink, Step string // where kept records go on; Step "": rows are read again
	Choices    []letters.Choice
	Letters    int
}

// mostLetters are sent by one redrive: their list is held in memory.
const mostLetters = 200_000

// Choose finds the letters to send. It settles complete redrives that have not been settled, and writes nothing else.
func (r Redrive) Choose(ctx context.Context, j journal.Journal) (*Chosen, error) {
	if r.Run.Parent != "" {
		return nil, fail.Job("redrive.of_redrive", "run %s is a redrive itself", r.Run.ID).
			WithFix("what failed again counts as a dead letter of the first run: reprise redrive %s", r.Run.Parent)
	}
	c := &Chosen{}
	list, err := j.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, run := range list {
		if run.Parent != r.Run.ID {
			continue
		}
		if run.State != journal.Complete {
			c.Unfinished = append(c.Unfinished, run.ID)
		} else if _, err := Settle(ctx, j, run.ID); err != nil {
			return nil, err
		}
	}
	filter := r.Filter
	filter.IDs = nil
	switch {
	case len(filter.States) > 0:
	case len(r.Filter.IDs) > 0:
		filter.States = []journal.LetterState{journal.Waits, journal.Parked, journal.Gone}
	default:
		filter.States = []journal.LetterState{journal.Waits}
	}
	type one struct{ group, sink, row string }
	choices := map[one]*letters.Choice{}
	groups := map[string]*Group{}
	kinds := map[Kind]int{}
	sent := 0
	for l, err := range j.Letters(ctx, r.Run.ID, filter) {
		if err != nil {
			return nil, err
		}
		named := func(prefix string) bool { return strings.HasPrefix(l.ID, prefix) }
		if len(r.Filter.IDs) > 0 && !slices.ContainsFunc(r.Filter.IDs, named) {
			continue
		}
		row := l.Row()
		if row == "" || r.Kept && l.Step == stepSource {
			c.Skipped++
			continue
		}
		if sent == mostLetters {
			c.More = true
			break
		}
		sent++
		kinds[Kind{Code: l.Code, Step: l.Step}]++
		g := Group{}
		if r.Kept {
			g = Group{Sink: l.Sink, Step: l.Step}
		}
		name := g.Sink + "\x00" + g.Step
		if groups[name] == nil {
			groups[name] = &g
		}
		groups[name].Letters++
		at := one{name, l.Sink, row}
		if choices[at] == nil {
			choices[at] = &letters.Choice{Key: row, Place: l.Place, Sink: l.Sink, Letters: map[string]int{}}
		}
		choices[at].Letters[l.ID] = l.Redrives
	}
	for at, choice := range choices {
		groups[at.group].Choices = append(groups[at.group].Choices, *choice)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		c.Groups = append(c.Groups, *groups[name])
	}
	for k, n := range kinds {
		k.Letters = n
		c.Kinds = append(c.Kinds, k)
	}
	slices.SortFunc(c.Kinds, func(a, b Kind) int {
		return cmp.Or(b.Letters-a.Letters, cmp.Compare(a.Code, b.Code), cmp.Compare(a.Step, b.Step))
	})
	return c, nil
}

// Prepare makes the job of a group and prepares it: to execute it is to send the letters.
func (r Redrive) Prepare(ctx context.Context, g Group) (*runs.Prepared, error) {
	was, err := runs.JobOf(r.Run)
	if err != nil {
		return nil, err
	}
	now := was
	if r.Job != nil {
		now = r.Job
	}
	source := &letters.Config{Journal: *was.Journal, Max: r.Max}
	again := *now
	if g.Step == "" {
		source.Of = now.Source.Ended()
	} else {
		rest, schema, err := r.rest(was, now, g)
		if err != nil {
			return nil, err
		}
		again = *rest
		source.Of, source.Schema = queue(was, r.Run.ID), schema
	}
	for _, c := range g.Choices {
		if _, ok := again.Sinks[c.Sink]; c.Sink != "" && !ok {
			return nil, fail.Job("redrive.no_sink", "dead letters are for the sink %q, which the job does not have",
				c.Sink).
				WithFix("choose those of other sinks with --sink, or add the sink")
		}
	}
	again.Canary = nil
	again.Source, again.Journal = connector.From(source), was.Journal
	// That many fail again is no surprise.
	again.Limits.ErrorBudget, again.Limits.DeadLetters = &job.ErrorBudget{}, ""
	if r.Rate > 0 {
		rates := maps.Clone(again.Pace.Rates)
		if rates == nil {
			rates = map[string]journal.Rate{}
		}
		rates[journal.Source] = journal.Rate{Records: r.Rate}
		again.Pace.Rates = rates
	}
	p, err := runs.Prepare(ctx, &again)
	if err != nil {
		return nil, err
	}
	if rows, ok := p.Source.(*letters.Rows); ok {
		if err := rows.Check(g.Choices); err != nil {
			p.Close()
			return nil, err
		}
	}
	p.Parent = r.Run.ID
	p.Begun = func(ctx context.Context, j journal.Journal) error {
		return letters.WriteChoices(ctx, j, p.Run.ID, g.Choices)
	}
	return p, nil
}

// rest is the job from the step of a group on, and the schema of the records that the queue has kept there.
func (r Redrive) rest(was, now *job.Job, g Group) (*job.Job, []byte, error) {
	source, err := record.UnmarshalSchema(r.Run.Schema)
	if err != nil {
		return nil, nil, err
	}
	compiled, err := was.Compile(source, transforms.Options{Now: r.Run.Started})
	if err != nil {
		return nil, nil, err
	}
	at, in, err := placeOf(g.Sink, g.Step, compiled)
	if err != nil {
		return nil, nil, err
	}
	rest, err := from(now, was, at)
	if err != nil {
		return nil, nil, err
	}
	schema, err := in.MarshalBinary()
	return rest, schema, err
}

// Result is what has become of the letters that a redrive has sent.
type Result struct{ Sent, Again, Parked, Gone int }

// String is the counts in words.
func (r Result) String() string {
	return fmt.Sprintf("%d sent, %d failed again, %d parked, %d gone", r.Sent, r.Again, r.Parked, r.Gone)
}

const eventRedriven = "redriven"

// Settle marks the letters that a complete redrive has sent, and takes the redrive's own letters back. It does so once:
// doing it again changes nothing. With any other run it does nothing.
func Settle(ctx context.Context, j journal.Journal, run string) (r Result, err error) {
	ctx = context.WithoutCancel(ctx) // the run is done: this belongs to it
	info, err := j.Get(ctx, run)
	if err != nil || info.Parent == "" || info.State != journal.Complete {
		return r, err
	}
	of, err := runs.JobOf(info)
	if err != nil || !of.Redrives() {
		return r, err
	}
	source := letters.Of(of.Source)
	history, err := j.History(ctx, run)
	if err != nil {
		return r, err
	}
	done := slices.ContainsFunc(history, func(e journal.Event) bool { return e.Kind == eventRedriven })
	mark := func(run, id string, s journal.LetterState, redrives int) error {
		if done {
			return nil
		}
		return j.Mark(ctx, run, id, s, redrives)
	}
	choices, err := letters.Choices(ctx, j, run)
	if err != nil {
		return r, err
	}
	verdict, err := letters.NewVerdict(ctx, j, run, source.Schema != nil, source.Max)
	if err != nil {
		return r, err
	}
	for _, c := range choices {
		for id := range c.Letters {
			state, redrives := verdict.Of(c, id)
			switch state {
			case journal.Sent:
				r.Sent++
			case journal.Gone:
				r.Gone++
			case journal.Parked:
				r.Parked++
			default:
				r.Again++
			}
			if err := mark(info.Parent, id, state, redrives); err != nil {
				return r, err
			}
		}
	}
	for l, err := range j.Letters(ctx, run, journal.LetterFilter{}) {
		if err != nil {
			return r, err
		}
		if err := mark(run, l.ID, journal.Returned, l.Redrives); err != nil {
			return r, err
		}
	}
	if done {
		return r, nil
	}
	event := journal.Event{At: time.Now(), Kind: eventRedriven, Text: r.String()}
	if err := j.Note(ctx, run, event); err != nil {
		return r, err
	}
	event.Text += " by run " + run
	return r, j.Note(ctx, info.Parent, event)
}
