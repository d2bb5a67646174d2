package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/icebergio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
)

// finished is a run of bin/reprise.
type finished struct {
	took   time.Duration // of the process, from its start to its end
	peak   int64         // of its resident memory, in bytes
	report flow.Report
}

// reprise runs a job to its end, in a process of its own as users do, or stops it when ctx ends for errEnough.
func (b *bench) reprise(ctx context.Context, j *job.Job) (finished, error) {
	return b.command(ctx, "run", j)
}

// command is a command that takes a job and writes a report.
func (b *bench) command(ctx context.Context, name string, j *job.Job, more ...string) (finished, error) {
	file, reported := filepath.Join(b.dir, j.Name+".yaml"), filepath.Join(b.dir, j.Name+".report.json")
	j.Journal = &journal.Config{SQLite: filepath.Join(b.dir, "journal.db")}
	j.DeadLetters = new(connector.To(&fileio.SinkConfig{Path: filepath.Join(b.dir, "dead-letters")}))
	text, err := json.Marshal(j)
	if err != nil {
		return finished{}, err
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return finished{}, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join("bin", "reprise"),
		append([]string{name, file, "--report", reported}, more...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	began := time.Now()
	if err := cmd.Run(); err != nil &&
		!(context.Cause(ctx) == errEnough && cmd.ProcessState.ExitCode() == fail.ExitStopped) {
		return finished{}, fmt.Errorf("%w: %s", err, out.Bytes())
	}
	f := finished{took: time.Since(began)}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.peak = usage.Maxrss << 10
	}
	if text, err = os.ReadFile(reported); err != nil {
		return f, err
	}
	return f, json.Unmarshal(text, &f.report)
}

// mainJob is testdata/jobs/assets-to-iceberg.yaml for a corpus and with a table of its own.
func (b *bench) mainJob(keyspace, table string) (*job.Job, error) {
	j, err := job.Load(filepath.Join("testdata", "jobs", "assets-to-iceberg.yaml"))
	if err != nil {
		return nil, err
	}
	if _, ok := j.Source.SourceConfig.(*cassandraio.SourceConfig); len(j.Sinks) != 1 || !ok {
		return nil, fail.Job("bench.job", "the main job has changed: it must read Cassandra and have one sink")
	}
	j.Name, j.Source = "bench-"+keyspace, connector.From(b.source(keyspace))
	for name := range j.Sinks {
		j.Sinks[name] = job.Sink{SinkSpec: connector.To(b.table(table))}
	}
	return j, nil
}

func (b *bench) table(name string) *icebergio.SinkConfig {
	return &icebergio.SinkConfig{Catalog: icebergio.CatalogConfig{SQLite: b.catalog(), Warehouse: b.warehouse()},
		Table: "bench." + name, Create: true}
}

func (b *bench) catalog() string   { return filepath.Join(b.dir, "catalog.db") }
func (b *bench) warehouse() string { return filepath.Join(b.dir, "warehouse") }

// memory measures the main job: its memory for two numbers of rows, its time for a skewed and an even layout.
func (b *bench) memory(ctx context.Context) error {
	peaks := map[string][]int64{}
	rows := map[string]int64{}
	run := func(keyspace string) func(int) (time.Duration, error) {
		return func(round int) (time.Duration, error) {
			j, err := b.mainJob(keyspace, fmt.Sprintf("%s_%d", keyspace, round))
			if err != nil {
				return 0, err
			}
			f, err := b.reprise(ctx, j)
			peaks[keyspace], rows[keyspace] = append(peaks[keyspace], f.peak), f.report.Read
			say("%-40s peak of memory %.0f MB", keyspace, megabytes(f.peak))
			return f.took, errors.Join(err, os.RemoveAll(b.warehouse()))
		}
	}
	all, err := turns(b.Rounds, side{"main job, skewed", run(skewed)}, side{"main job, even", run(even)})
	if err != nil {
		return err
	}
	b.report.add(line{"main job, half of the rows in one bucket", all[0].String(), "even buckets: " + all[1].String(),
		all[0].median().Seconds() / all[1].median().Seconds(), atMost(1.5, "")})
	small := most(peaks[skewed])
	b.report.add(line{fmt.Sprintf("peak memory (RSS), %d rows", rows[skewed]), fmt.Sprintf("%.0f MB", megabytes(small)),
		"", megabytes(small), atMost(400, " MB")})
	if b.Large == 0 {
		return nil
	}
	whole, err := turns(1, side{"main job, large", run(large)})
	if err != nil {
		return err
	}
	big := most(peaks[large])
	b.report.add(line{fmt.Sprintf("peak memory (RSS), %d rows, %s", rows[large], whole[0].rate(rows[large])),
		fmt.Sprintf("%.0f MB", megabytes(big)),
		fmt.Sprintf("%d rows: %.0f MB", rows[skewed], megabytes(small)), float64(big) / float64(small),
		atMost(1.15, "")})
	return nil
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

func most(all []int64) int64 {
	n := int64(0)
	for _, v := range all {
		n = max(n, v)
	}
	return n
}
