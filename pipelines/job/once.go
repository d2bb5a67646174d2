package job

import (
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
	kept, lost := transforms.KeptKey(shared.In, shared, own)
	key, err := sink.Kafka.KeyFields(own.Out)
	switch {
	case why != "" || err != nil: // err is told where the sink is checked
	case lost != "":
		why = lost + " may give several records the same key"
	case slices.ContainsFunc(append(kept, own.Out.KeyNames()...), func(name string) bool { return !slices.Contains(key, name) }):
		why = "the message's key leaves out fields that tell records apart, so several may have the same key"
	}
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
