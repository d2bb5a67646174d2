package soak

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"reprise/io/corpusio"
	"reprise/io/journal"
	"reprise/runners/corpus"
	"reprise/runners/services"
	"reprise/transforms/record"
)

var publishKills = flag.Int("publish-kills", 6, "kills of the run that publishes events")

// publishJob publishes the key of each asset.
const publishJob = `
name: publish
source:
  cassandra:
    connection: {hosts: ["%[1]s"]}
    keyspace: %[2]s
    table: assets
    buckets: {table: asset_buckets}
    page: 64KiB
sinks:
  events:
    kafka: {brokers: ["%[3]s"], topic: %[4]s, value: key, processor: thumbnails, create: {partitions: 3}}
dead_letters:
  files: {path: %[5]s/dead}
journal: {sqlite: %[5]s/journal.db}
limits: {readers: %[6]d, split_rows: 1000, unfinished: "%[7]d"}
pace: {rates: {source: {records: %[8]d}}}
`

// TestPublishedEventsAreThereAtLeastOnce kills a run that publishes events, at random moments in its middle, while
// production changes assets. Kafka's own consumer then finds an event of each asset, none without the headers that tell
// a repeat, no older version behind a newer one of the same key, and no more repeats for a kill than rows may be
// unfinished.
func TestPublishedEventsAreThereAtLeastOnce(t *testing.T) {
	t.Parallel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 1))
	at := target{cassandra: services.Need(t, services.Cassandra), kafka: services.Need(t, services.Kafka),
		keyspace: services.Name(t), name: services.Name(t), dir: t.TempDir()}
	at.journal = &store{Config: journal.Config{SQLite: at.dir + "/journal.db"}}
	if _, err := (corpus.Corpus{Connection: at.connection(), Keyspace: at.keyspace,
		Source:  corpusio.SourceConfig{Rows: *rows},
		Journal: filepath.Join(t.TempDir(), "load.db")}).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := publishing{target: at, random: random, versions: map[string][]int64{}}
	p.session = at.cql(t)
	defer p.session.Close()
	p.look(t)
	for begun := false; !p.attempt(t, begun); begun = true {
		p.change(t, len(p.keys)/30)
	}
	if len(p.unfinished) < *publishKills/2 {
		t.Errorf("only %d kills: the run ended too soon", len(p.unfinished))
	}
	p.check(t)
}

// publishing is a run that is killed.
type publishing struct {
	target
	random  *rand.Rand
	session *gocql.Session

	keys       [][3]string
	versions   map[string][]int64 // of each asset, since before the run began
	sent       int64              // messages that were in the topic at the last kill
	done       int64              // rows that the run had finished then
	unfinished []int64            // messages that each kill left unfinished
}

const publishRate = 3000 // rows a second

// attempt begins the run or goes on with it. It tells whether it came to its end.
func (p *publishing) attempt(t *testing.T, begun bool) bool {
	t.Helper()
	readers, most := 1+p.random.IntN(8), []int{400, 1000, 2000}[p.random.IntN(3)]
	file := filepath.Join(p.dir, "job.yaml")
	text := fmt.Sprintf(publishJob, p.cassandra, p.keyspace, p.kafka, p.name, p.dir, readers, most, publishRate)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", file}
	if begun {
		args = []string{"resume", "last", "--job", file}
	}
	c := start(t, p.dir, args...)
	left := *publishKills - len(p.unfinished)
	if left == 0 {
		c.wait(t)
		return true
	}
	rest := float64(int64(len(p.keys))-p.done) / publishRate / float64(left+1)
	after := time.Duration(p.random.Float64() * 1.5 * rest * float64(time.Second))
	var due <-chan time.Time
	for waiting := true; waiting; {
		select {
		case <-c.ended:
			c.wait(t)
			return true
		case <-due:
			waiting = false
		case <-time.After(20 * time.Millisecond):
			if due == nil && look(t, p.journal, "events").finished["events"].Read > p.done {
				due = time.After(after)
			}
		}
	}
	if !c.kill(t) {
		return true
	}
	sent, done := int64(0), look(t, p.journal, "events").finished["events"].Read
	for _, r := range services.KafkaOffsets(t, p.kafka, p.name) {
		sent += r.Next
	}
	lost := sent - p.sent - (done - p.done)
	p.unfinished = append(p.unfinished, lost)
	t.Logf("kill %d with %d readers, unfinished %d: %d of %d rows are finished, %d messages more are in the topic",
		len(p.unfinished), readers, most, done, len(p.keys), lost)
	const page = 100 // rows, of 64 KiB: the last page may go beyond the limit
	if lost < 0 || lost > int64(most+page) {
		t.Errorf("%d messages are in the topic and not finished, at most %d may be", lost, most+page)
	}
	p.sent, p.done = sent, done
	return false
}

// look reads the version of each asset with plain gocql: the latest write time of its columns.
func (p *publishing) look(t *testing.T) {
	t.Helper()
	var columns []string
	var name string
	all := p.session.Query("SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND "+
		"table_name = 'assets' AND kind = 'regular' ALLOW FILTERING", p.keyspace).Iter()
	for all.Scan(&name) {
		columns = append(columns, "maxwritetime("+name+")")
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	times := make([]int64, len(columns))
	var key [3]string
	into := []any{&key[0], &key[1], &key[2]}
	for i := range times {
		into = append(into, &times[i])
	}
	all = p.session.Query("SELECT asset_type, bucket, CAST(id AS text), " + strings.Join(columns, ", ") + " FROM " +
		p.keyspace + ".assets").PageSize(1000).Iter()
	for all.Scan(into...) {
		version := int64(1)
		for _, at := range times {
			version = max(version, at)
		}
		p.keys = append(p.keys, key)
		p.versions[strings.Join(key[:], "|")] = []int64{version}
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
}

// change is production, which writes some assets anew.
func (p *publishing) change(t *testing.T, n int) {
	t.Helper()
	for range n {
		key := p.keys[p.random.IntN(len(p.keys))]
		text := strings.Join(key[:], "|")
		version := max(time.Now().UnixMicro(), p.versions[text][len(p.versions[text])-1]+1)
		if err := p.session.Query("UPDATE "+p.keyspace+".assets USING TIMESTAMP ? SET title = 'changed' WHERE "+
			"asset_type = ? AND bucket = ? AND id = ?", version, key[0], key[1], key[2]).Exec(); err != nil {
			t.Fatal(err)
		}
		p.versions[text] = append(p.versions[text], version)
	}
}

// check reads the topic with Kafka's own consumer.
func (p *publishing) check(t *testing.T) {
	t.Helper()
	run := look(t, p.journal).ID
	type seen struct {
		partition int
		version   int64
	}
	last := map[string]seen{}
	repeats, again, messages := 0, 0, services.ConsumeKafka(t, p.kafka, p.name)
	for _, m := range messages {
		key := string(m.Key)
		version, err := strconv.ParseInt(m.Headers["version"], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if m.Headers["run"] != run || m.Headers["op"] != record.Upsert.String() || m.Headers["job"] != "publish" ||
			m.Headers["processor"] != "thumbnails" {
			t.Errorf("%s has the headers %v", key, m.Headers)
		}
		var value map[string]string
		if err := json.Unmarshal(m.Value, &value); err != nil || len(value) != 3 ||
			value["asset_type"]+"|"+value["bucket"]+"|"+value["id"] != key {
			t.Errorf("%s has the value %s", key, m.Value)
		}
		had := false
		for _, v := range p.versions[key] {
			had = had || v == version
		}
		if !had {
			t.Errorf("%s has the version %d, which the asset never had: %v", key, version, p.versions[key])
		}
		if before, ok := last[key]; ok {
			switch {
			case before.partition != m.Partition:
				t.Errorf("%s is in the partitions %d and %d", key, before.partition, m.Partition)
			case version < before.version:
				t.Errorf("%s goes back from version %d to %d", key, before.version, version)
			case version == before.version:
				repeats++
			default:
				again++
			}
		}
		last[key] = seen{m.Partition, version}
	}
	missing := 0
	for key, versions := range p.versions {
		if _, ok := last[key]; !ok {
			missing++
		} else if len(versions) == 1 && last[key].version != versions[0] {
			t.Errorf("%s is there with version %d alone, not %d", key, last[key].version, versions[0])
		}
	}
	bound := int64(0)
	for _, lost := range p.unfinished {
		bound += lost
	}
	if missing > 0 || len(last) != len(p.keys) || int64(repeats+again) > bound {
		t.Errorf("of %d assets %d are missing and %d have events; %d repeats and %d newer versions, at most %d",
			len(p.keys), missing, len(last), repeats, again, bound)
	}
	t.Logf("%d kills: %d messages of %d assets, %d repeat key, version and run, %d have a newer version; left "+
		"unfinished by the kills: %v", len(p.unfinished), len(messages), len(p.keys), repeats, again, p.unfinished)
}
