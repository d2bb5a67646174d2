package record

import (
	"slices"
	"strings"
	"time"
)

// Op is what a record asks of a sink.
type Op uint8

// The operations.
const (
	Upsert Op = iota
	Delete
)

// String is "upsert" or "delete".
func (o Op) String() string {
	if o == Delete {
		return "delete"
	}
	return "upsert"
}

// Origin tells where a record was read.
type Origin struct {
	Split    string // the split, as Split.String of package connector writes it
	Position []byte // of the page that held the record: reading from here finds it again; shared, not to be changed
	Page     int64  // number of that page, which means something to the worker alone that read it; it does not travel
	Asked    int64  // when that page was asked for, microseconds since 1970; 0: not known; it does not travel
	// the record's key at the source, whatever transforms make of it; shared, not to be changed; it does not travel
	Key []Value
}

// Cell is the write time and expiry of one field's cell.
type Cell struct {
	Version int64 // microseconds since 1970; 0: unknown
	Expires int64 // seconds since 1970; 0: never
}

// Record is one thing that flows. A record belongs to the step that holds it until it is handed on; after that
// it must not be changed, since several sinks may hold it.
type Record struct {
	Schema  *Schema
	Values  []Value // one for each field of the schema
	Version int64   // write time at the source, microseconds since 1970: the highest of the cells
	Expires int64   // when the whole record expires, seconds since 1970; 0: never
	Cells   []Cell  // one for each field, where the source gives them; else nil
	Op      Op      // a Delete has values in its key's fields only
	Origin  Origin
}

// Get is the value of a field; Unset where there is no such field.
func (r *Record) Get(name string) Value {
	if i := r.Schema.Index(name); i >= 0 {
		return r.Values[i]
	}
	return Value{}
}

// HasKey tells whether all fields of the key have a value.
func (r *Record) HasKey() bool {
	return !slices.ContainsFunc(r.Schema.Key, func(i int) bool { return r.Values[i].IsNull() })
}

// KeyText is the key as text, its parts joined by "|"; a "|" or "\" within a part follows a "\".
// Different keys have different texts.
func (r *Record) KeyText() string { return string(r.AppendKey(nil)) }

// AppendKey appends KeyText to b.
func (r *Record) AppendKey(b []byte) []byte {
	for i, k := range r.Schema.Key {
		if i > 0 {
			b = append(b, '|')
		}
		from := len(b)
		b = r.Values[k].AppendText(b, r.Schema.Fields[k].Type)
		if part := b[from:]; strings.ContainsAny(string(part), `|\`) {
			escaped := keyEscape.Replace(string(part))
			b = append(b[:from], escaped...)
		}
	}
	return b
}

var keyEscape = strings.NewReplacer(`\`, `\\`, `|`, `\|`)

// VersionTime is the version as a time.
func (r *Record) VersionTime() time.Time { return time.UnixMicro(r.Version).UTC() }

// Size is about the number of bytes that the record takes in memory and on the wire.
func (r *Record) Size() int {
	n := 64 + 16*len(r.Cells)
	for i := range r.Values {
		n += r.Values[i].Size()
	}
	return n
}

// Raised is the record with a version of at least floor, and cells of at least floor, empty ones included, so that it
// wins over whatever was written up to there. The record itself does not change.
func (r *Record) Raised(floor int64) *Record {
	below := func(c Cell) bool { return c.Version < floor }
	if r.Version >= floor && !slices.ContainsFunc(r.Cells, below) {
		return r
	}
	raised := *r
	raised.Version = max(r.Version, floor)
	raised.Cells = slices.Clone(r.Cells)
	for i := range raised.Cells {
		raised.Cells[i].Version = max(raised.Cells[i].Version, floor)
	}
	return &raised
}

// Clone is a copy with values of its own, for a step that makes several records of one.
func (r *Record) Clone() *Record {
	c := *r
	c.Values = append([]Value(nil), r.Values...)
	c.Cells = append([]Cell(nil), r.Cells...)
	return &c
}
