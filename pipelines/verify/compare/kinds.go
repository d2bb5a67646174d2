package compare

import (
	"time"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{Name: "indexed", Internal: true,
		Source: func() connector.SourceConfig { return new(IndexedConfig) }})
	connector.Register(connector.Kind{Name: "check", Internal: true,
		Sink: func() connector.SinkConfig { return new(CheckConfig) }})
}

// IndexedConfig are the settings of the index of a source that cannot find rows by key.
type IndexedConfig struct {
	File string `json:"file"`
}

// Validate implements connector.SourceConfig.
func (IndexedConfig) Validate() []connector.Fault { return nil }

// Open implements connector.SourceConfig.
func (i IndexedConfig) Open(connector.Need) (connector.Source, error) { return OpenIndex(i.File), nil }

// CheckConfig are the settings of the sinks of a verification, which write nothing to any system.
type CheckConfig struct {
	// Where rows of the target are found; nil: its keys are only counted.
	Target *connector.SourceSpec `json:"target,omitempty"`
	View   connector.View        `json:"view,omitzero"`
	Config Config                `json:"config,omitzero"`
	Source []byte                `json:"source,omitempty"` // schema of the job's source, by record.Schema's MarshalBinary
	Extras *ExtrasConfig         `json:"extras,omitempty"` // from target to source; nil: from source to target

	// Index of the keys that the job would write: from target to source without Extras.
	Expected string   `json:"expected,omitempty"`
	Segments []uint16 `json:"segments,omitempty"` // of the keys that are looked at
}

// ExtrasConfig is what the direction from target to source needs.
type ExtrasConfig struct {
	Source     connector.SourceSpec `json:"source"` // where rows of the job's source are found
	Transforms []transforms.Spec    `json:"transforms,omitempty"`
	Sink       Own                  `json:"sink"`
	Started    time.Time            `json:"started"`
	Inverse    []string             `json:"inverse"` // fields of the target that hold the source's key
}

// Own are the condition and the transforms of one sink.
type Own struct {
	When       string            `json:"when,omitempty"`
	Transforms []transforms.Spec `json:"transforms,omitempty"`
}

// Validate implements connector.SinkConfig.
func (CheckConfig) Validate() []connector.Fault { return nil }

// Place implements connector.SinkConfig.
func (CheckConfig) Place() string { return "" }

// Open implements connector.SinkConfig.
func (c CheckConfig) Open() (connector.Sink, error) {
	if c.Expected != "" {
		return NewUnexpected(OpenIndex(c.Expected), c.Segments), nil
	}
	if c.Target == nil {
		return NewTally(), nil
	}
	target, err := c.Target.Finder(connector.Need{})
	if err != nil {
		return nil, err
	}
	schema, err := record.UnmarshalSchema(c.Source)
	if err != nil {
		return nil, err
	}
	if c.Extras == nil {
		return NewCheck(target, c.View, c.Config, schema), nil
	}
	source, err := c.Extras.Source.Finder(connector.Need{})
	if err != nil {
		return nil, err
	}
	o := transforms.Options{Now: c.Extras.Started}
	shared, err := transforms.Compile(c.Extras.Transforms, schema, o)
	if err != nil {
		return nil, err
	}
	own, err := transforms.CompileWhen(c.Extras.Sink.When, c.Extras.Sink.Transforms, shared.Out, o)
	if err != nil {
		return nil, err
	}
	sides := &Sides{Source: source, Shared: shared, Own: own, Target: target, View: c.View, Config: c.Config}
	return NewExtras(sides, c.Extras.Inverse, c.Segments), nil
}
