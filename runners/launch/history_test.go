package launch_test

import (
	"path/filepath"
	"testing"

	"reprise/pipelines/verify"
	"reprise/runners/launch"
)

// TestHistoryOfNow: what the systems hold of a row is told beside what runs have done, also once the row has changed
// since or is gone.
func TestHistoryOfNow(t *testing.T) {
	p, text := newPlatform(t, 3, "")
	if _, _, err := execute(t, text, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Run(t.Context(), parse(t, text), launch.Runner{Name: "prism"},
		verify.Options{Folder: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(parse(t, text).Journal.SQLite)
	p.write("asset1", "changed since")
	p.write("asset2", "")
	for key, want := range map[string]struct{ source, same bool }{"asset0": {true, true}, "asset1": {true, false},
		"asset2": {false, false}} {
		past := historyOf(t, dir, key, true)
		if len(past.Handlings) != 1 || past.Others > 0 {
			t.Fatalf("%s: %+v", key, past)
		}
		now := past.Handlings[0].Now
		if len(now) == 0 || now[0].There != want.source || now[0].Unknown != "" {
			t.Errorf("%s at the source: %+v", key, now)
			continue
		}
		if want.source && (len(now) != 2 || now[1].Sink != "search" || now[1].Key != key || !now[1].There ||
			(now[1].Version == now[0].Version) != want.same || now[1].Version > now[0].Version) {
			t.Errorf("%s at the sink: %+v", key, now)
		}
	}
	if past := historyOf(t, dir, "asset0", false); past.Handlings[0].Now != nil {
		t.Errorf("nobody asked: %+v", past.Handlings[0].Now)
	}
}
