package job

import (
	"reflect"

	"github.com/invopop/jsonschema"

	"reprise/io/connector"
	"reprise/transforms"
)

// Schema is the JSON Schema of job files, with the kinds and transforms that this binary knows. Editors complete with
// it.
func Schema() *jsonschema.Schema {
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true}
	r.Mapper = func(t reflect.Type) *jsonschema.Schema {
		switch t {
		case reflect.TypeFor[connector.SourceSpec]():
			return &jsonschema.Schema{Ref: "#/$defs/source"} // a source may be made of sources
		case reflect.TypeFor[connector.SinkSpec]():
			return one(queueSchema(r)) // only dead letters stand so
		case reflect.TypeFor[Sink]():
			return sinkSchema(r)
		case reflect.TypeFor[transforms.Spec]():
			return transformSchema(r)
		}
		return nil
	}
	s := r.ReflectFromType(reflect.TypeFor[Job]())
	s.Title = "Reprise job"
	s.Definitions = jsonschema.Definitions{"source": one(sourceSchema(r))}
	sinks, _ := s.Properties.Get("sinks")
	sinks.MinProperties = new(uint64(1))
	return s
}

// one is an object with exactly one of its properties.
func one(s *jsonschema.Schema) *jsonschema.Schema {
	s.MinProperties, s.MaxProperties = new(uint64(1)), new(uint64(1))
	return s
}

// object is an object without properties, and without any others.
func object(r *jsonschema.Reflector) *jsonschema.Schema {
	s := r.ReflectFromType(reflect.TypeFor[struct{}]())
	s.Version, s.Properties = "", jsonschema.NewProperties()
	return s
}

// add describes settings as a property.
func add(s *jsonschema.Schema, r *jsonschema.Reflector, name string, settings any, doc string) {
	config := r.ReflectFromType(reflect.TypeOf(settings).Elem())
	config.Version = ""
	if config.Description == "" {
		config.Description = doc
	}
	s.Properties.Set(name, config)
}

func sourceSchema(r *jsonschema.Reflector) *jsonschema.Schema {
	s := object(r)
	for _, k := range connector.Kinds() {
		if k.Source != nil {
			add(s, r, k.Name, k.Source(), k.SourceDoc)
		}
	}
	return s
}

func queueSchema(r *jsonschema.Reflector) *jsonschema.Schema {
	s := object(r)
	for _, k := range connector.Kinds() {
		if holdsLetters(k) {
			add(s, r, k.Name, k.Sink(), k.SinkDoc)
		}
	}
	return s
}

// sinkSchema is an object with a kind of sink and the settings of its route.
func sinkSchema(r *jsonschema.Reflector) *jsonschema.Schema {
	s := object(r)
	for _, k := range connector.Kinds() {
		if k.Sink != nil {
			add(s, r, k.Name, k.Sink(), k.SinkDoc)
		}
	}
	route := r.ReflectFromType(reflect.TypeFor[Route]())
	for p := route.Properties.Oldest(); p != nil; p = p.Next() {
		s.Properties.Set(p.Key, p.Value)
	}
	return s
}

// transformSchema is an object with the name of one transform and its settings.
func transformSchema(r *jsonschema.Reflector) *jsonschema.Schema {
	plain := *r
	plain.Mapper = nil
	s := object(&plain)
	for _, t := range transforms.All() {
		add(s, &plain, t.Name, t.Config, t.Summary)
	}
	return one(s)
}
