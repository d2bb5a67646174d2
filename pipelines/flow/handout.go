package flow

import (
	"errors"
	"slices"

	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// handOut hands a page to the lanes that have not finished it. It is false where all of those have been left behind.
func (ls *lanes) handOut(got *portion) (bool, error) {
	in := make([]bool, len(ls.all))
	for _, l := range ls.all {
		in[l.index] = l.down == nil && slices.Contains(got.part.Sinks, l.name)
		l.begin()
	}
	if !slices.Contains(in, true) {
		ls.ledger.ahead.Release(got.held)
		return false, nil
	}
	of := ls.ledger.enter(got.Rows(), got.held, got.where, got.split, in)
	of.event = got.Event
	ls.notRead(got)
	later := ls.putOff(of, in)
	if err := ls.handRecords(got, of, in, later); err != nil {
		return false, err
	}
	of.shared = ls.all[0].tally
	for _, l := range ls.all {
		if l.down == nil && later[l.index] == nil {
			ls.handed(of, l)
		}
	}
	return true, nil
}

// notRead counts the rows of a page that the source could not decode, or leaves out.
func (ls *lanes) notRead(got *portion) {
	shared := ls.all[0]
	for _, letter := range got.Dead {
		letter.Step, letter.Split = StepSource, got.split
		if at := letter.Place; at != nil && at.Partition != got.part.Partition && !ls.job.Redrives() {
			letter.Place = nil // of a source within this one, whose places are others
		}
		shared.letters = append(shared.letters, ls.address(letter))
		shared.tally.outcomes[record.Dead]++
		shared.recent.add(true)
	}
	shared.tally.outcomes[record.Filtered] += got.Filtered
}

// handRecords runs the records of a page through the shared transforms to the lanes, or to where they wait for other
// lanes.
func (ls *lanes) handRecords(got *portion, of *account, in []bool, later []*postponed) error {
	shared := ls.all[0]
	// Of the record that is being handed out.
	origin := record.Origin{Split: got.split, Page: of.number, Asked: got.Asked.UnixMicro()}
	var failed error
	emit := func(r *record.Record) {
		mark(r, &origin)
		for _, l := range ls.sinks() {
			switch {
			case !in[l.index] || l.down != nil || failed != nil:
			case later[l.index] != nil:
				later[l.index].records = append(later[l.index].records, r)
			default:
				failed = ls.send(of, l, r)
			}
		}
	}
	dead := func(r *record.Record, step string, err error) {
		shared.letters = append(shared.letters, ls.deadLetter(r, step, laneShared, 1, err))
	}
	keys := make([]record.Value, 0, len(got.Records)*len(ls.schema.Key))
	for _, r := range got.Records {
		for _, k := range ls.schema.Key {
			keys = append(keys, r.Values[k])
		}
		origin.Key = keys[len(keys)-len(ls.schema.Key):]
		mark(r, &origin)
		if err := shared.apply(r, emit, dead); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
	}
	return nil
}

// mark tells in a record which page it is of; where it stood at the source stays.
func mark(r *record.Record, of *record.Origin) {
	r.Origin.Split, r.Origin.Page, r.Origin.Asked, r.Origin.Key = of.Split, of.Page, of.Asked, of.Key
}

// handed tells the ledger that a lane has got all of a page.
func (ls *lanes) handed(of *account, l *lane) {
	t := l.tally
	if l.index > 0 {
		t.made += of.shared.made
		t.outcomes.Add(of.shared.outcomes)
	}
	if ls.ledger.handed(of, l.index, t, l.letters) {
		l.since += of.rows
	}
	ls.heart.outcomes(l.name, l.tally.outcomes)
}

// send sends a record through a sink's own transforms to its writer.
func (ls *lanes) send(of *account, l *lane, r *record.Record) error {
	if before := ls.lost(of, l, r); before != "" {
		err := fail.New(fail.Permanent, "sink.after", "%s comes after sink %s, where this record failed",
			stepSink(l.name), before).WithFix("redrive sink %s first", before)
		l.tally.outcomes[record.Dead]++
		l.letters = append(l.letters, ls.deadLetter(r, stepSink(l.name), l.name, 1, err))
		return nil
	}
	own := len(l.chain.Steps) > 0
	if own {
		r = r.Clone() // other sinks hold the record too
	}
	var failed error
	fatal := l.apply(r,
		func(out *record.Record) {
			if failed != nil {
				return
			}
			if own {
				mark(out, &r.Origin)
			}
			ls.ledger.add(of, l.index, 1)
			failed = l.writer.Write(ls.ctx, out)
		},
		func(in *record.Record, step string, err error) {
			l.letters = append(l.letters, ls.deadLetter(in, stepSink(l.name)+" "+step, l.name, 1, err))
		})
	if failed != nil {
		failed = ls.leaveBehind(l, failed)
	}
	return errors.Join(fatal, failed)
}
