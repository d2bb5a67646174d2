package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/verify/compare"
	"reprise/transforms/record"
)

// repair is a job that writes again what a verification has found wrong. It does not delete what is extra: that is
// listed.
type repair struct {
	*verification
	wrong  []string                 // sinks that lack something
	rows   map[string]int64         // the lowest version that each row is written with, by its key at the source
	extras map[string]*bytes.Buffer // keys of the targets' rows, by sink
}

// add adds what is wrong at a sink.
func (r *repair) add(ctx context.Context, s *side, proven []compare.Proven) error {
	got, err := s.found.Schema(ctx)
	if err != nil {
		return err
	}
	for _, p := range proven {
		switch {
		case p.Kind == compare.Extra:
			if r.extras[s.name] == nil {
				r.extras[s.name] = &bytes.Buffer{}
			}
			key, err := compare.KeyRecord(got, p.Key)
			if err != nil {
				return err
			}
			r.extras[s.name].Write(append(key.AppendJSON(nil), '\n'))
		case p.Kind == compare.Double, p.Kind == compare.Newer && !r.job.Verify.RepairNewer:
		default:
			r.rows[string(p.Source)] = max(r.rows[string(p.Source)], p.Floor)
			if !slices.Contains(r.wrong, s.name) {
				r.wrong = append(r.wrong, s.name)
			}
		}
	}
	return nil
}

// floorField is the field of the repair's keys with the lowest version of their rows.
const floorField = "_floor"

// keys are the keys of the source's rows with their floors, as lines.
func (r *repair) keys() ([]byte, error) {
	fields := append(r.keyFields(), record.Field{Name: floorField, Type: record.Of(record.BigInt)})
	schema, err := record.NewSchema(fields, r.main.Schema.KeyNames()...)
	if err != nil {
		return nil, err
	}
	var lines []byte
	for _, key := range slices.Sorted(maps.Keys(r.rows)) {
		of, err := compare.KeyRecord(r.main.Schema, []byte(key))
		if err != nil {
			return nil, err
		}
		line := &record.Record{Schema: schema}
		for _, k := range r.main.Schema.Key {
			line.Values = append(line.Values, of.Values[k])
		}
		line.Values = append(line.Values, record.Number(record.BigInt, r.rows[key]))
		lines = append(line.AppendJSON(lines), '\n')
	}
	return lines, nil
}

func (r *repair) keyFields() (fields connector.Fields) {
	for _, k := range r.main.Schema.Key {
		fields = append(fields, r.main.Schema.Fields[k])
	}
	return fields
}

// write writes verify-RUN-repair.yaml with verify-RUN-keys.jsonl, and verify-RUN-extras-SINK.jsonl, as far as there is
// something to tell. It gives the name of the job file.
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
	keys, err := r.keys()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path("keys.jsonl"), keys, 0o644); err != nil {
		return "", err
	}
	if _, indexed := r.source.SourceConfig.(*compare.IndexedConfig); indexed {
		return "", nil // rows cannot be read by their keys: the job itself is the repair
	}
	again := *r.job
	again.Name += "-repair"
	again.Sinks = map[string]job.Sink{}
	for _, sink := range r.wrong {
		target := r.job.Sinks[sink]
		if a, ok := target.SinkConfig.(connector.Again); ok {
			target.SinkSpec = connector.To(a.Again())
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
	fields := append(r.keyFields(), record.Field{Name: floorField, Type: record.Of(record.BigInt)})
	file["source"] = map[string]any{"keys": map[string]any{"of": file["source"], "floor": floorField,
		"from": map[string]any{"files": map[string]any{"path": path("keys.jsonl"), "key": r.main.Schema.KeyNames(),
			"fields": fields}}}}
	if text, err = json.Marshal(file); err == nil {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return "", err
	}
	return path("repair.yaml"), os.WriteFile(path("repair.yaml"), text, 0o644)
}
