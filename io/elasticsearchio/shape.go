package elasticsearchio

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// shape tells which members of an object are which values. To the server a dot in a name is the same as an object
// around: {"a.b":1} is {"a":{"b":1}}.
type shape map[string]*place

// place is what stands under a name.
type place struct {
	slot  int         // among the values; -1: it only leads to further places of the same values
	typ   record.Type // of the value
	below shape       // what an object leads to: parts of a UDT, or further places
	elem  *place      // of lists, sets and vectors whose elements are not read as they are
	dates *dates      // of times
}

// newShape makes the shape of fields, or of parts of a UDT, without some, under a mapping, which may be nil. cut says
// that times are cut off as the server does.
func newShape(fields []record.Field, without func(i int) bool, mapping *property, cut bool) (shape, error) {
	s := shape{}
	for i, f := range fields {
		if without(i) {
			continue
		}
		p, err := newPlace(f.Type, mapping.part(f.Name), cut)
		if err == nil {
			p.slot = i
			err = s.add(f.Name, p)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return s, nil
}

// add adds a place whose name may have dots.
func (s shape) add(name string, p *place) error {
	at := s
	path := strings.Split(name, ".")
	for _, head := range path[:len(path)-1] {
		if at[head] == nil {
			at[head] = &place{slot: -1, below: shape{}}
		}
		if at[head].slot >= 0 {
			return errSameName
		}
		at = at[head].below
	}
	last := path[len(path)-1]
	if at[last] != nil {
		return errSameName
	}
	at[last] = p
	return nil
}

var errSameName = errors.New("another field has this name, or is an object that this one lies in: " +
	"to the server a dot in a name stands for an object")

// newPlace is the place of a value of a type.
func newPlace(t record.Type, p *property, cut bool) (*place, error) {
	at := &place{typ: t}
	var err error
	switch t.Kind {
	case record.Timestamp, record.Date:
		if p != nil && (p.Type == "date" || p.Type == "date_nanos") {
			at.dates = newDates(p)
			at.dates.floor = cut
			if !at.dates.known() {
				return nil, fmt.Errorf("the format %q of the index cannot be read as a %s: read it as a text",
					p.Format, t)
			}
		}
	case record.UDT:
		parts := make([]record.Field, len(t.Elems))
		for i := range parts {
			parts[i] = record.Field{Name: t.Names[i], Type: t.Elems[i]}
		}
		at.below, err = newShape(parts, func(int) bool { return false }, p, cut)
	case record.List, record.Set, record.Vector:
		var elem *place
		if elem, err = newPlace(t.Elems[0], p, cut); elem != nil && !elem.plain() {
			at.elem = elem
		}
	case record.Map, record.Tuple:
		for _, e := range t.Elems {
			if p.holdsDates() && holdsTimes(e) {
				return nil, fmt.Errorf("the dates of the index cannot be read as a %s: read it as a udt", t)
			}
		}
	}
	return at, err
}

// plain tells whether a value is read as record.FromJSON does.
func (p *place) plain() bool { return p.below == nil && p.elem == nil && p.dates == nil }

func holdsTimes(t record.Type) bool {
	return t.Kind == record.Timestamp || t.Kind == record.Date || slices.ContainsFunc(t.Elems, holdsTimes)
}

// member is one of an object.
type member struct {
	name, value string
	mixed       bool // an object in which a name may stand twice
}

// reading says what becomes of members that have no place.
type reading uint8

const (
	passOver reading = iota // those of fields that nobody has asked for; within a UDT they are an error
	refuse
	keep
)

// noPlace is the error of a member that has no place.
type noPlace struct{ name string }

func (e noPlace) Error() string { return fmt.Sprintf("%.100q has no place in the record", e.name) }

// object sets the values of a JSON object. rest is what has no place, as an object; "": nothing. Of a mixed one
// several parts of a document have been put together, so that a name may stand twice.
func (s shape) object(text string, into []record.Value, how reading, mixed bool) (rest string, err error) {
	members := make([]member, 0, len(s)+1)
	err = record.JSONParts(text, func(name, value string) error {
		mixed = mixed || strings.Contains(name, ".")
		members = append(members, member{name, value, false})
		return nil
	})
	if err == nil && mixed {
		members, err = s.fold(members)
	}
	if err != nil {
		return "", err
	}
	var left []string
	for _, m := range members {
		part := m.value
		if p := s[m.name]; p != nil {
			if part, err = p.set(m, into, how); err != nil {
				return "", fmt.Errorf("%s: %w", m.name, err)
			}
		}
		switch {
		case part == "":
		case how == refuse:
			return "", noPlace{m.name}
		case how == keep:
			left = append(left, string(record.AppendQuoted(nil, m.name))+":"+part)
		}
	}
	if left == nil {
		return "", nil
	}
	return "{" + strings.Join(left, ",") + "}", nil
}

// set sets what a member of an object gives. rest is what has no place.
func (p *place) set(m member, into []record.Value, how reading) (rest string, err error) {
	switch {
	case p.slot < 0 && strings.Trim(m.value, "[]{} \t\r\n") == "":
		return m.value, nil
	case p.slot < 0 && m.value[0] == '{':
		return p.below.object(m.value, into, how, m.mixed)
	case p.slot < 0 && m.value[0] == '[':
		// To the server the values of several objects are those of one.
		one := "{}"
		err = record.JSONParts(m.value, func(_, value string) error {
			if value[0] == '{' {
				one = sum(one, value)
			} else if value[0] != 'n' {
				return fmt.Errorf("%.60s is not an object", value)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		return p.below.object(one, into, how, true)
	case p.slot < 0:
		return m.value, nil
	case into[p.slot].Kind() != record.Unset:
		return "", errors.New("it stands twice")
	}
	into[p.slot], rest, err = p.value(m.value, how, m.mixed)
	return rest, err
}

// value reads one value, and what of it has no place. The server makes no difference between a value and a list of
// one: where a list or a set is wanted a single value is one of one element.
func (p *place) value(text string, how reading, mixed bool) (v record.Value, rest string, err error) {
	if text[0] == 'n' {
		return record.NullValue, "", nil
	}
	list := p.typ.Kind == record.List || p.typ.Kind == record.Set
	if list && text[0] != '[' {
		text = "[" + text + "]"
	}
	switch {
	case p.dates != nil:
		v, err = p.dates.value(p.typ.Kind, text)
		return v, "", err
	case p.below != nil && text[0] == '{':
		parts := make([]record.Value, len(p.typ.Elems))
		rest, err = p.below.object(text, parts, max(how, refuse), mixed)
		return record.Nested(record.UDT, parts), rest, err
	case p.elem != nil && text[0] == '[':
		return p.list(text, how)
	}
	v, err = record.FromJSON(p.typ, text)
	return v, "", err
}

// list reads a list, a set or a vector element by element.
func (p *place) list(text string, how reading) (v record.Value, rest string, err error) {
	var elems []record.Value
	var rests []string
	left := false
	seen := map[string]bool{}
	err = record.JSONParts(text, func(_, value string) error {
		e, rest, err := p.elem.value(value, how, false)
		if err != nil {
			return err
		}
		if p.typ.Kind == record.Set {
			form := string(record.AppendValue(nil, e))
			if seen[form] {
				return fmt.Errorf("%.60s stands twice in a set", value)
			}
			seen[form] = true
		}
		elems, rests, left = append(elems, e), append(rests, orDefault(rest, "{}")), left || rest != ""
		return nil
	})
	if err == nil && p.typ.Kind == record.Vector && len(elems) != p.typ.Dim {
		err = fmt.Errorf("%d parts are no %s", len(elems), p.typ)
	}
	if left {
		rest = "[" + strings.Join(rests, ",") + "]"
	}
	return record.Nested(p.typ.Kind, elems), rest, err
}

// fold makes names with dots that lead to a place the objects that they stand for, and puts together what then has
// the same name.
func (s shape) fold(members []member) (folded []member, err error) {
	at := map[string]int{}
	for _, m := range members {
		head, tail, dotted := strings.Cut(m.name, ".")
		if p := s[head]; dotted && tail != "" && p != nil && p.leads() {
			m = member{head, "{" + string(record.AppendQuoted(nil, tail)) + ":" + m.value + "}", false}
		}
		i, twice := at[m.name]
		if !twice {
			at[m.name] = len(folded)
			folded = append(folded, m)
			continue
		}
		f := &folded[i]
		p := s[m.name]
		switch {
		case p == nil:
			return nil, fmt.Errorf("%s: it stands twice", m.name)
		case m.value[0] == 'n':
		case f.value[0] == 'n':
			f.value = m.value
		case f.value[0] == '{' && m.value[0] == '{' && p.elem == nil:
			f.value, f.mixed = sum(f.value, m.value), true
		default:
			f.value = together(f.value, m.value)
		}
	}
	return folded, nil
}

// leads tells whether names may go on below a place.
func (p *place) leads() bool {
	return p.below != nil || p.typ.Kind == record.Map || p.elem != nil && p.elem.below != nil
}

// sum is an object with the members of two.
func sum(a, b string) string {
	inside := func(object string) string { return strings.TrimSpace(object[1 : len(object)-1]) }
	switch {
	case inside(a) == "":
		return b
	case inside(b) == "":
		return a
	}
	return "{" + inside(a) + "," + inside(b) + "}"
}

// together is a list of two values, or of what lists among them hold.
func together(a, b string) string {
	elements := func(value string) string {
		if value[0] == '[' {
			return strings.TrimSpace(value[1 : len(value)-1])
		}
		return value
	}
	x, y := elements(a), elements(b)
	if x != "" && y != "" {
		x += ","
	}
	return "[" + x + y + "]"
}
