package travel

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"reprise/io/connector"
)

var (
	_ sdf.RTracker          = (*Tracker)(nil)
	_ sdf.BoundableRTracker = (*Tracker)(nil)
)

// TestTrackerCoversAll plays a runner that splits a restriction at random while it is read: whatever it does, every
// position of every split is claimed exactly once, by this tracker or by one of a residual.
func TestTrackerCoversAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var root Work
		pages := map[string]int{} // partition → number of pages, at positions 1, 2, ...
		for i := range rapid.IntRange(1, 5).Draw(t, "splits") {
			name := fmt.Sprint("p", i)
			root.Splits = append(root.Splits, connector.Split{Partition: name})
			pages[name] = rapid.IntRange(0, 5).Draw(t, "pages")
		}
		claimed := map[string]int{}
		queue := []Work{root}
		for rounds := 0; len(queue) > 0; rounds++ {
			if rounds > 200 {
				t.Fatal("the work does not end")
			}
			r := queue[0]
			queue = queue[1:]
			tr := NewTracker(r)
			next := make([]int, len(r.Splits)) // page to read next, per split
			open := make([]int, 0, len(r.Splits))
			for i, s := range r.Splits {
				if len(s.Start) > 0 {
					next[i] = int(s.Start[0])
				}
				open = append(open, i)
			}
			for len(open) > 0 {
				if rapid.IntRange(0, 3).Draw(t, "act") == 0 {
					fraction := rapid.SampledFrom([]float64{0, 0.3, 0.5, 0.9}).Draw(t, "fraction")
					primary, residual, err := tr.TrySplit(fraction)
					if err != nil || primary == nil {
						t.Fatalf("TrySplit(%v) = %v, %v", fraction, primary, err)
					}
					if residual != nil {
						queue = append(queue, residual.(Work))
					}
				}
				k := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				i := open[k]
				s := r.Splits[i]
				at := []byte{byte(next[i] + 1)}
				end := next[i] >= pages[s.Partition] || (len(s.End) > 0 && bytes.Compare(at, s.End) > 0)
				ok := tr.TryClaim(Claim{Split: i, Last: at, End: end})
				if err := tr.GetError(); err != nil {
					t.Fatal(err)
				}
				if ok && !end {
					claimed[s.Partition+fmt.Sprint(next[i])]++
				}
				next[i]++
				if !ok || end {
					open = append(open[:k], open[k+1:]...)
				}
			}
			if !tr.IsDone() {
				t.Fatal("all splits were read to their end or given away, but the tracker is not done")
			}
		}
		for name, n := range pages {
			for p := range n {
				if got := claimed[name+fmt.Sprint(p)]; got != 1 {
					t.Fatalf("page %d of %s claimed %d times", p, name, got)
				}
			}
		}
	})
}

func TestTrackerRefuses(t *testing.T) {
	two := Work{Splits: []connector.Split{{Partition: "a"}, {Partition: "b"}}}
	for name, claims := range map[string][]any{
		"a foreign claim":    {7},
		"an unknown split":   {Claim{Split: 2, Last: []byte{1}}},
		"a step back":        {Claim{Split: 0, Last: []byte{5}}, Claim{Split: 0, Last: []byte{4}}},
		"the same end twice": {Claim{Split: 0, Last: []byte{5}}, Claim{Split: 0, Last: []byte{5}}},
	} {
		tr := NewTracker(two)
		for i, c := range claims {
			if got, want := tr.TryClaim(c), i < len(claims)-1; got != want {
				t.Errorf("%s: TryClaim(%v) = %v", name, c, got)
			}
		}
		if tr.GetError() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWorkTravels: splits keep their bounds, open ones too; the runner is told how much there is and how far it has
// got.
func TestWorkTravels(t *testing.T) {
	w := Work{Whole: true, Splits: []connector.Split{{Partition: "a", Rows: 7},
		{Partition: "b", Start: []byte{1}, End: []byte{9}, Sinks: []string{"s"}}}}
	text, err := encodeWork(w)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeWork(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, got); diff != "" {
		t.Error(diff)
	}
	if size := w.Rows(); size != 8 {
		t.Errorf("size %v, want 8: a split of unknown size counts as one row", size)
	}
	tr := NewTracker(w)
	tr.TryClaim(Claim{Split: 0, End: true})
	tr.TryClaim(Claim{Split: 1, Last: []byte{2}})
	if done, left := tr.GetProgress(); done != 1.5 || left != 0.5 || !tr.IsBounded() || tr.IsDone() {
		t.Errorf("%v done, %v left", done, left)
	}
	if _, left := NewTracker(w).GetProgress(); left != 2 {
		t.Errorf("%v left of two splits", left)
	}
	if primary, residual, err := tr.TrySplit(0.5); residual != nil || err != nil || len(primary.(Work).Splits) != 2 {
		t.Errorf("work that is whole was split: %v, %v, %v", primary, residual, err)
	}
}
