package transforms

import (
	"fmt"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// NestConfig names fields that become parts of one.
type NestConfig struct {
	Into   string   `json:"into" jsonschema:"required" jsonschema_description:"The new field, where the first of the fields stood."`
	Fields []string `json:"fields,omitempty" jsonschema_description:"The fields that become its parts. Default: all whose names begin with the prefix."`
	Prefix *string  `json:"prefix,omitempty" jsonschema_description:"What is taken off the fields' names to name the parts. Default: INTO_."`
	As     string   `json:"as,omitempty" jsonschema:"enum=udt,enum=map" jsonschema_description:"udt, or map (text to the one type that all the fields have, those without a value left out). Default: udt."`
}

var nest = builtin(Transform{
	Name:    "nest",
	Summary: "Puts fields together into one UDT or map; the reverse of flatten.",
	Config:  new(NestConfig),
	Example: Example{
		Config:  "nest: {into: meta}",
		Fields:  []string{"id text", "meta_width int", "meta_height int"},
		Records: []string{`{"id": "a", "meta_width": 640, "meta_height": 480}`},
	},
	Compile: compileWith(compileNest),
})

type nestStep struct {
	places []int // of the parts
	stays  []int // places of the fields before and after, in order; -1: the new field
	names  []record.Value
	kind   record.Kind
	out    *record.Schema
}

func compileNest(c NestConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	prefix := c.Into + "_"
	if c.Prefix != nil {
		prefix = *c.Prefix
	}
	if c.Into == "" {
		f.addf("into", "the name of the new field is needed")
	}
	if c.As != "" && c.As != "udt" && c.As != "map" {
		f.addf("as", "%q is neither udt nor map", c.As)
	}
	if len(c.Fields) == 0 && prefix != "" {
		for _, field := range in.Fields {
			if strings.HasPrefix(field.Name, prefix) {
				c.Fields = append(c.Fields, field.Name)
			}
		}
		if len(c.Fields) == 0 {
			f.addf("fields", "no field begins with %q; there are %s", prefix, strings.Join(in.Names(), ", "))
			return nil, nil, f.err()
		}
	}
	s := nestStep{kind: record.UDT}
	s.places = f.fields(in, "fields", c.Fields)
	var parts []record.Field
	for _, p := range s.places {
		if slices.Contains(in.Key, p) {
			f.addf("fields", "%q is part of the key and must stay", in.Fields[p].Name)
		}
		part := record.Field{Name: strings.TrimPrefix(in.Fields[p].Name, prefix), Type: in.Fields[p].Type}
		if slices.ContainsFunc(parts, func(other record.Field) bool { return other.Name == part.Name }) ||
			part.Name == "" {
			f.addf("fields", "%q gives no part of its own", in.Fields[p].Name)
		}
		parts = append(parts, part)
		s.names = append(s.names, record.String(part.Name))
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	t := record.UDTOf(c.Into, parts...)
	if c.As == "map" {
		s.kind, t = record.Map, record.MapOf(record.Of(record.Text), parts[0].Type)
		for _, p := range parts {
			if !p.Type.Same(parts[0].Type) {
				f.addf("as", "a map has values of one type, but %s; cast them, or nest as udt",
					fmt.Sprintf("%q is a %s and %q a %s", parts[0].Name, parts[0].Type, p.Name, p.Type))
				break
			}
		}
	}
	t.Frozen = true
	var fields []record.Field
	for i, field := range in.Fields {
		switch {
		case !slices.Contains(s.places, i):
			fields, s.stays = append(fields, field), append(s.stays, i)
		case i == slices.Min(s.places):
			fields, s.stays = append(fields, record.Field{Name: c.Into, Type: t}), append(s.stays, -1)
		}
	}
	s.out = f.schema(fields, in.KeyNames())
	return Each(s.apply), s.out, f.err()
}

func (s *nestStep) apply(r *record.Record) error {
	value, cell := s.value(r), s.cell(r)
	for to, from := range s.stays {
		if from < 0 {
			r.Values[to] = value
		} else {
			r.Values[to] = r.Values[from]
		}
		if r.Cells == nil {
			continue
		}
		if from < 0 {
			r.Cells[to] = cell
		} else {
			r.Cells[to] = r.Cells[from]
		}
	}
	resize(r, len(s.stays))
	r.Schema = s.out
	return nil
}

// value is the new field; it is unset where all parts are, and null where all are null or unset.
func (s *nestStep) value(r *record.Record) record.Value {
	unset, null := true, true
	for _, p := range s.places {
		unset = unset && r.Values[p].Kind() == record.Unset
		null = null && r.Values[p].IsNull()
	}
	switch {
	case unset:
		return record.Value{}
	case null:
		return record.NullValue
	}
	var parts []record.Value
	for i, p := range s.places {
		v := r.Values[p]
		if s.kind == record.Map {
			if !v.IsNull() {
				parts = append(parts, s.names[i], v)
			}
			continue
		}
		if v.IsNull() {
			v = record.NullValue
		}
		parts = append(parts, v)
	}
	return record.Nested(s.kind, parts)
}

// cell is as new as the newest part and expires with the first.
func (s *nestStep) cell(r *record.Record) record.Cell {
	var c record.Cell
	if r.Cells == nil {
		return c
	}
	for _, p := range s.places {
		part := r.Cells[p]
		c.Version = max(c.Version, part.Version)
		if part.Expires != 0 && (c.Expires == 0 || part.Expires < c.Expires) {
			c.Expires = part.Expires
		}
	}
	return c
}
