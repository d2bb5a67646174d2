package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"reprise/io/connector"
	"reprise/transforms/fail"
)

// Load reads and checks a job file. Its error has the code "job.wrong" and tells every fault with its line.
func Load(path string) (*Job, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fail.Job("job.unreadable", "the job file cannot be read: %w",
			err).WithFix("name an existing file: reprise run JOB.yaml")
	}
	return Parse(path, text)
}

// Parse is Load for a text; name stands in messages.
func Parse(name string, text []byte) (*Job, error) {
	f := newFile(name, text)
	asJSON, faults := f.read()
	if len(faults) > 0 {
		return nil, f.err(faults)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if faults, err = malformed(value); err != nil {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, f.err(append(faults, meaningOfRest(value, faults, filepath.Dir(name))...))
	}
	j, err := decode(asJSON)
	if err != nil {
		return nil, f.err(misfits(value, nil, func(part any) any { return part }))
	}
	j.beside(filepath.Dir(name))
	j.SetDefaults()
	for _, x := range j.Validate() {
		faults = append(faults, fault{path: x.Path, message: x.Message, secret: x.Secret})
	}
	if len(faults) > 0 {
		return nil, f.err(faults)
	}
	j.file = f
	return j, nil
}

// beside finds files that settings name in the folder of the job file.
func (j *Job) beside(dir string) {
	for _, s := range j.Sinks {
		if f, ok := s.SinkConfig.(connector.Filer); ok {
			f.Beside(dir)
		}
	}
}

func decode(asJSON []byte) (*Job, error) {
	j := &Job{}
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.DisallowUnknownFields()
	return j, d.Decode(j)
}

// misfits are the places that the schema lets through and that still do not decode, such as a number that is too large.
// Each place is tried alone: whole gives the file with nothing but a part at that place.
func misfits(part any, at []string, whole func(part any) any) (faults []fault) {
	asJSON, err := json.Marshal(whole(part))
	if err == nil {
		_, err = decode(asJSON)
	}
	if err == nil {
		return nil
	}
	switch t := part.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(t)) {
			faults = append(faults, misfits(t[key], append(slices.Clip(at), key),
				func(p any) any { return whole(map[string]any{key: p}) })...)
		}
	case []any:
		for i, p := range t {
			faults = append(faults, misfits(p, append(slices.Clip(at), fmt.Sprint(i)),
				func(p any) any { return whole([]any{p}) })...)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	message := err.Error()
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		message = e.Value + " does not fit here"
	}
	return []fault{{path: strings.Join(at, "."), message: message}}
}

// meaningOfRest validates the systems whose settings have the right form, so that all faults of a file are told at
// once. It changes value.
func meaningOfRest(value any, form []fault, dir string) (faults []fault) {
	wrong := map[string]bool{}
	for _, x := range form {
		wrong[system(x.path)] = true
		drop(value, strings.Split(x.path, "."))
	}
	asJSON, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	j, err := decode(asJSON)
	if err != nil {
		return nil
	}
	j.beside(dir)
	j.SetDefaults()
	for _, x := range j.Validate() {
		if !wrong[system(x.Path)] {
			faults = append(faults, fault{path: x.Path, message: x.Message, secret: x.Secret})
		}
	}
	return faults
}

// system is the beginning of a path that names one system: source.cassandra, sinks.lake, dead_letters.files.
func system(path string) string {
	parts := strings.SplitN(path, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// drop takes a place out of a value, or the list that it is in.
func drop(value any, at []string) {
	m, ok := value.(map[string]any)
	if !ok {
		return
	}
	if _, nested := m[at[0]].(map[string]any); nested && len(at) > 1 {
		drop(m[at[0]], at[1:])
		return
	}
	delete(m, at[0])
}
