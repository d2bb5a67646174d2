package outage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"reprise/io/journal"
)

// scenario is a run that is disturbed.
type scenario struct {
	name     string
	sinks    []string
	reads    bool               // from the Cassandra that is disturbed
	outage   time.Duration      // how long a server is waited for; 0: for minutes
	overload bool               // more requests at once than a short queue takes
	disturb  func(*fleet, *run) // from the start of the run on
	code     int                // exit code
	says     []string           // at its end, where it does not succeed
	mend     func(*fleet, *run) // then the run is resumed
}

// TestOutages disturbs all servers at once, then each by itself.
func TestOutages(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	each := func(do func(*server)) {
		for _, name := range systems {
			do(f.servers[name])
		}
	}
	t.Run("all cut and slow", func(t *testing.T) {
		f.play(t, scenario{sinks: []string{"copied", "events", "lake", "lines", "search"}, reads: true,
			disturb: func(f *fleet, r *run) {
				r.reach(0.1)
				each(func(s *server) { s.proxy.CutRandomly(1000, 6) })
				r.reach(0.5)
				for _, name := range systems {
					// The others may have no need to ask again before the end.
					if cuts := f.servers[name].proxy.Cuts(); cuts == 0 && name != "catalog" && name != "store" {
						t.Errorf("no answer of %s has been cut", name)
					}
				}
				each(func(s *server) { s.proxy.Delay(50 * time.Millisecond) })
				t.Cleanup(func() { each(func(s *server) { s.proxy.Pass() }) })
			}})
	})
	groups := map[string][]scenario{}
	for name, group := range f.scenarios() {
		for _, s := range group {
			if *full || slices.Contains(usual, s.name) {
				groups[name] = append(groups[name], s)
			}
		}
	}
	for name, group := range groups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range group {
				t.Run(s.name, func(t *testing.T) { f.play(t, s) })
			}
		})
	}
}

// usual are the scenarios of all tests; the others need -all.
var usual = []string{"source gone for long", "search gone for long", "search frozen", "search overloaded",
	"events killed"}

// disturbance is something that happens to a server, and its end.
type disturbance struct {
	name       string
	begin, end func(*server)
}

var disturbances = []disturbance{
	{"killed", func(s *server) { s.Kill() }, func(s *server) { s.Start() }},
	{"stopped", func(s *server) { s.Stop() }, func(s *server) { s.Start() }},
	{"frozen", func(s *server) { s.Pause() }, func(s *server) { time.Sleep(6 * time.Second); s.Resume() }},
	{"unreachable", func(s *server) { s.proxy.Refuse() },
		func(s *server) { time.Sleep(4 * time.Second); s.proxy.Pass() }},
	{"lost", func(s *server) { s.proxy.Hold() }, func(s *server) { time.Sleep(6 * time.Second); s.proxy.Pass() }},
}

// scenarios are in groups of which no two are at once.
func (f *fleet) scenarios() map[string][]scenario {
	groups := map[string][]scenario{}
	for _, part := range []struct{ group, name, server, sink, says string }{
		{"cassandra", "source", "cassandra", "", "source has not answered for 3s"},
		{"cassandra", "copied", "cassandra", "copied", "sink copied has"},
		{"search", "search", "search", "search", "sink search has"},
		{"events", "events", "events", "events", "sink events has"},
		{"lake", "catalog", "catalog", "lake", "the commit to table"},
		{"lake", "store", "store", "lake", "lake"},
	} {
		at := f.servers[part.server]
		base := scenario{sinks: []string{"lines"}, reads: part.sink == ""}
		if part.sink != "" {
			base.sinks = append(base.sinks, part.sink)
			slices.Sort(base.sinks)
		}
		for _, d := range disturbances {
			s := base
			s.name = part.name + " " + d.name
			s.disturb = func(_ *fleet, r *run) {
				r.reach(0.3)
				d.begin(at)
				d.end(at)
			}
			groups[part.group] = append(groups[part.group], s)
		}
		for name, d := range map[string]disturbance{"gone": disturbances[0], "frozen": disturbances[2]} {
			s := base
			s.name, s.outage, s.code, s.says = part.name+" "+name+" for long", 3*time.Second, 3, []string{part.says}
			s.disturb = func(_ *fleet, r *run) {
				r.reach(0.3)
				d.begin(at)
			}
			s.mend = func(*fleet, *run) { d.end(at) }
			groups[part.group] = append(groups[part.group], s)
		}
	}
	// Its queue is short, see newFleet.
	groups["search"] = append(groups["search"], scenario{name: "search overloaded", sinks: []string{"lines", "search"},
		overload: true, disturb: func(_ *fleet, r *run) {
			<-r.ended
			if g := r.look().gauge("search"); g.Retries == 0 || g.Asked.Records == 0 {
				r.t.Errorf("the server's refusals slow nothing down: %+v", g)
			}
		}})
	return groups
}

// play plays a scenario to its end and looks at what is in the targets.
func (f *fleet) play(t *testing.T, s scenario) {
	r := newRun(t, len(f.rows))
	if err := os.WriteFile(filepath.Join(r.dir, "job.yaml"), []byte(f.job(r, s)), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.mend != nil {
		mend, once := s.mend, sync.Once{}
		s.mend = func(f *fleet, r *run) { once.Do(func() { mend(f, r) }) }
		defer s.mend(f, r) // also after a failure: others use the server
	}
	began := time.Now()
	r.start("run", "job.yaml", "--report", "report.json")
	s.disturb(f, r)
	said := r.end(s.code)
	t.Logf("it ends after %s", time.Since(began).Round(100*time.Millisecond))
	if s.mend != nil {
		for _, text := range s.says {
			if !strings.Contains(said, text) {
				t.Errorf("it does not say %q:\n%s", text, said)
			}
		}
		f.resume(r, s)
	}
	r.complete(s.sinks)
	f.check(r, s.sinks)
}

// resume mends what was wrong and lets the run go on: of a sink that was left behind alone.
func (f *fleet) resume(r *run, s scenario) {
	before := r.look()
	args := []string{"resume", "last", "--journal", "journal.db", "--report", "report.json"}
	lacks, behind := int64(0), ""
	for _, name := range s.sinks {
		if open := r.total - before.done[name].Read; open > lacks {
			lacks, behind = open, name
		}
	}
	switch {
	case before.State == journal.Incomplete && lacks > 0 && behind != "lines" && before.done["lines"].Read == r.total:
		args = append(args, "--sink", behind)
	case before.State == journal.Incomplete && lacks == 0 && r.uncommitted(): // all rows are there, but not visible
	case before.State == journal.Paused:
	default:
		r.t.Errorf("the run is %s: %+v", before.State, before.done)
	}
	s.mend(f, r)
	r.start(args...)
	r.end(0)
	after := r.look()
	r.t.Logf("resumed, it reads the %d rows that it lacked of %d", lacks, r.total)
	if read := after.gauge(journal.Source).Records; read > lacks { // it may be a little behind
		r.t.Errorf("resumed, it reads %d rows", read)
	}
	if before.State == journal.Incomplete && before.done["lines"] != after.done["lines"] {
		r.t.Errorf("the sums of a sink that was done were %+v and are %+v", before.done["lines"], after.done["lines"])
	}
}
