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

// TestCutover goes through the first steps of a cut-over, each by a process of its own; package launch shows the
// others.
func TestCutover(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"SEARCH": services.Need(t, services.Elasticsearch), "ALIAS": services.Name(t)})
	es := func(method, path, body string) {
		t.Helper()
		search(t, method, s.vars["SEARCH"], "/"+s.vars["ALIAS"]+path, body)
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
	contains(s.want(fail.ExitDone, "cutover", "job.yaml").out, "create    next", "next: make the index",
		"nothing was done")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "create").out, "create: the index is there")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--show").out, "create    done", "backfill  next")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "catch-up").out, "backfill: run",
		"1 written", "balanced", "catch-up: run")
	contains(s.want(fail.ExitDone, "cutover", "job.yaml", "--yes", "--to", "backfill").out, "catch-up  done",
		"verify    next")
	contains(s.want(fail.ExitJob, "cutover", "job.yaml", "--retire").err, "verify comes first")
	contains(s.want(fail.ExitJob, "cutover", "job.yaml", "--yes", "--rollback").err, "nothing to roll back")
	s.write("other.yaml", strings.Replace(cutoverJob, "title: text", "title: text, size: bigint", 1))
	contains(s.want(fail.ExitJob, "cutover", "other.yaml", "--show").err, "was filled by another job")
}

// TestCutoverFails: a backfill that brings nothing is no new index, and a watch that fails takes searches back.
func TestCutoverFails(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"SEARCH": services.Need(t, services.Elasticsearch), "ALIAS": services.Name(t)})
	es := func(method, path, body string) string {
		t.Helper()
		_, text := search(t, method, s.vars["SEARCH"], "/"+s.vars["ALIAS"]+path, body)
		return text
	}
	defer es(http.MethodDelete, "-1", "")
	defer es(http.MethodDelete, "-2", "")
	es(http.MethodPut, "-1", `{"aliases":{"`+s.vars["ALIAS"]+`":{}}}`)
	s.write("in.jsonl", `{"id":"a","title":"Dawn"}`+"\n")
	s.write("job.yaml", cutoverJob+"verify: {settle: 1s}\n")
	s.write("empty.yaml", strings.Replace(cutoverJob, "  search:\n", "  search:\n    when: title == \"Dusk\"\n", 1))
	for range 2 { // also when it is looked at again
		if r := s.want(fail.ExitJob, "cutover", "empty.yaml", "--yes"); !strings.Contains(r.err, "cutover.empty") ||
			!strings.Contains(r.err, "1 rows read, 1 filtered") {
			t.Error(r.err)
		}
	}
	es(http.MethodDelete, "-2", "")

	points := func(index string) {
		t.Helper()
		if text := es(http.MethodGet, "/_alias", ""); !strings.Contains(text, s.vars["ALIAS"]+index) {
			t.Errorf("the alias points to %s, not %s", text, index)
		}
	}
	watch := []string{"cutover", "job.yaml", "--yes", "--probe", "http://127.0.0.1:1/", "--watch", "1s"}
	r := s.want(fail.ExitJob, append(watch, "--stay")...)
	if !strings.Contains(r.err, "cutover.watch") || !strings.Contains(r.err, "--rollback") {
		t.Error(r.err)
	}
	points("-2")
	r = s.want(fail.ExitJob, watch...)
	if !strings.Contains(r.out, "watch: 1 of 1 looks") || !strings.Contains(r.out, s.vars["ALIAS"]+"-1 again") ||
		!strings.Contains(r.err, "cutover.rolled_back") {
		t.Error(r.out, r.err)
	}
	points("-1")
}
