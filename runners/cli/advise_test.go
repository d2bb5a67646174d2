package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"reprise/pipelines/advise"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// TestAdvise weighs a sample on a real server, and leaves nothing there.
func TestAdvise(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"SEARCH": services.Need(t, services.Elasticsearch), "INDEX": services.Name(t)})
	s.write("job.yaml", `
name: advise
source: {corpus: {rows: 3000}}
sinks:
  search:
    when: asset_type != "image"
    elasticsearch:
      urls: ["http://$SEARCH"]
      index: "$INDEX-{asset_type}"
      routing: "{asset_type}"
      exclude: [thumbnail, embedding]
      create: {settings: {index: {number_of_shards: 3, number_of_replicas: 1}}}
limits: {split_rows: 200}
`)
	r := s.want(fail.ExitDone, "advise", "job.yaml", "--rows", "600", "--json")
	var all map[string]advise.Advice
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		t.Fatal(err, r.out)
	}
	a := all["search"]
	var documents int64
	for _, i := range a.Indices {
		documents += i.Documents
		if i.Shards != 1 || !strings.Contains(strings.Join(i.Reasons, "\n"), "asks for 3 shards") ||
			strings.HasSuffix(i.Name, "-image") {
			t.Errorf("%+v", i)
		}
	}
	if a.Sample != 600 || a.Rows < 2500 || len(a.Indices) < 2 || documents < a.Rows/10 || documents >= a.Rows ||
		a.PerDocument < 100 || len(a.General) == 0 {
		t.Errorf("%+v", a)
	}
	if out := s.want(fail.ExitDone, "advise", "job.yaml", "--rows", "100").out; !strings.Contains(out,
		"largest shard") {
		t.Error(out)
	}
	resp, err := http.Get("http://" + s.vars["SEARCH"] + "/_cat/indices/" + s.vars["INDEX"] + "*?h=index")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); len(text) > 0 {
		t.Errorf("left behind: %s", text)
	}
	s.write("none.yaml", "name: none\nsource: {corpus: {rows: 10}}\nsinks: {files: {files: {path: out}}}\n")
	s.want(fail.ExitJob, "advise", "none.yaml")
}
