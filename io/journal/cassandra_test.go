package journal_test

import (
	"testing"

	"reprise/io/cassandraio"
	"reprise/io/journal"
	"reprise/runners/services"
)

func cassandra(t testing.TB) journal.Config {
	return journal.Config{Cassandra: &journal.CassandraConfig{
		Connection: cassandraio.Connection{Hosts: []string{services.Need(t, services.Cassandra)}}, Keyspace: services.Name(t),
		Replication: map[string]int{"datacenter1": 1}}}
}

func openConfig(t testing.TB, c journal.Config) journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestCassandra(t *testing.T) {
	c := cassandra(t)
	suite(t, func(t testing.TB) journal.Journal { return openConfig(t, c) })
}

func BenchmarkCassandra(b *testing.B) {
	c := cassandra(b)
	benchmark(b, func(t testing.TB) journal.Journal { return openConfig(t, c) })
}
