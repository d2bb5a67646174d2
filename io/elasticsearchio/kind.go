package elasticsearchio

import (
	"path/filepath"
	"slices"

	"reprise/io/connector"
	"reprise/transforms/record"
)

func init() {
	connector.Register(connector.Kind{
		Name:      "elasticsearch",
		Source:    func() connector.SourceConfig { return new(SourceConfig) },
		SourceDoc: "What a query finds in Elasticsearch (7.17, 8 or 9) or OpenSearch (2.7 or newer).",
		Sink:      func() connector.SinkConfig { return new(SinkConfig) },
		SinkDoc:   "An index of Elasticsearch (7.17, 8 or 9) or OpenSearch (2.7 or newer).",
	})
}

// Open implements connector.SourceConfig.
func (c SourceConfig) Open(need connector.Need) (connector.Source, error) {
	return NewSource(c, need), nil
}

// Open implements connector.SinkConfig.
func (c SinkConfig) Open() (connector.Sink, error) { return NewSink(c), nil }

// Place implements connector.SinkConfig.
func (c SinkConfig) Place() string { return "the index " + c.Index }

// Narrow implements connector.Narrower.
func (c SourceConfig) Narrow(schema *record.Schema, also []string) connector.SourceConfig {
	names := append(slices.Concat(schema.KeyNames(), also), c.Version)
	c.Fields = slices.DeleteFunc(slices.Clone(c.Fields),
		func(f record.Field) bool { return !slices.Contains(names, f.Name) })
	return &c
}

// ReadBack implements connector.ReadBack. A document counts by its id, since another one may hold the same fields.
func (c SinkConfig) ReadBack(schema *record.Schema) (connector.SourceConfig, connector.View, error) {
	view := connector.View{Versions: true, Leave: slices.Clone(c.Exclude), ID: c.idTemplate()}
	source := &SourceConfig{URLs: c.URLs, User: c.User, Password: c.Password, APIKey: c.APIKey, TLS: c.TLS,
		Index: c.Index, ID: "{_id}", Routing: c.Routing, Refresh: true, Gzip: c.Gzip, Timeout: c.Timeout,
		ConnectTimeout: c.ConnectTimeout, RetryFor: c.RetryFor}
	for _, f := range schema.Fields {
		if len(c.Fields) > 0 && !slices.Contains(c.Fields, f.Name) {
			view.Leave = append(view.Leave, f.Name)
		}
		if !slices.Contains(view.Leave, f.Name) {
			source.Fields = append(source.Fields, f)
		}
	}
	key, err := c.Key(schema)
	if err != nil {
		return nil, view, err
	}
	for _, name := range key {
		if slices.Contains(view.Leave, name) {
			return nil, view, connector.NotVerified("its documents do not hold the field " + name +
				", which their ids are made of")
		}
	}
	source.Order, source.Key = key, append(key[:len(key)-1:len(key)-1], "_id")
	source.Fields = append(source.Fields, record.Field{Name: "_id", Type: record.Of(record.Text)})
	return source, view, nil
}

// Beside implements connector.Filer.
func (c *SinkConfig) Beside(folder string) {
	if c.Create != nil && c.Create.File != "" && !filepath.IsAbs(c.Create.File) {
		c.Create.File = filepath.Join(folder, c.Create.File)
	}
}

// Inline implements connector.Filer. Where that is not possible Validate tells why.
func (c *SinkConfig) Inline() {
	if c.Create == nil || c.Create.File == "" {
		return
	}
	if full := *c.Create; full.inline() == nil {
		c.Create = &full
	}
}

// Again implements connector.Again: create would want the index empty.
func (c SinkConfig) Again() connector.SinkConfig {
	c.Create = nil
	return &c
}
