package journal_test

import (
	"testing"

	"reprise/io/cassandraio"
	"reprise/io/journal"
	"reprise/runners/faults"
	"reprise/runners/services"
)

func cassandra(t testing.TB) journal.Config {
	return journal.Config{Cassandra: &journal.CassandraConfig{
		Connection:  cassandraio.Connection{Hosts: []string{services.Need(t, services.Cassandra)}},
		Keyspace:    services.Name(t),
		Replication: map[string]int{"datacenter1": 1}}}
}

func TestCassandra(t *testing.T) { suite(t, cassandra(t)) }

func BenchmarkCassandra(b *testing.B) { benchmark(b, cassandra(b)) }

// TestLostAnswers cuts connections so that nobody knows what became of a Record: each is there once.
func TestLostAnswers(t *testing.T) {
	c := cassandra(t)
	j := open(t, c)
	run := attempt(t, j)
	proxy := faults.New(t, c.Cassandra.Connection.Hosts[0])
	c.Cassandra.Connection.Hosts[0] = proxy.Addr
	behind := open(t, c)
	const steps = 60
	for n := range uint32(steps) {
		proxy.CutRandomly(500, 1) // about as much as is answered in one step
		if err := behind.Record(t.Context(), run, 1, step("s", n)); err != nil {
			t.Fatal(n, err)
		}
	}
	if n := checkSteps(t, j, run, "s"); n != steps || proxy.Cuts() == 0 {
		t.Errorf("%d steps, %d cuts", n, proxy.Cuts())
	}
}

func TestBadKeyspaces(t *testing.T) {
	c := cassandra(t)
	open(t, c)
	k := c.Cassandra
	if err := cassandraio.Execute(t.Context(), k.Connection,
		cassandraio.Statement{CQL: "UPDATE " + k.Keyspace +
			".versions SET version = 99 WHERE name = 'journal'"}); err != nil {
		t.Fatal(err)
	}
	_, err := journal.Open(t.Context(), c)
	checkCode(t, err, "journal.newer")
	k.Keyspace, k.Replication = services.Name(t), nil
	_, err = journal.Open(t.Context(), c)
	checkCode(t, err, "journal.no_keyspace")
}
