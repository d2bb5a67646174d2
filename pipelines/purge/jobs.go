package purge

import (
	"encoding/json"
	"path/filepath"
	"slices"

	"reprise/io/compose"
	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/pipelines/job"
	"reprise/pipelines/purge/manifest"
	"reprise/transforms"
	"reprise/transforms/record"
)

// markJob is the job that puts down which rows are to be deleted; schema is that of the job's source.
func markJob(j *job.Job, schema *record.Schema) *job.Job {
	mark := *j
	mark.Name, mark.Purge = j.Name+"-mark", nil
	mark.Source = marked(j.Source)
	mark.Sinks = map[string]job.Sink{job.MarkedSink: entries(j, schema)}
	return &mark
}

// purgeJob is the job that deletes the rows which a run of markJob has put down, as far as they are still there and
// still fulfil the job's conditions, each up to the version that it has then. It puts each row down before.
func purgeJob(j *job.Job, schema *record.Schema, run string) *job.Job {
	purge := *j
	purge.Name, purge.Purge = j.Name+"-purge", nil
	purge.Source = connector.From(&compose.KeysConfig{From: keysIn(j, schema, run), Of: marked(j.Source),
		Missing: compose.MissingFilter})
	purge.Sinks = map[string]job.Sink{job.DeletedSink: entries(j, schema)}
	for name, s := range j.Sinks {
		s.Transforms = slices.Concat([]transforms.Spec{plain}, s.Transforms, []transforms.Spec{spec("delete", "true")})
		s.After = append(slices.Clip(s.After), job.DeletedSink)
		purge.Sinks[name] = s
	}
	return &purge
}

// restoreJob is the job that writes again what a run of purgeJob has deleted, unless it was written since.
func restoreJob(j *job.Job, schema *record.Schema, purged string) *job.Job {
	restore := *j
	restore.Name, restore.Purge = j.Name+"-restore", nil
	from := keysIn(j, schema, purged, record.Field{Name: manifest.Record, Type: record.Of(record.Blob)})
	restore.Source = marked(connector.From(&manifest.DeletedConfig{From: from, Of: j.Source}))
	restore.Sinks = map[string]job.Sink{}
	for name, s := range j.Sinks {
		s.Transforms = append([]transforms.Spec{plain}, s.Transforms...)
		s.After = nil
		restore.Sinks[name] = s
	}
	return &restore
}

// entries is the sink that makes entries of a manifest.
func entries(j *job.Job, schema *record.Schema) job.Sink {
	keep := append(schema.KeyNames(), manifest.Reason, manifest.At, manifest.Row, manifest.Record)
	return job.Sink{
		SinkSpec: connector.To(&fileio.SinkConfig{Path: j.Purge.Manifest, Meta: true}),
		Route: job.Route{Transforms: []transforms.Spec{
			spec("derive", map[string]any{
				manifest.Reason: map[string]any{"value": j.Purge.Reason, "type": "text"},
				manifest.At:     map[string]any{"value": "now", "type": "timestamp"},
			}),
			spec("project", map[string]any{"keep": keep}),
		}},
	}
}

// keysIn is the source of the keys in the manifest of a run.
func keysIn(j *job.Job, schema *record.Schema, run string, more ...record.Field) connector.SourceSpec {
	var fields connector.Fields
	for _, k := range schema.Key {
		fields = append(fields, schema.Fields[k])
	}
	return connector.From(&fileio.SourceConfig{Path: filepath.Join(j.Purge.Manifest, run+"-*.jsonl"),
		Key: schema.KeyNames(), Fields: append(fields, more...), IgnoreUnknown: true})
}

func marked(of connector.SourceSpec) connector.SourceSpec {
	return connector.From(&manifest.MarkedConfig{Of: of})
}

// plain takes away what rows hold of themselves.
var plain = spec("project", map[string]any{"drop": []string{manifest.Row, manifest.Record}})

// spec is an entry of transforms; its settings are plain values.
func spec(name string, config any) transforms.Spec {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	return transforms.Spec{Name: name, Config: text}
}
