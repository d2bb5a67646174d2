// Package secret resolves references to secrets, which themselves never stand in a job file.
package secret

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"
)

// Secret refers to a secret: "env:NAME" (an environment variable), "file:PATH" (the content of a file), or "" for none.
// It is looked up by the worker that needs it.
type Secret string

var form = regexp.MustCompile(`^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$`)

// Valid tells whether s has the form of a reference; "" has not.
func (s Secret) Valid() bool { return form.MatchString(string(s)) }

// Resolve is the secret, without a final newline.
func (s Secret) Resolve() (string, error) {
	kind, name, _ := strings.Cut(string(s), ":")
	switch kind {
	case "":
		return "", nil
	case "env":
		v, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set; export it where the workers run", name)
		}
		return v, nil
	case "file":
		b, err := os.ReadFile(name)
		return strings.TrimRight(string(b), "\r\n"), err
	}
	return "", fmt.Errorf("a secret is env:NAME or file:PATH")
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Secret) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: form.String(), Examples: []any{"env:NAME", "file:PATH"},
		Description: "A secret, by reference: env:NAME (an environment variable) or file:PATH (the content of a " +
			"file), " +
			"looked up on the worker."}
}
