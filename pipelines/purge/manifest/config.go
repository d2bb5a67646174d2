package manifest

import (
	"fmt"

	"reprise/io/connector"
)

func init() {
	connector.Register(connector.Kind{Name: "marked", Internal: true,
		Source: func() connector.SourceConfig { return new(MarkedConfig) }})
	connector.Register(connector.Kind{Name: "deleted", Internal: true,
		Source: func() connector.SourceConfig { return new(DeletedConfig) }})
}

// MarkedConfig are the settings of rows that hold themselves: the source of a purge.
type MarkedConfig struct {
	Of connector.SourceSpec `json:"of"`
}

// DeletedConfig are the settings of the rows of a manifest of which Of has none any more: the source of a restore.
type DeletedConfig struct {
	From connector.SourceSpec `json:"from"`
	Of   connector.SourceSpec `json:"of"`
}

// Validate implements connector.SourceConfig.
func (MarkedConfig) Validate() []connector.Fault { return nil }

// Validate implements connector.SourceConfig.
func (DeletedConfig) Validate() []connector.Fault { return nil }

// Open implements connector.SourceConfig.
func (m MarkedConfig) Open(need connector.Need) (connector.Source, error) {
	of, err := m.Of.Open(need)
	if err != nil {
		return nil, err
	}
	return NewMarked(of), nil
}

// Open implements connector.SourceConfig.
func (d DeletedConfig) Open(need connector.Need) (connector.Source, error) {
	from, err := d.From.Open(connector.Need{Run: need.Run, PageRows: need.Page(100)})
	if err != nil {
		return nil, err
	}
	of, err := d.Of.Open(need)
	if err != nil {
		return nil, err
	}
	finder, ok := of.(connector.Finder)
	if !ok {
		return nil, fmt.Errorf("the source cannot find single rows by their keys")
	}
	return NewDeleted(from, finder, need.Floor), nil
}

// WriteTimes implements connector.WriteTimer.
func (m MarkedConfig) WriteTimes() bool { return m.Of.WriteTimes() }

// WriteTimes implements connector.WriteTimer.
func (d DeletedConfig) WriteTimes() bool { return d.Of.WriteTimes() }

// Repeats implements connector.Unique.
func (m MarkedConfig) Repeats() string { return m.Of.Repeats() }

// Repeats implements connector.Unique.
func (DeletedConfig) Repeats() string { return "deleted rows may be older than what the topic has" }

// Listed implements connector.Lister.
func (m MarkedConfig) Listed() bool { return m.Of.Listed() }

// Listed implements connector.Lister.
func (DeletedConfig) Listed() bool { return true }
