// Package history tells what the runs of a journal have done about one row.
package history

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/redrive/letters"
	"reprise/pipelines/runs"
	"reprise/transforms/record"
)

// Handling is what one run has done about one row, as far as the journal knows.
type Handling struct {
	Run       journal.RunInfo
	Partition string           // in which the row stands, or would stand; of a union, those; "": not known
	Unknown   string           // why it is not known whether the run has come by the row; "": it is
	Sinks     []string         // that have finished the intervals in which the row stands
	Open      []string         // that have not
	Letters   []journal.Letter // the row's dead letters
	Sent      []letters.Choice
	Now       []Standing // what the systems of a job hold of the row: at the last run of each job alone, on request
}

// Past is what the runs of a journal have done about a row.
type Past struct {
	Handlings []Handling // of runs that had, or may have had, to do with the row, the oldest first; no verifications
	Others    int        // runs that did not come by it
}

// Of tells what the runs of a journal have done about the row with a key, as record.Record's KeyText writes it. It
// asks the sources where the row stands in their plans. Only with connect it reads: the lists of keys that runs had,
// such as the manifest of a purge, and the row itself, at the sources and at the sinks that find rows by key.
func Of(ctx context.Context, j journal.Journal, key string, connect bool) (*Past, error) {
	list, err := j.List(ctx)
	if err != nil {
		return nil, err
	}
	l := locators{known: map[string]located{}, lists: connect}
	past := &Past{}
	for _, run := range slices.Backward(list) {
		of, err := runs.JobOf(run)
		if err != nil {
			return nil, err
		}
		if of.Verifies() {
			continue
		}
		h, concerns, err := l.handling(ctx, j, run, of, key)
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", run.ID, err)
		}
		if concerns {
			past.Handlings = append(past.Handlings, *h)
		} else {
			past.Others++
		}
	}
	seen := map[string]bool{}
	for i := range slices.Backward(past.Handlings) {
		h := &past.Handlings[i]
		if !connect || h.Run.Parent != "" || seen[h.Run.Job] {
			continue
		}
		seen[h.Run.Job] = true
		of, err := runs.JobOf(h.Run)
		if err != nil {
			return nil, err
		}
		h.Now = standings(ctx, of, key)
	}
	return past, nil
}

// handling is that of one run; concerns is false where the run did not come by the row.
func (l locators) handling(ctx context.Context, j journal.Journal, run journal.RunInfo, of *job.Job, key string) (
	h *Handling, concerns bool, err error) {
	h = &Handling{Run: run}
	for letter, err := range j.Letters(ctx, run.ID, journal.LetterFilter{}) {
		if err != nil {
			return nil, false, err
		}
		if letter.Key == key {
			h.Letters = append(h.Letters, letter)
		}
	}
	if run.Parent != "" {
		choices, err := letters.Choices(ctx, j, run.ID)
		if err != nil {
			h.Unknown = err.Error()
			return h, true, nil
		}
		for _, c := range choices {
			if c.Key == key {
				h.Sent = append(h.Sent, c)
			}
		}
		return h, len(h.Sent)+len(h.Letters) > 0, nil
	}
	schema, err := record.UnmarshalSchema(run.Schema)
	if err != nil {
		return nil, false, err
	}
	if _, err := schema.ParseKey(key); err != nil {
		return h, len(h.Letters) > 0, nil // it is none of this source
	}
	at := l.locate(ctx, of.Source, key)
	if h.Unknown = at.unknown; h.Unknown != "" {
		return h, true, nil
	}
	done := map[string][]bool{} // by sink, for each place
	for name := range of.Sinks {
		done[name] = make([]bool, len(at.places))
	}
	for d, err := range j.Finished(ctx, run.ID) {
		if err != nil {
			return nil, false, err
		}
		of, sink := done[d.Sink]
		interval := connector.Split{Start: d.Start, End: d.End}
		for i, place := range at.places {
			if sink && d.Partition == place.Partition && interval.Contains(place.End) {
				of[i], concerns = true, true
			}
		}
	}
	var partitions []string
	for _, place := range at.places {
		partitions = append(partitions, place.Partition)
	}
	slices.Sort(partitions)
	h.Partition = strings.Join(slices.Compact(partitions), ", ")
	for _, name := range slices.Sorted(maps.Keys(done)) {
		switch {
		case len(at.places) == 0:
		case slices.Contains(done[name], false):
			h.Open = append(h.Open, name)
		default:
			h.Sinks = append(h.Sinks, name)
		}
	}
	return h, concerns || len(h.Letters) > 0, nil
}

// locators remembers where sources have located the row: many runs have one source.
type locators struct {
	known map[string]located
	lists bool
}

type located struct {
	places  []connector.Split // as connector.Locator gives them
	unknown string            // why the row cannot be located
}

func (l locators) locate(ctx context.Context, of connector.SourceSpec, key string) located {
	text, err := json.Marshal(of)
	if err != nil {
		return located{unknown: err.Error()}
	}
	at, known := l.known[string(text)]
	switch {
	case known:
	case of.Listed() && !l.lists:
		at.unknown = "its keys come from a list, which --connect reads"
	default:
		at = locate(ctx, of, key)
		l.known[string(text)] = at
	}
	return at
}

func locate(ctx context.Context, of connector.SourceSpec, key string) located {
	source, err := of.Open(connector.Need{})
	if err != nil {
		return located{unknown: err.Error()}
	}
	defer source.Close()
	schema, err := source.Schema(ctx) // as it is now
	if err != nil {
		return located{unknown: err.Error()}
	}
	values, err := schema.ParseKey(key)
	if err != nil {
		return located{unknown: err.Error()}
	}
	places, err := connector.Locate(ctx, source, &record.Record{Schema: schema, Values: values})
	if err != nil {
		return located{unknown: err.Error()}
	}
	return located{places: places}
}
