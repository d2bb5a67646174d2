package icebergio

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/columns"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// newSchema is the schema of a new table: fields of the key are required and identify rows, others are optional.
func newSchema(s *record.Schema, c SinkConfig) (*iceberg.Schema, error) {
	ids := 0
	next := func() int { ids++; return ids }
	var fields []iceberg.NestedField
	var identifiers []int
	lower := map[string]string{}
	add := func(name string, t iceberg.Type, required bool, doc string) error {
		// Most engines do not tell upper from lower case.
		if twin, twice := lower[strings.ToLower(name)]; twice {
			return fail.Job("iceberg.column_names", "columns %q and %q have the same name", twin, name).
				WithFix("rename one of them by a transform, or by version_column or run_column")
		}
		lower[strings.ToLower(name)] = name
		fields = append(fields, iceberg.NestedField{ID: next(), Name: name, Type: t, Required: required, Doc: doc})
		return nil
	}
	for i, f := range s.Fields {
		t := defaultType(f.Type, next)
		if wanted, ok := c.Columns[f.Name]; ok {
			var err error
			if t, err = parseDecimal(wanted); err != nil {
				return nil, err
			}
		}
		key := slices.Contains(s.Key, i)
		if err := add(f.Name, t, key, docOf(f.Type, t)); err != nil {
			return nil, err
		}
		if key && !f.Type.Kind.Nested() && f.Type.Kind != record.Float && f.Type.Kind != record.Double {
			identifiers = append(identifiers, ids)
		}
	}
	for name, t := range c.ownColumns() {
		if err := add(name, t, false, ""); err != nil {
			return nil, err
		}
	}
	if len(identifiers) < len(s.Key) {
		identifiers = nil // half a key identifies nothing
	}
	return iceberg.NewSchemaWithIdentifiers(0, identifiers, fields...), nil
}

// ownColumns yields the columns that hold no field.
func (c SinkConfig) ownColumns() func(yield func(string, iceberg.Type) bool) {
	return func(yield func(string, iceberg.Type) bool) {
		if name := c.versionColumn(); name != "" && !yield(name, iceberg.PrimitiveTypes.Int64) {
			return
		}
		if c.RunColumn != "" {
			yield(c.RunColumn, iceberg.PrimitiveTypes.String)
		}
	}
}

var decimalForm = regexp.MustCompile(`^decimal\(\s*([0-9]{1,2})\s*,\s*([0-9]{1,2})\s*\)$`)

func parseDecimal(text string) (iceberg.Type, error) {
	if m := decimalForm.FindStringSubmatch(text); m != nil {
		precision, _ := strconv.Atoi(m[1])
		scale, _ := strconv.Atoi(m[2])
		if precision >= 1 && precision <= 38 && scale <= precision {
			return iceberg.DecimalTypeOf(precision, scale), nil
		}
	}
	return nil, fmt.Errorf("%q is not a valid decimal(PRECISION,SCALE) with a precision of 1 to 38 and a scale no "+
		"higher", text)
}

// checkColumns checks the types that the job file wants against the fields.
func (c SinkConfig) checkColumns(s *record.Schema) error {
	for _, name := range sortedKeys(c.Columns) {
		i := s.Index(name)
		if i < 0 {
			return fail.Job("iceberg.columns", "columns.%s: the records have no such field; there are %s", name,
				strings.Join(s.Names(), ", "))
		}
		if t := s.Fields[i].Type; t.Kind != record.Decimal && t.Kind != record.Varint {
			return fail.Job("iceberg.columns",
				"columns.%s: the field is of type %s, only decimal and varint take a type of their own", name, t).
				WithFix("remove the line, or cast the field by a transform")
		}
		if _, err := parseDecimal(c.Columns[name]); err != nil {
			return fail.Job("iceberg.columns", "columns.%s: %w", name, err)
		}
	}
	return nil
}

func defaultType(t record.Type, next func() int) iceberg.Type {
	switch t.Kind {
	case record.List, record.Set, record.Vector:
		return &iceberg.ListType{ElementID: next(), Element: defaultType(t.Elems[0], next)}
	case record.Map:
		return &iceberg.MapType{KeyID: next(), KeyType: defaultType(t.Elems[0], next), ValueID: next(),
			ValueType: defaultType(t.Elems[1], next)}
	case record.Tuple, record.UDT:
		parts := make([]iceberg.NestedField, len(t.Elems))
		for i, e := range t.Elems {
			parts[i] = iceberg.NestedField{ID: next(), Name: partName(t, i), Type: defaultType(e, next)}
		}
		return &iceberg.StructType{FieldList: parts}
	}
	return storedAs[t.Kind][0]
}

// storedAs are the types that hold every value of a kind, the default first; decimals are a matter of codecs.
var storedAs = map[record.Kind][]iceberg.Type{
	record.Boolean:   {iceberg.PrimitiveTypes.Bool},
	record.TinyInt:   {iceberg.PrimitiveTypes.Int32, iceberg.PrimitiveTypes.Int64},
	record.SmallInt:  {iceberg.PrimitiveTypes.Int32, iceberg.PrimitiveTypes.Int64},
	record.Int:       {iceberg.PrimitiveTypes.Int32, iceberg.PrimitiveTypes.Int64},
	record.BigInt:    {iceberg.PrimitiveTypes.Int64},
	record.Float:     {iceberg.PrimitiveTypes.Float32, iceberg.PrimitiveTypes.Float64},
	record.Double:    {iceberg.PrimitiveTypes.Float64},
	record.Text:      {iceberg.PrimitiveTypes.String},
	record.Blob:      {iceberg.PrimitiveTypes.Binary},
	record.Timestamp: {iceberg.PrimitiveTypes.TimestampTz},
	record.Date:      {iceberg.PrimitiveTypes.Date},
	record.UUID:      {iceberg.PrimitiveTypes.String},
	record.TimeUUID:  {iceberg.PrimitiveTypes.String},
	record.Inet:      {iceberg.PrimitiveTypes.String},
	record.Varint:    {iceberg.PrimitiveTypes.String},
	record.Decimal:   {iceberg.PrimitiveTypes.String},
	record.Time:      {iceberg.PrimitiveTypes.String},
	record.Duration:  {iceberg.PrimitiveTypes.String},
}

// docPrefix begins the doc of a column whose type alone does not tell the field's.
const docPrefix = "CQL "

// fieldType is the type of the field in a column: the one that its doc names, else the one
// that holds the column's values.
func fieldType(f iceberg.NestedField) (record.Type, error) {
	if text, ok := strings.CutPrefix(f.Doc, docPrefix); ok {
		if t, err := record.ParseType(text, nil); err == nil {
			return t, nil
		}
	}
	t, err := table.TypeToArrowType(f.Type, false, false)
	if err != nil {
		return record.Type{}, err
	}
	return columns.Type(t)
}

func partName(t record.Type, i int) string {
	if t.Kind == record.UDT {
		return t.Names[i]
	}
	return "_" + strconv.Itoa(i+1)
}

func columnNames(s *iceberg.Schema) []string {
	var names []string
	for _, f := range s.Fields() {
		names = append(names, f.Name)
	}
	return names
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
