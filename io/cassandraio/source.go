package cassandraio

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Source reads a table, partition by partition ("buckets") or by token ranges.
//
// With buckets a split is an interval of clustering keys of one partition, and a position is the clustering key in
// the order of the table. By token ranges a split is an interval of tokens, and a position is the token, the
// partition and the clustering key. What of a key cannot be part of a position (decimals, and what is nested) can
// only be read by token ranges, where a page then ends at the border of a partition; the rows of one are held
// together in memory until then, 256 MiB at most.
//
// The version of a record is the latest write time of its columns, or a column that the settings name; 1 where
// none has a value, since Cassandra does not tell when such a row was written, nor when a value was deleted. So it
// may go back from one run to the next: see connector.Run.Floor. The expiry is that of the column that lives
// longest, by the worker's clock.
//
// A row that is written while the table is read may be read or not, and is read once at most. A tuple all of whose
// parts are null comes as null. What no record can hold is a dead letter: a partition with static columns and no rows,
// a key with an empty value of a type that needs bytes.
//
// A request that fails for the tombstones it meets (tombstone_failure_threshold) is cut by tokens, then by clustering
// keys, until the server answers; see tombstones.go.
type Source struct {
	config SourceConfig
	need   connector.Need

	mu    sync.Mutex
	table *tableSource
}

var _ connector.Source = (*Source)(nil)

// NewSource makes a source; it connects when it is used first.
func NewSource(c SourceConfig, need connector.Need) *Source {
	return &Source{config: c, need: need}
}

// tableSource is a source that is connected and knows its table.
type tableSource struct {
	config       SourceConfig
	session      *gocql.Session
	table        *table
	level        gocql.Consistency
	layout       layout
	exact        bool    // any row has a position
	lower, upper limit   // of the clustering keys, by the settings
	matches      []match // of the partition keys, by the settings

	pageRows int // of the largest page

	decoded atomic.Int64 // bytes of rows that the gate does not know of yet
}

const defaultMaxRow = 64 << 20

// open connects; it tries for that long, where no gate says how long.
func (s *Source) open(ctx context.Context, deadline time.Duration) (*tableSource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != nil {
		return s.table, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var session *gocql.Session
	err := retry(ctx, deadline, func() (_ came, err error) {
		session, err = connect(ctx, s.config.Connection)
		return came{}, err
	})
	if err != nil {
		return nil, err
	}
	var t *tableSource
	err = retry(ctx, connector.DefaultRetry.Deadline, func() (_ came, err error) {
		t, err = openTable(ctx, session, s.config, s.need)
		return came{}, err
	})
	if err != nil {
		session.Close()
		return nil, err
	}
	s.table = t
	return t, nil
}

func openTable(ctx context.Context, session *gocql.Session, c SourceConfig, need connector.Need) (*tableSource, error) {
	level, err := c.consistency()
	if err != nil {
		return nil, fail.Job("cassandra.consistency", "consistency: %w", err)
	}
	t, err := loadSource(ctx, session, c, need)
	if err != nil {
		return nil, err
	}
	o := &tableSource{config: c, pageRows: need.Page(mostRows), session: session, table: t, level: level,
		layout: newLayout(t, c.Buckets == nil)}
	isTuple := func(c column) bool { return c.typ.Kind.Nested() }
	notOrdered := t.order.Check()
	o.exact = notOrdered == nil && !slices.ContainsFunc(t.partition, isTuple)
	if c.Buckets == nil {
		return o, nil
	}
	if notOrdered != nil {
		return nil, fail.Job("cassandra.no_position",
			"the partitions of %s cannot be read one by one: %w", t.name, notOrdered).
			WithFix("leave buckets out, so that the table is read by token ranges")
	}
	for _, col := range t.partition {
		if col.typ.Kind.Nested() {
			return nil, fail.Job("cassandra.no_position",
				"the partitions of %s cannot be read one by one: column %q is a %s", t.name, col.name, col.typ).
				WithFix("leave buckets out, so that the table is read by token ranges")
		}
	}
	if o.lower, o.upper, err = t.idBounds(c.IDs, need); err != nil {
		return nil, err
	}
	if o.matches, err = t.matches(c.Partitions, need); err != nil {
		return nil, err
	}
	return o, t.checkBuckets(*c.Buckets, need)
}

// Schema implements connector.Source. A cluster that cannot be reached is told at once.
func (s *Source) Schema(ctx context.Context) (*record.Schema, error) {
	o, err := s.open(ctx, 0)
	if err != nil {
		return nil, err
	}
	return o.table.schema, nil
}

// Read implements connector.Source. A cluster that went away is waited for, also by a
// worker that was not connected yet.
func (s *Source) Read(ctx context.Context, split connector.Split, page func(connector.Page) error) error {
	o, err := s.open(ctx, connector.DefaultRetry.Deadline)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := o.reader(split)
	if err != nil {
		return err
	}
	return r.read(ctx, page)
}

func (o *tableSource) reader(split connector.Split) (*reader, error) {
	r := &reader{tableSource: o, split: split, last: split.Start,
		size: newPageSize(o.config.Page.Or(1<<20), o.pageRows, split)}
	r.batch.exact = o.exact
	var values []record.Value
	if o.config.Buckets != nil {
		var err error
		if values, r.key, err = o.table.parsePartition(split.Partition); err != nil {
			return nil, fail.Job("cassandra.no_split", "%q is not a partition of %s: %w",
				split.Partition, o.table.name, err)
		}
	}
	r.decoder = newRowDecoder(o.layout, split.String(), values, o.config.MaxRow.Or(defaultMaxRow))
	return r, nil
}

// Close implements connector.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != nil {
		s.table.session.Close()
		s.table = nil
	}
	return nil
}

// Plan implements connector.Source.
func (s *Source) Plan(ctx context.Context, o connector.PlanOptions, split func(connector.Split) error) error {
	t, err := s.open(ctx, 0)
	if err != nil {
		return err
	}
	if o.Rows <= 0 {
		o.Rows = math.MaxInt64
	}
	if o.Bytes <= 0 {
		o.Bytes = math.MaxInt64
	}
	if s.config.Buckets == nil {
		return t.planRing(ctx, o, split)
	}
	return t.planBuckets(ctx, o, split)
}
