package cassandraio

import (
	"bytes"
	"fmt"
	"testing"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// A row is located in the split that reads it, and in the page of it; also when it is not there any more.
func TestLocate(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	for _, test := range []struct {
		name, create, insert string
		buckets              *Buckets
	}{
		{"buckets", "CREATE TABLE %s (p text, q int, c int, v text, PRIMARY KEY ((p, q), c)) WITH CLUSTERING ORDER " +
			"BY (c DESC)", "INSERT INTO %s (p, q, c, v) VALUES ('%d/é', 1, %d, 'x')", &Buckets{Discover: true}},
		{"rows", "CREATE TABLE %s (p text, c int, PRIMARY KEY (p))",
			"INSERT INTO %s (p, c) VALUES ('%d-a text of more than one block é', %d)", &Buckets{Discover: true}},
		{"ring", "CREATE TABLE %s (p text, c int, d text, v text, PRIMARY KEY (p, c, d))",
			"INSERT INTO %s (p, c, d, v) VALUES ('%d-a text of more than one block \u00e9\u00e8', %d, 'ü', 'x')", nil},
		{"ring of one column", "CREATE TABLE %s (p text, c int, PRIMARY KEY (p))",
			"INSERT INTO %s (p, c) VALUES ('é%d', %d)", nil},
		{"ring without positions", "CREATE TABLE %s (p text, c decimal, v text, PRIMARY KEY (p, c))",
			"INSERT INTO %s (p, c, v) VALUES ('%d-é', %d, 'x')", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := "located_" + fmt.Sprint(len(test.create)) + "_" + fmt.Sprint(len(test.insert))
			name := db.keyspace + "." + table
			if err := db.session.Query(fmt.Sprintf(test.create, name)).Exec(); err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				if err := db.session.Query(fmt.Sprintf(test.insert, name, i/30, i)).Exec(); err != nil {
					t.Fatal(err)
				}
			}
			s := NewSource(SourceConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace,
				Table: table, Buckets: test.buckets}, connector.Need{PageRows: 7})
			defer s.Close()
			n := 0
			err := s.Plan(t.Context(), connector.PlanOptions{Rows: 10}, func(split connector.Split) error {
				start := split.Start
				return s.Read(t.Context(), split, func(p connector.Page) error {
					for _, r := range p.Records {
						n++
						key := &record.Record{Schema: r.Schema, Values: make([]record.Value, len(r.Values))}
						for _, k := range r.Schema.Key {
							key.Values[k] = r.Values[k]
						}
						at, err := s.Locate(t.Context(), key)
						if err != nil || len(at) != 1 {
							t.Fatal(at, err)
						}
						partition, position := at[0].Partition, at[0].End
						page := connector.Split{Partition: split.Partition, Start: start, End: p.Last}
						if partition != split.Partition || !page.Contains(position) || !split.Contains(position) {
							t.Fatalf("%s is located in %s at %x, and was read in %s, page %x..%x", r.KeyText(),
								partition, position, split, start, p.Last)
						}
						if test.name == "buckets" && len(p.Records) > 0 && r == p.Records[len(p.Records)-1] &&
							!bytes.Equal(position, p.Last) {
							t.Errorf("the last row of a page is located at %x, not %x", position, p.Last)
						}
					}
					start = p.Last
					return nil
				})
			})
			if err != nil || n == 0 {
				t.Fatalf("%d rows, %v", n, err)
			}
		})
	}
	s := NewSource(SourceConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace,
		Table: "nothing"}, connector.Need{})
	defer s.Close()
	if _, err := s.Locate(t.Context(), nil); err == nil {
		t.Error("a row of no table is located")
	}
}
