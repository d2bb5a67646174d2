package icebergio

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"reprise/io/connector"
	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

var (
	_ connector.Sink   = (*Sink)(nil)
	_ connector.Merger = (*Sink)(nil)
)

// Sink appends records to a table, or merges them into it.
type Sink struct {
	config SinkConfig
	ident  table.Identifier

	deadline     time.Duration // of tries to reach the catalog while the job runs
	beforeCommit func()        // for tests: between the comparison of keys and the commit

	mu         sync.Mutex
	catalog    *opened          // nil: not connected yet
	superseded map[string]int64 // by runs that were committed
}

const defaultDeadline = 2 * time.Minute

// NewSink gives a sink for the settings.
func NewSink(c SinkConfig) *Sink {
	return &Sink{config: c, ident: strings.Split(c.Table, "."), deadline: defaultDeadline,
		superseded: map[string]int64{}}
}

// Table is the table with its namespace.
func (s *Sink) Table() string { return s.config.Table }

// connect opens the catalog once; a failure is tried again.
func (s *Sink) connect(ctx context.Context) (*opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.catalog != nil {
		return s.catalog, nil
	}
	var err error
	s.catalog, err = s.config.open(ctx, readWrite)
	return s.catalog, err
}

// load gives the table as it is now.
func (s *Sink) load(ctx context.Context, c *opened) (*table.Table, error) {
	t, err := c.LoadTable(ctx, s.ident)
	if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
		return nil, fail.Job("iceberg.no_table", "table %s is not there", s.config.Table).
			WithFix("set create: true, or check table and catalog")
	}
	return t, tables.Classify(err, "loading table "+s.config.Table)
}

// find connects and loads the table.
func (s *Sink) find(ctx context.Context) (*table.Table, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	return s.load(ctx, c)
}

// Prepare implements connector.Sink. It checks the table against the schema and tells all that does not fit.
func (s *Sink) Prepare(ctx context.Context, run connector.Run, schema *record.Schema, dry bool) error {
	if err := s.config.checkColumns(schema); err != nil {
		return err
	}
	err := s.check(ctx, run, schema, dry)
	if code := fail.CodeOf(err); !s.config.Create || code != "iceberg.no_catalog" && code != "iceberg.no_table" {
		return err
	}
	wanted, err := newSchema(schema, s.config)
	if err != nil {
		return err
	}
	spec, err := newSpec(s.config.Partition, wanted)
	if err == nil {
		err = s.foresee(wanted, spec, schema, run)
	}
	if err != nil || dry {
		return err
	}
	if err := s.create(ctx, wanted, spec); err != nil {
		return err
	}
	return s.check(ctx, run, schema, dry)
}

// check finds the table, compares it with the schema and looks whether its files can be reached.
func (s *Sink) check(ctx context.Context, run connector.Run, schema *record.Schema, dry bool) error {
	mode := readWrite
	if dry {
		mode = readOnly
	}
	c, err := s.config.open(ctx, mode)
	if err != nil {
		return err
	}
	defer c.close()
	t, err := s.evolved(ctx, c, schema, run, dry)
	if err != nil {
		return err
	}
	if _, err := newLayout(t, schema, s.config, run); err != nil {
		return err
	}
	if location := plainPath(t.Location()); !plainLocation(location) {
		return badLocation(s.config.Table, location)
	}
	// A catalog may answer although the store of the files does not.
	files, err := t.FS(ctx)
	if err == nil {
		var f interface{ Close() error }
		if f, err = files.Open(t.MetadataLocation()); err == nil {
			err = f.Close()
		}
	}
	return tables.Classify(err, "reading the metadata of table "+s.config.Table)
}

// foresee tells what would be wrong with a table that is not there yet.
func (s *Sink) foresee(wanted *iceberg.Schema, spec *iceberg.PartitionSpec, schema *record.Schema,
	run connector.Run) error {
	location := strings.Join(append([]string{plainPath(s.config.Catalog.Warehouse)}, s.ident...), "/")
	if s.config.Catalog.REST == "" && !plainLocation(location) {
		return badLocation(s.config.Table, location)
	}
	meta, err := table.NewMetadata(wanted, spec, table.UnsortedSortOrder, location, newProperties)
	if err != nil {
		return fail.Job("iceberg.table", "table %s cannot be made: %w", s.config.Table, err).
			WithFix("rename fields by a transform, or change partition")
	}
	_, err = newLayout(table.New(s.ident, meta, "", nil, nil), schema, s.config, run)
	return err
}

func badLocation(name, location string) error {
	return fail.Job("iceberg.location", "table %s lies at %s, which holds characters that URLs escape and readers "+
		"take differently", name, location).
		WithFix("make a table at a location of letters, digits and any of / . _ -")
}

var newProperties = iceberg.Properties{table.PropertyFormatVersion: "2"}

// create makes the catalog, the namespace and the table, as far as they are not there.
func (s *Sink) create(ctx context.Context, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	c, err := s.config.open(ctx, create)
	if err != nil {
		return err
	}
	defer c.close()
	doing := "creating table " + s.config.Table
	if there, err := c.CheckTableExists(ctx, s.ident); err != nil && !errors.Is(err, catalog.ErrNoSuchNamespace) ||
		there {
		return tables.Classify(err, doing)
	}
	namespace := catalog.NamespaceFromIdent(s.ident)
	there, err := c.CheckNamespaceExists(ctx, namespace)
	if err == nil && !there {
		err = c.CreateNamespace(ctx, namespace, nil)
	}
	if err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		return tables.Classify(err, doing)
	}
	_, err = c.CreateTable(ctx, s.ident, schema, catalog.WithPartitionSpec(spec), catalog.WithProperties(newProperties))
	if errors.Is(err, catalog.ErrTableAlreadyExists) {
		return nil
	}
	return tables.Classify(err, doing)
}

// Open implements connector.Sink.
func (s *Sink) Open(ctx context.Context, run connector.Run, schema *record.Schema,
	settle connector.Settle) (connector.Writer, error) {
	t, err := tables.Request(ctx, s.deadline, func() (*table.Table, error) { return s.find(ctx) })
	if err != nil {
		return nil, err
	}
	layout, err := newLayout(t, schema, s.config, run)
	if err != nil {
		return nil, err
	}
	w := &writer{run: run, layout: layout, open: s.config.openPartitions(layout.partitions), settle: settle,
		slots: make(chan struct{}, batchesUnderWay), parts: map[string]*waiting{}}
	if w.table, w.disk, err = s.config.writable(t, w.open); err != nil {
		return nil, tables.Classify(err, "writing to table "+s.config.Table)
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

// Close implements connector.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.catalog == nil {
		return nil
	}
	err := s.catalog.close()
	s.catalog = nil
	return err
}
