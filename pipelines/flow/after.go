package flow

import (
	"slices"

	"reprise/io/journal"
	"reprise/transforms/record"
)

// A sink may come after others (`after` in the job file): it gets the records of a page once those have finished the
// page and the journal knows; records that failed there do not reach it. So a row's children are gone before the row,
// also when the run is killed in between.

// order finds the lanes that come before each one.
func (ls *lanes) order() {
	for _, l := range ls.sinks() {
		for _, other := range ls.sinks() {
			if slices.Contains(ls.job.Sinks[l.name].After, other.name) {
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
func (ls *lanes) ranks() (ranks [][]*lane) {
	for _, l := range ls.sinks() {
		n := ls.job.Rank(l.name)
		for len(ranks) <= n {
			ranks = append(ranks, nil)
		}
		ranks[n] = append(ranks[n], l)
	}
	return ranks
}

// loadLost finds the rows that failed at the sinks before others in earlier attempts.
func (ls *lanes) loadLost() error {
	for _, l := range ls.sinks() {
		before := ls.job.Sinks[l.name].After
		if len(before) == 0 || ls.attempt == 1 {
			continue
		}
		l.lost = map[string]string{}
		for letter, err := range ls.journal.Letters(ls.ctx, ls.run.ID, journal.LetterFilter{Sinks: before}) {
			if err != nil {
				return err
			}
			l.lost[letter.Key] = letter.Sink
		}
	}
	return nil
}

// lost is the sink before a lane where a record failed; "": none.
func (ls *lanes) lost(of *account, l *lane, r *record.Record) string {
	if len(l.lost) > 0 {
		if sink, ok := l.lost[ls.sourceKey(r)]; ok {
			return sink
		}
	}
	for _, b := range l.after {
		for _, letter := range of.letters[b.index] {
			if letter.Record != nil && ls.sourceKey(letter.Record) == ls.sourceKey(r) {
				return b.name
			}
		}
	}
	return ""
}

// postponed is what a lane gets of a page once the lanes before have finished it.
type postponed struct {
	of      *account
	lane    *lane
	records []*record.Record
}

// putOff gives, by lane, where to put what is to come later of a page that is for some lanes; nil: it goes at once.
func (ls *lanes) putOff(of *account, in []bool) []*postponed {
	all := make([]*postponed, len(ls.all))
	for _, l := range ls.sinks() {
		if in[l.index] && !ready(of, l) {
			all[l.index] = &postponed{of: of, lane: l}
			ls.later = append(ls.later, all[l.index])
		}
	}
	return all
}

// ready tells whether all lanes before one have finished a page.
func ready(of *account, l *lane) bool {
	return !slices.ContainsFunc(l.after, func(b *lane) bool { return !of.finished[b.index] })
}

// letGo hands out what the lanes before have finished.
func (ls *lanes) letGo() (err error) {
	ls.later = slices.DeleteFunc(ls.later, func(w *postponed) bool {
		switch {
		case err != nil:
			return false
		case w.lane.down != nil:
			return true
		case !ready(w.of, w.lane):
			return false
		}
		w.lane.begin()
		for _, r := range w.records {
			if err = ls.send(w.of, w.lane, r); err != nil {
				return false
			}
			if w.lane.down != nil {
				return true
			}
		}
		ls.handed(w.of, w.lane)
		return true
	})
	return err
}
