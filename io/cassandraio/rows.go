package cassandraio

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gocql/gocql"

	"reprise/io/cassandraio/plan"
	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// unknownVersion is the version of a row none of whose columns has a write time: one that was inserted with its key
// alone, or whose columns are all null. Cassandra does not tell when such a row was written. It is the lowest version,
// so every other write of the row wins.
const unknownVersion = 1

// layout is the list of a SELECT. It leaves out the columns of the partition key where those are known.
type layout struct {
	table *table
	list  string
	first int // the first of table.columns that is selected
	slots []slotRange
	// Index of the slot of the first write time; those of expiries follow, then the user's version, then the token
	times int
	width int   // number of slots
	timed []int // the field of each of table.timed; -1: not read
}

// slotRange are the slots of a column: one, or one for each part of a tuple, since gocql takes tuples apart.
type slotRange struct{ from, count int }

func newLayout(t *table, ring bool) layout {
	l := layout{table: t}
	for _, c := range t.timed {
		l.timed = append(l.timed, t.schema.Index(c.name))
	}
	if !ring {
		l.first = len(t.partition)
	}
	var list []string
	for _, c := range t.columns[l.first:] {
		list = append(list, c.quoted)
		n := 1
		if c.typ.Kind == record.Tuple {
			n = len(c.typ.Elems)
		}
		l.slots = append(l.slots, slotRange{l.width, n})
		l.width += n
	}
	l.times = l.width
	function := "WRITETIME"
	if t.maxTimes {
		function = "MAXWRITETIME"
	}
	if l.writeTimes() {
		for _, c := range t.timed {
			list = append(list, function+"("+c.quoted+")")
		}
		l.width += len(t.timed)
	}
	if t.expiry {
		for _, c := range t.timed {
			list = append(list, "TTL("+c.quoted+")")
		}
		l.width += len(t.timed)
	}
	if t.version != nil {
		list = append(list, t.version.quoted)
		l.width++
	}
	if ring {
		list = append(list, t.tokenOf())
		l.width++
	}
	l.list = strings.Join(list, ", ")
	return l
}

// writeTimes tells whether write times are selected.
func (l *layout) writeTimes() bool { return l.table.version == nil || l.table.cells }

// tokenOf is the token of the partition key in CQL.
func (t *table) tokenOf() string { return "token(" + quotedList(t.partition) + ")" }

func quotedList(columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.quoted
	}
	return strings.Join(names, ", ")
}

// slot takes the bytes of a column as they came. They alias the answer's frame, which gocql makes anew for each.
type slot struct{ data []byte }

// UnmarshalCQL implements gocql.Unmarshaler.
func (s *slot) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	s.data = data
	return nil
}

// rowDecoder makes records of rows. Records, values and bytes are allocated for a group of rows at once, small enough
// that a record that lives on keeps little else alive; nothing of a record aliases the frame of its page.
type rowDecoder struct {
	layout
	origin record.Origin
	fixed  []record.Value // the partition key, where it is known
	maxRow int64

	slots   []slot
	dest    []any
	records []record.Record
	values  []record.Value
	cells   []record.Cell
	bytes   []byte
}

const (
	groupRows  = 16
	groupBytes = 16 << 10
)

func newRowDecoder(l layout, split string, fixed []record.Value, maxRow int64) *rowDecoder {
	d := &rowDecoder{layout: l, origin: record.Origin{Split: split}, fixed: fixed, maxRow: maxRow,
		slots: make([]slot, l.width), dest: make([]any, l.width)}
	for i := range d.slots {
		d.dest[i] = &d.slots[i]
	}
	return d
}

// size is the number of bytes of the row.
func (d *rowDecoder) size() int64 {
	n := int64(0)
	for i := range d.slots {
		n += int64(len(d.slots[i].data))
	}
	return n
}

// raw is the i-th of the table's columns, which must be selected and no tuple.
func (d *rowDecoder) raw(column int) []byte { return d.slots[d.layout.slots[column-d.first].from].data }

// hasStatic tells whether one of the static columns that are read has a value.
func (d *rowDecoder) hasStatic() bool {
	for i, c := range d.table.columns[d.first:] {
		s := d.layout.slots[i]
		if c.kind == "static" && slices.ContainsFunc(d.slots[s.from:s.from+s.count],
			func(s slot) bool { return s.data != nil }) {
			return true
		}
	}
	return false
}

// emptyKey is the column of the key that has an empty value, of a type that needs bytes; "": none has.
func (d *rowDecoder) emptyKey() string {
	for i := d.first; i < len(d.table.partition)+len(d.table.clustering); i++ {
		c := d.table.columns[i]
		switch c.typ.Kind {
		case record.Text, record.Blob, record.Tuple:
		default:
			if data := d.raw(i); data != nil && len(data) == 0 {
				return c.name
			}
		}
	}
	return ""
}

// isRow is false for what the server gives of a partition that has static columns and no rows.
func (d *rowDecoder) isRow() bool {
	if !d.table.static {
		return true
	}
	from := d.layout.slots[len(d.table.partition)-d.first].from
	last := d.layout.slots[len(d.table.partition)+len(d.table.clustering)-1-d.first]
	for i := from; i < last.from+last.count; i++ {
		if d.slots[i].data != nil {
			return true
		}
	}
	return false
}

// clustering appends the row's clustering columns.
func (d *rowDecoder) clustering(key [][]byte) [][]byte {
	for i := range d.table.clustering {
		key = append(key, d.raw(len(d.table.partition)+i))
	}
	return key
}

// rowToken is the row's token.
func (d *rowDecoder) rowToken() int64 {
	return int64(binary.BigEndian.Uint64(d.slots[d.width-1].data))
}

// position appends to b where the row stands in its split. A row with an empty value of a type that needs bytes has no
// position (plan.ErrNoPosition); nor has a partition that has static columns alone.
func (d *rowDecoder) position(b []byte) ([]byte, error) {
	var of [16][]byte
	row := d.clustering(of[:0])
	switch {
	case !d.isRow():
		return b, plan.ErrNoPosition
	case d.fixed != nil && len(row) == 0:
		return append(b, onlyRow...), nil
	case d.fixed != nil:
		return d.table.order.Append(b, row)
	}
	key := of[len(row):len(row)]
	for i := range d.table.partition {
		key = append(key, d.raw(i))
	}
	return d.table.order.AppendRingRow(b, d.rowToken(), key, row)
}

// onlyRow is the position of the row of a partition without clustering columns.
var onlyRow = []byte{1}

// add decodes the row into page: a record, or a dead letter that holds the row's key. now is in seconds.
func (d *rowDecoder) add(page *connector.Page, now int64) {
	size := d.size()
	if size > d.maxRow {
		page.Dead = append(page.Dead,
			d.dead(fail.New(fail.Permanent, "cassandra.row_too_large", "the row has %s, more than max_row: %s",
				connector.HumanBytes(size), connector.HumanBytes(d.maxRow)).
				WithFix("raise max_row, or leave its large columns out")))
		return
	}
	if name := d.emptyKey(); name != "" {
		page.Dead = append(page.Dead, d.dead(fail.New(fail.Permanent, "cassandra.empty_key",
			"column %q of the key holds an empty value, which is not a valid %s and cannot be written elsewhere",
			name, d.table.typeOf(name)).
			WithFix("write the row under a proper key, and delete this one")))
		return
	}
	r := d.next()
	err := d.decode(r, now)
	if err == nil && !d.isRow() {
		page.Dead = append(page.Dead, d.staticOnly(r))
		page.Bytes += size
		return
	}
	if err != nil {
		page.Dead = append(page.Dead, d.dead(fail.New(fail.Permanent, "cassandra.bad_value", "%w", err).
			WithFix("read the table without this column, or fix the row")))
		return
	}
	page.Records = append(page.Records, r)
	page.Bytes += size + int64(perRecord+perValue*len(r.Values)+16*len(r.Cells))
}

// What a record and a value take beside their bytes.
const (
	perRecord = 160
	perValue  = 56
)

// next is an empty record of the group.
func (d *rowDecoder) next() *record.Record {
	n := len(d.table.columns)
	if len(d.records) == 0 {
		d.records = make([]record.Record, groupRows)
		d.values = make([]record.Value, groupRows*n)
		if d.table.cells {
			d.cells = make([]record.Cell, groupRows*n)
		}
	}
	r := &d.records[0]
	r.Schema, r.Origin = d.table.schema, d.origin
	r.Values = d.values[:n:n]
	d.records, d.values = d.records[1:], d.values[n:]
	if d.table.cells {
		r.Cells, d.cells = d.cells[:n:n], d.cells[n:]
	}
	return r
}

func (d *rowDecoder) decode(r *record.Record, now int64) error {
	copy(r.Values, d.fixed)
	for i, s := range d.layout.slots {
		c := &d.table.columns[d.first+i]
		var err error
		if c.typ.Kind == record.Tuple {
			r.Values[d.first+i], err = d.tuple(c.typ, d.slots[s.from:s.from+s.count])
		} else {
			r.Values[d.first+i], err = decodeValue(c.typ, d.own(c.typ.Kind, d.slots[s.from].data))
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", c.name, err)
		}
	}
	at := d.times
	if d.writeTimes() {
		r.Version = d.writeTime(r, d.slots[at:at+len(d.table.timed)])
		at += len(d.table.timed)
	}
	if d.table.expiry {
		r.Expires = d.expiry(r, d.slots[at:at+len(d.table.timed)], now)
		at += len(d.table.timed)
	}
	if d.table.version != nil {
		var err error
		if r.Version, err = versionOf(d.table.version.typ, d.slots[at].data); err != nil {
			return fmt.Errorf("version column %q: %w", d.table.version.name, err)
		}
	}
	r.Version = max(r.Version, unknownVersion)
	return nil
}

// own is a copy of data in the group's memory, where a value of the kind would alias it.
func (d *rowDecoder) own(k record.Kind, data []byte) []byte {
	if len(data) == 0 || (plan.Size(k) > 0 && k != record.UUID && k != record.TimeUUID) {
		return data
	}
	if len(data) > groupBytes/4 {
		return append([]byte(nil), data...)
	}
	if len(data) > cap(d.bytes)-len(d.bytes) {
		d.bytes = make([]byte, 0, groupBytes)
	}
	from := len(d.bytes)
	d.bytes = append(d.bytes, data...)
	return d.bytes[from:len(d.bytes):len(d.bytes)]
}

// tuple puts a tuple together. One all of whose parts are null cannot be told from a null.
func (d *rowDecoder) tuple(t record.Type, parts []slot) (record.Value, error) {
	values := make([]record.Value, len(parts))
	null := true
	for i := range parts {
		var err error
		if values[i], err = decodeValue(t.Elems[i], d.own(t.Elems[i].Kind, parts[i].data)); err != nil {
			return record.Value{}, inside(t, i, err)
		}
		null = null && parts[i].data == nil
	}
	if null {
		return record.NullValue, nil
	}
	return record.Nested(record.Tuple, values), nil
}

// writeTime is the latest write time, and sets those of the cells.
func (d *rowDecoder) writeTime(r *record.Record, times []slot) int64 {
	latest := int64(0)
	for i := range times {
		if len(times[i].data) != 8 {
			continue
		}
		at := int64(binary.BigEndian.Uint64(times[i].data))
		latest = max(latest, at)
		if r.Cells != nil {
			if f := d.layout.timed[i]; f >= 0 {
				r.Cells[f].Version = at
			}
		}
	}
	return latest
}

// expiry is when the last cell of the row expires, 0 where one never does, and sets those of the cells.
func (d *rowDecoder) expiry(r *record.Record, ttls []slot, now int64) int64 {
	last, forever := int64(0), false
	for i := range ttls {
		f := d.layout.timed[i]
		if f >= 0 && r.Values[f].IsNull() {
			continue
		}
		ttl := longest(ttls[i].data, d.table.timed[i].multiCell())
		if ttl == 0 {
			forever = true
			continue
		}
		last = max(last, now+ttl)
		if f >= 0 && r.Cells != nil {
			r.Cells[f].Expires = now + ttl
		}
	}
	if forever {
		return 0
	}
	return last
}

// longest is the number of seconds that a column lives on, of several cells the longest; 0: for ever.
func longest(data []byte, multiCell bool) int64 {
	if !multiCell {
		if len(data) != 4 {
			return 0
		}
		return int64(int32(binary.BigEndian.Uint32(data)))
	}
	// list<int>, null for a cell that does not expire
	v, err := decodeValue(record.ListOf(record.Of(record.Int)), data)
	if err != nil {
		return 0
	}
	ttl := int64(0)
	for _, e := range v.Elems() {
		if e.IsNull() {
			return 0
		}
		ttl = max(ttl, e.Int())
	}
	return ttl
}

// versionOf is the version in a column that the user named, in microseconds; 0 for a null.
func versionOf(t record.Type, data []byte) (int64, error) {
	v, err := decodeValue(t, data)
	switch {
	case err != nil || v.IsNull():
		return 0, err
	case t.Kind == record.BigInt:
		return v.Int(), nil
	}
	return v.Time().UnixMicro(), nil
}

func (t *table) typeOf(column string) record.Type {
	for _, c := range t.columns {
		if c.name == column {
			return c.typ
		}
	}
	return record.Type{}
}

// dead is a dead letter with the row's key, as JSON in Raw, and as the record where it can be decoded.
func (d *rowDecoder) dead(err *fail.Error) *record.DeadLetter {
	key := d.key()
	letter := &record.DeadLetter{Raw: key.AppendJSON(nil), Class: err.Class.String(), Code: err.Code,
		Message: err.Error(), Attempts: 1}
	if key.HasKey() {
		letter.Record = key
	}
	return letter
}

// staticOnly is the dead letter of a partition that has static columns and no rows: no record can hold them.
func (d *rowDecoder) staticOnly(r *record.Record) *record.DeadLetter {
	err := fail.New(fail.Permanent, "cassandra.static_only",
		"the partition has static columns and no rows, so there is no record that could hold them").
		WithFix("copy them by hand, or insert a row into the partition and redrive; leave the static columns out if " +
			"they do not matter")
	letter := &record.DeadLetter{Raw: r.AppendJSON(nil), Class: err.Class.String(), Code: err.Code,
		Message: err.Error(), Attempts: 1}
	if d.fixed != nil {
		letter.Place = &record.Place{Partition: d.table.partitionName(d.fixed), End: plan.PastAll}
	} else {
		token := plan.AppendToken(nil, d.rowToken())
		letter.Place = &record.Place{Partition: plan.RingName, Start: token,
			End: append(slices.Clip(token), plan.RingDone)}
	}
	return letter
}

// key is a record of the row's key alone.
func (d *rowDecoder) key() *record.Record {
	r := &record.Record{Schema: d.table.schema, Values: make([]record.Value, len(d.table.columns)), Origin: d.origin}
	copy(r.Values, d.fixed)
	for i := d.first; i < len(d.table.partition)+len(d.table.clustering); i++ {
		t := d.table.columns[i].typ
		if t.Kind == record.Tuple {
			s := d.layout.slots[i-d.first]
			r.Values[i], _ = d.tuple(t, d.slots[s.from:s.from+s.count])
			continue
		}
		r.Values[i], _ = decodeValue(t, append([]byte(nil), d.raw(i)...))
	}
	return r
}
