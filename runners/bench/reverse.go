package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"reprise/io/cassandraio"
	"reprise/pipelines/job"
)

// byTag makes the entries of an index by tag.
const byTag = `
    transforms:
      - explode: {field: tags, as: tag}
      - project: {keep: [tag, asset_type, bucket, id, title], key: [tag, asset_type, bucket, id]}
`

// reverse measures a table by another key, an entry for each tag of an asset, against a loop by hand that writes
// batches. Each fills a fresh table.
func (b *bench) reverse(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	var entries int64
	fill := func(kind string, run func(table string) (time.Duration, error)) func(int) (time.Duration, error) {
		return func(round int) (time.Duration, error) {
			table := fmt.Sprintf("%s.by_tag_%s_%d", small, kind, round)
			if err := b.tagTable(ctx, table); err != nil {
				return 0, err
			}
			defer dropped(session, table)
			took, err := run(table)
			if err != nil {
				return 0, err
			}
			n, err := count(ctx, session, table)
			if entries == 0 {
				entries = n
			}
			if err == nil && (n == 0 || n != entries) {
				err = fmt.Errorf("%d entries, %d before", n, entries)
			}
			return took, err
		}
	}
	all, err := turns(b.Rounds,
		side{"reverse index: loop", fill("loop", func(table string) (time.Duration, error) {
			return timed(func() error { return reverseByHand(ctx, session, table) })(0)
		})},
		side{"reverse index: Reprise", fill("job", func(table string) (time.Duration, error) {
			j, err := job.Parse("bench-reverse", fmt.Appendf(nil, `
name: bench-reverse
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets, columns: [title, tags], buckets: {table: asset_buckets}}}
sinks:
  by_tag:%[3]s
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[4]s}
`, b.Cassandra, small, byTag, strings.TrimPrefix(table, small+".")))
			if err != nil {
				return 0, err
			}
			f, err := b.reprise(ctx, j)
			return f.took, err
		})})
	if err != nil {
		return err
	}
	b.report.add(line{fmt.Sprintf("reverse index by tag, %d entries, with the start of the process", entries),
		all[1].String(), "gocql loop: " + all[0].String(),
		ratio(all[0], all[1]), target{}})
	return nil
}

func (b *bench) tagTable(ctx context.Context, name string) error {
	return cassandraio.Execute(ctx, cassandraio.Connection{Hosts: []string{b.Cassandra}},
		cassandraio.Statement{CQL: "CREATE TABLE " + name +
			" (tag text, asset_type text, bucket text, id timeuuid, title text, PRIMARY KEY ((tag), asset_type, " +
			"bucket, id))"})
}

// dropped deletes a table.
func dropped(session *gocql.Session, table string) {
	if err := session.Query("DROP TABLE IF EXISTS " + table).Exec(); err != nil {
		say("%s stays behind: %v", table, err)
	}
}

// count counts the rows of a table.
func count(ctx context.Context, session *gocql.Session, table string) (n int64, err error) {
	iter := session.Query("SELECT asset_type FROM " + table).WithContext(ctx).Iter()
	for kind := ""; iter.Scan(&kind); {
		n++
	}
	return n, iter.Close()
}

// requests are under way at once: as many as in a job by default.
const requests = 16

// requesting runs requests of a loop, so many at once.
func requesting(ctx context.Context) (*errgroup.Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requests)
	return group, ctx
}

// batchRows are written together, all of one partition: as many as in a job by default.
const batchRows = 100

// reverseByHand is the loop: each bucket's entries are written in batches of one tag.
func reverseByHand(ctx context.Context, session *gocql.Session, table string) error {
	writing, ctx := requesting(ctx)
	insert := "INSERT INTO " + table + " (tag, asset_type, bucket, id, title) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
	err := scan(ctx, session, "assets", "id, title, tags, MAXWRITETIME(title), MAXWRITETIME(tags)",
		func(kind, bucket string, iter *gocql.Iter) error {
			batches := map[string]*gocql.Batch{}
			send := func(tag string) {
				batch := batches[tag]
				delete(batches, tag)
				writing.Go(func() error { return session.ExecuteBatch(batch) })
			}
			for {
				var id gocql.UUID
				var title string
				var tags []string
				var titled, tagged int64
				if !iter.Scan(&id, &title, &tags, &titled, &tagged) {
					break
				}
				for _, tag := range tags {
					if batches[tag] == nil {
						batches[tag] = session.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
					}
					batches[tag].Query(insert, tag, kind, bucket, id, title, max(titled, tagged))
					if batches[tag].Size() == batchRows {
						send(tag)
					}
				}
			}
			for tag := range batches {
				send(tag)
			}
			return nil
		})
	if e := writing.Wait(); e != nil {
		return e
	}
	return err
}

// scan reads columns of a table of the small corpus, some partitions at once.
func scan(ctx context.Context, session *gocql.Session, table, columns string,
	rows func(kind, bucket string, iter *gocql.Iter) error) error {
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(readers)
	partitions := session.Query("SELECT asset_type, bucket FROM " + small + ".asset_buckets").WithContext(ctx).Iter()
	for kind, bucket := "", ""; partitions.Scan(&kind, &bucket); {
		reading.Go(func() error {
			iter := session.Query("SELECT "+columns+" FROM "+small+"."+table+" WHERE asset_type = ? AND bucket = ?",
				kind, bucket).WithContext(ctx).Iter()
			if err := rows(kind, bucket, iter); err != nil {
				iter.Close()
				return err
			}
			return iter.Close()
		})
	}
	if err := reading.Wait(); err != nil {
		return err
	}
	return partitions.Close()
}
