package corpusio

import (
	"reprise/io/connector"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "corpus",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "The seeded corpus of test assets.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Repeats implements connector.Unique.
func (SourceConfig) Repeats() string { return "" }
