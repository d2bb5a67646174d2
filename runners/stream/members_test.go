package stream

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"reprise/runners/services"
)

const membersJob = `
name: members
%[1]s
sinks:
  lake:
    iceberg: {catalog: {sqlite: catalog.db, warehouse: warehouse}, table: media.events, create: true, mode: upsert}
  search: {elasticsearch: {urls: ["http://%[2]s"], index: %[4]s, create: {}}}
  events: {kafka: {brokers: ["%[3]s"], topic: %[4]s, create: {partitions: 4}}}
  lines: {files: {path: lines}}
limits: {unfinished: "%[5]d", commit_every: {time: 3s}}
`

// sessionTimeout is after how long a group gives up a member that does not show itself: sarama's default.
const sessionTimeout = 10 * time.Second

// TestMembersUnderKills kills members of a run, again and again while others join, and freezes one for so long that its
// partitions go to others. Every event is in the sums and in the files once, in Kafka at least once, and where a key
// has one row, that is its newest version.
func TestMembersUnderKills(t *testing.T) {
	t.Parallel()
	random := draws(t, 1)
	kafka, search, name := services.Need(t, services.Kafka), services.Need(t, services.Elasticsearch), services.Name(t)
	topic := newTopic(t, kafka, 8, random)
	const unfinished, group = 500, "g"
	p := newPlace(t, fmt.Sprintf(membersJob, topic.source(", group: "+name+group), search, kafka, name, unfinished))
	m := members{place: p, random: rand.New(rand.NewPCG(*seed, 2))}
	end := topic.produce(600, 3000)
	for range 3 {
		m.join()
	}
	m.progress()
	began := time.Now()
	for n := range *kills {
		if n == *kills/2 {
			m.freezeOne()
			continue
		}
		// Every other time the group has not come to rest since the last kill.
		if n%2 == 0 {
			m.progress()
		}
		most := []time.Duration{100 * time.Millisecond, 2 * time.Second}[m.random.IntN(2)]
		time.Sleep(time.Duration(m.random.Int64N(int64(most))))
		m.killOne()
		m.join()
	}
	m.leaveOne()
	t.Logf("%d kills in %s", *kills, time.Since(began).Round(time.Second))
	end()
	ended := time.Now()
	p.caughtUp(m.all...)
	await(t, "no lag of the group", m.all, func() bool { return topic.lag(name+group) == 0 })
	t.Logf("no lag %s after the last event", time.Since(ended).Round(100*time.Millisecond))
	p.stop()
	for _, c := range m.all {
		c.end(130)
	}
	t.Logf("all have stopped %s after the last event", time.Since(ended).Round(100*time.Millisecond))
	s := p.balanced(topic.total())
	topic.holdsNewest("Iceberg", p.inLake())
	topic.holdsNewest("Elasticsearch", inIndex(t, search, name))
	if again := topic.holdsAll("files", p.inFiles()); again > 0 {
		t.Errorf("%d events are in the files again", again)
	}
	repeats := topic.holdsAll("Kafka", inTopic(t, kafka, name))
	if most := *kills * (unfinished + 8*100); repeats > most {
		t.Errorf("%d messages are there again, at most %d may be", repeats, most)
	}
	t.Logf("%d kills, %d attempts: %d events of %d keys, %d messages repeated", *kills, s.Attempt, s.Read,
		len(topic.newest), repeats)
}

// members are the processes that share a run.
type members struct {
	*place
	random *rand.Rand
	all    []*child
}

func (m *members) join() { m.all = append(m.all, m.start("run", "job.yaml", "--join")) }

// progress waits until the run gets on.
func (m *members) progress() {
	m.t.Helper()
	before, began := m.read(), time.Now()
	await(m.t, "progress", m.all, func() bool { return m.read() > before+500 })
	m.t.Logf("500 rows more after %s", time.Since(began).Round(100*time.Millisecond))
}

func (m *members) killOne() {
	m.t.Helper()
	i := m.random.IntN(len(m.all))
	m.all[i].kill()
	m.all = slices.Delete(m.all, i, i+1)
}

// leaveOne ends a member in good order: the others go on.
func (m *members) leaveOne() {
	m.t.Helper()
	one := m.all[0]
	await(m.t, "a member works", m.all, func() bool { return strings.Contains(one.says(), "member works") })
	m.all = m.all[1:]
	began := time.Now()
	one.signal(syscall.SIGTERM)
	says(m.t, one.end(0), "the run goes on, this member has left it")
	m.t.Logf("a member leaves within %s", time.Since(began).Round(100*time.Millisecond))
	m.progress()
}

// freezeOne freezes a member until others have its partitions, while another one is killed.
func (m *members) freezeOne() {
	m.t.Helper()
	m.progress()
	frozen := m.all[m.random.IntN(len(m.all))]
	frozen.freeze(m.place)
	at := time.Now()
	works := strings.Count(frozen.says(), "member works")
	time.Sleep(time.Until(at.Add(sessionTimeout + time.Second)))
	m.progress()
	frozen.signal(syscall.SIGCONT)
	await(m.t, "a share of the one that was frozen", m.all, func() bool {
		return strings.Count(frozen.says(), "member works") > works
	})
	m.t.Logf("a member works again after %s, of which it was frozen longer than the group waits",
		time.Since(at).Round(100*time.Millisecond))
}
