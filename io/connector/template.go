package connector

import (
	"fmt"
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
					return nil, fmt.Errorf("template %q: no field %q; there are %s", text, name, strings.Join(schema.Names(), ", "))
				}
				p.typ = schema.Fields[p.field].Type
				if layout != "" && p.typ.Kind != record.Timestamp && p.typ.Kind != record.Date && p.typ.Kind != record.TimeUUID {
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
	for i := range t.parts {
		p := &t.parts[i]
		switch p.field {
		case -1:
			b = append(b, p.text...)
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
	}
	return b, nil
}
