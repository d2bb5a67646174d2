package cassandraio

import (
	"math"
	"slices"
	"strings"

	"github.com/gocql/gocql"

	"reprise/io/connector"
)

// SinkConfig are the settings of the sink "cassandra".
type SinkConfig struct {
	Connection   Connection        `json:"connection" reprise:"tuning" jsonschema:"required" jsonschema_description:"How to reach the cluster."`
	Keyspace     string            `json:"keyspace" jsonschema:"required" jsonschema_description:"Keyspace of the table, written as Cassandra shows it. It must exist."`
	Table        string            `json:"table" jsonschema:"required" jsonschema_description:"Table to write to. Its lists must be frozen: Cassandra would append to them when a write is repeated."`
	Columns      map[string]string `json:"columns,omitempty" jsonschema_description:"Column of a field, for fields that have another name than their column. Default: the field's name."`
	Create       bool              `json:"create,omitempty" reprise:"tuning" jsonschema_description:"Create the table, and the user-defined types that it needs, from the records' fields where it is not there. Default: false."`
	PartitionKey []string          `json:"partition_key,omitempty" jsonschema_description:"Columns of the partition key, in order; needed only with create."`
	Clustering   []string          `json:"clustering,omitempty" jsonschema_description:"Clustering columns, in order; used only with create. Default: none."`
	TTL          string            `json:"ttl,omitempty" jsonschema:"enum=keep,enum=drop" jsonschema_description:"keep: what expires at its source expires at the same time here, and what does not never does. drop: the table's own default_time_to_live applies. Default: keep."`
	Write        string            `json:"write,omitempty" jsonschema:"enum=all,enum=changes" jsonschema_description:"all: every column of a record is written, at its own write time, and nothing is read before. changes: for repairs in the table that the job reads, and for columns added to one. Rows are read by their keys first, and only columns that differ are written, each a microsecond after what stands there; a row that differs in nothing is unchanged, and one that is not there is not made. Rows that were changed after the job had read them become dead letters (cassandra.row_changed), which reprise redrive computes again; so keep the fields from which others are computed. Default: all."`
	Deletes      *Deletes          `json:"deletes,omitempty" jsonschema_description:"How much a run may delete. A delete always removes a whole row, by one tombstone with the record's version: nothing newer. Default: no bound."`
	Consistency  string            `json:"consistency,omitempty" reprise:"tuning" jsonschema:"enum=ANY,enum=ONE,enum=TWO,enum=THREE,enum=QUORUM,enum=ALL,enum=LOCAL_QUORUM,enum=EACH_QUORUM,enum=LOCAL_ONE" jsonschema_description:"How many replicas must have a write before it counts as written. Default: LOCAL_QUORUM."`
	BatchRows    int               `json:"batch_rows,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=1000" jsonschema_description:"The most rows of one partition in one request. Default: 100."`
	BatchBytes   connector.Bytes   `json:"batch_bytes,omitempty" reprise:"tuning" jsonschema_description:"The most bytes of such a request; a larger row is written alone. Default: 40KiB, which is below the server's default batch_size_fail_threshold."`
	InFlight     int               `json:"in_flight,omitempty" reprise:"tuning" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"Requests under way at once in one worker process. Default: 16."`
}

// Validate gives the faults that a schema cannot find.
func (c SinkConfig) Validate() []connector.Fault {
	faults := tableFaults(c.Connection, c.Keyspace, c.Table)
	add := func(path, format string, args ...any) {
		faults = append(faults, connector.Faultf(path, format, args...))
	}
	if c.Create && len(c.PartitionKey) == 0 {
		add("partition_key", "create needs the columns of the partition key")
	}
	if !c.Create && len(c.PartitionKey)+len(c.Clustering) > 0 {
		add("partition_key",
			"the key of a table that is there cannot be chosen; leave partition_key and clustering out or set "+
				"create: true")
	}
	key := slices.Concat(c.PartitionKey, c.Clustering)
	for i, name := range key {
		if slices.Contains(key[:i], name) {
			add("partition_key", "column %q stands twice in the key", name)
		}
	}
	if c.TTL != "" && c.TTL != "keep" && c.TTL != "drop" {
		add("ttl", "ttl is keep or drop, not %q", c.TTL)
	}
	level, err := c.consistency()
	if err != nil {
		add("consistency", "%q is not a consistency level of a write; LOCAL_QUORUM is one", c.Consistency)
	}
	if c.Write != "" && c.Write != writeAll && c.Write != writeChanges {
		add("write", "write is all or changes, not %q", c.Write)
	}
	if c.Deletes != nil && (c.Deletes.PerPartition < 0 || c.Deletes.PerPartition > math.MaxInt32) {
		add("deletes.per_partition", "per_partition is 1 to %d, not %d", math.MaxInt32, c.Deletes.PerPartition)
	}
	if c.Write == writeChanges && c.Create {
		add("create", "write: changes writes to rows that are there, and a new table has none; leave one of them out")
	}
	if c.Write == writeChanges && level == gocql.Any {
		add("consistency", "write: changes reads rows first, and nothing is read with ANY; LOCAL_QUORUM is one that "+
			"reads and writes")
	}
	if c.BatchRows < 0 || c.BatchRows > maxBatchRows {
		add("batch_rows", "batch_rows is 1 to %d, not %d", maxBatchRows, c.BatchRows)
	}
	if c.InFlight < 0 || c.InFlight > maxInFlight {
		add("in_flight", "in_flight is 1 to %d, not %d", maxInFlight, c.InFlight)
	}
	return faults
}

// What is written of a record.
const (
	writeAll     = "all"
	writeChanges = "changes"
)

const (
	maxBatchRows = 1000
	maxInFlight  = 1024
)

func (c SinkConfig) consistency() (level gocql.Consistency, err error) {
	if c.Consistency == "" {
		return gocql.LocalQuorum, nil
	}
	err = level.UnmarshalText([]byte(strings.ToUpper(c.Consistency)))
	return level, err
}

func (c SinkConfig) withDefaults() SinkConfig {
	if c.BatchRows == 0 {
		c.BatchRows = 100
	}
	if c.InFlight == 0 {
		c.InFlight = 16
	}
	c.BatchBytes = connector.Bytes(c.BatchBytes.Or(40 << 10))
	return c
}

// column is the name of a field's column.
func (c SinkConfig) column(field string) string {
	if name, ok := c.Columns[field]; ok {
		return name
	}
	return field
}
