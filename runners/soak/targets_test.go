package soak

import (
	"bufio"
	"bytes"
	"crypto/sha256"
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

// digest stands for all that a target holds of one record.
type digest [12]byte

func digestOf(parts ...[]byte) (d digest) {
	sum := sha256.Sum256(bytes.Join(parts, []byte{0}))
	copy(d[:], sum[:])
	return d
}

// held is what other programs read in the targets, by key.
type held struct {
	lake, search, events, copied, letters map[string]digest
	repeats                               int // messages that are in the topic once more
}

// readAll reads all targets of a run.
func (at target) readAll(t *testing.T) held {
	t.Helper()
	h := held{lake: at.readLake(t), search: at.readSearch(t), copied: at.readCopy(t), letters: at.readLetters(t)}
	h.events, h.repeats = at.readEvents(t)
	return h
}

// readLake reads the Iceberg table with Iceberg's own library.
func (at target) readLake(t *testing.T) map[string]digest {
	t.Helper()
	found := map[string]digest{}
	for _, line := range services.ReadIceberg(t,
		services.IcebergTable{Catalog: at.dir + "/catalog.db", Table: "media.assets"}) {
		at.add(t, found, "Iceberg", key(t, []byte(line)), digestOf([]byte(line)))
	}
	return found
}

func key(t *testing.T, row []byte) string {
	t.Helper()
	var k struct {
		Kind   string `json:"asset_type"`
		Bucket string `json:"bucket"`
		ID     string `json:"id"`
	}
	if err := json.Unmarshal(row, &k); err != nil || k.ID == "" {
		t.Fatalf("no key in %s: %v", row, err)
	}
	return k.Kind + "|" + k.Bucket + "|" + k.ID
}

func (at target) add(t *testing.T, found map[string]digest, where, key string, d digest) {
	t.Helper()
	if _, twice := found[key]; twice {
		t.Errorf("%s is twice in %s", key, where)
	}
	found[key] = d
}

// readSearch reads the index by the server's own scroll.
func (at target) readSearch(t *testing.T) map[string]digest {
	t.Helper()
	at.elasticsearch(t, "POST", "/"+at.name+"/_refresh", nil, &struct{}{})
	found := map[string]digest{}
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
	at.elasticsearch(t, "POST", "/"+at.name+"/_search?scroll=1m",
		map[string]any{"size": 2000, "version": true, "sort": "_doc"}, &page)
	for len(page.Hits.Hits) > 0 {
		for _, h := range page.Hits.Hits {
			at.add(t, found, "Elasticsearch", h.ID, digestOf(strconv.AppendInt(nil, h.Version, 10), h.Source))
		}
		next := map[string]any{"scroll": "1m", "scroll_id": page.Scroll}
		page.Hits.Hits = nil
		at.elasticsearch(t, "POST", "/_search/scroll", next, &page)
	}
	return found
}

// written is how many documents the index has taken so far, those written again included.
func (at target) written(t *testing.T) int64 {
	t.Helper()
	var stats struct {
		All struct {
			Primaries struct {
				Indexing struct {
					Total int64 `json:"index_total"`
				}
			}
		} `json:"_all"`
	}
	at.elasticsearch(t, "GET", "/"+at.name+"*/_stats/indexing", nil, &stats)
	return stats.All.Primaries.Indexing.Total
}

func (at target) elasticsearch(t *testing.T, method, path string, body, into any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if body == nil {
		text = nil
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+at.search+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v", method, path, resp.Status, err)
	}
}

// readEvents reads the topic with Kafka's own consumer, and counts the messages that repeat another one. Delivery is at
// least once: a repeated message must be the same.
func (at target) readEvents(t *testing.T) (found map[string]digest, repeats int) {
	t.Helper()
	found = map[string]digest{}
	for _, m := range services.ConsumeKafka(t, at.kafka, at.name) {
		d := digestOf([]byte(m.Headers["version"]), m.Value)
		if before, again := found[string(m.Key)]; again {
			if repeats++; before != d {
				t.Errorf("Kafka holds two different messages of %s", m.Key)
			}
		}
		found[string(m.Key)] = d
	}
	return found, repeats
}

// readCopy reads the Cassandra table with plain gocql: all columns as the server writes JSON, and the time of each
// cell.
func (at target) readCopy(t *testing.T) map[string]digest {
	t.Helper()
	session := at.cql(t)
	defer session.Close()
	columns := []string{"asset_type", "bucket", "id"}
	var name string
	all := session.Query("SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ? "+
		"AND kind = 'regular' ALLOW FILTERING", at.keyspace, at.name).Iter()
	for all.Scan(&name) {
		columns = append(columns, name, "maxwritetime("+name+")")
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	found := map[string]digest{}
	var row []byte
	all = session.Query(fmt.Sprintf("SELECT JSON %s FROM %s.%s", strings.Join(columns, ", "), at.keyspace,
		at.name)).PageSize(1000).Iter()
	for all.Scan(&row) {
		at.add(t, found, "Cassandra", key(t, row), digestOf(row))
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	return found
}

func (at target) cql(t *testing.T) *gocql.Session {
	t.Helper()
	host, port, _ := strings.Cut(at.cassandra, ":")
	cluster := gocql.NewCluster(host)
	cluster.Port, _ = strconv.Atoi(port)
	cluster.ProtoVersion = 4
	cluster.Timeout = 30e9
	session, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// readLetters reads the dead letters. Their ids are of one run: what they tell stands for them.
func (at target) readLetters(t *testing.T) map[string]digest {
	t.Helper()
	files, err := filepath.Glob(at.dir + "/dead/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	ids, found := map[string]bool{}, map[string]digest{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			var l struct{ ID, Key, Step, Sink, Code, Class, Message, Fields string }
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if ids[l.ID] {
				t.Errorf("dead letter %s is in the queue twice", l.ID)
			}
			ids[l.ID] = true
			at.add(t, found, "the queue of dead letters", l.Key+" in "+l.Step,
				digestOf([]byte(l.Sink), []byte(l.Code), []byte(l.Class), []byte(l.Message), []byte(l.Fields)))
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// compare finds what is in one target and not in the other, or differs.
func compare(t *testing.T, what string, want, got map[string]digest) {
	t.Helper()
	var missing, more, other []string
	for key, d := range want {
		switch g, ok := got[key]; {
		case !ok:
			missing = append(missing, key)
		case g != d:
			other = append(other, key)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			more = append(more, key)
		}
	}
	for kind, keys := range map[string][]string{"missing": missing, "too many": more, "different": other} {
		if len(keys) > 0 {
			t.Errorf("%s: %d of %d are %s, such as %q", what, len(keys), len(want), kind, keys[:min(3, len(keys))])
		}
	}
}
