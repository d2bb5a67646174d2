package kafkaio

import (
	"slices"

	"github.com/IBM/sarama"
)

// headerProcessor tells which processor an event is for.
const headerProcessor = "processor"

// takes tells whether a message is for the processor that reads. One for a processor that nobody knows is an error: no
// other reader would take it either.
func (c SourceConfig) takes(m *sarama.ConsumerMessage) (bool, error) {
	if c.Processor == "" {
		return true, nil
	}
	for _, h := range m.Headers {
		if string(h.Key) != headerProcessor {
			continue
		}
		switch name := string(h.Value); {
		case name == c.Processor:
			return true, nil
		case slices.Contains(c.Others, name):
			return false, nil
		default:
			return false, unreadable("processor", "it is for the processor %.60q, which is neither %s nor among others",
				name, c.Processor)
		}
	}
	return false, unreadable("processor", "it has no header processor")
}
