package usecases_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"reprise/runners/services"
)

// TestEventFlow publishes and processes while production changes assets, and publishes once more after it has ended:
// the index then holds each asset that is there as it is.
func TestEventFlow(t *testing.T) {
	c := begin(t, "event-flow", services.Kafka, services.Elasticsearch)
	c.start()
	c.until("reprise status")
	t.Cleanup(func() { c.try("reprise stop process-index --job process.yaml") })
	c.drained()
	out := c.next()
	for _, want := range []string{"process-index", "running", "workers: 2", "behind by"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	c.rest()
	c.end()
	c.run("reprise run publish.yaml")
	c.drained()
	c.run("reprise stop process-index --job process.yaml")

	must(t, http.MethodPost, c.search+"/_refresh", nil)
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Source fields `json:"_source"`
			}
		}
	}
	text := must(t, http.MethodPost, c.search+"/_search?size=10000", map[string]any{})
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	titles := map[string]string{}
	for _, h := range found.Hits.Hits {
		titles[h.ID] = h.Source.Title
	}
	there := 0
	for k, s := range c.table() {
		there++
		if title, ok := titles[k.String()]; !ok || title != s.Title {
			t.Errorf("%s is %q in the index (%t), and %q in the table", k, title, ok, s.Title)
		}
	}
	if there < rows/2 {
		t.Errorf("%d assets: the test shows nothing", there)
	}
}

// drained waits until the members have taken all events.
func (c *usecase) drained() {
	c.t.Helper()
	for range 300 {
		var s struct {
			Behind *struct{ Records int64 }
			Read   int64
		}
		out, err := c.command("reprise status process-index --job process.yaml --json 2>/dev/null")
		known := err == nil && json.Unmarshal([]byte(out), &s) == nil && s.Behind != nil
		if known && s.Behind.Records == 0 && s.Read > 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	out, _ := c.command("reprise status process-index --job process.yaml; cat member-*.log")
	c.t.Fatalf("the members are not done:\n%s", out)
}
