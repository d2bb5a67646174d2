package journal_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
)

func TestConfig(t *testing.T) {
	for _, test := range []struct {
		config journal.Config
		want   []string // the paths of the faults
	}{
		{journal.Config{SQLite: "j.db"}, nil},
		{journal.Config{}, []string{"sqlite"}},
		{journal.Config{Cassandra: &journal.CassandraConfig{Connection: cassandraio.Connection{Hosts: []string{"a"}},
			Keyspace: "k", Replication: map[string]int{"dc1": 3}}}, nil},
		{journal.Config{SQLite: "j.db", Cassandra: &journal.CassandraConfig{Replication: map[string]int{"dc1": 0}}},
			[]string{"sqlite", "cassandra.keyspace", "cassandra.connection.hosts", "cassandra.replication.dc1"}},
	} {
		if d := cmp.Diff(test.want, paths(test.config.Validate())); d != "" {
			t.Errorf("%+v: %s", test.config, d)
		}
		if test.want != nil {
			if _, err := journal.Open(t.Context(), test.config); fail.CodeOf(err) != "journal.settings" ||
				fail.ExitOf(err) != fail.ExitJob {
				t.Errorf("%+v: %v", test.config, err)
			}
		}
	}
}

func paths(faults []connector.Fault) []string {
	var list []string
	for _, f := range faults {
		list = append(list, f.Path)
	}
	return list
}
