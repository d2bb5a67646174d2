package cassandraio

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/gocql/gocql"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// A record becomes these statements:
//
//   - an upsert: one INSERT with the record's own version and expiry, which makes the row exist. Where the record has
//     cells, the INSERT holds those of this version and expiry, and an UPDATE follows for each other pair of them.
//   - a delete: one DELETE of the row with the record's version.
//   - changes of a row that is there: UPDATEs alone, since an INSERT would make the row exist (see changes.go).
//
// Unset fields are bound as unset, so that the server leaves their columns alone. A null is written at its cell's
// version; one whose version the source does not know, as Cassandra has none for a column without a value, is left
// alone. What has expired by now is written as a null at its version, since that is what its source shows: it hides
// older data and loses to newer.

// statement is a statement with its values.
type statement struct {
	cql  string
	args []any
}

// bound is an encoded value; nil: null.
type bound struct{ data []byte }

// MarshalCQL implements gocql.Marshaler.
func (v *bound) MarshalCQL(gocql.TypeInfo) ([]byte, error) { return v.data, nil }

// binder makes statements of records. What it gives shares its memory, until reset.
type binder struct {
	target *target
	texts  *texts
	now    int64 // seconds since 1970

	list   []statement
	cells  []cell
	cql    []byte
	terms  []byte
	args   []any
	values []bound
	data   []byte
}

// cell is what is to be done with a field's column.
type cell struct {
	do      action
	done    bool // in an earlier statement of the row
	version int64
	expires int64
}

type action uint8

const (
	leave action = iota
	clearCell
	setCell
)

func newBinder(t *target, texts *texts) *binder {
	// Not nil, since a part of it without length is an empty value and nil a null.
	return &binder{target: t, texts: texts, cells: make([]cell, len(t.columns)), data: []byte{}}
}

func (b *binder) reset(now int64) {
	b.now = now
	b.list, b.args, b.values, b.data = b.list[:0], b.args[:0], b.values[:0], b.data[:0]
}

// partition appends the partition key of a record to b, in a form that differs for different partitions.
func (b *binder) partition(key []byte, r *record.Record) ([]byte, error) {
	for _, f := range b.target.partition {
		c := &b.target.columns[f]
		if r.Values[f].IsNull() {
			return key, errNoKey(c)
		}
		var err error
		if key, err = appendPart(key, c.typ, r.Values[f]); err != nil {
			return key, errValue(c, err)
		}
	}
	return key, nil
}

// statements are those for a record, none where all of it has expired and nothing is to be hidden.
func (b *binder) statements(r *record.Record) ([]statement, error) {
	from := len(b.list)
	if err := b.keyed(r); err != nil {
		return nil, err
	}
	if r.Op == record.Delete {
		err := b.remove(r)
		return b.list[from:len(b.list):len(b.list)], err
	}
	b.plan(r)
	if !b.expired(r.Expires) {
		if err := b.insert(r); err != nil {
			return nil, err
		}
	}
	err := b.updates(r)
	return b.list[from:len(b.list):len(b.list)], err
}

// keyed checks that a record has a key.
func (b *binder) keyed(r *record.Record) error {
	for f := range b.target.columns {
		if c := &b.target.columns[f]; c.key && r.Values[f].IsNull() {
			return errNoKey(c)
		}
	}
	return nil
}

// updates adds an UPDATE for each pair of version and expiry of the cells that are still to be written.
func (b *binder) updates(r *record.Record) error {
	for f := range b.cells {
		if c := b.cells[f]; c.do != leave && !c.done {
			if err := b.update(r, c.version, c.expires); err != nil {
				return err
			}
		}
	}
	return nil
}

// plan decides what is to be done with each column but those of the key.
func (b *binder) plan(r *record.Record) {
	for f := range b.cells {
		c := cell{do: setCell, version: r.Version, expires: r.Expires}
		if r.Cells != nil && r.Cells[f].Version != 0 {
			c.version, c.expires = r.Cells[f].Version, r.Cells[f].Expires
		}
		v := r.Values[f]
		switch {
		case v.Kind() == record.Unset || b.target.columns[f].key:
			c.do = leave
		case v.IsNull() && r.Cells != nil && r.Cells[f].Version == 0:
			c.do = leave
		case v.IsNull() || b.expired(c.expires):
			c.do, c.expires = clearCell, 0
		}
		b.cells[f] = c
	}
}

func (b *binder) expired(at int64) bool { return b.target.keepTTL && at != 0 && at <= b.now }

// take tells whether a cell belongs into a statement of that version and expiry; it does so once.
func (b *binder) take(f int, version, expires int64) bool {
	c := &b.cells[f]
	if c.do == leave || c.done || c.version != version || (c.do == setCell && c.expires != expires) {
		return false
	}
	c.done = true
	return true
}

func (b *binder) insert(r *record.Record) error {
	from := len(b.args)
	b.cql = append(b.cql[:0], "INSERT INTO "...)
	b.cql = append(b.cql, b.target.name...)
	names, places := " (", ") VALUES ("
	terms := b.terms[:0] // of the values, which follow after all names
	for f := range b.target.columns {
		c := &b.target.columns[f]
		written := c.key || b.take(f, r.Version, r.Expires)
		if !written && c.typ.Kind == record.Tuple {
			continue // has no place that could be bound as unset
		}
		b.cql = append(append(b.cql, names...), c.quoted...)
		terms = append(terms, places...)
		var err error
		if terms, err = b.place(terms, f, r, written); err != nil {
			return err
		}
		names, places = ", ", ", "
	}
	b.terms = terms
	b.cql = append(append(b.cql, terms...), ") USING TIMESTAMP ? AND TTL ?"...)
	b.bindInt(r.Version)
	b.bindTTL(r.Expires)
	b.end(from)
	return nil
}

func (b *binder) update(r *record.Record, version, expires int64) error {
	from := len(b.args)
	b.cql = append(b.cql[:0], "UPDATE "...)
	b.cql = append(append(b.cql, b.target.name...), " USING TIMESTAMP ? AND TTL ?"...)
	b.bindInt(version)
	b.bindTTL(expires)
	sep := " SET "
	for f := range b.target.columns {
		c := &b.target.columns[f]
		written := b.take(f, version, expires)
		if c.key || (!written && c.typ.Kind == record.Tuple) {
			continue
		}
		b.cql = append(append(append(b.cql, sep...), c.quoted...), " = "...)
		var err error
		if b.cql, err = b.place(b.cql, f, r, written); err != nil {
			return err
		}
		sep = ", "
	}
	if err := b.where(r); err != nil {
		return err
	}
	b.end(from)
	return nil
}

func (b *binder) remove(r *record.Record) error {
	from := len(b.args)
	b.cql = append(b.cql[:0], "DELETE FROM "...)
	b.cql = append(append(b.cql, b.target.name...), " USING TIMESTAMP ?"...)
	b.bindInt(r.Version)
	if err := b.where(r); err != nil {
		return err
	}
	b.end(from)
	return nil
}

func (b *binder) where(r *record.Record) (err error) {
	sep := " WHERE "
	for f := range b.target.columns {
		c := &b.target.columns[f]
		if !c.key {
			continue
		}
		b.cql = append(append(append(b.cql, sep...), c.quoted...), " = "...)
		if b.cql, err = b.place(b.cql, f, r, true); err != nil {
			return err
		}
		sep = " AND "
	}
	return nil
}

func (b *binder) end(from int) {
	b.list = append(b.list, statement{cql: b.texts.of(b.cql), args: b.args[from:len(b.args):len(b.args)]})
}

// place appends the place of a field's value to a statement's text, and the value to its arguments.
func (b *binder) place(cql []byte, f int, r *record.Record, written bool) ([]byte, error) {
	c := &b.target.columns[f]
	switch {
	case !written:
		b.args = append(b.args, gocql.UnsetValue)
		return append(cql, '?'), nil
	case !c.key && b.cells[f].do == clearCell:
		return b.term(cql, c.typ, record.NullValue)
	}
	cql, err := b.term(cql, c.typ, r.Values[f])
	if err != nil {
		err = errValue(c, err)
	}
	return cql, err
}

// term is place for a type and a value. A tuple is written out with a place for each part, since gocql v1 cannot bind
// a tuple to one place.
func (b *binder) term(cql []byte, t record.Type, v record.Value) (_ []byte, err error) {
	switch {
	case t.Kind != record.Tuple && v.IsNull():
		b.bind(nil)
		return append(cql, '?'), nil
	case v.IsNull() || v.Kind() == record.Tuple && len(v.Elems()) == 0:
		return append(cql, "null"...), nil
	case t.Kind != record.Tuple || v.Kind() != record.Tuple || len(v.Elems()) > len(t.Elems):
		from := len(b.data)
		if b.data, err = appendValue(b.data, t, v); err != nil {
			return cql, err
		}
		b.bind(b.data[from:len(b.data):len(b.data)])
		return append(cql, '?'), nil
	}
	for i := range t.Elems {
		part := record.NullValue // Cassandra cannot show a tuple in JSON that is shorter than its type
		if i < len(v.Elems()) {
			part = v.Elems()[i]
		}
		cql = append(cql, "(,"[min(i, 1)])
		if cql, err = b.term(cql, t.Elems[i], part); err != nil {
			return cql, inside(t, i, err)
		}
	}
	return append(cql, ')'), nil
}

func (b *binder) bind(data []byte) {
	b.values = append(b.values, bound{data})
	b.args = append(b.args, &b.values[len(b.values)-1])
}

func (b *binder) bindInt(n int64) {
	from := len(b.data)
	b.data = binary.BigEndian.AppendUint64(b.data, uint64(n))
	b.bind(b.data[from:len(b.data):len(b.data)])
}

// bindTTL binds the seconds that remain; 0, for what never expires, also overrides the table's default.
func (b *binder) bindTTL(expires int64) {
	if !b.target.keepTTL {
		b.args = append(b.args, gocql.UnsetValue)
		return
	}
	var ttl int64
	if expires != 0 {
		ttl = min(expires-b.now, math.MaxInt32) // the server refuses far less
	}
	from := len(b.data)
	b.data = binary.BigEndian.AppendUint32(b.data, uint32(ttl))
	b.bind(b.data[from:len(b.data):len(b.data)])
}

func errNoKey(c *targetColumn) error {
	return fail.New(fail.Permanent, "cassandra.key_null",
		"field %q has no value, but its column %s belongs to the key", c.field, c.quoted).
		WithFix("filter such records out or give the field a default")
}

func errValue(c *targetColumn, err error) error {
	return fail.New(fail.Permanent, "cassandra.bad_value",
		"field %q does not fit column %s: %w", c.field, c.quoted, err)
}

// texts holds the texts of statements, of which a target has few, so that equal ones are made once.
type texts struct {
	mu  sync.Mutex
	all map[string]string
}

func (t *texts) of(cql []byte) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.all[string(cql)]; ok {
		return s
	}
	if t.all == nil {
		t.all = map[string]string{}
	}
	s := string(cql)
	t.all[s] = s
	return s
}
