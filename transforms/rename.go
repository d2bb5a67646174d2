package transforms

import (
	"encoding/json"
	"slices"

	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// RenameConfig is the new name of each field.
type RenameConfig map[string]string

// JSONSchema implements jsonschema's customSchemaImpl.
func (RenameConfig) JSONSchema() *jsonschema.Schema {
	return fieldMap(&jsonschema.Schema{Type: "string", Description: "The new name."})
}

var rename = builtin(Transform{
	Name:    "rename",
	Summary: "Gives fields new names, all at once, so that two can swap theirs. Fields of the key stay in it.",
	Config:  new(RenameConfig),
	Example: Example{
		Config:  "rename: {name: title, ts: created}",
		Fields:  []string{"id text", "name text", "ts timestamp"},
		Records: []string{`{"id": "a", "name": "Sunset", "ts": "2024-05-01T12:00:00.000Z"}`},
	},
	Compile: func(config json.RawMessage, in *record.Schema, _ Options) (Step, *record.Schema, error) {
		names, err := decode[RenameConfig](config)
		if err != nil {
			return nil, nil, err
		}
		var f faults
		if len(names) == 0 {
			f.addf("", "at least one field is needed")
		}
		fields := slices.Clone(in.Fields)
		for old, name := range names {
			if i := f.field(in, old, old); i >= 0 {
				fields[i].Name = name
			}
			if name == "" {
				f.addf(old, "the new name is empty")
			}
		}
		key := make([]string, len(in.Key))
		for i, k := range in.Key {
			key[i] = fields[k].Name
		}
		if f.err() != nil {
			return nil, nil, f.err()
		}
		out := f.schema(fields, key)
		return Each(func(r *record.Record) error {
			r.Schema = out
			return nil
		}), out, f.err()
	},
})
