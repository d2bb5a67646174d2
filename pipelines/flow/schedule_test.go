package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/pipelines/travel"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// The tests of this file hold every request of a run, to the source, the sinks and the journal, and answer one at a
// time, in an order that they choose. Time is that of the test, so nothing else happens meanwhile. At each point of
// each order they also disturb the run in each way that they know, then resume it and look whether every record is
// accounted for once and is where it belongs. As in the tests of Pebble and FoundationDB, a failure names the order,
// which can be played again. What is not chosen is which of two things a select of the engine takes when both have
// come since it last looked.

// setup is a small run.
type setup struct {
	name   string
	rows   []int // by partition
	large  bool  // it has too many orders for all of them
	change func(*world)
	raw    int              // rows that do not decode
	lost   map[string][]int // rows that die at a sink
	goesOn bool             // the source does: the run is stopped once all is finished
}

var setups = []setup{
	{name: "two sinks", rows: []int{2}},
	{name: "two partitions", rows: []int{1, 1}, large: true},
	{name: "one sink commits", rows: []int{2}, change: func(w *world) { w.sinks["b"].Committing = true }},
	{name: "both commit", rows: []int{2}, change: func(w *world) {
		w.sinks["a"].Committing, w.sinks["b"].Committing = true, true
	}},
	{name: "one after the other", rows: []int{2}, change: func(w *world) {
		w.change("b", func(s *job.Sink) { s.After = []string{"a"} })
	}},
	{name: "dead letters", rows: []int{2}, raw: 1, lost: map[string][]int{"a": {0}, "b": {1}}, change: func(w *world) {
		w.tables["part0"].LoadRaw("zz", []byte("{"))
		w.sinks["a"].Refuse = refusing(0)
		w.change("b", func(s *job.Sink) { s.Transforms = []transforms.Spec{traps(map[int]string{1: "dead"})} })
	}},
	{name: "it goes on", rows: []int{2}, goesOn: true, change: func(w *world) {
		w.sinks["b"].Committing = true
		w.commitsEvery(job.CommitEvery{Rows: 1})
	}},
	{name: "it goes on and both commit", rows: []int{2}, goesOn: true, large: true, lost: map[string][]int{"a": {0}},
		change: func(w *world) {
			w.sinks["a"].Refuse = refusing(0)
			w.queue.Committing, w.sinks["a"].Committing, w.sinks["b"].Committing = true, true, true
			w.commitsEvery(job.CommitEvery{Rows: 1})
		}},
}

func (s setup) world(t *testing.T) *world {
	w := newWorld(t, s.rows...)
	w.setting = func(of *Setting) {
		of.Window, of.Hands = 2, 2 // one hand alone is not split
		if s.goesOn {
			of.Hands = 1 // one after the other, the first would never end
		}
	}
	w.job.Limits.Readers = 2
	w.job.Pace.Outage = connector.Duration(time.Second)
	for _, m := range w.tables {
		m.PageRows = 1
	}
	for _, m := range w.sinks {
		m.Batch = connector.BatchLimits{Rows: 1, Bytes: 1 << 20, InFlight: 1}
	}
	if s.goesOn {
		w.stream = w.following()
		w.stream.page = 1
		n := 0
		for i, rows := range s.rows {
			for range rows {
				w.stream.add(fmt.Sprint("part", i), n)
				n++
			}
		}
		w.commits = w.watch()
	}
	if s.change != nil {
		s.change(w)
	}
	return w
}

// ended tells whether nothing is left to do.
func (s setup) ended(r *Report) bool {
	if !s.goesOn {
		return r.State == journal.Complete
	}
	n := int64(0)
	for _, rows := range s.rows {
		n += int64(rows)
	}
	for _, of := range r.Sinks {
		if of.Read < n || of.Uncommitted {
			return false
		}
	}
	return r.State == journal.Stopped
}

// finished tells whether a run that goes on has nothing to do.
func (s setup) finished(w *world) bool {
	left := len(w.sinks) + 1
	for _, rows := range s.rows {
		left += (len(w.sinks) + 1) * rows
	}
	for _, d := range w.journal.finished() {
		left -= int(d.Sum.Read)
	}
	return left == len(w.sinks)+1
}

// check looks at the end of a run.
func (s setup) check(w *world, r *Report) error {
	n, dead := int64(s.raw), s.raw+len(s.lost["a"])+len(s.lost["b"])
	for _, rows := range s.rows {
		n += int64(rows)
	}
	if !s.ended(r) || len(r.Faults) > 0 || r.Read != n || int(r.DeadLetters) != dead {
		return fmt.Errorf("the run is not as it should be: %+v", *r)
	}
	if letters, queued := len(w.journal.letters), len(w.queue.Rows()); letters != dead || queued != dead {
		return fmt.Errorf("%d dead letters in the journal and %d in the queue, want %d", letters, queued, dead)
	}
	for name, m := range w.sinks {
		rows, of := m.Rows(), r.Sinks[name]
		if m.Committing && s.goesOn {
			if faults := w.commits[name].uneven(m, slices.Sorted(maps.Keys(rows))); len(faults) > 0 {
				return fmt.Errorf("sink %s: %q", name, faults)
			}
		}
		for i := range int(n) - s.raw {
			if _, there := rows[key(i)]; there == slices.Contains(s.lost[name], i) {
				return fmt.Errorf("sink %s, row %d: there %t", name, i, there)
			}
		}
		written := of.Outcomes[record.Written] + of.Outcomes[record.Unchanged]
		if dead := of.Outcomes[record.Dead]; written != int64(len(rows)) || written+dead != n || of.Read != n {
			return fmt.Errorf("sink %s has %d rows, but its outcomes are %v of %d read",
				name, len(rows), of.Outcomes, of.Read)
		}
	}
	return nil
}

const tickName = "time passes"

// point is where an order may go on in several ways.
type point struct {
	state   string   // of what has been answered, what waits and what the journal holds
	options []string // what may come next
	ills    []string // how the run may be disturbed here
	early   string   // what a sink has too early
}

// play makes a run: its first attempts step by step, as choose says of each point; a
// step that is called "!..." disturbs the run. It then resumes the run until it is done, and checks it.
func (s setup) play(t *testing.T, attempts int, choose func(p point) string) {
	synctest.Test(t, func(t *testing.T) {
		w := s.world(t)
		sched := &scheduler{}
		for name, m := range w.tables {
			m.Serve = sched.serve("source " + name)
		}
		for name, m := range w.sinks {
			m.Serve = sched.serve("sink " + name)
		}
		if s.goesOn {
			w.stream.serve = sched.serve("source")
		}
		w.queue.Serve = sched.serve("queue")
		w.journal.serve = sched.serve("journal")
		var taken []string
		var report *Report
		failed := errors.New("not begun")
		for n := 1; failed != nil || !s.ended(report); n++ {
			if n > attempts+3 {
				t.Fatalf("%q: the run is not done: %+v, %v", taken, report, failed)
			}
			sched.begin(n > attempts)
			var kill context.CancelFunc
			w.ctx, kill = context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				report, failed = w.attempt()
			}()
			steps := s.steps(t, w, sched, done, kill, choose)
			taken = append(taken, steps...)
			kill()
			if err := s.wrong(steps, report, failed); err != nil {
				t.Fatalf("%q: %v", taken, err)
			}
		}
		if err := s.check(w, report); err != nil {
			t.Fatalf("%q: %v", taken, err)
		}
	})
}

// wrong tells what an attempt may not come to, however it was disturbed.
func (s setup) wrong(steps []string, r *Report, err error) error {
	harmed, killed := false, false
	for _, step := range steps {
		harmed = harmed || step[0] == '!' && !strings.HasPrefix(step, "!split")
		killed = killed || strings.HasPrefix(step, "!kill")
	}
	switch code := fail.CodeOf(err); {
	case killed: // what it reports nobody gets
	case err != nil && (!harmed || code != "journal.timeout" && code != "memory.down"):
		return fmt.Errorf("the attempt ends with an error: %w", err)
	case err == nil && (!harmed && !s.ended(r) || r.State == journal.Unbalanced):
		return fmt.Errorf("the attempt ends so: %+v", *r)
	}
	return nil
}

// steps takes an attempt to its end.
func (s setup) steps(t *testing.T, w *world, sched *scheduler, done chan struct{}, kill func(),
	choose func(p point) string) (taken []string) {
	ticks, idle := 0, 0
	for {
		synctest.Wait()
		select {
		case <-done:
			return taken
		default:
		}
		if s.goesOn && s.finished(w) {
			w.want(journal.Stop, "")
		}
		waiting, next := sched.requests(), tickName
		if !sched.free {
			at := s.at(w, taken, waiting, ticks)
			if at.early != "" {
				t.Fatalf("%q: %s", taken, at.early)
			}
			next = choose(at)
		}
		taken = append(taken, next)
		switch i := slices.IndexFunc(waiting, func(r *request) bool { return r.name == next }); {
		case next == tickName:
			ticks++
			if idle++; idle > 200 {
				t.Fatalf("nothing goes on after %q", taken)
			}
			time.Sleep(2100 * time.Millisecond) // more than a pass waits until it writes down what is finished
		case i >= 0:
			idle = 0
			sched.answer(waiting[i], true, nil)
		default:
			s.disturb(w, sched, next, waiting, kill)
		}
	}
}

// at is the point where a run stands.
func (s setup) at(w *world, taken []string, waiting []*request, ticks int) point {
	var p point
	var now strings.Builder
	for _, name := range slices.Sorted(slices.Values(taken)) {
		now.WriteString(name + "\n")
	}
	changing := 0
	for _, r := range waiting {
		now.WriteString("? " + r.name + "\n")
		p.options = append(p.options, r.name)
		if strings.HasPrefix(r.name, "journal: record") {
			p.ills = append(p.ills, "!refuse", "!forget the answer")
		}
		if r.changes() {
			changing++
		}
	}
	for _, d := range w.journal.finished() {
		fmt.Fprintf(&now, "%s (%x..%x]\n", d.Sink, d.Start, d.End)
	}
	p.state = now.String()
	p.early = w.early("b")
	if ticks < 1 || len(waiting) == 0 {
		p.options = append(p.options, tickName)
	}
	for some := range 1 << min(changing, 3) {
		p.ills = append(p.ills, fmt.Sprint("!kill ", some))
	}
	p.ills = append(p.ills, "!stop", "!down sink a", "!down sink b")
	if w.tracker != nil && !w.tracker.IsDone() && !s.goesOn { // of a run that goes on nobody takes parts
		p.ills = append(p.ills, "!split 0", "!split 0.5")
	}
	return p
}

// disturb does a mischief to a run.
func (s setup) disturb(w *world, sched *scheduler, how string, waiting []*request, cancel context.CancelFunc) {
	var some int
	var fraction float64
	var sink string
	record := func(do bool) {
		for _, r := range waiting {
			if strings.HasPrefix(r.name, "journal: record") {
				sched.answer(r, do, fail.New(fail.Transient, "journal.timeout", "no answer"))
			}
		}
	}
	switch {
	case how == "!stop":
		w.want(journal.Stop, "")
	case how == "!refuse":
		record(false)
	case how == "!forget the answer":
		record(true)
	case scan(how, "!split %g", &fraction):
		if _, residual, err := w.tracker.TrySplit(fraction); err == nil && residual != nil {
			w.residuals = append(w.residuals, residual.(travel.Work))
		}
	case scan(how, "!down sink %s", &sink):
		sched.mu.Lock()
		sched.down = "sink " + sink
		sched.mu.Unlock()
		for _, r := range waiting {
			if strings.HasPrefix(r.name, "sink "+sink+": write") {
				sched.answer(r, false, errDown)
			}
		}
	case scan(how, "!kill %d", &some): // some of what is under way has been done nevertheless
		sched.mu.Lock()
		sched.gone = true
		sched.mu.Unlock()
		defer cancel()
		n := 0
		for _, r := range waiting {
			do := r.changes() && some>>n&1 == 1
			if r.changes() {
				n++
			}
			sched.answer(r, do, errGone)
		}
	}
}

func scan(text, form string, into any) bool {
	n, err := fmt.Sscanf(text, form, into)
	return n == 1 && err == nil
}

// TestEveryOrder plays small runs in every order of their requests, as far as orders lead to states that differ, with
// every disturbance in each of these.
func TestEveryOrder(t *testing.T) {
	for _, s := range setups {
		if s.large {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			states, runs := map[string]bool{}, 0
			for left := [][]string{nil}; len(left) > 0; runs++ {
				order := left[len(left)-1]
				left = left[:len(left)-1]
				var taken []string
				disturbed := false
				s.play(t, 1, func(p point) string {
					next := p.options[0]
					if len(order) > 0 {
						if order[0][0] == '!' || slices.Contains(p.options, order[0]) {
							next, order = order[0], order[1:]
						} else {
							order = nil // a select has chosen otherwise this time
						}
					} else if !disturbed && !states[p.state] {
						states[p.state] = true
						for _, other := range slices.Concat(p.options[1:], p.ills) {
							left = append(left, append(slices.Clone(taken), other))
						}
					}
					taken, disturbed = append(taken, next), disturbed || next[0] == '!'
					return next
				})
			}
			t.Logf("%d runs through %d states", runs, len(states))
			if len(states) < 40 || runs < 300 {
				t.Errorf("%d runs through %d states only: requests were not held", runs, len(states))
			}
		})
	}
}

// TestRandomOrders plays larger runs in orders drawn by a seed, disturbed up to four times in their first three
// attempts.
func TestRandomOrders(t *testing.T) {
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for len(s.rows) < 3 {
				s.rows = append(s.rows, 3)
			}
			for seed := range uint64(100) {
				random := rand.New(rand.NewPCG(seed, 11))
				ills := 0
				s.play(t, 3, func(p point) string {
					if ills < 4 && random.IntN(25) == 0 {
						ills++
						return p.ills[random.IntN(len(p.ills))]
					}
					return p.options[random.IntN(len(p.options))]
				})
			}
		})
	}
}
