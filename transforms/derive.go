package transforms

import (
	"encoding/json"
	"slices"

	"github.com/invopop/jsonschema"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// DeriveConfig is the expression of each field.
type DeriveConfig map[string]Derivation

// Derivation is what a field is set to. In a job file it may be the expression alone.
type Derivation struct {
	Value string `json:"value"`
	Type  string `json:"type,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Derivation) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &d.Value) == nil {
		return nil
	}
	type withType Derivation // without this method
	t, err := decode[withType](text)
	*d = Derivation(t)
	return err
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Derivation) JSONSchema() *jsonschema.Schema {
	properties := jsonschema.NewProperties()
	properties.Set("value", &jsonschema.Schema{Type: "string", Description: "CEL expression."})
	properties.Set("type", &jsonschema.Schema{Type: "string",
		Description: "CQL type of a new field, such as date or set<text>. " +
			"Default: what the expression gives (int: bigint, string: text)."})
	return &jsonschema.Schema{Description: "The expression, or with the type:", OneOf: []*jsonschema.Schema{
		{Type: "string", Description: "CEL expression."},
		{Type: "object", Properties: properties, Required: []string{"value"},
			AdditionalProperties: jsonschema.FalseSchema},
	}}
}

var derive = builtin(Transform{
	Name: "derive",
	Summary: "Sets fields, new or existing ones, to the results of CEL expressions. All expressions see the record " +
		"as it enters. Of a delete, only fields of the key are set.",
	Config: new(DeriveConfig),
	Example: Example{
		Config: "derive:\n  month: string(created).substring(0, 7)\n  title: title.trim()\n  day: {value: created, " +
			"type: date}",
		Fields:  []string{"id text", "title text", "created timestamp"},
		Records: []string{`{"id": "a", "title": " Sunset ", "created": "2024-05-01T12:00:00.000Z"}`},
	},
	Compile: compileDerive,
})

type deriveStep struct {
	expressions []*expression
	places      []int
	inKey       []bool
	out         *record.Schema
	values      []record.Value // reused
}

func compileDerive(config json.RawMessage, in *record.Schema, o Options) (Step, *record.Schema, error) {
	list, err := entries(config)
	if err != nil {
		return nil, nil, err
	}
	s, err := newScope(in, o)
	if err != nil {
		return nil, nil, err
	}
	var f faults
	step := &deriveStep{}
	fields := slices.Clone(in.Fields)
	for _, e := range list {
		d, err := decode[Derivation](e.value)
		if err != nil {
			f.addf(e.name, "an expression is needed, or value and type: %s", faultMessage(err))
			continue
		}
		x := s.compile(&f, e.name, d.Value)
		i := in.Index(e.name)
		if x == nil {
			continue
		}
		t, ok := derivedType(&f, in, e.name, d, x)
		if !ok {
			continue
		}
		if i < 0 {
			i = len(fields)
			fields = append(fields, record.Field{Name: e.name})
		}
		fields[i].Type = t
		step.expressions, step.places, step.inKey = append(step.expressions, x), append(step.places, i),
			append(step.inKey, slices.Contains(in.Key, i))
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	step.out = f.schema(fields, in.KeyNames())
	step.values = make([]record.Value, len(step.places))
	return Each(step.apply), step.out, f.err()
}

// derivedType is the type of a field that takes the results of x.
func derivedType(f *faults, in *record.Schema, name string, d Derivation, x *expression) (t record.Type, ok bool) {
	switch i := in.Index(name); {
	case d.Type != "":
		var err error
		if t, err = record.ParseType(d.Type, nil); err != nil {
			f.addf(name, "%s", typeFault(d.Type, err))
			return t, false
		}
	case i >= 0:
		t = in.Fields[i].Type
	default:
		if t, ok = naturalType(x); !ok {
			f.addf(name, "the type of the result is known only at run time; name one: {value: %q, type: text}", d.Value)
			return t, false
		}
	}
	if !assignable(x.out, t) {
		f.addf(name, "the expression gives %s, which does not fit %s; convert it, as in string(x), int(x), double(x) "+
			"or timestamp(x), or name another type", typeName(x.out), t)
		return t, false
	}
	return t, true
}

func (s *deriveStep) apply(r *record.Record) error {
	for i, x := range s.expressions {
		s.values[i] = record.Value{}
		if r.Op == record.Delete && !s.inKey[i] {
			continue
		}
		v, err := x.eval(r)
		if err != nil {
			return err
		}
		if s.values[i], err = fromCEL(v, s.out.Fields[s.places[i]].Type); err != nil {
			return fail.New(fail.Permanent, "transform.type", "%s: %s: %w", s.out.Fields[s.places[i]].Name, x.text, err)
		}
		if s.inKey[i] && s.values[i].IsNull() {
			return fail.New(fail.Permanent, "transform.null_key", "%s, part of the key, would be null: %s",
				s.out.Fields[s.places[i]].Name, x.text)
		}
	}
	resize(r, len(s.out.Fields))
	for i, p := range s.places {
		r.Values[p] = s.values[i]
		if r.Cells != nil {
			r.Cells[p] = derived(r)
		}
	}
	r.Schema = s.out
	return nil
}
