package elasticsearchio

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// derive is the mappings for fields, each by its type: all integers as long, so that they can grow; decimals and
// varints as double, which searches by range (the exact number stays in the source); text for searches with a keyword
// beside; maps as flattened, so that their keys do not become fields; tuples unindexed. What documents hold beside
// the fields is not mapped.
func derive(fields []record.Field, is product) map[string]any {
	properties := make(map[string]any, len(fields))
	mapping := map[string]any{"properties": properties}
	for _, f := range fields {
		if f.Name == restName {
			mapping["dynamic"] = false
			continue
		}
		properties[f.Name] = deriveType(f.Type, is)
	}
	return mapping
}

func deriveType(t record.Type, is product) map[string]any {
	switch t.Kind {
	case record.Boolean:
		return map[string]any{"type": "boolean"}
	case record.TinyInt, record.SmallInt, record.Int, record.BigInt:
		return map[string]any{"type": "long"}
	case record.Varint, record.Decimal, record.Double:
		return map[string]any{"type": "double"}
	case record.Float:
		return map[string]any{"type": "float"}
	case record.Text:
		return map[string]any{"type": "text", "fields": map[string]any{
			"keyword": map[string]any{"type": "keyword", "ignore_above": 256}}}
	case record.Blob:
		return map[string]any{"type": "binary"}
	case record.Inet:
		return map[string]any{"type": "ip"}
	case record.Timestamp, record.Date:
		return map[string]any{"type": "date"}
	case record.List, record.Set, record.Vector:
		return deriveType(t.Elems[0], is)
	case record.Map:
		if is.openSearch {
			return map[string]any{"type": "flat_object"}
		}
		return map[string]any{"type": "flattened", "ignore_above": 1024}
	case record.UDT:
		parts := make([]record.Field, len(t.Elems))
		for i := range parts {
			parts[i] = record.Field{Name: t.Names[i], Type: t.Elems[i]}
		}
		return derive(parts, is)
	case record.Tuple:
		return map[string]any{"type": "object", "enabled": false}
	}
	return map[string]any{"type": "keyword"} // UUIDs, times of day, durations
}

// property is one field of a mapping, or a whole mapping.
type property struct {
	Type       string               `json:"type"`
	Format     string               `json:"format"`
	Enabled    *bool                `json:"enabled"`
	Dynamic    dynamic              `json:"dynamic"`
	Properties map[string]*property `json:"properties"`
	Fields     map[string]*property `json:"fields"` // the same value indexed in other ways
	DocValues  *bool                `json:"doc_values"`
	Index      *bool                `json:"index"`

	// Of a whole mapping alone.
	Runtime   map[string]json.RawMessage `json:"runtime"`
	Templates json.RawMessage            `json:"dynamic_templates"`
	Source    *keptSource                `json:"_source"`
	Meta      map[string]json.RawMessage `json:"_meta"`
	Routing   struct {
		Required bool `json:"required"`
	} `json:"_routing"`
}

// keptSource says what the server keeps of documents as they came.
type keptSource struct {
	Enabled  *bool    `json:"enabled"`
	Mode     string   `json:"mode"`
	Includes []string `json:"includes"`
	Excludes []string `json:"excludes"`
}

// kind is the type of a field; "disabled" for an object that the server does not look into.
func (p *property) kind() string {
	if p.Enabled != nil && !*p.Enabled {
		return "disabled"
	}
	return orDefault(p.Type, "object")
}

// part is the field of a name, whose dots may lead into objects; nil: there is none, or the server does not look into
// it.
func (p *property) part(name string) *property {
	if p == nil || p.kind() == "disabled" {
		return nil
	}
	found := p.Properties[name]
	for i := range len(name) {
		if found == nil && name[i] == '.' {
			found = p.Properties[name[:i]].part(name[i+1:])
		}
	}
	if found == nil || found.kind() == "disabled" {
		return nil
	}
	return found
}

// holdsDates tells whether a field is a date or has one below it.
func (p *property) holdsDates() bool {
	if p == nil || p.Type == "date" || p.Type == "date_nanos" {
		return p != nil
	}
	for _, below := range p.Properties {
		if below.holdsDates() {
			return true
		}
	}
	return false
}

// dynamic says what becomes of unknown fields: "true", "false", "strict", "runtime", and others of OpenSearch, or ""
// for what holds around.
type dynamic string

// leavesOut tells whether documents may have fields that no mapping is made of.
func (d dynamic) leavesOut() bool {
	return d == "false" || d == "runtime" || d == "false_allow_templates"
}

// UnmarshalJSON takes text and booleans.
func (d *dynamic) UnmarshalJSON(text []byte) error {
	*d = dynamic(strings.Trim(string(text), `"`))
	return nil
}

// parseMapping reads the free form of a job file.
func parseMapping(mappings map[string]any) (*property, error) {
	text, err := json.Marshal(mappings)
	if err != nil {
		return nil, err
	}
	p := &property{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("no mapping as Elasticsearch has it: %w", err)
	}
	return p, nil
}

var (
	integers = []record.Kind{record.TinyInt, record.SmallInt, record.Int, record.BigInt, record.Varint}
	numbers  = append([]record.Kind{record.Decimal, record.Float, record.Double}, integers...)
	strs     = []record.Kind{record.Text, record.Blob, record.UUID, record.TimeUUID, record.Inet, record.Timestamp,
		record.Date, record.Time, record.Duration}
	scalars   = append(append([]record.Kind{record.Boolean}, numbers...), strs...)
	objects   = []record.Kind{record.UDT, record.Map}
	locations = append([]record.Kind{record.Text}, objects...)
)

// takes says which kinds a field type can hold as what they are. Whether every value fits (a text that should be a
// date, a number's range) only the server can tell, record by record. A type that does not stand here takes
// everything.
var takes = map[string][]record.Kind{
	"object": objects, "nested": objects, "flattened": objects, "flat_object": objects,
	"text": strs, "match_only_text": strs, "search_as_you_type": strs,
	"keyword": scalars, "wildcard": scalars, "constant_keyword": scalars, "version": scalars,
	"long": integers, "integer": integers, "short": integers, "byte": integers, "unsigned_long": integers,
	"double": numbers, "float": numbers, "half_float": numbers, "scaled_float": numbers, "dense_vector": numbers,
	"boolean":    {record.Boolean, record.Text},
	"date":       {record.Timestamp, record.Date, record.BigInt, record.Text},
	"date_nanos": {record.Timestamp, record.Date, record.BigInt, record.Text},
	"ip":         {record.Inet, record.Text},
	"binary":     {record.Blob, record.Text},
	"geo_point":  append([]record.Kind{record.Float, record.Double}, locations...), "geo_shape": locations,
	"alias": {},
}

// conflicts says, a line each, which fields do not fit a mapping.
func conflicts(fields []record.Field, mapping *property) []string {
	if mapping.Enabled != nil && !*mapping.Enabled {
		return nil
	}
	var found []string
	for _, f := range fields {
		if f.Name == restName {
			continue
		}
		found = append(found, misfits(f.Name, f.Name, f.Type, mapping, "true")...)
	}
	return found
}

// misfits looks up name, whose dots lead into objects, in an object's mapping; around is what holds outside of it.
func misfits(path, name string, t record.Type, object *property, around dynamic) []string {
	if object.Dynamic != "" {
		around = object.Dynamic
	}
	p := object.Properties[name]
	if head, rest, dotted := strings.Cut(name, "."); p == nil && dotted && object.Properties[head] != nil {
		return misfits(path, rest, t, object.Properties[head], around)
	}
	switch {
	case p == nil && around == "strict":
		return []string{fmt.Sprintf("%s (%s): not in the mapping, whose dynamic is strict", path, t)}
	case p == nil || (p.Enabled != nil && !*p.Enabled):
		return nil
	}
	return misfitsType(path, t, p, around)
}

func misfitsType(path string, t record.Type, p *property, around dynamic) []string {
	kind := orDefault(p.Type, "object")
	switch t.Kind {
	case record.List, record.Set, record.Vector:
		return misfitsType(path, t.Elems[0], p, around)
	case record.Tuple:
		var found []string
		for _, e := range t.Elems {
			found = append(found, misfitsType(path, e, p, around)...)
		}
		return found
	}
	if allowed, known := takes[kind]; known && !slices.Contains(allowed, t.Kind) {
		return []string{fmt.Sprintf("%s (%s): the index has %s", path, t, kind)}
	}
	if (kind == "date" || kind == "date_nanos") && !formatFits(t.Kind, p) {
		return []string{fmt.Sprintf("%s (%s): the index has %s of format %q", path, t, kind, p.Format)}
	}
	var found []string
	if t.Kind == record.UDT && kind != "flattened" && kind != "flat_object" {
		for i, e := range t.Elems {
			found = append(found, misfits(path+"."+t.Names[i], t.Names[i], e, p, around)...)
		}
	}
	return found
}

// formatFits tells whether a date's format may take what is sent: numbers for integers, else RFC 3339, which it must
// read as what it is.
func formatFits(k record.Kind, p *property) bool {
	if k.Integer() {
		return p.Format == "" || strings.Contains("||"+p.Format, "||epoch_")
	}
	return k == record.Text || newDates(p).takes(k)
}
