package cli

import (
	"net/http"
	"strings"
	"testing"

	"reprise/runners/services"
	"reprise/transforms/fail"
)

const cutoverJob = `
name: cutover
source: {files: {path: in.jsonl, key: [id], fields: {id: text, title: text}}}
sinks:
  search:
    elasticsearch: {urls: ["http://$SEARCH"], index: $ALIAS-2, alias: $ALIAS, create: {settings: {number_of_replicas: 0}}}
`

// TestCutover goes through the first steps of a cut-over, each by a process of its own; package launch shows the others.
func TestCutover(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"SEARCH": services.Need(t, services.Elasticsearch), "ALIAS": services.Name(t)})
	es := func(method, path, body string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+s.vars["SEARCH"]+"/"+s.vars["ALIAS"]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	defer es(http.MethodDelete, "-1", "")
	defer es(http.MethodDelete, "-2", "")
	s.write("in.jsonl", `{"id":"a","title":"Dawn"}`+"\n")
	s.write("job.yaml", cutoverJob)
	s.write("none.yaml", strings.Replace(cutoverJob, "alias: $ALIAS,", "", 1))
	contains := func(text string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("%q is not in:\n%s", p, text)
			}
		}
	}
	contains(s.want(fail.ExitJob, "cutover", "none.yaml").err, "0 sinks of the job have an alias", "--sink")
	contains(s.want(fail.ExitJob, "cutover", "job.yaml", "--show").err, "there is no alias", "--new-alias")
	es(http.MethodPut, "-1", `{"aliases":{"`+s.vars["ALIAS"]+`":{}}}`)
	contains(s.want(fail.ExitDone, "cutover", "job.yaml").out, "create    next", "next: make the index", "nothing was done")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "create").out, "create: the index is there")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--show").out, "create    done", "backfill  next")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "catch-up").out, "backfill: run", "1 written", "balanced", "catch-up: run")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "backfill").out, "catch-up  done", "verify    next")
	contains(s.want(fail.ExitJob, "cutover", "job.yaml", "--retire").err, "verify comes first")
	contains(s.want(fail.ExitJob, "cutover", "job.yaml", "--yes", "--rollback").err, "nothing to roll back")
	s.write("other.yaml", strings.Replace(cutoverJob, "title: text", "title: text, size: bigint", 1))
	contains(s.want(fail.ExitJob, "cutover", "other.yaml", "--show").err, "was filled by another job")
}
