package elasticsearchio

import (
	"bytes"
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
	"text": record.Text, "keyword": record.Text, "wildcard": record.Text,
	"constant_keyword": record.Text, "version": record.Text,
	"match_only_text": record.Text, "search_as_you_type": record.Text, "date_nanos": record.Text,
	"long": record.BigInt, "integer": record.Int, "short": record.SmallInt, "byte": record.TinyInt,
	"unsigned_long": record.Varint,
	"double":        record.Double, "float": record.Double, "half_float": record.Double, "scaled_float": record.Double,
	"boolean": record.Boolean, "ip": record.Inet, "binary": record.Blob,
}

// infer gives the fields of a mapping by name. around is the mapping's dynamic where it does not say itself. rest
// tells that documents may hold more: what no mapping is made of, and what is mapped to values of several forms.
func infer(mapping *property, around dynamic) (fields []record.Field, rest bool) {
	if mapping.Dynamic != "" {
		around = mapping.Dynamic
	}
	rest = around.leavesOut() || len(mapping.Runtime) > 0 || bytes.Contains(mapping.Templates, []byte(`"runtime"`))
	for _, name := range slices.Sorted(maps.Keys(mapping.Properties)) {
		p := mapping.Properties[name]
		t, ok, more := inferType(p, around)
		if rest = rest || more; ok {
			fields = append(fields, record.Field{Name: name, Type: t})
		}
	}
	return fields, rest
}

// inferType is the type of a property; ok is false for one that has none, and for an alias, which no document has.
func inferType(p *property, around dynamic) (t record.Type, ok, rest bool) {
	switch p.kind() {
	case "alias":
		return t, false, false
	case "date":
		return record.Of(dateKind(p.Format)), true, false
	case "disabled":
		return t, false, true
	case "flattened", "flat_object":
		return record.MapOf(record.Of(record.Text), record.Of(record.Text)), true, false
	case "object", "nested", "passthrough":
		parts, rest := infer(p, around)
		switch {
		case len(parts) == 0 && (rest || p.Type == "nested"):
			return t, false, true
		case len(parts) == 0:
			return record.MapOf(record.Of(record.Text), record.Of(record.Text)), true, false
		}
		t = record.UDTOf("", parts...)
		if p.Type == "nested" {
			t = record.ListOf(t)
		}
		return t, true, rest
	}
	kind, ok := inferred[p.Type]
	return record.Of(kind), ok, !ok
}

// dateKind is a timestamp where the source has what the sink writes, or numbers; else what it has as a text or a
// number.
func dateKind(format string) record.Kind {
	kind := record.BigInt
	for _, f := range strings.Split(format, "||") {
		switch f {
		case "epoch_second":
		case "", "strict_date_optional_time", "date_optional_time", "strict_date_time",
			"strict_date_time_no_millis", "iso8601",
			"epoch_millis":
			kind = record.Timestamp
		default:
			return record.Text
		}
	}
	return kind
}

// merge gives the fields of several indices together, and whether documents may hold more.
func merge(all map[string]index) (fields []record.Field, rest bool, err error) {
	from := map[string]string{}
	untyped := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		idx := all[name]
		of, more := infer(&idx.Mappings, "")
		rest = rest || more || idx.setting("index.mapping.total_fields.ignore_dynamic_beyond_limit") == "true"
		for property, p := range idx.Mappings.Properties {
			if p.Type != "alias" && !slices.ContainsFunc(of, func(f record.Field) bool { return f.Name == property }) {
				untyped[property] = name
			}
		}
		for _, f := range of {
			i := slices.IndexFunc(fields, func(x record.Field) bool { return x.Name == f.Name })
			switch {
			case i < 0:
				fields = append(fields, f)
				from[f.Name] = name
			case !fields[i].Type.Same(f.Type):
				return nil, false, cannotInfer("field %q is %s in %s and %s in %s", f.Name, fields[i].Type,
					from[f.Name], f.Type, name)
			}
		}
	}
	for _, f := range fields {
		if other := untyped[f.Name]; other != "" {
			return nil, false, cannotInfer("field %q is %s in %s and anything in %s", f.Name,
				f.Type, from[f.Name], other)
		}
	}
	slices.SortFunc(fields, func(a, b record.Field) int { return strings.Compare(a.Name, b.Name) })
	return fields, rest, nil
}

func cannotInfer(format string, args ...any) *fail.Error {
	return fail.Job("elasticsearch.fields", "the types of the fields cannot be told from the mapping: "+format,
		args...).
		WithFix("name the fields and their types, as in fields: {id: uuid, tags: list<text>}")
}

// withheld tells why documents do not come with a field as they were written; "": they do.
func withheld(name string, idx *index, field string) string {
	s := orDefault(idx.Mappings.Source, &keptSource{})
	if isMeta(field) {
		return ""
	}
	if idx.setting("index.mapping.source.mode") == "disabled" || s.Enabled != nil && !*s.Enabled ||
		s.Mode == "disabled" {
		return fmt.Sprintf("the index %q keeps no _source of its documents", name)
	}
	if field == restName {
		return ""
	}
	for _, pattern := range s.Excludes {
		if covers(pattern, field) || strings.HasPrefix(pattern, field+".") {
			return fmt.Sprintf("the index %q leaves %s out of the _source, and so (a part of) the field %q", name,
				pattern, field)
		}
	}
	if len(s.Includes) > 0 && !slices.ContainsFunc(s.Includes,
		func(pattern string) bool { return covers(pattern, field) }) {
		return fmt.Sprintf("the index %q keeps nothing but %s in the _source, without (all of) the field %q", name,
			strings.Join(s.Includes, ", "), field)
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
