package transforms

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// CastConfig is the new type of each field, as CQL writes it.
type CastConfig map[string]string

// JSONSchema implements jsonschema's customSchemaImpl.
func (CastConfig) JSONSchema() *jsonschema.Schema {
	return fieldMap(&jsonschema.Schema{Type: "string",
		Description: "The new type, as CQL writes it: bigint, date, set<text>."})
}

var cast = builtin(Transform{
	Name: "cast",
	Summary: "Changes the types of fields. A value that does not fit the new type is a dead letter: nothing is cut " +
		"or guessed. Text is read in the forms that JSON output has, times also as 2024-05-01, 2024-05-01 12:30 or " +
		"with a zone; digits alone are no time. A number becomes a timestamp as milliseconds, and is a dead letter " +
		"where it looks like a year, a day, seconds or microseconds. " +
		"A nested type is read from JSON text.",
	Config: new(CastConfig),
	Example: Example{
		Config:  "cast: {size: bigint, created: date, tags: set<text>}",
		Fields:  []string{"id text", "size text", "created timestamp", "tags text"},
		Records: []string{`{"id": "a", "size": "2048", "created": "2024-05-01T12:00:00.000Z", "tags": "[\"hero\",\"web\"]"}`, `{"id": "b", "size": "2 KB"}`},
	},
	Compile: compileCast,
})

type castStep struct {
	places      []int
	conversions []conversion
	out         *record.Schema
	values      []record.Value // reused
}

func compileCast(config json.RawMessage, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	list, err := entries(config)
	if err != nil {
		return nil, nil, err
	}
	var f faults
	step := &castStep{}
	fields := slices.Clone(in.Fields)
	for _, e := range list {
		i := f.field(in, e.name, e.name)
		text, err := decode[string](e.value)
		if err != nil {
			f.addf(e.name, "a type is needed, such as bigint")
			continue
		}
		to, err := record.ParseType(text, nil)
		if err != nil {
			f.addf(e.name, "%s", typeFault(text, err))
			continue
		}
		if i < 0 {
			continue
		}
		c, err := converter(in.Fields[i].Type, to)
		if err != nil {
			f.addf(e.name, "%v", err)
			continue
		}
		fields[i].Type = to
		step.places, step.conversions = append(step.places, i), append(step.conversions, c)
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	step.out = f.schema(fields, in.KeyNames())
	step.values = make([]record.Value, len(step.places))
	return Each(step.apply), step.out, f.err()
}

// typeFault tells what is wrong with a type, and which there are where it is unknown.
func typeFault(text string, err error) string {
	if !strings.Contains(err.Error(), "unknown type") {
		return err.Error()
	}
	return err.Error() + "; " + fail.Suggest(text, typeNames)
}

var typeNames = func() []string {
	var names []string
	for k := record.Boolean; k <= record.Duration; k++ {
		names = append(names, k.String())
	}
	return append(names, "list<...>", "set<...>", "map<..., ...>", "tuple<...>", "udt<name:type, ...>",
		"vector<..., n>")
}()

func (s *castStep) apply(r *record.Record) error {
	for i, p := range s.places {
		var err error
		if s.values[i], err = s.conversions[i].orNull(r.Values[p]); err != nil {
			failure := fail.New(fail.Permanent, "transform.cast", "%s: %w", r.Schema.Fields[p].Name, err)
			if errors.Is(err, record.ErrFiner) {
				failure.Fix = "cut it by derive instead of cast: timestamp(" + r.Schema.Fields[p].Name + ")"
			}
			return failure
		}
	}
	for i, p := range s.places {
		r.Values[p] = s.values[i]
	}
	r.Schema = s.out
	return nil
}
