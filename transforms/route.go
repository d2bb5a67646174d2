package transforms

import (
	"slices"
	"strconv"

	"reprise/transforms/record"
)

// RouteConfig is a field and the values that it gets.
type RouteConfig struct {
	Field   string      `json:"field" jsonschema:"required" jsonschema_description:"The text field that is written, new or existing; sinks use it in templates, such as index: assets-{route}."`
	Cases   []RouteCase `json:"cases" jsonschema:"required,minItems=1" jsonschema_description:"The first case whose condition holds gives the value."`
	Default *string     `json:"default,omitempty" jsonschema_description:"The value where no condition holds. Default: null."`
}

// RouteCase is a condition with its value.
type RouteCase struct {
	When  string `json:"when" jsonschema:"required" jsonschema_description:"CEL condition."`
	Value string `json:"value" jsonschema:"required" jsonschema_description:"What the field becomes."`
}

var route = builtin(Transform{
	Name: "route",
	Summary: "Writes a text field by the first condition that holds. A delete is routed as well, as far as " +
		"conditions read nothing but the key, or _op.",
	Config: new(RouteConfig),
	Example: Example{
		Config: "route:\n  field: tier\n  cases:\n    - {when: size > 1000000, value: large}\n    - {when: size > " +
			"1000, value: medium}\n  default: small",
		Fields:  []string{"id text", "size bigint"},
		Records: []string{`{"id": "a", "size": 5000}`, `{"id": "b", "size": 1}`},
	},
	Compile: compileWith(compileRoute),
})

type routeStep struct {
	conditions []*expression
	values     []record.Value // of the conditions, then the default
	place      int
	out        *record.Schema
}

func compileRoute(c RouteConfig, in *record.Schema, o Options) (Step, *record.Schema, error) {
	scope, err := newScope(in, o)
	if err != nil {
		return nil, nil, err
	}
	var f faults
	s := &routeStep{place: in.Index(c.Field)}
	fields := slices.Clone(in.Fields)
	switch {
	case c.Field == "":
		f.addf("field", "the name of the field is needed")
	case s.place < 0:
		s.place = len(fields)
		fields = append(fields, record.Field{Name: c.Field, Type: record.Of(record.Text)})
	case slices.Contains(in.Key, s.place):
		f.addf("field", "%q is part of the key", c.Field)
	case fields[s.place].Type.Kind != record.Text:
		f.addf("field", "%q is a %s; a text is needed", c.Field, fields[s.place].Type)
	}
	if len(c.Cases) == 0 {
		f.addf("cases", "at least one case is needed")
	}
	for i, one := range c.Cases {
		s.conditions = append(s.conditions, scope.condition(&f, "cases."+strconv.Itoa(i)+".when", one.When))
		s.values = append(s.values, record.String(one.Value))
	}
	if c.Default != nil {
		s.values = append(s.values, record.String(*c.Default))
	} else {
		s.values = append(s.values, record.NullValue)
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	s.out = f.schema(fields, in.KeyNames())
	return Each(s.apply), s.out, f.err()
}

func (s *routeStep) apply(r *record.Record) error {
	value := s.values[len(s.conditions)]
	for i, x := range s.conditions {
		if r.Op == record.Delete && !x.keyOnly {
			value = record.Value{}
			break
		}
		holds, err := x.holds(r)
		if err != nil {
			return err
		}
		if holds {
			value = s.values[i]
			break
		}
	}
	if r.Op == record.Delete && value.IsNull() {
		value = record.Value{}
	}
	resize(r, len(s.out.Fields))
	r.Values[s.place] = value
	if r.Cells != nil {
		r.Cells[s.place] = derived(r)
	}
	r.Schema = s.out
	return nil
}
