package soak

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/cassandraio"
	"reprise/io/journal"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// frozenJob has a target with a commit and one without.
const frozenJob = `
name: frozen
source:
  corpus: {rows: 6000}
sinks:
  lines: {files: {path: %[1]s/lines}}
  events: {kafka: {brokers: ["%[2]s"], topic: %[3]s, create: {partitions: 3}}}
dead_letters:
  files: {path: %[1]s/dead}
limits: {unfinished: "500"}
pace: {rates: {source: {records: 2000}}}
journal: %[4]s
`

// TestFrozen freezes the process of a run for longer than its heartbeat counts, lets another attempt finish the run,
// and revives the process: it finds out, says so and ends, and nothing in the targets or in the journal is other than
// before.
func TestFrozen(t *testing.T) {
	for name, keyspace := range map[string]bool{"reading": false, "reading beside a keyspace": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := target{kafka: services.Need(t, services.Kafka), dir: t.TempDir(), name: services.Name(t)}
			at.journal = &store{Config: journal.Config{SQLite: at.dir + "/journal.db"}}
			if keyspace {
				at.journal = &store{Config: journal.Config{
					Cassandra: &journal.CassandraConfig{
						Connection: cassandraio.Connection{Hosts: []string{services.Need(t, services.Cassandra)}},
						Keyspace:   services.Name(t), Replication: map[string]int{"datacenter1": 1}}}}
			}
			where, err := json.Marshal(at.journal.Config)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(at.dir, "job.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, frozenJob, at.dir, at.kafka, at.name, where),
				0o644); err != nil {
				t.Fatal(err)
			}
			first := start(t, at.dir, "run", file)
			first.until(t, "both sinks have finished a page",
				func() bool { return look(t, at.journal, "lines", "events").least > 0 })
			first.freeze(t, at.journal.SQLite)
			before := look(t, at.journal, "lines", "events")
			start(t, at.dir, "resume", "last", "--job", file).wait(t)
			done := look(t, at.journal, "lines", "events")
			lines, events, _ := at.readBoth(t)
			if done.State != journal.Complete || done.Attempt != 2 || before.least >= done.least ||
				int64(len(lines)) != done.least || len(events) != len(lines) {
				t.Fatalf("%s after %d attempts: %d rows, of which the first attempt finished %d; %d lines, %d messages",
					done.State, done.Attempt, done.least, before.least, len(lines), len(events))
			}
			first.revive(t, done.ID)
			again, messages, repeats := at.readBoth(t)
			compare(t, "the files", lines, again)
			compare(t, "Kafka", events, messages)
			now := look(t, at.journal)
			if diff := cmp.Diff(done.RunInfo, now.RunInfo) + cmp.Diff(done.finished, now.finished); diff != "" {
				t.Errorf("the journal has changed: %s", diff)
			}
			t.Logf("frozen after %d of %d rows; %d of %d messages repeated", before.least, done.least, repeats,
				len(messages))
		})
	}
	t.Run("committing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := commits{dir: dir, catalog: fmt.Sprintf("{sqlite: %[1]s/a.db, warehouse: %[1]s/a}", dir),
			namespace: "media"}
		c.run(t, nil) // makes the tables
		first, at := c.begin(t)
		first.until(t, "it has read anything", func() bool { return look(t, at).finished[""].Read > 0 })
		unlock := lock(t, dir+"/a.db")
		awaitFile(t, first, dir+"/a/*/*/metadata/*.metadata.json")
		first.freeze(t, at.SQLite)
		unlock()
		c.resume(t)
		first.revive(t, look(t, at).ID)
		c.check(t, services.IcebergTable{Catalog: dir + "/a.db", Table: "media.assets"})
	})
}

// freeze stops the process, but not while it has the lock of the journal's file, which nobody else could take then.
func (c *child) freeze(t *testing.T, file string) {
	t.Helper()
	for {
		c.signal(t, syscall.SIGSTOP)
		c.until(t, "it is frozen", func() bool {
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
			return err == nil && !slices.ContainsFunc(threads, func(file string) bool {
				text, err := os.ReadFile(file)
				_, state, _ := bytes.Cut(text, []byte(") "))
				return err == nil && !bytes.HasPrefix(state, []byte("T"))
			})
		})
		if file == "" || free(t, file) {
			return
		}
		c.signal(t, syscall.SIGCONT)
	}
}

func free(t *testing.T, file string) bool {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(100)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return false
	}
	tx.Rollback()
	return true
}

// revive lets the process go on, which another attempt has left nothing to do.
func (c *child) revive(t *testing.T, run string) {
	t.Helper()
	c.signal(t, syscall.SIGCONT)
	<-c.ended
	text, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	says := fmt.Sprintf("attempt 1 at run %s is over: attempt 2 goes on with it [journal.fenced]", run)
	if code := c.cmd.ProcessState.ExitCode(); code != fail.ExitStopped || !strings.Contains(string(text), says) {
		t.Errorf("it ends with exit code %d, and does not say %q\n%s", code, says, text)
	}
}

func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// readBoth reads the targets of frozenJob, in which an asset and its deletion have the same key.
func (at target) readBoth(t *testing.T) (lines, events map[string]digest, repeats int) {
	t.Helper()
	lines = map[string]digest{}
	files, err := filepath.Glob(at.dir + "/lines/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all := bufio.NewScanner(bytes.NewReader(text))
		all.Buffer(nil, 8<<20)
		for all.Scan() {
			d := digestOf(all.Bytes())
			at.add(t, lines, "the files", fmt.Sprintf("%s %x", key(t, all.Bytes()), d), d)
		}
		if err := all.Err(); err != nil {
			t.Fatal(err)
		}
	}
	events = map[string]digest{}
	for _, m := range services.ConsumeKafka(t, at.kafka, at.name) {
		d := digestOf([]byte(m.Headers["version"]), m.Value)
		name := fmt.Sprintf("%s %x", m.Key, d)
		if _, again := events[name]; again {
			repeats++
		}
		events[name] = d
	}
	return lines, events, repeats
}
