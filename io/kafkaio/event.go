package kafkaio

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/IBM/sarama"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What value may be besides the row, which is the default.
const (
	valueKey  = "key"
	valueNone = "none"
)

// keyAlone tells whether messages hold nothing of a record but its key.
func (c SinkConfig) keyAlone() bool { return c.Value == valueKey || c.Value == valueNone }

// Reduced implements connector.Reduced.
func (c SinkConfig) Reduced() string {
	if c.keyAlone() {
		return "value"
	}
	return ""
}

// validateEvents finds what does not go together with what messages hold.
func (c SinkConfig) validateEvents() (faults []connector.Fault) {
	if _, err := connector.ParseTemplate(c.Processor, nil); err != nil {
		faults = append(faults, connector.Faultf("processor", "%v", err))
	}
	if c.Value != valueNone {
		return faults
	}
	const removed = "compaction takes a message without a value for a delete, and removes the key; use value: key"
	if c.SoleWriter {
		faults = append(faults, connector.Faultf("sole_writer", "%s", removed))
	}
	if c.Create != nil && strings.Contains(c.Create.settings()[cleanupPolicy], compacted) {
		faults = append(faults, connector.Faultf("create.config."+cleanupPolicy, "%s", removed))
	}
	if c.Format != "" {
		faults = append(faults, connector.Faultf("format", "there is no value that could have one; leave it out"))
	}
	if c.Registry != nil {
		faults = append(faults,
			connector.Faultf("registry", "there is no value that could have a schema; leave it out"))
	}
	return faults
}

// mayLackValues refuses a topic from which Kafka removes what has no value.
func mayLackValues(name string, d description) error {
	const otherwise = "or give the messages a value: value: key"
	switch {
	case d.policy == "":
		return fail.Job("kafka.policy_unknown", "this user may not see whether the topic %s is compacted, and from a "+
			"compacted topic Kafka removes a key whose last message has no value", name).
			WithFix("allow the user DESCRIBE_CONFIGS on the topic, %s", otherwise)
	case strings.Contains(d.policy, compacted):
		return fail.Job("kafka.compacted", "the topic %s is compacted (%s=%s): a message without a value is a delete "+
			"there, and Kafka removes it with all others of its key", name, cleanupPolicy, d.policy).
			WithFix("write to a topic with %s=delete, %s", cleanupPolicy, otherwise)
	}
	return nil
}

// keysOf is a schema's key without its other fields.
func keysOf(schema *record.Schema) (*record.Schema, error) {
	fields := make([]record.Field, len(schema.Key))
	for i, k := range schema.Key {
		fields[i] = schema.Fields[k]
	}
	return record.NewSchema(fields, schema.KeyNames()...)
}

// checkKey refuses a message's key that does not tell which record it is of, where nothing else does.
func (c SinkConfig) checkKey(schema *record.Schema) error {
	if c.Value != valueNone {
		return nil
	}
	names, err := c.KeyFields(schema)
	if err != nil {
		return err
	}
	for _, name := range schema.KeyNames() {
		if !slices.Contains(names, name) {
			return fail.Job("kafka.key", "with value: none the key %s is all that tells of which record a message is, "+
				"and it lacks %s", c.Key, name).
				WithFix("leave key out, so that it is the record's, or set value: key")
		}
	}
	return nil
}

// content is the part of a record that goes to the value.
func (e *encoder) content(r *record.Record) *record.Record {
	if e.keys == nil {
		return r
	}
	values := make([]record.Value, len(r.Schema.Key))
	for i, k := range r.Schema.Key {
		values[i] = r.Values[k]
	}
	return &record.Record{Schema: e.keys, Values: values}
}

func (e *encoder) appendProcessor(b []byte, r *record.Record) ([]byte, error) {
	if e.processor == nil {
		return b, nil
	}
	from := len(b)
	b, err := e.processor.Append(b, r)
	switch {
	case err != nil:
		return b, fail.New(fail.Permanent, "kafka.processor", "%w", err)
	case len(b) == from:
		return b, fail.New(fail.Permanent, "kafka.processor", "the header processor would be empty")
	}
	return b, nil
}

// readKey makes a record of a message that has no value. The sink's op header tells an event that carries a key alone
// from a tombstone; who writes no such header writes tombstones.
func (p *pager) readKey(r *record.Record, m *sarama.ConsumerMessage) (err error) {
	what := "a message without a value"
	if r.Op = opOf(m); r.Op == record.Delete {
		what = "a tombstone"
	}
	if m.Key == nil || !utf8.Valid(m.Key) {
		return unreadable("key", "%s with the key %.60q", what, m.Key)
	}
	if r.Values, err = p.schema.ParseKey(string(m.Key)); err != nil {
		return unreadable("key", "%s: %w", what, err)
	}
	return nil
}

// opOf is what a message without a value does.
func opOf(m *sarama.ConsumerMessage) record.Op {
	op := record.Delete
	for _, h := range m.Headers {
		if string(h.Key) == "op" {
			if op = record.Delete; string(h.Value) == string(upsert) {
				op = record.Upsert
			}
		}
	}
	return op
}

// keyAlone tells whether a message says that it holds a record's key alone. A delete needs no more.
func keyAlone(m *sarama.ConsumerMessage) bool {
	alone := m.Value == nil && opOf(m) == record.Upsert
	for _, h := range m.Headers {
		alone = alone || string(h.Key) == headerValue && string(h.Value) == valueKey && m.Value != nil
	}
	return alone
}
