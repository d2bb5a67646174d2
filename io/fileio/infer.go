package fileio

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"reprise/transforms/record"
)

const inferLines = 1000

// shape is what the lines read so far tell about a value.
type shape struct {
	kind  record.Kind // Unset: only nulls; List; UDT: an object
	elems []*shape    // List: one; UDT: one for each name
	names []string
}

// note adds what one more value tells.
func (s *shape) note(value string) error {
	kind := kindOf(value)
	if kind == record.Null {
		return nil
	}
	switch {
	case s.kind == record.Unset:
		s.kind = kind
	case s.kind == kind:
	case wide(s.kind) >= 0 && wide(kind) >= 0:
		if wide(kind) > wide(s.kind) {
			s.kind = kind
		}
	default:
		return fmt.Errorf("%w: a %s in one place and a %s in another", errMixed, jsonName(s.kind), jsonName(kind))
	}
	if !kind.Nested() {
		return nil
	}
	return record.JSONParts(value, func(name, part string) error {
		i := 0
		for i < len(s.names) && s.names[i] != name {
			i++
		}
		if i == len(s.names) {
			s.names, s.elems = append(s.names, name), append(s.elems, &shape{})
		}
		if err := s.elems[i].note(part); err != nil {
			return fmt.Errorf("%s%w", prefixed(name), err)
		}
		return nil
	})
}

var errMixed = errors.New("mixed types")

func prefixed(name string) string {
	if name == "" {
		return "element: "
	}
	return name + ": "
}

// wide is the place of a kind among numbers, each of which can be read as the ones after it; -1: no number.
func wide(k record.Kind) int {
	switch k {
	case record.BigInt:
		return 0
	case record.Varint:
		return 1
	case record.Double:
		return 2
	}
	return -1
}

func kindOf(value string) record.Kind {
	switch value[0] {
	case '"':
		return record.Text
	case '[':
		return record.List
	case '{':
		return record.UDT
	case 't', 'f':
		return record.Boolean
	case 'n':
		return record.Null
	}
	if strings.ContainsAny(value, ".eE") {
		return record.Double
	}
	if _, err := strconv.ParseInt(value, 10, 64); err != nil {
		return record.Varint
	}
	return record.BigInt
}

func jsonName(k record.Kind) string {
	switch k {
	case record.Text:
		return "text"
	case record.List:
		return "list"
	case record.UDT:
		return "object"
	case record.Boolean:
		return "boolean"
	}
	return "number"
}

// typ is the type that holds all values seen: an object whose members all have one type is a map, another a UDT; what
// was always null, and the elements of lists that were always empty, are text.
func (s *shape) typ() record.Type {
	switch s.kind {
	case record.Unset:
		return record.Of(record.Text)
	case record.List:
		if len(s.elems) == 0 {
			return record.ListOf(record.Of(record.Text))
		}
		return record.ListOf(s.elems[0].typ())
	case record.UDT:
		return s.object()
	}
	return record.Of(s.kind)
}

func (s *shape) object() record.Type {
	all := &shape{}
	parts := make([]record.Field, len(s.names))
	same := true
	for i, e := range s.elems {
		parts[i] = record.Field{Name: s.names[i], Type: e.typ()}
		if e.kind == record.Unset {
			continue
		}
		if all.kind == record.Unset {
			all = e
		}
		same = same && all.typ().Same(parts[i].Type)
	}
	if same {
		return record.MapOf(record.Of(record.Text), all.typ())
	}
	return record.UDTOf("", parts...)
}

// fields are those of an object of the shape.
func (s *shape) fields() []record.Field {
	var fields []record.Field
	for i, name := range s.names {
		if name != metaField {
			fields = append(fields, record.Field{Name: name, Type: s.elems[i].typ()})
		}
	}
	return fields
}
