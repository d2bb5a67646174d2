package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"reprise/io/fileio"
	"reprise/pipelines/beamio"
	"reprise/pipelines/job"
)

// steps measures the main job as a Beam program of the steps of package beamio against the fused engine, both from
// the start of the process.
func (b *bench) steps(ctx context.Context) error {
	var rows int64
	fused := func(round int) (time.Duration, error) {
		j, err := b.mainJob(skewed, fmt.Sprintf("fused_%d", round))
		if err != nil {
			return 0, err
		}
		f, err := b.reprise(ctx, j)
		rows = f.report.Sinks["lake"].Outcomes.Total() - f.report.DeadLetters
		return f.took, err
	}
	program := func(round int) (time.Duration, error) {
		j, err := b.mainJob(skewed, fmt.Sprintf("steps_%d", round))
		if err != nil {
			return 0, err
		}
		took, n, err := b.program(ctx, j)
		if err == nil && n != rows {
			err = fmt.Errorf("the steps committed %d rows, the engine %d", n, rows)
		}
		return took, err
	}
	all, err := turns(b.Rounds, side{"main job: the fused engine", fused}, side{"main job: Beam steps", program})
	if err != nil {
		return err
	}
	b.report.add(line{fmt.Sprintf("main job as Beam steps (beamio), %d rows, with the start of the process", rows),
		all[1].String(), "the fused engine: " + all[0].String(),
		ratio(all[0], all[1]), atLeast(0.8)})
	return errors.Join(os.RemoveAll(b.warehouse()), os.Remove(b.catalog()))
}

// asSteps is the argument by which this program becomes the one that is measured.
const asSteps = "as-steps"

// program runs the job as a Beam program, in a process of its own with the engine's settings of the garbage
// collector, and gives the rows that it committed.
func (b *bench) program(ctx context.Context, j *job.Job) (took time.Duration, rows int64, err error) {
	text, err := json.Marshal(j)
	if err != nil {
		return 0, 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	var out, failed bytes.Buffer
	cmd := exec.CommandContext(ctx, self, asSteps, filepath.Join(b.dir, "dead-letters-of-steps"))
	cmd.Env = append(os.Environ(), "GOGC=300", "GOMEMLIMIT=256MiB")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &failed
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, failed.Bytes())
	}
	took = time.Since(began)
	rows, err = strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	return took, rows, err
}

// beSteps is that process: it reads the job from standard input.
func beSteps(ctx context.Context, queue string) error {
	flag.CommandLine.Parse(nil)
	beam.Init()
	var j struct {
		job.Job
		Source map[string]json.RawMessage            `json:"source"`
		Sinks  map[string]map[string]json.RawMessage `json:"sinks"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	p, s := beam.NewPipelineWithRoot()
	for kind, config := range j.Source {
		records, unread := beamio.Read(s, beamio.Source{Kind: kind, Config: config, RowTimes: true})
		out, failed := beamio.Apply(s, records, j.Transforms...)
		for _, sink := range j.Sinks {
			for kind, config := range sink {
				_, refused := beamio.Write(s, out, beamio.Sink{Kind: kind, Config: config})
				dead := beamio.Sink{Kind: "files", Config: fileio.SinkConfig{Path: queue}}
				beamio.DeadLetters(s, dead, unread, failed, refused)
			}
		}
	}
	result, err := prism.Execute(ctx, p)
	if err != nil {
		return err
	}
	counts := map[string]int64{}
	for _, c := range result.Metrics().AllMetrics().Counters() {
		counts[c.Key.Name] += c.Result()
	}
	fmt.Println(counts["committed"] - counts["dead"]) // the queue commits as well
	return nil
}
