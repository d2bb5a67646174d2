package cassandraio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gocql/gocql"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// target is a table as a sink writes to it: each field of the records has a column.
type target struct {
	name      string         // quoted, with its keyspace
	columns   []targetColumn // one for each field of the schema, in its order
	partition []int          // fields of the partition key, in its order
	keepTTL   bool
}

type targetColumn struct {
	name   string
	quoted string
	field  string
	typ    record.Type
	key    bool
}

// tableColumn is a column as the server describes it.
type tableColumn struct {
	name     string
	cql      string // its type
	typ      record.Type
	err      error  // why typ could not be read: a counter, an unknown type
	kind     string // partition_key, clustering, static or regular
	position int
	order    string // of a clustering column: asc or desc
}

// newTarget matches the fields of records with the columns of a table. Its error names everything that does not match.
func newTarget(c SinkConfig, columns []tableColumn, schema *record.Schema) (*target, error) {
	t := &target{name: quote(c.Keyspace) + "." + quote(c.Table), keepTTL: c.TTL != "drop"}
	byName := make(map[string]tableColumn, len(columns))
	for _, col := range columns {
		byName[col.name] = col
	}
	var faults []string
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, field := range slices.Sorted(maps.Keys(c.Columns)) {
		if schema.Index(field) < 0 {
			add("columns names a field %q; the records have %s", field, strings.Join(schema.Names(), ", "))
		}
	}
	fieldOf := map[string]int{}
	for i, f := range schema.Fields {
		name := c.column(f.Name)
		col, found := byName[name]
		if other, twice := fieldOf[name]; twice {
			add("fields %q and %q both go to column %q", schema.Fields[other].Name, f.Name, name)
		}
		fieldOf[name] = i
		isKey := col.kind == "partition_key" || col.kind == "clustering"
		switch {
		case c.Write == writeChanges && col.kind == "static":
			add("column %q is static: all rows of a partition share it, so it cannot be written row by row; drop the "+
				"field by a transform", name)
		case !found:
			add("field %q has no column %q; add it to the table, name another under columns, or drop the field by a "+
				"transform", f.Name, name)
		case col.err != nil:
			add("column %q: %v", name, col.err)
		case !takes(col.typ, f.Type):
			add("field %q is %s, column %q is %s; cast the field by a transform", f.Name, f.Type, name, col.typ)
		case col.typ.Kind == record.List && !col.typ.Frozen && !isKey:
			add("column %q is a list that is not frozen: Cassandra appends to it when a write is repeated; make it "+
				"frozen<%s> or a set", name, col.cql)
		}
		t.columns = append(t.columns, targetColumn{name: name, quoted: quote(name), field: f.Name,
			typ: col.typ, key: isKey})
	}
	for _, col := range columns {
		if col.kind != "partition_key" && col.kind != "clustering" {
			continue
		}
		field, found := fieldOf[col.name]
		if !found {
			add("column %q belongs to the key and no field goes to it; map one under columns or derive it by a "+
				"transform", col.name)
			continue
		}
		if col.kind == "partition_key" {
			t.partition = append(t.partition, field)
		}
	}
	if len(faults) > 0 {
		return nil, fail.Job("cassandra.schema_mismatch",
			"the table %s.%s does not take the records:\n  - %s", c.Keyspace, c.Table,
			strings.Join(faults, "\n  - "))
	}
	return t, nil
}

// createStatements are the statements that create the table, and before it the user-defined types that it needs.
func createStatements(c SinkConfig, schema *record.Schema) ([]string, error) {
	key := slices.Concat(c.PartitionKey, c.Clustering)
	var types, columns, names []string
	for _, f := range schema.Fields {
		name := c.column(f.Name)
		cql, err := cqlType(f.Type, slices.Contains(key, name))
		if err != nil {
			return nil, fail.Job("cassandra.no_type", "field %q: %v", f.Name, err)
		}
		types = appendTypes(types, c.Keyspace, f.Type)
		columns = append(columns, quote(name)+" "+cql)
		names = append(names, name)
	}
	for _, name := range key {
		if !slices.Contains(names, name) {
			return nil, fail.Job("cassandra.no_key_field", "no field goes to the key column %q; there are %s", name,
				strings.Join(names, ", ")).
				WithFix("name columns of the records under partition_key and clustering")
		}
	}
	primary := "(" + quoteAll(c.PartitionKey) + ")"
	if len(c.Clustering) > 0 {
		primary += ", " + quoteAll(c.Clustering)
	}
	table := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s (%s, PRIMARY KEY (%s))", quote(c.Keyspace), quote(c.Table),
		strings.Join(columns, ", "), primary)
	return append(types, table), nil
}

// cqlType is a type as CREATE TABLE takes it. Lists are frozen, for newTarget's reason, and so is
// all that Cassandra wants frozen.
func cqlType(t record.Type, frozen bool) (string, error) {
	if !t.Kind.Nested() {
		return t.Kind.String(), nil
	}
	var elems []string
	for _, e := range t.Elems {
		cql, err := cqlType(e, true)
		if err != nil {
			return "", err
		}
		elems = append(elems, cql)
	}
	inner := strings.Join(elems, ", ")
	switch t.Kind {
	case record.Tuple:
		return "tuple<" + inner + ">", nil
	case record.Vector:
		return fmt.Sprintf("vector<%s, %d>", inner, t.Dim), nil
	case record.UDT:
		if t.Name == "" {
			return "", fmt.Errorf("a user-defined type without a name cannot be created")
		}
		inner = quote(bareName(t.Name))
	default:
		inner = t.Kind.String() + "<" + inner + ">"
	}
	if frozen || t.Frozen || t.Kind == record.List {
		return "frozen<" + inner + ">", nil
	}
	return inner, nil
}

// appendTypes appends the statements for the user-defined types within t, inner ones first, each once.
func appendTypes(statements []string, keyspace string, t record.Type) []string {
	for _, e := range t.Elems {
		statements = appendTypes(statements, keyspace, e)
	}
	if t.Kind != record.UDT {
		return statements
	}
	var parts []string
	for i, e := range t.Elems {
		cql, err := cqlType(e, true)
		if err != nil {
			return statements // cqlType of the whole field tells
		}
		parts = append(parts, quote(t.Names[i])+" "+cql)
	}
	create := fmt.Sprintf("CREATE TYPE IF NOT EXISTS %s.%s (%s)", quote(keyspace), quote(bareName(t.Name)),
		strings.Join(parts, ", "))
	if slices.Contains(statements, create) {
		return statements
	}
	return append(statements, create)
}

// bareName is the name of a user-defined type without its keyspace.
func bareName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// loadColumns reads the columns of a table: the key's in order, then the others by name, as SELECT * has them; none
// where there is no such table. The type of a column that cannot be read is only an error when the column is needed.
//
// Tables WITH COMPACT STORAGE, as Thrift made them, have columns that CQL does not show: one of type "empty", and in
// those without clustering columns a clustering column and a value that are not there, while their own columns are
// called static (Cassandra's TableMetadata.CompactTableMetadata).
func loadColumns(ctx context.Context, session *gocql.Session, keyspace, table string) ([]tableColumn, error) {
	udts, err := loadTypes(ctx, session, keyspace)
	if err != nil {
		return nil, err
	}
	var flags []string
	err = session.Query("SELECT flags FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?", keyspace,
		table).WithContext(ctx).Scan(&flags)
	isTable := err == nil
	if err != nil && !errors.Is(err, gocql.ErrNotFound) {
		return nil, classify(err)
	}
	thrift := isTable && !slices.Contains(flags, "compound") && !slices.Contains(flags, "dense") &&
		!slices.Contains(flags, "super")
	rows := session.Query("SELECT column_name, type, kind, position, clustering_order FROM system_schema.columns "+
		"WHERE keyspace_name = ? AND table_name = ?",
		keyspace, table).WithContext(ctx).Iter()
	var all []tableColumn
	for c := (tableColumn{}); rows.Scan(&c.name, &c.cql, &c.kind, &c.position, &c.order); {
		switch {
		case c.cql == "empty", thrift && (c.kind == "clustering" || c.kind == "regular"):
			continue
		case thrift && c.kind == "static":
			c.kind = "regular"
		}
		c.typ, c.err = record.ParseType(c.cql, udts)
		all = append(all, c)
	}
	if err := rows.Close(); err != nil {
		return nil, classify(err)
	}
	rank := map[string]int{"partition_key": -2, "clustering": -1}
	slices.SortFunc(all, func(a, b tableColumn) int {
		return cmp.Or(cmp.Compare(rank[a.kind], rank[b.kind]), cmp.Compare(a.position, b.position),
			cmp.Compare(a.name, b.name))
	})
	return all, nil
}

// loadTable reads the columns of a table that is written to.
func loadTable(ctx context.Context, session *gocql.Session, keyspace, table string) ([]tableColumn, error) {
	columns, err := loadColumns(ctx, session, keyspace, table)
	if err != nil {
		return nil, err
	}
	if len(columns) == 0 {
		var name string
		err := session.Query("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?", keyspace).
			WithContext(ctx).Scan(&name)
		if errors.Is(err, gocql.ErrNotFound) {
			return nil, fail.Job("cassandra.no_keyspace", "there is no keyspace %q", keyspace).
				WithFix("create it; its replication is yours to choose")
		}
		if err != nil {
			return nil, classify(err)
		}
		return nil, fail.Job("cassandra.no_table", "there is no table %s.%s", keyspace, table).
			WithFix("create it, or set create: true")
	}
	var name string
	err = session.Query("SELECT base_table_name FROM system_schema.views WHERE keyspace_name = ? AND view_name = ?",
		keyspace, table).WithContext(ctx).Scan(&name)
	switch {
	case err == nil:
		return nil, fail.Job("cassandra.view", "%s.%s is a materialized view, which takes no writes", keyspace, table).
			WithFix("write to its table, %s", name)
	case !errors.Is(err, gocql.ErrNotFound):
		return nil, classify(err)
	}
	return columns, nil
}

// loadTypes reads the user-defined types of a keyspace.
func loadTypes(ctx context.Context, session *gocql.Session, keyspace string) (map[string]record.Type, error) {
	type udt struct {
		name         string
		names, types []string
	}
	rows := session.Query("SELECT type_name, field_names, field_types FROM system_schema.types WHERE keyspace_name = ?",
		keyspace).
		WithContext(ctx).Iter()
	var todo []udt
	for u := (udt{}); rows.Scan(&u.name, &u.names, &u.types); u = (udt{}) {
		todo = append(todo, u)
	}
	if err := rows.Close(); err != nil {
		return nil, classify(err)
	}
	known := map[string]record.Type{}
	// Types may be made of others, so each round reads those whose parts are known by then.
	for len(known) < len(todo) {
		before := len(known)
		for _, u := range todo {
			t := record.Type{Kind: record.UDT, Name: u.name, Names: u.names}
			for _, text := range u.types {
				if part, err := record.ParseType(text, known); err == nil {
					t.Elems = append(t.Elems, part)
				}
			}
			if len(t.Elems) == len(u.types) {
				known[u.name] = t
			}
		}
		if len(known) == before {
			break // a column of such a type tells
		}
	}
	return known, nil
}
