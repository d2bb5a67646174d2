package letters

import (
	"fmt"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{Name: "letters", Internal: true,
		Source: func() connector.SourceConfig { return new(Config) }})
}

// Config are the settings of what a redrive reads: the rows of dead letters, or the records that the queue has kept of
// them. Which letters, the journal tells.
type Config struct {
	Journal journal.Config       `json:"journal"`
	Max     int                  `json:"max"`              // letters that failed so often are parked
	Of      connector.SourceSpec `json:"of"`               // where the rows are; with Schema, the queue
	Schema  []byte               `json:"schema,omitempty"` // of kept records, by record.Schema's MarshalBinary; nil: rows
}

// Of is what a redrive reads; nil: the source is none of a redrive.
func Of(s connector.SourceSpec) *Config {
	l, _ := s.SourceConfig.(*Config)
	return l
}

// Validate implements connector.SourceConfig.
func (Config) Validate() []connector.Fault { return nil }

// Open implements connector.SourceConfig.
func (l Config) Open(need connector.Need) (connector.Source, error) {
	of, err := l.Of.Open(need)
	if err != nil {
		return nil, err
	}
	if l.Schema == nil {
		return NewRows(l.Journal, of, need), nil
	}
	schema, err := record.UnmarshalSchema(l.Schema)
	if err != nil {
		return nil, fmt.Errorf("the schema of kept records: %w", err)
	}
	return NewKept(l.Journal, of, schema, need), nil
}

// WriteTimes implements connector.WriteTimer.
func (l Config) WriteTimes() bool { return l.Schema == nil && l.Of.WriteTimes() }

// Repeats implements connector.Unique.
func (l Config) Repeats() string {
	if l.Schema == nil {
		return l.Of.Repeats()
	}
	return "records that the queue has kept may be older than what the topic has"
}
