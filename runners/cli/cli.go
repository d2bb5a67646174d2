// Package cli is the reprise command. A team with transforms of its own builds its own binary around Main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"reprise/runners/launch"
	"reprise/transforms/fail"
)

// commands are the words of the command line.
type commands struct {
	Verbose bool   `short:"v" help:"Log more, including Beam's own messages."`
	Log     string `enum:"text,json" default:"text" help:"Log format: text, or json for JSON lines."`

	Run        runCommand        `cmd:"" help:"Run a job."`
	Resume     resumeCommand     `cmd:"" help:"Continue a paused run, or one that ended early, from where it stood."`
	Status     statusCommand     `cmd:"" help:"List the runs, or show one: its progress, its speed, and what it is waiting for."`
	Pause      pauseCommand      `cmd:"" help:"Pause a run on every worker."`
	Stop       stopCommand       `cmd:"" help:"Stop a run so it can be resumed."`
	Throttle   throttleCommand   `cmd:"" help:"Limit how fast a run reads, or writes to a sink."`
	Scale      scaleCommand      `cmd:"" help:"Limit how many requests a system gets at once."`
	Metrics    metricsCommand    `cmd:"" help:"Serve the metrics of a run to Prometheus, even if it is running elsewhere."`
	Dead       deadCommand       `cmd:"" help:"Inspect the dead letters of a run."`
	Redrive    redriveCommand    `cmd:"" help:"Reprocess the dead letters of a run."`
	Advise     adviseCommand     `cmd:"" help:"Recommend shards, sizes and routing, based on a sample."`
	Cutover    cutoverCommand    `cmd:"" help:"Switch searches from an old index to a new one, step by step."`
	Unload     unloadCommand     `cmd:"" help:"Restore index settings that a run changed for loading and left behind in a crash."`
	Compact    compactCommand    `cmd:"" help:"Merge the small files of an Iceberg sink's table; with upserts, keep one row per key. A dry run unless confirmed."`
	Expire     expireCommand     `cmd:"" help:"Expire old snapshots of an Iceberg sink's table, and remove files left by crashed runs. A dry run unless confirmed."`
	Purge      purgeCommand      `cmd:"" help:"Mark rows for deletion, delete them after the grace period, or restore them."`
	History    historyCommand    `cmd:"" help:"Show what the runs in a journal did with one row."`
	Verify     verifyCommand     `cmd:"" help:"Verify that the targets hold what the job would write, and nothing else."`
	Validate   validateCommand   `cmd:"" help:"Check a job file; with --connect, also check it against its systems. Writes nothing."`
	Plan       planCommand       `cmd:"" help:"Show what a run would read: buckets, splits, sizes. Writes nothing."`
	Sample     sampleCommand     `cmd:"" help:"Show a few records before and after each transform. Writes nothing."`
	Shadow     shadowCommand     `cmd:"" help:"Compare what two versions of a job would make of the same records. Writes nothing."`
	Schema     schemaCommand     `cmd:"" help:"Print the JSON Schema of job files, for editors."`
	Transforms transformsCommand `cmd:"" help:"List the transforms, or explain one of them."`
}

// console is where a command prints: what was asked for to out, everything else to err.
type console struct {
	out, err io.Writer
	verbose  bool
}

const description = `Reprise reprocesses data that is already stored, while production keeps reading and writing it.

Exit codes: 0 done; 1 internal error; 2 the job is wrong; 3 a system is unreachable or refuses the login;
4 done, with more dead letters than the limit; 5 the sums do not balance;
6 a verification found a mismatch; 130 stopped by a signal.`

// Main runs the command line and returns the exit code. A process that Beam started as a worker does its work and never
// returns.
func Main(args []string) int {
	launch.Init(args)
	return run(args, os.Stdout, os.Stderr)
}

// run is Main without Beam's worker.
func run(args []string, out, err io.Writer) (code int) {
	var c commands
	exited := -1
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, e := kong.New(&c, kong.Name("reprise"), kong.Description(description), kong.Writers(out, err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Exit(func(code int) { exited = code }))
	if e != nil {
		fmt.Fprintln(err, "reprise:", e)
		return fail.ExitInternal
	}
	parsed, e := k.Parse(args)
	if exited >= 0 {
		return exited
	}
	if e != nil {
		fmt.Fprintf(err, "reprise: %v; see: reprise --help\n", e)
		return fail.ExitJob
	}
	slog.SetDefault(slog.New(launch.NewHandler(err, c.Log == "json", c.Verbose)))
	if c.Log == "json" {
		err = logged{}
	}

	ctx, stop := withSignals(context.Background(), err)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	e = parsed.Run(&console{out: out, err: err, verbose: c.Verbose})
	if e != nil {
		tell(err, e)
	}
	return fail.ExitOf(e)
}

// tell prints an error for a person.
func tell(w io.Writer, e error) {
	if errors.Is(e, context.Canceled) {
		fmt.Fprintln(w, "reprise: stopped")
		return
	}
	if _, ok := w.(logged); ok {
		slog.Error(e.Error(), "class", fail.ClassOf(e).String(), "code", fail.CodeOf(e), "exit", fail.ExitOf(e))
		return
	}
	fmt.Fprintf(w, "reprise: %v\n", e)
}

// logged logs what is written to it for people: where the log is of JSON lines, nothing else stands between them.
type logged struct{}

// Write logs one message.
func (logged) Write(p []byte) (int, error) {
	slog.Info(strings.TrimPrefix(strings.TrimSpace(string(p)), "reprise: "))
	return len(p), nil
}

// withSignals ends the context at the first SIGINT or SIGTERM, and the process at the second.
func withSignals(ctx context.Context, w io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintf(w, "\nreprise: %s: stopping; a second signal ends it at once\n", s)
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(fail.ExitStopped)
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel() }
}
