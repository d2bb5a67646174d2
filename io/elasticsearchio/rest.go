package elasticsearchio

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// restName is the field for what documents hold beside the other fields: a text with a JSON object. A source fills
// it, and a sink merges it into the document again.
const restName = "_rest"

// appendCanonical appends JSON in a form that depends on nothing but what it means: names in order, no white space.
// Numbers keep their digits.
func appendCanonical(b []byte, text string) ([]byte, error) {
	switch text[0] {
	case '"':
		s, err := parseText(text)
		return record.AppendQuoted(b, s), err
	case '{', '[':
	default:
		return append(b, text...), nil
	}
	var members []member
	err := record.JSONParts(text, func(name, value string) error {
		members = append(members, member{name: name, value: value})
		return nil
	})
	if err != nil {
		return b, err
	}
	object := text[0] == '{'
	if object {
		slices.SortStableFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	}
	b = append(b, text[0])
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		if object {
			if i > 0 && m.name == members[i-1].name {
				return b, fmt.Errorf("%s: it stands twice", m.name)
			}
			b = append(record.AppendQuoted(b, m.name), ':')
		}
		if b, err = appendCanonical(b, m.value); err != nil {
			return b, err
		}
	}
	return append(b, text[0]+2), nil // the closing bracket
}

// withRest is a document with the rest of a record merged into it.
func (f *format) withRest(document, rest string) ([]byte, error) {
	own := make([]record.Value, len(f.names))
	err := errors.New("it is not a JSON object")
	if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "{") {
		var canonical []byte
		if canonical, err = appendCanonical(nil, rest); err == nil {
			rest, err = f.shape.object(string(canonical), own, keep, false)
		}
	}
	for i := range own {
		if err == nil && holds(own[i]) {
			err = fmt.Errorf("it has the field %s as well", bytes.TrimSuffix(f.names[i], []byte(":")))
		}
	}
	var b []byte
	if err == nil && rest != "" {
		b, err = appendMerged(nil, document, rest)
	} else {
		b = []byte(document)
	}
	if err != nil {
		return nil, fail.New(fail.Permanent, "elasticsearch.rest",
			"%s cannot be merged into the document: %w", restName, err).
			WithFix("name the field in the fields of the source, so that it is none of %[1]s, or leave that out: "+
				"exclude: [%[1]s]",
				restName)
	}
	return b, nil
}

// holds tells whether a value is more than the objects around what is none.
func holds(v record.Value) bool {
	switch v.Kind() {
	case record.Unset:
		return false
	case record.UDT:
		return slices.ContainsFunc(v.Elems(), holds)
	case record.List, record.Set, record.Vector:
		return len(v.Elems()) == 0 || slices.ContainsFunc(v.Elems(), holds)
	}
	return true
}

// appendMerged appends a JSON value with what is left of it elsewhere: the members of both objects, and lists element
// by element.
func appendMerged(b []byte, own, rest string) ([]byte, error) {
	if rest == "{}" {
		return append(b, own...), nil
	}
	if own[0] != rest[0] || own[0] != '{' && own[0] != '[' {
		return b, fmt.Errorf("there is %.60s where %.60s is to be added", own, rest)
	}
	var more []member
	err := record.JSONParts(rest, func(name, value string) error {
		more = append(more, member{name: name, value: value})
		return nil
	})
	if err != nil {
		return b, err
	}
	b = append(b, own[0])
	i := 0
	err = record.JSONParts(own, func(name, value string) (err error) {
		if i++; i > 1 {
			b = append(b, ',')
		}
		if own[0] == '[' {
			if i > len(more) {
				return errors.New("a list has grown since")
			}
			b, err = appendMerged(b, value, more[i-1].value)
			return err
		}
		b = append(record.AppendQuoted(b, name), ':')
		at := slices.IndexFunc(more, func(m member) bool { return m.name == name })
		if at < 0 {
			b = append(b, value...)
			return nil
		}
		b, err = appendMerged(b, value, more[at].value)
		more = slices.Delete(more, at, at+1)
		return err
	})
	switch {
	case err != nil:
		return b, err
	case own[0] == '[' && i != len(more):
		return b, errors.New("a list has shrunk since")
	case own[0] == '[':
		return append(b, ']'), nil
	}
	for _, m := range more {
		if i++; i > 1 {
			b = append(b, ',')
		}
		b = append(append(record.AppendQuoted(b, m.name), ':'), m.value...)
	}
	return append(b, '}'), nil
}
