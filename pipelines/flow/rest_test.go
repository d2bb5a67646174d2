package flow

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/journal"
)

// keys are the positions of the test; the bound before the first is open.
const keys = 12

func bound(n int) []byte {
	if n < 0 {
		return nil
	}
	return []byte{byte(n)}
}

// interval is some keys in a row: those after start, up to and with end; the bounds beyond the keys are open.
type interval struct{ start, end int }

func drawInterval(t *rapid.T, label string, from, to int) interval {
	start := rapid.IntRange(from, to-1).Draw(t, label+" start")
	return interval{start, rapid.IntRange(start+1, to).Draw(t, label+" end")}
}

func (i interval) bounds() (start, end []byte) {
	if start = bound(i.start); i.end < keys {
		end = bound(i.end)
	}
	return start, end
}

// TestRest compares the rest of a split with what is left key by key, for each sink.
func TestRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sinks := []string{laneShared, "a", "b"}[:rapid.IntRange(1, 3).Draw(t, "sinks")]
		f := finished{}
		done := map[string][keys + 1]bool{}
		for _, sink := range append(sinks, "another") {
			f[sink] = map[string][]journal.Done{}
			for from := -1; from < keys && rapid.Bool().Draw(t, "more"); {
				i := drawInterval(t, "done "+sink, from, keys)
				d := journal.Done{Sink: sink, Partition: "p"}
				d.Start, d.End = i.bounds()
				f[sink]["p"] = append(f[sink]["p"], d)
				of := done[sink]
				for key := i.start + 1; key <= i.end; key++ {
					of[key] = true
				}
				done[sink], from = of, i.end
			}
			f[sink]["q"] = []journal.Done{{Sink: sink, Partition: "q"}} // another partition
		}
		of := drawInterval(t, "split", -1, keys)
		split := connector.Split{Partition: "p", Rows: 70, Bytes: 700}
		split.Start, split.End = of.bounds()

		parts := f.rest(split, sinks)
		left := map[string][keys + 1]bool{}
		last := split.Start
		for i, part := range parts {
			if part.Partition != "p" || len(part.Sinks) == 0 {
				t.Fatalf("part %+v", part)
			}
			if part.Start == nil && (i > 0 || split.Start != nil) || bytes.Compare(part.Start, last) < 0 {
				t.Fatalf("part %v begins before %x ends", part, last)
			}
			if i > 0 && bytes.Equal(part.Start, last) && slices.Equal(part.Sinks, parts[i-1].Sinks) {
				t.Fatalf("%v and %v are one", parts[i-1], part)
			}
			if last = part.End; last == nil && i < len(parts)-1 {
				t.Fatalf("%v is open, but not the last", part)
			}
			if whole := part.String() == split.String(); (part.Rows == 70) != whole || (part.Bytes == 700) != whole {
				t.Fatalf("the estimates of %+v, a part of %+v", part, split)
			}
			some := false
			for key := range keys + 1 {
				if !part.Contains(position(key)) {
					continue
				}
				some = true
				for _, sink := range part.Sinks {
					l := left[sink]
					l[key] = true
					left[sink] = l
				}
			}
			if !some {
				t.Fatalf("part %v holds nothing", part)
			}
		}
		for _, sink := range sinks {
			for key := range keys + 1 {
				if want := split.Contains(position(key)) && !done[sink][key]; left[sink][key] != want {
					t.Fatalf("sink %q, key %d: left %t, want %t; parts %v", sink, key, left[sink][key], want, parts)
				}
			}
		}
	})
}

// position is that of a key; the last key lies behind every bound.
func position(key int) []byte { return []byte{byte(key)} }

// Nothing is left where everything is finished, and all where nothing is.
func TestRestOfAllAndNothing(t *testing.T) {
	split := connector.Split{Partition: "p", Rows: 5}
	all := finished{"a": {"p": {{Sink: "a", Partition: "p"}}}}
	if parts := all.rest(split, []string{"a"}); len(parts) != 0 {
		t.Errorf("left of what is finished: %v", parts)
	}
	other := finished{"b": {"p": {{Sink: "b", Partition: "p"}}}}
	elsewhere := finished{"a": {"q": {{Sink: "a", Partition: "q"}}}}
	for _, f := range []finished{nil, {}, other, elsewhere} {
		parts := f.rest(split, []string{"a"})
		if len(parts) != 1 || parts[0].String() != "p" || parts[0].Rows != 5 ||
			!slices.Equal(parts[0].Sinks, []string{"a"}) {
			t.Errorf("left of %v: %+v", f, parts)
		}
	}
	if parts := all.rest(split, nil); len(parts) != 0 {
		t.Errorf("for no sink: %v", parts)
	}
}
