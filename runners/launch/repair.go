package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/verify"
	"reprise/transforms/record"
)

// repair is a job that writes again what a verification has found wrong, and lists of what it does not do: delete what is extra.
type repair struct {
	*verification
	wrong  []string                 // sinks that lack something
	seen   map[string]bool          // keys of the source's rows
	rows   bytes.Buffer             // the same, as lines
	extras map[string]*bytes.Buffer // keys of the targets' rows, by sink
}

// add adds what is wrong at a sink.
func (r *repair) add(ctx context.Context, s *side, proven []verify.Proven) error {
	got, err := s.found.Schema(ctx)
	if err != nil {
		return err
	}
	for _, p := range proven {
		switch {
		case p.Kind == verify.Extra:
			if r.extras[s.name] == nil {
				r.extras[s.name] = &bytes.Buffer{}
			}
			err = writeKey(r.extras[s.name], got, p.Key)
		case !r.seen[string(p.Source)]:
			r.seen[string(p.Source)] = true
			err = writeKey(&r.rows, r.main.Schema, p.Source)
		}
		if err != nil {
			return err
		}
		if p.Kind != verify.Extra && !slices.Contains(r.wrong, s.name) {
			r.wrong = append(r.wrong, s.name)
		}
	}
	return nil
}

// writeKey writes a line with the fields of a key.
func writeKey(to *bytes.Buffer, schema *record.Schema, key []byte) error {
	r, err := verify.KeyRecord(schema, key)
	if err != nil {
		return err
	}
	to.Write(append(r.AppendJSON(nil), '\n'))
	return nil
}

// write writes verify-RUN-repair.yaml with verify-RUN-keys.jsonl, and verify-RUN-extras-SINK.jsonl, as far as there is something to tell. It gives the
// name of the job file.
func (r *repair) write(folder string) (name string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	path := func(rest string) string { return filepath.Join(folder, "verify-"+r.id.ID+"-"+rest) }
	for sink, lines := range r.extras {
		if err := os.WriteFile(path("extras-"+sink+".jsonl"), lines.Bytes(), 0o644); err != nil {
			return "", err
		}
	}
	if len(r.wrong) == 0 {
		return "", nil
	}
	if err := os.WriteFile(path("keys.jsonl"), r.rows.Bytes(), 0o644); err != nil {
		return "", err
	}
	if r.source.Indexed != nil {
		return "", nil // rows cannot be read by their keys: the job itself is the repair
	}
	again := *r.job
	again.Name += "-repair"
	again.Sinks = map[string]job.Sink{}
	for _, sink := range r.wrong {
		target := r.job.Sinks[sink]
		if target.Elasticsearch != nil {
			there := *target.Elasticsearch
			there.Create = nil // which would want it empty
			target.Elasticsearch = &there
		}
		again.Sinks[sink] = target
	}
	text, err := json.Marshal(again)
	if err != nil {
		return "", err
	}
	var file map[string]any
	if err := json.Unmarshal(text, &file); err != nil {
		return "", err
	}
	var fields connector.Fields
	for _, k := range r.main.Schema.Key {
		fields = append(fields, r.main.Schema.Fields[k])
	}
	file["source"] = map[string]any{"keys": map[string]any{"of": file["source"],
		"from": map[string]any{"files": map[string]any{"path": path("keys.jsonl"), "key": r.main.Schema.KeyNames(), "fields": fields}}}}
	if text, err = json.Marshal(file); err == nil {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return "", err
	}
	return path("repair.yaml"), os.WriteFile(path("repair.yaml"), text, 0o644)
}
