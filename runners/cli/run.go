package cli

import (
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
	"reprise/runners/launch"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// runCommand is `reprise run JOB`.
type runCommand struct {
	Job         string `arg:"" help:"The job file."`
	Runner      string `enum:"prism,flink" default:"prism" help:"Where it runs: prism (in this process) or flink."`
	Endpoint    string `placeholder:"HOST:PORT" help:"Flink: Beam's job service."`
	Environment string `enum:"LOOPBACK,PROCESS,DOCKER,EXTERNAL" default:"LOOPBACK" help:"Flink: where the workers are; LOOPBACK is this process."`
	EnvConfig   string `placeholder:"CONFIG" help:"Flink: what the environment needs, as Beam's --environment_config."`
	Parallelism int    `help:"Flink: slots the job takes; 0 is the cluster's default."`
	Report      string `placeholder:"FILE" help:"Also write the report there, as JSON."`
}

// Run runs the job, shows its progress and prints its report.
func (c *runCommand) Run(ctx context.Context, con *console) error {
	if c.Runner == "flink" && c.Endpoint == "" {
		return fail.Job("flink.no_endpoint", "--runner flink needs --endpoint HOST:PORT").WithFix("name the address of Beam's Flink job service")
	}
	p, err := launch.Open(ctx, c.Job)
	if err != nil {
		return err
	}
	defer p.Close()

	began := time.Now()
	var progress *progress
	report, err := p.Execute(ctx, launch.Runner{Name: c.Runner, Endpoint: c.Endpoint, Environment: c.Environment, Config: c.EnvConfig,
		Parallelism: c.Parallelism, Verbose: con.verbose}, func(jl *journal.Journal, plan journal.Plan) {
		progress = watch(con.err, jl, p.Run.ID, plan)
	})
	progress.stop()
	if err != nil {
		return err
	}
	printReport(con.out, p.Job, report, time.Since(began))
	if c.Report != "" {
		if err := writeJSON(c.Report, report); err != nil {
			return err
		}
	}
	return verdict(p.Job, report)
}

// verdict is the error, and so the exit code, of a run that came to its report.
func verdict(j *job.Job, r *flow.Report) error {
	if len(r.Faults) > 0 {
		return &fail.Error{Class: fail.Fatal, Code: "run.unbalanced", Exit: fail.ExitUnbalanced,
			Message: fmt.Sprintf("run %s does not balance:\n  %s", r.Run, strings.Join(r.Faults, "\n  ")),
			Fix:     "do not trust the targets; run the job again and report this"}
	}
	if j.Limits.TooManyDead(r.DeadLetters, r.Read) {
		return &fail.Error{Class: fail.Fatal, Code: "run.dead_letters", Exit: fail.ExitDead,
			Message: fmt.Sprintf("run %s has %d dead letters of %d records, more than the limit of %s", r.Run, r.DeadLetters, r.Read, j.Limits.DeadLetters),
			Fix:     "look at them in " + place(j.DeadLetters)}
	}
	return nil
}

// place says where a target lies.
func place(t *job.Target) string {
	switch {
	case t.Files != nil:
		return "the folder " + t.Files.Path
	case t.Kafka != nil:
		return "the topic " + t.Kafka.Topic
	case t.Iceberg != nil:
		return "the table " + t.Iceberg.Table
	case t.Elasticsearch != nil:
		return "the index " + t.Elasticsearch.Index
	case t.Cassandra != nil:
		return "the table " + t.Cassandra.Keyspace + "." + t.Cassandra.Table
	}
	return "nowhere"
}

func printReport(w io.Writer, j *job.Job, r *flow.Report, took time.Duration) {
	fmt.Fprintf(w, "run %s of %s: %s rows of %s splits in %s, %s rows/s\n\n", r.Run, r.Job, grouped(r.Read), grouped(int64(r.Splits)),
		took.Round(100*time.Millisecond), grouped(int64(float64(r.Read)/max(took.Seconds(), 0.001))))
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
		fmt.Fprintf(w, "%s: %s\n", name, place(&sink.Target))
	}
	if r.DeadLetters > 0 {
		fmt.Fprintf(w, "dead letters: %s in %s\n", grouped(r.DeadLetters), place(j.DeadLetters))
	}
	if len(r.Faults) == 0 {
		fmt.Fprintln(w, "sums: balanced")
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

// progress shows a run while it goes on: one line, written over, on a terminal; a log message each ten seconds elsewhere.
type progress struct {
	w       io.Writer
	line    bool
	journal *journal.Journal
	run     string
	plan    journal.Plan
	began   time.Time
	quit    chan struct{}
	done    chan struct{}
}

func watch(w io.Writer, j *journal.Journal, run string, plan journal.Plan) *progress {
	p := &progress{w: w, journal: j, run: run, plan: plan, began: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	f, ok := w.(*os.File)
	p.line = ok && term.IsTerminal(int(f.Fd()))
	slog.Info("run begins", "run", run, "splits", plan.Splits, "rows_estimated", plan.Rows)
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
			now, err := p.journal.Progress(context.Background(), p.run)
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

func (p *progress) print(now journal.Progress) {
	elapsed := time.Since(p.began)
	rate := float64(now.Read) / elapsed.Seconds()
	eta := "?"
	if rows := max(p.plan.Rows, now.Read); rate > 0 && p.plan.Rows > 0 {
		eta = time.Duration(float64(rows-now.Read) / rate * float64(time.Second)).Round(time.Second).String()
	}
	var sum record.Counts
	for _, of := range now.Outcomes {
		sum.Add(of)
	}
	if !p.line {
		args := []any{"run", p.run, "rows", now.Read, "rows_per_s", int64(rate), "splits_done", now.SplitsDone, "splits", p.plan.Splits, "eta", eta}
		for o, n := range sum {
			args = append(args, record.Outcome(o).String(), n)
		}
		slog.Info("progress", args...)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\r\x1b[K%s rows  %s/s  splits %d/%d  eta %s ", grouped(now.Read), grouped(int64(rate)), now.SplitsDone, p.plan.Splits, eta)
	for o, n := range sum {
		if n > 0 {
			fmt.Fprintf(&b, " %s %s", record.Outcome(o), grouped(n))
		}
	}
	fmt.Fprint(p.w, b.String())
}

func (p *progress) stop() {
	if p == nil {
		return
	}
	close(p.quit)
	<-p.done
}
