package outage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gocql/gocql"

	"reprise/runners/services"
)

// found is what another program finds in a target: title and version by key, and what is there twice.
type found struct {
	rows  map[string]string
	twice []string
}

func (f *found) add(key, row string) {
	if _, again := f.rows[key]; again {
		f.twice = append(f.twice, key)
	}
	f.rows[key] = row
}

// row is a row or document as JSON.
type row struct {
	Kind    string `json:"asset_type"`
	Bucket  string `json:"bucket"`
	ID      string `json:"id"`
	Title   string `json:"title"`
	Version int64  `json:"_version"` // Iceberg
	Meta    struct {
		Version int64 `json:"version"`
	} `json:"_meta"` // files
}

func (r row) key() string { return r.Kind + "|" + r.Bucket + "|" + r.ID }

func parse(t *testing.T, text []byte) (r row) {
	t.Helper()
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%v in %.200s", err, text)
	}
	return r
}

// check compares what sinks hold with the corpus.
func (f *fleet) check(r *run, sinks []string) {
	r.t.Helper()
	read := map[string]func(*run, *found){"lines": f.lines, "search": f.search, "events": f.events, "copied": f.copied,
		"lake": f.lake}
	for _, name := range sinks {
		got := found{rows: map[string]string{}}
		read[name](r, &got)
		lost, wrong := 0, 0
		for key, want := range f.rows {
			if row, ok := got.rows[key]; !ok {
				lost++
			} else if row != want {
				wrong++
			}
		}
		// Kafka has at least each message.
		if more := len(got.rows) + lost - len(f.rows); lost+wrong+more > 0 || len(got.twice) > 0 && name != "events" {
			r.t.Errorf("%s: of %d rows %d are lost, %d are wrong, %d are more than there are, %d are there twice", name,
				len(f.rows), lost, wrong, more, len(got.twice))
		} else if len(got.twice) > 0 {
			r.t.Logf("%s: %d of %d messages repeated", name, len(got.twice), len(got.rows))
		}
	}
}

func (f *fleet) lines(r *run, into *found) {
	files, err := filepath.Glob(r.dir + "/lines/*.jsonl")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			r.t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			l := parse(r.t, line)
			into.add(l.key(), held(l.Title, l.Meta.Version))
		}
	}
}

func (f *fleet) search(r *run, into *found) {
	var page struct {
		Scroll string `json:"_scroll_id"`
		Hits   struct {
			Hits []struct {
				ID      string          `json:"_id"`
				Version int64           `json:"_version"`
				Source  json.RawMessage `json:"_source"`
			}
		}
	}
	ask := func(path, body string, answer any) {
		res, err := http.Post("http://"+f.servers["search"].Addr+path, "application/json", strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(answer); err != nil || res.StatusCode != http.StatusOK {
			r.t.Fatalf("%s: %s, %v", path, res.Status, err)
		}
	}
	ask("/"+r.name+"/_refresh", "", &struct{}{})
	ask("/"+r.name+"/_search?scroll=1m", `{"size": 2000, "version": true, "sort": "_doc"}`, &page)
	for len(page.Hits.Hits) > 0 {
		for _, h := range page.Hits.Hits {
			into.add(h.ID, held(parse(r.t, h.Source).Title, h.Version))
		}
		page.Hits.Hits = nil
		ask("/_search/scroll", fmt.Sprintf(`{"scroll": "1m", "scroll_id": %q}`, page.Scroll), &page)
	}
}

func (f *fleet) events(r *run, into *found) {
	for _, m := range services.ConsumeKafka(r.t, f.servers["events"].Addr, r.name) {
		version, err := strconv.ParseInt(m.Headers["version"], 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		into.add(string(m.Key), held(parse(r.t, m.Value).Title, version))
	}
}

func (f *fleet) copied(r *run, into *found) {
	host, port, _ := strings.Cut(f.servers["cassandra"].Addr, ":")
	cluster := gocql.NewCluster(host)
	cluster.Port, _ = strconv.Atoi(port)
	cluster.ProtoVersion, cluster.Timeout = 4, 30e9
	session, err := cluster.CreateSession()
	if err != nil {
		r.t.Fatal(err)
	}
	defer session.Close()
	var (
		kind, bucket, title string
		id                  gocql.UUID
		version             int64
	)
	all := session.Query("SELECT asset_type, bucket, id, title, writetime(created_at) FROM " + f.keyspace + "." +
		r.name).Iter()
	for all.Scan(&kind, &bucket, &id, &title, &version) {
		into.add(kind+"|"+bucket+"|"+id.String(), held(title, version))
	}
	if err := all.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func (f *fleet) lake(r *run, into *found) {
	for _, line := range services.ReadIceberg(r.t, services.IcebergTable{Catalog: "http://" + f.servers["catalog"].Addr,
		Table: "outage." + r.name,
		Props: services.S3Props(f.servers["store"].Addr)}) {
		l := parse(r.t, []byte(line))
		into.add(l.key(), held(l.Title, l.Version))
	}
}
