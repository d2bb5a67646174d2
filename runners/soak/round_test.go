package soak

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"reprise/io/cassandraio"
	"reprise/io/journal"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// fresh is the same source with targets that nobody has written to, and a journal of its own, which may be a keyspace.
func (at target) fresh(t *testing.T, keyspace bool) target {
	t.Helper()
	at.dir, at.name = t.TempDir(), services.Name(t)
	at.journal = &store{Config: journal.Config{SQLite: at.dir + "/journal.db"}}
	if keyspace {
		at.journal = &store{Config: journal.Config{Cassandra: &journal.CassandraConfig{Connection: at.connection(),
			Keyspace:    services.Name(t),
			Replication: map[string]int{"datacenter1": 1}}}}
	}
	script, err := os.ReadFile("../../testdata/corpus.cql")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(script), "media.assets (")
	table, _, _ = strings.Cut(table, ";")
	table = "CREATE TABLE " + at.keyspace + "." + at.name + " (" + strings.ReplaceAll(table, "media.", at.keyspace+".")
	if err := cassandraio.Execute(t.Context(), at.connection(), cassandraio.Statement{CQL: table}); err != nil {
		t.Fatal(err)
	}
	return at
}

func (at target) connection() cassandraio.Connection {
	return cassandraio.Connection{Hosts: []string{at.cassandra}}
}

// round is one run that is killed several times.
type round struct {
	target
	random *rand.Rand
	usual  moments
	total  int64
	*statistics
}

// run begins the run, kills it a number of times and lets it come to its end.
func (r round) run(t *testing.T, kills int) {
	t.Helper()
	before := state{}
	written := int64(0)
	for n := 0; ; n++ {
		s := draw(r.random)
		if n%5 == 4 {
			s.Flink = 1 + r.random.IntN(4)
		}
		c := start(t, r.dir, r.command(t, s, before.ID != "")...)
		var a *aim
		if n < kills {
			a = r.aim(s, n, kills, before)
		}
		m, killed := r.watch(t, c, before, r.total, a)
		if m.first > 0 && n > 0 {
			r.firsts = append(r.firsts, m.first)
		}
		if !killed {
			t.Logf("attempt %d, %s: done after %v, first page %v", n+1, s, m.end, m.first)
			return
		}
		after := look(t, r.journal, sinks...)
		written = r.count(t, s, before, after, time.Since(c.began), written)
		if before = after; before.State == journal.Complete {
			return
		}
	}
}

// aim draws the moment of a kill. The first ones come as the command starts and plans, the last two of a round as it
// commits, the others at any time of what is left.
func (r round) aim(s settings, n, kills int, before state) *aim {
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(r.random.Int64N(max(1, int64(most-least))))
	}
	switch {
	case n == 0:
		return &aim{"start", between(0, r.usual.begun)}
	case n == 1:
		return &aim{"plan", between(0, r.usual.begun/4)}
	case n >= kills-2:
		return &aim{"commit", between(0, (r.usual.end-r.usual.all)*3/4)}
	}
	left := time.Duration(float64(r.total-before.least) / float64(s.Rate) * float64(time.Second))
	left = left * 2 / time.Duration(kills-1-n)
	if s.Flink > 0 && r.random.IntN(2) > 0 {
		return &aim{"page", between(0, left)} // Flink takes long to begin
	}
	return &aim{"start", between(0, r.usual.first+left)}
}

// String tells the settings in short.
func (s settings) String() string {
	runner := "prism"
	if s.Flink > 0 {
		runner = fmt.Sprintf("flink %d", s.Flink)
	}
	return fmt.Sprintf("%s, readers %d, unfinished %d, read_ahead %s, page %s, %d rows/s", runner, s.Readers,
		s.Unfinished, s.ReadAhead, s.Page, s.Rate)
}

// statistics are those of all kills.
type statistics struct {
	kills  int
	phases map[string]int
	again  []int64         // rows that were read and not finished, by kill
	sent   []int64         // documents that were in Elasticsearch and not finished, by kill
	firsts []time.Duration // from a resume to the first page finished
}

// count takes in a kill. What was read and not finished is read again: at most twice as much as may be unfinished,
// since each reader has also a page that waits for room and has asked for the next one. The workers' last beats tell
// how much was read, up to a quarter of a second before; Elasticsearch how many documents had come there, of which it
// has now got the number that is given back.
func (r round) count(t *testing.T, with settings, before, after state, lived time.Duration, written int64) int64 {
	t.Helper()
	r.kills++
	phase := phase(before, after, r.total)
	r.phases[phase]++
	finished := after.least - before.least
	again := int64(0)
	if after.Attempt > before.Attempt {
		again = max(0, after.read-finished)
	}
	now := r.written(t)
	indexed := after.finished["search"].Outcomes[record.Written] - before.finished["search"].Outcomes[record.Written]
	sent := now - written - indexed
	again = max(again, sent)
	t.Logf("kill %d after %v, %s: %s; finished %d, read again %d, of them %d were in Elasticsearch", r.kills,
		lived.Round(time.Millisecond), with, phase, finished, again, sent)
	if most := int64(2*with.Unfinished + 2*with.Readers); again > most {
		t.Errorf("at most %d rows may be read again", most)
	}
	if again > 0 {
		r.again, r.sent = append(r.again, again), append(r.sent, sent)
	}
	return now
}

func (s *statistics) log(t *testing.T) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(s.phases)) {
		t.Logf("%d of %d kills: %s", s.phases[p], s.kills, p)
	}
	if len(s.again) > 0 {
		t.Logf("rows read again by a kill that lost some: median %d, most %d; in Elasticsearch: median %d, most %d",
			median(s.again), slices.Max(s.again), median(s.sent), slices.Max(s.sent))
	}
	if len(s.firsts) > 0 {
		t.Logf("from a resume to its first page: median %v, most %v", median(s.firsts), slices.Max(s.firsts))
	}
}

func median[T int64 | time.Duration](of []T) T {
	return slices.Sorted(slices.Values(of))[len(of)/2]
}

// keep saves the run's files from the end of the test, to look at.
func (at target) keep() string {
	dir := filepath.Join(os.TempDir(), "reprise-soak-"+at.name)
	if err := os.CopyFS(dir, os.DirFS(at.dir)); err != nil {
		return err.Error()
	}
	return dir
}
