package fileio

import (
	"path/filepath"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "files",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "JSON lines or Parquet files.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "JSON lines or Parquet files in a folder.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the folder " + filepath.Clean(c.Path) }

// ReadBack implements connector.ReadBack.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	source := c.reader("", schema)
	source.IgnoreUnknown = true
	return source, connector.View{Versions: c.Meta}, nil
}

// ReadQueue implements connector.Queue.
func (c SinkConfig) ReadQueue(run string, schema *record.Schema) connector.SourceConfig {
	return c.reader(run+"-", schema)
}

// reader reads the files whose names begin so.
func (c SinkConfig) reader(prefix string, schema *record.Schema) *SourceConfig {
	return &SourceConfig{Path: filepath.Join(c.Path, prefix+"*"+c.extension()), Key: schema.KeyNames(),
		Fields: slices.Clone(schema.Fields)}
}
