package journal

import (
	"context"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/transforms/fail"
)

// Config says where the journal is: one of its fields is set.
type Config struct {
	SQLite    string           `json:"sqlite,omitempty" jsonschema_description:"An SQLite file, created if missing: for the processes of one machine. Default, where cassandra is not set: .reprise/journal.db."`
	Cassandra *CassandraConfig `json:"cassandra,omitempty" jsonschema_description:"A keyspace of a Cassandra cluster: for workers on many machines."`
}

// CassandraConfig says which keyspace holds the journal.
type CassandraConfig struct {
	Connection  cassandraio.Connection `json:"connection" jsonschema:"required" jsonschema_description:"How to reach the cluster. All workers must use the same data centre: what they agree on, they agree on within it."`
	Keyspace    string                 `json:"keyspace" jsonschema:"required" jsonschema_description:"Keyspace of the journal's tables, which are created if missing."`
	Replication map[string]int         `json:"replication,omitempty" jsonschema_description:"Create the keyspace if it is missing, with this many replicas in each data centre: {dc1: 3}. Default: the keyspace must exist."`
}

// Validate finds what the schema of the settings cannot say.
func (c Config) Validate() (faults []connector.Fault) {
	if (c.SQLite == "") == (c.Cassandra == nil) {
		faults = append(faults, connector.Faultf("sqlite", "name either a file for sqlite or a keyspace for cassandra"))
	}
	if c.Cassandra == nil {
		return faults
	}
	if c.Cassandra.Keyspace == "" {
		faults = append(faults, connector.Faultf("cassandra.keyspace", "the keyspace is missing"))
	}
	for _, f := range c.Cassandra.Connection.Validate() {
		faults = append(faults, connector.Fault{Path: "cassandra.connection." + f.Path, Message: f.Message})
	}
	for dc, n := range c.Cassandra.Replication {
		if n < 1 {
			faults = append(faults, connector.Faultf("cassandra.replication."+dc,
				"%d replicas; at least 1 is needed", n))
		}
	}
	return faults
}

// Open opens the journal, which it makes where there is none.
func Open(ctx context.Context, c Config) (Journal, error) {
	for _, f := range c.Validate() {
		return nil, fail.Job("journal.settings", "journal.%s: %s", f.Path, f.Message)
	}
	if c.Cassandra != nil {
		return openCassandra(ctx, *c.Cassandra)
	}
	return openSQLite(ctx, c.SQLite)
}
