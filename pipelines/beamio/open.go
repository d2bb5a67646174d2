package beamio

import (
	"bytes"
	"encoding/json"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// settings are how a system travels to the workers: a kind of the job file and its settings as JSON, with references
// to secrets.
type settings struct {
	Kind   string
	Config []byte
}

// travelling checks the settings of a system, given by its own type or as JSON, and reads them into those of its kind.
func travelling[T interface{ Validate() []connector.Fault }](kind string, config any, of func(settings) (T, error)) (
	s settings, into T, err error) {
	text, err := json.Marshal(config)
	if err != nil {
		return s, into, fail.Job("beamio.settings", "the settings of %s cannot be written as JSON: %w", kind, err)
	}
	s = settings{Kind: kind, Config: text}
	if into, err = of(s); err != nil {
		return s, into, err
	}
	if files, ok := any(into).(connector.Filer); ok { // they are on this machine alone
		files.Inline()
		if s.Config, err = json.Marshal(into); err != nil {
			return s, into, err
		}
	}
	for _, f := range into.Validate() {
		return s, into, fail.Job("beamio.settings", "%s.%s: %s", kind, f.Path, f.Message)
	}
	return s, into, nil
}

// source are the settings of a source.
func (s settings) source() (connector.SourceConfig, error) {
	k, _ := connector.KindOf(s.Kind)
	if k.Source == nil || k.Internal {
		return nil, s.unknown("source")
	}
	config := k.Source()
	if err := s.decode(config); err != nil {
		return nil, err
	}
	if connector.From(config).Follows() {
		return nil, fail.Job("beamio.follows", "a source of kind %s that goes on has no end, which Read waits for",
			s.Kind).WithFix("leave out follow, or run a job: reprise run")
	}
	return config, nil
}

// sink are the settings of a sink.
func (s settings) sink() (connector.SinkConfig, error) {
	k, _ := connector.KindOf(s.Kind)
	if k.Sink == nil || k.Internal {
		return nil, s.unknown("sink")
	}
	config := k.Sink()
	return config, s.decode(config)
}

func (s settings) unknown(what string) error {
	return fail.Job("beamio.kind", "%q is no kind of %s that this program knows", s.Kind, what).
		WithFix("import its package, such as reprise/io/cassandraio, or all of them: reprise/runners/systems")
}

func (s settings) decode(into any) error {
	strict := json.NewDecoder(bytes.NewReader(s.Config))
	strict.DisallowUnknownFields()
	if err := strict.Decode(into); err != nil {
		return fail.Job("beamio.settings", "%s: %w", s.Kind, err)
	}
	return nil
}
