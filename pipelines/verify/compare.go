package verify

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

// View is how the records of a sink are found again in what is read of its target.
type View struct {
	Names       map[string]string `json:"names,omitempty"`         // fields of the target that are called otherwise, by those of the records
	Leave       []string          `json:"leave,omitempty"`         // fields that the target does not hold
	EmptyIsNull bool              `json:"empty_is_null,omitempty"` // the target keeps no empty collections
	Versions    bool              `json:"versions,omitempty"`      // rows of the target tell their version
}

// comparer compares the records of a sink with the rows of its target.
type comparer struct {
	view   View
	want   *record.Schema
	got    *record.Schema
	fields []pair
	key    []int // fields of want that make up the key of got
}

// pair is a field on both sides.
type pair struct {
	name      string
	want, got int
	typ       record.Type // of the record's
	tolerate  *Tolerance
}

// newComparer matches the fields of the records with those of the target, which must have all that are compared.
func newComparer(want, got *record.Schema, view View, c Config) (*comparer, error) {
	m := &comparer{view: view, want: want, got: got}
	for _, name := range c.Ignore {
		if want.Index(name) < 0 {
			return nil, fail.Job("verify.ignore", "verify.ignore: there is no field %q; there are %s", name, strings.Join(want.Names(), ", "))
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
		i := slices.IndexFunc(want.Fields, func(f record.Field) bool { return m.name(f.Name) == got.Fields[k].Name })
		if i < 0 {
			return nil, fail.Job("verify.no_key", "no field of the records goes to %q, which is part of the target's key", got.Fields[k].Name)
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
		if values[i] = r.Values[f]; values[i].IsNull() {
			return nil, fmt.Errorf("the key field %q has no value", m.want.Fields[f].Name)
		}
	}
	return keyRecord(m.got, values), nil
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

// compare compares what the job would write, nil or a delete: nothing, with what the target holds, the same. bad is why the target's row
// cannot be read.
func (m *comparer) compare(want, got *record.Record, bad *unreadable) verdict {
	if want != nil && want.Op == record.Delete {
		want = nil
	}
	if got != nil && got.Op == record.Delete {
		got = nil
	}
	v := verdict{}
	switch {
	case bad != nil && want != nil:
		v.kind, v.fields = Different, []Difference{{Field: "(row)", Want: "a row", Got: bad.message}}
	case want == nil && got == nil && bad == nil:
		return v
	case want == nil:
		v.kind = Extra
	case got == nil:
		v.kind = Missing
	default:
		if v.fields = m.differences(want, got); len(v.fields) == 0 {
			return v
		}
		v.kind = Different
		switch {
		case !m.view.Versions || want.Version <= 1 || got.Version <= 1: // not known
		case got.Version < want.Version:
			v.kind = Stale
		case got.Version > want.Version:
			v.kind = Newer
		}
	}
	v.digest = m.digest(want, got)
	return v
}

func (m *comparer) differences(want, got *record.Record) (found []Difference) {
	var a, b []byte
	for i := range m.fields {
		p := &m.fields[i]
		x, y := want.Values[p.want], got.Values[p.got]
		if x.Equal(y) {
			continue
		}
		a = appendField(a[:0], x, p.typ, m.view.EmptyIsNull)
		b = appendField(b[:0], y, p.typ, m.view.EmptyIsNull)
		if bytes.Equal(a, b) || p.tolerate != nil && p.tolerate.within(x, y) {
			continue
		}
		found = append(found, Difference{Field: p.name, Want: brief(x, p.typ), Got: brief(y, m.got.Fields[p.got].Type)})
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

func (m *comparer) digest(want, got *record.Record) (sum [16]byte) {
	h := sha256.New()
	var b []byte
	for _, p := range m.fields {
		for i, r := range []*record.Record{want, got} {
			b = append(b[:0], '-')
			if r != nil {
				b = appendField(b, r.Values[[]int{p.want, p.got}[i]], p.typ, m.view.EmptyIsNull)
			}
			h.Write(b)
		}
	}
	copy(sum[:], h.Sum(nil))
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
