package transforms

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"
)

// Secret refers to a secret as connector.Secret does, which this package cannot import: "env:NAME" or "file:PATH". It is looked up by the
// worker that needs it.
type Secret string

var secretForm = regexp.MustCompile(`^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$`)

// Resolve is the secret, without a final newline; it is never empty.
func (s Secret) Resolve() (string, error) {
	kind, name, _ := strings.Cut(string(s), ":")
	value := ""
	if kind == "file" {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		value = strings.TrimRight(string(b), "\r\n")
	} else {
		value = os.Getenv(name)
	}
	if value == "" {
		return "", fmt.Errorf("the secret %s is not set", s)
	}
	return value, nil
}

// JSONSchema implements jsonschema's customSchemaImpl.
func (Secret) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: secretForm.String(),
		Description: "A secret, by reference: env:NAME (an environment variable) or file:PATH (the content of a file), looked up on the worker."}
}
