package launch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"

	"reprise/io/connector"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
)

// Init must come before everything else of a process. One that Beam started as a worker (with --worker and flags of
// Beam's own) does its work here and ends.
func Init(args []string) {
	flow.Opened = bound
	if slices.ContainsFunc(args, func(a string) bool {
		return strings.TrimLeft(a, "-") == "worker" || strings.HasPrefix(strings.TrimLeft(a, "-"), "worker=")
	}) {
		flag.Parse()
		go endWith(os.Getppid())
	}
	beam.Init()
}

// bound bounds the memory of this process, be it the command itself or a worker. Most of the heap is short-lived
// pages: collecting them less often, up to the limit, saves a fifth of the client's time.
func bound(l job.Limits) {
	debug.SetGCPercent(300)
	debug.SetMemoryLimit(int64(l.Memory))
}

// endWith ends a worker once the process that has started it is gone: a runner that gives a worker up kills that one
// alone.
func endWith(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(1)
}

// Runner says where the graph runs. It is the runs.Engine.
type Runner struct {
	Name        string     // prism or flink
	Endpoint    string     // flink: HOST:PORT of Beam's job service
	Environment string     // flink: LOOPBACK (this process works too), PROCESS, DOCKER or EXTERNAL
	Config      string     // flink: what the environment needs, as Beam's --environment_config
	Parallelism int        // flink: of the job; 0: what the cluster does by default
	Verbose     bool       // Beam's own messages too
	Watch       runs.Watch // of each attempt; may be nil
}

var _ runs.Engine = Runner{}

// OneMachine implements runs.Engine.
func (r Runner) OneMachine() bool { return r.Name != "flink" || r.Environment == "LOOPBACK" }

// hands is the number of parts that a plan is dealt into: Prism reads them one after the other in one bundle, so one
// is best; Flink deals them to its slots. Where the source goes on no part ends, and whatever waits behind one would
// never be read: then all of it is one part, and further processes take part by Join.
func (r Runner) hands(goesOn bool) int {
	if r.Name == "flink" && !goesOn {
		return r.workers(goesOn) * 4
	}
	return 1
}

// workers is about how many passes go on at once.
func (r Runner) workers(goesOn bool) int {
	if r.Name == "flink" && !goesOn {
		return max(1, r.Parallelism)
	}
	return 1
}

// Reachable implements runs.Engine. It looks whether somebody listens at the endpoint: Beam would try for minutes,
// after the run has begun.
func (r Runner) Reachable(ctx context.Context) error {
	if r.Name != "flink" {
		return nil
	}
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", r.Endpoint)
	if err != nil {
		return fail.Unreachable("flink.unreachable", "no job service answers: %w", err).
			WithFix("check --endpoint and that Beam's Flink job service runs there")
	}
	return c.Close()
}

// execute runs a graph to its end. ctx must live until then; ending it cancels the job.
func (r Runner) execute(ctx context.Context, run connector.Run, graph *beam.Pipeline) error {
	if r.Verbose {
		log.SetLogger(beamLog{slog.LevelDebug})
	} else {
		log.SetLogger(beamLog{slog.LevelError + 1})
	}
	*jobopts.JobName = "reprise-" + strings.ToLower(run.Job) + "-" + run.ID
	*jobopts.Parallelism = -1
	if r.Name == "prism" {
		*jobopts.Endpoint, *jobopts.EnvironmentType = "", ""
		if _, err := prism.Execute(ctx, graph); err != nil {
			return fmt.Errorf("prism: %w", brief(err))
		}
		return nil
	}
	*jobopts.Endpoint, *jobopts.EnvironmentType, *jobopts.EnvironmentConfig = r.Endpoint, r.Environment, r.Config
	if r.Parallelism > 0 {
		*jobopts.Parallelism = r.Parallelism
	}
	if self, err := os.Executable(); err == nil && r.Environment != "LOOPBACK" && runtime.GOOS == "linux" {
		*jobopts.WorkerBinary = self // else Beam would build the program anew
	}
	if _, err := universal.Execute(ctx, graph); err != nil {
		return fmt.Errorf("flink: %w", brief(err))
	}
	return nil
}

// brief is an error of a runner without the graph that it prints first; --verbose shows that.
func brief(err error) error {
	const enough = 1000
	text := strings.TrimSpace(err.Error())
	if len(text) > enough {
		text = "... " + text[len(text)-enough:]
	}
	return errors.New(text)
}

// beamLog passes Beam's messages on to slog from a level up.
type beamLog struct{ level slog.Level }

// Log implements log.Logger.
func (l beamLog) Log(ctx context.Context, sev log.Severity, _ int, msg string) {
	level := map[log.Severity]slog.Level{log.SevDebug: slog.LevelDebug, log.SevInfo: slog.LevelInfo,
		log.SevWarn:  slog.LevelWarn,
		log.SevError: slog.LevelError, log.SevFatal: slog.LevelError}[sev]
	if level >= l.level {
		slog.Log(ctx, level, msg, "from", "beam")
	}
}
