package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// deadCommand is `reprise dead`.
type deadCommand struct {
	List  deadListCommand  `cmd:"" help:"List the dead letters of a run; with --json as JSON lines, for export."`
	Show  deadShowCommand  `cmd:"" help:"Show one dead letter."`
	Stats deadStatsCommand `cmd:"" help:"Count the dead letters of a run by code, step and sink, with an example of each."`
}

// letters chooses dead letters.
type letters struct {
	Code  []string      `help:"Only letters with these error codes."`
	Step  []string      `help:"Only letters from these steps."`
	Sink  []string      `help:"Only letters that did not reach these sinks."`
	State []string      `enum:"waits,sent,parked,gone,returned" default:"" help:"Only in these states: waits, sent (again, and through), parked (failed too often), gone (sent again, but its row was deleted), returned (of a redrive: counted where it came from)."`
	Since time.Duration `placeholder:"SPAN" help:"Only letters from the last period, such as 2h."`
}

func (l letters) filter() journal.LetterFilter {
	f := journal.LetterFilter{Codes: l.Code, Steps: l.Step, Sinks: l.Sink}
	for _, s := range l.State {
		if s != "" {
			f.States = append(f.States, journal.LetterState(s))
		}
	}
	if l.Since > 0 {
		f.Since = time.Now().Add(-l.Since)
	}
	return f
}

type deadListCommand struct {
	origin
	letters
	Limit int  `default:"100" help:"Show at most this many; 0: all."`
	JSON  bool `help:"Print JSON lines."`
}

// letter is a dead letter as JSON.
type letter struct {
	ID       string        `json:"id"`
	Key      string        `json:"key"`
	Place    *record.Place `json:"place,omitempty"` // of a row without a key
	Sink     string        `json:"sink,omitempty"`
	Step     string        `json:"step"`
	Class    string        `json:"class"`
	Code     string        `json:"code"`
	Message  string        `json:"message"`
	Split    string        `json:"split"`
	At       time.Time     `json:"at"`
	State    string        `json:"state"`
	Redrives int           `json:"redrives"`
}

// row names the row at the source.
func (l letter) row() string { return journal.Letter{Key: l.Key, Place: l.Place}.Row() }

func asLetter(l journal.Letter) letter {
	return letter{l.ID, l.Key, l.Place, l.Sink, l.Step, l.Class, l.Code, l.Message, l.Split, l.At, string(l.State),
		l.Redrives}
}

// Run lists dead letters.
func (c *deadListCommand) Run(ctx context.Context, con *console) error {
	j, info, err := c.find(ctx, con)
	if err != nil {
		return err
	}
	defer j.Close()
	rows := [][]string{{"id", "state", "sent again", "code", "step", "key"}}
	n, more := 0, false
	out := json.NewEncoder(con.out)
	for l, err := range j.Letters(ctx, info.ID, c.filter()) {
		if err != nil {
			return err
		}
		if n++; c.Limit > 0 && n > c.Limit {
			more = true
			break
		}
		if c.JSON {
			if err := out.Encode(asLetter(l)); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{l.ID, string(l.State), fmt.Sprint(l.Redrives), l.Code, l.Step, l.Row()})
	}
	if !c.JSON {
		table(con.out, rows)
	}
	if more {
		fmt.Fprintf(con.err, "reprise: there are more than %d; --limit 0 lists all\n", c.Limit)
	}
	return nil
}

type deadShowCommand struct {
	origin
	Letter string `arg:"" help:"The letter's id, or a prefix of it."`
}

// Run shows one dead letter.
func (c *deadShowCommand) Run(ctx context.Context, con *console) error {
	j, info, err := c.find(ctx, con)
	if err != nil {
		return err
	}
	defer j.Close()
	for l, err := range j.Letters(ctx, info.ID, journal.LetterFilter{}) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(l.ID, c.Letter) {
			return printJSON(con.out, asLetter(l))
		}
	}
	return fail.Job("dead.no_letter", "run %s has no dead letter %s", info.ID,
		c.Letter).WithFix("list them: reprise dead list %s%s", info.ID, c.flags())
}

type deadStatsCommand struct {
	origin
	letters
	JSON bool `help:"Print JSON."`
}

// kind is what dead letters of one cause have in common.
type kind struct {
	Class   string         `json:"class"`
	Code    string         `json:"code"`
	Step    string         `json:"step"`
	Sink    string         `json:"sink,omitempty"`
	Letters int            `json:"letters"`
	States  map[string]int `json:"states"`
	First   time.Time      `json:"first_seen"`
	Last    time.Time      `json:"last_seen"`
	Example letter         `json:"example"`
}

// Run counts dead letters.
func (c *deadStatsCommand) Run(ctx context.Context, con *console) error {
	j, info, err := c.find(ctx, con)
	if err != nil {
		return err
	}
	defer j.Close()
	kinds := []*kind{}
	for l, err := range j.Letters(ctx, info.ID, c.filter()) {
		if err != nil {
			return err
		}
		i := slices.IndexFunc(kinds,
			func(k *kind) bool { return k.Code == l.Code && k.Step == l.Step && k.Sink == l.Sink })
		if i < 0 {
			i = len(kinds)
			kinds = append(kinds, &kind{Class: l.Class, Code: l.Code, Step: l.Step, Sink: l.Sink, First: l.At,
				States: map[string]int{}, Example: asLetter(l)})
		}
		k := kinds[i]
		k.Letters++
		k.States[string(l.State)]++
		if l.At.Before(k.First) {
			k.First = l.At
		}
		if l.At.After(k.Last) {
			k.Last = l.At
		}
	}
	slices.SortStableFunc(kinds, func(a, b *kind) int { return b.Letters - a.Letters })
	if c.JSON {
		return printJSON(con.out, kinds)
	}
	if len(kinds) == 0 {
		fmt.Fprintf(con.out, "run %s has no such dead letters\n", info.ID)
		return nil
	}
	rows := [][]string{{"code", "class", "step", "letters", "wait", "first seen", "last seen"}}
	for _, k := range kinds {
		rows = append(rows, []string{k.Code, k.Class, k.Step, grouped(int64(k.Letters)),
			grouped(int64(k.States[string(journal.Waits)])),
			k.First.Local().Format(time.DateTime), k.Last.Local().Format(time.DateTime)})
	}
	table(con.out, rows)
	for _, k := range kinds {
		fmt.Fprintf(con.out, "\n%s, for example %s:\n  %s\n", k.Code, k.Example.row(), k.Example.Message)
	}
	fmt.Fprintf(con.out, "\nsend them again with: reprise redrive %s%s\n", info.ID, c.flags())
	return nil
}
