package job

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/record"
)

// validator is what every system's settings can do.
type validator interface{ Validate() []connector.Fault }

// Validate finds what the schema cannot say. It asks no system.
func (j *Job) Validate() []connector.Fault {
	var faults []connector.Fault
	add := func(path string, v validator) {
		for _, f := range v.Validate() {
			faults = append(faults, connector.Fault{Path: join(path, f.Path), Message: f.Message})
		}
	}
	for name, v := range j.Source.kinds() {
		add("source."+name, v)
	}
	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		kinds := j.Sinks[name].kinds()
		if len(kinds) != 1 {
			faults = append(faults, connector.Faultf("sinks."+name, "exactly one target is needed, such as iceberg or elasticsearch; there are %d", len(kinds)))
		}
		for kind, v := range kinds {
			add("sinks."+name+"."+kind, v)
		}
	}
	for kind, v := range j.DeadLetters.kinds() {
		add("dead_letters."+kind, v)
	}
	if j.DeadLetters.Cassandra != nil || j.DeadLetters.Elasticsearch != nil {
		faults = append(faults, connector.Faultf("dead_letters", "dead letters go to files, kafka or iceberg"))
	}
	return faults
}

func join(path, rest string) string {
	if rest == "" {
		return path
	}
	return path + "." + rest
}

func (s Source) kinds() map[string]validator {
	kinds := map[string]validator{}
	if s.Cassandra != nil {
		kinds["cassandra"] = s.Cassandra
	}
	if s.Files != nil {
		kinds["files"] = s.Files
	}
	if s.Corpus != nil {
		kinds["corpus"] = s.Corpus
	}
	return kinds
}

func (t Target) kinds() map[string]validator {
	kinds := map[string]validator{}
	if t.Cassandra != nil {
		kinds["cassandra"] = t.Cassandra
	}
	if t.Elasticsearch != nil {
		kinds["elasticsearch"] = t.Elasticsearch
	}
	if t.Iceberg != nil {
		kinds["iceberg"] = t.Iceberg
	}
	if t.Kafka != nil {
		kinds["kafka"] = t.Kafka
	}
	if t.Files != nil {
		kinds["files"] = t.Files
	}
	return kinds
}

// Compiled is what a job's transforms become on a schema.
type Compiled struct {
	Shared *transforms.Chain
	Sinks  map[string]*transforms.Chain
}

// Compile compiles all transforms of the job for records of a schema. Its error tells all faults.
func (j *Job) Compile(in *record.Schema, o transforms.Options) (*Compiled, error) {
	shared, err := transforms.Compile(j.Transforms, in, o)
	if err != nil {
		return nil, err
	}
	c := &Compiled{Shared: shared, Sinks: map[string]*transforms.Chain{}}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(j.Sinks)) {
		if c.Sinks[name], err = j.SinkChain(name, shared.Out, o); err != nil {
			faults = append(faults, fmt.Errorf("sink %s: %w", name, err))
		}
	}
	return c, errors.Join(faults...)
}

// SinkChain is the chain of one sink alone: its transforms, and before them its condition as a filter.
func (j *Job) SinkChain(name string, in *record.Schema, o transforms.Options) (*transforms.Chain, error) {
	sink := j.Sinks[name]
	return transforms.CompileWhen(sink.When, sink.Transforms, in, o)
}

// TooManyDead tells whether dead letters of a run are above the job's limit.
func (l Limits) TooManyDead(dead, read int64) bool {
	number, percent := strings.CutSuffix(l.DeadLetters, "%")
	limit, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return false
	}
	if percent {
		limit *= float64(read) / 100
	}
	return float64(dead) > limit
}
