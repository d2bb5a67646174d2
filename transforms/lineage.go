package transforms

import (
	"encoding/json"
	"slices"

	"reprise/transforms/record"
)

// KeptKey follows the fields of a source's key through chains, one after the other. It gives the names that they have
// at the end, or the label of the first step that drops one, may change its value, or is a team's own, of which nothing
// is known. So long as a sink tells its rows apart by these fields, each of its rows is made of one row of the source.
func KeptKey(source *record.Schema, chains ...*Chain) (names []string, lost string) {
	names = source.KeyNames()
	for _, c := range chains {
		for _, step := range c.Steps {
			if !step.run.builtin {
				return nil, step.Label()
			}
			for i, name := range names {
				var ok bool
				if names[i], ok = step.keeps(name); !ok {
					return nil, step.Label()
				}
			}
		}
	}
	return names, ""
}

// keeps gives the name of a field behind the step; false: it is not there, or may have another value.
func (s CompiledStep) keeps(name string) (string, bool) {
	var settings struct {
		Field  string   `json:"field"`
		Fields []string `json:"fields"`
	}
	var byField map[string]json.RawMessage
	switch s.Name {
	case rename.Name:
		var names RenameConfig
		if json.Unmarshal(s.config, &names) != nil {
			return "", false
		}
		if other, renamed := names[name]; renamed {
			name = other
		}
	case cast.Name:
		var types CastConfig
		if json.Unmarshal(s.config, &types) != nil {
			return "", false
		}
		// Different values have different texts.
		if to, changed := types[name]; changed && to != record.Text.String() {
			return "", false
		}
	case derive.Name, setDefaults.Name:
		if json.Unmarshal(s.config, &byField) != nil || byField[name] != nil {
			return "", false
		}
	case route.Name, explode.Name, flatten.Name, redact.Name, truncate.Name:
		if json.Unmarshal(s.config, &settings) != nil || settings.Field == name ||
			slices.Contains(settings.Fields, name) {
			return "", false
		}
	case stepWhen, filter.Name, deletes.Name, project.Name, nest.Name: // what they keep stays as it is
	default:
		return "", false
	}
	return name, s.Out.Index(name) >= 0
}
