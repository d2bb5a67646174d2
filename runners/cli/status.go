package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/runs"
	"reprise/transforms/record"
)

// statusCommand is `reprise status [RUN]`.
type statusCommand struct {
	which
	ID   string `arg:"" optional:"" name:"run" help:"The run: its id, a prefix of it, or last. Default: list all runs."`
	JSON bool   `help:"Print JSON."`
}

// status is what is known of a run.
type status struct {
	*flow.Report
	Started time.Time      `json:"started"`
	Ended   time.Time      `json:"ended,omitzero"`
	Rows    int64          `json:"rows_planned"`
	Want    journal.Want   `json:"want"`
	Waiting string         `json:"waiting,omitempty"`
	Workers int            `json:"workers"`
	Systems []systemStatus `json:"systems,omitempty"`
	Behind  *behindStatus  `json:"behind,omitempty"` // of a run that goes on
	Events  []event        `json:"events"`
}

type event struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

// systemStatus is how fast one system is read or written, by all workers.
type systemStatus struct {
	Name    string        `json:"name"`
	Records float64       `json:"records_per_s"`
	Bytes   float64       `json:"bytes_per_s"`
	Asked   journal.Rate  `json:"asked"`
	P99     time.Duration `json:"p99_ns"`
	Retries int64         `json:"retries"`
}

// behindStatus is how far a run that goes on is behind.
type behindStatus struct {
	*journal.Behind
	In    float64       `json:"in_per_s"`           // records that come
	Out   float64       `json:"out_per_s"`          // records that are finished
	Drain time.Duration `json:"drain_ns,omitempty"` // until nothing is left, at this rate; 0: it does not get less
}

// catchingUp compares two looks at how far a run is behind.
func catchingUp(before, after []journal.Beat) *behindStatus {
	b := &behindStatus{Behind: total(after).behind}
	was := total(before).behind
	if b.Behind == nil || was == nil {
		return nil
	}
	var seconds float64
	for _, x := range after {
		for _, y := range before {
			if x.Worker == y.Worker {
				seconds = max(seconds, x.At.Sub(y.At).Seconds())
			}
		}
	}
	if seconds <= 0 {
		return b
	}
	for _, s := range speeds(before, after) {
		if s.Name == journal.Source {
			b.Out = s.Records
		}
	}
	less := float64(was.Records-b.Records) / seconds
	b.In = max(0, b.Out-less)
	if less > 0 {
		b.Drain = time.Duration(float64(b.Records) / less * float64(time.Second))
	}
	return b
}

// Run prints the list of runs, or one run.
func (c *statusCommand) Run(ctx context.Context, con *console) error {
	j, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	if c.ID == "" {
		return listRuns(ctx, con, j, c.JSON)
	}
	info, err := find(ctx, j, c.ID)
	if err != nil {
		return err
	}
	s, err := statusOf(ctx, j, info)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, s)
	}
	printStatus(con.out, s, c.flags())
	return nil
}

func listRuns(ctx context.Context, con *console, j journal.Journal, asJSON bool) error {
	all, err := j.List(ctx)
	if err != nil {
		return err
	}
	type line struct {
		Run     string    `json:"run"`
		Job     string    `json:"job"`
		State   string    `json:"state"`
		Attempt int       `json:"attempt"`
		Started time.Time `json:"started"`
	}
	lines := []line{}
	rows := [][]string{{"run", "job", "state", "attempt", "started"}}
	for _, r := range all {
		alive, err := runs.Alive(ctx, j, r.ID)
		if err != nil {
			return err
		}
		state := stateText(r.State, len(alive))
		lines = append(lines, line{r.ID, r.Job, state, r.Attempt, r.Started})
		rows = append(rows, []string{r.ID, r.Job, state, fmt.Sprint(r.Attempt),
			r.Started.Local().Format(time.DateTime)})
	}
	if asJSON {
		return printJSON(con.out, lines)
	}
	table(con.out, rows)
	return nil
}

// stateText is the state of a run; one that nobody works at although nothing ended it was interrupted.
func stateText(s journal.State, alive int) string {
	if s == journal.Running && alive == 0 {
		return "interrupted"
	}
	return string(s)
}

func statusOf(ctx context.Context, j journal.Journal, info journal.RunInfo) (*status, error) {
	of, err := runs.JobOf(info)
	if err != nil {
		return nil, err
	}
	s := &status{Started: info.Started, Ended: info.Ended}
	if s.Report, err = flow.Sum(ctx, j, runOf(info), of); err != nil {
		return nil, err
	}
	alive, err := runs.Alive(ctx, j, info.ID)
	if err != nil {
		return nil, err
	}
	s.Attempt, s.Workers, s.State = info.Attempt, len(alive), journal.State(stateText(info.State, len(alive)))
	if total, err := j.Total(ctx, info.ID); err == nil {
		s.Rows = total.Rows
	}
	control, err := j.Control(ctx, info.ID)
	if err != nil {
		return nil, err
	}
	s.Want, s.Reason = control.Want, control.Reason
	s.Waiting = total(alive).waiting
	history, err := j.History(ctx, info.ID)
	if err != nil {
		return nil, err
	}
	s.Events = []event{}
	for _, e := range history {
		s.Events = append(s.Events, event(e))
	}
	if len(alive) == 0 {
		return s, nil
	}
	const moment = time.Second
	select {
	case <-time.After(moment):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	later, err := runs.Alive(ctx, j, info.ID)
	if err != nil {
		return nil, err
	}
	s.Systems = speeds(alive, later)
	s.Behind = catchingUp(alive, later)
	return s, nil
}

// speeds are what the workers did between two looks at them.
func speeds(before, after []journal.Beat) []systemStatus {
	was := map[string]journal.Beat{}
	for _, b := range before {
		was[b.Worker] = b
	}
	all := map[string]*systemStatus{}
	for _, b := range after {
		seconds := b.At.Sub(was[b.Worker].At).Seconds()
		for name, g := range b.Systems {
			s := all[name]
			if s == nil {
				s = &systemStatus{Name: name}
				all[name] = s
			}
			if old, ok := was[b.Worker].Systems[name]; ok && seconds > 0 {
				s.Records += float64(g.Records-old.Records) / seconds
				s.Bytes += float64(g.Bytes-old.Bytes) / seconds
			}
			s.Asked.Records += g.Asked.Records
			s.Asked.Bytes += g.Asked.Bytes
			s.P99 = max(s.P99, g.P99)
			s.Retries += g.Retries
		}
	}
	list := []systemStatus{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[name])
	}
	return list
}

func printStatus(w io.Writer, s *status, flags string) {
	share := ""
	switch {
	case s.State == journal.Complete:
		share = fmt.Sprintf(", %s rows", grouped(s.Read))
	case s.Behind != nil:
		share = fmt.Sprintf(", %s rows", grouped(s.Read))
	case s.Rows > 0: // by an estimate, which what was read may exceed
		share = fmt.Sprintf(", %d %% of about %s rows", min(99, 100*s.Read/s.Rows), grouped(s.Rows))
	}
	fmt.Fprintf(w, "run %s of %s: %s, attempt %d%s\n", s.Run, s.Job, s.State, s.Attempt, share)
	if s.Waiting != "" {
		fmt.Fprintf(w, "waiting: %s\n", s.Waiting)
	} else if s.Reason != "" {
		fmt.Fprintf(w, "reason: %s\n", s.Reason)
	}
	fmt.Fprintln(w)
	header := []string{"sink", "read", "made"}
	for o := record.Written; o < record.NumOutcomes; o++ {
		header = append(header, o.String())
	}
	rows := [][]string{append(header, "splits open")}
	for _, name := range slices.Sorted(maps.Keys(s.Sinks)) {
		of := s.Sinks[name]
		row := []string{name, grouped(of.Read), grouped(of.Made)}
		for _, n := range of.Outcomes {
			row = append(row, grouped(n))
		}
		rows = append(rows, append(row, fmt.Sprintf("%d of %d", of.Open, s.Splits)))
	}
	table(w, rows)
	if len(s.Systems) > 0 {
		fmt.Fprintf(w, "\nworkers: %d\n", s.Workers)
		rows := [][]string{{"system", "records/s", "bytes/s", "asked", "p99", "retries"}}
		for _, of := range s.Systems {
			name := of.Name
			if name == journal.Source {
				name = "source"
			}
			rows = append(rows, []string{name, grouped(int64(of.Records)), grouped(int64(of.Bytes)), rateText(of.Asked),
				of.P99.Round(time.Millisecond / 10).String(), grouped(of.Retries)})
		}
		table(w, rows)
	}
	if s.Behind != nil {
		printBehind(w, s.Behind)
	}
	fmt.Fprintln(w)
	for _, e := range s.Events {
		fmt.Fprintf(w, "%s  %-9s %s\n", e.At.Local().Format(time.DateTime), e.Kind, e.Text)
	}
	if s.DeadLetters > 0 {
		fmt.Fprintf(w, "dead letters: %s; see: reprise dead stats %s%s\n", grouped(s.DeadLetters), s.Run, flags)
	}
	if s.State != journal.Running && s.State != journal.Complete {
		fmt.Fprintf(w, "continue with: reprise resume %s%s\n", s.Run, flags)
	}
}

func printBehind(w io.Writer, b *behindStatus) {
	fmt.Fprintf(w, "\nbehind by %s records", grouped(b.Records))
	if b.Records > 0 {
		fmt.Fprintf(w, ", the oldest of %s", b.Age.Round(100*time.Millisecond))
	}
	fmt.Fprintf(w, "; %s/s come, %s/s are read", grouped(int64(b.In)), grouped(int64(b.Out)))
	if b.Drain > 0 {
		fmt.Fprintf(w, ", drained in %s", b.Drain.Round(time.Second))
	}
	fmt.Fprintln(w)
	for _, sink := range slices.Sorted(maps.Keys(b.Delays)) {
		d := b.Delays[sink]
		fmt.Fprintf(w, "%s: half of the events are done %s after they came about, 99 %% after %s\n", sink,
			d.P50.Round(time.Millisecond), d.P99.Round(time.Millisecond))
	}
	rows := [][]string{{"partition", "at", "behind"}}
	for _, p := range b.Partitions {
		rows = append(rows, []string{p.Partition, p.Position, grouped(p.Records)})
	}
	table(w, rows)
}
