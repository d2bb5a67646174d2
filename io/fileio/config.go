package fileio

import (
	"path/filepath"
	"strings"

	"reprise/io/connector"
)

// SinkConfig are the settings of files as a sink.
type SinkConfig struct {
	Path     string          `json:"path" jsonschema:"required" jsonschema_description:"Folder for the files, created if missing. Workers on several machines must share it."`
	Format   string          `json:"format,omitempty" jsonschema:"enum=jsonl,enum=parquet" jsonschema_description:"jsonl (default): one JSON object a line. parquet: Parquet."`
	Compress string          `json:"compress,omitempty" reprise:"tuning" jsonschema:"enum=none,enum=gzip,enum=zstd,enum=snappy" jsonschema_description:"none, gzip or zstd, for Parquet also snappy. Default: none for jsonl, zstd for Parquet."`
	FileSize connector.Bytes `json:"file_size,omitempty" reprise:"tuning" jsonschema_description:"A file that has reached this size is closed and the next one begun. Default: 256MiB."`
	Meta     bool            `json:"meta,omitempty" jsonschema_description:"Add a field _meta with key, version, op and run to each record. Deletes in Parquet need it. Default: false."`
}

// SourceConfig are the settings of files as a source.
type SourceConfig struct {
	Path          string           `json:"path" jsonschema:"required" jsonschema_description:"The files to read, a pattern such as /data/assets-*.jsonl.gz. JSON lines may be plain, .gz or .zst; only plain ones and Parquet are read in several parts."`
	Format        string           `json:"format,omitempty" jsonschema:"enum=jsonl,enum=parquet" jsonschema_description:"jsonl or parquet. Default: parquet for names with .parquet, else jsonl."`
	Key           []string         `json:"key" jsonschema:"required,minItems=1" jsonschema_description:"The fields that make up a record's key."`
	Fields        connector.Fields `json:"fields,omitempty" jsonschema_description:"Name and CQL type of each field, such as {id: uuid, tags: set<text>}. Default: for Parquet the file's own types, for JSON lines guessed from the first 1000 lines (text, bigint, double, boolean, list<>, map<text,> and udt<>)."`
	IgnoreUnknown bool             `json:"ignore_unknown,omitempty" jsonschema_description:"Leave out what fields does not name. Default: false, a record with an unknown field is a dead letter."`
	Version       string           `json:"version,omitempty" jsonschema_description:"Field with the record's version: a timestamp, a timeuuid, or a bigint of microseconds since 1970. Default: that in _meta, else the time at which the file was last changed."`
	CutTimestamps bool             `json:"cut_timestamps,omitempty" jsonschema_description:"Cut timestamps to whole milliseconds, which is all that a timestamp holds; those of the key and the version stay whole. Default: false, one with microseconds is a dead letter, and Parquet that has some in its first 1000 rows is refused. Read as bigint such a field of Parquet keeps what it has, in the unit of the file."`
	MaxLine       connector.Bytes  `json:"max_line,omitempty" jsonschema_description:"A longer line becomes a dead letter. Default: 16MiB."`
}

const (
	jsonl   = "jsonl"
	parquet = "parquet"

	metaField = "_meta"
)

func (c SinkConfig) format() string {
	if c.Format == "" {
		return jsonl
	}
	return c.Format
}

func (c SinkConfig) compress() string {
	switch {
	case c.Compress != "":
		return c.Compress
	case c.format() == parquet:
		return "zstd"
	}
	return "none"
}

// extension is that of the files' names.
func (c SinkConfig) extension() string {
	if c.format() == parquet {
		return ".parquet"
	}
	return map[string]string{"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[c.compress()]
}

// Validate finds what the schema of the settings cannot say.
func (c SinkConfig) Validate() (faults []connector.Fault) {
	if c.Path == "" {
		faults = append(faults, connector.Faultf("path", "name the folder that the files go to"))
	}
	if c.format() == jsonl && c.Compress == "snappy" {
		faults = append(faults, connector.Faultf("compress",
			"snappy is for Parquet; JSON lines take none, gzip or zstd"))
	}
	return faults
}

// Validate finds what the schema of the settings cannot say.
func (c SourceConfig) Validate() (faults []connector.Fault) {
	if _, err := filepath.Match(c.Path, ""); err != nil || c.Path == "" {
		faults = append(faults, connector.Faultf("path",
			"%q is not a pattern of file names such as /data/assets-*.jsonl", c.Path))
	}
	if len(c.Key) == 0 {
		faults = append(faults, connector.Faultf("key", "name the fields that make up a record's key"))
	}
	if c.MaxLine > 1<<30 {
		faults = append(faults, connector.Faultf("max_line",
			"%s is more than 1GiB, and each line must fit into memory", c.MaxLine))
	}
	if len(c.Fields) == 0 && c.IgnoreUnknown {
		faults = append(faults, connector.Faultf("ignore_unknown", "name the fields to read in fields"))
	}
	for _, f := range c.Fields {
		if f.Name == metaField {
			faults = append(faults, connector.Faultf("fields."+f.Name,
				"%s is what Reprise adds itself; leave it out", metaField))
		}
	}
	return append(faults, c.Fields.Check(c.Key, c.Version)...)
}

// isParquet tells the format of a file.
func (c SourceConfig) isParquet(path string) bool {
	return c.Format == parquet || (c.Format == "" && strings.HasSuffix(path, ".parquet"))
}
