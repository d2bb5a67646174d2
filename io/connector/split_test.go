package connector

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestSplitString(t *testing.T) {
	for want, s := range map[string]Split{
		"image/2024-05":             {Partition: "image/2024-05"},
		"image/2024-05(..00ff]":     {Partition: "image/2024-05", End: []byte{0, 0xff}},
		"image/2024-05(3fa0..]":     {Partition: "image/2024-05", Start: []byte{0x3f, 0xa0}},
		"image/2024-05(3fa0..81c2]": {Partition: "image/2024-05", Start: []byte{0x3f, 0xa0}, End: []byte{0x81, 0xc2}},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Splits that differ have different names, however long their positions are: outcomes are summed up by name.
func TestSplitNamesDiffer(t *testing.T) {
	common := bytes.Repeat([]byte("x"), 30)
	a := Split{Partition: "p", Start: append(bytes.Clone(common), 1)}
	b := Split{Partition: "p", Start: append(bytes.Clone(common), 2)}
	if a.String() == b.String() {
		t.Errorf("two splits are named %s", a)
	}
}

// A cut loses and repeats no position.
func TestSplitCut(t *testing.T) {
	position := rapid.SliceOfN(rapid.Byte(), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		s := Split{Partition: "p", Start: position.Draw(t, "start"), End: position.Draw(t, "end")}
		if rapid.Bool().Draw(t, "open start") {
			s.Start = nil
		}
		if rapid.Bool().Draw(t, "open end") {
			s.End = nil
		}
		at, p := position.Draw(t, "at"), position.Draw(t, "p")
		if !s.Contains(at) {
			t.Skip("nothing to cut")
		}
		done, rest := s.Cut(at)
		if in := done.Contains(p) || rest.Contains(p); in != s.Contains(p) {
			t.Errorf("%x: within the parts %t, within the whole %t", p, in, s.Contains(p))
		}
		if done.Contains(p) && rest.Contains(p) {
			t.Errorf("%x lies in both parts", p)
		}
		if !done.Contains(at) || rest.Contains(at) {
			t.Errorf("the cut itself belongs to the first part")
		}
	})
}
