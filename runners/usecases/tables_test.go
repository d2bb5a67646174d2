package usecases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

const whereKey = " WHERE asset_type = ? AND bucket = ? AND id = ?"

// entry is a row of a reverse index: what it is found by, and the other columns.
type entry struct {
	table, column string
	value         any
	title         string
}

func (e entry) id() string { return fmt.Sprint(e.table, e.value) }

// entriesOf are those of an asset.
func entriesOf(a *asset) (all []entry) {
	if a == nil {
		return nil
	}
	for _, tag := range a.Tags {
		all = append(all, entry{"assets_by_tag", "tag", tag, a.Title})
	}
	if a.Title != "" {
		all = append(all, entry{"assets_by_title", "title", a.Title, ""})
	}
	if a.Checksum != "" {
		all = append(all, entry{"assets_by_checksum", "checksum", a.number(), ""})
	}
	return all
}

// entries is production that keeps the reverse indices.
func (c *usecase) entries(k key, was, is *asset, version int64) error {
	now := entriesOf(is)
	batch := c.session.NewBatch(gocql.LoggedBatch)
	for _, e := range entriesOf(was) {
		if !slices.ContainsFunc(now, func(n entry) bool { return n.id() == e.id() }) {
			batch.Query("DELETE FROM "+c.keyspace+"."+e.table+" USING TIMESTAMP ?"+whereKey+" AND "+e.column+" = ?", version, k.Kind, k.Bucket, k.ID, e.value)
		}
	}
	for _, e := range now {
		if e.column == "tag" {
			batch.Query("INSERT INTO "+c.keyspace+".assets_by_tag (tag, asset_type, bucket, id, title) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?",
				e.value, k.Kind, k.Bucket, k.ID, e.title, version)
		} else {
			batch.Query("INSERT INTO "+c.keyspace+"."+e.table+" ("+e.column+", asset_type, bucket, id) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
				e.value, k.Kind, k.Bucket, k.ID, version)
		}
	}
	return c.session.ExecuteBatch(batch)
}

// rowsOf reads a table: a line of the other columns for each row, by the asset's key.
func (c *usecase) rowsOf(table string, columns ...string) held {
	c.t.Helper()
	h := held{}
	all := c.session.Query("SELECT JSON asset_type, bucket, id, " + strings.Join(columns, ", ") + " FROM " + c.keyspace + "." + table).Iter()
	for row := ""; all.Scan(&row); {
		values := map[string]any{}
		d := json.NewDecoder(strings.NewReader(row))
		d.UseNumber() // of many digits
		if err := d.Decode(&values); err != nil {
			c.t.Fatalf("%s: %v", row, err)
		}
		line := table
		for _, column := range columns {
			if values[column] == nil {
				values[column] = ""
			}
			line += fmt.Sprintf(" %s=%v", column, values[column])
		}
		h.add(fmt.Sprintf("%s|%s|%s", values["asset_type"], values["bucket"], values["id"]), "%s", line)
	}
	if err := all.Close(); err != nil {
		c.t.Fatal(err)
	}
	return h
}

// stale puts entries there that do not hold, as a production leaves them that has missed deletes: of assets that there are without the tag,
// and that there are not. It tells how many.
func (c *usecase) stale() (n int) {
	c.t.Helper()
	keys := c.still()
	for range 5 {
		keys = append(keys, c.fresh(rand.New(rand.NewPCG(uint64(len(keys)), 0))))
	}
	for _, k := range keys {
		err := c.session.Query("INSERT INTO "+c.keyspace+".assets_by_tag (tag, asset_type, bucket, id, title) VALUES ('lost', ?, ?, ?, 'Old') USING TIMESTAMP ?",
			k.Kind, k.Bucket, k.ID, time.Now().Add(-time.Hour).UnixMicro()).Exec()
		if err != nil {
			c.t.Fatal(err)
		}
		n++
	}
	return n
}

func TestReverseIndices(t *testing.T) {
	c := begin(t, "reverse-indices")
	c.start()
	c.until("reprise validate")
	c.follow(c.entries)
	c.until("reprise sample testdata/jobs/reverse-sweep.yaml")
	stale := c.stale()
	c.rest()
	c.end()
	if n := len(c.rowsOf("assets_by_tag", "title")); stale == 0 || n == 0 {
		t.Errorf("%d stale entries of %d: the test shows nothing", stale, n)
	}
	for table, columns := range map[string][]string{"assets_by_tag": {"tag", "title"}, "assets_by_title": {"title"}, "assets_by_checksum": {"checksum"}} {
		c.exactly(t, table, c.rowsOf(table, columns...), func(_ key, a asset, _ int64) (lines []string) {
			for _, e := range entriesOf(&a) {
				switch {
				case e.table != table:
				case e.column == "tag":
					lines = append(lines, fmt.Sprintf("%s tag=%v title=%s", table, e.value, e.title))
				default:
					lines = append(lines, fmt.Sprintf("%s %s=%v", table, e.column, e.value))
				}
			}
			return lines
		})
	}
}

// version is an asset's version by the new scheme.
func version(a asset) (major, minor int) {
	return 1 + int(a.Schema)/3, int(a.Schema) % 3 / 2
}

// versions is production that writes both layouts.
func (c *usecase) versions(k key, was, is *asset, at int64) error {
	batch := c.session.NewBatch(gocql.LoggedBatch)
	if was != nil {
		major, minor := version(*was)
		if is == nil || was.Schema != is.Schema {
			batch.Query("DELETE FROM "+c.keyspace+".asset_versions USING TIMESTAMP ?"+whereKey+" AND version_major = ? AND version_minor = ?",
				at, k.Kind, k.Bucket, k.ID, major, minor)
		}
	}
	if is != nil {
		major, minor := version(*is)
		batch.Query("INSERT INTO "+c.keyspace+".asset_versions (asset_type, bucket, id, version_major, version_minor, title, payload) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
			k.Kind, k.Bucket, k.ID, major, minor, is.Title, is.Payload, at)
		batch.Query("UPDATE "+c.keyspace+".assets USING TIMESTAMP ? SET version_major = ?, version_minor = ?"+whereKey, at, major, minor, k.Kind, k.Bucket, k.ID)
	}
	return c.session.ExecuteBatch(batch)
}

// reading reads assets that nobody changes, as old and as new programs do, until it is told to end: both see what there is, all the time.
func (c *usecase) reading() (end func()) {
	c.t.Helper()
	keys := c.still()
	ctx, cancel := context.WithCancel(c.t.Context())
	var working sync.WaitGroup
	old, fresh := 0, 0
	working.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			k := keys[r.IntN(len(keys))]
			want := *c.last(k).asset
			var a asset
			at := []any{k.Kind, k.Bucket, k.ID}
			err := c.session.Query("SELECT title, payload, schema_version FROM "+c.keyspace+".assets"+whereKey, at...).Scan(&a.Title, &a.Payload, &a.Schema)
			if err != nil || a.Title != want.Title || a.Payload != want.Payload || a.Schema != want.Schema {
				c.t.Errorf("the old query finds %+v for %s, %v", a, k, err)
				return
			}
			old++
			var major, minor int
			err = c.session.Query("SELECT version_major, version_minor, title, payload FROM "+c.keyspace+".asset_versions"+whereKey, at...).Scan(&major, &minor, &a.Title, &a.Payload)
			wantMajor, wantMinor := version(want)
			switch {
			case errors.Is(err, gocql.ErrNotFound): // the old table has it
			case err != nil || major != wantMajor || minor != wantMinor || a.Title != want.Title || a.Payload != want.Payload:
				c.t.Errorf("the new query finds %d.%d, %+v for %s, %v", major, minor, a, k, err)
				return
			default:
				fresh++
			}
		}
	})
	end = sync.OnceFunc(func() {
		cancel()
		working.Wait()
		c.t.Logf("%d old reads, %d new ones found in the new table", old, fresh)
	})
	c.t.Cleanup(end)
	return end
}

func TestVersionScheme(t *testing.T) {
	c := begin(t, "version-scheme")
	c.start()
	c.until("reprise validate")
	c.follow(c.versions)
	found := c.reading()
	c.rest()
	c.end()
	found()
	c.exactly(t, "the new columns", c.rowsOf("assets", "title", "version_major", "version_minor"), func(k key, a asset, _ int64) []string {
		major, minor := version(a)
		return []string{fmt.Sprintf("assets title=%s version_major=%d version_minor=%d", a.Title, major, minor)}
	})
	c.exactly(t, "the new table", c.rowsOf("asset_versions", "version_major", "version_minor", "title", "payload"), func(k key, a asset, _ int64) []string {
		major, minor := version(a)
		return []string{fmt.Sprintf("asset_versions version_major=%d version_minor=%d title=%s payload=%s", major, minor, a.Title, a.Payload)}
	})
}

// report is the end of a run as its report tells it.
type report struct {
	Run         string
	Read        int64
	DeadLetters int64 `json:"dead_letters"`
	Sinks       map[string]struct{ Outcomes map[string]int64 }
}

// again runs a job another time and gives its report.
func (c *usecase) again(file string) (r report) {
	c.t.Helper()
	c.run("reprise run testdata/jobs/" + file + " --report again.json")
	text, err := os.ReadFile(filepath.Join(c.dir, "again.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func TestMetadata(t *testing.T) {
	c := begin(t, "metadata")
	described := c.rowsOf("assets", "description")
	good := func(title string) string { return strings.ReplaceAll(title, "\t", " ") }
	c.repair = func(a asset) *asset {
		a.Title = good(a.Title)
		return &a
	}
	times := c.rowsOf("assets", "WRITETIME(title)", "WRITETIME(description)")
	c.start()
	c.until("reprise run")
	began := time.Now()
	c.until("reprise verify")
	c.end()

	is := c.rowsOf("assets", "title", "description")
	repaired := 0
	for k, states := range c.rows {
		last := states[len(states)-1]
		has := is[k.String()]
		if last.asset == nil {
			if has != nil {
				t.Errorf("%s is back: %q", k, has)
			}
			continue
		}
		// Production writes no descriptions: the run makes one of a title that it has seen.
		want := []string{"assets title=" + good(last.Title) + " description="}
		if old := described[k.String()]; !slices.Contains([]string{"", "assets description="}, strings.Join(old, "")) && born(states) == 0 {
			want[0] += strings.TrimPrefix(old[0], "assets description=")
		} else {
			if born(states) == 0 || states[born(states)].acked.Before(began) {
				want = nil // else it may not have been read, and stays without
			}
			for _, s := range states[max(seen(states, began), born(states)):] {
				want = append(want, "assets title="+good(last.Title)+" description="+good(s.Title))
			}
		}
		if len(has) != 1 || !slices.Contains(want, has[0]) {
			t.Fatalf("%s has %q, should have one of %q", k, has, want)
		}
		if strings.Contains(last.Title, "\t") {
			repaired++
		}
	}
	if repaired == 0 {
		t.Error("no title needed repair: the test shows nothing")
	}
	after := c.rowsOf("assets", "WRITETIME(title)", "WRITETIME(description)")
	for _, k := range c.still() {
		a, old := c.last(k), described[k.String()]
		if old[0] != "assets description=" && a.Title == good(a.Title) && !slices.Equal(times[k.String()], after[k.String()]) {
			t.Errorf("%s needs no repair and was written: %q, before %q", k, after[k.String()], times[k.String()])
		}
	}

	c.again("metadata.yaml") // what was made after it had been read
	c.rest()
	if r := c.again("metadata.yaml"); r.Sinks["assets"].Outcomes["unchanged"] != r.Read || r.DeadLetters != 0 {
		t.Errorf("another run finds something to repair: %+v", r)
	}
}
