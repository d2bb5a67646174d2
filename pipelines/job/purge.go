package job

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"time"

	"reprise/io/compose"
	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/manifest"
	"reprise/transforms"
	"reprise/transforms/record"
)

// Purge makes a job one that deletes what it reads, in two steps: `reprise purge` explains.
type Purge struct {
	Reason   string             `json:"reason" jsonschema:"required" jsonschema_description:"CEL expression on a record as it leaves the job's transforms: why it is to be deleted, as a text for the manifest."`
	Manifest string             `json:"manifest,omitempty" jsonschema_description:"Folder of the manifests, which every worker must reach: which rows are marked, and each row that is deleted, as it was. Default: manifests/NAME."`
	Grace    connector.Duration `json:"grace,omitempty" jsonschema_description:"Time that must pass between the end of the marking and the purge. Default: 720h."`
}

const defaultGrace = connector.Duration(30 * 24 * time.Hour)

func (p *Purge) setDefaults(name string) {
	p.Manifest = def(p.Manifest, "manifests/"+name)
	p.Grace = def(p.Grace, defaultGrace)
}

// The sinks that put rows down: before anything is deleted, and instead of it.
const (
	MarkedSink  = "marked"
	DeletedSink = "deleted"
)

// validatePurge finds what is wrong with a job that purges.
func (j *Job) validatePurge() (faults []connector.Fault) {
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	for _, name := range []string{MarkedSink, DeletedSink} {
		if _, taken := j.Sinks[name]; taken {
			add("sinks."+name, "in a purge this is the name of the manifest; choose another")
		}
	}
	if d, ok := j.Source.SourceConfig.(connector.Deletable); ok {
		faults = append(faults, connector.Below("source."+j.Source.Kind(), d.KeepWhole())...)
	}
	return faults
}

// MarkJob is the job that puts down which rows are to be deleted; schema is that of the job's source.
func (j *Job) MarkJob(schema *record.Schema) *Job {
	mark := *j
	mark.Name, mark.Purge = j.Name+"-mark", nil
	mark.Source = marked(j.Source)
	mark.Sinks = map[string]Sink{MarkedSink: j.entries(schema)}
	return &mark
}

// PurgeJob is the job that deletes the rows which a run of MarkJob has put down, as far as they are still there and
// still fulfil the job's conditions, each up to the version that it has then. It puts each row down before.
func (j *Job) PurgeJob(schema *record.Schema, run string) *Job {
	purge := *j
	purge.Name, purge.Purge = j.Name+"-purge", nil
	purge.Source = connector.From(&compose.KeysConfig{From: j.manifest(schema, run), Of: marked(j.Source),
		Missing: compose.MissingFilter})
	purge.Sinks = map[string]Sink{DeletedSink: j.entries(schema)}
	for name, s := range j.Sinks {
		s.Transforms = slices.Concat([]transforms.Spec{plain}, s.Transforms, []transforms.Spec{spec("delete", "true")})
		s.After = append(slices.Clip(s.After), DeletedSink)
		purge.Sinks[name] = s
	}
	return &purge
}

// RestoreJob is the job that writes again what a run of PurgeJob has deleted, unless it was written since.
func (j *Job) RestoreJob(schema *record.Schema, purged string) *Job {
	restore := *j
	restore.Name, restore.Purge = j.Name+"-restore", nil
	from := j.manifest(schema, purged, record.Field{Name: manifest.Record, Type: record.Of(record.Blob)})
	restore.Source = marked(connector.From(&manifest.DeletedConfig{From: from, Of: j.Source}))
	restore.Sinks = map[string]Sink{}
	for name, s := range j.Sinks {
		s.Transforms = append([]transforms.Spec{plain}, s.Transforms...)
		s.After = nil
		restore.Sinks[name] = s
	}
	return &restore
}

// entries is the sink that makes entries of a manifest.
func (j *Job) entries(schema *record.Schema) Sink {
	keep := append(schema.KeyNames(), manifest.Reason, manifest.At, manifest.Row, manifest.Record)
	return Sink{
		SinkSpec: connector.To(&fileio.SinkConfig{Path: j.Purge.Manifest, Meta: true}),
		Route: Route{Transforms: []transforms.Spec{
			spec("derive", map[string]any{manifest.Reason: map[string]any{"value": j.Purge.Reason, "type": "text"},
				manifest.At: map[string]any{"value": "now", "type": "timestamp"}}),
			spec("project", map[string]any{"keep": keep}),
		}},
	}
}

// manifest is the source of the keys in the manifest of a run.
func (j *Job) manifest(schema *record.Schema, run string, more ...record.Field) connector.SourceSpec {
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
