package httpio

import (
	"reprise/io/connector"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "http",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "A service that finds rows by their keys over HTTP: the table of a join.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "A service that starts a workflow for each record, by one HTTP request.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the service at " + c.URL }

// Triggers implements connector.Trigger.
func (SinkConfig) Triggers() {}

// OnlyFinds implements connector.Lookup.
func (SourceConfig) OnlyFinds() {}
