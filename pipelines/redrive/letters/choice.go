// Package letters is what a redrive reads: a source of the rows of dead letters, or of the records that the queue has
// kept of them, and the list of those that were chosen.
package letters

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Choice is what a redrive sends again: the dead letters of one row at one sink.
type Choice struct {
	Key     string         `json:"key"` // of the row at the source; the name of its place where it has none
	Place   *record.Place  `json:"place,omitempty"`
	Sink    string         `json:"sink,omitempty"` // that did not get it; "": none did
	Letters map[string]int `json:"letters"`        // by id: how often it had been sent again before
}

// listed is where a redrive keeps its choice, among the parts of its run; no sink is called so.
const listed = "letters/"

// listEnd ends the list: without it the redrive was killed while it wrote it down.
type listEnd struct {
	Choices int `json:"choices"`
}

// WriteChoices writes down what a redrive sends again, once, before its first attempt. From then on neither letters
// that come nor others that are marked meanwhile change what it does.
func WriteChoices(ctx context.Context, j journal.Journal, run string, choices []Choice) error {
	const enough = 16 << 10 // a batch that a Cassandra journal takes
	var body []byte
	write := func() error {
		err := j.Record(ctx, run, 0, journal.Batch{Parts: []journal.Part{{Sink: listed, Body: body}}})
		body = nil
		return err
	}
	for _, c := range choices {
		line, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if len(body) > 0 && len(body)+len(line) > enough {
			if err := write(); err != nil {
				return err
			}
		}
		body = append(append(body, line...), '\n')
	}
	end, err := json.Marshal(listEnd{len(choices)})
	if err != nil {
		return err
	}
	body = append(body, end...)
	return write()
}

// Choices reads what WriteChoices wrote, in the order of sinks and keys.
func Choices(ctx context.Context, j journal.Journal, run string) ([]Choice, error) {
	parts, err := j.Parts(ctx, run, listed)
	if err != nil {
		return nil, err
	}
	cut := fail.Job("redrive.no_list", "run %s was killed before it knew which dead letters to send", run).
		WithFix("nothing was sent; redrive the letters anew")
	var choices []Choice
	lines := bytes.Split(bytes.TrimSuffix(bytes.Join(parts, nil), []byte{'\n'}), []byte{'\n'})
	for _, line := range lines[:len(lines)-1] {
		var c Choice
		if err := json.Unmarshal(line, &c); err != nil {
			return nil, cut
		}
		choices = append(choices, c)
	}
	end := listEnd{-1}
	if err := json.Unmarshal(lines[len(lines)-1], &end); err != nil || end.Choices != len(choices) {
		return nil, cut
	}
	slices.SortFunc(choices,
		func(a, b Choice) int { return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Key, b.Key)) })
	return choices, nil
}

// CodeGone is the code of a letter about a row that is not at its source any more.
const CodeGone = "redrive.gone"

// Verdict tells what has become of a letter that was sent again, from the letters of the redrive itself; where any of
// these names no row, none counts as through. A letter that has failed max times is parked.
type Verdict struct {
	max    int
	kept   bool
	failed map[string][]journal.Letter // by the position of their records
	lost   bool
}

// NewVerdict reads the letters of a redrive.
func NewVerdict(ctx context.Context, j journal.Journal, run string, kept bool, max int) (*Verdict, error) {
	v := &Verdict{max: max, kept: kept, failed: map[string][]journal.Letter{}}
	for l, err := range j.Letters(ctx, run, journal.LetterFilter{}) {
		if err != nil {
			return nil, err
		}
		at := string(l.Position)
		if l.Place != nil {
			at = l.Place.String()
		}
		v.failed[at] = append(v.failed[at], l)
		v.lost = v.lost || at == ""
	}
	return v, nil
}

// Of is the state of a letter of a choice, and how often it has now been sent again.
func (v *Verdict) Of(c Choice, id string) (journal.LetterState, int) {
	position := c.Key
	if v.kept {
		position = id
	}
	again := v.lost
	for _, l := range v.failed[position] {
		if l.Sink != "" && c.Sink != "" && l.Sink != c.Sink {
			continue
		}
		if l.Code == CodeGone {
			return journal.Gone, c.Letters[id]
		}
		again = true
	}
	sent := c.Letters[id] + 1
	switch {
	case !again:
		return journal.Sent, sent
	case sent >= v.max:
		return journal.Parked, sent
	}
	return journal.Waits, sent
}
