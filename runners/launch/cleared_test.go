package launch_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
	gocmp "github.com/google/go-cmp/cmp"

	"reprise/pipelines/verify"
	"reprise/pipelines/verify/compare"
	"reprise/runners/services"
)

var clearedSeed = flag.Uint64("cleared-seed", 0, "of TestValuesClearedAtRandom; 0: another one each time")

const clearedJob = `
name: cleared
source: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: assets}}
sinks:
  copy: {cassandra: {connection: {hosts: ["%[1]s"]}, keyspace: %[2]s, table: copy}}
  search: {elasticsearch: {urls: ["http://%[3]s"], index: %[2]s, create: {}}}
  lake: {iceberg: {catalog: {sqlite: "%[5]s/catalog.db", warehouse: "%[5]s/warehouse"}, table: media.assets, create: true, mode: upsert}}
  events: {kafka: {brokers: ["%[4]s"], topic: %[2]s, create: {partitions: 2}}}
dead_letters: {files: {path: "%[5]s/dead"}}
journal: {sqlite: "%[5]s/journal.db"}
verify: {settle: 2s}
`

// clearedScene is a table with values that come and go, and the targets of a job that reads it.
type clearedScene struct {
	name, cassandra, search, kafka, dir, job string
	session                                  *gocql.Session
}

func newClearedScene(t *testing.T) *clearedScene {
	t.Helper()
	s := &clearedScene{name: services.Name(t), cassandra: services.Need(t, services.Cassandra), search: services.Need(t,
		services.Elasticsearch),
		kafka: services.Need(t, services.Kafka), dir: t.TempDir()}
	s.session = plainSession(t, s.cassandra, s.name)
	for _, table := range []string{"assets", "copy"} {
		s.exec(t,
			"CREATE TABLE "+table+" (part text, id text, title text, note text, m map<text, text>, s set<text>, "+
				"PRIMARY KEY (part, id))")
	}
	s.job = fmt.Sprintf(clearedJob, s.cassandra, s.name, s.search, s.kafka, s.dir)
	t.Cleanup(func() { s.http(t, http.MethodDelete, "", "") })
	return s
}

func (s *clearedScene) exec(t testing.TB, cql string, args ...any) {
	t.Helper()
	if err := s.session.Query(cql, args...).Exec(); err != nil {
		t.Error(cql, err)
	}
}

func (s *clearedScene) http(t testing.TB, method, path, body string) (status int, answer []byte) {
	r, err := http.NewRequest(method, "http://"+s.search+"/"+s.name+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer got.Body.Close()
	answer, err = io.ReadAll(got.Body)
	if err != nil {
		t.Error(err)
	}
	return got.StatusCode, answer
}

// run makes a run of the job, which must balance.
func (s *clearedScene) run(t *testing.T) {
	t.Helper()
	if _, report, err := execute(t, s.job, nil); err != nil || len(report.Faults) > 0 {
		t.Fatal(report, err)
	}
}

// content is a row as JSON, without fields that hold nothing; sets are sorted.
func content(t testing.TB, fields map[string]any) string {
	t.Helper()
	kept := map[string]any{}
	for _, name := range []string{"title", "note", "m", "s"} {
		switch v := fields[name].(type) {
		case nil:
		case string:
			kept[name] = v
		case []string:
			if len(v) > 0 {
				kept[name] = slices.Sorted(slices.Values(v))
			}
		case []any:
			if len(v) > 0 {
				kept[name] = slices.SortedFunc(slices.Values(v), func(a, b any) int {
					return strings.Compare(a.(string),
						b.(string))
				})
			}
		case map[string]string:
			if len(v) > 0 {
				kept[name] = v
			}
		case map[string]any:
			if len(v) > 0 {
				kept[name] = v
			}
		default:
			t.Fatalf("%s is a %T", name, v)
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (s *clearedScene) rows(t testing.TB, table string) map[string]string {
	t.Helper()
	all := map[string]string{}
	rows := s.session.Query("SELECT id, title, note, m, s FROM " + table).Iter()
	for {
		var id string
		var title, note *string
		var m map[string]string
		var set []string
		if !rows.Scan(&id, &title, &note, &m, &set) {
			break
		}
		fields := map[string]any{"m": m, "s": set}
		if title != nil {
			fields["title"] = *title
		}
		if note != nil {
			fields["note"] = *note
		}
		all[id] = content(t, fields)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// targets is what independent clients find in each target, by id.
func (s *clearedScene) targets(t *testing.T) map[string]map[string]string {
	t.Helper()
	decode := func(text []byte) map[string]any {
		fields := map[string]any{}
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		return fields
	}
	search, lake, events := map[string]string{}, map[string]string{}, map[string]string{}
	s.http(t, http.MethodPost, "/_refresh", "")
	_, answer := s.http(t, http.MethodGet, "/_search?size=1000", "")
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string          `json:"_id"`
				Source json.RawMessage `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		t.Fatal(err)
	}
	for _, hit := range found.Hits.Hits {
		search[strings.TrimPrefix(hit.ID, "p|")] = content(t, decode(hit.Source))
	}
	table := services.IcebergTable{Catalog: filepath.Join(s.dir, "catalog.db"), Table: "media.assets"}
	for _, line := range services.ReadIceberg(t, table) {
		fields := decode([]byte(line))
		lake[fields["id"].(string)] = content(t, fields)
	}
	versions := map[string]int64{}
	for _, m := range services.ConsumeKafka(t, s.kafka, s.name) {
		fields := decode(m.Value)
		id := fields["id"].(string)
		version, err := strconv.ParseInt(m.Headers["version"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if version >= versions[id] {
			versions[id], events[id] = version, content(t, fields)
		}
	}
	return map[string]map[string]string{"copy": s.rows(t, "copy"), "search": search, "lake": lake, "events": events}
}

// equal compares each target with the table.
func (s *clearedScene) equal(t *testing.T, when string) {
	t.Helper()
	want := s.rows(t, "assets")
	for name, got := range s.targets(t) {
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s differs: %s", when, name, diff)
		}
	}
}

// clearings are the ways in which a value leaves a row while what remains is older.
var clearings = map[string]string{
	"delete":  "DELETE title FROM assets WHERE part = 'p' AND id = 'delete'",
	"null":    "UPDATE assets SET title = null WHERE part = 'p' AND id = 'null'",
	"ttl":     "UPDATE assets USING TTL 1 SET title = 'SECRET' WHERE part = 'p' AND id = 'ttl'",
	"map":     "UPDATE assets SET m = m - {'b'} WHERE part = 'p' AND id = 'map'",
	"set":     "UPDATE assets SET s = s - {'x'} WHERE part = 'p' AND id = 'set'",
	"all":     "DELETE title, note, m, s FROM assets WHERE part = 'p' AND id = 'all'",
	"emptied": "DELETE m FROM assets WHERE part = 'p' AND id = 'emptied'",
}

func (s *clearedScene) fill(t *testing.T) {
	t.Helper()
	for id := range clearings {
		s.exec(t, "INSERT INTO assets (part, id, note, m, s) VALUES ('p', ?, 'note', {'a': '1'}, {'w'})", id)
		newest := map[string]string{"map": "m['b'] = 'SECRET'", "emptied": "m['b'] = 'SECRET'",
			"set": "s = s + {'x'}"}[id]
		s.exec(t, "UPDATE assets SET "+cmp.Or(newest, "title = 'SECRET'")+" WHERE part = 'p' AND id = ?", id)
	}
}

func (s *clearedScene) clear(t *testing.T) {
	t.Helper()
	for _, cql := range clearings {
		s.exec(t, cql)
	}
	time.Sleep(1100 * time.Millisecond) // the least TTL that there is
}

// A value that is deleted, has expired or has left a collection at the source leaves every target with the next run.
func TestValuesClearedAtTheSourceLeaveTheTargets(t *testing.T) {
	t.Parallel()
	s := newClearedScene(t)
	s.fill(t)
	s.run(t)
	s.equal(t, "after the first run")
	s.clear(t)
	s.run(t)
	s.equal(t, "after the second run")
	if r := checked(t, s.job, verify.Options{}); !r.Clean() {
		t.Errorf("the targets are not clean: %+v", r.Sinks)
	}

	// What production has written since the runs is newer than all that they wrote.
	s.http(t, http.MethodPut, fmt.Sprintf("/_doc/p%%7Cdelete?version=%d&version_type=external&refresh=true", time.Now().UnixMicro()), `{"part": "p", "id": "delete", "title": "live"}`)
	s.exec(t, "UPDATE copy SET title = 'live' WHERE part = 'p' AND id = 'delete'")
	s.run(t)
	got := s.targets(t)
	if got["search"]["delete"] != `{"title":"live"}` || !strings.Contains(got["copy"]["delete"], "live") {
		t.Errorf("a run has overwritten production's own writes: %s, %s", got["search"]["delete"],
			got["copy"]["delete"])
	}
}

// Where earlier runs are kept, verification finds what was cleared, and one repair mends it.
func TestRepairOfClearedValuesConverges(t *testing.T) {
	t.Parallel()
	s := newClearedScene(t)
	s.fill(t)
	s.run(t)
	s.clear(t)
	s.job += "earlier_runs: keep\n"
	s.run(t)
	if got := s.targets(t)["search"]["delete"]; !strings.Contains(got, "SECRET") {
		t.Fatalf("earlier_runs: keep does not keep: %s", got)
	}
	s.repaired(t)
	s.equal(t, "after the repair")
}

// repaired verifies and repairs once, as long as the job's own runs are known to the journal.
func (s *clearedScene) repaired(t *testing.T) {
	t.Helper()
	text := strings.Replace(s.job, "earlier_runs: keep\n", "", 1)
	r := checked(t, text, verify.Options{Folder: s.dir})
	for name, sink := range r.Sinks {
		if sink.Mismatches() == 0 || sink.Mismatches() != sink.Wrong[compare.Stale] {
			t.Errorf("%s: %q, want all stale", name, wrong(r, name))
		}
	}
	repair(t, r, int64(len(clearings)))
	if r := checked(t, text, verify.Options{}); !r.Clean() {
		t.Errorf("the targets are not clean after one repair: %+v", r.Sinks)
	}
}

// However production's writes, cell deletes, expiries and removed elements fall between the runs, the last run, or one
// repair after it, leaves in every target what the source shows. Half of the keys production writes into two of the
// targets itself.
func TestValuesClearedAtRandom(t *testing.T) {
	t.Parallel()
	seed := *clearedSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 0))
	s := newClearedScene(t)
	const keys = 30
	for i := range keys {
		s.exec(t, "INSERT INTO assets (part, id, note) VALUES ('p', ?, 'first')", fmt.Sprint("k", i))
	}
	s.run(t)
	var quiet sync.WaitGroup
	for round := range 4 {
		quit := make(chan struct{})
		quiet.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					s.live(t, random, keys)
				}
			}
		})
		if time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond); round%2 == 0 || random.IntN(2) == 0 {
			s.run(t)
		}
		close(quit)
		quiet.Wait()
	}
	time.Sleep(1100 * time.Millisecond) // until the last TTL is over
	if seed%2 == 0 {
		s.run(t)
	} else {
		r := checked(t, s.job, verify.Options{Folder: s.dir})
		repair(t, r, int64(distinctRows(r, s.dir, t)))
	}
	s.equal(t, "at the end")
	if r := checked(t, s.job, verify.Options{}); !r.Clean() {
		t.Errorf("the targets are not clean: %+v", r.Sinks)
	}
	if t.Failed() {
		t.Logf("-cleared-seed=%d", seed)
	}
}

// distinctRows is the number of lines in the list of a repair.
func distinctRows(r *verify.Report, dir string, t *testing.T) int {
	return bytes.Count(contents(t, filepath.Join(dir, "verify-"+r.Run+"-keys.jsonl")), []byte("\n"))
}

// live is one write of production: into the source, and into the copy and the index what the row is then.
func (s *clearedScene) live(t testing.TB, random *rand.Rand, keys int) {
	n := random.IntN(keys)
	id, mirrored := fmt.Sprint("k", n), n%2 == 0
	ways := []string{
		"UPDATE %s USING TIMESTAMP %d SET title = 'title' WHERE part = 'p' AND id = '%s'",
		"UPDATE %s USING TIMESTAMP %d SET m['a'] = 'x', m['b'] = 'y' WHERE part = 'p' AND id = '%s'",
		"UPDATE %s USING TIMESTAMP %d SET s = s + {'v', 'w'} WHERE part = 'p' AND id = '%s'",
		"DELETE title FROM %s USING TIMESTAMP %d WHERE part = 'p' AND id = '%s'",
		"DELETE note FROM %s USING TIMESTAMP %d WHERE part = 'p' AND id = '%s'",
		"DELETE m['b'] FROM %s USING TIMESTAMP %d WHERE part = 'p' AND id = '%s'",
		"UPDATE %s USING TIMESTAMP %d SET s = s - {'w'} WHERE part = 'p' AND id = '%s'",
		"DELETE m, s FROM %s USING TIMESTAMP %d WHERE part = 'p' AND id = '%s'",
	}
	if !mirrored { // nothing expires in an index
		ways = append(ways,
			"UPDATE %s USING TIMESTAMP %d AND TTL 1 SET title = 'fleeting' WHERE part = 'p' AND id = '%s'")
	}
	way, at := ways[random.IntN(len(ways))], time.Now().UnixMicro()
	s.exec(t, fmt.Sprintf(way, "assets", at, id))
	if !mirrored {
		return
	}
	is := s.rows(t, "assets")[id]
	if random.IntN(2) == 0 {
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
	}
	s.exec(t, fmt.Sprintf(way, "copy", at, id))
	fields := map[string]any{}
	if err := json.Unmarshal([]byte(is), &fields); err != nil {
		t.Error(err)
	}
	maps.Copy(fields, map[string]any{"part": "p", "id": id})
	body, _ := json.Marshal(fields)
	s.http(t, http.MethodPut, fmt.Sprintf("/_doc/p%%7C%s?version=%d&version_type=external_gte", id, at), string(body))
}
