package job

import (
	"slices"

	"reprise/io/connector"
	"reprise/transforms"
)

// Of a compacted topic Kafka keeps the message of a key that comes last. So a job may write one only if each key comes
// once, as the source has it now: readers and writers work side by side, and of several records of a key the oldest may
// come last.

// onceFaults tells why the keys of a sink that may write compacted topics come more than once.
func (j *Job) onceFaults(name string, shared, own *transforms.Chain) []fault {
	sink, ok := j.Sinks[name].SinkConfig.(connector.OnceOnly)
	if !ok || sink.Once() == "" {
		return nil
	}
	why := j.Source.Repeats()
	kept, lost := transforms.KeptKey(shared.In, shared, own)
	key, err := sink.KeyFields(own.Out)
	switch {
	case why != "" || err != nil: // err is told where the sink is checked
	case lost != "":
		why = lost + " may give several records the same key"
	case slices.ContainsFunc(append(kept, own.Out.KeyNames()...),
		func(name string) bool { return !slices.Contains(key, name) }):
		why = "the message's key leaves out fields that tell records apart, so several may have the same key"
	}
	if why == "" {
		return nil
	}
	return []fault{{path: "sinks." + name + "." + j.Sinks[name].Kind() + "." + sink.Once(),
		message: why + ", and of a compacted topic the message of a key stays that comes last, " +
			"whichever its version; write to a topic that is not compacted"}}
}
