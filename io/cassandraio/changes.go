package cassandraio

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// changes is how rows are compared with the table before they are written (write: changes).
//
// What differs is written at the write time of the cell that it replaces and a microsecond, and keeps that cell's
// expiry; into an empty column, at the record's version and a microsecond, with the record's expiry. So it wins over
// what was read, and loses to everything that is written after, also to a delete of the row: a tombstone is as late
// as the row's last write and a microsecond at least, and hides what is not later. Only UPDATEs are sent, which do
// not make a row exist. Therefore:
//
//   - a row that is not there (any more) is left alone: superseded;
//   - a column whose cell is later than the record's stays as it is; where nothing else
//     differs the record is superseded;
//   - a row in which such a column stands beside others that would be written was changed after it was read,
//     and what was made of it may be out of date: a dead letter of the code cassandra.row_changed, for which
//     a redrive reads the row again.
//
// A column that was cleared later than anything else in its row was written stays empty, although the record counts as
// written: Cassandra does not tell when a value was deleted.
type changes struct {
	layout     layout
	cql        string // reads rows of one partition
	columns    []int  // in the layout's table, of each field
	clustering []int  // fields of the clustering columns, in order
	in         record.Type
}

// compareBytes bounds the records whose rows are read by one request.
const compareBytes = 1 << 20

func newChanges(ctx context.Context, session *gocql.Session, c SinkConfig, t *target) (*changes, error) {
	names := make([]string, len(t.columns))
	for f, col := range t.columns {
		names[f] = col.name
	}
	read, err := loadSource(ctx, session, SourceConfig{Keyspace: c.Keyspace, Table: c.Table, Columns: names},
		connector.Need{Cells: true})
	if err != nil {
		return nil, err
	}
	g := &changes{layout: newLayout(read, false)}
	for f, col := range t.columns {
		at := slices.IndexFunc(read.columns, func(c column) bool { return c.name == col.name })
		g.columns = append(g.columns, at)
		if read.columns[at].multiCell() && !read.maxTimes {
			return nil, fail.Job("cassandra.no_write_time",
				"column %q: this version of Cassandra does not tell when a collection that is not frozen was written",
				names[f]).
				WithFix("drop the field by a transform, or leave write: changes out")
		}
	}
	var where, ordered []string
	for _, col := range read.partition {
		where = append(where, col.quoted+" = ?")
	}
	var types []record.Type
	for i, col := range read.clustering {
		g.clustering = append(g.clustering, slices.Index(g.columns, len(read.partition)+i))
		ordered, types = append(ordered, col.quoted), append(types, col.typ)
	}
	switch len(types) {
	case 0:
	case 1:
		where = append(where, ordered[0]+" IN ?")
		g.in = record.ListOf(types[0])
	default:
		where = append(where, "("+strings.Join(ordered, ", ")+") IN ?")
		g.in = record.ListOf(record.TupleOf(types...))
	}
	g.cql = "SELECT " + g.layout.list + " FROM " + t.name + " WHERE " + strings.Join(where, " AND ")
	return g, nil
}

// change compares rows of one partition with the table and writes what differs. Where the server refuses to look them
// up together it takes each alone.
func (w *writer) change(ctx context.Context, batch []*record.Record, rows []row, results []connector.Result) {
	b := w.binder()
	defer w.binders.Put(b)
	current, err := w.current(ctx, b, batch, rows)
	if err != nil {
		if len(rows) > 1 && fail.ClassOf(err) == fail.Permanent {
			for i := range rows {
				w.change(ctx, batch, rows[i:i+1], results)
			}
			return
		}
		for _, r := range rows {
			results[r.index].Err = err
		}
		return
	}
	var send []row
	bytes := 0
	for _, r := range rows {
		before := len(b.data)
		if r.statements == nil {
			res := &results[r.index]
			r.statements, res.Outcome, res.Err = w.changes.compare(b, batch[r.index], current)
		}
		if len(r.statements) == 0 {
			continue
		}
		size := len(b.data) - before
		if len(send) > 0 && bytes+size > int(w.sink.config.BatchBytes) {
			w.send(ctx, send, results)
			send, bytes = nil, 0
		}
		send, bytes = append(send, r), bytes+size
	}
	if len(send) > 0 {
		w.send(ctx, send, results)
	}
}

// found is a row as it stands in the table, or why it cannot be decoded.
type found struct {
	row *record.Record
	err error
}

// current reads the rows with the keys of some records of one partition, by their clustering columns.
func (w *writer) current(ctx context.Context, b *binder, batch []*record.Record, rows []row) (map[string]found, error) {
	g := w.changes
	args, keys, err := g.keys(b, batch, rows)
	if err != nil {
		return nil, err
	}
	all := make(map[string]found, len(rows))
	if keys == 0 {
		return all, nil
	}
	d := newRowDecoder(g.layout, "", nil, 0)
	now := time.Now().Unix()
	iter := w.session.Query(g.cql, args...).WithContext(ctx).Consistency(w.level).PageSize(keys + 1).Iter()
	for iter.Scan(d.dest...) {
		if !d.isRow() {
			continue
		}
		r := d.next()
		err := d.decode(r, now)
		if err != nil {
			err = fail.New(fail.Permanent, "cassandra.bad_value", "the row in the table cannot be read: %w", err).
				WithFix("drop the field by a transform, or fix the row")
		}
		key, wrong := g.key(nil, b.target, func(i int) record.Value { return r.Values[g.columns[g.clustering[i]]] })
		if wrong != nil {
			continue // it was not asked for
		}
		all[string(key)] = found{r, err}
	}
	return all, failure(lost(ctx, iter.Close()))
}

// keys binds the keys of the records that are to be compared.
func (g *changes) keys(b *binder, batch []*record.Record, rows []row) (args []any, n int, err error) {
	var in []record.Value
	var one *record.Record
	for _, r := range rows {
		if r.statements != nil {
			continue
		}
		one = batch[r.index]
		n++
		var parts []record.Value
		for _, f := range g.clustering {
			parts = append(parts, one.Values[f])
		}
		switch len(parts) {
		case 0:
		case 1:
			in = append(in, parts[0])
		default:
			in = append(in, record.Nested(record.Tuple, parts))
		}
	}
	if n == 0 {
		return nil, 0, nil
	}
	for _, f := range b.target.partition {
		data, err := appendValue(nil, b.target.columns[f].typ, one.Values[f])
		if err != nil {
			return nil, 0, errValue(&b.target.columns[f], err)
		}
		args = append(args, &bound{data})
	}
	if len(g.clustering) > 0 {
		data, err := appendValue(nil, g.in, record.Nested(record.List, in))
		if err != nil {
			return nil, 0, fail.New(fail.Permanent, "cassandra.bad_value", "the key does not fit the table: %w", err)
		}
		args = append(args, &bound{data})
	}
	return args, n, nil
}

// key appends clustering columns to b, in a form that differs for different rows.
func (g *changes) key(b []byte, t *target, value func(i int) record.Value) (_ []byte, err error) {
	for i, f := range g.clustering {
		if b, err = appendPart(b, t.columns[f].typ, value(i)); err != nil {
			return b, errValue(&t.columns[f], err)
		}
	}
	return b, nil
}

// compare gives the statements for what differs between a record and its row; none, and the outcome,
// where nothing is to be written.
func (g *changes) compare(b *binder, r *record.Record, current map[string]found) ([]statement, record.Outcome, error) {
	key, err := g.key(nil, b.target, func(i int) record.Value { return r.Values[g.clustering[i]] })
	if err != nil {
		return nil, record.Dead, err
	}
	is, there := current[string(key)]
	switch {
	case !there:
		return nil, record.Superseded, nil
	case is.err != nil:
		return nil, record.Dead, is.err
	}
	differs, later, err := g.plan(b, r, is.row)
	switch {
	case err != nil:
		return nil, record.Dead, err
	case differs && later != "":
		return nil, record.Dead, fail.New(fail.Permanent, "cassandra.row_changed",
			"column %q was written after the row had been read, so what was made of it may be out of date", later).
			WithFix("read the row again: reprise redrive RUN --code cassandra.row_changed")
	case differs:
		from := len(b.list)
		err := b.updates(r)
		return b.list[from:len(b.list):len(b.list)], record.Written, err
	case later != "":
		return nil, record.Superseded, nil
	}
	return nil, record.Unchanged, nil
}

// plan decides what is to be done with each column. later is one that was written later than
// the record's, with another value.
func (g *changes) plan(b *binder, r, is *record.Record) (differs bool, later string, err error) {
	for f := range b.cells {
		b.cells[f] = cell{do: leave}
		c, v := &b.target.columns[f], r.Values[f]
		if c.key || v.Kind() == record.Unset {
			continue
		}
		now, standing := is.Values[g.columns[f]], is.Cells[g.columns[f]]
		same, err := sameValue(c.typ, v, now)
		if err != nil {
			return false, "", errValue(c, err)
		}
		of := record.Cell{Version: r.Version, Expires: r.Expires}
		known := r.Cells == nil || r.Cells[f].Version != 0
		if r.Cells != nil && known {
			of = r.Cells[f]
		}
		do := cell{do: setCell, version: standing.Version + 1, expires: standing.Expires}
		if standing.Version == 0 {
			do.version, do.expires = r.Version+1, of.Expires
		}
		switch {
		case same, b.expired(do.expires):
			continue
		case standing.Version > of.Version:
			later = c.name
			continue
		case v.IsNull() && !known:
			continue // a null of unknown age
		case v.IsNull():
			do.do, do.expires = clearCell, 0
		}
		b.cells[f] = do
		differs = true
	}
	return differs, later, nil
}

// sameValue tells whether two values are the same in a column of type t: in sets and maps in any order; what Cassandra
// cannot tell from a null is one.
func sameValue(t record.Type, v, w record.Value) (bool, error) {
	if isNothing(t, v) || isNothing(t, w) {
		return isNothing(t, v) && isNothing(t, w), nil
	}
	a, err := canonical(nil, t, v)
	if err != nil {
		return false, err
	}
	b, err := canonical(nil, t, w)
	return bytes.Equal(a, b), err
}

// isNothing tells whether a value is none in a column of type t.
func isNothing(t record.Type, v record.Value) bool {
	switch {
	case v.IsNull():
		return true
	case t.Kind == record.Tuple, t.Kind == record.UDT && !t.Frozen:
		return !slices.ContainsFunc(v.Elems(), func(e record.Value) bool { return !e.IsNull() })
	case t.Kind == record.List, t.Kind == record.Set, t.Kind == record.Map:
		return !t.Frozen && len(v.Elems()) == 0
	}
	return false
}

// canonical appends a value in a form that is the same for equal values: the elements of sets and maps are sorted.
func canonical(b []byte, t record.Type, v record.Value) ([]byte, error) {
	if !t.Kind.Nested() {
		return appendValue(b, t, v)
	}
	if !fits(v.Kind(), t.Kind) {
		return appendValue(b, t, v) // which tells
	}
	width := 1
	if t.Kind == record.Map {
		width = 2
	}
	elems := v.Elems()
	if t.Kind == record.Tuple || t.Kind == record.UDT { // the last parts may be missing
		elems = append(slices.Clip(elems), make([]record.Value, max(0, len(t.Elems)-len(elems)))...)
	}
	var parts [][]byte
	for i := 0; i < len(elems); i += width {
		var part []byte
		for j := i; j < min(i+width, len(elems)); j++ {
			if elems[j].IsNull() {
				part = append(part, 0)
				continue
			}
			inner, err := canonical(nil, t.Elems[j%len(t.Elems)], elems[j])
			if err != nil {
				return b, inside(t, j, err)
			}
			part = append(appendUvint(append(part, 1), uint64(len(inner))), inner...)
		}
		parts = append(parts, part)
	}
	if t.Kind == record.Set || t.Kind == record.Map {
		slices.SortFunc(parts, bytes.Compare)
		parts = slices.CompactFunc(parts, bytes.Equal)
	}
	return append(b, bytes.Join(parts, nil)...), nil
}
