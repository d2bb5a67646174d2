package cassandraio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

func TestSinkConformance(t *testing.T) {
	t.Parallel()
	// C1 alone: the server starts faster.
	server := services.Own(t, services.Cassandra, services.Env("JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1"))
	s := newDatabase(t, server.Addr).suite()
	s.Server = server
	iotest.TestSink(t, s)
}

func (db *database) suite() iotest.Sink {
	return iotest.Sink{
		New: func(t *testing.T, target string) connector.Sink {
			return NewSink(db.config(target, func(c *SinkConfig) { c.Create, c.PartitionKey = true, []string{"id"} }))
		},
		Read: func(t *testing.T, target string) map[string]string {
			found := map[string]string{}
			var text string
			for rows := db.session.Query(fmt.Sprintf("SELECT JSON * FROM %s.%s", db.keyspace, target)).Iter(); ; {
				if !rows.Scan(&text) {
					if err := rows.Close(); err != nil {
						t.Fatal(err)
					}
					return found
				}
				var row struct{ ID string }
				if err := json.Unmarshal([]byte(text), &row); err != nil {
					t.Fatal(err)
				}
				found[strings.NewReplacer(`\`, `\\`, `|`, `\|`).Replace(row.ID)] = text
			}
		},
		Deletes: true,
		Refused: func() *record.Record { // by the server: a key may have 64 KiB
			r := iotest.Record(iotest.AssetSchema(), 100_000, iotest.Base)
			r.Values[0] = record.String(strings.Repeat("k", 70_000))
			return r
		},
	}
}

// assets are rows of one table with two parts in the key.
var assets = record.MustSchema([]record.Field{
	{Name: "bucket", Type: record.Of(record.Text)},
	{Name: "id", Type: record.Of(record.Int)},
	{Name: "title", Type: record.Of(record.Text)},
	{Name: "size", Type: record.Of(record.BigInt)},
	{Name: "tags", Type: record.SetOf(record.Of(record.Text))},
	{Name: "attrs", Type: record.MapOf(record.Of(record.Text), record.Of(record.Text))},
	{Name: "place", Type: record.TupleOf(record.Of(record.Int),
		record.TupleOf(record.Of(record.Text), record.Of(record.Int)))},
}, "bucket", "id")

const assetsTable = `CREATE TABLE %s (bucket text, id int, title text, size bigint, tags set<text>, attrs map<text, text>,
	place tuple<int, tuple<text, int>>, PRIMARY KEY (bucket, id))`

func asset(id int64, version int64, title string) *record.Record {
	r := &record.Record{Schema: assets, Version: version, Values: make([]record.Value, len(assets.Fields))}
	r.Values[0], r.Values[1], r.Values[2] = record.String("b"), record.Number(record.Int, id), record.String(title)
	return r
}

func TestUnsetLeavesAndNullClears(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	full := asset(1, 1000, "one")
	full.Values[3] = record.Number(record.BigInt, 7)
	full.Values[4] = textsOf(record.Set, "x", "y")
	full.Values[6] = record.Nested(record.Tuple, []record.Value{record.Number(record.Int, 1),
		record.Nested(record.Tuple, []record.Value{record.String("a"), record.NullValue})})
	put(t, s, full)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": [1, ["a", null]], "size": 7, "tags": ["x", "y"], "title": "one"}`)

	part := asset(1, 2000, "two") // the rest is unset
	part.Values[3] = record.NullValue
	put(t, s, part)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": [1, ["a", null]], "size": null, "tags": ["x", "y"], "title": "two"}`)

	cleared := asset(1, 3000, "")
	cleared.Values[4], cleared.Values[6] = record.NullValue,
		record.Nested(record.Tuple, []record.Value{record.NullValue, record.NullValue})
	put(t, s, cleared)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": [null, null], "size": null, "tags": null, "title": ""}`)

	cleared.Version, cleared.Values[6] = 4000, record.NullValue
	put(t, s, cleared)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": null, "size": null, "tags": null, "title": ""}`)
}

// An empty text is no null, wherever it stands.
func TestEmptyTextFirst(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, "CREATE TABLE %s (id int PRIMARY KEY, title text)", nil)
	schema := record.MustSchema([]record.Field{{Name: "title", Type: record.Of(record.Text)},
		{Name: "id", Type: record.Of(record.Int)}}, "id")
	put(t, s, &record.Record{Schema: schema, Version: 1,
		Values: []record.Value{record.String(""), record.Number(record.Int, 1)}})
	db.want(t, `{"id": 1, "title": ""}`)
}

func TestLiveWriteWins(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	old := asset(1, 1000, "reprocessed")
	old.Values[4] = textsOf(record.Set, "old")
	old.Values[5] = textsOf(record.Map, "k", "old")
	live := "INSERT INTO %s (bucket, id, title, tags, attrs) VALUES ('b', 1, 'live', {'live'}, {'l': 'live'}) USING " +
		"TIMESTAMP 2000"
	want := `{"bucket": "b", "id": 1, "attrs": {"l": "live"}, "place": null, "size": null, "tags": ["live"], "title": "live"}`

	db.exec(t, live)
	put(t, s, old, old)
	db.want(t, want)

	db.exec(t, "TRUNCATE %s")
	put(t, s, old, old)
	db.exec(t, live)
	put(t, s, old)
	db.want(t, want)
}

// Cassandra's rule for equal times: the greater bytes, and a merge of what is not frozen.
func TestEqualTimes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	a, b := asset(1, 1000, "a"), asset(1, 1000, "b")
	a.Values[4], b.Values[4] = textsOf(record.Set, "x"), textsOf(record.Set, "y")
	put(t, s, b)
	put(t, s, a)
	put(t, s, a)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": null, "size": null, "tags": ["x", "y"], "title": "b"}`)
}

func TestRepeatedCollectionsStay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	r := asset(1, 1000, "x")
	r.Values[4], r.Values[5] = textsOf(record.Set, "x", "y"), textsOf(record.Map, "k", "v", "l", "w")
	for range 3 {
		put(t, s, r)
		db.want(t, `{"bucket": "b", "id": 1, "attrs": {"k": "v", "l": "w"}, "place": null, "size": null, "tags": ["x", "y"], "title": "x"}`)
	}
	r.Version++
	r.Values[4] = textsOf(record.Set, "z")
	put(t, s, r)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": {"k": "v", "l": "w"}, "place": null, "size": null, "tags": ["z"], "title": "x"}`)
}

// What Prepare refuses lists for: the server gives each element a random place.
func TestServerAppendsToRepeatedLists(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (id int PRIMARY KEY, l list<text>)")
	for range 2 {
		db.exec(t, "INSERT INTO %s (id, l) VALUES (1, ['x']) USING TIMESTAMP 1000")
	}
	db.want(t, `{"id": 1, "l": ["x", "x"]}`)
}

func TestDeleteByVersion(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	gone := func(version int64) *record.Record {
		r := asset(1, version, "")
		r.Op, r.Values[2] = record.Delete, record.Value{}
		return r
	}
	put(t, s, asset(1, 2000, "x"))
	put(t, s, gone(1999))
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": null, "size": null, "tags": null, "title": "x"}`)
	put(t, s, gone(2000))
	db.want(t)
	put(t, s, asset(1, 1500, "old"))
	db.want(t)
	put(t, s, asset(1, 3000, "new"), asset(2, 1, "other"))
	put(t, s, gone(2500))
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": null, "size": null, "tags": null, "title": "new"}`,
		`{"bucket": "b", "id": 2, "attrs": null, "place": null, "size": null, "tags": null, "title": "other"}`)
}

func TestCellsKeepTimesAndExpiry(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	now := time.Now().Unix()
	r := asset(1, 3000, "title")
	r.Values[3] = record.Number(record.BigInt, 7)
	r.Values[4] = record.NullValue // of an unknown time
	r.Values[5] = record.NullValue // cleared at 2500
	r.Values[6] = record.Nested(record.Tuple, []record.Value{record.Number(record.Int, 1)})
	r.Cells = []record.Cell{{}, {}, {Version: 1000}, {Version: 2000, Expires: now + 5000}, {}, {Version: 2500},
		{Version: 3000, Expires: now + 9000}}
	r.Expires = 0
	for _, early := range []string{
		"INSERT INTO %s (bucket, id, title, size, tags, attrs) VALUES ('b', 1, 'older', 1, {'kept'}, {'old': ''}) " +
			"USING TIMESTAMP 900",
		"UPDATE %s USING TIMESTAMP 2001 SET size = 8 WHERE bucket = 'b' AND id = 1",
	} {
		db.exec(t, early)
	}
	for range 2 {
		put(t, s, r)
		db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": [1, null], "size": 8, "tags": ["kept"], "title": "title"}`)
		var title, size, place int64
		var titleTTL, sizeTTL, placeTTL *int64
		db.scan(t, "SELECT WRITETIME(title), TTL(title), WRITETIME(size), TTL(size), WRITETIME(place), TTL(place) "+
			"FROM %s",
			&title, &titleTTL, &size, &sizeTTL, &place, &placeTTL)
		if title != 1000 || titleTTL != nil || size != 2001 || sizeTTL != nil || place != 3000 {
			t.Errorf("title at %d (%v), size at %d (%v), place at %d", title, titleTTL, size, sizeTTL, place)
		}
		if placeTTL == nil || *placeTTL < 8000 || *placeTTL > 9000 {
			t.Errorf("the place lives for %v", placeTTL)
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable+" WITH default_time_to_live = 100000", nil)
	now := time.Now().Unix()
	lives := func(id int) (ttl *int64) {
		db.scan(t, fmt.Sprintf("SELECT TTL(title) FROM %%s WHERE bucket = 'b' AND id = %d", id), &ttl)
		return ttl
	}
	mortal, immortal := asset(1, 1000, "mortal"), asset(2, 1000, "immortal")
	mortal.Expires = now + 5000
	put(t, s, mortal, immortal)
	if ttl := lives(1); ttl == nil || *ttl < 4000 || *ttl > 5000 {
		t.Errorf("a record that expires in 5000 s lives for %v", ttl)
	}
	if ttl := lives(2); ttl != nil {
		t.Errorf("a record that never expires lives for %d s", *ttl)
	}

	// Expired by now: hides what is older, brings nothing back.
	late := asset(2, 2000, "late")
	late.Expires = now - 1
	put(t, s, late)
	db.want(t, `{"bucket": "b", "id": 1, "attrs": null, "place": null, "size": null, "tags": null, "title": "mortal"}`,
		`{"bucket": "b", "id": 2, "attrs": null, "place": null, "size": null, "tags": null, "title": null}`)
	late.Version = 500
	late.Values[1] = record.Number(record.Int, 1)
	put(t, s, late)
	if ttl := lives(1); ttl == nil {
		t.Error("an expired record hid a newer one")
	}
	never := asset(3, 1000, "")
	never.Values[2], never.Expires = record.Value{}, now-1
	if res := put(t, s, never); res[0].Outcome != record.Unchanged {
		t.Errorf("a record that expired without a field is %s", res[0].Outcome)
	}

	drop := NewSink(db.config(db.table, func(c *SinkConfig) { c.TTL = "drop" }))
	defer drop.Close()
	put(t, drop, asset(4, 1000, "default"), late)
	if ttl := lives(4); ttl == nil || *ttl < 99000 {
		t.Errorf("with ttl: drop a record lives for %v, not as the table's default says", ttl)
	}
}

// Only the row at fault dies, although rows of a partition are written together.
func TestOneBadRowOfABatch(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	rows := make([]*record.Record, 12)
	for i := range rows {
		rows[i] = asset(int64(i), 1000, "x")
	}
	bad := map[int]string{
		2: "cassandra.row_too_large", 4: "cassandra.row_too_large", 5: "cassandra.row_refused",
		7: "cassandra.bad_value", 8: "cassandra.key_null", 9: "cassandra.bad_value",
	}
	rows[2].Values[2] = record.String(strings.Repeat("x", 5<<20))  // more than half a segment of the commit log
	rows[4].Values[2] = record.String(strings.Repeat("x", 17<<20)) // more than a frame
	rows[5].Expires = time.Now().Unix() + 700_000_000              // more than 20 years
	rows[7].Values[2] = record.String("a\xff")
	rows[8].Values[0] = record.NullValue
	rows[9].Values[2] = record.Number(record.Int, 1)
	for i, res := range put(t, s, rows...) {
		switch code, isBad := bad[i]; {
		case !isBad && (res.Err != nil || res.Outcome != record.Written):
			t.Errorf("row %d: %s, %v", i, res.Outcome, res.Err)
		case isBad && (res.Outcome != record.Dead || fail.CodeOf(res.Err) != code ||
			fail.ClassOf(res.Err) != fail.Permanent):
			t.Errorf("row %d: %s, %v, want %s", i, res.Outcome, res.Err, code)
		}
	}
	var n int
	db.scan(t, "SELECT COUNT(*) FROM %s", &n)
	if n != len(rows)-len(bad) {
		t.Errorf("%d rows were written", n)
	}
}

func TestTableDroppedMidRun(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	s := db.sink(t, assetsTable, nil)
	put(t, s, asset(1, 1000, "x"))
	db.exec(t, "DROP TABLE %s")
	w, err := s.Open(t.Context(), connector.Run{}, assets, func([]connector.Result) {})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), asset(2, 1000, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err = w.Flush(t.Context()); fail.ClassOf(err) != fail.Fatal || fail.CodeOf(err) != "cassandra.table_changed" {
		t.Errorf("the error is %v", err)
	}
}

// database is a keyspace of a test's own with plain gocql.
type database struct {
	addr     string
	session  *gocql.Session
	keyspace string
	table    string
}

func newDatabase(t testing.TB, addr string) *database {
	t.Helper()
	cluster := gocql.NewCluster(addr)
	cluster.ProtoVersion = 4
	cluster.Timeout = time.Minute
	cluster.ConnectTimeout = time.Minute
	cluster.Logger = silent{}
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	db := &database{addr: addr, session: session, keyspace: services.Name(t), table: "rows"}
	create := "CREATE KEYSPACE %s WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND " +
		"durable_writes = false"
	if err := session.Query(fmt.Sprintf(create, db.keyspace)).Exec(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Query("DROP KEYSPACE " + db.keyspace).Exec(); err != nil {
			t.Errorf("drop the keyspace: %v", err)
		}
		session.Close()
	})
	return db
}

func (db *database) config(table string, change func(*SinkConfig)) SinkConfig {
	c := SinkConfig{Connection: Connection{Hosts: []string{db.addr}}, Keyspace: db.keyspace, Table: table}
	if change != nil {
		change(&c)
	}
	return c
}

// sink creates the table and gives a sink to it.
func (db *database) sink(t testing.TB, create string, change func(*SinkConfig)) *Sink {
	t.Helper()
	db.exec(t, create)
	s := NewSink(db.config(db.table, change))
	t.Cleanup(func() { s.Close() })
	return s
}

// query is a statement in which %s is the table and %k the keyspace.
func (db *database) query(cql string) *gocql.Query {
	return db.session.Query(strings.NewReplacer("%s", db.keyspace+"."+db.table, "%k", db.keyspace).Replace(cql))
}

func (db *database) exec(t testing.TB, cql string) {
	t.Helper()
	if err := db.query(cql).Exec(); err != nil {
		t.Fatalf("%s: %v", cql, err)
	}
}

func (db *database) scan(t testing.TB, cql string, dest ...any) {
	t.Helper()
	if err := db.query(cql).Scan(dest...); err != nil && !errors.Is(err, gocql.ErrNotFound) {
		t.Fatalf("%s: %v", cql, err)
	}
}

// want checks the rows of the table, as the server writes them in JSON.
func (db *database) want(t testing.TB, want ...string) {
	t.Helper()
	rows := db.query("SELECT JSON * FROM %s").Iter()
	var got []string
	for text := ""; rows.Scan(&text); {
		got = append(got, text)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("rows (-want +got):\n%s", diff)
	}
}

// put writes records in one bundle and gives their results in order.
func put(t testing.TB, s connector.Sink, records ...*record.Record) []connector.Result {
	t.Helper()
	return putIn(t, t.Context(), s, records...)
}

func putIn(t testing.TB, ctx context.Context, s connector.Sink, records ...*record.Record) []connector.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var mu sync.Mutex
	settled := map[*record.Record]connector.Result{}
	w, err := s.Open(ctx, connector.Run{ID: "test"}, records[0].Schema, func(results []connector.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			settled[r.Record] = r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	results := make([]connector.Result, len(records))
	for i, r := range records {
		res, ok := settled[r]
		if !ok {
			t.Fatalf("%s was not settled", r.KeyText())
		}
		results[i] = res
	}
	return results
}

// silent is a logger for servers that are meant to be away.
type silent struct{}

func (silent) Print(...any)          {}
func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

func textsOf(k record.Kind, parts ...string) record.Value {
	values := make([]record.Value, len(parts))
	for i, p := range parts {
		values[i] = record.String(p)
	}
	return record.Nested(k, values)
}

func TestEdges(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	sink := NewSink(db.config("edges", func(c *SinkConfig) { c.Create, c.PartitionKey = true, []string{"id"} }))
	iotest.TestEdges(t, sink,
		func() connector.Source { return db.source(t, func(c *SourceConfig) { c.Table = "edges" }) })
}
