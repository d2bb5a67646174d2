package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"reprise/transforms/fail"
)

// TestHistory asks for a row that failed at one sink, was sent again and went through; for one that never failed; and
// for none.
func TestHistory(t *testing.T) {
	t.Parallel()
	s, _ := newRedrive(t, filesQueue)
	run, _ := s.letters()
	var dead letter
	for _, line := range strings.Split(strings.TrimSpace(s.want(fail.ExitDone, "dead", "list", run, "--sink", "few",
		"--limit", "1", "--json").out), "\n") {
		if err := json.Unmarshal([]byte(line), &dead); err != nil {
			t.Fatal(err)
		}
	}
	s.want(fail.ExitDone, "redrive", run, "--job", "good.yaml")
	past := func(key string) (all []handling) {
		t.Helper()
		if err := json.Unmarshal([]byte(s.want(fail.ExitDone, "history", key, "--json").out), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := past(dead.Key)
	if len(all) != 3 { // the undisturbed run, the one that failed, the redrive
		t.Fatalf("%d runs: %+v", len(all), all)
	}
	failed, again := all[1], all[2]
	if failed.Run != run || !slices.Equal(failed.Handled, []string{"all", "few"}) || len(failed.Letters) == 0 ||
		failed.Letters[0].State != "sent" ||
		!strings.HasPrefix(failed.Letters[0].Key, failed.Partition[:strings.Index(failed.Partition, "/")]) {
		t.Errorf("the run that failed: %+v", failed)
	}
	if again.Parent != run || !slices.Contains(again.Resent, dead.ID) || len(again.Letters) > 0 {
		t.Errorf("the redrive: %+v", again)
	}
	if len(all[0].Letters) > 0 || !slices.Equal(all[0].Handled, []string{"all", "few"}) {
		t.Errorf("the undisturbed run: %+v", all[0])
	}
	text := s.want(fail.ExitDone, "history", dead.Key).out
	for _, want := range []string{"in an interval that is finished at all, few", "dead letter " + dead.ID, "sent again",
		"not whether this row was there"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not told:\n%s", want, text)
		}
	}
	if all := past("image|2031-01|13814000-1dd2-11b2-8000-000000000000"); len(all) != 0 {
		t.Errorf("a row of no bucket: %+v", all)
	}
	if text := s.want(fail.ExitDone, "history", "no key").out; !strings.Contains(text,
		"no run in this journal has reached it") {
		t.Error(text)
	}
}
