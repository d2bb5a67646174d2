package cassandraio

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// modes are the two ways in which a table is read.
var modes = map[string]func(*SourceConfig){"ring": nil, "buckets": discover}

// everything reads a source to its end: how often each key came, and the dead letters by code.
func everything(t *testing.T, s *Source) (keys map[string]int, dead map[string][]*record.DeadLetter) {
	t.Helper()
	keys, dead = map[string]int{}, map[string][]*record.DeadLetter{}
	err := s.Plan(t.Context(), connector.PlanOptions{Rows: 1000}, func(split connector.Split) error {
		last := split.Start
		return s.Read(t.Context(), split, func(p connector.Page) error {
			if last != nil && string(p.Last) <= string(last) {
				t.Errorf("a page ends at %x, the one before at %x", p.Last, last)
			}
			last = p.Last
			for _, r := range p.Records {
				keys[r.KeyText()]++
			}
			for _, l := range p.Dead {
				dead[l.Code] = append(dead[l.Code], l)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys, dead
}

// Partitions that have static columns and no rows are dead letters, each once, and can be read again at their places.
func TestStaticColumnsWithoutRowsAreDeadLetters(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p int, s text static, c int, v int, PRIMARY KEY (p, c))")
	for p := range 20 {
		db.exec(t, fmt.Sprintf("INSERT INTO %%s (p, s) VALUES (%d, 's%d')", p, p))
		for c := range 5 * (p % 2) {
			db.exec(t, fmt.Sprintf("INSERT INTO %%s (p, c, v) VALUES (%d, %d, 1)", p, c))
		}
	}
	for name, change := range modes {
		for _, page := range []connector.Bytes{1, 200, 1 << 20} {
			t.Run(fmt.Sprint(name, " ", page), func(t *testing.T) {
				s := db.source(t, change)
				s.config.Page = page
				keys, dead := everything(t, s)
				if len(keys) != 50 || len(dead["cassandra.static_only"]) != 10 || len(dead) != 1 {
					t.Fatalf("%d rows, dead letters %v", len(keys), dead)
				}
				for _, l := range dead["cassandra.static_only"] {
					again := 0
					err := s.Read(t.Context(), connector.Split{Partition: l.Place.Partition, Start: l.Place.Start,
						End: l.Place.End}, func(p connector.Page) error {
						again += len(p.Records) + len(p.Dead)
						if !cmp.Equal(p.Dead[0].Raw, l.Raw) {
							t.Errorf("%s reads again as %s", l.Raw, p.Dead[0].Raw)
						}
						return nil
					})
					if err != nil || again != 1 {
						t.Errorf("%s reads again as %d rows, %v", l.Raw, again, err)
					}
				}
			})
		}
	}
	s := db.source(t, func(c *SourceConfig) { c.Columns = []string{"v"} })
	if keys, dead := everything(t, s); len(keys) != 50 || len(dead) != 0 {
		t.Errorf("without the static column: %d rows, dead letters %v", len(keys), dead)
	}
}

// Rows with an empty value in a key column that needs bytes are dead letters wherever the pages end.
func TestEmptyKeyValuesAreDeadLettersAtAnyPage(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"ASC", "DESC"} {
		db := newDatabase(t, services.Need(t, services.Cassandra))
		db.exec(t, "CREATE TABLE %s (p text, a int, b int, v text, PRIMARY KEY (p, a, b)) WITH CLUSTERING ORDER BY (a "+
			order+", b ASC)")
		for _, a := range []string{"blob_as_int(0x)", "1", "2"} {
			for _, b := range []string{"blob_as_int(0x)", "1", "2", "3"} {
				for _, p := range []string{"x", "y"} {
					db.exec(t, fmt.Sprintf("INSERT INTO %%s (p, a, b, v) VALUES ('%s', %s, %s, 'v')", p, a, b))
				}
			}
		}
		db.exec(t, "INSERT INTO %s (p, a, b) VALUES ('empty', blob_as_int(0x), blob_as_int(0x))")
		for name, change := range modes {
			for page := connector.Bytes(1); page < 1200; page += 90 {
				s := db.source(t, change)
				s.config.Page = page
				keys, dead := everything(t, s)
				if len(keys) != 12 || len(dead["cassandra.empty_key"]) != 13 || len(dead) != 1 {
					t.Errorf("%s, %s, pages of %d bytes: %d rows, %d dead letters with an empty key: %v", order, name,
						page, len(keys), len(dead["cassandra.empty_key"]), dead)
				}
				for key, n := range keys {
					if n != 1 {
						t.Errorf("%s, %s, pages of %d bytes: %s came %d times", order, name, page, key, n)
					}
				}
			}
		}
	}
}

// More deleted rows in a partition than the server reads at once are no end of a run: what lives among
// them and elsewhere is read, once.
func TestDeletedRowsBeyondWhatTheServerReadsAtOnce(t *testing.T) {
	t.Parallel()
	deletedRows(t, services.Own(t, services.Cassandra, services.Env("CASSANDRA_YAML="+fewTombstones)).Addr)
}

const fewTombstones = "tombstone_warn_threshold: 400\ntombstone_failure_threshold: 500"

func deletedRows(t *testing.T, addr string) {
	const deleted = 2500
	db := newDatabase(t, addr)
	db.exec(t, "CREATE TABLE %s (p text, c timeuuid, n int, s text static, v text, PRIMARY KEY (p, c, n))")
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	want := map[string]int{}
	insert := func(p string, at time.Time) {
		id := gocql.UUIDFromTime(at)
		if err := db.query("INSERT INTO %s (p, c, n, v) VALUES (?, ?, 7, 'v')").Bind(p, id).Exec(); err != nil {
			t.Fatal(err)
		}
		want[p+"|"+id.String()+"|7"] = 1
	}
	var gone [][]any
	for _, p := range []string{"dead", "mixed"} {
		for i := range deleted {
			gone = append(gone, []any{p, gocql.UUIDFromTime(start.Add(time.Duration(i) * time.Second))})
		}
	}
	db.load(t, "DELETE FROM %s WHERE p = ? AND c = ? AND n = 7", gone)
	insert("mixed", start.Add(-time.Hour))
	insert("mixed", start.Add(800*time.Second+time.Millisecond))
	insert("mixed", start.Add(deleted*time.Second))
	for i := range 202 {
		insert(fmt.Sprint("live", i%5), start.Add(time.Duration(i)*time.Second))
	}
	for name, change := range modes {
		t.Run(name, func(t *testing.T) {
			s := db.source(t, change)
			s.config.Columns = []string{"v"}
			keys, dead := everything(t, s)
			if diff := cmp.Diff(want, keys); diff != "" || len(dead) > 0 {
				t.Errorf("%s\ndead letters %v", diff, dead)
			}
		})
	}
	t.Run("with a static column", func(t *testing.T) {
		keys, dead := everything(t, db.source(t, nil))
		if diff := cmp.Diff(want, keys); diff != "" {
			t.Error(diff)
		}
		// Whether the partition without a row has a static value the server does not tell.
		letters := dead[codeTombstones]
		if len(letters) != 1 || len(dead) != 1 || !strings.Contains(letters[0].Message,
			"tombstone_failure_threshold") || letters[0].Place == nil {
			t.Errorf("dead letters %v", dead)
		}
		err := db.source(t, discover).Plan(t.Context(), connector.PlanOptions{},
			func(connector.Split) error { return nil })
		if fail.CodeOf(err) != codeTombstones || !strings.Contains(err.Error(), "leave buckets out") {
			t.Errorf("by buckets: %v", err)
		}
	})
}
