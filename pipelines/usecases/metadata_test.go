package usecases_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// report is the end of a run as its report tells it.
type report struct {
	Run         string
	Read        int64
	DeadLetters int64 `json:"dead_letters"`
	Sinks       map[string]struct{ Outcomes map[string]int64 }
}

// again runs the job another time and gives its report.
func (c *usecase) again() (r report) {
	c.t.Helper()
	c.run("reprise run job.yaml --report again.json")
	text, err := os.ReadFile(filepath.Join(c.dir, "again.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func TestMetadata(t *testing.T) {
	c := begin(t, "metadata")
	described := c.rowsOf("assets", "description")
	good := func(title string) string { return strings.ReplaceAll(title, "\t", " ") }
	c.repair = func(a asset) *asset {
		a.Title = good(a.Title)
		return &a
	}
	times := c.rowsOf("assets", "WRITETIME(title)", "WRITETIME(description)")
	c.start()
	c.until("reprise run")
	began := time.Now()
	c.until("reprise verify")
	c.end()

	is := c.rowsOf("assets", "title", "description")
	repaired := 0
	for k, states := range c.rows {
		last := states[len(states)-1]
		has := is[k.String()]
		if last.asset == nil {
			if has != nil {
				t.Errorf("%s is back: %q", k, has)
			}
			continue
		}
		// Production writes no descriptions: the run makes one of a title that it has seen.
		want := []string{"assets title=" + good(last.Title) + " description="}
		if old := described[k.String()]; !slices.Contains([]string{"", "assets description="}, strings.Join(old, "")) &&
			born(states) == 0 {
			want[0] += strings.TrimPrefix(old[0], "assets description=")
		} else {
			if born(states) == 0 || states[born(states)].acked.Before(began) {
				want = nil // else it may not have been read, and stays without
			}
			for _, s := range states[max(seen(states, began), born(states)):] {
				want = append(want, "assets title="+good(last.Title)+" description="+good(s.Title))
			}
		}
		if len(has) != 1 || !slices.Contains(want, has[0]) {
			t.Fatalf("%s has %q, should have one of %q", k, has, want)
		}
		if strings.Contains(last.Title, "\t") {
			repaired++
		}
	}
	if repaired == 0 {
		t.Error("no title needed repair: the test shows nothing")
	}
	after := c.rowsOf("assets", "WRITETIME(title)", "WRITETIME(description)")
	for _, k := range c.still() {
		a, old := c.last(k), described[k.String()]
		if old[0] != "assets description=" && a.Title == good(a.Title) &&
			!slices.Equal(times[k.String()], after[k.String()]) {
			t.Errorf("%s needs no repair and was written: %q, before %q", k, after[k.String()], times[k.String()])
		}
	}

	c.again() // what was made after it had been read
	c.rest()
	if r := c.again(); r.Sinks["assets"].Outcomes["unchanged"] != r.Read || r.DeadLetters != 0 {
		t.Errorf("another run finds something to repair: %+v", r)
	}
}
