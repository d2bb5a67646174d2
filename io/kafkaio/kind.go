package kafkaio

import (
	"slices"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "kafka",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "A topic of Kafka, as far as it goes when the run begins, or on and on.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "A topic of Kafka.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Follows implements connector.Endless.
func (c SourceConfig) Follows() bool { return c.Follow }

// Ended implements connector.Endless.
func (c SourceConfig) Ended() connector.SourceConfig {
	c.Follow, c.Group = false, ""
	return &c
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the topic " + c.Topic }

// ReadBack implements connector.ReadBack.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	if topic, err := connector.ParseTemplate(c.Topic, nil); err != nil || !topic.Fixed() {
		return nil, connector.View{}, connector.NotVerified("its records go to many topics")
	}
	source := c.reader(schema)
	source.IgnoreUnknown = true
	view := connector.View{Versions: true}
	if !c.keyAlone() {
		return source, view, nil
	}
	view.KeysAlone = true
	if c.Value == valueNone && c.keyTemplate() != "{key}" {
		return nil, view, connector.NotVerified("its messages have no values, and their keys are not the records' own")
	}
	source.Fields = nil
	for i, f := range schema.Fields {
		if slices.Contains(schema.Key, i) {
			source.Fields = append(source.Fields, f)
		} else {
			view.Leave = append(view.Leave, f.Name)
		}
	}
	return source, view, nil
}

// ReadQueue implements connector.Queue.
func (c SinkConfig) ReadQueue(_ string, schema *record.Schema) connector.SourceConfig {
	return c.reader(schema)
}

func (c SinkConfig) reader(schema *record.Schema) *SourceConfig {
	return &SourceConfig{Brokers: c.Brokers, Topic: c.Topic, Key: schema.KeyNames(), Format: c.Format,
		Registry: c.Registry, Fields: slices.Clone(schema.Fields), SASL: c.SASL, TLS: c.TLS}
}

// Once implements connector.OnceOnly: of a compacted topic Kafka keeps the message of a key that comes last, and
// readers and writers work side by side.
func (c SinkConfig) Once() string {
	if c.SoleWriter {
		return "sole_writer"
	}
	return ""
}

// KeyFields implements connector.OnceOnly.
func (c SinkConfig) KeyFields(schema *record.Schema) ([]string, error) {
	return connector.TemplateFields(schema, c.keyTemplate())
}
