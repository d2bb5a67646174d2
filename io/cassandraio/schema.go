package cassandraio

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gocql/gocql"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// table is a table as a source reads it.
type table struct {
	name       string // quoted, with its keyspace
	columns    []column
	schema     *record.Schema // a field for each of columns, in order
	partition  []column       // the partition key; the first columns
	clustering []column       // the clustering columns; those that follow
	order      plan.Order     // of the rows of a partition
	static     bool           // it has static columns, so that a partition may exist without rows
	version    *column        // the user's; nil: the latest write time of timed
	timed      []column       // whose write times and expiries are read
	maxTimes   bool           // the server has MAXWRITETIME (5.0 and later), which takes collections too
	expiry     bool           // TTLs are to be read
	cells      bool           // write times and expiries of each column are to be kept
}

type column struct {
	name   string
	quoted string
	typ    record.Type
	kind   string // partition_key, clustering, static, regular
	desc   bool
}

// multiCell tells whether the column is stored in several cells, one for each element.
func (c column) multiCell() bool {
	switch c.typ.Kind {
	case record.List, record.Set, record.Map, record.UDT:
		return !c.typ.Frozen && c.isTimed()
	}
	return false
}

// isTimed tells whether the column's cells have a write time.
func (c column) isTimed() bool { return c.kind == "regular" || c.kind == "static" }

// loadSource reads what a source needs to know of its table.
func loadSource(ctx context.Context, session *gocql.Session, c SourceConfig, need connector.Need) (*table, error) {
	isCounter, lives, err := tableOptions(ctx, session, c)
	if err != nil {
		return nil, err
	}
	if isCounter {
		return nil, fail.Job("cassandra.counter",
			"%s.%s holds counters, which cannot be reprocessed: writing one again would count twice", c.Keyspace,
			c.Table).
			WithFix("read another table")
	}
	all, err := loadColumns(ctx, session, c.Keyspace, c.Table)
	if err != nil {
		return nil, err
	}
	release := ""
	if err := session.Query("SELECT release_version FROM system.local").WithContext(ctx).Scan(&release); err != nil {
		return nil, classify(err)
	}
	major, _, _ := strings.Cut(release, ".")
	n, _ := strconv.Atoi(major)
	t := &table{name: quote(c.Keyspace) + "." + quote(c.Table), maxTimes: n >= 5, cells: need.Cells,
		expiry: need.Cells || c.Expiry || lives}
	if err := t.choose(c, all); err != nil {
		return nil, err
	}
	return t, nil
}

// tableOptions reads whether a table holds counters and whether its rows expire by default. Views have neither.
func tableOptions(ctx context.Context, session *gocql.Session, c SourceConfig) (isCounter, lives bool, err error) {
	tables, isCounter, lives, found, err := keyspaceTables(ctx, session, c.Keyspace, c.Table)
	if err != nil || found {
		return isCounter, lives, err
	}
	if len(tables) == 0 {
		return false, false, errNoKeyspace(ctx, session, c.Keyspace)
	}
	return false, false, fail.Job("cassandra.no_table", "there is no table %s.%s; the keyspace has %s", c.Keyspace,
		c.Table, columnNames(tables)).
		WithFix("%s", didYouMean(c.Table, tables, "check the table's name"))
}

func keyspaceTables(ctx context.Context, session *gocql.Session, keyspace,
	table string) (names []string, isCounter, lives, found bool, err error) {
	rows := session.Query("SELECT table_name, flags, default_time_to_live FROM system_schema.tables WHERE "+
		"keyspace_name = ?", keyspace).WithContext(ctx).Iter()
	var (
		name  string
		flags []string
		ttl   int
	)
	for ; rows.Scan(&name, &flags, &ttl); flags = nil {
		names = append(names, name)
		if name == table {
			isCounter, lives, found = slices.Contains(flags, "counter"), ttl > 0, true
		}
	}
	if err := rows.Close(); err != nil {
		return nil, false, false, false, classify(err)
	}
	views := session.Query("SELECT view_name FROM system_schema.views WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Iter()
	for views.Scan(&name) {
		names = append(names, name)
		found = found || name == table
	}
	return names, isCounter, lives, found, classify(views.Close())
}

func errNoKeyspace(ctx context.Context, session *gocql.Session, keyspace string) error {
	rows := session.Query("SELECT keyspace_name FROM system_schema.keyspaces").WithContext(ctx).Iter()
	var all []string
	for name := ""; rows.Scan(&name); {
		if !strings.HasPrefix(name, "system") {
			all = append(all, name)
		}
	}
	if err := rows.Close(); err != nil {
		return classify(err)
	}
	if slices.Contains(all, keyspace) {
		return fail.Job("cassandra.no_table", "the keyspace %s has no tables", keyspace).
			WithFix("check the keyspace's name")
	}
	return fail.Job("cassandra.no_table", "there is no keyspace %s; the cluster has %s", keyspace, columnNames(all)).
		WithFix("%s", didYouMean(keyspace, all, "check the keyspace's name, and that this is the right cluster"))
}

func didYouMean(word string, known []string, otherwise string) string {
	if near := fail.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return otherwise
}

// choose takes the columns that the settings name.
func (t *table) choose(c SourceConfig, all []tableColumn) error {
	var names []string
	for _, col := range all {
		names = append(names, col.name)
	}
	find := func(name, setting string) (column, error) {
		i := slices.Index(names, name)
		if i < 0 {
			return column{}, fail.Job("cassandra.no_column", "%s: the table %s.%s has no column %q; it has %s", setting,
				c.Keyspace, c.Table, name, columnNames(names)).
				WithFix("%s", didYouMean(name, names, "check the column's name"))
		}
		col := all[i]
		if col.err != nil {
			return column{}, fail.Job("cassandra.column_type", "column %q cannot be read: %v", name, col.err).
				WithFix("leave it out by naming the others under columns")
		}
		return column{name: name, quoted: quote(name), typ: col.typ, kind: col.kind, desc: col.order == "desc"}, nil
	}
	for _, tc := range all {
		t.static = t.static || tc.kind == "static"
		if tc.kind != "partition_key" && tc.kind != "clustering" {
			continue
		}
		col, err := find(tc.name, "key")
		if err != nil {
			return err
		}
		if col.kind == "partition_key" {
			t.partition = append(t.partition, col)
		} else {
			t.clustering = append(t.clustering, col)
			t.order = append(t.order, plan.Part{Name: col.name, Kind: col.typ.Kind, Desc: col.desc})
		}
		t.columns = append(t.columns, col)
	}
	key := len(t.columns)
	chosen := c.Columns
	if len(chosen) == 0 {
		chosen = names
	}
	for _, name := range chosen {
		if slices.ContainsFunc(t.columns, func(col column) bool { return col.name == name }) {
			continue
		}
		col, err := find(name, "columns")
		if err != nil {
			return err
		}
		t.columns = append(t.columns, col)
	}
	if c.Version != "" {
		col, err := find(c.Version, "version")
		if err != nil {
			return err
		}
		switch col.typ.Kind {
		case record.Timestamp, record.TimeUUID, record.BigInt:
		default:
			return fail.Job("cassandra.version_type", "version: column %q is a %s", c.Version, col.typ).
				WithFix("name a timestamp, a timeuuid, or a bigint of microseconds since 1970")
		}
		t.version = &col
	}
	t.chooseTimed(all)
	fields := make([]record.Field, len(t.columns))
	keyNames := make([]string, key)
	for i, col := range t.columns {
		fields[i] = record.Field{Name: col.name, Type: col.typ}
		if i < key {
			keyNames[i] = col.name
		}
	}
	var err error
	t.schema, err = record.NewSchema(fields, keyNames...)
	return err
}

// chooseTimed takes the columns whose cells give the version: those that are read, or all where only the key is.
func (t *table) chooseTimed(all []tableColumn) {
	columns := t.columns
	if !slices.ContainsFunc(columns, column.isTimed) {
		columns = nil
		for _, col := range all {
			columns = append(columns, column{name: col.name, quoted: quote(col.name), typ: col.typ, kind: col.kind})
		}
	}
	for _, col := range columns {
		// Before 5.0 a column of several cells has no write time and no TTL.
		if col.isTimed() && (t.maxTimes || !col.multiCell()) {
			t.timed = append(t.timed, col)
		}
	}
}

// keysOnly is the table with the columns of its key alone.
func (t *table) keysOnly() *table {
	keys := *t
	keys.columns = t.columns[:len(t.partition)+len(t.clustering)]
	keys.timed, keys.version, keys.expiry, keys.cells = nil, nil, false, false
	return &keys
}
