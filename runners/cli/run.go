package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/metrics"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// runCommand is `reprise run JOB`.
type runCommand struct {
	File string `arg:"" name:"job" help:"The job file."`
	Join bool   `help:"Share a run that goes on (follow) with every other process that is started so; begin it, or go on with it, where there is none."`
	runner
	exposed
}

// Run runs the job, shows its progress and prints its report.
func (c *runCommand) Run(ctx context.Context, con *console) error {
	runner, err := c.runner.of(con)
	if err != nil {
		return err
	}
	p, err := runs.Open(ctx, c.File)
	if err != nil {
		return err
	}
	defer p.Close()
	if p.Job.Purge != nil {
		return fail.Job("purge.run", "the job %s purges: its sinks are where rows are deleted",
			p.Job.Name).WithFix("reprise purge %s", c.File)
	}
	served, err := c.serve(con)
	if err != nil {
		return err
	}
	defer served.Close()
	began := time.Now()
	follow := follower{w: con.err, served: served}
	runner.Watch = follow.attempt
	execute := runner.Execute
	if c.Join {
		execute = runner.Join
	} else if err := offer(ctx, con, p); err != nil {
		return err
	}
	report, err := execute(ctx, p)
	follow.stop()
	if err != nil {
		return err
	}
	return conclude(con, p.Job, report, time.Since(began), c.Report)
}

// offer tells of a run of the same job that is unfinished.
func offer(ctx context.Context, con *console, p *runs.Prepared) error {
	left, err := p.Unfinished(ctx)
	if err != nil || left == "" {
		return err
	}
	fmt.Fprintf(con.err, "reprise: run %s of this job is unfinished; "+
		"to continue it, stop this one and: reprise resume %s%s\n", left, left, flagsFor(p.Job.Journal))
	return nil
}

// conclude prints the report of an attempt, and gives the error, and so the exit code, that belongs to it.
func conclude(con *console, j *job.Job, r *flow.Report, took time.Duration, file string) error {
	printReport(con.out, j, r, took)
	if file != "" {
		if err := writeJSON(file, r); err != nil {
			return err
		}
	}
	return verdict(j, r)
}

func verdict(j *job.Job, r *flow.Report) error {
	ended := func(exit int, code, format string, args ...any) *fail.Error {
		return &fail.Error{Class: fail.Fatal, Code: code, Exit: exit, Message: fmt.Sprintf(format, args...)}
	}
	run := r.Run + flagsFor(j.Journal)
	goOn := "resume it: reprise resume " + run
	if j.Source.Follows() {
		goOn += "; or, where several processes share it: reprise run JOB --join"
	}
	switch r.State {
	case journal.Unbalanced:
		return ended(fail.ExitUnbalanced, "run.unbalanced", "run %s does not balance:\n  %s", r.Run,
			strings.Join(r.Faults, "\n  ")).
			WithFix("do not trust the targets; run the job again and report this")
	case journal.Stopped:
		return ended(fail.ExitStopped, "run.stopped", "run %s was stopped before its end", r.Run).WithFix("%s", goOn)
	case journal.Paused:
		return ended(fail.ExitDead, "run.paused", "run %s has paused: %s", r.Run, r.Reason).
			WithFix("see what is wrong with reprise dead stats %s, fix it, then %s", run, goOn)
	case journal.Incomplete:
		var down []string
		for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
			switch s := r.Sinks[name]; {
			case s.Open > 0:
				down = append(down, fmt.Sprintf("sink %s has %d splits open: %s", name, s.Open, s.Reason))
			case s.Uncommitted:
				down = append(down, fmt.Sprintf("sink %s has all rows, but they are not visible yet: %s", name,
					s.Reason))
			}
		}
		return ended(fail.ExitUnreachable, "run.incomplete", "run %s is not complete:\n  %s", r.Run,
			strings.Join(down, "\n  ")).
			WithFix("once the sink works again,  %s", goOn)
	}
	if j.Limits.TooManyDead(r.DeadLetters, r.Read) {
		return ended(fail.ExitDead, "run.dead_letters",
			"run %s has %d dead letters of %d records, more than the limit of %s", r.Run, r.DeadLetters, r.Read,
			j.Limits.DeadLetters).
			WithFix("look at them in %s, and with reprise dead stats %s", j.DeadLetters.Place(), run)
	}
	return nil
}

func printReport(w io.Writer, j *job.Job, r *flow.Report, took time.Duration) {
	rate := grouped(int64(float64(r.Read) / max(took.Seconds(), 0.001)))
	speed := fmt.Sprintf("%s, %s rows/s", took.Round(100*time.Millisecond), rate)
	if r.Attempt > 1 { // the rows are those of all attempts
		speed = fmt.Sprintf("%d attempts, the last in %s", r.Attempt, took.Round(100*time.Millisecond))
	}
	fmt.Fprintf(w, "run %s of %s: %s rows of %s splits in %s\n\n", r.Run, r.Job, grouped(r.Read),
		grouped(int64(r.Splits)), speed)
	header := []string{"sink", "read", "made"}
	for o := record.Written; o < record.NumOutcomes; o++ {
		header = append(header, o.String())
	}
	rows := [][]string{header}
	for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
		s := r.Sinks[name]
		row := []string{name, grouped(s.Read), grouped(s.Made)}
		for _, n := range s.Outcomes {
			row = append(row, grouped(n))
		}
		rows = append(rows, row)
	}
	table(w, rows)
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
		sink := j.Sinks[name]
		fmt.Fprintf(w, "%s: %s\n", name, cmp.Or(sink.Place(), "nowhere"))
	}
	if r.DeadLetters > 0 {
		fmt.Fprintf(w, "dead letters: %s in %s\n", grouped(r.DeadLetters), j.DeadLetters.Place())
	}
	switch {
	case r.State == journal.Complete && r.Read == 0:
		fmt.Fprintln(w, "sums: balanced, but the source matched no rows; check its filter")
	case r.State == journal.Complete:
		fmt.Fprintln(w, "sums: balanced")
	case len(r.Faults) == 0 && r.State == journal.Running:
		fmt.Fprintf(w, "sums: balanced so far; the run goes on, %s\n", r.Reason)
	case len(r.Faults) == 0:
		fmt.Fprintf(w, "sums: balanced so far; the run is %s\n", r.State)
	}
}

// table prints rows in columns, the first to the left and the others to the right.
func table(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(w, "%-*s", widths[i], cell)
			} else {
				fmt.Fprintf(w, "  %*s", widths[i], cell)
			}
		}
		fmt.Fprintln(w)
	}
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// follower shows the attempts of runs while they go on, one after the other.
type follower struct {
	w io.Writer
	// that shows the run, too; may be nil, and is once it does: attempts of one run have the same metrics
	served *metrics.Server
	shown  *progress
}

// attempt is a runs.Watch: it ends with the attempt before and shows the next one.
func (f *follower) attempt(j journal.Journal, run string, attempt int, total journal.Total) (ended func()) {
	f.served.Show(j, run)
	f.served = nil
	f.stop()
	f.shown = watch(f.w, j, run, attempt, total)
	return f.stop
}

func (f *follower) stop() {
	if f.shown != nil {
		close(f.shown.quit)
		<-f.shown.done
		f.shown = nil
	}
}

// progress shows an attempt while it goes on: one line, written over, on a terminal; a log message each ten seconds
// elsewhere.
type progress struct {
	w       io.Writer
	line    bool
	journal journal.Journal
	run     string
	total   journal.Total
	before  int64 // rows of earlier attempts
	began   time.Time
	quit    chan struct{}
	done    chan struct{}
}

func watch(w io.Writer, j journal.Journal, run string, attempt int, total journal.Total) *progress {
	p := &progress{w: w, journal: j, run: run, total: total, began: time.Now(), quit: make(chan struct{}),
		done: make(chan struct{})}
	f, ok := w.(*os.File)
	p.line = ok && term.IsTerminal(int(f.Fd()))
	if attempt > 1 {
		for d, err := range j.Finished(context.Background(), run) {
			if err == nil && d.Sink == "" {
				p.before += d.Sum.Read
			}
		}
	}
	slog.Info("run begins", "run", run, "attempt", attempt, "splits", total.Splits, "rows_estimated", total.Rows,
		"rows_finished", p.before)
	go p.show()
	return p
}

func (p *progress) show() {
	defer close(p.done)
	each := 10 * time.Second
	if p.line {
		each = time.Second
	}
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now, err := p.journal.Beats(context.Background(), p.run)
			if err != nil {
				slog.Warn("progress is not known", "error", err)
				continue
			}
			p.print(now)
		case <-p.quit:
			if p.line {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		}
	}
}

func (p *progress) print(beats []journal.Beat) {
	elapsed := time.Since(p.began)
	now := total(beats)
	rate := float64(now.rows) / elapsed.Seconds()
	eta := "?"
	if left := p.total.Rows - p.before - now.rows; rate > 0 && p.total.Rows > 0 {
		eta = time.Duration(float64(max(0, left)) / rate * float64(time.Second)).Round(time.Second).String()
	}
	if !p.line {
		args := []any{"run", p.run, "rows", p.before + now.rows, "rows_per_s", int64(rate), "splits_done", now.splits,
			"splits", p.total.Splits, "eta", eta}
		for o, n := range now.outcomes {
			args = append(args, record.Outcome(o).String(), n)
		}
		if now.behind != nil {
			args = append(args, "behind", now.behind.Records, "behind_age", now.behind.Age.Round(time.Millisecond))
		}
		if now.waiting != "" {
			args = append(args, "waiting", now.waiting)
		}
		slog.Info("progress", args...)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\r\x1b[K%s rows  %s/s  ", grouped(p.before+now.rows), grouped(int64(rate)))
	if now.behind != nil {
		fmt.Fprintf(&b, "behind by %s ", grouped(now.behind.Records))
	} else {
		fmt.Fprintf(&b, "splits %d/%d  eta %s ", now.splits, p.total.Splits, eta)
	}
	for o, n := range now.outcomes {
		if n > 0 {
			fmt.Fprintf(&b, " %s %s", record.Outcome(o), grouped(n))
		}
	}
	if now.waiting != "" {
		fmt.Fprintf(&b, "  %s", now.waiting)
	}
	fmt.Fprint(p.w, b.String())
}

// done is what the workers of an attempt have done so far.
type done struct {
	rows     int64
	splits   int
	outcomes record.Counts
	waiting  string          // why one of them does not go on
	behind   *journal.Behind // of a run that goes on
}

func total(beats []journal.Beat) (d done) {
	for _, b := range beats {
		d.rows += b.Systems[journal.Source].Records
		d.splits += b.Splits
		for _, n := range b.Outcomes {
			d.outcomes.Add(n)
		}
		if d.waiting == "" {
			d.waiting = b.Waiting
		}
		d.behind = further(d.behind, b.Behind)
	}
	return d
}

// further adds how far another worker is behind; nil: it does not say.
func further(sum, of *journal.Behind) *journal.Behind {
	if of == nil {
		return sum
	}
	if sum == nil {
		sum = &journal.Behind{Delays: map[string]journal.Delay{}}
	}
	sum.Records += of.Records
	sum.Age = max(sum.Age, of.Age)
	sum.Partitions = append(sum.Partitions, of.Partitions...)
	for sink, d := range of.Delays {
		was := sum.Delays[sink]
		sum.Delays[sink] = journal.Delay{P50: max(was.P50, d.P50), P99: max(was.P99, d.P99)}
	}
	return sum
}
