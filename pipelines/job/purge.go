package job

import (
	"time"

	"reprise/io/connector"
)

// Purge makes a job one that deletes what it reads, in two steps: see package purge and `reprise purge --help`.
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
