package transforms

import (
	"slices"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// ProjectConfig names the fields that stay.
type ProjectConfig struct {
	Keep []string `json:"keep,omitempty" jsonschema_description:"The fields that stay; their order does not change. Either keep or drop is needed, or a key."`
	Drop []string `json:"drop,omitempty" jsonschema_description:"The fields that go."`
	Key  []string `json:"key,omitempty" jsonschema_description:"The fields of a new key, in order. Two records with the same key are one to every sink: the one with the higher version wins. Default: the key stays."`
}

var project = builtin(Transform{
	Name:    "project",
	Summary: "Keeps or drops fields, and can choose a new key. Fields of the key cannot be dropped.",
	Config:  new(ProjectConfig),
	Example: Example{
		Config:  "project: {drop: [internal_notes]}",
		Fields:  []string{"id text", "title text", "internal_notes text"},
		Records: []string{`{"id": "a", "title": "Sunset", "internal_notes": "ask legal"}`},
	},
	Compile: compileWith(compileProject),
})

func compileProject(c ProjectConfig, in *record.Schema, _ Options) (Step, *record.Schema, error) {
	var f faults
	if len(c.Keep) > 0 && len(c.Drop) > 0 {
		f.addf("", "either keep or drop, not both")
	}
	if len(c.Keep)+len(c.Drop)+len(c.Key) == 0 {
		f.addf("", "keep or drop is needed, with at least one field")
	}
	var listed []int
	switch {
	case len(c.Keep) > 0:
		listed = f.fields(in, "keep", c.Keep)
	case len(c.Drop) > 0:
		listed = f.fields(in, "drop", c.Drop)
	}
	key := c.Key
	if len(key) == 0 {
		key = in.KeyNames()
	}
	newKey := f.fields(in, "key", key)
	var places []int // of the fields that stay
	var fields []record.Field
	for i, field := range in.Fields {
		stays := slices.Contains(listed, i) == (len(c.Keep) > 0)
		if stays {
			places, fields = append(places, i), append(fields, field)
		} else if slices.Contains(key, field.Name) {
			f.addf("", "%q is part of the key (%s) and must stay, or a new key is needed", field.Name,
				strings.Join(key, ", "))
		}
	}
	if f.err() != nil {
		return nil, nil, f.err()
	}
	out := f.schema(fields, key)
	return Each(func(r *record.Record) error {
		if len(c.Key) > 0 {
			if err := wholeKey(r, newKey); err != nil {
				return err
			}
		}
		r.Schema = out
		if len(places) == len(in.Fields) {
			return nil
		}
		for to, from := range places {
			r.Values[to] = r.Values[from]
			if r.Cells != nil {
				r.Cells[to] = r.Cells[from]
			}
		}
		resize(r, len(places))
		return nil
	}), out, f.err()
}

// wholeKey checks that the fields of a new key have values: a delete has none but those of its old key.
func wholeKey(r *record.Record, key []int) error {
	for _, k := range key {
		if r.Values[k].IsNull() {
			return fail.New(fail.Permanent, "transform.null_key", "%q is null, but part of the new key of this %s",
				r.Schema.Fields[k].Name, r.Op)
		}
	}
	return nil
}
