package cassandraio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// source gives a source of the database's table.
func (db *database) source(t testing.TB, change func(*SourceConfig)) *Source {
	c := SourceConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace, Table: db.table}
	if change != nil {
		change(&c)
	}
	for _, f := range c.Validate() {
		t.Fatalf("%s: %s", f.Path, f.Message)
	}
	s := NewSource(c, connector.Need{})
	t.Cleanup(func() { s.Close() })
	return s
}

func discover(c *SourceConfig) { c.Buckets = &Buckets{Discover: true} }

// load executes a statement with many sets of arguments, several at once.
func (db *database) load(t testing.TB, cql string, rows [][]any) {
	t.Helper()
	cql = strings.ReplaceAll(cql, "%s", db.keyspace+"."+db.table)
	var writers sync.WaitGroup
	work := make(chan []any)
	for range 16 {
		writers.Go(func() {
			for args := range work {
				if err := db.session.Query(cql, args...).Exec(); err != nil {
					t.Errorf("%s: %v", cql, err)
				}
			}
		})
	}
	for _, args := range rows {
		work <- args
	}
	close(work)
	writers.Wait()
}

// collect reads all splits, several at once, and gives each record by its key.
func collect(t testing.TB, s *Source, o connector.PlanOptions) (map[string]*record.Record, []connector.Split) {
	t.Helper()
	var splits []connector.Split
	if err := s.Plan(t.Context(), o, func(sp connector.Split) error { splits = append(splits, sp); return nil }); err != nil {
		t.Fatal(err)
	}
	found := map[string]*record.Record{}
	err := connector.ReadAhead(t.Context(), s, splits, connector.Ahead{Readers: 4, Bytes: 32 << 20}, func(_ int, p connector.Page, _ bool) (bool, error) {
		for _, r := range p.Records {
			if _, twice := found[r.KeyText()]; twice {
				t.Errorf("%s came twice", r.KeyText())
			}
			found[r.KeyText()] = r
		}
		for _, d := range p.Dead {
			t.Errorf("dead letter: %s", d.Message)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, splits
}

const mediaTable = `CREATE TABLE %s (asset_type text, bucket text, id timeuuid, title text, size bigint, tags set<text>,
	attrs map<text, text>, place tuple<int, text>, PRIMARY KEY ((asset_type, bucket), id)) WITH CLUSTERING ORDER BY (id DESC)`

// media loads a table of buckets of which one is wide, and gives what a source must find.
func (db *database) media(t testing.TB) map[string]string {
	db.exec(t, mediaTable)
	want := map[string]string{}
	var rows [][]any
	start := time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
	add := func(assetType, bucket string, n int) {
		for i := range n {
			id := gocql.UUIDFromTime(start.Add(time.Duration(i) * time.Minute))
			title := fmt.Sprintf("title %d of %s", i, assetType)
			rows = append(rows, []any{assetType, bucket, id, title, int64(i), []string{"a", fmt.Sprint(i)}, map[string]string{"k": fmt.Sprint(i)}, i, bucket})
			key := strings.NewReplacer(`\`, `\\`, `|`, `\|`)
			want[key.Replace(assetType)+"|"+key.Replace(bucket)+"|"+id.String()] = fmt.Sprintf(
				`{"asset_type":%q,"bucket":%q,"id":%q,"attrs":{"k":"%d"},"place":[%d,%q],"size":%d,"tags":["a","%d"],"title":%q}`,
				assetType, bucket, id, i, i, bucket, i, i, title)
		}
	}
	add("image", "2024-05", 300)
	add("image", "2024-06", 1)
	add("video", "2024-05", 40)
	add(`odd/\|`, "", 3)
	db.load(t, "INSERT INTO %s (asset_type, bucket, id, title, size, tags, attrs, place) VALUES (?, ?, ?, ?, ?, ?, ?, (?, ?))", rows)
	return want
}

func TestSourceConformanceBuckets(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	want := db.media(t)
	iotest.TestSource(t, iotest.Source{Want: want, New: func(t *testing.T) connector.Source {
		return db.source(t, func(c *SourceConfig) { c.Buckets, c.Page = &Buckets{Discover: true}, 8000 })
	}})
}

func TestSourceConformanceRing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	want := db.media(t)
	iotest.TestSource(t, iotest.Source{Want: want, New: func(t *testing.T) connector.Source {
		return db.source(t, func(c *SourceConfig) { c.Page = 8000 })
	}})
}

var _ = []any{context.Background, binary.BigEndian, errors.Is, rand.Int, cmp.Diff, fail.CodeOf}
