package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// malformed finds where a value is not as the schema says.
func malformed(value any) ([]fault, error) {
	text, err := json.Marshal(Schema())
	if err != nil {
		return nil, err
	}
	c := &checker{value: value}
	if err := json.Unmarshal(text, &c.schema); err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("job.json", c.schema); err != nil {
		return nil, err
	}
	compiled, err := compiler.Compile("job.json")
	if err != nil {
		return nil, err
	}
	if invalid, ok := errors.AsType[*jsonschema.ValidationError](compiled.Validate(value)); ok {
		c.collect(invalid)
	}
	return c.faults, nil
}

// checker puts the validator's errors into plain words.
type checker struct {
	schema any // as JSON
	value  any
	faults []fault
}

func (c *checker) collect(e *jsonschema.ValidationError) {
	at := e.InstanceLocation
	place := c.place(e.SchemaURL)
	add := func(format string, args ...any) {
		c.faults = append(c.faults, fault{path: strings.Join(at, "."), message: fmt.Sprintf(format, args...)})
	}
	if place["pattern"] == secretForm && len(e.Causes) == 0 {
		c.faults = append(c.faults, fault{path: strings.Join(at, "."), secret: true,
			message: "a secret does not belong in a job file; write where to find it: env:NAME or file:PATH"})
		return
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		known := keys(place["properties"])
		for _, key := range k.Properties {
			meant := walk(place, []string{"properties", fail.Nearest(key, known), "pattern"})
			c.faults = append(c.faults, fault{path: strings.Join(append(slices.Clip(at), key), "."),
				message: "unknown key; " + fail.Suggest(key, known),
				onKey:   true, secret: meant == secretForm})
		}
	case *kind.Required:
		for _, key := range k.Missing {
			c.faults = append(c.faults, fault{path: strings.Join(append(slices.Clip(at), key), "."),
				message: "missing" + purpose(place, key)})
		}
	case *kind.MinProperties:
		if known := keys(place["properties"]); len(known) > 0 {
			add("one of these is needed: %s", strings.Join(known, ", "))
		} else {
			add("at least one is needed")
		}
	case *kind.MaxProperties:
		known := keys(place["properties"])
		present := slices.DeleteFunc(keys(walk(c.value, at)),
			func(key string) bool { return !slices.Contains(known, key) })
		if len(present) > 1 {
			add("only one is allowed here, not %s", strings.Join(present, " and "))
		}
	case *kind.Type:
		add("%s", mistyped(k))
	case *kind.Enum:
		var known []string
		for _, w := range k.Want {
			known = append(known, fmt.Sprint(w))
		}
		got := fmt.Sprint(k.Got)
		add("%q is unknown; %s", got, fail.Suggest(got, known))
	case *kind.Pattern:
		add("%q has the wrong form; %s", k.Got, wanted(place))
	case *kind.Minimum:
		add("at least %s, not %s", k.Want.RatString(), k.Got.RatString())
	case *kind.Maximum:
		add("at most %s, not %s", k.Want.RatString(), k.Got.RatString())
	case *kind.MinItems:
		add("at least one entry is needed")
	case *kind.OneOf:
		c.oneOf(e, place, add)
	default:
		if len(e.Causes) == 0 {
			add("%s", k.LocalizedString(message.NewPrinter(language.English)))
		}
		for _, cause := range e.Causes {
			c.collect(cause)
		}
	}
}

// oneOf tells what is wrong with the one form that has the right type, else which forms there are.
func (c *checker) oneOf(e *jsonschema.ValidationError, place map[string]any, add func(string, ...any)) {
	var fitting []*jsonschema.ValidationError
	var want []string
	for _, cause := range e.Causes {
		if k := typeError(cause, len(e.InstanceLocation)); k != nil {
			want = append(want, k.Want...)
		} else {
			fitting = append(fitting, cause)
		}
	}
	switch {
	case len(fitting) == 1:
		c.collect(fitting[0])
	case place["examples"] != nil || len(fitting) > 1 || len(want) == 0:
		add("this has the wrong form; %s", wanted(place))
	default:
		got := typeError(e.Causes[0], len(e.InstanceLocation)).Got
		add("%s", mistyped(&kind.Type{Got: got, Want: want}))
	}
}

// typeError is the error of a form whose type is wrong at a depth of the value, or nil.
func typeError(e *jsonschema.ValidationError, depth int) *kind.Type {
	if k, ok := e.ErrorKind.(*kind.Type); ok && len(e.InstanceLocation) == depth {
		return k
	}
	for _, cause := range e.Causes {
		if _, ok := e.ErrorKind.(*kind.OneOf); ok {
			break
		}
		if k := typeError(cause, depth); k != nil {
			return k
		}
	}
	return nil
}

var secretForm = connector.Secret("").JSONSchema().Pattern

// typeNames are the types of JSON in the words of people.
var typeNames = map[string]string{"object": "a map", "array": "a list", "string": "a text", "number": "a number",
	"integer": "a whole number",
	"boolean": "true or false", "null": "nothing"}

func mistyped(k *kind.Type) string {
	want := make([]string, len(k.Want))
	for i, w := range k.Want {
		want[i] = typeNames[w]
	}
	is := strings.Join(want, " or ") + " is wanted"
	switch {
	case k.Got == "null":
		return is + ", but there is nothing here"
	case k.Got == "number" && slices.Equal(k.Want, []string{"integer"}):
		return is
	case slices.Contains(k.Want, "string") && (k.Got == "number" || k.Got == "integer" || k.Got == "boolean"):
		return is + ", not " + typeNames[k.Got] + "; put it in quotes"
	}
	return is + ", not " + typeNames[k.Got]
}

// wanted says what would be right, by the examples of the schema or the first sentence of its description.
func wanted(place map[string]any) string {
	var examples []string
	list, _ := place["examples"].([]any)
	for _, e := range list {
		examples = append(examples, fmt.Sprint(e))
	}
	if len(examples) > 0 {
		return "write it like " + strings.Join(examples, " or ")
	}
	return "wanted: " + sentence(place)
}

// purpose is what a missing setting is for.
func purpose(place map[string]any, key string) string {
	setting, _ := walk(place, []string{"properties", key}).(map[string]any)
	if text := sentence(setting); text != "" {
		return ": " + text
	}
	return ""
}

func sentence(place map[string]any) string {
	text, _ := place["description"].(string)
	first, _, _ := strings.Cut(text, ". ")
	return strings.TrimSuffix(first, ".")
}

// form is where one of several forms of a setting stands in the schema.
var form = regexp.MustCompile(`(/oneOf/\d+)+$`)

// place is the part of the schema at a URL. One of several forms takes description and examples of the whole.
func (c *checker) place(schemaURL string) map[string]any {
	_, pointer, _ := strings.Cut(schemaURL, "#")
	if text, err := url.PathUnescape(pointer); err == nil {
		pointer = text
	}
	at := func(pointer string) map[string]any {
		var path []string
		for key := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if key != "" {
				path = append(path, strings.NewReplacer("~1", "/", "~0", "~").Replace(key))
			}
		}
		m, _ := walk(c.schema, path).(map[string]any)
		return m
	}
	place := maps.Clone(at(pointer))
	if whole := form.ReplaceAllString(pointer, ""); whole != pointer {
		for _, key := range []string{"description", "examples"} {
			if v, ok := at(whole)[key]; ok {
				place[key] = v
			}
		}
	}
	return place
}

// walk is the part of a JSON value at a path, or nil.
func walk(value any, path []string) any {
	for _, key := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

func keys(object any) []string {
	m, _ := object.(map[string]any)
	return slices.Sorted(maps.Keys(m))
}
