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
	Verbose bool   `short:"v" help:"Tell more, Beam's own messages too."`
	Log     string `enum:"text,json" default:"text" help:"How messages are written: text, or json for JSON lines."`

	Run        runCommand        `cmd:"" help:"Run a job."`
	Resume     resumeCommand     `cmd:"" help:"Let a paused run go on, or begin again where one stood."`
	Status     statusCommand     `cmd:"" help:"Show the runs, or one run: how far it is, what it waits for, how fast it goes."`
	Pause      pauseCommand      `cmd:"" help:"Hold a run, on every worker."`
	Stop       stopCommand       `cmd:"" help:"End a run in a way that it can be resumed."`
	Throttle   throttleCommand   `cmd:"" help:"Change how fast a run reads, or writes to a sink."`
	Scale      scaleCommand      `cmd:"" help:"Change how many requests a system gets at once."`
	Metrics    metricsCommand    `cmd:"" help:"Serve the metrics of a run to Prometheus, also of one that goes on elsewhere."`
	Dead       deadCommand       `cmd:"" help:"Look at the dead letters of a run."`
	Redrive    redriveCommand    `cmd:"" help:"Send dead letters of a run again."`
	Advise     adviseCommand     `cmd:"" help:"Advise on shards, sizes and routing, from a sample."`
	Cutover    cutoverCommand    `cmd:"" help:"Move searches from an old index to a new one, step by step."`
	Unload     unloadCommand     `cmd:"" help:"Put back the index settings that a run has changed for loading and a crash has left."`
	Compact    compactCommand    `cmd:"" help:"Put the small files of an Iceberg sink's table together; where it upserts, keep one row of each key. Shows it first."`
	Expire     expireCommand     `cmd:"" help:"Forget old snapshots of an Iceberg sink's table, and remove files that crashed runs have left. Shows it first."`
	Purge      purgeCommand      `cmd:"" help:"Mark rows that are to be deleted, and later delete them, or write them again."`
	History    historyCommand    `cmd:"" help:"Tell what the runs of a journal have done about one row."`
	Verify     verifyCommand     `cmd:"" help:"Prove that the targets hold what a job would write, and nothing else."`
	Validate   validateCommand   `cmd:"" help:"Check a job file; with --connect also against its systems. Writes nothing."`
	Plan       planCommand       `cmd:"" help:"Show what a run would read: buckets, splits, sizes. Writes nothing."`
	Sample     sampleCommand     `cmd:"" help:"Show some records before and after each transform. Writes nothing."`
	Shadow     shadowCommand     `cmd:"" help:"Compare what the transforms of two versions of a job make of the same records. Writes nothing."`
	Schema     schemaCommand     `cmd:"" help:"Print the JSON Schema of job files, for editors."`
	Transforms transformsCommand `cmd:"" help:"List the transforms, or explain one."`
}

// console is where a command prints: what was asked for to out, everything else to err.
type console struct {
	out, err io.Writer
	verbose  bool
}

const description = `Reprise reprocesses data that is already stored, while production keeps reading and writing it.

Exit codes: 0 done; 1 an internal error; 2 the job is wrong; 3 a system cannot be reached or refuses the login;
4 done, with more dead letters than the limit; 5 the sums do not balance;
6 a verification found a mismatch; 130 stopped by a signal.`

// Main runs the command line and returns the exit code. A process that Beam started as a worker does its work and never returns.
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
			fmt.Fprintf(w, "\nreprise: %s: stopping; once more ends it at once\n", s)
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
