package launch_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"reprise/pipelines/runs"
	"reprise/pipelines/verify"
	"reprise/pipelines/verify/compare"
	"reprise/runners/services"
)

const searchCopy = `
name: copy
source: {elasticsearch: {urls: ["http://%[1]s"], index: %[2]s, key: [id]}}
sinks:
  search: {elasticsearch: {urls: ["http://%[1]s"], index: %[2]s_copy, create: {}}}
  lines: {files: {path: "%[3]s/lines", meta: true}}
dead_letters: {files: {path: "%[3]s/dead"}}
journal: {sqlite: "%[3]s/journal.db"}
verify: {settle: 50ms}
`

// Whatever stands in the documents of an index is copied and compared, also what its mapping does not know.
func TestSearchCopyIsVerifiedWhole(t *testing.T) {
	for _, service := range []services.Service{services.Elasticsearch, services.OpenSearch} {
		t.Run(string(service), func(t *testing.T) {
			p := &platform{t: t, search: services.Need(t, service)}
			name := services.Name(t)
			text := fmt.Sprintf(searchCopy, p.search, name, t.TempDir())
			for _, index := range []string{name, name + "_copy"} {
				t.Cleanup(func() { p.es(context.WithoutCancel(t.Context()), http.MethodDelete, "/"+index, "") })
			}
			p.must(http.MethodPut, "/"+name, `{"mappings":{"dynamic":false,"properties":{"id":{"type":"keyword"},"at":{"type":"date"},"us":{"properties":{"er":{"type":"long"}}}}}}`)
			put := func(index, id, doc string) {
				t.Helper()
				p.must(http.MethodPut,
					fmt.Sprintf("/%s/_doc/%s?version=1700000000000000&version_type=external_gte&refresh=true", index,
						id), doc)
			}
			put(name, "a", `{"id":"a","at":"2024","us.er":1,"more":{"b":[1,{"c":null}]}}`)
			put(name, "b", `{"id":"b","at":1714521600000,"us":{"er":2,"other":"x"},"un.known":1.50}`)
			put(name, "c", `{"id":"c","at":["2024-05-06"]}`)
			put(name, "d", `{"id":"d"}`)
			if _, err := runs.Prepare(t.Context(), parse(t, text)); err == nil || !strings.Contains(err.Error(), `at: "list<timestamp>"`) {
				t.Errorf("a list where the mapping tells of none gives %v", err)
			}
			put(name, "c", `{"id":"c","at":"2024-05-06"}`)
			if _, report, err := execute(t, text, nil); err != nil || len(report.Faults) > 0 || report.DeadLetters > 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			for id, want := range map[string]string{
				"a": `{"at":"2024-01-01T00:00:00.000Z","id":"a","us":{"er":1},"more":{"b":[1,{"c":null}]}}`,
				"b": `{"at":"2024-05-01T00:00:00.000Z","id":"b","us":{"er":2,"other":"x"},"un.known":1.50}`,
				"c": `{"at":"2024-05-06T00:00:00.000Z","id":"c"}`, "d": `{"id":"d"}`,
			} {
				if got := p.must(http.MethodGet, "/"+name+"_copy/_source/"+id, ""); strings.TrimSpace(got) != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
			r := checked(t, text, verify.Options{})
			if got := wrong(r, "search") + wrong(r, "lines"); got != "" {
				t.Errorf("of an untouched copy are wrong: %s\n%+v", got, r.Sinks["search"].Examples)
			}
			put(name+"_copy", "b", `{"id":"b","at":"2024-05-01","us":{"er":2,"other":"y"},"un.known":1.50}`)
			put(name+"_copy", "d", `{"id":"d","more":null}`)
			r = checked(t, text, verify.Options{})
			if got := wrong(r, "search"); got != "2 different" {
				t.Errorf("wrong are %q", got)
			}
			put(name+"_copy", "of an older scheme", `{"id":"a","at":"2024","us.er":1,"more":{"b":[1,{"c":null}]}}`)
			r = checked(t, text, verify.Options{Folder: t.TempDir()})
			if got := wrong(r, "search"); got != "1 extra, 2 different" {
				t.Errorf("with a document that stands there under another id as well wrong are %q", got)
			}
			for _, e := range r.Sinks["search"].Examples {
				if e.Kind == compare.Extra {
					if e.Key != "of an older scheme" {
						t.Errorf("%+v", e)
					}
					continue
				}
				if e.Kind != compare.Different || len(e.Fields) != 1 || e.Fields[0].Field != "_rest" {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}
