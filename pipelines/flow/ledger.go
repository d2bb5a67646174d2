package flow

import (
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/pace"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// ledger knows every page that has been read and is not finished. A page is finished at a sink once all of its
// records are settled there and its dead letters are in the queue; it is then written to the journal, and leaves the
// ledger once all sinks have finished it.
type ledger struct {
	ahead *connector.Ahead
	wake  chan struct{} // something has been settled
	floor []int64       // by lane: what is written has no lower version

	mu         sync.Mutex
	pages      map[int64]*account
	last       int64    // number of the last page
	unfinished int64    // rows of pages
	settled    []share  // that wait to be written down
	rows       int64    // of settled: a hint that it is time
	recent     []recent // by lane

	reached map[string]time.Time // by partition: when an event of the last page that left came about
	delays  []pace.Histogram     // by lane: from an event to its outcome, since they were last looked at
}

// account is that of one page on its way.
type account struct {
	number int64
	rows   int64
	memory int64 // that it takes of what may be read ahead
	where  connector.Split
	name   string    // of the split that it was read for
	event  time.Time // when the oldest of its events came about; zero: not known

	sums    []journal.Sum          // by lane
	waiting []int                  // by lane: records not settled, and 1 while the page is handed out; -1: not for it
	letters [][]*record.DeadLetter // by lane
	held    int                    // lanes that may hold records of it
	open    int                    // lanes that have not finished it

	finished []bool // by lane: it has been written down, or there was nothing to do
	shared   tally  // of what comes before all sinks
}

// share is a page at one lane.
type share struct {
	*account
	lane int
}

// newLedger needs the floor of each lane.
func newLedger(floors []int64) *ledger {
	return &ledger{floor: floors, wake: make(chan struct{}, 1), pages: map[int64]*account{},
		recent: make([]recent, len(floors)), reached: map[string]time.Time{},
		delays: make([]pace.Histogram, len(floors))}
}

// enter opens the account of a page of some rows, read as the interval where of the split called name, for some lanes.
func (l *ledger) enter(rows, memory int64, where connector.Split, name string, lanes []bool) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.unfinished += rows
	p := &account{number: l.last, rows: rows, memory: memory, where: where, name: name,
		sums: make([]journal.Sum, len(lanes)), waiting: make([]int, len(lanes)),
		letters:  make([][]*record.DeadLetter, len(lanes)),
		finished: make([]bool, len(lanes))}
	for i, in := range lanes {
		if !in {
			p.waiting[i], p.finished[i] = -1, true
			continue
		}
		p.waiting[i] = 1
		p.sums[i].Read = rows
		p.held++
		p.open++
	}
	l.pages[p.number] = p
	return p
}

// add counts records of a page that a lane has taken.
func (l *ledger) add(p *account, lane, records int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.waiting[lane] >= 0 {
		p.waiting[lane] += records
	}
}

// handed tells that a lane has got all of a page: what ended before its sink, and what its own steps made of it. It
// is false for a lane that the page is not for.
func (l *ledger) handed(p *account, lane int, t tally, letters []*record.DeadLetter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.waiting[lane] < 0 {
		return false
	}
	p.sums[lane].Made += t.made
	p.sums[lane].Outcomes.Add(t.outcomes)
	p.letters[lane] = append(p.letters[lane], letters...)
	l.less(p, lane, 1)
	return true
}

// settle takes what a sink says of records. letter makes the dead letter of a result.
func (l *ledger) settle(lane int, results []connector.Result, letter func(connector.Result) *record.DeadLetter) (
	counts record.Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var p *account
	now := time.Now()
	for _, res := range results {
		counts[res.Outcome]++
		l.recent[lane].add(res.Outcome == record.Dead)
		if n := res.Record.Origin.Page; p == nil || p.number != n {
			p = l.pages[n]
		}
		if p == nil || p.waiting[lane] < 0 {
			continue // given up
		}
		if !p.event.IsZero() {
			l.delays[lane].Add(now.Sub(p.event))
		}
		sum := &p.sums[lane]
		sum.Outcomes[res.Outcome]++
		if res.Outcome == record.Written || res.Outcome == record.Unchanged {
			sum.Newest = max(sum.Newest, res.Record.Version, l.floor[lane])
		}
		if res.Outcome == record.Dead {
			p.letters[lane] = append(p.letters[lane], letter(res))
		}
		l.less(p, lane, 1)
	}
	return counts
}

func (l *ledger) less(p *account, lane, n int) {
	p.waiting[lane] -= n
	if p.waiting[lane] > 0 {
		return
	}
	l.settled = append(l.settled, share{p, lane})
	l.rows += max(1, p.sums[lane].Read) // a page without rows is written down too
	l.release(p)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// release frees the memory of a page that no lane holds any more.
func (l *ledger) release(p *account) {
	if p.held--; p.held == 0 && l.ahead != nil {
		l.ahead.Release(p.memory)
	}
}

// take gives the shares that are settled, and forgets them.
func (l *ledger) take() []share {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.settled
	l.settled, l.rows = nil, 0
	return got
}

// due tells how many rows wait to be written down.
func (l *ledger) due() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rows
}

// open tells how many rows have been handed out and are not finished.
func (l *ledger) open() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unfinished
}

// finish closes shares that have been written down.
func (l *ledger) finish(shares []share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range shares {
		s.account.finished[s.lane] = true
		l.close(s.account)
	}
}

func (l *ledger) close(p *account) {
	if p.open--; p.open > 0 {
		return
	}
	delete(l.pages, p.number)
	l.unfinished -= p.rows
	if !p.event.IsZero() {
		l.reached[p.where.Partition] = p.event
	}
}

// abandon gives up what a lane has not settled: its sink is down, and its intervals stay open.
func (l *ledger) abandon(lane int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pages {
		if p.waiting[lane] > 0 {
			p.waiting[lane] = -1
			l.release(p)
			l.close(p)
		}
	}
}

// done is a settled share in the form of the journal. A sum that does not balance is a bug that must not be written
// down.
func (s share) done(sink string) (journal.Done, error) {
	sum := s.account.sums[s.lane]
	sum.Letters = int64(len(s.account.letters[s.lane]))
	if sink != laneShared && sum.Read+sum.Made != sum.Outcomes.Total() {
		return journal.Done{}, fail.New(fail.Fatal, "run.unbalanced",
			"%s: sink %s got %d and made %d records, but ended %d", s.account.name, sink, sum.Read, sum.Made,
			sum.Outcomes.Total())
	}
	w := s.account.where
	return journal.Done{Sink: sink, Partition: w.Partition, Start: w.Start, End: w.End, Sum: sum}, nil
}

// lately gives how long events have taken at each lane since the last call, and when the last one that is finished in
// each partition came about.
func (l *ledger) lately() (delays []pace.Histogram, reached map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delays = slices.Clone(l.delays)
	clear(l.delays)
	return delays, maps.Clone(l.reached)
}

// recently is what became of the last records at each sink.
func (l *ledger) recently() []recent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.recent)
}

// recent remembers which of the last records were dead.
type recent struct {
	bits uint64 // the last record in the lowest
	seen int
}

func (r *recent) add(dead bool) {
	r.bits <<= 1
	if dead {
		r.bits |= 1
	}
	r.seen++
}

// dead is how many of the last n were dead, n at most 64; 0 while there were not as many yet.
func (r recent) dead(n int) int {
	if r.seen < n {
		return 0
	}
	return bits.OnesCount64(r.bits << (64 - n))
}
