package soak

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/runners/services"
)

// commitJob writes to two Iceberg tables, which are committed in the order of their names.
const commitJob = `
name: commits
source:
  corpus: {rows: 2000}
sinks:
  a:
    iceberg: {catalog: %[1]s, table: %[2]s.assets, create: true}
  b:
    iceberg: {catalog: {sqlite: %[3]s/b.db, warehouse: %[3]s/b}, table: media.assets, create: true}
dead_letters:
  files: {path: %[3]s/dead}
limits: {unfinished: "1000"}
pace: {rates: {source: {records: 4000}}}
journal: {sqlite: %[4]s}
`

// TestKilledAtCommit kills runs before the catalog has got their commit, while it does it, and after it has answered:
// each run is in both tables once.
func TestKilledAtCommit(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := commits{dir: dir, catalog: fmt.Sprintf("{sqlite: %[1]s/a.db, warehouse: %[1]s/a}", dir),
			namespace: "media"}
		table := services.IcebergTable{Catalog: dir + "/a.db", Table: "media.assets"}
		c.run(t, nil) // makes the tables
		// Whoever holds the catalog's lock lets the commit come to the catalog, but not into it.
		c.run(t, func(t *testing.T, c *child, _ commits) {
			unlock := lock(t, dir+"/a.db")
			awaitFile(t, c, dir+"/a/*/*/metadata/*.metadata.json")
			c.kill(t)
			unlock()
		})
		for range 3 {
			c.run(t, func(t *testing.T, c *child, _ commits) {
				unlock := lock(t, dir+"/a.db")
				awaitFile(t, c, dir+"/a/*/*/metadata/*.metadata.json")
				time.AfterFunc(rand.N(20*time.Millisecond), func() { c.cmd.Process.Kill() })
				before := location(t, dir+"/a.db")
				unlock()
				<-c.ended
				t.Logf("killed while it committed; the commit has happened: %v", location(t, dir+"/a.db") != before)
			})
		}
		c.run(t, func(t *testing.T, c *child, _ commits) {
			unlock := lock(t, dir+"/b.db")
			awaitFile(t, c, dir+"/b/*/*/metadata/*.metadata.json")
			c.kill(t) // between the two commits
			unlock()
		})
		c.check(t, table)
	})
	t.Run("REST", func(t *testing.T) {
		t.Parallel()
		addr, name := services.Need(t, services.IcebergREST), services.Name(t)
		var at atomic.Pointer[func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder)]
		target := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// what the catalog has got it does, whoever asked lives or not
			r = r.WithContext(context.WithoutCancel(r.Context()))
			f := at.Load()
			if f == nil || r.Method != http.MethodPost || !strings.Contains(r.URL.Path, "/tables/") {
				target.ServeHTTP(w, r)
				return
			}
			(*f)(w, func() *httptest.ResponseRecorder {
				answer := httptest.NewRecorder()
				target.ServeHTTP(answer, r)
				return answer
			})
		}))
		t.Cleanup(proxy.Close)
		c := commits{dir: t.TempDir(), catalog: "{rest: " + proxy.URL + "}", namespace: name}
		c.run(t, nil)
		during := func(kill func(c *child, w http.ResponseWriter, forward func() *httptest.ResponseRecorder)) {
			c.run(t, func(t *testing.T, c *child, _ commits) {
				f := func(w http.ResponseWriter, forward func() *httptest.ResponseRecorder) { kill(c, w, forward) }
				at.Store(&f)
				<-c.ended
				at.Store(nil)
			})
		}
		during(func(c *child, _ http.ResponseWriter, _ func() *httptest.ResponseRecorder) { c.cmd.Process.Kill() })
		during(func(c *child, _ http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
			time.AfterFunc(rand.N(20*time.Millisecond), func() { c.cmd.Process.Kill() })
			forward()
		})
		during(func(c *child, _ http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
			forward()
			c.cmd.Process.Kill()
		})
		during(func(c *child, w http.ResponseWriter, forward func() *httptest.ResponseRecorder) {
			answer := forward()
			w.WriteHeader(answer.Code)
			w.Write(answer.Body.Bytes())
			w.(http.Flusher).Flush()
			time.AfterFunc(rand.N(5*time.Millisecond), func() { c.cmd.Process.Kill() })
		})
		c.check(t, services.IcebergTable{Catalog: "http://" + addr, Table: name + ".assets"})
	})
}

// commits are runs that append to the same two tables.
type commits struct {
	dir, catalog, namespace string
	runs, killed            int
}

// run begins a run, leaves it to end in what kills it once it reads, and lets it go on to its end.
func (c *commits) run(t *testing.T, end func(*testing.T, *child, commits)) {
	t.Helper()
	first, at := c.begin(t)
	if end == nil {
		first.wait(t)
		return
	}
	first.until(t, "it has read anything", func() bool { return look(t, at).finished[""].Read > 0 })
	end(t, first, *c)
	<-first.ended
	if first.cmd.ProcessState.Exited() {
		first.wait(t) // it was done before it was killed
		return
	}
	c.killed++
	if look(t, at).State != journal.Complete {
		c.resume(t)
	}
}

func (c *commits) begin(t *testing.T) (*child, *store) {
	t.Helper()
	c.runs++
	at := &store{Config: journal.Config{SQLite: fmt.Sprintf("%s/journal-%d.db", c.dir, c.runs)}}
	if err := os.WriteFile(c.file(), fmt.Appendf(nil, commitJob, c.catalog, c.namespace, c.dir, at.SQLite),
		0o644); err != nil {
		t.Fatal(err)
	}
	return start(t, c.dir, "run", c.file()), at
}

func (c *commits) resume(t *testing.T) { start(t, c.dir, "resume", "last", "--job", c.file()).wait(t) }

func (c *commits) file() string { return filepath.Join(c.dir, "job.yaml") }

// check finds each run once in both tables, read with Iceberg's own library.
func (c *commits) check(t *testing.T, a services.IcebergTable) {
	t.Helper()
	for _, table := range []services.IcebergTable{a, {Catalog: c.dir + "/b.db", Table: "media.assets"}} {
		runs, records := map[string]int{}, ""
		for _, s := range services.IcebergSnapshots(t, table) {
			runs[s.Summary["reprise.run-id"]]++
			if records == "" {
				records = s.Summary["added-records"]
			}
			if s.Summary["added-records"] != records || s.Summary["reprise.records"] != records {
				t.Errorf("%s: a snapshot added %s records, the first one %s", table.Catalog, s.Summary["added-records"],
					records)
			}
		}
		for run, n := range runs {
			if n != 1 {
				t.Errorf("%s: run %s has %d snapshots", table.Catalog, run, n)
			}
		}
		if rows := len(services.ReadIceberg(t, table)); len(runs) != c.runs || fmt.Sprint(rows/c.runs) != records ||
			rows%c.runs != 0 {
			t.Errorf("%s: %d rows of %d runs, want %s rows of each of %d", table.Catalog, rows, len(runs), records,
				c.runs)
		}
	}
	t.Logf("%d runs, %d of them killed", c.runs, c.killed)
}

// lock takes the right to write to an SQLite file.
func lock(t *testing.T, file string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		tx.Rollback()
		db.Close()
	}
}

// location is where the metadata of the table in an SQLite catalog lies.
func location(t *testing.T, file string) (at string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT metadata_location FROM iceberg_tables").Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// awaitFile waits for one more file.
func awaitFile(t *testing.T, c *child, pattern string) {
	t.Helper()
	before := -1
	for {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if before < 0 {
			before = len(found)
		}
		if len(found) > before {
			return
		}
		select {
		case <-c.ended:
			t.Fatalf("the command ended before it wrote another file %s; there are %d", pattern, len(found))
		case <-time.After(time.Millisecond):
		}
	}
}
