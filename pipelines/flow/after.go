package flow

import (
	"slices"

	"reprise/io/journal"
	"reprise/transforms/record"
)

// A sink may come after others (`after` in the job file): it gets the records of a page once those have finished the page and the
// journal knows; records that failed there do not reach it. So a row's children are gone before the row, also when the run
// is killed in between.

// order finds the lanes that come before each one.
func (p *pass) order() {
	for _, l := range p.lanes[1:] {
		for _, other := range p.lanes[1:] {
			if slices.Contains(p.job.Sinks[l.name].After, other.name) {
				l.after = append(l.after, other)
			}
		}
	}
}

// comesAfter tells whether a lane comes after another, at once or by others in between.
func (l *lane) comesAfter(other *lane) bool {
	return slices.ContainsFunc(l.after, func(b *lane) bool { return b == other || b.comesAfter(other) })
}

// ranks are the lanes of sinks, those that come after others in a later rank.
func (p *pass) ranks() (ranks [][]*lane) {
	for _, l := range p.lanes[1:] {
		n := p.job.Rank(l.name)
		for len(ranks) <= n {
			ranks = append(ranks, nil)
		}
		ranks[n] = append(ranks[n], l)
	}
	return ranks
}

// loadLost finds the rows that failed at the sinks before others in earlier attempts.
func (p *pass) loadLost() error {
	for _, l := range p.lanes[1:] {
		before := p.job.Sinks[l.name].After
		if len(before) == 0 || p.attempt == 1 {
			continue
		}
		l.lost = map[string]string{}
		for letter, err := range p.journal.Letters(p.ctx, p.worker.run.ID, journal.LetterFilter{Sinks: before}) {
			if err != nil {
				return err
			}
			l.lost[letter.Key] = letter.Sink
		}
	}
	return nil
}

// lost is the sink before a lane where a record failed; "": none.
func (p *pass) lost(account *page, l *lane, r *record.Record) string {
	if len(l.lost) > 0 {
		if sink, ok := l.lost[p.sourceKey(r)]; ok {
			return sink
		}
	}
	for _, b := range l.after {
		for _, letter := range account.letters[b.index] {
			if letter.Record != nil && p.sourceKey(letter.Record) == p.sourceKey(r) {
				return b.name
			}
		}
	}
	return ""
}

// postponed is what a lane gets of a page once the lanes before have finished it.
type postponed struct {
	account *page
	lane    *lane
	records []*record.Record
}

// putOff gives, by lane, where to put what is to come later of a page that is for some lanes; nil: it goes at once.
func (p *pass) putOff(account *page, in []bool) []*postponed {
	all := make([]*postponed, len(p.lanes))
	for _, l := range p.lanes[1:] {
		if in[l.index] && !ready(account, l) {
			all[l.index] = &postponed{account: account, lane: l}
			p.later = append(p.later, all[l.index])
		}
	}
	return all
}

// ready tells whether all lanes before one have finished a page.
func ready(account *page, l *lane) bool {
	return !slices.ContainsFunc(l.after, func(b *lane) bool { return !account.finished[b.index] })
}

// letGo hands out what the lanes before have finished.
func (p *pass) letGo() (err error) {
	p.later = slices.DeleteFunc(p.later, func(w *postponed) bool {
		switch {
		case err != nil:
			return false
		case w.lane.down != nil:
			return true
		case !ready(w.account, w.lane):
			return false
		}
		w.lane.begin()
		for _, r := range w.records {
			if err = p.send(w.account, w.lane, r); err != nil {
				return false
			}
			if w.lane.down != nil {
				return true
			}
		}
		p.handed(w.account, w.lane)
		return true
	})
	return err
}
