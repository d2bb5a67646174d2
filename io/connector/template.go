package connector

import (
	"fmt"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// Template is a text with fields of the record in braces: "assets-{asset_type}", with a time's layout as package time
// has it after a colon: "assets-{created:2006-01}". "{key}" is the whole key; "{{" and "}}" are braces.
type Template struct {
	parts []templatePart
}

type templatePart struct {
	text   string
	field  int // -1: text; -2: the key
	typ    record.Type
	layout string
}

// ParseTemplate reads a template whose fields must stand in the schema; a nil schema checks the form alone.
func ParseTemplate(text string, schema *record.Schema) (*Template, error) {
	t := &Template{}
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case (c == '{' || c == '}') && i+1 < len(text) && text[i+1] == c:
			plain.WriteByte(c)
			i++
		case c == '}':
			return nil, fmt.Errorf("template %q: } without {; write }} for a brace", text)
		case c == '{':
			end := strings.IndexByte(text[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("template %q: { without }; write {{ for a brace", text)
			}
			name, layout, _ := strings.Cut(text[i+1:i+end], ":")
			if name == "key" && layout != "" {
				return nil, fmt.Errorf("template %q: the key takes no time layout", text)
			}
			p := templatePart{field: -2, layout: layout}
			if name != "key" && schema != nil {
				if p.field = schema.Index(name); p.field < 0 {
					return nil, fmt.Errorf("template %q: no field %q; there are %s", text, name,
						strings.Join(schema.Names(), ", "))
				}
				p.typ = schema.Fields[p.field].Type
				if layout != "" && p.typ.Kind != record.Timestamp && p.typ.Kind != record.Date &&
					p.typ.Kind != record.TimeUUID {
					return nil, fmt.Errorf("template %q: %q is a %s and takes no time layout", text, name, p.typ)
				}
			}
			t.parts = append(t.parts, templatePart{text: plain.String(), field: -1}, p)
			plain.Reset()
			i += end
		default:
			plain.WriteByte(c)
		}
	}
	t.parts = append(t.parts, templatePart{text: plain.String(), field: -1})
	return t, nil
}

// Fixed tells whether the template has no fields.
func (t *Template) Fixed() bool { return len(t.parts) == 1 }

// Fields are the names of the template's fields, whose schema it was parsed for.
func (t *Template) Fields(schema *record.Schema) (names []string) {
	for _, p := range t.parts {
		switch {
		case p.field >= 0:
			names = append(names, schema.Fields[p.field].Name)
		case p.field == -2:
			names = append(names, schema.KeyNames()...)
		}
	}
	return names
}

// TemplateFields are the fields of several templates, each once.
func TemplateFields(schema *record.Schema, texts ...string) (names []string, err error) {
	for _, text := range texts {
		t, err := ParseTemplate(text, schema)
		if err != nil {
			return nil, err
		}
		for _, name := range t.Fields(schema) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Pattern is the template's text with a wildcard instead of each field.
func (t *Template) Pattern(wildcard string) string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		if p.field != -1 {
			b.WriteString(wildcard)
		}
	}
	return b.String()
}

// Append appends the text for a record; a field without a value is an error.
func (t *Template) Append(b []byte, r *record.Record) ([]byte, error) {
	return t.append(b, r, func(b []byte, _ int) ([]byte, error) { return b, nil })
}

// AppendURL is Append for an address: the values of fields are escaped, so that each stays within the part of a path or
// query in which it stands. A value that a path cannot hold, an empty one or dots alone, is an error.
func (t *Template) AppendURL(b []byte, r *record.Record) ([]byte, error) {
	return t.append(b, r, escape)
}

// append ends each value with a function that is told where it begins.
func (t *Template) append(b []byte, r *record.Record, value func(b []byte, from int) ([]byte, error)) ([]byte, error) {
	for i := range t.parts {
		p := &t.parts[i]
		from := len(b)
		switch p.field {
		case -1:
			b = append(b, p.text...)
			continue
		case -2:
			b = r.AppendKey(b)
		default:
			v := r.Values[p.field]
			if v.IsNull() {
				return b, fmt.Errorf("field %q has no value", r.Schema.Fields[p.field].Name)
			}
			if p.layout != "" {
				b = v.Time().AppendFormat(b, p.layout)
			} else {
				b = v.AppendText(b, p.typ)
			}
		}
		var err error
		if b, err = value(b, from); err != nil {
			return b, err
		}
	}
	return b, nil
}

// escape escapes what follows a place, all but the characters that mean nothing anywhere in an address (RFC 3986, 2.3).
func escape(b []byte, from int) ([]byte, error) {
	const hex = "0123456789ABCDEF"
	plain := string(b[from:])
	if plain == "" || plain == "." || plain == ".." {
		return b, fmt.Errorf("the value %q cannot stand in an address", plain)
	}
	b = b[:from]
	for _, c := range []byte(plain) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b, nil
}
