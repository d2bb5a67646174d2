package usecases_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"reprise/runners/services"
)

// TestWorkflowTrigger triggers workflows while production changes assets: each asset that was there all the time and
// lacks the result is triggered once, at a version that it had, and none that has the result.
func TestWorkflowTrigger(t *testing.T) {
	c := begin(t, "workflow-trigger")
	service := services.NewWorkflows(t, services.WorkflowOptions{
		Takes: func(w services.Workflow) time.Duration {
			return time.Duration(
				len(w.Body)%10) * 100 * time.Millisecond
		},
		State: func(w services.Workflow) string {
			if strings.HasSuffix(w.Path, "0") {
				return "failed"
			}
			return "succeeded"
		},
	})
	path := filepath.Join(c.dir, "job.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("http://127.0.0.1:8088", service.URL, "every: 2s", "every: 100ms", "records: 50",
		"records: 300", "{dead_letters: 1%}", "{error_budget: {percent: 50}}")
	if err := os.WriteFile(path, []byte(here.Replace(string(text))), 0o644); err != nil {
		t.Fatal(err)
	}
	has := c.thumbnails()
	c.start()
	c.until("reprise dead")
	out := c.next()
	c.end()

	runs, failed := map[string]services.Workflow{}, 0
	for _, w := range service.All() {
		if other, twice := runs[w.Path]; twice {
			t.Errorf("%s ran twice, for %s and %s", w.Path, w.ID, other.ID)
		}
		if runs[w.Path] = w; w.State == "failed" {
			failed++
		}
	}
	known := map[string][]state{}
	for k, states := range c.rows {
		known[workflowOf(k)] = states
	}
	for path, w := range runs {
		version, _ := strconv.ParseInt(w.Header.Get("Reprise-Version"), 10, 64)
		if !slices.ContainsFunc(known[path], func(s state) bool { return s.asset != nil && s.version == version }) {
			t.Errorf("%s ran for version %d, which the asset never had", path, version)
		}
	}
	still := c.still()
	lacking := 0
	for _, k := range still {
		if _, ran := runs[workflowOf(k)]; ran == has[k] {
			t.Errorf("%s: has the result %t, ran %t", k, has[k], ran)
		}
		if !has[k] {
			lacking++
		}
	}
	if lacking == 0 || lacking == len(still) || failed == 0 || !strings.Contains(out, "http.workflow_failed") {
		t.Errorf("%d of %d lack the result, %d failed: the test shows nothing\n%s", lacking, len(still), failed, out)
	}

	// The same keys tell what became of the failed ones; nothing runs again.
	c.rest()
	if _, _, ran, _ := service.Seen(); ran != len(runs)+c.since(service, runs) {
		t.Errorf("%d workflows ran, %d before the redrive", ran, len(runs))
	}
}

// since is how many workflows ran for assets of which production has made another version meanwhile.
func (c *usecase) since(service *services.Workflows, before map[string]services.Workflow) (n int) {
	for _, w := range service.All() {
		if was, ran := before[w.Path]; !ran || was.ID != w.ID {
			n++
		}
	}
	return n
}

func workflowOf(k key) string {
	return "/start/thumbnails/" + k.Kind + "/" + k.Bucket + "/" + k.ID.String()
}

// thumbnails tells which assets have one.
func (c *usecase) thumbnails() map[key]bool {
	c.t.Helper()
	has := map[key]bool{}
	all := c.session.Query("SELECT asset_type, bucket, id, thumbnail FROM " + c.keyspace + ".assets").Iter()
	var k key
	for blob := new([]byte); all.Scan(&k.Kind, &k.Bucket, &k.ID, &blob); { // some are empty
		has[k] = blob != nil
	}
	if err := all.Close(); err != nil {
		c.t.Fatal(err)
	}
	return has
}
