package main

import (
	"context"
	"fmt"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/pipelines/job"
)

// read measures the source of Cassandra against a loop over gocql.
func (b *bench) read(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	bare := plainLoop{session, skewed, true}
	rows := int64(0)
	check := func(s *sum) error {
		if rows == 0 {
			rows = s.rows.Load()
		}
		if s.rows.Load() != rows {
			return fmt.Errorf("%d rows were read, %d before", s.rows.Load(), rows)
		}
		return nil
	}
	versions := int64(0)
	all, err := turns(b.Rounds,
		side{"read: loop", timed(func() error {
			s := &sum{}
			err := bare.count(ctx, s)
			versions = s.versions.Load()
			if err != nil {
				return err
			}
			return check(s)
		})},
		side{"read: Reprise", timed(func() error {
			s := &sum{}
			if err := b.readSource(ctx, s); err != nil {
				return err
			}
			if s.versions.Load() != versions {
				return fmt.Errorf("the source gives other versions than the loop")
			}
			return check(s)
		})},
		side{"read: loop without write times", timed(func() error {
			s := &sum{}
			if err := (plainLoop{session, skewed, false}).count(ctx, s); err != nil {
				return err
			}
			return check(s)
		})})
	if err != nil {
		return err
	}
	loop, ours, without := all[0], all[1], all[2]
	b.report.add(line{"reading Cassandra, with the write times of all columns", ours.rate(rows),
		"gocql loop: " + loop.rate(rows), ratio(loop, ours), atLeast(0.9)})
	b.report.add(line{what: "the same loop without write times", theirs: without.rate(rows)})
	return nil
}

// source is the source of a job that reads a corpus.
func (b *bench) source(keyspace string) *cassandraio.SourceConfig {
	return &cassandraio.SourceConfig{Connection: cassandraio.Connection{Hosts: []string{b.Cassandra}},
		Keyspace: keyspace, Table: "assets",
		Buckets: &cassandraio.Buckets{Table: "asset_buckets"}}
}

// readSource plans and reads as a job does by default.
func (b *bench) readSource(ctx context.Context, s *sum) error {
	j := &job.Job{}
	j.SetDefaults()
	source := cassandraio.NewSource(*b.source(skewed), connector.Need{})
	defer source.Close()
	var splits []connector.Split
	err := source.Plan(ctx, connector.PlanOptions{Rows: j.Limits.SplitRows, Bytes: int64(j.Limits.SplitBytes)},
		func(sp connector.Split) error {
			splits = append(splits, sp)
			return nil
		})
	if err != nil {
		return err
	}
	queues := make([][]connector.Split, len(splits))
	for i, sp := range splits {
		queues[i] = []connector.Split{sp}
	}
	ahead := connector.ReadAhead(ctx, source, queues,
		connector.Window{Readers: j.Limits.Readers, Bytes: int64(j.Limits.ReadAhead)})
	defer ahead.Stop()
	for it := range ahead.Items {
		if it.Err != nil {
			return it.Err
		}
		s.rows.Add(it.Page.Rows())
		for _, r := range it.Page.Records {
			if r.Version > 1 { // 1: the row has no column with a write time
				s.versions.Add(r.Version)
			}
		}
		ahead.Release(it.Held)
	}
	return nil
}
