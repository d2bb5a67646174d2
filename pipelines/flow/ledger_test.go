package flow

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// rows is a source of one split with pages of a row and a byte each.
type rows struct{ connector.Source }

func (rows) Read(_ context.Context, s connector.Split, page func(connector.Page) error) error {
	for range s.Rows {
		if err := page(connector.Page{Bytes: 1, Records: []*record.Record{{}}}); err != nil {
			return err
		}
	}
	return nil
}

// share of a page in the model.
type modelShare struct {
	in, handed, given, taken, finished bool
	out                                int // records not settled
	sum                                record.Counts
	made, letters                      int64
}

type modelPage struct {
	*account
	memory int64
	rows   int64
	shares []modelShare
}

// record is one of a page.
func (p *account) record() *record.Record {
	return &record.Record{Origin: record.Origin{Page: p.number}}
}

// TestLedger plays sinks that settle at random, and some that are given up: whatever they do, each share that was not
// given up is taken exactly once and balances, and each page leaves the window exactly once, its bytes when nobody
// holds it, its rows when it is finished.
func TestLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 8 // pages
		lanes := rapid.IntRange(1, 4).Draw(t, "lanes")
		l := newLedger(make([]int64, lanes))
		l.ahead = connector.ReadAhead(context.Background(), rows{},
			[][]connector.Split{{{Partition: "p", Rows: 2 * most}}}, connector.Window{Readers: 1, Bytes: most})
		defer l.ahead.Stop()
		var pages []*modelPage
		down := make([]bool, lanes)
		recents := make([][]bool, lanes)
		var taken []share
		pick := func(label string, fits func(*modelPage, *modelShare, int) bool) (*modelPage, int) {
			type at struct {
				page *modelPage
				lane int
			}
			var all []at
			for _, p := range pages {
				for i := range p.shares {
					if fits(p, &p.shares[i], i) {
						all = append(all, at{p, i})
					}
				}
			}
			if len(all) == 0 {
				t.Skip()
			}
			got := rapid.SampledFrom(all).Draw(t, label)
			return got.page, got.lane
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				if len(pages) == most || !slices.Contains(down, false) {
					t.Skip()
				}
				in := make([]bool, lanes)
				for i := range in {
					in[i] = !down[i] && rapid.Bool().Draw(t, "in")
				}
				if !slices.Contains(in, true) {
					in[slices.Index(down, false)] = true
				}
				it := <-l.ahead.Items
				p := &modelPage{memory: it.Held, rows: rapid.Int64Range(0, 9).Draw(t, "rows"),
					shares: make([]modelShare, lanes)}
				p.account = l.enter(p.rows, it.Held, connector.Split{Partition: "p"}, "p", in)
				for i := range in {
					p.shares[i].in = in[i]
				}
				pages = append(pages, p)
			},
			"add": func(t *rapid.T) {
				p, i := pick("page", func(_ *modelPage, s *modelShare, _ int) bool { return s.in && !s.handed })
				n := rapid.IntRange(1, 3).Draw(t, "records")
				l.add(p.account, i, n)
				if !p.shares[i].given {
					p.shares[i].out += n
				}
			},
			"handed": func(t *rapid.T) {
				p, i := pick("page", func(_ *modelPage, s *modelShare, _ int) bool { return s.in && !s.handed })
				s := &p.shares[i]
				// What did not go to the sink ended before it, and what is more than was read was made.
				rest := p.rows - int64(s.out) - s.sum.Total()
				var a tally
				a.outcomes[record.Filtered], a.made = max(0, rest), max(0, -rest)
				var letters []*record.DeadLetter
				if rest > 0 && rapid.Bool().Draw(t, "dead") {
					a.outcomes[record.Filtered]--
					a.outcomes[record.Dead]++
					letters = append(letters, &record.DeadLetter{})
				}
				l.handed(p.account, i, a, letters)
				s.handed = true
				s.made = a.made
				s.letters += int64(len(letters))
				s.sum.Add(a.outcomes)
			},
			"settle": func(t *rapid.T) {
				p, i := pick("page", func(_ *modelPage, s *modelShare, _ int) bool { return s.out > 0 })
				s := &p.shares[i]
				var results []connector.Result
				for range rapid.IntRange(1, s.out).Draw(t, "records") {
					all := []record.Outcome{record.Written, record.Superseded, record.Dead}
					o := rapid.SampledFrom(all).Draw(t, "outcome")
					results = append(results, connector.Result{Record: p.record(), Outcome: o})
					recents[i] = append(recents[i], o == record.Dead)
					if !s.given {
						s.sum[o]++
						if o == record.Dead {
							s.letters++
						}
					}
				}
				letter := func(connector.Result) *record.DeadLetter { return &record.DeadLetter{} }
				counts := l.settle(i, results, letter)
				s.out -= len(results)
				if counts.Total() != int64(len(results)) {
					t.Fatalf("%d results counted as %v", len(results), counts)
				}
			},
			"abandon": func(t *rapid.T) {
				i := rapid.IntRange(0, lanes-1).Draw(t, "lane")
				l.abandon(i)
				down[i] = true
				for _, p := range pages {
					if s := &p.shares[i]; s.in && (!s.handed || s.out > 0) {
						s.given = true
					}
				}
			},
			"take": func(t *rapid.T) {
				for _, s := range l.take() {
					at := slices.IndexFunc(pages, func(p *modelPage) bool { return p.account == s.account })
					m := &pages[at].shares[s.lane]
					if !m.in || !m.handed || m.out > 0 || m.given || m.taken {
						t.Fatalf("taken from page %d, lane %d: %+v", s.account.number, s.lane, *m)
					}
					m.taken = true
					taken = append(taken, s)
					d, err := s.done("sink")
					want := journal.Sum{Read: pages[at].rows, Made: m.made, Outcomes: m.sum, Letters: m.letters}
					if d.Sum.Newest = 0; err != nil || d.Sum != want {
						t.Fatalf("%+v (%v) of %+v", d.Sum, err, *m)
					}
				}
			},
			"finish": func(t *rapid.T) {
				n := rapid.IntRange(0, len(taken)).Draw(t, "shares")
				l.finish(taken[:n])
				for _, s := range taken[:n] {
					at := slices.IndexFunc(pages, func(p *modelPage) bool { return p.account == s.account })
					pages[at].shares[s.lane].finished = true
				}
				taken = taken[n:]
			},
			"": func(t *rapid.T) {
				due, open := int64(0), 0
				for _, p := range pages {
					held, unfinished := 0, 0
					for i, s := range p.shares {
						settled := s.in && s.handed && s.out == 0 && !s.given
						if s.in && !s.given && !settled {
							held++
						}
						if s.in && !s.given && !s.finished {
							unfinished++
						}
						if settled && !s.taken {
							due += max(1, p.rows)
						}
						if settled != (p.waiting[i] == 0) {
							t.Fatalf("page %d, lane %d: %d wait; %+v", p.number, i, p.waiting[i], s)
						}
					}
					if p.held != held || p.account.open != unfinished {
						t.Fatalf("page %d: held by %d lanes of %d, open in %d of %d",
							p.number, p.held, held, p.account.open, unfinished)
					}
					if _, there := l.pages[p.number]; there != (unfinished > 0) {
						t.Fatalf("page %d is in the ledger: %t; %d lanes have not finished it",
							p.number, there, unfinished)
					}
					if unfinished > 0 {
						open++
					}
				}
				if l.due() != due || len(l.pages) != open {
					t.Fatalf("%d rows due of %d, %d pages open of %d", l.due(), due, len(l.pages), open)
				}
				for i, r := range l.recently() {
					of := recents[i][max(0, len(recents[i])-3):]
					dead := 0
					for _, d := range of {
						if d {
							dead++
						}
					}
					if len(of) == 3 && r.dead(3) != dead {
						t.Fatalf("lane %d: %d of the last 3 dead, not %d", i, r.dead(3), dead)
					}
				}
			},
		})
		// To the end: then the window is whole again. If anything were released twice the semaphores would panic.
		for _, p := range pages {
			for i := range p.shares {
				if s := &p.shares[i]; s.in && !s.handed {
					l.handed(p.account, i, tally{}, nil)
					s.handed = true
				}
				if s := &p.shares[i]; s.out > 0 {
					l.settle(i, slices.Repeat([]connector.Result{{Record: p.record()}}, s.out), nil)
				}
			}
		}
		l.finish(append(taken, l.take()...))
		if len(l.pages) > 0 || l.open() != 0 {
			t.Fatalf("%d pages of %d rows stay in the ledger", len(l.pages), l.open())
		}
		for range most {
			select {
			case <-l.ahead.Items:
			case <-time.After(10 * time.Second):
				t.Fatal("a page was not released")
			}
		}
	})
}

// What does not balance is never written down.
func TestLedgerUnbalanced(t *testing.T) {
	l := newLedger(make([]int64, 2))
	p := l.enter(3, 0, connector.Split{Partition: "p"}, "p", []bool{true, true})
	l.handed(p, 0, tally{}, nil)
	l.add(p, 1, 2)
	l.handed(p, 1, tally{}, nil) // one of three is lost
	l.settle(1, slices.Repeat([]connector.Result{{Record: p.record(), Outcome: record.Written}}, 2), nil)
	for _, s := range l.take() {
		_, err := s.done([]string{laneShared, "sink"}[s.lane])
		if bad := s.lane == 1; bad != (fail.CodeOf(err) == "run.unbalanced") || !bad && !errors.Is(err, nil) {
			t.Errorf("lane %d: %v", s.lane, err)
		}
	}
}

func TestRecent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r recent
		all := rapid.SliceOfN(rapid.Bool(), 0, 150).Draw(t, "dead")
		for _, dead := range all {
			r.add(dead)
		}
		n := rapid.IntRange(1, 64).Draw(t, "last")
		want := 0
		if len(all) >= n {
			for _, dead := range all[len(all)-n:] {
				if dead {
					want++
				}
			}
		}
		if got := r.dead(n); got != want {
			t.Fatalf("%d of the last %d, want %d", got, n, want)
		}
	})
}
