package cassandraio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

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
	if err := s.Plan(t.Context(), o,
		func(sp connector.Split) error { splits = append(splits, sp); return nil }); err != nil {
		t.Fatal(err)
	}
	found := map[string]*record.Record{}
	var mu sync.Mutex
	readers, ctx := errgroup.WithContext(t.Context())
	readers.SetLimit(4)
	for _, split := range splits {
		readers.Go(func() error {
			return s.Read(ctx, split, func(p connector.Page) error {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range p.Records {
					if _, twice := found[r.KeyText()]; twice {
						t.Errorf("%s came twice", r.KeyText())
					}
					found[r.KeyText()] = r
				}
				for _, d := range p.Dead {
					t.Errorf("dead letter: %s", d.Message)
				}
				return nil
			})
		})
	}
	if err := readers.Wait(); err != nil {
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
			rows = append(rows, []any{assetType, bucket, id, title, int64(i), []string{"a", fmt.Sprint(i)},
				map[string]string{"k": fmt.Sprint(i)}, i, bucket})
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
	db.load(t, "INSERT INTO %s (asset_type, bucket, id, title, size, tags, attrs, place) VALUES (?, ?, ?, ?, ?, ?, "+
		"?, (?, ?))", rows)
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

// Rows without clustering columns, with a key by which no position can be made, and with static columns.
func TestSourceConformanceOtherKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		table string
		row   func(i int) (insert, key, json string)
	}{
		"partition key alone": {"CREATE TABLE %s (a int, b text, v int, PRIMARY KEY ((a, b)))",
			func(i int) (string, string, string) {
				return fmt.Sprintf("INSERT INTO %%s (a, b, v) VALUES (%d, 'x', %d)", i, i), fmt.Sprintf("%d|x", i),
					fmt.Sprintf(`{"a":%d,"b":"x","v":%d}`, i, i)
			}},
		"decimal": {"CREATE TABLE %s (a int, b decimal, v int, PRIMARY KEY (a, b))",
			func(i int) (string, string, string) {
				return fmt.Sprintf("INSERT INTO %%s (a, b, v) VALUES (%d, %d, %d)", i/4, i, i),
					fmt.Sprintf("%d|%d", i/4, i), fmt.Sprintf(`{"a":%d,"b":"%d","v":%d}`, i/4, i, i)
			}},
		"tuple": {"CREATE TABLE %s (a tuple<int, text>, b tuple<int, tuple<int>>, v int, PRIMARY KEY (a, b))",
			func(i int) (string, string, string) {
				return fmt.Sprintf("INSERT INTO %%s (a, b, v) VALUES ((%d, 'x'), (%d, (7)), %d)", i/4, i, i),
					fmt.Sprintf(`[%d,"x"]|[%d,[7]]`, i/4, i),
					fmt.Sprintf(`{"a":[%d,"x"],"b":[%d,[7]],"v":%d}`, i/4, i, i)
			}},
		"static": {"CREATE TABLE %s (a int, s text static, b int, v int, PRIMARY KEY (a, b))",
			func(i int) (string, string, string) {
				return fmt.Sprintf("INSERT INTO %%s (a, s, b, v) VALUES (%d, 'x', %d, %d)", i/20, i, i),
					fmt.Sprintf("%d|%d", i/20, i), fmt.Sprintf(`{"a":%d,"b":%d,"s":"x","v":%d}`, i/20, i, i)
			}},
	} {
		for _, mode := range []string{"ring", "buckets"} {
			if (name == "decimal" || name == "tuple") && mode == "buckets" {
				continue
			}
			t.Run(name+" "+mode, func(t *testing.T) {
				t.Parallel()
				db := newDatabase(t, services.Need(t, services.Cassandra))
				db.exec(t, c.table)
				want := map[string]string{}
				for i := range 40 {
					insert, key, json := c.row(i)
					db.exec(t, insert)
					want[key] = json
				}
				if name == "static" {
					db.exec(t, "INSERT INTO %s (a, s) VALUES (4, 'no row')")
				}
				iotest.TestSource(t, iotest.Source{Want: want, New: func(t *testing.T) connector.Source {
					return db.source(t, func(c *SourceConfig) {
						if c.Page = 200; mode == "buckets" {
							c.Buckets = &Buckets{Discover: true}
						}
					})
				}})
			})
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p int, id int, s text static, a text, n int, tags set<text>, at timestamp, PRIMARY "+
		"KEY (p, id))")
	for _, cql := range []string{
		"INSERT INTO %s (p, id, a, n, at) VALUES (1, 1, 'x', 1, 5000) USING TIMESTAMP 1000",
		"UPDATE %s USING TIMESTAMP 3000 SET n = 2 WHERE p = 1 AND id = 1",
		"UPDATE %s USING TIMESTAMP 2000 SET tags = {'a'} WHERE p = 1 AND id = 2",
		"UPDATE %s USING TIMESTAMP 4000 SET tags = tags + {'b'} WHERE p = 1 AND id = 2",
		"INSERT INTO %s (p, id) VALUES (1, 3) USING TIMESTAMP 1000", // nothing but its key
		"INSERT INTO %s (p, id, a) VALUES (2, 1, 'x') USING TIMESTAMP 1000",
		"UPDATE %s USING TIMESTAMP 9000 SET s = 'static' WHERE p = 2",
		"INSERT INTO %s (p, id, a, n, tags) VALUES (3, 1, 'x', 1, {'t'}) USING TIMESTAMP 1000 AND TTL 5000",
		"UPDATE %s USING TTL 9000 AND TIMESTAMP 1001 SET n = 3 WHERE p = 3 AND id = 1",
		"INSERT INTO %s (p, id, a) VALUES (3, 2, 'x') USING TIMESTAMP 1000 AND TTL 5000",
		"UPDATE %s USING TIMESTAMP 1000 SET n = 3 WHERE p = 3 AND id = 2",
	} {
		db.exec(t, cql)
	}
	versions := func(s *Source) string {
		found, _ := collect(t, s, connector.PlanOptions{})
		var all []string
		for key, r := range found {
			all = append(all, fmt.Sprintf("%s@%d", key, r.Version))
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	for _, change := range []func(*SourceConfig){nil, discover} {
		if got, want := versions(db.source(t, change)),
			"1|1@3000 1|2@4000 1|3@1 2|1@9000 3|1@1001 3|2@1000"; got != want {
			t.Errorf("versions are %s, want %s", got, want)
		}
	}
	onlyA := db.source(t, func(c *SourceConfig) { c.Columns = []string{"a"} })
	if got, want := versions(onlyA), "1|1@1000 1|2@1 1|3@1 2|1@1000 3|1@1000 3|2@1000"; got != want {
		t.Errorf("versions of column a are %s, want %s", got, want)
	}
	onlyKey := db.source(t, func(c *SourceConfig) { c.Columns = []string{"p", "id"} })
	if got, want := versions(onlyKey), "1|1@3000 1|2@4000 1|3@1 2|1@9000 3|1@1001 3|2@1000"; got != want {
		t.Errorf("versions without columns are %s, want %s", got, want)
	}
	named := db.source(t, func(c *SourceConfig) { c.Version = "at" })
	if got, want := versions(named), "1|1@5000000 1|2@1 1|3@1 2|1@1 3|1@1 3|2@1"; got != want {
		t.Errorf("versions by a column are %s, want %s", got, want)
	}

	cells := NewSource(onlyA.config, connector.Need{Cells: true})
	defer cells.Close()
	cells.config.Columns = nil
	found, _ := collect(t, cells, connector.PlanOptions{})
	now := time.Now().Unix()
	for key, want := range map[string][]record.Cell{ // of p, id, a, at, n, s, tags
		"1|1": {{}, {}, {Version: 1000}, {Version: 1000}, {Version: 3000}, {}, {}},
		"2|1": {{}, {}, {Version: 1000}, {}, {}, {Version: 9000}, {}},
		"3|1": {{}, {}, {Version: 1000, Expires: now + 5000}, {}, {Version: 1001, Expires: now + 9000}, {},
			{Version: 1000, Expires: now + 5000}},
	} {
		got := found[key]
		for i := range want {
			if d := want[i].Expires - got.Cells[i].Expires; d < 0 || d > 300 {
				t.Errorf("%s: column %d expires %d s before %d", key, i, d, want[i].Expires)
			}
			want[i].Expires = got.Cells[i].Expires
		}
		if diff := cmp.Diff(want, got.Cells); diff != "" {
			t.Errorf("cells of %s (-want +got):\n%s", key, diff)
		}
	}
	if got, want := found["3|1"].Expires, found["3|1"].Cells[4].Expires; got != want || want == 0 {
		t.Errorf("3|1 expires at %d, want %d", got, want)
	}
	if r := found["3|2"]; r.Expires != 0 {
		t.Errorf("3|2 expires at %d, although a column of it never does", r.Expires)
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (kind text, month text, id timeuuid, PRIMARY KEY ((kind, month), id)) WITH "+
		"CLUSTERING ORDER BY (id DESC)")
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var rows [][]any
	for _, kind := range []string{"image", "video", "text"} {
		for day := range 90 {
			at := start.AddDate(0, 0, day)
			rows = append(rows, []any{kind, at.Format("2006-01"), gocql.UUIDFromTime(at)})
		}
	}
	db.load(t, "INSERT INTO %s (kind, month, id) VALUES (?, ?, ?)", rows)
	db.exec(t, "CREATE TABLE "+db.keyspace+
		".listed (kind text, month text, note text, PRIMARY KEY (kind, month, note))")
	for _, v := range []string{"'image', '2024-02', 'a'", "'image', '2024-02', 'b'", "'video', '2024-03', ''",
		"'none', '2030-01', ''"} {
		db.exec(t, "INSERT INTO "+db.keyspace+".listed (kind, month, note) VALUES ("+v+")")
	}
	both := map[string][]Scalar{"kind": {"image", "video"}}
	for name, c := range map[string]struct {
		change func(*SourceConfig)
		want   int
	}{
		"discover":        {discover, 270},
		"table":           {func(c *SourceConfig) { c.Buckets = &Buckets{Table: "listed"} }, 29 + 30},
		"table elsewhere": {func(c *SourceConfig) { c.Buckets = &Buckets{Table: db.keyspace + ".listed"} }, 29 + 30},
		"query": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Query: "SELECT month, kind FROM " + db.keyspace + ".listed"}
		}, 29 + 30},
		"list": {func(c *SourceConfig) {
			c.Buckets = &Buckets{List: []Bucket{{Values: []Scalar{"text", "2024-01"}},
				{Named: map[string]Scalar{"month": "2024-02", "kind": "text"}}, {Values: []Scalar{"text", "2024-01"}}}}
		}, 31 + 29},
		"range": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Range: &Range{Column: "month", From: "2023-11", To: "2024-02-01",
				Every: "month", Values: both}}
		}, 2 * (31 + 29)},
		"some": {func(c *SourceConfig) {
			discover(c)
			c.Partitions = map[string]Match{"kind": {Values: []Scalar{"image"}}}
		}, 90},
		"between": {func(c *SourceConfig) {
			discover(c)
			c.Partitions = map[string]Match{"month": {From: "2024-02", To: "2024-03"}}
		}, 3 * 59},
		"ids from a time": {func(c *SourceConfig) { discover(c); c.IDs = &Interval{From: "2024-01-31"} }, 3 * 60},
		"ids up to a time": {func(c *SourceConfig) { discover(c); c.IDs = &Interval{To: "2024-01-31T00:00:00Z"} },
			3 * 30},
		"ids between times": {func(c *SourceConfig) {
			discover(c)
			c.IDs = &Interval{From: "2024-01-30", To: "2024-02-03"}
		}, 3 * 4},
		"ids from an id": {func(c *SourceConfig) {
			discover(c)
			c.IDs = &Interval{From: Scalar(fmt.Sprint(rows[80][2]))}
		}, 10 + 20},
	} {
		t.Run(name, func(t *testing.T) {
			s := db.source(t, c.change)
			found, splits := collect(t, s, connector.PlanOptions{Rows: 7})
			if name == "ids from an id" { // the other kinds have ids of the same times with other clock sequences
				if len(found) < 28 || len(found) > 30 {
					t.Errorf("%d rows, want about %d", len(found), c.want)
				}
				return
			}
			if len(found) != c.want {
				t.Errorf("%d rows, want %d", len(found), c.want)
			}
			for _, sp := range splits {
				if sp.Rows > 7 || sp.Rows == 0 {
					t.Errorf("%s was planned with %d rows", sp, sp.Rows)
				}
			}
		})
	}
}

func TestLargeRowIsADeadLetter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p text, id int, body text, PRIMARY KEY (p, id))")
	for i := range 20 {
		size := 100
		if i == 7 || i == 19 {
			size = 300_000
		}
		if err := db.query("INSERT INTO %s (p, id, body) VALUES ('a', ?, ?)").Bind(i, strings.Repeat("x", size)).
			Exec(); err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range []func(*SourceConfig){nil, discover} {
		s := db.source(t, change)
		s.config.MaxRow = 100_000
		checkDead(t, s, 18, "cassandra.row_too_large", `{"p":"a","id":7}`, `{"p":"a","id":19}`)
	}
}

// A row that never gets through, although others do and its key does, is passed over.
func TestUnreadableRowIsADeadLetter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (p text, id int, body text, PRIMARY KEY (p, id))")
	for i := range 20 {
		size := 100
		if i == 7 || i == 19 {
			size = 300_000
		}
		if err := db.query("INSERT INTO %s (p, id, body) VALUES ('a', ?, ?)").Bind(i, strings.Repeat("x", size)).
			Exec(); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*SourceConfig){"ring": nil, "buckets": discover} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := db.source(t, change)
			s.config.Connection.Hosts = []string{swallow(t, db.addr, 200_000)}
			s.config.Connection.Timeout, s.config.Page = connector.Duration(200*time.Millisecond), 2000
			checkDead(t, s, 18, "cassandra.row_unreadable", `{"p":"a","id":7}`, `{"p":"a","id":19}`)
		})
	}
}

func checkDead(t *testing.T, s *Source, records int, code string, keys ...string) {
	t.Helper()
	var dead []string
	n := 0
	err := s.Plan(t.Context(), connector.PlanOptions{}, func(sp connector.Split) error {
		return s.Read(t.Context(), sp, func(p connector.Page) error {
			n += len(p.Records)
			for _, d := range p.Dead {
				dead = append(dead, string(d.Raw))
				if d.Record == nil || string(d.Record.AppendJSON(nil)) != string(d.Raw) {
					t.Errorf("the row %s cannot be found again: %+v", d.Raw, d.Record)
				}
				if d.Code != code || d.Class != "permanent" || d.Message == "" {
					t.Errorf("dead letter %+v, want the code %s", d, code)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys, dead); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if n != records {
		t.Errorf("%d records, want %d", n, records)
	}
}

// swallow is the address of a proxy that lets no answer of more than so many bytes through.
func swallow(t *testing.T, addr string, most int) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				return
			}
			go func() { io.Copy(server, client); server.Close() }()
			go func() {
				defer client.Close()
				for head := make([]byte, 9); ; {
					if _, err := io.ReadFull(server, head); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head[5:]))
					if _, err := io.ReadFull(server, body); err != nil {
						return
					}
					if len(body) > most {
						continue
					}
					if _, err := client.Write(append(head[:9:9], body...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (kind text, day date, id int, n counter, PRIMARY KEY ((kind, day), id))")
	db.exec(t, "CREATE TABLE "+db.keyspace+
		".assets (kind text, day date, id int, title text, PRIMARY KEY ((kind, day), id))")
	db.exec(t, "CREATE TABLE "+db.keyspace+".decimals (p int, id decimal, PRIMARY KEY (p, id))")
	db.exec(t, "INSERT INTO "+db.keyspace+".assets (kind, day, id) VALUES ('a', '2024-01-01', 1)")
	for name, c := range map[string]struct {
		change func(*SourceConfig)
		code   string
		says   []string
	}{
		"keyspace": {func(c *SourceConfig) { c.Keyspace = db.keyspace + "x" }, "cassandra.no_table",
			[]string{"did you mean " + db.keyspace + "?"}},
		"table": {func(c *SourceConfig) { c.Table = "asets" }, "cassandra.no_table",
			[]string{"decimals", "did you mean assets?"}},
		"column": {func(c *SourceConfig) { c.Columns = []string{"titel"} }, "cassandra.no_column",
			[]string{"did you mean title?"}},
		"counter": {func(c *SourceConfig) { c.Table = "rows" }, "cassandra.counter", []string{"count twice"}},
		"version": {func(c *SourceConfig) { c.Version = "title" }, "cassandra.version_type", []string{"text"}},
		"order": {func(c *SourceConfig) { c.Table = "decimals"; discover(c) }, "cassandra.no_position",
			[]string{"decimal", "token ranges"}},
		"ids": {func(c *SourceConfig) { discover(c); c.IDs = &Interval{From: "2024-01-01"} },
			"cassandra.ids", []string{`"id"`}},
		"ids turned": {func(c *SourceConfig) { discover(c); c.IDs = &Interval{From: "2", To: "1"} }, "cassandra.ids",
			[]string{"to must come after from"}},
		"partitions": {func(c *SourceConfig) {
			discover(c)
			c.Partitions = map[string]Match{
				"id": {Values: []Scalar{"1"}}}
		}, "cassandra.no_column", []string{`"kind", "day"`}},
		"a partition": {func(c *SourceConfig) {
			discover(c)
			c.Partitions = map[string]Match{
				"day": {Values: []Scalar{"x"}}}
		}, "cassandra.bad_value", []string{"partitions.day"}},
		"list": {func(c *SourceConfig) { c.Buckets = &Buckets{List: []Bucket{{Values: []Scalar{"a"}}}} },
			"cassandra.bucket", []string{"2 columns"}},
		"list, named": {func(c *SourceConfig) {
			c.Buckets = &Buckets{
				List: []Bucket{{Named: map[string]Scalar{"kind": "a"}}}}
		}, "cassandra.bucket",
			[]string{`"day" is missing`}},
		"bucket table": {func(c *SourceConfig) { c.Buckets = &Buckets{Table: "nowhere"} },
			"cassandra.buckets_query", []string{"nowhere"}},
		"query": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Query: "SELECT kind FROM " + db.keyspace +
				".assets"}
		}, "cassandra.buckets_query", []string{`no column "day"`}},
		"query's types": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Query: "SELECT kind, kind AS day FROM " + db.keyspace + ".assets"}
		}, "cassandra.buckets_query", []string{"not a valid date"}},
		"no CQL": {func(c *SourceConfig) { c.Buckets = &Buckets{Query: "SELECT FROM"} }, "cassandra.buckets_query",
			[]string{"SELECT FROM"}},
		"range": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Range: &Range{Column: "day", From: "2024", To: "2024-01-01", Every: "day"}}
		}, "cassandra.bucket", []string{`"kind"`, "discover"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := db.source(t, func(sc *SourceConfig) { sc.Table = "assets"; c.change(sc) })
			err := s.Plan(t.Context(), connector.PlanOptions{}, func(connector.Split) error { return nil })
			if fail.CodeOf(err) != c.code || fail.ExitOf(err) != fail.ExitJob || fail.ClassOf(err) != fail.Fatal {
				t.Fatalf("the error is %v, want %s", err, c.code)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// Bounds that a column of times does not take are told with their place, before anything is planned; digits alone are
// never milliseconds.
func TestAYearIsNoBoundOfTimes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (day date, hour timestamp, id timeuuid, at timestamp, PRIMARY KEY ((day, hour), id))")
	db.exec(t, "CREATE TABLE "+db.keyspace+".moments (p int, at timestamp, PRIMARY KEY (p, at))")
	partitions := func(column string, m Match) func(*SourceConfig) {
		return func(c *SourceConfig) { discover(c); c.Partitions = map[string]Match{column: m} }
	}
	ids := func(table string, i Interval) func(*SourceConfig) {
		return func(c *SourceConfig) { c.Table = table; discover(c); c.IDs = &i }
	}
	for name, c := range map[string]struct {
		change func(*SourceConfig)
		path   string
		says   string
	}{
		"ids from a year":     {ids("rows", Interval{From: "2024"}), "ids.from", "only a number"},
		"ids to milliseconds": {ids("rows", Interval{To: "1714557600000"}), "ids.to", "only a number"},
		"ids turned": {ids("rows", Interval{From: "2024-05-01", To: "2024-05-01"}), "ids.to",
			"to must come after from"},
		"ids before any timeuuid": {ids("rows", Interval{From: "1500-01-01"}), "ids.from", "1582"},
		"ids after any timeuuid":  {ids("rows", Interval{To: "9999-01-01"}), "ids.to", "5236"},
		"moments from a day":      {ids("moments", Interval{From: "20240501"}), "ids.from", "only a number"},
		"moments too exact": {ids("moments", Interval{From: "2024-05-01T00:00:00.0001Z"}), "ids.from",
			"parts of a millisecond"},
		"date from a year": {partitions("day", Match{From: "2024"}), "partitions.day.from", "only a number"},
		"timestamps up to a year": {partitions("hour", Match{From: "2024-01-01", To: "2025"}), "partitions.hour.to",
			"only a number"},
		"timestamps turned": {partitions("hour", Match{From: "2024-01-02", To: "2024-01-01"}),
			"partitions.hour.to", "comes before from"},
		"a timestamp": {partitions("hour", Match{Values: []Scalar{"2024-01-01", "2024"}}),
			"partitions.hour.1", "only a number"},
		"list": {func(c *SourceConfig) {
			c.Buckets = &Buckets{List: []Bucket{{Values: []Scalar{"2024-01-01", "2024-01-01"}},
				{Values: []Scalar{"2024-01-01", "2024"}}}}
		}, "buckets.list.1", "only a number"},
		"values of a range": {func(c *SourceConfig) {
			c.Buckets = &Buckets{Range: &Range{Column: "day", From: "2024-01-01", To: "2024-01-02", Every: "day",
				Values: map[string][]Scalar{"hour": {"2024"}}}}
		}, "buckets.range.values.hour.0", "only a number"},
	} {
		t.Run(name, func(t *testing.T) {
			s := db.source(t, c.change)
			s.need.At = "source.cassandra"
			_, err := s.Schema(t.Context())
			m, ok := errors.AsType[*connector.Misplaced](err)
			if !ok || m.Fault.Path != "source.cassandra."+c.path || !strings.Contains(m.Fault.Message, c.says) ||
				fail.ExitOf(err) != fail.ExitJob {
				t.Errorf("the error is %#v, %v, want one at %s that says %q", m, err, c.path, c.says)
			}
		})
	}
	same := db.source(t, partitions("hour", Match{From: "2024-01-01 00:00", To: "2024-01-01T00:00Z"}))
	if _, err := same.Schema(t.Context()); err != nil {
		t.Errorf("a range with one value, both ends included: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, host := range map[string]string{"refused": "127.0.0.1:1", "silent": silent.Addr().String(),
		"no such name": "no-such-host.invalid"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := connect(t.Context(), Connection{Hosts: []string{host},
				ConnectTimeout: connector.Duration(time.Second)})
			if fail.CodeOf(err) != "cassandra.unreachable" || fail.ExitOf(err) != fail.ExitUnreachable ||
				!strings.Contains(err.Error(), host) {
				t.Errorf("the error is %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	server := services.Need(t, services.Cassandra)
	for _, c := range []Connection{{LocalDC: "elsewhere"}, {AvoidHosts: []string{"127.0.0.0/8"}},
		{OnlyHosts: []string{"10.0.0.1"}}} {
		c.Hosts = []string{server}
		if _, err := connect(t.Context(), c); fail.CodeOf(err) != "cassandra.no_host" ||
			fail.ExitOf(err) != fail.ExitJob {
			t.Errorf("%+v: the error is %v", c, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := connect(ctx, Connection{Hosts: []string{silent.Addr().String()}}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context the error is %v", err)
	}
}

// A server with login and TLS that freezes while it is read.
func TestSecureServerThatFreezes(t *testing.T) {
	server := services.Own(t, services.Cassandra, services.Env("CASSANDRA_AUTH=1", "CASSANDRA_TLS=1"))
	t.Setenv("SOURCE_TEST_PASSWORD", "cassandra")
	t.Setenv("SOURCE_TEST_WRONG", "wrong")
	c := Connection{Hosts: []string{server.Addr}, User: "cassandra", Password: "env:SOURCE_TEST_PASSWORD",
		TLS: &connector.TLS{CA: server.CA}, Timeout: connector.Duration(time.Minute)}
	for name, x := range map[string]struct {
		change func(*Connection)
		code   string
	}{
		"wrong password": {func(c *Connection) { c.Password = "env:SOURCE_TEST_WRONG" }, "cassandra.auth"},
		"no login":       {func(c *Connection) { c.User, c.Password = "", "" }, "cassandra.auth"},
		"no password":    {func(c *Connection) { c.Password = "env:SOURCE_TEST_MISSING" }, "cassandra.secret"},
		"unknown CA":     {func(c *Connection) { c.TLS = &connector.TLS{} }, "cassandra.tls"},
		"no TLS":         {func(c *Connection) { c.TLS = nil }, "cassandra.unreachable"},
	} {
		wrong := c
		x.change(&wrong)
		_, err := connect(t.Context(), wrong)
		if fail.CodeOf(err) != x.code || fail.ExitOf(err) < fail.ExitJob ||
			strings.Contains(err.Error(), "SOURCE_TEST_PASSWORD") {
			t.Errorf("%s: the error is %v, want %s", name, err, x.code)
		}
	}

	session, err := connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, cql := range []string{"CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', " +
		"'replication_factor': 1}",
		"CREATE TABLE k.t (p int, id int, v text, PRIMARY KEY (p, id))"} {
		if err := session.Query(cql).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	const rows = 2000
	for from := 0; from < rows; from += 100 {
		b := session.NewBatch(gocql.UnloggedBatch)
		for i := from; i < from+100; i++ {
			b.Query("INSERT INTO k.t (p, id, v) VALUES (1, ?, 'x')", i)
		}
		if err := session.ExecuteBatch(b); err != nil {
			t.Fatal(err)
		}
	}
	c.Timeout = connector.Duration(time.Second)
	s := NewSource(SourceConfig{Connection: c, Keyspace: "k", Table: "t", Buckets: &Buckets{Discover: true},
		Page: 2000}, connector.Need{})
	defer s.Close()
	n, froze := 0, false
	err = s.Read(t.Context(), connector.Split{Partition: "1"}, func(p connector.Page) error {
		for _, r := range p.Records {
			if id := r.Get("id").Int(); id != int64(n) {
				t.Errorf("row %d comes after %d", id, n-1)
			}
			n++
		}
		if n > rows/2 && !froze {
			froze = true
			server.Pause()
			resume := time.AfterFunc(3*time.Second, server.Resume) // longer than the timeout of a request
			t.Cleanup(func() { resume.Stop() })
		}
		return nil
	})
	if err != nil || n != rows {
		t.Errorf("%d rows of %d, %v", n, rows, err)
	}
}

// Cassandra takes a time outside of a day. It is read as it is, and no text of it is a time of day.
func TestATimeOutsideOfADayIsRead(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, services.Need(t, services.Cassandra))
	db.exec(t, "CREATE TABLE %s (id int PRIMARY KEY, at time)")
	times := []int64{86_400_000_000_001, 86_400_000_000_000, -1, 86_399_999_999_999}
	for id, n := range times {
		if err := db.session.Query("INSERT INTO "+db.keyspace+"."+db.table+" (id, at) VALUES (?, ?)", id,
			n).Exec(); err != nil {
			t.Fatal(err)
		}
	}
	s := db.source(t, nil)
	rows := 0
	err := s.Plan(t.Context(), connector.PlanOptions{}, func(split connector.Split) error {
		return s.Read(t.Context(), split, func(p connector.Page) error {
			for _, r := range p.Records {
				rows++
				at, want := r.Get("at"), times[r.Get("id").Int()]
				back, err := record.Parse(record.Of(record.Time), at.Text(record.Of(record.Time)))
				if at.Int() != want || err != nil || !back.Equal(at) {
					t.Errorf("%d was read as %d, whose text %s is read as %d: %v", want, at.Int(),
						at.Text(record.Of(record.Time)), back.Int(), err)
				}
			}
			return nil
		})
	})
	if err != nil || rows != len(times) {
		t.Errorf("%d rows, %v", rows, err)
	}
}
