package job

import (
	"encoding/json"
	"slices"

	"reprise/transforms"
)

// Of a compacted topic Kafka keeps the message of a key that comes last. So a job may write one only if each key comes
// once, as the source has it now: readers and writers work side by side, and of several records of a key the oldest may
// come last.

// onceFaults tells why the keys of a sink that may write compacted topics come more than once.
func (j *Job) onceFaults(name string, shared, own *transforms.Chain) []fault {
	sink := j.Sinks[name]
	if sink.Kafka == nil || !sink.Kafka.SoleWriter {
		return nil
	}
	why := j.Source.repeats()
	look := func(chain *transforms.Chain, specs []transforms.Spec) {
		for _, step := range chain.Steps {
			if why == "" && step.Index >= 0 && rekeys(step, specs[step.Index].Config) {
				why = step.Label() + " may give several records the same key"
			}
		}
	}
	look(shared, j.Transforms)
	look(own, sink.Transforms)
	if why == "" {
		return nil
	}
	return []fault{{path: "sinks." + name + ".kafka.sole_writer",
		message: why + ", and of a compacted topic the message of a key stays that comes last, " +
			"whichever its version; write to a topic that is not compacted"}}
}

// repeats tells why a source may give a key more than once, or older than it is now; "": it does not.
func (s Source) repeats() string {
	switch {
	case s.Cassandra != nil, s.Corpus != nil:
		return ""
	case s.Join != nil:
		return s.Join.Of.repeats()
	case s.Marked != nil:
		return s.Marked.Of.repeats()
	case s.Keys != nil && s.Keys.Of.Marked != nil: // a purge, whose list is its own
		return s.Keys.Of.repeats()
	case s.Letters != nil && s.Letters.Schema == nil:
		return s.Letters.Of.repeats()
	case s.Letters != nil:
		return "records that the queue has kept may be older than what the topic has"
	case s.Deleted != nil:
		return "deleted rows may be older than what the topic has"
	}
	return "a source of kind " + s.kind() + " may hold several records of a key"
}

// rekeys tells whether a step may give two records with different keys the same one.
func rekeys(step transforms.CompiledStep, config json.RawMessage) bool {
	keys := step.In.KeyNames()
	switch step.Name {
	case "filter", "rename", "delete", "set_defaults", "truncate", "route", "nest", "flatten", "redact":
		return false // they leave the key alone, or hash it
	case "project":
		return !slices.Equal(slices.Sorted(slices.Values(keys)), slices.Sorted(slices.Values(step.Out.KeyNames())))
	case "cast", "derive":
		var fields map[string]json.RawMessage
		err := json.Unmarshal(config, &fields)
		return err != nil || slices.ContainsFunc(keys, func(k string) bool { return fields[k] != nil })
	}
	return true // explode, and what a team has made itself
}
