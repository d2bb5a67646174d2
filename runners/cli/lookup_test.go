package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/transforms/fail"
)

// TestLookUp joins assets with licences that a service knows, which is asked once for each and at no more than a rate;
// what it refuses is a dead letter.
func TestLookUp(t *testing.T) {
	t.Parallel()
	var asked, busy atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch name := strings.TrimPrefix(r.URL.Path, "/licences/"); {
		case busy.Add(1)%3 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case name == "none":
			http.NotFound(w, r)
		case name == "bad":
			http.Error(w, "no such form", http.StatusUnprocessableEntity)
		default:
			fmt.Fprintf(w, `{"holder": "holder of %s", "seats": 3}`, name)
		}
	}))
	defer service.Close()
	s := newScene(t, map[string]string{"URL": service.URL})
	var in strings.Builder
	for i := range 600 {
		fmt.Fprintf(&in, `{"id":"a%d","licence":"%s"}`+"\n", i, []string{"x y", "none", "z", "bad"}[i%4])
	}
	s.write("in.jsonl", in.String())
	s.write("job.yaml", `
name: licences
source:
  join:
    of: {files: {path: in.jsonl, key: [id], fields: {id: text, licence: text}}}
    with:
      licences:
        of: {http: {url: "$URL/licences/{licence}", key: [licence], fields: {licence: text, holder: text, seats: int}}}
        on: {licence: licence}
        fields: {holder: holder, seats: seats}
sinks: {all: {files: {path: out/all}}}
dead_letters: {files: {path: out/dead}}
limits: {error_budget: {percent: 50}}
`)
	s.want(fail.ExitDone, "run", "job.yaml")
	got := map[string]int{}
	for _, line := range s.lines("out/all/*.jsonl") {
		_, rest, _ := strings.Cut(line, `"licence":`)
		got[rest]++
	}
	for _, line := range s.lines("out/dead/*.jsonl") {
		if strings.Contains(line, `"code":"http.refused"`) && strings.Contains(line, "no such form") {
			got["dead"]++
		}
	}
	want := map[string]int{`"x y","holder":"holder of x y","seats":3}`: 150, `"none","holder":null,"seats":null}`: 150,
		`"z","holder":"holder of z","seats":3}`: 150, "dead": 150}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := asked.Load(); n > 600 {
		t.Errorf("the service was asked %d times for 600 rows of 4 licences", n)
	}
}
