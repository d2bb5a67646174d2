package beamio

import (
	"bytes"
	"encoding/json"
	"reflect"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
)

// settings are how a system travels to the workers: a kind of the job file and its settings as JSON, with references
// to secrets.
type settings struct {
	Kind   string
	Config []byte
}

// travelling checks the settings of a system, given by its own type or as JSON. into is a job.Source or a job.Target.
func travelling[T job.Source | job.Target](kind string, config any) (s settings, into T, err error) {
	text, err := json.Marshal(config)
	if err != nil {
		return s, into, fail.Job("beamio.settings", "the settings of %s cannot be written as JSON: %w", kind, err)
	}
	s = settings{Kind: kind, Config: text}
	if into, err = decode[T](s); err != nil {
		return s, into, err
	}
	system, ok := field(reflect.ValueOf(&into).Elem()).(interface{ Validate() []connector.Fault })
	if !ok {
		return s, into, fail.Job("beamio.kind", "%q is no kind of system that can stand here", kind).
			WithFix("name one as a job file does, such as cassandra, elasticsearch, files, iceberg or kafka")
	}
	if files, ok := system.(interface{ Inline() }); ok { // they are on this machine alone
		files.Inline()
		if s.Config, err = json.Marshal(system); err != nil {
			return s, into, err
		}
	}
	for _, f := range system.Validate() {
		return s, into, fail.Job("beamio.settings", "%s.%s: %s", kind, f.Path, f.Message)
	}
	return s, into, nil
}

func decode[T job.Source | job.Target](s settings) (into T, err error) {
	text, err := json.Marshal(map[string]json.RawMessage{s.Kind: s.Config})
	if err != nil {
		return into, err
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&into); err != nil {
		return into, fail.Job("beamio.settings", "%s: %w", s.Kind, err)
	}
	return into, nil
}

// field is the one pointer of a struct that is not nil.
func field(of reflect.Value) any {
	for i := range of.NumField() {
		if f := of.Field(i); !f.IsNil() {
			return f.Interface()
		}
	}
	return nil
}

func (s settings) source(need connector.Need) (connector.Source, error) {
	from, err := decode[job.Source](s)
	if err != nil {
		return nil, err
	}
	return from.Open(need)
}

func (s settings) sink() (connector.Sink, error) {
	to, err := decode[job.Target](s)
	if err != nil {
		return nil, err
	}
	return to.Open()
}
