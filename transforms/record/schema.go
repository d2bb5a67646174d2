package record

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Field is a named, typed field.
type Field struct {
	Name string
	Type Type
}

// Schema names the fields of records and those that make up the key. It is made by NewSchema, shared by the
// records of a stream, and never changed.
type Schema struct {
	Fields []Field
	Key    []int // the fields of the key, in order

	index    map[string]int
	wire     []byte       // as it stands before each encoded record
	wireSize atomic.Int64 // of the record encoded last
}

// NewSchema makes a schema; key names the fields of the key.
func NewSchema(fields []Field, key ...string) (*Schema, error) {
	s := &Schema{Fields: fields, index: make(map[string]int, len(fields))}
	for i, f := range fields {
		if _, twice := s.index[f.Name]; twice {
			return nil, fmt.Errorf("field %q stands twice", f.Name)
		}
		s.index[f.Name] = i
	}
	for _, name := range key {
		i, ok := s.index[name]
		if !ok {
			return nil, fmt.Errorf("key field %q is not there", name)
		}
		if slices.Contains(s.Key, i) {
			return nil, fmt.Errorf("field %q stands twice in the key", name)
		}
		s.Key = append(s.Key, i)
	}
	s.wire = appendSchema(nil, s)
	return s, nil
}

// MustSchema is NewSchema for schemas known to be right.
func MustSchema(fields []Field, key ...string) *Schema {
	s, err := NewSchema(fields, key...)
	if err != nil {
		panic(err)
	}
	return s
}

// Index is the place of a field, or -1.
func (s *Schema) Index(name string) int {
	if i, ok := s.index[name]; ok {
		return i
	}
	return -1
}

// Names are the names of the fields.
func (s *Schema) Names() []string {
	names := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		names[i] = f.Name
	}
	return names
}

// KeyNames are the names of the key's fields.
func (s *Schema) KeyNames() []string {
	names := make([]string, len(s.Key))
	for i, k := range s.Key {
		names[i] = s.Fields[k].Name
	}
	return names
}

// Same tells whether two schemas have the same fields, types and key in the same order.
func (s *Schema) Same(t *Schema) bool {
	return s == t || slices.EqualFunc(s.Fields, t.Fields, func(a, b Field) bool {
		return a.Name == b.Name && a.Type.Same(b.Type)
	}) && slices.Equal(s.Key, t.Key)
}

// MarshalBinary is the schema as bytes; UnmarshalSchema reads them.
func (s *Schema) MarshalBinary() ([]byte, error) { return s.wire, nil }

// schemas holds each schema that this process has decoded, by its bytes, so that equal records share one; latest is the
// one asked for last, which mostly is asked for again.
var (
	schemas sync.Map // string → *Schema
	latest  atomic.Pointer[Schema]
)

// UnmarshalSchema reads what MarshalBinary wrote. Equal bytes give the same *Schema.
func UnmarshalSchema(wire []byte) (*Schema, error) {
	if s := latest.Load(); s != nil && bytes.Equal(s.wire, wire) {
		return s, nil
	}
	known, ok := schemas.Load(string(wire))
	if !ok {
		s, err := decodeSchema(wire)
		if err != nil {
			return nil, err
		}
		known, _ = schemas.LoadOrStore(string(wire), s)
	}
	latest.Store(known.(*Schema))
	return known.(*Schema), nil
}
