package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// side is one of the things that take turns.
type side struct {
	name string
	run  func(round int) (time.Duration, error)
}

// turns runs the sides one after the other, round by round, and gives the times of each.
func turns(rounds int, sides ...side) ([]times, error) {
	all := make([]times, len(sides))
	for round := range rounds {
		for i, s := range sides {
			took, err := s.run(round)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			say("%-40s round %d  %6.2fs", s.name, round+1, took.Seconds())
			all[i] = append(all[i], took)
		}
	}
	return all, nil
}

// timed makes a side's run of something whose whole time counts.
func timed(run func() error) func(int) (time.Duration, error) {
	return func(int) (time.Duration, error) {
		began := time.Now()
		err := run()
		return time.Since(began), err
	}
}

// times are those of one side.
type times []time.Duration

func (t times) median() time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// String is the median, and the least and the most of several.
func (t times) String() string {
	text := fmt.Sprintf("%.1f s", t.median().Seconds())
	if len(t) > 1 {
		text += fmt.Sprintf(" (%.1f-%.1f)", slices.Min(t).Seconds(), slices.Max(t).Seconds())
	}
	return text
}

// rate is rows per second in thousands.
func (t times) rate(rows int64) string {
	return fmt.Sprintf("%.1f k rows/s", float64(rows)/t.median().Seconds()/1000)
}

// report is the table that is printed.
type report struct{ lines []line }

type line struct {
	what, ours, theirs string
	ratio              float64 // 0: for information
	target             target
}

// target bounds a ratio, from below or from above; the zero target does not.
type target struct {
	least, most float64
	unit        string
}

func atLeast(r float64) target             { return target{least: r} }
func atMost(r float64, u string) target    { return target{most: r, unit: u} }
func (t target) met(ratio float64) bool    { return ratio >= t.least && (t.most == 0 || ratio <= t.most) }
func (r *report) add(l line)               { r.lines = append(r.lines, l) }
func ratio(theirs, ours times) float64     { return theirs.median().Seconds() / ours.median().Seconds() }
func (t target) show(ratio float64) string { return fmt.Sprintf("%.3g%s", ratio, t.unit) }

func (t target) String() string {
	if t.most > 0 {
		return "at most " + t.show(t.most)
	}
	return "at least " + t.show(t.least)
}

// print writes the table as Markdown.
func (r *report) print(w io.Writer) {
	fmt.Fprintln(w, "| | Reprise | against | ratio | target |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
	for _, l := range r.lines {
		if l.ratio == 0 {
			fmt.Fprintf(w, "| %s | %s | %s | | |\n", l.what, l.ours, l.theirs)
			continue
		}
		verdict := l.target.String() + ": met"
		switch {
		case l.target == target{}:
			verdict = ""
		case !l.target.met(l.ratio):
			verdict = l.target.String() + ": **missed**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", l.what, l.ours, l.theirs, l.target.show(l.ratio), verdict)
	}
}
