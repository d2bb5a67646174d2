// Package corpus loads the corpus of test assets into Cassandra, by a run of Reprise itself.
package corpus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/corpusio"
	"reprise/io/fileio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/runners/launch"
	"reprise/transforms/record"
)

// Corpus is a corpus in a keyspace.
type Corpus struct {
	Connection cassandraio.Connection
	Keyspace   string // made with the tables of testdata/corpus.cql
	Source     corpusio.SourceConfig
	Journal    string // a file; dead letters go to a folder beside it
}

// name tells one corpus from another in the table of loads.
func (c Corpus) name() string {
	return fmt.Sprintf("%d rows, seed %d, layout %s, expires %s", c.Source.Rows, c.Source.Seed, c.Source.Layout,
		c.Source.Expires)
}

// Load makes the tables and loads the corpus, unless it has been loaded to its end before; it tells which.
func (c Corpus) Load(ctx context.Context) (report *flow.Report, err error) {
	script, err := script()
	if err != nil {
		return nil, err
	}
	script = strings.ReplaceAll(strings.ReplaceAll(script, "media.", c.Keyspace+"."), "EXISTS media ",
		"EXISTS "+c.Keyspace+" ")
	script += fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.loads (corpus text PRIMARY KEY, rows bigint);", c.Keyspace)
	if err := cassandraio.Execute(ctx, c.Connection, cassandraio.Statements(script)...); err != nil {
		return nil, err
	}
	if there, err := c.loaded(ctx); there || err != nil {
		return nil, err
	}
	p, err := runs.Prepare(ctx, c.job())
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if report, err = (launch.Runner{Name: "prism"}).Execute(ctx, p); err != nil {
		return nil, err
	}
	if err := c.buckets(ctx); err != nil {
		return nil, err
	}
	return report, cassandraio.Execute(ctx, c.Connection, cassandraio.Statement{
		CQL:    fmt.Sprintf("INSERT INTO %s.loads (corpus, rows) VALUES (?, ?)", c.Keyspace),
		Values: []any{c.name(), c.Source.Rows}})
}

// loaded tells whether the corpus is there.
func (c Corpus) loaded(ctx context.Context) (bool, error) {
	s := cassandraio.NewSource(cassandraio.SourceConfig{Connection: c.Connection, Keyspace: c.Keyspace, Table: "loads"},
		connector.Need{})
	defer s.Close()
	found := false
	err := s.Plan(ctx, connector.PlanOptions{}, func(split connector.Split) error {
		return s.Read(ctx, split, func(p connector.Page) error {
			for _, r := range p.Records {
				found = found || r.Get("corpus").Str() == c.name()
			}
			return nil
		})
	})
	return found, err
}

func (c Corpus) sink(table string) *cassandraio.SinkConfig {
	return &cassandraio.SinkConfig{Connection: c.Connection, Keyspace: c.Keyspace, Table: table, Consistency: "ONE"}
}

func (c Corpus) job() *job.Job {
	deadLetters := filepath.Join(filepath.Dir(c.Journal), "load-dead-letters")
	j := &job.Job{
		Name:        "load-corpus",
		Source:      connector.From(&c.Source),
		Sinks:       map[string]job.Sink{"assets": {SinkSpec: connector.To(c.sink("assets"))}},
		DeadLetters: new(connector.To(&fileio.SinkConfig{Path: deadLetters})),
		Journal:     &journal.Config{SQLite: c.Journal},
	}
	j.SetDefaults()
	return j
}

// buckets fills the table of buckets.
func (c Corpus) buckets(ctx context.Context) error {
	sink := cassandraio.NewSink(*c.sink("asset_buckets"))
	defer sink.Close()
	var failed error
	w, err := sink.Open(ctx, connector.Run{}, corpusio.BucketSchema(), func(results []connector.Result) {
		for _, r := range results {
			if r.Outcome != record.Written {
				failed = fmt.Errorf("bucket %s: %w", r.Record.KeyText(), r.Err)
			}
		}
	})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, r := range corpusio.BucketRecords(c.Source) {
		if err := w.Write(ctx, r); err != nil {
			return err
		}
	}
	if _, err := w.Flush(ctx); err != nil {
		return err
	}
	return failed
}

// script is testdata/corpus.cql, found beside this file or in the working folder.
func script() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	for _, root := range []string{filepath.Join(filepath.Dir(file), "..", ".."), "."} {
		if text, err := os.ReadFile(filepath.Join(root, "testdata", "corpus.cql")); err == nil {
			return string(text), nil
		}
	}
	return "", fmt.Errorf("testdata/corpus.cql is not found: run this from the project's folder")
}
