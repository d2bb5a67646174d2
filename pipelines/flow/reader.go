package flow

import (
	"context"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/pipelines/travel"
)

// reader reads what is left of the splits of a restriction, several at once, and claims each page before anybody gets
// it.
type reader struct {
	tracker *sdf.LockRTracker
	splits  []connector.Split
	queues  []reading
	ahead   *connector.Ahead   // nil: it has not begun
	ended   func(split string) // is called for each split that has been read to its end
}

// reading is how far the parts of one split have been read that are left of it.
type reading struct {
	split int // of the restriction
	parts []connector.Split
	last  []byte // where reading stands in the current part
}

func newReader(tracker *sdf.LockRTracker, ended func(split string)) *reader {
	return &reader{tracker: tracker, splits: tracker.GetRestriction().(travel.Work).Splits, ended: ended}
}

// begin begins to read what rest gives of each split, each part with the sinks that it is for.
func (r *reader) begin(ctx context.Context, source connector.Source, w connector.Window,
	rest func(connector.Split) []connector.Split) error {
	var queues [][]connector.Split
	for i, split := range r.splits {
		parts := rest(split)
		if len(parts) == 0 {
			r.ended(split.String())
			if !r.tracker.TryClaim(travel.Claim{Split: i, End: true}) && r.tracker.GetError() != nil {
				return r.tracker.GetError()
			}
			continue
		}
		r.queues = append(r.queues, reading{split: i, parts: parts, last: parts[0].Start})
		queues = append(queues, parts)
	}
	r.ahead = connector.ReadAhead(ctx, source, queues, w)
	return nil
}

// portion is a page that has been claimed.
type portion struct {
	connector.Page
	held  int64           // bytes of what may be read ahead, until they are released
	where connector.Split // the interval that it covers
	part  connector.Split // of the split, that it is of
	split string          // name of the split
}

// claim claims an item. It gives nil where nothing is to be done with it: the runner has given its split away, or it
// is an end that covers nothing.
func (r *reader) claim(it connector.Item) (*portion, error) {
	q := &r.queues[it.Queue]
	part := q.parts[it.Split]
	c := travel.Claim{Split: q.split, Last: it.Page.Last}
	end := it.End && it.Split == len(q.parts)-1
	switch {
	case end:
		c.End = true
	case it.End:
		if c.Last = part.End; string(q.last) == string(part.End) {
			q.last = q.parts[it.Split+1].Start
			return nil, nil
		}
	}
	if !r.tracker.TryClaim(c) {
		r.ahead.Release(it.Held)
		r.ahead.Drop(it.Queue)
		return nil, r.tracker.GetError()
	}
	where := connector.Split{Partition: part.Partition, Start: q.last, End: it.Page.Last}
	if it.End {
		where.End = part.End
	}
	q.last = where.End
	if it.End && !end {
		q.last = q.parts[it.Split+1].Start
	}
	name := r.splits[q.split].String()
	if end {
		r.ended(name)
		if string(where.Start) == string(where.End) && where.End != nil {
			return nil, nil // its last page ended there
		}
	}
	return &portion{Page: it.Page, held: it.Held, where: where, part: part, split: name}, nil
}

// stop ends reading.
func (r *reader) stop() {
	if r.ahead != nil {
		r.ahead.Stop()
	}
}

// giveBack leaves the rest open in the journal; for Beam it is done.
func (r *reader) giveBack() error {
	for i := range r.splits {
		r.tracker.TryClaim(travel.Claim{Split: i, End: true})
	}
	return r.tracker.GetError()
}
