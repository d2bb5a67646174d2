package stream

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"reprise/runners/services"
)

// unlocked tells whether somebody else can write to the journal.
func (p *place) unlocked() bool {
	p.t.Helper()
	db, err := sql.Open("sqlite", "file:"+p.dir+"/journal.db?_pragma=busy_timeout(100)&_txlock=immediate")
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return false
	}
	tx.Rollback()
	return true
}

// row is what a target holds of an event.
type row struct {
	ID      string `json:"id"`
	N       int64  `json:"n"`
	Body    string `json:"body"`
	Version int64  `json:"_version"` // Iceberg
}

// event checks that the row is whole.
func (r row) event(t *testing.T, where string) event {
	t.Helper()
	if r.ID == "" || r.Body != strings.Repeat(r.ID, 10) {
		t.Errorf("%s holds %+v", where, r)
	}
	return event{r.ID, r.N}
}

func parse(t *testing.T, text []byte) (r row) {
	t.Helper()
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%v in %.200s", err, text)
	}
	return r
}

// inLake are the rows of an Iceberg table, with Iceberg's own library, and how many of each there are.
func (p *place) inLake() map[event]int {
	p.t.Helper()
	found := map[event]int{}
	table := services.IcebergTable{Catalog: p.dir + "/catalog.db", Table: "media.events"}
	for _, line := range services.ReadIceberg(p.t, table) {
		r := parse(p.t, []byte(line))
		if r.Version != r.N {
			p.t.Errorf("Iceberg holds %s", line)
		}
		found[r.event(p.t, "Iceberg")]++
	}
	return found
}

// inFiles are the rows of JSON lines.
func (p *place) inFiles() map[event]int {
	p.t.Helper()
	files, err := filepath.Glob(p.dir + "/lines/*.jsonl")
	if err != nil {
		p.t.Fatal(err)
	}
	found := map[event]int{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			found[parse(p.t, lines.Bytes()).event(p.t, name)]++
		}
		if err := lines.Err(); err != nil {
			p.t.Fatal(err)
		}
	}
	return found
}

// inTopic are the messages of a topic, read with Kafka's own consumer.
func inTopic(t *testing.T, addr, name string) map[event]int {
	t.Helper()
	found := map[event]int{}
	for _, m := range services.ConsumeKafka(t, addr, name) {
		e := parse(t, m.Value).event(t, "Kafka")
		if m.Headers["version"] != fmt.Sprint(e.version) || string(m.Key) != e.key {
			t.Errorf("Kafka holds %s with the headers %v: %s", m.Key, m.Headers, m.Value)
		}
		found[e]++
	}
	return found
}

// inIndex are the documents of an index, by the server's own scroll.
func inIndex(t *testing.T, addr, index string) map[event]int {
	t.Helper()
	ask := func(path, body string, into any) {
		t.Helper()
		res, err := http.Post("http://"+addr+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(into); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, res.Status, err)
		}
	}
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
	found := map[event]int{}
	ask("/"+index+"/_refresh", "", &struct{}{})
	ask("/"+index+"/_search?scroll=1m", `{"size": 2000, "version": true, "sort": "_doc"}`, &page)
	for len(page.Hits.Hits) > 0 {
		for _, h := range page.Hits.Hits {
			e := parse(t, h.Source).event(t, "Elasticsearch")
			if h.ID != e.key || h.Version != e.version {
				t.Errorf("Elasticsearch holds %s with version %s: %s", h.ID, strconv.FormatInt(h.Version, 10), h.Source)
			}
			found[e]++
		}
		page.Hits.Hits = nil
		ask("/_search/scroll", fmt.Sprintf(`{"scroll": "1m", "scroll_id": %q}`, page.Scroll), &page)
	}
	return found
}

// holdsNewest checks that a target holds the newest version of each key, once, and nothing else.
func (p *topic) holdsNewest(where string, found map[event]int) {
	p.t.Helper()
	lost, twice := 0, 0
	for key, version := range p.newest {
		switch found[event{key, version}] {
		case 0:
			lost++
			if lost == 1 {
				p.t.Logf("%s does not hold version %d of %s", where, version, key)
			}
		case 1:
		default:
			twice++
		}
	}
	if lost+twice > 0 || len(found) != len(p.newest) {
		p.t.Errorf("%s: of %d keys the newest version of %d is lost, that of %d is there again; it has %d rows",
			where, len(p.newest), lost, twice, len(found))
	}
}

// holdsAll checks that a target holds all events, as often as they were sent, and counts what it has more.
func (p *topic) holdsAll(where string, found map[event]int) (repeats int) {
	p.t.Helper()
	lost := 0
	for e, n := range p.sent {
		if found[e] < n {
			lost += n - found[e]
		} else {
			repeats += found[e] - n
		}
	}
	for e, n := range found {
		if p.sent[e] == 0 {
			p.t.Errorf("%s holds %+v %d times, which was never sent", where, e, n)
		}
	}
	if lost > 0 {
		p.t.Errorf("%s: of %d events %d are lost", where, len(p.sent), lost)
	}
	return repeats
}
