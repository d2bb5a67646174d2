package job

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"time"

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

// Marked is the source of a purge: rows that hold themselves. It stands in no job file, as Deleted does not.
type Marked struct {
	Of *Source `json:"of"`
}

// Deleted is the source of a restore: the rows of a manifest, of which Of has none any more.
type Deleted struct {
	From *Source `json:"from"`
	Of   *Source `json:"of"`
}

func (m Marked) open(need connector.Need) (connector.Source, error) {
	of, err := m.Of.Open(need)
	if err != nil {
		return nil, err
	}
	return manifest.NewMarked(of), nil
}

func (d Deleted) open(need connector.Need) (connector.Source, error) {
	from, err := d.From.Open(connector.Need{Run: need.Run, PageRows: need.Page(100)})
	if err != nil {
		return nil, err
	}
	of, err := d.Of.Open(need)
	if err != nil {
		return nil, err
	}
	finder, ok := of.(connector.Finder)
	if !ok {
		return nil, fmt.Errorf("the source cannot find single rows by their keys")
	}
	return manifest.NewDeleted(from, finder, need.Floor), nil
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
	c := j.Source.Cassandra
	if c == nil {
		return faults
	}
	// A row is deleted up to the version that was read: it must be that of the whole row.
	if len(c.Columns) > 0 {
		add("source.cassandra.columns", "a purge deletes whole rows, up to the latest write time of all columns; leave columns out")
	}
	if c.Version != "" {
		add("source.cassandra.version", "a purge deletes by write times; leave version out")
	}
	return faults
}

// MarkJob is the job that puts down which rows are to be deleted; schema is that of the job's source.
func (j *Job) MarkJob(schema *record.Schema) *Job {
	mark := *j
	mark.Name, mark.Purge = j.Name+"-mark", nil
	mark.Source = Source{Marked: &Marked{Of: &j.Source}}
	mark.Sinks = map[string]Sink{MarkedSink: j.entries(schema)}
	return &mark
}

// PurgeJob is the job that deletes the rows which a run of MarkJob has put down, as far as they are still there and still fulfil the
// job's conditions, each up to the version that it has then. It puts each row down before.
func (j *Job) PurgeJob(schema *record.Schema, marked string) *Job {
	purge := *j
	purge.Name, purge.Purge = j.Name+"-purge", nil
	purge.Source = Source{Keys: &Keys{From: j.manifest(schema, marked), Of: Source{Marked: &Marked{Of: &j.Source}}, Missing: "filter"}}
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
	from := j.manifest(schema, purged)
	from.Files.Fields = append(from.Files.Fields, record.Field{Name: manifest.Record, Type: record.Of(record.Blob)})
	restore.Source = Source{Marked: &Marked{Of: &Source{Deleted: &Deleted{From: &from, Of: &j.Source}}}}
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
		Target: Target{Files: &fileio.SinkConfig{Path: j.Purge.Manifest, Meta: true}},
		Transforms: []transforms.Spec{
			spec("derive", map[string]any{manifest.Reason: map[string]any{"value": j.Purge.Reason, "type": "text"}, manifest.At: map[string]any{"value": "now", "type": "timestamp"}}),
			spec("project", map[string]any{"keep": keep}),
		},
	}
}

// manifest is the source of the keys in the manifest of a run.
func (j *Job) manifest(schema *record.Schema, run string) Source {
	var fields connector.Fields
	for _, k := range schema.Key {
		fields = append(fields, schema.Fields[k])
	}
	return Source{Files: &fileio.SourceConfig{Path: filepath.Join(j.Purge.Manifest, run+"-*.jsonl"), Key: schema.KeyNames(), Fields: fields, IgnoreUnknown: true}}
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
