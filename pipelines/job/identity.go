package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Identity is what makes two jobs do the same: the query, the transforms, the sinks and the fields of the source. It
// leaves out what only says how a system is reached and how fast, the settings tagged reprise:"tuning": a run may be
// resumed with others.
func (j *Job) Identity(schema *record.Schema) (map[string]any, error) {
	text, err := json.Marshal(struct {
		Source     connector.SourceSpec
		Transforms any
		Sinks      map[string]Sink
		Fields     []record.Field
	}{j.Source, j.Transforms, j.Sinks, schema.Fields})
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	untune(reflect.TypeFor[connector.SourceSpec](), all["Source"])
	untune(reflect.TypeFor[map[string]Sink](), all["Sinks"])
	return all, nil
}

// untune removes settings of type t that are mere tuning.
func untune(t reflect.Type, settings any) {
	switch t.Kind() {
	case reflect.Pointer:
		untune(t.Elem(), settings)
	case reflect.Slice, reflect.Map:
		switch of := settings.(type) {
		case []any:
			for _, v := range of {
				untune(t.Elem(), v)
			}
		case map[string]any:
			if t.Kind() == reflect.Map {
				for _, v := range of {
					untune(t.Elem(), v)
				}
			}
		}
	case reflect.Struct:
		of, ok := settings.(map[string]any)
		if !ok {
			return
		}
		switch t {
		case reflect.TypeFor[connector.SourceSpec]():
			for name, settings := range of {
				if k, ok := connector.KindOf(name); ok && k.Source != nil {
					untune(reflect.TypeOf(k.Source()), settings)
				}
			}
			return
		case reflect.TypeFor[connector.SinkSpec](), reflect.TypeFor[Sink]():
			for name, settings := range of {
				if k, ok := connector.KindOf(name); ok && k.Sink != nil {
					untune(reflect.TypeOf(k.Sink()), settings)
				}
			}
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && name == "":
				untune(f.Type, of)
			case f.Tag.Get("reprise") == "tuning":
				delete(of, name)
			default:
				untune(f.Type, of[name])
			}
		}
	}
}

// Fingerprint is a short name of an identity.
func Fingerprint(identity map[string]any) (string, error) {
	text, err := json.Marshal(identity)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), err
}

// Differences are the places where two identities differ, with what stands there: "source.cassandra.table: assets, now
// photos".
func Differences(was, is map[string]any) []string { return differences("", was, is) }

func differences(path string, was, is any) (found []string) {
	under := func(key string) string {
		if path == "" {
			return key
		}
		return path + "." + key
	}
	switch w := was.(type) {
	case map[string]any:
		if i, ok := is.(map[string]any); ok {
			all := maps.Clone(w)
			maps.Copy(all, i)
			for _, key := range slices.Sorted(maps.Keys(all)) {
				found = append(found, differences(under(key), w[key], i[key])...)
			}
			return found
		}
	case []any:
		if i, ok := is.([]any); ok {
			for n := range max(len(w), len(i)) {
				var a, b any
				if n < len(w) {
					a = w[n]
				}
				if n < len(i) {
					b = i[n]
				}
				found = append(found, differences(under(fmt.Sprint(n)), a, b)...)
			}
			return found
		}
	}
	a, b := text(was), text(is)
	if a == b {
		return nil
	}
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	return []string{fmt.Sprintf("%s: %s, now %s", path, brief(a, same), brief(b, same))}
}

func text(v any) string {
	if v == nil {
		return "nothing"
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // people read it
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}

// brief is a text, of a long one what lies around a place.
func brief(text string, at int) string {
	const enough = 80
	if from := at - enough/2; from > 0 && len(text) > enough {
		text = "..." + strings.ToValidUTF8(text[from:], "")
	}
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "") + "..."
	}
	return text
}
