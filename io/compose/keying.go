package compose

import (
	"fmt"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// keying makes keys of one table from the fields of records of another.
type keying struct {
	to    *record.Schema
	parts []keyPart
}

// keyPart is one field of the key.
type keyPart struct {
	from, to         int
	typeFrom, typeTo record.Type
	convert          bool // by its text
}

// newKeying finds for each key field of a table the field whose value it has, and tells all that is wrong.
func newKeying(from, to *record.Schema, field func(key string) string) (k keying, faults []string) {
	k.to = to
	for _, at := range to.Key {
		key := to.Fields[at]
		name := field(key.Name)
		i := from.Index(name)
		if i < 0 {
			faults = append(faults, fmt.Sprintf("there is no field %q for the key field %q; there are %s", name,
				key.Name, connector.Fields(from.Fields).Names()))
			continue
		}
		p := keyPart{from: i, to: at, typeFrom: from.Fields[i].Type, typeTo: key.Type}
		p.convert = !p.typeFrom.Same(p.typeTo)
		if p.convert && p.typeFrom.Kind != record.Text && !(p.typeFrom.Kind.Integer() && p.typeTo.Kind.Integer()) {
			faults = append(faults, fmt.Sprintf("the field %q is a %s, the key field %q a %s", name, p.typeFrom,
				key.Name, p.typeTo))
			continue
		}
		k.parts = append(k.parts, p)
	}
	return k, faults
}

// key is the key that a record names, with the record's origin; nil where one of its fields has no value.
func (k keying) key(r *record.Record) (*record.Record, error) {
	key := &record.Record{Schema: k.to, Values: make([]record.Value, len(k.to.Fields)), Origin: r.Origin}
	for _, p := range k.parts {
		v := r.Values[p.from]
		if v.IsNull() {
			return nil, nil
		}
		if p.convert {
			var err error
			if v, err = record.ParseText(p.typeTo, v.Text(p.typeFrom)); err != nil {
				return nil, fmt.Errorf("the field %s: %w", k.to.Fields[p.to].Name, err)
			}
		}
		key.Values[p.to] = v
	}
	return key, nil
}
