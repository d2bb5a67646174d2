package usecases_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rule is the job's: what a target holds for an asset, a line for each entry; none where it holds nothing.
type rule func(k key, a asset, version int64) []string

// held is what a target holds for each asset, by the text of its key.
type held map[string][]string

func (h held) add(key, format string, args ...any) {
	h[key] = append(h[key], fmt.Sprintf(format, args...))
}

// exactly compares a target that production writes, too: it holds what the model says, and nothing else.
func (l *live) exactly(t *testing.T, name string, got held, r rule) {
	t.Helper()
	l.compare(t, name, got, r, func(states []state) int { return len(states) - 1 })
}

// lagging compares a target that a run alone has fed, which began then: it holds for each asset what that was at some
// time since. So it may miss what was written after the run has read the asset; it holds nothing older, and nothing
// that was deleted before.
func (l *live) lagging(t *testing.T, name string, got held, r rule, began time.Time) {
	t.Helper()
	l.compare(t, name, got, r, func(states []state) int { return seen(states, began) })
}

// compare takes the states of an asset from first on as right.
func (l *live) compare(t *testing.T, name string, got held, r rule, first func([]state) int) {
	t.Helper()
	var faults []string
	entries, behind := 0, 0
	left := map[string]bool{}
	for k := range got {
		left[k] = true
	}
	for k, states := range l.rows {
		has := sorted(got[k.String()])
		entries += len(has)
		delete(left, k.String())
		var wants []string
		right := -1
		for i := len(states) - 1; i >= first(states) && right < 0; i-- {
			want := sorted(states[i].entries(k, r))
			if slices.Equal(want, has) {
				right = i
			}
			wants = append(wants, fmt.Sprintf("%q", want))
		}
		switch {
		case right < 0:
			faults = append(faults, fmt.Sprintf("%s: holds %q, should hold %s", k, has, strings.Join(wants, " or ")))
		case right < len(states)-1:
			behind++
		}
	}
	for k := range left {
		faults = append(faults, fmt.Sprintf("%s: holds %q, there never was such an asset", k, got[k]))
	}
	slices.Sort(faults)
	t.Logf("%s: %d entries, %d assets changed later", name, entries, behind)
	if len(faults) > 0 {
		t.Errorf("%s: %d of %d assets differ:\n%s", name, len(faults), len(l.rows),
			strings.Join(faults[:min(5, len(faults))], "\n"))
	}
	if entries == 0 {
		t.Errorf("%s is empty: the test shows nothing", name)
	}
}

func (s state) entries(k key, r rule) []string {
	if s.asset == nil {
		return nil
	}
	return r(k, *s.asset, s.version)
}

func sorted(lines []string) []string {
	lines = slices.Clone(lines)
	slices.Sort(lines)
	return lines
}

// seen is the state of an asset that a run sees at least that begins then.
func seen(states []state, began time.Time) (first int) {
	for i, s := range states {
		if s.acked.Before(began) {
			first = i
		}
	}
	return first
}

// born is the state in which an asset was made that is there: 0 where it always was.
func born(states []state) int {
	for i := len(states) - 1; i > 0; i-- {
		if states[i-1].asset == nil {
			return i
		}
	}
	return 0
}
