package icebergio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// The policies for a table whose columns are not those of the records; the default is to fail.
const (
	schemaIgnore = "ignore"
	schemaAdd    = "add"
)

// evolution is what a table needs so that it can hold records.
type evolution struct {
	update  *table.UpdateSchema
	changes []string // in words
}

func (e *evolution) change(format string, args ...any) {
	e.changes = append(e.changes, fmt.Sprintf(format, args...))
}

// evolve changes the columns of a table, where the policy is to, by what Iceberg allows: a column more, a wider type,
// another name. What is unsafe stays as it is, and newLayout refuses it. With dry it gives the table as it would be.
func (s *Sink) evolve(ctx context.Context, t *table.Table, schema *record.Schema, run connector.Run,
	dry bool) (*table.Table, error) {
	if s.config.Schema == schemaIgnore {
		if left := s.config.leftOut(t.Schema(), schema); len(left) > 0 {
			slog.WarnContext(ctx, "fields are left out: the table has no columns for them", "table", s.config.Table,
				"fields", strings.Join(left, ", "))
		}
	}
	if s.config.Schema != schemaAdd {
		return t, nil
	}
	tx := t.NewTransaction()
	e := &evolution{update: tx.UpdateSchema(true, false)}
	if err := s.config.changes(e, t.Schema(), schema); err != nil || len(e.changes) == 0 {
		return t, err
	}
	if err := e.update.Commit(); err != nil {
		return nil, fail.Job("iceberg.schema", "table %s cannot be changed (%s): %w", s.config.Table,
			strings.Join(e.changes, "; "), err)
	}
	staged, err := tx.StagedTable()
	if err != nil {
		return nil, tables.Classify(err, "changing table "+s.config.Table)
	}
	// What is still in the way is told before anything is changed.
	if _, err := newLayout(staged.Table, schema, s.config, run); err != nil || dry {
		if err == nil {
			slog.InfoContext(ctx, "the table would be changed", "table", s.config.Table, "changes",
				strings.Join(e.changes, "; "))
		}
		return staged.Table, err
	}
	if t, err = tx.Commit(ctx); err != nil {
		return nil, tables.Classify(err, "changing table "+s.config.Table)
	}
	slog.InfoContext(ctx, "the table is changed", "table", s.config.Table, "changes", strings.Join(e.changes, "; "))
	return t, nil
}

// evolved is evolve, again as long as others change the table at the same time.
func (s *Sink) evolved(ctx context.Context, c *opened, schema *record.Schema, run connector.Run,
	dry bool) (*table.Table, error) {
	const tries = 10
	for n := 1; ; n++ {
		t, err := s.load(ctx, c)
		if err != nil {
			return nil, err
		}
		if t, err = s.evolve(ctx, t, schema, run, dry); err == nil || n == tries ||
			!errors.Is(err, table.ErrCommitFailed) {
			return t, err
		}
	}
}

// changes gathers what is to be changed.
func (c SinkConfig) changes(e *evolution, columns *iceberg.Schema, schema *record.Schema) error {
	for _, was := range sortedKeys(c.Rename) {
		is := c.Rename[was]
		_, old := columns.FindFieldByName(was)
		_, new := columns.FindFieldByName(is)
		switch {
		case schema.Index(is) < 0:
			return fail.Job("iceberg.rename", "rename.%s: the records have no field %s; there are %s", was, is,
				strings.Join(schema.Names(), ", "))
		case old && new:
			return fail.Job("iceberg.rename", "rename.%s: table %s has a column %s already", was, c.Table, is).
				WithFix("drop one of them, or remove the line")
		case old:
			e.update.RenameColumn([]string{was}, is)
			e.change("column %s is renamed %s", was, is)
		case !new:
			return fail.Job("iceberg.rename", "rename.%s: table %s has no such column; there are %s", was, c.Table,
				strings.Join(columnNames(columns), ", "))
		}
	}
	for _, f := range schema.Fields {
		column, there := columns.FindFieldByName(f.Name)
		for was, is := range c.Rename {
			if old, ok := columns.FindFieldByName(was); ok && is == f.Name {
				column, there = old, true
			}
		}
		wanted := defaultType(f.Type, func() int { return 0 })
		if text, ok := c.Columns[f.Name]; ok {
			wanted, _ = parseDecimal(text) // checkColumns has looked at it
		}
		if there {
			e.widen([]string{column.Name}, f.Type, column, wanted)
			continue
		}
		e.add([]string{f.Name}, f.Type, wanted)
	}
	for name, t := range c.ownColumns() {
		if _, there := columns.FindFieldByName(name); !there {
			e.update.AddColumn([]string{name}, t, "", false, nil)
			e.change("column %s %s is added", name, t)
		}
	}
	return nil
}

// add adds a column, or a part of one.
func (e *evolution) add(path []string, t record.Type, column iceberg.Type) {
	e.update.AddColumn(path, column, docOf(t, column), false, nil)
	e.change("column %s %s is added", strings.Join(path, "."), column)
}

// docOf tells the type of the field where that of the column does not.
func docOf(t record.Type, column iceberg.Type) string {
	if found, err := fieldType(iceberg.NestedField{Type: column}); err == nil && found.Same(t) {
		return ""
	}
	return docPrefix + t.String()
}

// widen gives a column a type that holds the field's values too, where Iceberg can promote it, and
// adds parts that a struct lacks.
func (e *evolution) widen(path []string, t record.Type, column iceberg.NestedField, wanted iceberg.Type) {
	switch is := column.Type.(type) {
	case *iceberg.StructType:
		if t.Kind != record.UDT && t.Kind != record.Tuple {
			return
		}
		for i, elem := range t.Elems {
			name := partName(t, i)
			at := slices.IndexFunc(is.FieldList, func(f iceberg.NestedField) bool { return f.Name == name })
			under := append(slices.Clone(path), name)
			if part := defaultType(elem, func() int { return 0 }); at < 0 {
				e.add(under, elem, part)
			} else {
				e.widen(under, elem, is.FieldList[at], part)
			}
		}
	case *iceberg.ListType:
		if t.Kind == record.List || t.Kind == record.Set || t.Kind == record.Vector {
			e.widen(append(slices.Clone(path), "element"), t.Elems[0], is.ElementField(),
				defaultType(t.Elems[0], func() int { return 0 }))
		}
	case *iceberg.MapType:
		if t.Kind == record.Map {
			e.widen(append(slices.Clone(path), "value"), t.Elems[1], is.ValueField(),
				defaultType(t.Elems[1], func() int { return 0 }))
		}
	default:
		update := table.ColumnUpdate{}
		if promotes(column.Type, wanted) {
			update.FieldType = iceberg.Optional[iceberg.Type]{Val: wanted, Valid: true}
			e.change("column %s becomes %s, it was %s", strings.Join(path, "."), wanted, column.Type)
			column.Type = wanted
		}
		// A doc that tells of the narrower field would mislead readers.
		if told, ok := strings.CutPrefix(column.Doc, docPrefix); len(path) == 1 && ok && told != t.String() {
			update.Doc = iceberg.Optional[string]{Val: docOf(t, column.Type), Valid: true}
			if !update.FieldType.Valid {
				e.change("column %s holds %s, it was %s", path[0], t, told)
			}
		}
		if update.FieldType.Valid || update.Doc.Valid {
			e.update.UpdateColumn(path, update)
		}
	}
}

// promotes tells whether Iceberg can make one type the other without touching files.
func promotes(from, to iceberg.Type) bool {
	switch f := from.(type) {
	case iceberg.Int32Type:
		return to.Equals(iceberg.PrimitiveTypes.Int64)
	case iceberg.Float32Type:
		return to.Equals(iceberg.PrimitiveTypes.Float64)
	case iceberg.DecimalType:
		t, ok := to.(iceberg.DecimalType)
		return ok && t.Scale() == f.Scale() && t.Precision() > f.Precision()
	}
	return false
}

// leftOut are the fields that the table has no columns for. Those of the key are never left out.
func (c SinkConfig) leftOut(columns *iceberg.Schema, schema *record.Schema) (names []string) {
	for i, f := range schema.Fields {
		if _, there := columns.FindFieldByName(f.Name); !there && !slices.Contains(schema.Key, i) {
			names = append(names, f.Name)
		}
	}
	return names
}
