package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"reprise/pipelines/job"
)

// purge measures the purge of expired licences, which marks, reads again, keeps what it deletes and deletes entries by
// tag before their assets, against a loop by hand that does the same. Each works on a fresh copy of the corpus, and
// must leave the same behind.
func (b *bench) purge(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	var deleted, left int64
	on := func(kind string, run func(table string) (time.Duration, error)) func(int) (time.Duration, error) {
		return func(round int) (time.Duration, error) {
			table := fmt.Sprintf("purged_%s_%d", kind, round)
			defer dropped(session, small+"."+table)
			defer dropped(session, small+"."+table+"_tags")
			before, err := b.copyTo(ctx, table)
			if err != nil {
				return 0, err
			}
			took, err := run(table)
			if err != nil {
				return 0, err
			}
			assets, err := count(ctx, session, small+"."+table)
			if err != nil {
				return 0, err
			}
			tags, err := count(ctx, session, small+"."+table+"_tags")
			if deleted == 0 {
				deleted, left = before-assets, assets+tags
			}
			if err == nil && (before == assets || assets+tags != left) {
				err = fmt.Errorf("of %d assets %d are left, with %d entries; %d together before", before, assets, tags,
					left)
			}
			return took, err
		}
	}
	all, err := turns(b.Rounds,
		side{"purge: loop", on("loop", func(table string) (time.Duration, error) {
			return timed(func() error { return b.purgeByHand(ctx, session, table) })(0)
		})},
		side{"purge: Reprise", on("job", func(table string) (time.Duration, error) {
			j, err := job.Parse("bench-purge", fmt.Appendf(nil, `
name: bench-purge
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[3]s, buckets: {table: asset_buckets}}}
transforms:
  - filter: has(licence.expires) && licence.expires < now
sinks:
  by_tag:%[4]s
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[3]s_tags}
  assets:
    after: [by_tag]
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[3]s}
purge: {reason: '"expired on " + string(licence.expires)', grace: 1ms, manifest: "%[5]s"}
`, b.Cassandra, small, table, byTag, filepath.Join(b.dir, table)))
			if err != nil {
				return 0, err
			}
			marked, err := b.command(ctx, "purge", j)
			if err != nil {
				return 0, err
			}
			purged, err := b.command(ctx, "purge", j, "--purge", marked.report.Run, "--yes")
			return marked.took + purged.took, err
		})})
	if err != nil {
		return err
	}
	b.report.add(line{fmt.Sprintf("purge, %d of %d assets with their entries by tag, with the starts of both processes",
		deleted, few), all[1].String(),
		"gocql loop: " + all[0].String(), ratio(all[0], all[1]), target{}})
	return nil
}

// copyTo copies the small corpus into a table, and its index by tag into another one. It tells how many assets there
// are.
func (b *bench) copyTo(ctx context.Context, table string) (int64, error) {
	if err := b.tagTable(ctx, small+"."+table+"_tags"); err != nil {
		return 0, err
	}
	j, err := job.Parse("bench-purge-copy", fmt.Appendf(nil, `
name: bench-purge-copy
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets, buckets: {table: asset_buckets}}}
sinks:
  assets:
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[3]s, create: true, partition_key: [asset_type, bucket], clustering: [id]}
  by_tag:%[4]s
    cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: %[3]s_tags}
`, b.Cassandra, small, table, byTag))
	if err != nil {
		return 0, err
	}
	f, err := b.reprise(ctx, j)
	return f.report.Read, err
}

// expired is an asset that has been marked.
type expired struct {
	kind, bucket string
	id           gocql.UUID
}

// purgeByHand is the loop: it lists what has expired, then reads each of these again, keeps it in a file, and deletes
// it as of the version that it has read, children first.
func (b *bench) purgeByHand(ctx context.Context, session *gocql.Session, table string) (err error) {
	file, err := os.Create(filepath.Join(b.dir, table))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	kept := bufio.NewWriter(file)
	var keeping sync.Mutex
	keep := func(row any) error {
		keeping.Lock()
		defer keeping.Unlock()
		return json.NewEncoder(kept).Encode(row)
	}
	now := time.Now()
	var marked []expired
	err = scan(ctx, session, table, "id, licence", func(kind, bucket string, iter *gocql.Iter) error {
		for {
			var id gocql.UUID
			var l licence
			if !iter.Scan(&id, &l) {
				return nil
			}
			if l.Expires.IsZero() || !l.Expires.Before(now) {
				continue
			}
			if err := keep(struct{ Kind, Bucket, ID, Reason string }{kind, bucket, id.String(),
				"expired on " + l.Expires.Format(time.DateOnly)}); err != nil {
				return err
			}
			keeping.Lock()
			marked = append(marked, expired{kind, bucket, id})
			keeping.Unlock()
		}
	})
	if err != nil {
		return err
	}
	deleting, ctx := requesting(ctx)
	for _, e := range marked {
		deleting.Go(func() error { return e.purge(ctx, session, table, now, keep) })
	}
	if err := deleting.Wait(); err != nil {
		return err
	}
	return kept.Flush()
}

// purge deletes an asset, if its licence still has expired.
func (e expired) purge(ctx context.Context, session *gocql.Session, table string, now time.Time,
	keep func(row any) error) error {
	const where = " WHERE asset_type = ? AND bucket = ? AND id = ?"
	a := &asset{Type: e.kind, Bucket: e.bucket}
	err := session.Query("SELECT "+listed(true)+" FROM "+small+"."+table+where, e.kind, e.bucket,
		e.id).WithContext(ctx).Scan(a.dest(true)...)
	if errors.Is(err, gocql.ErrNotFound) {
		return nil
	}
	if err != nil || a.Licence.Expires.IsZero() || !a.Licence.Expires.Before(now) {
		return err
	}
	if err := keep(a); err != nil {
		return err
	}
	for _, tag := range a.Tags {
		err := session.Query("DELETE FROM "+small+"."+table+"_tags USING TIMESTAMP ?"+where+" AND tag = ?", a.version(),
			e.kind, e.bucket, e.id, tag).Idempotent(true).WithContext(ctx).Exec()
		if err != nil {
			return err
		}
	}
	return session.Query("DELETE FROM "+small+"."+table+" USING TIMESTAMP ?"+where, a.version(), e.kind, e.bucket,
		e.id).Idempotent(true).WithContext(ctx).Exec()
}
