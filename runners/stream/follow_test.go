package stream

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reprise/runners/services"
)

func newFollow(t *testing.T, source string) *place {
	t.Helper()
	return newPlace(t, "name: follow\n"+source+`
sinks:
  lake: {iceberg: {catalog: {sqlite: catalog.db, warehouse: warehouse}, table: media.events, create: true}}
  lines: {files: {path: lines}}
limits: {unfinished: "500", commit_every: {time: 2s}}
`)
}

// once checks that both targets hold each event exactly as often as it was sent.
func (p *place) once(topic *topic) {
	p.t.Helper()
	for where, found := range map[string]map[event]int{"Iceberg": p.inLake(), "files": p.inFiles()} {
		if repeats := topic.holdsAll(where, found); repeats > 0 {
			p.t.Errorf("%s holds %d events again", where, repeats)
		}
	}
}

// TestFollowUnderKills kills a run that goes on at random moments, also while it commits: what is sealed in the journal
// is committed once, so each event is in both targets exactly once.
func TestFollowUnderKills(t *testing.T) {
	t.Parallel()
	random := draws(t, 3)
	topic := newTopic(t, services.Need(t, services.Kafka), 4, draws(t, 4))
	p := newFollow(t, topic.source(""))
	end := topic.produce(400, 3000)
	began := time.Now()
	c := p.start("run", "job.yaml")
	for n := range *kills {
		before := p.read()
		await(t, "progress", []*child{c}, func() bool { return p.read() > before })
		if n%3 == 0 { // as it commits to Iceberg
			p.awaitCommit(c)
			time.Sleep(time.Duration(random.Int64N(int64(40 * time.Millisecond))))
		} else {
			time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
		}
		c.kill()
		c = p.start("resume", "last", "--journal", "journal.db")
	}
	t.Logf("%d kills in %s", *kills, time.Since(began).Round(time.Second))
	end()
	p.caughtUp(c)
	p.stop()
	c.end(130)
	s := p.balanced(topic.total())
	p.once(topic)
	t.Logf("%d kills, %d attempts: %d events, each once in both targets", *kills, s.Attempt, s.Read)
}

// awaitCommit waits until a commit to Iceberg is about to be handed to the catalog.
func (p *place) awaitCommit(c *child) {
	p.t.Helper()
	before := -1
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		files, err := filepath.Glob(p.dir + "/warehouse/*/*/metadata/*.metadata.json")
		if err != nil {
			p.t.Fatal(err)
		}
		if before < 0 {
			before = len(files)
		}
		if len(files) > before {
			return
		}
		if time.Since(began) > time.Minute {
			p.t.Fatalf("there is no commit to Iceberg\n%s", c.says())
		}
	}
}

// TestTheTopicGrows adds partitions while runs follow: what comes there is read as well, each message once, by a run
// alone as by members who share one.
func TestTheTopicGrows(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{"alone": nil, "shared": {"--join"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafka := services.Need(t, services.Kafka)
			topic := newTopic(t, kafka, 2, draws(t, 5))
			p := newFollow(t, topic.source(", group: "+topic.name))
			args := append([]string{"run", "job.yaml"}, more...)
			all := []*child{p.start(args...)}
			if more != nil {
				all = append(all, p.start(args...))
			}
			topic.some(1000, 500)
			await(t, "the first messages", all, func() bool { return p.read() == topic.total() })
			topic.grow(5)
			topic.some(2000, 500)
			began := time.Now()
			await(t, "the messages of new partitions", all, func() bool { return p.read() == topic.total() })
			t.Logf("read %s after they came", time.Since(began).Round(time.Second))
			p.stop()
			for _, c := range all {
				c.end(130)
			}
			if s := p.balanced(topic.total()); s.Splits != 5 {
				t.Errorf("the plan has %d splits, want 5", s.Splits)
			}
			p.once(topic)
		})
	}
}

// TestTheBrokerComesBack kills the broker of a run that goes on, freezes it for longer than the run waits, and stops
// it. The run goes on by itself, and each message that the topic has in the end is in both targets once.
func TestTheBrokerComesBack(t *testing.T) {
	t.Parallel()
	broker := services.Own(t, services.Kafka)
	topic := newTopic(t, broker.Addr, 3, draws(t, 6))
	p := newFollow(t, topic.source(", group: back")+"pace: {outage: 3s}\n")
	c := p.start("run", "job.yaml")
	end := topic.produce(300, 1000)
	goesOn := func() {
		t.Helper()
		before, began := p.read(), time.Now()
		await(t, "more messages", []*child{c}, func() bool { return p.read() > before })
		t.Logf("it goes on after %s", time.Since(began).Round(100*time.Millisecond))
	}
	goesOn()
	broker.Kill()
	broker.Start()
	goesOn()
	broker.Pause()
	time.Sleep(12 * time.Second)
	broker.Resume()
	goesOn()
	broker.Stop()
	await(t, "a word on it", []*child{c}, func() bool {
		return strings.Contains(c.says(), "the run goes on once this has passed")
	})
	broker.Start()
	goesOn()
	end()
	p.caughtUp(c)
	p.stop()
	c.end(130)
	s := p.balanced(topic.total())
	topic.sent = inTopic(t, broker.Addr, topic.name) // the producer may have sent some twice
	p.once(topic)
	t.Logf("%d attempts, %d messages", s.Attempt, s.Read)
}

// TestRetentionTakesWhatWasNotRead deletes messages while the run is stopped. Where it had read them, it goes on; where
// it had not, it stops, says so, and reads nothing behind the gap.
func TestRetentionTakesWhatWasNotRead(t *testing.T) {
	t.Parallel()
	for name, join := range map[string]bool{"alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafka := services.Need(t, services.Kafka)
			topic := newTopic(t, kafka, 1, draws(t, 7))
			p := newFollow(t, topic.source(", group: "+topic.name))
			start := func() *child {
				if join {
					return p.start("run", "job.yaml", "--join")
				}
				if p.read() == 0 {
					return p.start("run", "job.yaml")
				}
				return p.start("resume", "last", "--journal", "journal.db")
			}
			c := start()
			readAll := func() {
				t.Helper()
				topic.some(500, 100)
				await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
				p.stop()
				c.end(130)
			}
			readAll()
			topic.expire(topic.total()) // what it has read
			c = start()
			readAll()
			had, first := p.read(), topic.total()+10
			topic.some(500, 100)
			topic.expire(first)
			c = start()
			said := c.end(1)
			want := fmt.Sprintf("the messages of %s/0 at offset %d are not there any more", topic.name, had)
			if !strings.Contains(said, want) || !strings.Contains(said, "[kafka.expired]") ||
				!strings.Contains(said, "start a new run that begins later (from)") {
				t.Errorf("it says\n%s\nwant %s", said, want)
			}
			if now := p.read(); now != had {
				t.Errorf("it has read %d messages behind the gap", now-had)
			}
		})
	}
}

// TestFollowsOnFlink follows on Flink with more partitions than slots, is stopped there, and goes on here.
func TestFollowsOnFlink(t *testing.T) {
	t.Parallel()
	topic := newTopic(t, services.Need(t, services.Kafka), 5, draws(t, 8))
	p := newFollow(t, topic.source(", group: "+topic.name))
	topic.some(1000, 500)
	c := p.start("run", "job.yaml", "--runner", "flink", "--endpoint", services.Need(t, services.Flink),
		"--parallelism", "2")
	for range 2 {
		await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
		topic.some(1000, 500)
	}
	began := time.Now()
	p.stop()
	c.end(130)
	t.Logf("stopped on Flink after %s", time.Since(began).Round(100*time.Millisecond))
	topic.some(1000, 500)
	c = p.start("resume", "last", "--journal", "journal.db")
	await(t, "all messages", []*child{c}, func() bool { return p.read() == topic.total() })
	p.stop()
	c.end(130)
	p.balanced(topic.total())
	p.once(topic)
}
