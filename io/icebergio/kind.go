package icebergio

import (
	"slices"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "iceberg",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "A snapshot of an Iceberg table.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "An Iceberg table.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the Iceberg table " + c.Table }

// Location implements connector.Located: a table of the same name may stand in another catalog.
func (c SinkConfig) Location() string {
	return c.Catalog.SQLite + c.Catalog.REST + "/" + c.Catalog.Name
}

// ReadBack implements connector.ReadBack.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	source := c.reader(schema)
	if name := c.VersionColumn; name != "" && name != noColumn {
		source.Version = name
		source.Fields = append(source.Fields, record.Field{Name: name, Type: record.Of(record.BigInt)})
	}
	return source, connector.View{Versions: c.VersionColumn != noColumn, Once: c.Upserts()}, nil
}

// ReadQueue implements connector.Queue.
func (c SinkConfig) ReadQueue(_ string, schema *record.Schema) connector.SourceConfig {
	return c.reader(schema)
}

func (c SinkConfig) reader(schema *record.Schema) *SourceConfig {
	return &SourceConfig{Catalog: c.Catalog, S3: c.S3, Table: c.Table, Key: schema.KeyNames(),
		Fields: slices.Clone(schema.Fields), IgnoreUnknown: true}
}
