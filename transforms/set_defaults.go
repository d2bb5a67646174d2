package transforms

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// SetDefaultsConfig is the value of each field that has none.
type SetDefaultsConfig map[string]any

// JSONSchema implements jsonschema's customSchemaImpl.
func (SetDefaultsConfig) JSONSchema() *jsonschema.Schema {
	return fieldMap(&jsonschema.Schema{Description: "The value, as JSON output shows values of the field's type."})
}

var setDefaults = builtin(Transform{
	Name:    "set_defaults",
	Summary: "Gives fields that are null or unset a fixed value. Deletes pass as they are.",
	Config:  new(SetDefaultsConfig),
	Example: Example{
		Config:  "set_defaults: {licence: unknown, tags: []}",
		Fields:  []string{"id text", "licence text", "tags set<text>"},
		Records: []string{`{"id": "a", "licence": null}`, `{"id": "b", "licence": "CC-BY", "tags": ["web"]}`},
	},
	Compile: compileSetDefaults,
})

func compileSetDefaults(config json.RawMessage, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	list, err := entries(config)
	if err != nil {
		return nil, nil, err
	}
	var f faults
	var places []int
	var values []record.Value
	for _, e := range list {
		i := f.field(in, e.name, e.name)
		if i < 0 {
			continue
		}
		v, err := record.FromJSON(in.Fields[i].Type, string(e.value))
		switch {
		case in.Fields[i].Type.Kind == record.Timestamp && strings.IndexByte("-0123456789", e.value[0]) >= 0:
			f.addf(e.name, "a number is not a time here; write it as 2024-05-01 or 2024-05-01T12:00:00Z")
		case err != nil:
			f.addf(e.name, "%v", err)
		case v.IsNull():
			f.addf(e.name, "null cannot be a default")
		case slices.Contains(in.Key, i):
			f.addf(e.name, "it is part of the key, where a default would make different records one")
		}
		places, values = append(places, i), append(values, v)
	}
	return Each(func(r *record.Record) error {
		if r.Op == record.Delete {
			return nil
		}
		for i, p := range places {
			if r.Values[p].IsNull() {
				r.Values[p] = values[i]
				if r.Cells != nil {
					r.Cells[p] = derived(r)
				}
			}
		}
		return nil
	}), in, f.err()
}
