package elasticsearchio

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// inferred are the types that hold the values of a field type. What stands in lists a mapping does not tell.
var inferred = map[string]record.Kind{
	"text": record.Text, "keyword": record.Text, "wildcard": record.Text, "constant_keyword": record.Text, "version": record.Text,
	"match_only_text": record.Text, "search_as_you_type": record.Text, "date_nanos": record.Text,
	"long": record.BigInt, "integer": record.Int, "short": record.SmallInt, "byte": record.TinyInt, "unsigned_long": record.Varint,
	"double": record.Double, "float": record.Double, "half_float": record.Double, "scaled_float": record.Double,
	"boolean": record.Boolean, "ip": record.Inet, "binary": record.Blob,
}

// infer gives the fields of a mapping by name.
func infer(mapping *property) ([]record.Field, error) {
	var fields []record.Field
	for _, name := range slices.Sorted(maps.Keys(mapping.Properties)) {
		t, ok, err := inferType(mapping.Properties[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if ok {
			fields = append(fields, record.Field{Name: name, Type: t})
		}
	}
	return fields, nil
}

// inferType is the type of a property; ok is false for an alias, which no document has.
func inferType(p *property) (t record.Type, ok bool, err error) {
	switch {
	case p.Type == "alias":
		return t, false, nil
	case p.Type == "date":
		return record.Of(dateKind(p.Format)), true, nil
	case p.Enabled != nil && !*p.Enabled:
		return t, false, fmt.Errorf("an object that is not mapped")
	case p.Type == "flattened" || ((p.Type == "" || p.Type == "object") && len(p.Properties) == 0):
		return record.MapOf(record.Of(record.Text), record.Of(record.Text)), true, nil
	case p.Type == "" || p.Type == "object" || p.Type == "nested":
		parts, err := infer(p)
		if err != nil {
			return t, false, err
		}
		t = record.UDTOf("", parts...)
		if p.Type == "nested" {
			t = record.ListOf(t)
		}
		return t, true, nil
	}
	kind, ok := inferred[p.Type]
	if !ok {
		return t, false, fmt.Errorf("the type %s stands for several forms", p.Type)
	}
	return record.Of(kind), true, nil
}

// dateKind is a timestamp for the default formats; else what the source has as a text or a number.
func dateKind(format string) record.Kind {
	for _, f := range strings.Split(format, "||") {
		switch f {
		case "", "strict_date_optional_time", "date_optional_time", "strict_date_time", "epoch_millis":
		case "epoch_second":
			return record.BigInt
		default:
			return record.Text
		}
	}
	return record.Timestamp
}

// merge gives the fields of several indices together.
func merge(all map[string]index) ([]record.Field, error) {
	var fields []record.Field
	from := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		mapping := all[name].Mappings
		of, err := infer(&mapping)
		if err != nil {
			return nil, cannotInfer("%s: %w", name, err)
		}
		for _, f := range of {
			i := slices.IndexFunc(fields, func(x record.Field) bool { return x.Name == f.Name })
			switch {
			case i < 0:
				fields = append(fields, f)
				from[f.Name] = name
			case !fields[i].Type.Same(f.Type):
				return nil, cannotInfer("field %q is %s in %s and %s in %s", f.Name, fields[i].Type, from[f.Name], f.Type, name)
			}
		}
	}
	slices.SortFunc(fields, func(a, b record.Field) int { return strings.Compare(a.Name, b.Name) })
	return fields, nil
}

func cannotInfer(format string, args ...any) *fail.Error {
	return fail.Job("elasticsearch.fields", "the types of the fields cannot be told from the mapping: "+format, args...).
		WithFix("name the fields and their types, as in fields: {id: uuid, tags: list<text>}")
}

// withheld tells why documents do not come with a field as they were written; "": they do.
func withheld(name string, mapping *property, field string) string {
	s := mapping.Source
	if s == nil || isMeta(field) {
		return ""
	}
	if s.Enabled != nil && !*s.Enabled || s.Mode == "disabled" {
		return fmt.Sprintf("the index %q keeps no _source of its documents", name)
	}
	for _, pattern := range s.Excludes {
		if covers(pattern, field) || strings.HasPrefix(pattern, field+".") {
			return fmt.Sprintf("the index %q leaves %s out of the _source, and so (a part of) the field %q", name, pattern, field)
		}
	}
	if len(s.Includes) > 0 && !slices.ContainsFunc(s.Includes, func(pattern string) bool { return covers(pattern, field) }) {
		return fmt.Sprintf("the index %q keeps nothing but %s in the _source, without (all of) the field %q", name, strings.Join(s.Includes, ", "), field)
	}
	return ""
}

// covers tells whether a pattern of the mapping's _source means a whole field.
func covers(pattern, field string) bool {
	matches := func(pattern string) bool {
		ok, err := path.Match(pattern, field)
		return ok && err == nil
	}
	return matches(pattern) || matches(strings.TrimSuffix(pattern, ".*"))
}
