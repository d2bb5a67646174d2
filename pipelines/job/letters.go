package job

import (
	"fmt"
	"path/filepath"
	"slices"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/fileio"
	"reprise/io/icebergio"
	"reprise/io/journal"
	"reprise/io/kafkaio"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Letters is the source of a redrive: the rows of dead letters, or the records that the queue has kept of them. Which letters, the journal
// tells. It stands in jobs that a redrive makes, not in job files.
type Letters struct {
	Journal journal.Config `json:"journal"`
	Max     int            `json:"max"`              // letters that failed so often are parked
	Of      *Source        `json:"of"`               // where the rows are; with Schema, the queue
	Schema  []byte         `json:"schema,omitempty"` // of kept records, by record.Schema's MarshalBinary; nil: rows are read
}

func (l Letters) open(need connector.Need) (connector.Source, error) {
	of, err := l.Of.Open(need)
	if err != nil {
		return nil, err
	}
	if l.Schema == nil {
		return deadletter.NewRows(l.Journal, of, need), nil
	}
	schema, err := record.UnmarshalSchema(l.Schema)
	if err != nil {
		return nil, fmt.Errorf("the schema of kept records: %w", err)
	}
	return deadletter.NewKept(l.Journal, of, schema, need), nil
}

// Queue is the source that reads the dead letters which a run has written to the target.
func (t Target) Queue(run string) *Source {
	schema := deadletter.Schema()
	key, fields := schema.KeyNames(), connector.Fields(schema.Fields)
	switch {
	case t.Files != nil:
		return &Source{Files: &fileio.SourceConfig{Path: filepath.Join(t.Files.Path, run+"-*"+extension(t.Files)), Key: key, Fields: fields}}
	case t.Kafka != nil:
		k := t.Kafka
		return &Source{Kafka: &kafkaio.SourceConfig{Brokers: k.Brokers, Topic: k.Topic, Key: key, Format: k.Format, Registry: k.Registry,
			Fields: fields, SASL: k.SASL, TLS: k.TLS}}
	case t.Iceberg != nil:
		i := t.Iceberg
		return &Source{Iceberg: &icebergio.SourceConfig{Catalog: i.Catalog, S3: i.S3, Table: i.Table, Key: key, Fields: fields, IgnoreUnknown: true}}
	}
	return &Source{}
}

// extension is that of the names of files that a sink writes.
func extension(f *fileio.SinkConfig) string {
	if f.Format == "parquet" {
		return ".parquet"
	}
	return map[string]string{"": ".jsonl", "none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[f.Compress]
}

// From gives the job from a step on, as dead letters of the sink name it; in is the schema of what enters that step, for records of the job's source.
// What stands before is left out, and so are the other sinks where the step is one sink's.
func (j *Job) From(sink, step string, c *Compiled) (from *Job, in *record.Schema, err error) {
	rest := *j
	for _, s := range c.Shared.Steps {
		if sink == "" && s.Label() == step {
			rest.Transforms = j.Transforms[s.Index:]
			return &rest, s.In, nil
		}
	}
	own, ok := j.Sinks[sink]
	if !ok {
		return nil, nil, fail.Job("redrive.no_step", "the job has no step %q", step).WithFix("read the rows again, without --kept")
	}
	rest.Transforms = nil
	if step == "sink "+sink {
		rest.Sinks = map[string]Sink{sink: {Target: own.Target}}
		return &rest, c.Sinks[sink].Out, nil
	}
	for _, s := range c.Sinks[sink].Steps {
		if "sink "+sink+" "+s.Label() != step {
			continue
		}
		if s.Index >= 0 {
			own.When, own.Transforms = "", slices.Clone(own.Transforms[s.Index:])
		}
		rest.Sinks = map[string]Sink{sink: own}
		return &rest, s.In, nil
	}
	return nil, nil, fail.Job("redrive.no_step", "the job has no step %q", step).WithFix("read the rows again, without --kept")
}
