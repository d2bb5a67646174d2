package flow

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/journal"
)

type planned struct {
	journal.Journal
	splits []connector.Split
}

func (p planned) Plan(context.Context, string) iter.Seq2[connector.Split, error] {
	return func(yield func(connector.Split, error) bool) {
		for _, s := range p.splits {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// A stage has its share of the partitions, at least one, whole; a later stage has those of an earlier one; stage 0
// has all.
func TestStage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 60).Draw(t, "partitions")
		var plan planned
		for i := range n {
			for range rapid.IntRange(1, 3).Draw(t, "splits") {
				plan.splits = append(plan.splits, connector.Split{Partition: fmt.Sprint("p", i)})
			}
		}
		less := rapid.Float64Range(0.01, 99).Draw(t, "less")
		more := rapid.Float64Range(less+0.001, 99.9).Draw(t, "more")
		in := map[float64]int{}
		var of []func(string) bool
		for _, percent := range []float64{less, more, 0} {
			chosen, err := inStage(t.Context(), plan, "run", percent)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if chosen(fmt.Sprint("p", i)) {
					in[percent]++
				}
			}
			of = append(of, chosen)
		}
		for i := range n {
			if name := fmt.Sprint("p", i); of[0](name) && !of[1](name) {
				t.Fatalf("%s is in the stage of %g %%, but not in that of %g %%", name, less, more)
			}
		}
		for _, percent := range []float64{less, more} {
			got, share := in[percent], percent/100*float64(n)
			if n > 0 && (got == 0 || float64(got) < share || float64(got) >= share+1) {
				t.Fatalf("%d of %d partitions in a stage of %g %%", got, n, percent)
			}
		}
		if in[0] != n {
			t.Fatalf("%d of %d partitions without a stage", in[0], n)
		}
	})
}
