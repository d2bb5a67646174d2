package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"reprise/pipelines/history"
	"reprise/pipelines/runs"
)

// historyCommand is `reprise history KEY`.
type historyCommand struct {
	which
	Key     string `arg:"" help:"The key of the row at its source, its parts joined by |, as dead letters and samples show it; 'image|2024-05|ID'."`
	Connect bool   `help:"Also read the key lists that runs used, such as the manifest of a purge, and what sources and sinks hold of the row now."`
	JSON    bool   `help:"Print JSON."`
}

// handling is what one run has done about a row, as JSON.
type handling struct {
	Run       string    `json:"run"`
	Job       string    `json:"job"`
	Parent    string    `json:"parent,omitempty"`
	State     string    `json:"state"`
	Attempts  int       `json:"attempts"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended,omitzero"`
	Partition string    `json:"partition,omitempty"`
	Handled   []string  `json:"handled_by,omitempty"` // sinks that have finished the interval in which the row stands
	Open      []string  `json:"open_at,omitempty"`
	Unknown   string    `json:"unknown,omitempty"`
	Resent    []string  `json:"sent_again,omitempty"` // letters
	Letters   []letter  `json:"dead_letters,omitempty"`

	Now []standing `json:"now,omitempty"` // with --connect
}

// standing is what a system holds of the row, as JSON.
type standing struct {
	Sink    string `json:"sink,omitempty"` // none: the source
	Key     string `json:"key,omitempty"`
	There   bool   `json:"there"`
	Version int64  `json:"version,omitempty"`
	Unknown string `json:"unknown,omitempty"`
}

// Run tells what was done about a row.
func (c *historyCommand) Run(ctx context.Context, con *console) error {
	j, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	past, err := history.Of(ctx, j, c.Key, c.Connect)
	if err != nil {
		return err
	}
	all := []handling{}
	for _, h := range past.Handlings {
		alive, err := runs.Alive(ctx, j, h.Run.ID)
		if err != nil {
			return err
		}
		one := handling{Run: h.Run.ID, Job: h.Run.Job, Parent: h.Run.Parent, State: stateText(h.Run.State, len(alive)),
			Attempts: h.Run.Attempt,
			Started:  h.Run.Started, Ended: h.Run.Ended, Partition: h.Partition, Handled: h.Sinks, Open: h.Open,
			Unknown: h.Unknown}
		for _, l := range h.Letters {
			one.Letters = append(one.Letters, asLetter(l))
		}
		for _, s := range h.Now {
			one.Now = append(one.Now, standing(s))
		}
		for _, sent := range h.Sent {
			for id := range sent.Letters {
				one.Resent = append(one.Resent, id)
			}
		}
		all = append(all, one)
	}
	if c.JSON {
		return printJSON(con.out, all)
	}
	printHistory(con.out, c.Key, all, past.Others)
	return nil
}

func printHistory(w io.Writer, key string, all []handling, others int) {
	fmt.Fprintf(w, "%s\n", key)
	for _, h := range all {
		span := h.Started.Local().Format(time.DateTime)
		if !h.Ended.IsZero() {
			span += " to " + h.Ended.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "\n%s  run %s of %s: %s, %s\n", span, h.Run, h.Job, h.State, counted(h.Attempts, "attempt"))
		if h.Parent != "" {
			fmt.Fprintf(w, "  sent again %s of run %s: %s\n", counted(len(h.Resent), "dead letter"), h.Parent,
				strings.Join(h.Resent, ", "))
		}
		if len(h.Handled) > 0 {
			fmt.Fprintf(w, "  read in %s, in an interval that is finished at %s\n", h.Partition,
				strings.Join(h.Handled, ", "))
		}
		if len(h.Open) > 0 {
			fmt.Fprintf(w, "  not finished at %s\n", strings.Join(h.Open, ", "))
		}
		if h.Unknown != "" {
			fmt.Fprintf(w, "  whether it was read is not known: %s\n", h.Unknown)
		}
		for _, l := range h.Letters {
			fmt.Fprintf(w, "  dead letter %s of %s at %s: %s, %s\n    %s\n", l.ID, l.At.Local().Format(time.DateTime),
				l.Step, l.Code, l.State, l.Message)
		}
		printNow(w, h.Now)
	}
	if len(all) == 0 {
		fmt.Fprintf(w, "\nno run in this journal has reached it\n")
	}
	if others > 0 {
		fmt.Fprintf(w, "\n%s in this journal did not reach it\n", counted(others, "other run"))
	}
	fmt.Fprint(w, `
The journal knows rows by intervals: a finished one means that what stood there when the run read it was handled, as written, unchanged,
superseded, filtered or dead; it tells only of the dead which rows they were, and not whether this row was there then.
`)
}

// printNow tells what the systems of a job hold of the row.
func printNow(w io.Writer, all []standing) {
	for _, s := range all {
		where := "the source"
		if s.Sink != "" {
			where = strings.TrimSpace("sink " + s.Sink + " " + s.Key)
		}
		switch {
		case s.Unknown != "":
			fmt.Fprintf(w, "  now at %s: not known, %s\n", where, s.Unknown)
		case !s.There:
			fmt.Fprintf(w, "  now at %s: no such row\n", where)
		case s.Version == 0:
			fmt.Fprintf(w, "  now at %s: there\n", where)
		case s.Sink != "" && s.Version == all[0].Version:
			fmt.Fprintf(w, "  now at %s: as at the source, version %d\n", where, s.Version)
		default:
			fmt.Fprintf(w, "  now at %s: version %d\n", where, s.Version)
		}
	}
}

// counted is a number with what it counts: "1 attempt", "2 attempts".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
