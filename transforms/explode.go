package transforms

import (
	"slices"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// ExplodeConfig names a field with several values.
type ExplodeConfig struct {
	Field     string   `json:"field" jsonschema:"required" jsonschema_description:"The list, set, vector or map, which the new fields replace."`
	As        string   `json:"as,omitempty" jsonschema_description:"The field for each element, or each value of a map. Default: the name of the field itself."`
	KeyAs     string   `json:"key_as,omitempty" jsonschema_description:"The field for each key of a map. Default: FIELD_key."`
	IndexAs   string   `json:"index_as,omitempty" jsonschema_description:"The field (int) for the position, from 0. Default: FIELD_index for lists and vectors; none for sets and maps, whose elements differ anyway."`
	Key       []string `json:"key,omitempty" jsonschema_description:"The fields of the new key, in order. Default: the key, then the position in a list, the element of a set or the key of a map."`
	KeepEmpty bool     `json:"keep_empty,omitempty" jsonschema_description:"Keep a record without elements, with null in their place and position 0. Default: it is filtered."`
}

var explode = builtin(Transform{
	Name: "explode",
	Summary: "Makes one record of each element of a list, set, vector or map. Each has a key of its own. " +
		"A delete is a dead letter: the elements that it had are not known.",
	Config: new(ExplodeConfig),
	Example: Example{
		Config:  "explode: {field: tags, as: tag}",
		Fields:  []string{"id text", "title text", "tags set<text>"},
		Records: []string{`{"id": "a", "title": "Sunset", "tags": ["hero", "web"]}`, `{"id": "b", "title": "Dawn"}`},
	},
	Compile: compileWith(compileExplode),
})

type explodeStep struct {
	field, key, index int // places; key and index -1: none
	stride            int // 2 for a map
	keepEmpty         bool
	inKey             []int // new parts of the key
	out               *record.Schema
}

func compileExplode(c ExplodeConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	i := f.field(in, "field", c.Field)
	if i < 0 {
		return nil, nil, f.err()
	}
	s := explodeStep{field: i, key: -1, index: -1, stride: 1, keepEmpty: c.KeepEmpty}
	t := in.Fields[i].Type
	if c.As == "" {
		c.As = c.Field
	}
	fields := slices.Clone(in.Fields)
	unique := c.As // what tells the elements of one record apart
	switch t.Kind {
	case record.List, record.Vector:
		if c.IndexAs == "" {
			c.IndexAs = c.Field + "_index"
		}
		unique = c.IndexAs
		fields[i] = record.Field{Name: c.As, Type: t.Elems[0]}
	case record.Set:
		fields[i] = record.Field{Name: c.As, Type: t.Elems[0]}
	case record.Map:
		if c.KeyAs == "" {
			c.KeyAs = c.Field + "_key"
		}
		unique = c.KeyAs
		s.stride, s.key = 2, len(fields)
		fields[i] = record.Field{Name: c.As, Type: t.Elems[1]}
		fields = append(fields, record.Field{Name: c.KeyAs, Type: t.Elems[0]})
	default:
		f.addf("field", "%q is a %s; a list, set, vector or map is needed", c.Field, t)
		return nil, nil, f.err()
	}
	if c.KeyAs != "" && t.Kind != record.Map {
		f.addf("key_as", "only a map has keys; %q is a %s", c.Field, t)
	}
	if c.IndexAs != "" {
		s.index = len(fields)
		fields = append(fields, record.Field{Name: c.IndexAs, Type: record.Of(record.Int)})
	}
	if slices.Contains(in.Key, i) && len(c.Key) == 0 {
		f.addf("field", "%q is part of the key; name a new key", c.Field)
	}
	key := c.Key
	if len(key) == 0 {
		key = append(in.KeyNames(), unique)
	}
	s.out = f.schema(fields, key)
	if f.err() != nil {
		return nil, nil, f.err()
	}
	if !slices.Contains(key, unique) && (c.IndexAs == "" || !slices.Contains(key, c.IndexAs)) {
		f.addf("key", "%q is needed in the key (%s): else the records made of one would overwrite each other", unique,
			strings.Join(key, ", "))
	}
	for _, k := range s.out.Key {
		if c.KeepEmpty && (k == s.field || k == s.key) {
			f.addf("keep_empty", "%q would be null, but is part of the key (%s); name a position with index_as and "+
				"use that in key", s.out.Fields[k].Name, strings.Join(key, ", "))
		}
		if !slices.Contains(in.Key, k) || k == s.field {
			s.inKey = append(s.inKey, k)
		}
	}
	return &s, s.out, f.err()
}

// Apply implements Step.
func (s *explodeStep) Apply(r *record.Record, emit func(*record.Record)) error {
	if r.Op == record.Delete {
		return fail.New(fail.Permanent, "transform.explode_delete",
			"a delete of the whole record cannot be exploded: its elements are not known").
			WithFix("delete at the target by the old key")
	}
	elems := r.Values[s.field].Elems()
	n := len(elems) / s.stride
	if n == 0 && !s.keepEmpty {
		return nil
	}
	if err := s.checkKey(r, elems); err != nil {
		return err
	}
	if n == 0 {
		emit(s.part(r, record.NullValue, record.NullValue, 0))
	}
	for i := range n {
		key, value := record.Value{}, elems[i*s.stride]
		if s.stride == 2 {
			key, value = value, elems[i*2+1]
		}
		emit(s.part(r, key, value, i))
	}
	return nil
}

// checkKey finds parts of the new key that are null, before anything is emitted.
func (s *explodeStep) checkKey(r *record.Record, elems []record.Value) error {
	for _, k := range s.inKey {
		null := false
		switch k {
		case s.index:
		case s.field:
			for i := s.stride - 1; i < len(elems); i += s.stride {
				null = null || elems[i].IsNull()
			}
		case s.key:
			for i := 0; i < len(elems); i += s.stride {
				null = null || elems[i].IsNull()
			}
		default:
			null = r.Values[k].IsNull()
		}
		if null {
			return fail.New(fail.Permanent, "transform.null_key", "%q, part of the new key, would be null",
				s.out.Fields[k].Name)
		}
	}
	return nil
}

// part is the record for one element.
func (s *explodeStep) part(r *record.Record, key, value record.Value, i int) *record.Record {
	p := *r
	p.Schema = s.out
	p.Values = append(make([]record.Value, 0, len(s.out.Fields)), r.Values...)[:len(s.out.Fields)]
	p.Values[s.field] = value
	if s.key >= 0 {
		p.Values[s.key] = key
	}
	if s.index >= 0 {
		p.Values[s.index] = record.Number(record.Int, int64(i))
	}
	if r.Cells != nil {
		p.Cells = append(make([]record.Cell, 0, len(s.out.Fields)), r.Cells...)[:len(s.out.Fields)]
		for j := len(r.Cells); j < len(p.Cells); j++ {
			p.Cells[j] = r.Cells[s.field]
		}
	}
	return &p
}
