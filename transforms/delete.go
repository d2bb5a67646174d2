package transforms

import (
	"encoding/json"
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"github.com/invopop/jsonschema"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// DeleteConfig says which records become deletes. In a job file it may be the condition alone.
type DeleteConfig struct {
	When    string `json:"when"`
	Version string `json:"version,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *DeleteConfig) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &c.When) == nil {
		return nil
	}
	type withVersion DeleteConfig // without this method
	d, err := decode[withVersion](text)
	*c = DeleteConfig(d)
	return err
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (DeleteConfig) JSONSchema() *jsonschema.Schema {
	properties := jsonschema.NewProperties()
	properties.Set("when", &jsonschema.Schema{Type: "string", Description: "CEL condition."})
	properties.Set("version", &jsonschema.Schema{Type: "string", Description: "CEL expression of the delete's " +
		"version, a timestamp or microseconds since 1970: what was written after it stays. Default: that of the " +
		"record. Cassandra rows that consist of a key alone have no write time, so they need one, such as now."})
	return &jsonschema.Schema{Description: "The condition, or with the version of the delete:",
		OneOf: []*jsonschema.Schema{
			{Type: "string", Description: "CEL condition."},
			{Type: "object", Properties: properties, Required: []string{"when"},
				AdditionalProperties: jsonschema.FalseSchema},
		}}
}

var deletes = builtin(Transform{
	Name: "delete",
	Summary: "Makes deletes of the records for which a CEL condition is true; others pass as they are, and filter: " +
		"_op == \"delete\" leaves them out. Sinks keep what is newer than the delete's version.",
	Config: new(DeleteConfig),
	Example: Example{
		Config: `delete: licence_expires != null && licence_expires < now`,
		Fields: []string{"id text", "title text", "licence_expires timestamp"},
		Records: []string{`{"id": "a", "title": "Sunset", "licence_expires": "2024-05-01T12:00:00.000Z"}`,
			`{"id": "b", "title": "Harbour", "licence_expires": null}`},
	},
	Compile: compileWith(func(c DeleteConfig, in *record.Schema, o Options) (Step, *record.Schema, error) {
		s, err := newScope(in, o)
		if err != nil {
			return nil, nil, err
		}
		var f faults
		path := ""
		if c.Version != "" {
			path = "when"
		}
		step := deleteStep{when: s.condition(&f, path, c.When)}
		if c.Version != "" {
			step.version = s.compile(&f, "version", c.Version)
		}
		if x := step.version; x != nil {
			switch required(x.out).Kind() {
			case types.TimestampKind, types.IntKind, types.DynKind:
			default:
				f.addf("version", "a timestamp or microseconds since 1970 are needed, but this gives %s: %s",
					typeName(x.out), c.Version)
			}
		}
		return Each(step.apply), in, f.err()
	}),
})

type deleteStep struct {
	when    *expression
	version *expression // nil: that of the record
}

func (s deleteStep) apply(r *record.Record) error {
	if r.Op == record.Delete {
		return nil
	}
	holds, err := s.when.holds(r)
	if err != nil || !holds {
		return err
	}
	version := r.Version
	if s.version != nil {
		v, err := s.version.eval(r)
		if err != nil {
			return err
		}
		if version = versionOf(v); version <= 0 {
			return fail.New(fail.Permanent, "transform.version",
				"%s: %d is not a version: a timestamp or microseconds since 1970 are needed", s.version.text, version)
		}
	}
	r.Op, r.Version, r.Expires, r.Cells = record.Delete, version, 0, nil
	for i := range r.Values {
		if !slices.Contains(r.Schema.Key, i) {
			r.Values[i] = record.Value{}
		}
	}
	return nil
}

// versionOf is a timestamp, or a number of microseconds since 1970, as a version; 0: it is neither.
func versionOf(v ref.Val) int64 {
	switch v := v.(type) {
	case types.Timestamp:
		return v.UnixMicro()
	case types.Int:
		return int64(v)
	}
	return 0
}
