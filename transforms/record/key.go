package record

import (
	"fmt"
	"strings"
)

// ParseKey reads a key from its text, as AppendKey writes it, and gives values for all fields, those outside of the key
// Unset.
func (s *Schema) ParseKey(text string) ([]Value, error) {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '|':
			parts = append(parts, part.String())
			part.Reset()
		case c != '\\':
			part.WriteByte(c)
		case i+1 < len(text) && (text[i+1] == '|' || text[i+1] == '\\'):
			i++
			part.WriteByte(text[i])
		default:
			return nil, fmt.Errorf(`%.100q is not a key: a \ is followed by \ or |`, text)
		}
	}
	parts = append(parts, part.String())
	if len(parts) != len(s.Key) {
		return nil, fmt.Errorf("%.100q is no key of %s: it has %d parts", text, strings.Join(s.KeyNames(), ", "),
			len(parts))
	}
	values := make([]Value, len(s.Fields))
	for i, k := range s.Key {
		var err error
		if values[k], err = ParseText(s.Fields[k].Type, parts[i]); err != nil {
			return nil, fmt.Errorf("the key %.100q: field %s: %w", text, s.Fields[k].Name, err)
		}
	}
	return values, nil
}

// ParseText reads a value of any type from its text, as AppendText writes it.
func ParseText(t Type, s string) (Value, error) { return Reading{}.ParseText(t, s) }

// ParseText is ParseText, in another way.
func (how Reading) ParseText(t Type, s string) (Value, error) {
	if t.Kind.Nested() {
		return how.FromJSON(t, s)
	}
	return how.Parse(t, s)
}
