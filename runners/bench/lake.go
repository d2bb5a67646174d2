package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	sqlcatalog "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	"github.com/gocql/gocql"
	_ "modernc.org/sqlite"

	"reprise/io/connector"
	"reprise/pipelines/job"
)

// properties are those that icebergio sets by default.
var properties = iceberg.Properties{
	table.PropertyFormatVersion:       "2",
	table.WriteTargetFileSizeBytesKey: "268435456",
	table.ParquetRowGroupSizeBytesKey: "16777216",
	table.ParquetPageSizeBytesKey:     "131072",
	table.ParquetDictSizeBytesKey:     "262144",
	table.ParquetCompressionKey:       "zstd",
	table.ParquetCompressionLevelKey:  "1",
}

// lake measures Cassandra to Iceberg: a job without transforms, from the start of its process to its end, against the
// slower of its halves by hand: reading alone, and writing Arrow batches that are there already.
func (b *bench) lake(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	err = b.eachSize(func(keyspace string, rounds int) error { return b.lakeOf(ctx, session, keyspace, rounds) })
	return errors.Join(err, os.RemoveAll(b.warehouse()), os.Remove(b.catalog()))
}

func (b *bench) lakeOf(ctx context.Context, session *gocql.Session, keyspace string, rounds int) error {
	j := &job.Job{Name: "bench-lake", Source: connector.From(b.source(keyspace))}
	var rows int64
	run := func(name string) (time.Duration, error) {
		j.Sinks = map[string]job.Sink{"lake": {SinkSpec: connector.To(b.table(keyspace + "_" + name))}}
		f, err := b.reprise(ctx, j)
		rows = f.report.Read
		return f.took, err
	}
	if _, err := run("rows"); err != nil {
		return err
	}
	batches, err := b.batches(ctx, keyspace+"_rows")
	if err != nil {
		return err
	}
	defer batches.release()
	all, err := turns(rounds,
		side{"Iceberg: reading loop",
			timed(func() error { return plainLoop{session, keyspace, true}.count(ctx, &sum{}) })},
		side{"Iceberg: writing loop", func(round int) (time.Duration, error) {
			return batches.write(ctx, fmt.Sprintf("%s_by_hand_%d", keyspace, round))
		}},
		side{"Iceberg: Reprise", func(round int) (time.Duration, error) { return run(fmt.Sprintf("job_%d", round)) }})
	if err != nil {
		return err
	}
	slower, half := all[0], "reading loop"
	if all[1].median() > slower.median() {
		slower, half = all[1], "iceberg-go with Arrow batches made before"
	}
	b.report.add(line{fmt.Sprintf("Cassandra to Iceberg, %d rows, with the start of the process", rows),
		all[2].String(), "the slower half, " + half + ": " + slower.String(),
		ratio(slower, all[2]), atLeast(0.8)})
	return nil
}

// arrowRows are the rows of a table in memory.
type arrowRows struct {
	catalog *sqlcatalog.Catalog
	of      *table.Table
	schema  *arrow.Schema
	batches []arrow.RecordBatch
}

// batches reads a table that a job has written.
func (b *bench) batches(ctx context.Context, name string) (*arrowRows, error) {
	db, err := sql.Open("sqlite", "file:"+b.catalog()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, err
	}
	c, err := sqlcatalog.NewCatalog("default", db, sqlcatalog.SQLite, iceberg.Properties{"warehouse": b.warehouse()})
	if err != nil {
		return nil, err
	}
	r := &arrowRows{catalog: c}
	if r.of, err = c.LoadTable(ctx, table.Identifier{"bench", name}); err != nil {
		return nil, err
	}
	schema, rows, err := r.of.Scan().ToArrowRecords(ctx)
	if err != nil {
		return nil, err
	}
	r.schema = schema
	for batch, err := range rows {
		if err != nil {
			return nil, err
		}
		r.batches = append(r.batches, batch)
	}
	return r, nil
}

// write writes the rows into a fresh table's files, and gives the time of that alone.
func (r *arrowRows) write(ctx context.Context, name string) (time.Duration, error) {
	t, err := r.catalog.CreateTable(ctx, table.Identifier{"bench", name}, r.of.Schema(),
		catalog.WithProperties(properties))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	written := int64(0)
	for file, err := range table.WriteRecords(ctx, t, r.schema, func(yield func(arrow.RecordBatch, error) bool) {
		for _, batch := range r.batches {
			batch.Retain()
			if !yield(batch, nil) {
				return
			}
		}
	}) {
		if err != nil {
			return 0, err
		}
		written += file.Count()
	}
	took := time.Since(began)
	rows := int64(0)
	for _, batch := range r.batches {
		rows += batch.NumRows()
	}
	if written != rows {
		return 0, fmt.Errorf("%d of %d rows were written", written, rows)
	}
	return took, nil
}

func (r *arrowRows) release() {
	for _, batch := range r.batches {
		batch.Release()
	}
}
