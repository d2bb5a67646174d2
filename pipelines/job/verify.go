package job

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/elasticsearchio"
	"reprise/io/fileio"
	"reprise/io/icebergio"
	"reprise/io/kafkaio"
	"reprise/pipelines/verify"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// ReadBack is the source that reads the target of a sink, which gets records of a schema, and how its rows are those records.
func (t Target) ReadBack(schema *record.Schema) (*Source, verify.View, error) {
	key, fields := schema.KeyNames(), slices.Clone(connector.Fields(schema.Fields))
	switch {
	case t.Cassandra != nil:
		c := t.Cassandra
		source := &cassandraio.SourceConfig{Connection: c.Connection, Keyspace: c.Keyspace, Table: c.Table}
		for _, f := range fields {
			source.Columns = append(source.Columns, cmp.Or(c.Columns[f.Name], f.Name))
		}
		return &Source{Cassandra: source}, verify.View{Names: c.Columns, EmptyIsNull: true, Versions: true}, nil
	case t.Elasticsearch != nil:
		c := t.Elasticsearch
		view := verify.View{Versions: true, Leave: slices.Clone(c.Exclude)}
		for _, f := range fields {
			if len(c.Fields) > 0 && !slices.Contains(c.Fields, f.Name) {
				view.Leave = append(view.Leave, f.Name)
			}
		}
		source := &elasticsearchio.SourceConfig{URLs: c.URLs, User: c.User, Password: c.Password, APIKey: c.APIKey, TLS: c.TLS, Index: c.Index, ID: c.ID,
			Routing: c.Routing, Refresh: true, Gzip: c.Gzip, Timeout: c.Timeout, ConnectTimeout: c.ConnectTimeout, RetryFor: c.RetryFor}
		source.Fields = slices.DeleteFunc(fields, func(f record.Field) bool { return slices.Contains(view.Leave, f.Name) })
		fields, err := c.Key(schema)
		if err != nil {
			return nil, view, err
		}
		for _, name := range fields {
			if slices.Contains(view.Leave, name) {
				return nil, view, notVerified("its documents do not hold the field " + name + ", which their ids are made of")
			}
		}
		// A document counts by its id: another one may hold the same fields.
		view.ID, source.ID, source.Order = cmp.Or(c.ID, "{key}"), "{_id}", fields
		source.Key = append(fields[:len(fields)-1:len(fields)-1], "_id")
		source.Fields = append(source.Fields, record.Field{Name: "_id", Type: record.Of(record.Text)})
		return &Source{Elasticsearch: source}, view, nil
	case t.Iceberg != nil:
		c := t.Iceberg
		source := &icebergio.SourceConfig{Catalog: c.Catalog, S3: c.S3, Table: c.Table, Key: key, Fields: fields, IgnoreUnknown: true}
		if name := c.VersionColumn; name != "" && name != "-" {
			source.Version = name
			source.Fields = append(source.Fields, record.Field{Name: name, Type: record.Of(record.BigInt)})
		}
		return &Source{Iceberg: source}, verify.View{Versions: c.VersionColumn != "-", Once: c.Upserts()}, nil
	case t.Kafka != nil:
		k := t.Kafka
		if topic, err := connector.ParseTemplate(k.Topic, nil); err != nil || !topic.Fixed() {
			return nil, verify.View{}, notVerified("its records go to many topics")
		}
		return &Source{Kafka: &kafkaio.SourceConfig{Brokers: k.Brokers, Topic: k.Topic, Key: key, Format: k.Format, Registry: k.Registry,
			Fields: fields, IgnoreUnknown: true, SASL: k.SASL, TLS: k.TLS}}, verify.View{Versions: true}, nil
	case t.Files != nil:
		f := t.Files
		return &Source{Files: &fileio.SourceConfig{Path: filepath.Join(f.Path, "*"+extension(f)), Key: key, Fields: fields, IgnoreUnknown: true}},
			verify.View{Versions: f.Meta}, nil
	}
	return nil, verify.View{}, notVerified("nothing reads it back")
}

func notVerified(why string) error {
	return fail.Job("verify.no_source", "this target cannot be verified: %s", why).WithFix("name the sinks that can in verify.sinks")
}

// KeysOnly is the source with nothing but its key and some other fields, where it can read less than all.
func (s Source) KeysOnly(schema *record.Schema, also []string) *Source {
	names := slices.Concat(schema.KeyNames(), also)
	less := func(fields connector.Fields, version string) connector.Fields {
		return slices.DeleteFunc(slices.Clone(fields), func(f record.Field) bool { return !slices.Contains(names, f.Name) && f.Name != version })
	}
	switch {
	case s.Cassandra != nil:
		c := *s.Cassandra
		c.Columns = names
		for _, k := range schema.Key {
			if f := schema.Fields[k]; connector.IsVersion(f.Type) {
				c.Version = f.Name // nobody asks for it: so no write times are read
			}
		}
		return &Source{Cassandra: &c}
	case s.Elasticsearch != nil:
		c := *s.Elasticsearch
		c.Fields = less(c.Fields, c.Version)
		return &Source{Elasticsearch: &c}
	}
	return &s
}

// Indexed is the index of a source that cannot find rows by key. It stands in jobs that a verification makes, not in job files.
type Indexed struct {
	File string `json:"file"`
}

// Check is a sink of a verification, which writes nothing to any system. It stands in jobs that a verification makes, not in job files.
type Check struct {
	Target *Source       `json:"target,omitempty"` // where rows of the target are found; nil: its keys are only counted
	View   verify.View   `json:"view,omitzero"`
	Config verify.Config `json:"config,omitzero"`
	Source []byte        `json:"source,omitempty"` // schema of the job's source, by record.Schema's MarshalBinary
	Extras *Extras       `json:"extras,omitempty"` // from target to source; nil: from source to target

	Expected string   `json:"expected,omitempty"` // index of the keys that the job would write: from target to source without Extras
	Segments []uint16 `json:"segments,omitempty"` // of the keys that are looked at
}

// Extras is what the direction from target to source needs.
type Extras struct {
	Source     Source            `json:"source"` // where rows of the job's source are found
	Transforms []transforms.Spec `json:"transforms,omitempty"`
	Sink       Sink              `json:"sink"` // its condition and its transforms alone
	Started    time.Time         `json:"started"`
	Inverse    []string          `json:"inverse"` // fields of the target that hold the source's key
}

func (c Check) open() (connector.Sink, error) {
	if c.Expected != "" {
		return verify.NewUnexpected(verify.OpenIndex(c.Expected), c.Segments), nil
	}
	if c.Target == nil {
		return verify.NewTally(), nil
	}
	target, err := c.Target.Finder(connector.Need{})
	if err != nil {
		return nil, err
	}
	schema, err := record.UnmarshalSchema(c.Source)
	if err != nil {
		return nil, err
	}
	if c.Extras == nil {
		return verify.NewCheck(target, c.View, c.Config, schema), nil
	}
	source, err := c.Extras.Source.Finder(connector.Need{})
	if err != nil {
		return nil, err
	}
	part := &Job{Transforms: c.Extras.Transforms, Sinks: map[string]Sink{"sink": c.Extras.Sink}}
	compiled, err := part.Compile(schema, transforms.Options{Now: c.Extras.Started})
	if err != nil {
		return nil, err
	}
	sides := &verify.Sides{Source: source, Shared: compiled.Shared, Own: compiled.Sinks["sink"], Target: target, View: c.View, Config: c.Config}
	return verify.NewExtras(sides, c.Extras.Inverse, c.Segments), nil
}

// Verifies tells whether the job is a part of a verification, which writes nothing.
func (j *Job) Verifies() bool {
	for _, s := range j.Sinks {
		if s.Check != nil {
			return true
		}
	}
	return false
}

// Finder opens a source that finds rows by key; an error where it is none.
func (s Source) Finder(need connector.Need) (connector.Finder, error) {
	source, err := s.Open(need)
	if err != nil {
		return nil, err
	}
	if finder, ok := source.(connector.Finder); ok {
		return finder, nil
	}
	source.Close()
	return nil, fail.New(fail.Fatal, "internal.no_finder", "the source finds no rows by key")
}

// Verified are the sinks that a verification concerns, in order.
func (j *Job) Verified() ([]string, error) {
	all := slices.Sorted(maps.Keys(j.Sinks))
	for setting, names := range map[string][]string{"sinks": j.Verify.Sinks, "once": j.Verify.Once} {
		for _, name := range names {
			if !slices.Contains(all, name) {
				return nil, fail.Job("verify.no_sink", "verify.%s: the job has no sink %q", setting, name)
			}
		}
	}
	if len(j.Verify.Sinks) > 0 {
		all = slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(j.Verify.Sinks, name) })
	}
	return all, nil
}
