package main

import (
	"context"
	"fmt"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/pipelines/job"
)

// verify measures the verification of a copy against the copy: Cassandra to Cassandra, where both sides find rows by
// key, and Cassandra to Iceberg, whose table is copied into an index first. All is as it should be, so no bucket is
// looked at row by row for what is extra.
func (b *bench) verify(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	from := b.source(small)
	copied := func(round int) *cassandraio.SinkConfig {
		return &cassandraio.SinkConfig{Connection: from.Connection, Keyspace: small,
			Table: fmt.Sprintf("copy_%d", round), Create: true,
			PartitionKey: []string{"asset_type", "bucket"}, Clustering: []string{"id"}}
	}
	for round := range b.Rounds {
		defer dropped(session, small+"."+copied(round).Table)
	}
	for _, to := range []struct {
		name   string
		target func(round int) connector.SinkSpec
	}{
		{"Cassandra", func(round int) connector.SinkSpec { return connector.To(copied(round)) }},
		{"Iceberg", func(round int) connector.SinkSpec {
			return connector.To(b.table(fmt.Sprintf("verified_%d", round)))
		}},
	} {
		var rows int64
		run := func(command string) func(int) (time.Duration, error) {
			return func(round int) (time.Duration, error) {
				j := &job.Job{Name: "bench-verify-" + to.name, Source: connector.From(from),
					Sinks: map[string]job.Sink{"copy": {SinkSpec: to.target(round)}}}
				f, err := b.command(ctx, command, j)
				rows = f.report.Read
				return f.took, err
			}
		}
		all, err := turns(b.Rounds, side{to.name + ": copy", run("run")}, side{to.name + ": verify", run("verify")})
		if err != nil {
			return err
		}
		b.report.add(line{fmt.Sprintf("verification, Cassandra to %s, %d rows", to.name, rows), all[1].String(),
			"the copy: " + all[0].String(),
			ratio(all[0], all[1]), atLeast(0.5)})
	}
	return nil
}
