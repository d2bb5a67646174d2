package transforms

import (
	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// FilterConfig is the condition under which a record stays.
type FilterConfig string

// JSONSchema implements jsonschema's customSchemaImpl.
func (FilterConfig) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Description: "CEL condition; records for which it is false are filtered."}
}

var filter = builtin(Transform{
	Name: "filter",
	Summary: "Keeps the records for which a CEL condition is true. A delete stays unless the condition reads nothing " +
		"but the key, or reads _op: whether the record that it deletes was kept cannot be known.",
	Config: new(FilterConfig),
	Example: Example{
		Config: `filter: size > 1000 && "hero" in tags`,
		Fields: []string{"id text", "size bigint", "tags set<text>"},
		Records: []string{`{"id": "a", "size": 2048, "tags": ["hero", "web"]}`,
			`{"id": "b", "size": 10, "tags": null}`},
	},
	Compile: compileWith(func(condition FilterConfig, in *record.Schema, o Options) (Step, *record.Schema, error) {
		s, err := newScope(in, o)
		if err != nil {
			return nil, nil, err
		}
		var f faults
		step := filterStep{s.condition(&f, "", string(condition))}
		return step, in, f.err()
	}),
})

type filterStep struct{ keep *expression }

// Apply implements Step.
func (f filterStep) Apply(r *record.Record, emit func(*record.Record)) error {
	keep := true
	if r.Op != record.Delete || f.keep.keyOnly {
		var err error
		if keep, err = f.keep.holds(r); err != nil {
			return err
		}
	}
	if keep {
		emit(r)
	}
	return nil
}
