package launch

import "testing"

// Whoever reads a part of a source that goes on never comes to the next one: so all of it is one part.
func TestASourceThatGoesOnIsDealtWhole(t *testing.T) {
	for name, want := range map[string][2]int{"prism": {1, 1}, "flink": {12, 1}} {
		r := Runner{Name: name, Parallelism: 3}
		if got := [2]int{r.hands(false), r.hands(true)}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
