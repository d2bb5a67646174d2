package connector

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// Fields are names and types in order; in a job file an object of name: CQL type.
type Fields []record.Field

// UnmarshalJSON keeps the order of the names.
func (f *Fields) UnmarshalJSON(text []byte) error {
	*f = nil
	return record.JSONParts(string(text), func(name, value string) error {
		var cql string
		if err := json.Unmarshal([]byte(value), &cql); err != nil || name == "" {
			return fmt.Errorf("fields must be an object of name: CQL type, not %.60s", text)
		}
		t, err := record.ParseType(cql, nil)
		if err != nil {
			return fmt.Errorf("field %q: %w", name, err)
		}
		*f = append(*f, record.Field{Name: name, Type: t})
		return nil
	})
}

// MarshalJSON writes what UnmarshalJSON reads.
func (f Fields) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, field := range f {
		if i > 0 {
			b = append(b, ',')
		}
		b = record.AppendQuoted(b, field.Name)
		b = append(b, ':')
		b = record.AppendQuoted(b, field.Type.String())
	}
	return append(b, '}'), nil
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Fields) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{Type: "string",
		Description: "A CQL type, such as bigint or map<text, text>."}}
}

// Readings say how the values of each field are read. Timestamps of the key and of the version are never cut: different
// keys would become one, and a newer version as old as the one before.
func Readings(schema *record.Schema, version string, cutTimestamps bool) []record.Reading {
	all := make([]record.Reading, len(schema.Fields))
	for i, f := range schema.Fields {
		all[i].CutTimestamps = cutTimestamps && f.Name != version && !slices.Contains(schema.Key, i)
	}
	return all
}

// Check finds fields that stand twice and, where there are any fields, names in key and version that are none of them.
func (f Fields) Check(key []string, version string) (faults []Fault) {
	if len(f) == 0 {
		return faults
	}
	seen := map[string]bool{}
	for _, field := range f {
		if seen[field.Name] {
			faults = append(faults, Faultf("fields."+field.Name, "stands twice"))
		}
		seen[field.Name] = true
	}
	for i, k := range key {
		if !seen[k] {
			faults = append(faults, Faultf(fmt.Sprintf("key[%d]", i), "no field %q; there are %s", k, f.Names()))
		}
	}
	if version != "" && !seen[version] {
		faults = append(faults, Faultf("version", "no field %q; there are %s", version, f.Names()))
	}
	return faults
}

// Names are the names, for a message.
func (f Fields) Names() string {
	all := make([]string, len(f))
	for i, field := range f {
		all[i] = field.Name
	}
	return strings.Join(all, ", ")
}

// IsVersion tells whether a field of the type can hold a record's version.
func IsVersion(t record.Type) bool {
	return slices.Contains([]record.Kind{record.Timestamp, record.TimeUUID, record.BigInt}, t.Kind)
}

// Version is the version in a field's value, microseconds since 1970.
func Version(v record.Value) int64 {
	switch v.Kind() {
	case record.Timestamp:
		return v.Int() * 1000
	case record.TimeUUID:
		return v.Time().UnixMicro()
	}
	return v.Int()
}
