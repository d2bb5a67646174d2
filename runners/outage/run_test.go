package outage

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/runners/cli"
	"reprise/runners/launch"
	"reprise/runners/services"
	"reprise/transforms/record"
)

var (
	full = flag.Bool("all", false, "each server with each kind of outage")
	rows = flag.Int64("rows", 4000, "rows of the corpus")
)

// seconds are about how long a run reads when nothing is wrong.
const seconds = 5

// TestMain lets the test binary be the command.
func TestMain(m *testing.M) {
	if os.Getenv("OUTAGE_COMMAND") != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	launch.Init(os.Args[1:]) // the corpus is loaded by a run in this process
	flag.Parse()
	flag.Set("test.parallel", "8") // the tests mostly wait
	os.Exit(m.Run())
}

// run is a run of the command in a folder of its own.
type run struct {
	t     *testing.T
	dir   string
	name  string // of index, topic and tables
	total int64  // rows that there are

	cmd   *exec.Cmd
	out   *bytes.Buffer
	ended chan struct{}
}

func newRun(t *testing.T, total int) *run {
	return &run{t: t, dir: t.TempDir(), name: services.Name(t), total: int64(total)}
}

// start starts the command.
func (r *run) start(args ...string) {
	r.t.Helper()
	r.cmd, r.out = r.command(r.t.Context(), args...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.ended = make(chan struct{})
	go func() {
		r.cmd.Wait()
		close(r.ended)
	}()
	ended := r.ended
	r.t.Cleanup(func() { <-ended }) // its context has ended
}

func (r *run) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer) {
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd, out := exec.CommandContext(ctx, self, args...), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, out, out
	cmd.Env = append(os.Environ(), "OUTAGE_COMMAND=1", "OUTAGE_ACCESS=testtest", "OUTAGE_SECRET=testtest1")
	return cmd, out
}

// end waits for the end of the command, which must be that with an exit code, and gives what it said.
func (r *run) end(code int) string {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(10 * time.Minute): // a client that asks a silent server again and again
		r.cmd.Process.Kill()
		<-r.ended
		r.t.Fatalf("it does not end\n%s", r.out)
	}
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("reprise %s: exit code %d, want %d\n%s", strings.Join(r.cmd.Args[1:], " "), got, code, r.out)
	}
	return r.out.String()
}

// state is what the journal tells of the run.
type state struct {
	journal.RunInfo
	done  map[string]journal.Sum // by sink; "": read, and through the transforms
	beats []journal.Beat         // of the last attempt
}

// gauge is what the worker that uses a system most tells of it: the step that commits has workers, too.
func (s state) gauge(system string) (g journal.Gauge) {
	for _, b := range s.beats {
		if used := b.Systems[system]; used.Requests >= g.Requests {
			g = used
		}
	}
	return g
}

// waiting is why the last worker waits.
func (s state) waiting() (why string) {
	for _, b := range s.beats {
		why = b.Waiting
	}
	return why
}

// look gives the zero state before the run is in the journal.
func (r *run) look() (s state) {
	r.t.Helper()
	file, ctx := filepath.Join(r.dir, "journal.db"), context.WithoutCancel(r.t.Context())
	if _, err := os.Stat(file); err != nil {
		return s
	}
	j, err := journal.Open(ctx, journal.Config{SQLite: file})
	if err != nil {
		r.t.Fatal(err)
	}
	defer j.Close()
	all, err := j.List(ctx)
	if err != nil || len(all) == 0 {
		return s
	}
	s.RunInfo, s.done = all[0], map[string]journal.Sum{}
	for d, err := range j.Finished(ctx, s.ID) {
		if err != nil {
			r.t.Fatal(err)
		}
		sum := s.done[d.Sink]
		sum.Add(d.Sum)
		s.done[d.Sink] = sum
	}
	if s.beats, err = j.Beats(ctx, s.ID); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// until waits until the run is in such a state; the command must not end before.
func (r *run) until(what string, such func(state) bool) {
	r.t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if such(r.look()) {
			return
		}
		select {
		case <-r.ended:
			r.t.Fatalf("the command ends before %s\n%s", what, r.out)
		default:
		}
		if time.Since(began) > 3*time.Minute {
			r.t.Fatalf("there is never %s: the run waits for %q\n%s", what, r.look().waiting(), r.out)
		}
	}
}

// reach waits until a part of the rows is finished.
func (r *run) reach(part float64) {
	r.t.Helper()
	r.until("enough read", func(s state) bool { return float64(s.done[""].Read) >= part*float64(r.total) })
}

// report is that of the last attempt.
func (r *run) report() (report flow.Report) {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// uncommitted tells whether a sink has all rows, but its commit failed.
func (r *run) uncommitted() bool {
	for _, s := range r.report().Sinks {
		if s.Uncommitted {
			return true
		}
	}
	return false
}

// complete checks the sums of a run that is done.
func (r *run) complete(sinks []string) {
	r.t.Helper()
	report := r.report()
	if report.State != journal.Complete || report.Read != r.total || report.DeadLetters > 0 ||
		len(report.Sinks) != len(sinks) {
		r.t.Errorf("of %d rows: %+v", r.total, report)
	}
	for name, s := range report.Sinks {
		if s.Read != r.total || s.Outcomes[record.Written] != r.total || s.Outcomes.Total() != r.total {
			r.t.Errorf("%s, of %d rows: %+v", name, r.total, s)
		}
	}
}
