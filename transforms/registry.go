package transforms

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"reprise/transforms/record"
)

// registry is filled while the program starts, and not changed after that.
var registry = map[string]Transform{}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// Register adds a team's own transform; it is called from an init function of the team's binary. It panics for a name
// that is taken or badly formed and for a transform without Compile or Config.
func Register(t Transform) {
	switch _, taken := registry[t.Name]; {
	case taken:
		panic(fmt.Sprintf("transforms: %q is registered twice", t.Name))
	case !nameForm.MatchString(t.Name):
		panic(fmt.Sprintf("transforms: %q is not a lower_snake_case name", t.Name))
	case t.Compile == nil || t.Config == nil:
		panic(fmt.Sprintf("transforms: %q needs Compile and Config", t.Name))
	}
	registry[t.Name] = t
}

// builtin registers a transform of this package.
func builtin(t Transform) Transform {
	t.builtin = true
	Register(t)
	return t
}

// All are the transforms that this binary knows, by name.
func All() []Transform {
	return slices.SortedFunc(maps.Values(registry), func(a, b Transform) int { return strings.Compare(a.Name, b.Name) })
}

// compileWith makes a Transform's Compile of a function that takes the settings decoded.
func compileWith[C any](
	compile func(c C, in *record.Schema, o Options) (Step, *record.Schema, error),
) func(json.RawMessage, *record.Schema, Options) (Step, *record.Schema, error) {
	return func(config json.RawMessage, in *record.Schema, o Options) (Step, *record.Schema, error) {
		c, err := decode[C](config)
		if err != nil {
			return nil, nil, err
		}
		return compile(c, in, o)
	}
}

// fieldMap is the JSON schema of a map from fields to value.
func fieldMap(value *jsonschema.Schema) *jsonschema.Schema {
	one := uint64(1)
	return &jsonschema.Schema{Type: "object", MinProperties: &one, AdditionalProperties: value}
}
