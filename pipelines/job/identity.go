package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"reprise/transforms/record"
)

// tuning are the settings of systems that say how one is reached and how fast, not what is read or written: a run may be
// resumed with others.
var tuning = map[string]bool{"broadcast": true, "memory": true, "cache": true, "cache_for": true,
	"connection": true, "urls": true, "brokers": true, "user": true, "password": true, "api_key": true, "tls": true, "sasl": true,
	"keep_alive": true,
	"token":      true, "credential": true, "access_key": true, "secret_key": true, "session_token": true, "endpoint": true, "batch": true, "gzip": true,
	"refresh": true, "timeout": true, "connect_timeout": true, "retry_for": true, "compress": true, "compression": true, "file_size": true,
	"row_group": true, "merge_memory": true, "open_partitions": true, "page": true, "consistency": true, "create": true,
	"login": true, "in_flight": true, "under_way": true, "every": true, "load": true, "alias": true, "replaces": true,
	"sole_writer": true, "on_open_transaction": true}

// named are the settings whose keys are names of the user's own, and the range of buckets, whose every is what is read.
var named = map[string]bool{"fields": true, "on": true, "with": true, "partitions": true, "values": true, "range": true}

// Identity is what makes two jobs do the same: the query, the transforms, the sinks and the fields of the source.
func (j *Job) Identity(schema *record.Schema) (map[string]any, error) {
	text, err := json.Marshal(struct {
		Source     Source
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
	untune(all["Source"])
	sinks, _ := all["Sinks"].(map[string]any)
	for _, sink := range sinks {
		settings, _ := sink.(map[string]any)
		for key, of := range settings {
			if key != "transforms" {
				untune(of)
			}
		}
	}
	return all, nil
}

func untune(v any) {
	m, _ := v.(map[string]any)
	for key, of := range m {
		within, _ := of.(map[string]any)
		parts, _ := of.([]any)
		switch {
		case tuning[key]:
			delete(m, key)
		case key == "query": // is in the words of the data
		case named[key]:
			for _, of := range within {
				untune(of)
			}
		case key == "of":
			for _, part := range parts { // of a union
				untune(part)
			}
			untune(of)
		default:
			untune(of)
		}
	}
}

// Fingerprint is a short name of an identity.
func Fingerprint(identity map[string]any) (string, error) {
	text, err := json.Marshal(identity)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), err
}

// Differences are the places where two identities differ, with what stands there: "source.cassandra.table: assets, now photos".
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
