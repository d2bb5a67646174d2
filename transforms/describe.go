package transforms

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// Describe writes what a transform does, its settings, and its example with what that really does.
func Describe(w io.Writer, t Transform) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s\n\nSettings\n", t.Name, t.Summary)
	reflector := jsonschema.Reflector{Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true}
	settings := reflector.ReflectFromType(reflect.TypeOf(t.Config).Elem())
	if settings.Type == "string" {
		fmt.Fprintf(&b, "  %s\n", settings.Description)
	}
	describeSettings(&b, "  ", settings)
	if t.Example.Config != "" {
		b.WriteString("\nExample\n")
		if err := t.Example.show(&b); err != nil {
			return fmt.Errorf("example of %s: %w", t.Name, err)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func describeSettings(b *strings.Builder, indent string, s *jsonschema.Schema) {
	for _, either := range s.OneOf {
		describeSettings(b, indent, either)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties != jsonschema.FalseSchema && s.Properties.Len() == 0 {
		fmt.Fprintf(b, "%sFIELD (%s): %s\n", indent, describedType(s.AdditionalProperties),
			s.AdditionalProperties.Description)
		describeSettings(b, indent+"  ", s.AdditionalProperties)
	}
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		required := ""
		for _, name := range s.Required {
			if name == p.Key {
				required = ", required"
			}
		}
		fmt.Fprintf(b, "%s%s (%s%s): %s\n", indent, p.Key, describedType(p.Value), required, p.Value.Description)
		if p.Value.Items != nil && p.Value.Items.Properties.Len() > 0 {
			describeSettings(b, indent+"  ", p.Value.Items)
		}
	}
}

func describedType(s *jsonschema.Schema) string {
	switch {
	case len(s.OneOf) > 0:
		var all []string
		for _, either := range s.OneOf {
			all = append(all, describedType(either))
		}
		return strings.Join(all, " or ")
	case len(s.Enum) > 0:
		var all []string
		for _, v := range s.Enum {
			all = append(all, fmt.Sprint(v))
		}
		return strings.Join(all, ", ")
	case s.Type == "array" && s.Items != nil:
		return "list of " + describedType(s.Items)
	case s.Type == "":
		return "any value"
	}
	return s.Type
}

// show writes the example and what becomes of its records.
func (e Example) show(b *strings.Builder) error {
	chain, records, err := e.compile()
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(e.Config, "\n") {
		fmt.Fprintf(b, "  %s\n", line)
	}
	for i, r := range records {
		fmt.Fprintf(b, "\n  %s\n", e.Records[i])
		before := r.Clone()
		n := 0
		filtered := chain.Apply(r, func(out *record.Record) {
			if n++; n > 1 {
				b.WriteString("    and\n")
			}
			changes := Diff(before, out)
			for _, c := range changes {
				fmt.Fprintf(b, "    %s\n", c)
			}
			if len(changes) == 0 {
				b.WriteString("    unchanged\n")
			}
		}, func(_ *record.Record, _ string, err error) { fmt.Fprintf(b, "    dead letter: %v\n", err) })
		if filtered > 0 {
			b.WriteString("    filtered\n")
		}
	}
	return nil
}

// compile makes the chain and the records of an example.
func (e Example) compile() (*Chain, []*record.Record, error) {
	text, err := yaml.YAMLToJSON([]byte(e.Config))
	if err != nil {
		return nil, nil, err
	}
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, nil, err
	}
	var fields []record.Field
	for _, f := range e.Fields {
		name, text, _ := strings.Cut(f, " ")
		t, err := record.ParseType(text, nil)
		if err != nil {
			return nil, nil, err
		}
		fields = append(fields, record.Field{Name: name, Type: t})
	}
	if len(fields) == 0 {
		return nil, nil, fmt.Errorf("it has no fields")
	}
	in, err := record.NewSchema(fields, fields[0].Name)
	if err != nil {
		return nil, nil, err
	}
	chain, err := Compile([]Spec{spec}, in, Options{Now: time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		return nil, nil, err
	}
	var records []*record.Record
	for _, text := range e.Records {
		r := &record.Record{Schema: in, Values: make([]record.Value, len(fields))}
		err := record.JSONParts(text, func(name, value string) error {
			i := in.Index(name)
			if i < 0 {
				return fmt.Errorf("the record has no field %q", name)
			}
			v, err := record.FromJSON(fields[i].Type, value)
			r.Values[i] = v
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		records = append(records, r)
	}
	return chain, records, nil
}
