package cassandraio

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Cassandra 4.1 passes the suites, too. It tells no write times of collections, so that these count
// as old as the rest of the row.
func TestCassandra41(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Cassandra, services.Env("CASSANDRA_VERSION=4.1.10",
		"JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1",
		"CASSANDRA_YAML=materialized_views_enabled: true\n"+fewTombstones))
	t.Run("sink", func(t *testing.T) { iotest.TestSink(t, newDatabase(t, server.Addr).suite()) })
	for name, change := range modes {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, server.Addr)
			iotest.TestSource(t, iotest.Source{Want: db.media(t), New: func(t *testing.T) connector.Source {
				return db.source(t, func(c *SourceConfig) {
					if c.Page = 8000; change != nil {
						change(c)
					}
				})
			}})
		})
	}
	t.Run("deleted rows", func(t *testing.T) { deletedRows(t, server.Addr) })
	t.Run("compact tables", func(t *testing.T) { compactTables(t, server.Addr) })
	t.Run("views", func(t *testing.T) {
		db := newDatabase(t, server.Addr)
		db.exec(t, "CREATE TABLE %s (a int, b int, v text, s set<text>, PRIMARY KEY (a, b))")
		db.exec(t, "CREATE MATERIALIZED VIEW "+db.keyspace+
			".by_v AS SELECT * FROM %s WHERE v IS NOT NULL AND a IS NOT NULL AND b IS NOT NULL PRIMARY KEY (v, a, b)")
		db.exec(t, "INSERT INTO %s (a, b, v, s) VALUES (1, 2, 'x', {'y'}) USING TIMESTAMP 1234")
		for _, change := range modes {
			s := db.source(t, change)
			s.config.Table = "by_v"
			keys, dead := everything(t, s)
			if diff := cmp.Diff(map[string]int{"x|1|2": 1}, keys); diff != "" || len(dead) > 0 {
				t.Errorf("%s, dead letters %v", diff, dead)
			}
		}
		schema := record.MustSchema([]record.Field{{Name: "v", Type: record.Of(record.Text)},
			{Name: "a", Type: record.Of(record.Int)}, {Name: "b", Type: record.Of(record.Int)}}, "v", "a", "b")
		sink := NewSink(db.config("by_v", nil))
		defer sink.Close()
		if err := sink.Prepare(t.Context(), connector.Run{}, schema, false); fail.CodeOf(err) != "cassandra.view" {
			t.Errorf("a sink into a view: %v", err)
		}
	})
}

func TestCompactTables(t *testing.T) {
	t.Parallel()
	compactTables(t, services.Need(t, services.Cassandra))
}

// compactTables reads and writes tables from the days of Thrift, as far as CQL can still make them.
func compactTables(t *testing.T, addr string) {
	for name, c := range map[string]struct{ create, insert, key, json string }{
		"static": {"CREATE TABLE %s (k text PRIMARY KEY, v text, w int) WITH COMPACT STORAGE",
			"INSERT INTO %s (k, v, w) VALUES ('a', 'b', 1) USING TIMESTAMP 1234", "a", `{"k":"a","v":"b","w":1}`},
		"dense": {"CREATE TABLE %s (k text, c text, v text, PRIMARY KEY (k, c)) WITH COMPACT STORAGE",
			"INSERT INTO %s (k, c, v) VALUES ('a', 'b', 'c') USING TIMESTAMP 1234", "a|b", `{"k":"a","c":"b","v":"c"}`},
		"keys alone": {"CREATE TABLE %s (k text, c text, PRIMARY KEY (k, c)) WITH COMPACT STORAGE",
			"INSERT INTO %s (k, c) VALUES ('a', 'b') USING TIMESTAMP 1234", "a|b", `{"k":"a","c":"b"}`},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, addr)
			db.exec(t, c.create)
			db.exec(t, c.insert)
			for mode, change := range modes {
				found, _ := collect(t, db.source(t, change), connector.PlanOptions{})
				r := found[c.key]
				if len(found) != 1 || r == nil || string(r.AppendJSON(nil)) != c.json ||
					name != "keys alone" && r.Version != 1234 {
					t.Fatalf("%s: %v", mode, found)
				}
				db.exec(t, "TRUNCATE %s")
				sink := NewSink(db.config(db.table, nil))
				if res := put(t, sink, r)[0]; res.Err != nil {
					t.Fatal(res.Err)
				}
				sink.Close()
				var text string
				if err := db.query("SELECT JSON * FROM %s").Scan(&text); err != nil || len(text) < len(c.json) {
					t.Errorf("%s: written as %s, %v", mode, text, err)
				}
			}
		})
	}
	db := newDatabase(t, addr)
	if err := db.query("CREATE TABLE %s (k text PRIMARY KEY, n counter) WITH COMPACT STORAGE").Exec(); err == nil {
		_, err := db.source(t, nil).Schema(t.Context())
		if fail.CodeOf(err) != "cassandra.counter" {
			t.Error(fmt.Errorf("a compact table of counters: %w", err))
		}
	}
}
