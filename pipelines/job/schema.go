package job

import (
	"reflect"

	"github.com/invopop/jsonschema"

	"reprise/transforms"
)

// Schema is the JSON Schema of job files, with the transforms that this binary knows. Editors complete with it.
func Schema() *jsonschema.Schema {
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true}
	r.Mapper = func(t reflect.Type) *jsonschema.Schema {
		switch t {
		case reflect.TypeFor[Source]():
			return &jsonschema.Schema{Ref: "#/$defs/source"} // a source may be made of sources
		case reflect.TypeFor[Target]():
			return oneOf(r, t)
		case reflect.TypeFor[transforms.Spec]():
			return transformSchema(r)
		}
		return nil
	}
	s := r.ReflectFromType(reflect.TypeFor[Job]())
	s.Title = "Reprise job"
	s.Definitions = jsonschema.Definitions{"source": oneOf(r, reflect.TypeFor[Source]())}
	sinks, _ := s.Properties.Get("sinks")
	sinks.MinProperties = new(uint64(1))
	queue, _ := s.Properties.Get("dead_letters")
	for _, kind := range []string{"cassandra", "elasticsearch", "http"} { // they cannot hold any record
		queue.Properties.Delete(kind)
	}
	return s
}

// oneOf is an object with exactly one of the properties of a struct.
func oneOf(r *jsonschema.Reflector, t reflect.Type) *jsonschema.Schema {
	plain := *r
	outer := true
	plain.Mapper = func(within reflect.Type) *jsonschema.Schema {
		if outer {
			outer = false
			return nil
		}
		return r.Mapper(within)
	}
	s := plain.ReflectFromType(t)
	s.Version = ""
	s.MinProperties, s.MaxProperties = new(uint64(1)), new(uint64(1))
	return s
}

// transformSchema is an object with the name of one transform and its settings.
func transformSchema(r *jsonschema.Reflector) *jsonschema.Schema {
	s := oneOf(r, reflect.TypeFor[struct{}]())
	s.Properties = jsonschema.NewProperties()
	plain := *r
	plain.Mapper = nil
	for _, t := range transforms.All() {
		config := plain.ReflectFromType(reflect.TypeOf(t.Config).Elem())
		config.Version = ""
		if config.Description == "" {
			config.Description = t.Summary
		}
		s.Properties.Set(t.Name, config)
	}
	return s
}
