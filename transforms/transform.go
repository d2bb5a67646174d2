package transforms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Step is a compiled transform, used by one goroutine at a time.
type Step interface {
	// Apply transforms r and hands what comes out to emit: nothing (the record is filtered), one record or several. It
	// may change r in place, but only after everything that can fail has succeeded: on an error the record is as it was
	// and nothing was emitted. It must not keep r. Errors are of package fail; one without a class counts as Permanent.
	Apply(r *record.Record, emit func(*record.Record)) error
}

// Each is a Step that makes one record of one.
type Each func(r *record.Record) error

// Apply implements Step.
func (f Each) Apply(r *record.Record, emit func(*record.Record)) error {
	if err := f(r); err != nil {
		return err
	}
	emit(r)
	return nil
}

// Transform is a kind of step, by the name that job files use.
type Transform struct {
	Name    string  // lower_snake_case
	Summary string  // one sentence
	Config  any     // pointer to a zero value of the type of the settings, with json and jsonschema tags
	Example Example // may be empty

	// Compile checks the settings against the schema of the records that enter and gives the step with the schema of
	// those that leave. Its error says what is wrong and what would be right; it may be a *FaultError, whose Path is
	// within the settings, or several errors joined.
	Compile func(config json.RawMessage, in *record.Schema, o Options) (Step, *record.Schema, error)

	builtin bool
}

// Example shows a transform at work. Describe runs it, so what it tells is true.
type Example struct {
	Config  string   // as it stands in a job file (YAML): "filter: size > 0"
	Fields  []string // of the records, the key first: "id text", "size bigint"
	Records []string // as JSON: `{"id": "a", "size": 3}`
}

// Options are what a chain needs beside its settings.
type Options struct {
	Now time.Time // `now` in expressions: the start of the run, so that a retry gives the same result
}

// Spec is one entry of `transforms` in a job file: a map with one key, the transform's name.
type Spec struct {
	Name   string
	Config json.RawMessage
}

// MarshalJSON implements json.Marshaler.
func (s Spec) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]json.RawMessage{s.Name: s.Config})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Spec) UnmarshalJSON(text []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil || len(m) != 1 {
		return fmt.Errorf(`a transform is one name with its settings, as in {"filter": "size > 0"}`)
	}
	for name, config := range m {
		*s = Spec{Name: name, Config: config}
	}
	return nil
}

// FaultError is something wrong in one entry of `transforms`.
type FaultError struct {
	Index   int    // of the entry, from 0; -1: of a sink's own condition
	Path    string // within the entry: "cast.size"
	Message string // what is wrong and what would be right; a fault of an expression has further lines, with a caret
}

// Error is the place and the message.
func (e *FaultError) Error() string {
	if e.Index < 0 {
		return e.Path + ": " + e.Message
	}
	return fmt.Sprintf("transforms.%d.%s: %s", e.Index, e.Path, e.Message)
}

// faults collects what is wrong in the settings of one transform.
type faults []error

func (f *faults) addf(path, format string, args ...any) {
	*f = append(*f, &FaultError{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (f *faults) add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

func (f faults) err() error { return errors.Join(f...) }

// field is the place of a field that must be there, or -1.
func (f *faults) field(in *record.Schema, path, name string) int {
	i := in.Index(name)
	if i < 0 {
		f.addf(path, "there is no field %q; %s", name, fail.Suggest(name, in.Names()))
	}
	return i
}

// fields are the places of fields, at least one and none twice.
func (f *faults) fields(in *record.Schema, path string, names []string) []int {
	if len(names) == 0 {
		f.addf(path, "at least one field is needed")
	}
	places := make([]int, 0, len(names))
	for _, name := range names {
		i := f.field(in, path, name)
		if slices.Contains(places, i) {
			f.addf(path, "%q stands twice", name)
		}
		if i >= 0 {
			places = append(places, i)
		}
	}
	return places
}

// schema makes the schema of what leaves a step.
func (f *faults) schema(fields []record.Field, key []string) *record.Schema {
	out, err := record.NewSchema(fields, key...)
	if err != nil {
		f.addf("", "%v", err)
	}
	return out
}

// decode reads settings strictly.
func decode[C any](config json.RawMessage) (c C, err error) {
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err = d.Decode(&c)
	if err == nil {
		return c, nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return c, &FaultError{Path: wrong.Field, Message: neededForm(wrong.Type) + " is needed"}
	}
	if f, ok := errors.AsType[*FaultError](err); ok {
		return c, f
	}
	message := strings.TrimPrefix(err.Error(), "json: ")
	if name, unknown := strings.CutPrefix(message, "unknown field "); unknown {
		name = strings.Trim(name, `"`)
		message = fmt.Sprintf("there is no setting %q; %s", name, fail.Suggest(name, settings(reflect.TypeFor[C]())))
	}
	return c, &FaultError{Message: message}
}

// neededForm is how people call what a Go type is read from.
func neededForm(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a map"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a text"
}

// settings are the names of the fields of a struct in JSON, those of structs within it included.
func settings(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(append(names, name), settings(t.Field(i).Type)...)
	}
	return names
}

// faultMessage is the message of a fault, without its place.
func faultMessage(err error) string {
	if f, ok := errors.AsType[*FaultError](err); ok {
		return f.Message
	}
	return err.Error()
}

// entry is a member of a JSON object.
type entry struct {
	name  string
	value json.RawMessage
}

// entries are the members of a JSON object in their order.
func entries(config json.RawMessage) (list []entry, err error) {
	if trimmed := bytes.TrimSpace(config); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, &FaultError{Message: "a map of fields is needed"}
	}
	err = record.JSONParts(string(config), func(name, value string) error {
		list = append(list, entry{name, json.RawMessage(value)})
		return nil
	})
	if err != nil {
		return nil, &FaultError{Message: err.Error()}
	}
	if len(list) == 0 {
		return nil, &FaultError{Message: "at least one field is needed"}
	}
	return list, nil
}
