package stream

import (
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
	for range *kills {
		before := p.read()
		await(t, "progress", []*child{c}, func() bool { return p.read() > before })
		time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
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
