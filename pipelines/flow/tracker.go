package flow

import (
	"bytes"
	"fmt"

	"reprise/io/connector"
)

// claim is the end of a page of one split of a restriction, or the end of that split.
type claim struct {
	split int
	last  []byte
	end   bool
}

// tracker tells what of a restriction, a list of splits, has been read. Splits are read side by side, so a claim
// names its split; within a split claims ascend. A split that the tracker has given away refuses its claims, the
// others go on.
type tracker struct {
	rest  work // with the bounds as they are now: End moves when a part is given away
	state []splitState
	err   error
}

type splitState struct {
	last []byte // end of the last page claimed; nil: none yet
	done bool   // nothing of it is left to claim here
	away bool   // because its rest was given away
}

func newTracker(w work) *tracker {
	w.Splits = append([]connector.Split(nil), w.Splits...)
	return &tracker{rest: w, state: make([]splitState, len(w.Splits))}
}

// TryClaim implements sdf.RTracker; it takes a claim.
func (t *tracker) TryClaim(pos any) bool {
	c, ok := pos.(claim)
	if !ok || c.split < 0 || c.split >= len(t.state) {
		t.err = fmt.Errorf("claim %v does not belong to the restriction", pos)
		return false
	}
	s := &t.state[c.split]
	switch {
	case s.done:
		return false
	case c.end:
		s.done = true
		return true
	case s.last != nil && bytes.Compare(c.last, s.last) <= 0:
		t.err = fmt.Errorf("%s: position %x claimed after %x", t.rest.Splits[c.split], c.last, s.last)
		return false
	}
	s.last = c.last
	return true
}

// GetError implements sdf.RTracker.
func (t *tracker) GetError() error { return t.err }

// TrySplit implements sdf.RTracker. With fraction 0 everything not claimed is given away; else, of the splits not
// begun, the part beyond the fraction: pages already begun stay here.
func (t *tracker) TrySplit(fraction float64) (primary, residual any, err error) {
	if t.rest.Whole && fraction > 0 {
		return t.rest, nil, nil
	}
	var open []int
	for i, s := range t.state {
		if !s.done && (fraction == 0 || s.last == nil) {
			open = append(open, i)
		}
	}
	keep := 0
	if fraction > 0 {
		// At least one split not begun stays: its first page may be on its way.
		keep = max(1, int(fraction*float64(len(open))+0.5))
	}
	if keep >= len(open) {
		return t.rest, nil, nil
	}
	var away work
	for _, i := range open[keep:] {
		s, st := &t.rest.Splits[i], &t.state[i]
		if st.last == nil {
			away.Splits = append(away.Splits, *s)
		} else {
			done, rest := s.Cut(st.last)
			away.Splits = append(away.Splits, rest)
			*s = done
		}
		st.done, st.away = true, true
	}
	return t.kept(), away, nil
}

// kept is the restriction without what was given away.
func (t *tracker) kept() work {
	w := work{Whole: t.rest.Whole}
	for i, s := range t.rest.Splits {
		if !t.state[i].away || t.state[i].last != nil {
			w.Splits = append(w.Splits, s)
		}
	}
	return w
}

// GetProgress implements sdf.RTracker, in splits.
func (t *tracker) GetProgress() (done, remaining float64) {
	for _, s := range t.state {
		switch {
		case s.done:
			done++
		case s.last != nil:
			done, remaining = done+0.5, remaining+0.5
		default:
			remaining++
		}
	}
	return done, remaining
}

// IsDone implements sdf.RTracker.
func (t *tracker) IsDone() bool {
	for _, s := range t.state {
		if !s.done {
			return false
		}
	}
	return true
}

// GetRestriction implements sdf.RTracker.
func (t *tracker) GetRestriction() any { return t.kept() }

// IsBounded implements sdf.BoundableRTracker.
func (t *tracker) IsBounded() bool { return true }
