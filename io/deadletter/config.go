package deadletter

import (
	"fmt"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{Name: "letters", Internal: true,
		Source: func() connector.SourceConfig { return new(LettersConfig) }})
}

// LettersConfig are the settings of what a redrive reads: the rows of dead letters, or the records that the queue has
// kept of them. Which letters, the journal tells.
type LettersConfig struct {
	Journal journal.Config       `json:"journal"`
	Max     int                  `json:"max"`              // letters that failed so often are parked
	Of      connector.SourceSpec `json:"of"`               // where the rows are; with Schema, the queue
	Schema  []byte               `json:"schema,omitempty"` // of kept records, by record.Schema's MarshalBinary; nil: rows
}

// Of is what a redrive reads; nil: the source is none of a redrive.
func Of(s connector.SourceSpec) *LettersConfig {
	l, _ := s.SourceConfig.(*LettersConfig)
	return l
}

// Validate implements connector.SourceConfig.
func (LettersConfig) Validate() []connector.Fault { return nil }

// Open implements connector.SourceConfig.
func (l LettersConfig) Open(need connector.Need) (connector.Source, error) {
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
func (l LettersConfig) WriteTimes() bool { return l.Schema == nil && l.Of.WriteTimes() }

// Repeats implements connector.Unique.
func (l LettersConfig) Repeats() string {
	if l.Schema == nil {
		return l.Of.Repeats()
	}
	return "records that the queue has kept may be older than what the topic has"
}
