package cassandraio

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

func TestPrepareNamesEveryMismatch(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TYPE %k.size (w int, unit text)")
	db.exec(t, `CREATE TABLE %s (bucket text, day date, id timeuuid, title text, size int, box frozen<size>, names list<text>,
		tags set<text>, "Odd ""name""" bigint, PRIMARY KEY ((bucket, day), id))`)
	text := record.Of(record.Text)
	box := record.UDTOf("size", record.Field{Name: "unit", Type: text},
		record.Field{Name: "w", Type: record.Of(record.Int)})
	schema := record.MustSchema([]record.Field{
		{Name: "bucket", Type: text}, {Name: "id", Type: record.Of(record.UUID)}, {Name: "headline", Type: text},
		{Name: "size", Type: record.Of(record.BigInt)},
		{Name: "box", Type: box}, {Name: "names", Type: record.ListOf(text)}, {Name: "tags", Type: record.SetOf(text)},
		{Name: "odd", Type: record.Of(record.Int)},
		{Name: "extra", Type: text},
	}, "bucket", "id")
	s := NewSink(db.config(db.table, func(c *SinkConfig) {
		c.Columns = map[string]string{"headline": "title", "odd": `Odd "name"`, "extra": "title", "gone": "x"}
	}))
	defer s.Close()
	err := s.Prepare(t.Context(), connector.Run{}, schema, false)
	if err == nil {
		t.Fatal("no error")
	}
	if fail.ExitOf(err) != fail.ExitJob {
		t.Errorf("the run ends with %d", fail.ExitOf(err))
	}
	golden.Compare(t, "testdata/mismatch.txt", strings.ReplaceAll(err.Error(), db.keyspace, "KEYSPACE"))
}

func TestPrepareWithoutTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := NewSink(db.config("nowhere", nil))
	defer s.Close()
	if err := s.Prepare(t.Context(), connector.Run{}, assets, false); fail.CodeOf(err) != "cassandra.no_table" {
		t.Errorf("no table: %v", err)
	}
	s = NewSink(SinkConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: "nowhere", Table: "x",
		Create: true, PartitionKey: []string{"id"}})
	defer s.Close()
	for _, dry := range []bool{true, false} {
		if err := s.Prepare(t.Context(), connector.Run{}, assets, dry); fail.CodeOf(err) != "cassandra.no_keyspace" {
			t.Errorf("no keyspace, dry %t: %v", dry, err)
		}
	}
}

// A table is created for fields of every type, takes a record of them, and is left alone by a second Prepare.
func TestPrepareCreates(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	fields := []record.Field{{Name: "bucket", Type: record.Of(record.Text)},
		{Name: "Id", Type: record.SetOf(record.Of(record.Int))}}
	for k := record.Boolean; k <= record.Vector; k++ {
		fields = append(fields, record.Field{Name: "f " + k.String(), Type: typeOf(k)})
	}
	inner := record.UDTOf("inner", record.Field{Name: "tags", Type: record.SetOf(record.Of(record.Text))})
	fields = append(fields, record.Field{Name: "deep",
		Type: record.MapOf(record.Of(record.Text),
			record.UDTOf("elsewhere.Outer", record.Field{Name: "In", Type: inner}))})
	schema := record.MustSchema(fields, "bucket", "Id")
	config := db.config("made", func(c *SinkConfig) {
		c.Create, c.PartitionKey, c.Clustering = true, []string{"bucket"}, []string{"Id"}
	})
	statements, err := createStatements(config, schema)
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/create.cql", strings.ReplaceAll(strings.Join(statements, ";\n")+";\n",
		db.keyspace, "KEYSPACE"))

	s := NewSink(config)
	defer s.Close()
	exists := func() (n int) {
		if err := db.session.Query("SELECT COUNT(*) FROM system_schema.tables WHERE keyspace_name = ?", db.keyspace).
			Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := s.Prepare(t.Context(), connector.Run{}, schema, true); err != nil || exists() != 0 {
		t.Errorf("a dry Prepare created %d tables: %v", exists(), err)
	}
	for range 2 {
		if err := s.Prepare(t.Context(), connector.Run{}, schema, false); err != nil {
			t.Fatal(err)
		}
	}
	r := &record.Record{Schema: schema, Version: 1, Values: make([]record.Value, len(fields))}
	r.Values[0], r.Values[1] = record.String("b"),
		record.Nested(record.Set, []record.Value{record.Number(record.Int, 1)})
	r.Values[len(fields)-1] = record.Nested(record.Map,
		[]record.Value{record.String("k"), record.Nested(record.UDT,
			[]record.Value{record.Nested(record.UDT, []record.Value{textsOf(record.Set, "t")})})})
	if res := put(t, s, r); res[0].Err != nil {
		t.Error(res[0].Err)
	}
	other := NewSink(db.config("other", func(c *SinkConfig) { c.Create, c.PartitionKey = true, []string{"nothing"} }))
	defer other.Close()
	if err := other.Prepare(t.Context(), connector.Run{}, schema, false); fail.CodeOf(err) != "cassandra.no_key_field" {
		t.Error(err)
	}
}

func TestSinkConfigFaults(t *testing.T) {
	there := Connection{Hosts: []string{"10.0.0.1"}}
	for _, c := range []struct {
		config SinkConfig
		want   []string
	}{
		{SinkConfig{Connection: there, Keyspace: "k", Table: "t"}, nil},
		{SinkConfig{Connection: there, Keyspace: "k", Table: "t", Create: true, PartitionKey: []string{"a"},
			Clustering: []string{"b"}, TTL: "drop", Consistency: "EACH_QUORUM", BatchRows: 1000, InFlight: 1}, nil},
		{SinkConfig{}, []string{"connection.hosts", "keyspace", "table"}},
		{SinkConfig{Connection: there, Keyspace: "k", Table: "t", Create: true}, []string{"partition_key"}},
		{SinkConfig{Connection: there, Keyspace: "k", Table: "t", PartitionKey: []string{"a"}},
			[]string{"partition_key"}},
		{SinkConfig{Connection: there, Keyspace: "k", Table: "t", Create: true, PartitionKey: []string{"a"},
			Clustering: []string{"a"}, TTL: "x", Consistency: "MOST", BatchRows: -1, InFlight: 2000},
			[]string{"partition_key", "ttl", "consistency", "batch_rows", "in_flight"}},
	} {
		var got []string
		for _, f := range c.config.Validate() {
			got = append(got, f.Path)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.config, diff)
		}
	}
}
