package compare

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// comparer compares the records of a sink with the rows of its target.
type comparer struct {
	view   connector.View
	want   *record.Schema
	got    *record.Schema
	fields []pair
	floor  int64 // see Sides
	key    []int // fields of want that make up the key of got; idPart: the id
	id     *connector.Template
}

// idField is the field of a target whose value the records tell by a template.
const (
	idField = "_id"
	idPart  = -1
)

// pair is a field on both sides.
type pair struct {
	name      string
	want, got int
	typ       record.Type // of the record's
	tolerate  *Tolerance
}

// many tells whether several rows of the source may become one row of the target, whose key does not hold theirs.
func (m *comparer) many(source *record.Schema) bool {
	return slices.ContainsFunc(source.Key, func(k int) bool {
		name := source.Fields[k].Name
		return !slices.Contains(m.keyFields(), name)
	})
}

// keyFields are the fields of the records that the target's key holds.
func (m *comparer) keyFields() (names []string) {
	for _, f := range m.key {
		if f == idPart {
			names = append(names, m.id.Fields(m.want)...)
		} else {
			names = append(names, m.want.Fields[f].Name)
		}
	}
	return names
}

// newComparer matches the fields of the records with those of the target, which must have all that are compared.
func newComparer(want, got *record.Schema, view connector.View, c Config) (*comparer, error) {
	m := &comparer{view: view, want: want, got: got}
	for _, name := range c.Ignore {
		if want.Index(name) < 0 {
			return nil, fail.Job("verify.ignore", "verify.ignore: there is no field %q; there are %s", name,
				strings.Join(want.Names(), ", "))
		}
	}
	for i, f := range want.Fields {
		if slices.Contains(c.Ignore, f.Name) || slices.Contains(view.Leave, f.Name) {
			continue
		}
		p := pair{name: f.Name, want: i, got: got.Index(m.name(f.Name)), typ: f.Type}
		if p.got < 0 {
			return nil, fail.Job("verify.no_field", "the target has no field %q", m.name(f.Name)).
				WithFix("name it in verify.ignore, if it need not be there")
		}
		if t, ok := c.Tolerate[f.Name]; ok {
			p.tolerate = &t
		}
		m.fields = append(m.fields, p)
	}
	for _, k := range got.Key {
		if view.ID != "" && got.Fields[k].Name == idField {
			var err error
			if m.id, err = connector.ParseTemplate(view.ID, want); err != nil {
				return nil, err
			}
			m.key = append(m.key, idPart)
			continue
		}
		i := slices.IndexFunc(want.Fields, func(f record.Field) bool { return m.name(f.Name) == got.Fields[k].Name })
		if i < 0 {
			return nil, fail.Job("verify.no_key", "no field of the records goes to %q, which is part of the target's "+
				"key", got.Fields[k].Name)
		}
		m.key = append(m.key, i)
	}
	return m, nil
}

func (m *comparer) name(field string) string {
	if other, ok := m.view.Names[field]; ok {
		return other
	}
	return field
}

// keyOf is a record that asks the target for the row that a record becomes.
func (m *comparer) keyOf(r *record.Record) (*record.Record, error) {
	values := make([]record.Value, len(m.key))
	for i, f := range m.key {
		if f == idPart {
			id, err := m.id.Append(nil, r)
			if err != nil {
				return nil, err
			}
			values[i] = record.String(string(id))
			continue
		}
		if values[i] = r.Values[f]; values[i].IsNull() {
			return nil, fmt.Errorf("the key field %q has no value", m.want.Fields[f].Name)
		}
	}
	return keyRecord(m.got, values), nil
}

// keyText is a key for people: the id alone, where the target has one.
func (m *comparer) keyText(key *record.Record) string {
	if m.id != nil {
		return key.Get(idField).Str()
	}
	return key.KeyText()
}

// keyRecord is a record with nothing but a key.
func keyRecord(s *record.Schema, key []record.Value) *record.Record {
	r := &record.Record{Schema: s, Values: make([]record.Value, len(s.Fields))}
	for i, k := range s.Key {
		r.Values[k] = key[i]
	}
	return r
}

// keyForms are the forms of the parts of a key.
func keyForms(r *record.Record) (parts [][]byte) {
	for _, k := range r.Schema.Key {
		parts = append(parts, appendForm(nil, r.Values[k], r.Schema.Fields[k].Type))
	}
	return parts
}

// keyForm is the key in a form that is the same on both sides.
func keyForm(r *record.Record) string { return string(bytes.Join(keyForms(r), nil)) }

// verdict is what is wrong with one row.
type verdict struct {
	kind   Kind // "": nothing
	fields []Difference
	digest [16]byte // of what was read on both sides
}

// unreadable is what a target gives instead of a row that it cannot decode.
type unreadable struct{ message string }

// newest are the records of one key that may win at a sink: those of the highest version.
type newest []*record.Record

// mostEqual are kept of the records of one key and one version; where more differ, the target's row may be one of the
// others, and looks different.
const mostEqual = 100

// add adds a record of the same key.
func (n newest) add(r *record.Record) newest {
	switch {
	case len(n) == 0 || r.Version > n[0].Version:
		return newest{r}
	case r.Version < n[0].Version || len(n) == mostEqual:
		return n
	}
	return append(n, r)
}

// written tells whether there is a row once a sink has taken them.
func (n newest) written() bool {
	return slices.ContainsFunc(n, func(r *record.Record) bool { return r.Op != record.Delete })
}

// compare compares what the job would write, none or a delete: nothing, with what the target holds, none or a delete:
// nothing.
func (m *comparer) compare(want newest, p connector.Page) verdict {
	got, bad := latest(p)
	v := m.compareOne(want, got, bad)
	there := 0
	for _, r := range p.Records {
		if r.Op != record.Delete {
			there++
		}
	}
	if v.kind == "" && there > 1 {
		v.kind, v.digest = Double, m.digest(want, got)
	}
	return v
}

func (m *comparer) compareOne(want newest, got *record.Record, bad *unreadable) verdict {
	rows := slices.DeleteFunc(slices.Clone(want), func(r *record.Record) bool { return r.Op == record.Delete })
	none := len(want) == 0 || len(rows) < len(want)
	if got != nil && got.Op == record.Delete {
		got = nil
	}
	v := verdict{}
	switch {
	case bad != nil && len(rows) > 0:
		v.kind, v.fields = Different, []Difference{{Field: "(row)", Want: "a row", Got: bad.message}}
	case none && got == nil && bad == nil:
		return v
	case len(rows) == 0:
		v.kind = Extra
	case got == nil:
		v.kind = Missing
	default:
		v.fields = m.differences(rows, got)
		if version := rows[0].Version; m.view.KeysAlone && len(v.fields) == 0 && got.Version < version {
			v.kind = Stale // nothing else tells that the row has changed since
			v.fields = []Difference{{Field: "(version)", Want: fmt.Sprint(version), Got: fmt.Sprint(got.Version)}}
			break
		}
		if len(v.fields) == 0 {
			return v
		}
		v.kind = Different
		switch version := rows[0].Version; {
		case !m.view.Versions || got.Version <= unknownVersion || got.Version == version:
		case got.Version < max(version, m.floor):
			v.kind = Stale
		case version > unknownVersion:
			v.kind = Newer
		}
	}
	v.digest = m.digest(rows, got)
	return v
}

// differences are the fields that hold what none of the records has. Of several of one version systems choose in
// their own ways, Cassandra field by field.
func (m *comparer) differences(want newest, got *record.Record) (found []Difference) {
	var b []byte
	for i := range m.fields {
		p := &m.fields[i]
		y := got.Values[p.got]
		b = b[:0]
		same := slices.ContainsFunc(want, func(w *record.Record) bool {
			x := w.Values[p.want]
			if x.Equal(y) || p.tolerate != nil && p.tolerate.within(x, y) {
				return true
			}
			if len(b) == 0 {
				b = appendField(b, y, p.typ, m.view.EmptyIsNull)
			}
			return bytes.Equal(appendField(nil, x, p.typ, m.view.EmptyIsNull), b)
		})
		if !same {
			found = append(found, Difference{Field: p.name, Want: brief(want[0].Values[p.want], p.typ),
				Got: brief(y, m.got.Fields[p.got].Type)})
		}
	}
	return found
}

// brief is a value as JSON, a long one cut.
func brief(v record.Value, t record.Type) string {
	const enough = 200
	text := string(v.AppendJSON(nil, t))
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "") + "..."
	}
	return text
}

// digest is the same for the same records in any order.
func (m *comparer) digest(want newest, got *record.Record) (sum [16]byte) {
	var all [][]byte
	for _, w := range want {
		var b []byte
		for _, p := range m.fields {
			b = appendField(b, w.Values[p.want], p.typ, m.view.EmptyIsNull)
		}
		all = append(all, b)
	}
	slices.SortFunc(all, bytes.Compare)
	all = slices.CompactFunc(all, bytes.Equal)
	if got != nil {
		b := []byte{'='}
		for _, p := range m.fields {
			b = appendField(b, got.Values[p.got], p.typ, m.view.EmptyIsNull)
		}
		all = append(all, b)
	}
	whole := sha256.Sum256(bytes.Join(all, []byte{'-'}))
	copy(sum[:], whole[:])
	return sum
}

// within tells whether two values lie as near to each other as is tolerated.
func (t *Tolerance) within(a, b record.Value) bool {
	if t.Span > 0 {
		x, okX := instant(a)
		y, okY := instant(b)
		return okX && okY && x.Sub(y).Abs() <= t.Span
	}
	x, okX := number(a)
	y, okY := number(b)
	return okX && okY && math.Abs(x-y) <= t.Number
}

func instant(v record.Value) (time.Time, bool) {
	switch v.Kind() {
	case record.Timestamp, record.TimeUUID, record.Date:
		return v.Time(), true
	case record.Time:
		return time.Unix(0, v.Int()), true
	}
	return time.Time{}, false
}

func number(v record.Value) (float64, bool) {
	switch k := v.Kind(); {
	case k.Integer():
		return float64(v.Int()), true
	case k == record.Float || k == record.Double:
		return v.Float(), true
	case k == record.Varint:
		f, _ := new(big.Float).SetInt(v.BigInt()).Float64()
		return f, true
	case k == record.Decimal:
		f, _, err := big.ParseFloat(v.Text(record.Of(record.Decimal)), 10, 64, big.ToNearestEven)
		if err != nil {
			return 0, false
		}
		near, _ := f.Float64()
		return near, true
	}
	return 0, false
}

// latest is the row of a page with the highest version, or why it cannot be read.
func latest(p connector.Page) (got *record.Record, bad *unreadable) {
	for _, r := range p.Records {
		if got == nil || r.Version >= got.Version {
			got = r
		}
	}
	if len(p.Dead) > 0 && got == nil {
		bad = &unreadable{p.Dead[0].Message}
	}
	return got, bad
}
