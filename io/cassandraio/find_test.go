package cassandraio

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// Rows are found as they are now, or not at all, and what cannot be read is a dead letter.
func TestFind(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p int, id int, s text static, a text, n int, PRIMARY KEY (p, id))")
	for _, cql := range []string{
		"INSERT INTO %s (p, id, a, n) VALUES (1, 1, 'old', 1) USING TIMESTAMP 1000",
		"UPDATE %s USING TIMESTAMP 2000 SET a = 'new' WHERE p = 1 AND id = 1",
		"INSERT INTO %s (p, id, a) VALUES (1, 2, 'deleted') USING TIMESTAMP 1000",
		"DELETE FROM %s USING TIMESTAMP 2000 WHERE p = 1 AND id = 2",
		"INSERT INTO %s (p, s) VALUES (2, 'a partition without rows')",
		"INSERT INTO %s (p, id, a) VALUES (3, 1, 'a text that is longer than max_row allows, which is a hundred " +
			"bytes; hence it goes on for a while')",
		"INSERT INTO %s (p, id, a) VALUES (3, 2, 'another text that is longer than max_row allows, and as the one " +
			"before it goes on and on for a while')",
		"INSERT INTO %s (p, id, a, n) VALUES (3, 3, 'new', 1) USING TIMESTAMP 1000",
		"UPDATE %s USING TIMESTAMP 2000 SET a = 'last' WHERE p = 3 AND id = 3",
	} {
		db.exec(t, cql)
	}
	c := SourceConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace, Table: db.table,
		Buckets: &Buckets{Discover: true}, MaxRow: 100}
	s := NewSource(c, connector.Need{Cells: true})
	defer s.Close()
	schema, err := s.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var keys []*record.Record
	for _, k := range [][2]int64{{1, 1}, {1, 2}, {2, 1}, {3, 1}, {4, 1}, {3, 2}, {3, 3}} {
		key := &record.Record{Schema: schema, Values: make([]record.Value, len(schema.Fields))}
		key.Values[0], key.Values[1] = record.Number(record.Int, k[0]), record.Number(record.Int, k[1])
		keys = append(keys, key)
	}
	keys[4].Values[1] = record.NullValue
	got := map[int]string{}
	if err := s.Find(t.Context(), keys, func(i int, p connector.Page) error {
		got[i] = "gone"
		for _, r := range p.Records {
			got[i] = iotest.JSON(r)
			if r.Version != 2000 || r.Cells[schema.Index("n")].Version != 1000 {
				t.Errorf("version %d, cells %v", r.Version, r.Cells)
			}
		}
		for _, d := range p.Dead {
			got[i] = d.Code + " " + string(d.Raw)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[int]string{0: `{"p":1,"id":1,"a":"new","n":1,"s":null}`, 1: "gone", 2: "gone",
		3: `cassandra.row_too_large {"p":3,"id":1}`, 4: `cassandra.bad_key {"p":4,"id":null}`,
		5: `cassandra.row_too_large {"p":3,"id":2}`, 6: `{"p":3,"id":3,"a":"last","n":1,"s":null}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}
