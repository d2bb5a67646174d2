package cassandraio

import (
	"cmp"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "cassandra",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "A Cassandra table, by buckets or token ranges.",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "A Cassandra table.",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the Cassandra table " + c.Keyspace + "." + c.Table }

// WriteTimes implements connector.WriteTimer.
func (c SourceConfig) WriteTimes() bool { return c.Version == "" }

// Repeats implements connector.Unique.
func (SourceConfig) Repeats() string { return "" }

// Narrow implements connector.Narrower. A key field with a time in it stands for the version, so no write times are
// read.
func (c SourceConfig) Narrow(schema *record.Schema, also []string) connector.SourceConfig {
	c.Columns = slices.Concat(schema.KeyNames(), also)
	for _, k := range schema.Key {
		if f := schema.Fields[k]; connector.IsVersion(f.Type) {
			c.Version = f.Name
		}
	}
	return &c
}

// KeepWhole implements connector.Deletable: a row is deleted up to the version that was read.
func (c SourceConfig) KeepWhole() (faults []connector.Fault) {
	if len(c.Columns) > 0 {
		faults = append(faults, connector.Faultf("columns",
			"a purge deletes whole rows, up to the latest write time of all columns; leave columns out"))
	}
	if c.Version != "" {
		faults = append(faults, connector.Faultf("version", "a purge deletes by write times; leave version out"))
	}
	return faults
}

// Cells implements connector.CellWriter.
func (SinkConfig) Cells() {}

// Bounds implements connector.Bounded.
func (c SinkConfig) Bounds() bool { return c.Deletes != nil }

// Suits implements connector.Partner.
func (c SinkConfig) Suits(source connector.SourceConfig) []connector.Fault {
	from, ok := source.(*SourceConfig)
	if !ok || c.Write != writeChanges || from.Version == "" {
		return nil
	}
	return []connector.Fault{connector.Faultf("write",
		"changes are told by write times, which the source's version: %s hides; leave that out", from.Version)}
}

// ReadBack implements connector.ReadBack.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	source := &SourceConfig{Connection: c.Connection, Keyspace: c.Keyspace, Table: c.Table}
	for _, f := range schema.Fields {
		source.Columns = append(source.Columns, cmp.Or(c.Columns[f.Name], f.Name))
	}
	return source, connector.View{Names: c.Columns, EmptyIsNull: true, Versions: true}, nil
}
