package transforms

import (
	"slices"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// FlattenConfig names a field with parts.
type FlattenConfig struct {
	Field  string   `json:"field" jsonschema:"required" jsonschema_description:"The UDT or map."`
	Keys   []string `json:"keys,omitempty" jsonschema_description:"For a map: the keys whose values become fields. They leave the map, which stays with the others."`
	Prefix *string  `json:"prefix,omitempty" jsonschema_description:"What stands before a part's name. Default: FIELD_."`
}

var flatten = builtin(Transform{
	Name: "flatten",
	Summary: "Makes top-level fields of the parts of a UDT, which they replace, or of keys of a map, which keeps the " +
		"others.",
	Config: new(FlattenConfig),
	Example: Example{
		Config:  "flatten: {field: meta}",
		Fields:  []string{"id text", "meta udt<width:int, height:int>"},
		Records: []string{`{"id": "a", "meta": {"width": 640, "height": 480}}`},
	},
	Compile: compileWith(compileFlatten),
})

func compileFlatten(c FlattenConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	i := f.field(in, "field", c.Field)
	if i < 0 {
		return nil, nil, f.err()
	}
	prefix := c.Field + "_"
	if c.Prefix != nil {
		prefix = *c.Prefix
	}
	t := in.Fields[i].Type
	switch {
	case t.Kind == record.UDT && len(c.Keys) > 0:
		f.addf("keys", "%q is a UDT, of which all parts become fields", c.Field)
	case t.Kind == record.UDT && slices.Contains(in.Key, i):
		f.addf("field", "%q is part of the key and must stay", c.Field)
	case t.Kind == record.Map && slices.Contains(in.Key, i):
		f.addf("field", "%q is part of the key and must stay whole", c.Field)
	case t.Kind == record.Map && len(c.Keys) == 0:
		f.addf("keys", "%q is a map: name the keys that become fields", c.Field)
	case t.Kind != record.UDT && t.Kind != record.Map:
		f.addf("field", "%q is a %s; a UDT or map is needed", c.Field, t)
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	if t.Kind == record.Map {
		return flattenMap(&f, in, i, c.Keys, prefix)
	}
	return flattenUDT(&f, in, i, prefix)
}

func flattenUDT(f *faults, in *record.Schema, place int, prefix string) (Step, *record.Schema, error) {
	t := in.Fields[place].Type
	parts := make([]record.Field, len(t.Names))
	for j, name := range t.Names {
		parts[j] = record.Field{Name: prefix + name, Type: t.Elems[j]}
	}
	out := f.schema(slices.Concat(in.Fields[:place], parts, in.Fields[place+1:]), in.KeyNames())
	return Each(func(r *record.Record) error {
		whole := r.Values[place]
		r.Values = spread(r.Values, place, len(parts))
		for j := range parts {
			r.Values[place+j] = partOfUDT(whole, j)
		}
		if r.Cells != nil {
			cell := r.Cells[place]
			r.Cells = spread(r.Cells, place, len(parts))
			for j := range parts {
				r.Cells[place+j] = cell
			}
		}
		r.Schema = out
		return nil
	}), out, f.err()
}

// partOfUDT is a part; of a UDT that is null or unset, each part is too.
func partOfUDT(whole record.Value, j int) record.Value {
	switch {
	case whole.IsNull():
		return whole
	case j < len(whole.Elems()):
		return whole.Elems()[j]
	}
	return record.NullValue
}

// spread makes n places of one.
func spread[T any](s []T, place, n int) []T {
	was := len(s)
	s = resized(s, max(was, was+n-1))
	copy(s[place+n:], s[place+1:was])
	return s[:was+n-1]
}

func flattenMap(f *faults, in *record.Schema, place int, keys []string, prefix string) (Step, *record.Schema, error) {
	t := in.Fields[place].Type
	wanted := make([]record.Value, len(keys))
	fields := slices.Clone(in.Fields)
	for j, key := range keys {
		v, err := record.Parse(t.Elems[0], key)
		if err != nil {
			f.addf("keys", "%v, the type of the map's keys", err)
		}
		wanted[j] = v
		fields = append(fields, record.Field{Name: prefix + key, Type: t.Elems[1]})
	}
	out := f.schema(fields, in.KeyNames())
	return Each(func(r *record.Record) error {
		whole := r.Values[place]
		if len(whole.Elems())%2 != 0 {
			return fail.New(fail.Permanent, "transform.type", "%s is not a whole map", in.Fields[place].Name)
		}
		was := len(r.Values)
		resize(r, len(out.Fields))
		var rest []record.Value
		taken := 0
		for e := 0; e < len(whole.Elems()); e += 2 {
			if j := indexOf(wanted, whole.Elems()[e]); j >= 0 {
				r.Values[was+j] = whole.Elems()[e+1]
				taken++
			}
		}
		if taken > 0 {
			rest = make([]record.Value, 0, len(whole.Elems())-2*taken)
			for e := 0; e < len(whole.Elems()); e += 2 {
				if indexOf(wanted, whole.Elems()[e]) < 0 {
					rest = append(rest, whole.Elems()[e], whole.Elems()[e+1])
				}
			}
			r.Values[place] = record.Nested(record.Map, rest)
		}
		for j := range wanted {
			if r.Values[was+j].Kind() == record.Unset && whole.Kind() != record.Unset {
				r.Values[was+j] = record.NullValue
			}
			if r.Cells != nil {
				r.Cells[was+j] = r.Cells[place]
			}
		}
		r.Schema = out
		return nil
	}), out, f.err()
}

func indexOf(values []record.Value, v record.Value) int {
	return slices.IndexFunc(values, v.Equal)
}
