package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/printer"
	"github.com/goccy/go-yaml/token"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"reprise/transforms/fail"
)

// Load reads and checks a job file. Its error has the code "job.wrong" and tells every fault with its line.
func Load(path string) (*Job, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fail.Job("job.unreadable", "the job file cannot be read: %w", err).WithFix("name an existing file: reprise run JOB.yaml")
	}
	return Parse(path, text)
}

// Parse is Load for a text; name stands in messages.
func Parse(name string, text []byte) (*Job, error) {
	f := &file{name: name, text: text}
	j, err := f.parse()
	if err != nil {
		return nil, err
	}
	if len(f.faults) > 0 {
		return nil, f.err()
	}
	return j, nil
}

// file is a job file and what is wrong with it.
type file struct {
	name   string
	text   []byte
	root   ast.Node
	faults []fault
}

type fault struct {
	at      *token.Token
	path    []string
	message string
}

func (f *file) parse() (*Job, error) {
	tree, err := parser.ParseBytes(f.text, 0)
	if err != nil {
		return nil, fail.Job("job.no_yaml", "%s is no YAML:\n%s", f.name, yaml.FormatError(err, false, true))
	}
	if len(tree.Docs) != 1 || tree.Docs[0].Body == nil {
		return nil, fail.Job("job.empty", "%s holds %d YAML documents; a job file holds one", f.name, len(tree.Docs))
	}
	f.root = tree.Docs[0].Body
	asJSON, err := yaml.YAMLToJSON(f.text)
	if err != nil {
		return nil, fail.Job("job.no_yaml", "%s is no YAML:\n%s", f.name, yaml.FormatError(err, false, true))
	}
	if err := f.validate(asJSON); err != nil {
		return nil, err
	}
	if len(f.faults) > 0 {
		return nil, f.err()
	}
	j := &Job{}
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.DisallowUnknownFields()
	if err := d.Decode(j); err != nil {
		// The schema lets nothing through that does not decode; a field whose own reading is stricter tells so here.
		return nil, fail.Job("job.wrong", "%s: %w", f.name, err)
	}
	j.SetDefaults()
	for _, x := range j.Validate() {
		f.add(strings.Split(x.Path, "."), x.Message, false)
	}
	return j, nil
}

// validate checks the text against the schema and keeps what is wrong.
func (f *file) validate(asJSON []byte) error {
	doc, err := document()
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("job.json", doc); err != nil {
		return err
	}
	schema, err := c.Compile("job.json")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return fail.Job("job.no_yaml", "%s: %w", f.name, err)
	}
	var invalid *jsonschema.ValidationError
	if errors.As(schema.Validate(value), &invalid) {
		f.collect(invalid, schema)
	}
	return nil
}

var english = message.NewPrinter(language.English)

// collect keeps the leaves of a tree of errors, each as one fault in plain words.
func (f *file) collect(e *jsonschema.ValidationError, root *jsonschema.Schema) {
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		known := properties(root, at)
		for _, p := range k.Properties {
			f.add(append(slices.Clone(at), p), unknownKey(p, known), true)
		}
	case *kind.Required:
		f.add(at, "missing: "+strings.Join(k.Missing, ", "), true)
	case *kind.MinProperties:
		f.add(at, "one of these is needed: "+strings.Join(properties(root, at), ", "), true)
	case *kind.MaxProperties:
		f.add(at, "only one of these may stand here: "+strings.Join(properties(root, at), ", "), true)
	case *kind.Type:
		f.add(at, fmt.Sprintf("got %s, want %s", k.Got, strings.Join(k.Want, " or ")), false)
	case *kind.Enum:
		want := make([]string, len(k.Want))
		for i, w := range k.Want {
			want[i] = fmt.Sprint(w)
		}
		f.add(at, fmt.Sprintf("got %v, want one of %s", k.Got, strings.Join(want, ", ")), false)
	case *kind.Pattern:
		f.add(at, fmt.Sprintf("%q is not of the right form; %s", k.Got, f.describe(root, at)), false)
	case *kind.OneOf, *kind.AnyOf:
		f.add(at, "not of the right form; "+f.describe(root, at), false)
	default:
		if len(e.Causes) == 0 {
			f.add(at, k.LocalizedString(english), false)
		}
		for _, c := range e.Causes {
			f.collect(c, root)
		}
	}
}

// describe is what the schema says of the place.
func (f *file) describe(root *jsonschema.Schema, at []string) string {
	if s := subschema(root, at); s != nil {
		if s.Description != "" {
			return s.Description
		}
		if s.Pattern != nil {
			return "want " + s.Pattern.String()
		}
	}
	return "see: reprise schema"
}

// subschema is the schema of a place, by properties and items alone.
func subschema(s *jsonschema.Schema, at []string) *jsonschema.Schema {
	for _, key := range at {
		if s == nil {
			return nil
		}
		if next, ok := s.Properties[key]; ok {
			s = next
			continue
		}
		if next, ok := s.Items2020, s.Items2020 != nil; ok {
			s = next
			continue
		}
		next, _ := s.AdditionalProperties.(*jsonschema.Schema)
		s = next
	}
	return s
}

func properties(root *jsonschema.Schema, at []string) []string {
	s := subschema(root, at)
	if s == nil {
		return nil
	}
	var names []string
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func unknownKey(key string, known []string) string {
	msg := fmt.Sprintf("unknown key %q", key)
	if near := fail.Nearest(key, known); near != "" {
		return msg + fmt.Sprintf("; is %q meant?", near)
	}
	return msg + "; known are: " + strings.Join(known, ", ")
}

// add keeps a fault at a place of the file: at its key where onKey, else at its value. Of a place that is not there, the
// nearest above it is shown.
func (f *file) add(path []string, message string, onKey bool) {
	f.faults = append(f.faults, fault{at: locate(f.root, path, onKey), path: path, message: message})
}

// locate finds the token of a place.
func locate(n ast.Node, path []string, onKey bool) *token.Token {
	at := n.GetToken()
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		at = m.Values[0].Key.GetToken()
	}
	for _, key := range path {
		switch t := n.(type) {
		case *ast.MappingNode:
			i := slices.IndexFunc(t.Values, func(v *ast.MappingValueNode) bool { return v.Key.GetToken().Value == key })
			if i < 0 {
				return at
			}
			at, n = t.Values[i].Key.GetToken(), t.Values[i].Value
		case *ast.SequenceNode:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(t.Values) {
				return at
			}
			n = t.Values[i]
			at = n.GetToken()
		default:
			return at
		}
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.SequenceNode, *ast.NullNode:
		return at
	}
	if onKey {
		return at
	}
	return n.GetToken()
}

// err is all faults, in the order of their lines, each with its line and a caret.
func (f *file) err() error {
	slices.SortStableFunc(f.faults, func(a, b fault) int {
		return a.at.Position.Line - b.at.Position.Line
	})
	var b strings.Builder
	var p printer.Printer
	for _, x := range f.faults {
		fmt.Fprintf(&b, "%s:%d:%d: %s: %s\n%s\n", f.name, x.at.Position.Line, x.at.Position.Column, strings.Join(x.path, "."), x.message,
			strings.TrimRight(p.PrintErrorToken(x.at, false), "\n"))
	}
	noun := "faults"
	if len(f.faults) == 1 {
		noun = "fault"
	}
	return fail.Job("job.wrong", "%d %s in the job file\n%s", len(f.faults), noun, b.String())
}
