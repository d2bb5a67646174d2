package httpio

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// soon asks often, so that tests need not wait.
const soon = connector.Duration(5 * time.Millisecond)

func polled(s *services.Workflows, url string) SinkConfig {
	return SinkConfig{URL: s.URL + "/start/{id}", Completion: &Completion{Poll: &Poll{URL: url, Every: soon},
		State: "workflow.state",
		Done:  []string{"Succeeded"}, Failed: []string{"failed"}, Reason: "error",
		Timeout: connector.Duration(time.Minute)}}
}

// TestPoll: a record is settled once its workflow has ended, however it is asked for.
func TestPoll(t *testing.T) {
	t.Parallel()
	o := services.WorkflowOptions{
		Takes: func(w services.Workflow) time.Duration { return time.Duration(len(w.Body)%7) * 20 * time.Millisecond },
		State: func(w services.Workflow) string {
			if strings.HasSuffix(w.Path, "7") {
				return "FAILED"
			}
			return "succeeded"
		},
	}
	for name, url := range map[string]string{"location": "", "key": "/runs/{idempotency_key}",
		"answer": "/runs/{answer.run.id}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := services.NewWorkflows(t, o)
			if url != "" {
				url = s.URL + url
			}
			got := write(t, polled(s, url), assets(200))
			want(t, got, map[string]int{"written": 180, "http.workflow_failed": 20})
			if err := got.all["text-000007"].Err; err == nil ||
				!strings.Contains(err.Error(), "ended as FAILED: so it was told") {
				t.Errorf("the reason is not told: %v", err)
			}
			if _, _, runs, _ := s.Seen(); runs != 200 {
				t.Errorf("%d workflows ran", runs)
			}
		})
	}
}

// TestUnderWay: no more workflows than under_way are triggered before others have ended,
// and Write does not wait for them.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t,
		services.WorkflowOptions{Takes: func(services.Workflow) time.Duration { return time.Hour }})
	c := polled(s, "")
	c.UnderWay = 20
	w, got := start(t, t.Context(), c, assets(500)) // all are taken though none ends
	if _, err := w.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for asked := 0; asked < 200; _, asked, _, _ = s.Seen() {
		time.Sleep(time.Millisecond)
	}
	if triggers, _, _, _ := s.Seen(); triggers != 20 || got.len() > 0 {
		t.Errorf("%d workflows are under way and %d settled, want 20 and none", triggers, got.len())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush gave %v", err)
	}
	want(t, got, map[string]int{})
}

// TestWorkflowTimeout: a workflow that hangs is a dead letter once its time is over, and not
// while the service cannot be asked.
func TestWorkflowTimeout(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{Takes: func(w services.Workflow) time.Duration {
		if strings.HasSuffix(w.Path, "3") {
			return time.Hour
		}
		return 10 * time.Millisecond
	}})
	c := polled(s, "")
	c.Completion.Timeout = connector.Duration(100 * time.Millisecond)
	got := write(t, c, assets(20))
	want(t, got, map[string]int{"written": 18, "http.workflow_timeout": 2})
	if err := got.all["text-000003"].Err; !strings.Contains(err.Error(), `"state":"running"`) {
		t.Errorf("the last answer is not told: %v", err)
	}

	// All end long after their time, but the service could not be asked until then.
	gate, all := iotest.NewGate(), sync.WaitGroup{}
	all.Add(20)
	late := services.NewWorkflows(t,
		services.WorkflowOptions{Takes: func(services.Workflow) time.Duration { return 100 * time.Millisecond },
			Answer: func(n int, _ *http.Request) int {
				all.Done()
				if all.Wait(); n == 20 {
					gate.Shut()
				}
				return 0
			}})
	c = polled(late, "")
	c.Completion.Timeout, c.InFlight = connector.Duration(50*time.Millisecond), 20
	w, got := start(t, connector.WithGate(t.Context(), gate), c, assets(20))
	if err := gate.Wait(t.Context(), func(p iotest.Passed) bool { return p.Waiting > 0 }); err != nil {
		t.Fatal(err)
	}
	for _, run := range late.All() {
		time.Sleep(time.Until(run.Ends) + time.Millisecond)
	}
	gate.Open()
	if _, err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, got, map[string]int{"written": 20})
}

// TestCheck: what is there already is not triggered again; its outcome counts.
func TestCheck(t *testing.T) {
	t.Parallel()
	s := services.NewWorkflows(t, services.WorkflowOptions{Forgets: true,
		Takes: func(services.Workflow) time.Duration { return 50 * time.Millisecond },
		State: func(w services.Workflow) string {
			if strings.HasSuffix(w.Path, "5") {
				return "failed"
			}
			return "succeeded"
		}})
	c := polled(s, "")
	c.Check, c.Completion.Poll.URL = s.URL+"/runs/{idempotency_key}", s.URL+"/runs/{idempotency_key}"
	records := assets(60)

	// An attempt is cut off after some triggers.
	ctx, cancel := context.WithCancel(t.Context())
	w, _ := start(t, ctx, c, records[:40])
	for triggers := 0; triggers < 30; triggers, _, _, _ = s.Seen() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	w.Close()

	got := write(t, c, records)
	n := got.counts()
	if n["http.workflow_failed"] != 6 || n["written"]+n["unchanged"] != 54 || n["unchanged"] < 20 {
		t.Errorf("outcomes %v", n)
	}
	if triggers, _, runs, _ := s.Seen(); triggers != 60 || runs != 60 {
		t.Errorf("%d triggers and %d workflows of a service that knows no idempotency keys, want 60", triggers, runs)
	}

	// Without completion it is enough to be there.
	c.Completion = nil
	want(t, write(t, c, records), map[string]int{"unchanged": 60})
}

// TestLocationElsewhere: no other host is asked than the job names.
func TestLocationElsewhere(t *testing.T) {
	t.Parallel()
	w, got := start(t, t.Context(), polled(redirecting(t, "http://127.0.0.2:1/runs/1"), ""), assets(1))
	if _, err := w.Flush(t.Context()); fail.CodeOf(err) != "http.location" || got.len() > 0 {
		t.Errorf("Flush gave %v", err)
	}
	want(t, write(t, polled(redirecting(t, ""), ""), assets(3)), map[string]int{"http.no_location": 3})
}

// newServer serves until the end of the test, at the address it gives.
func newServer(t *testing.T, serve http.HandlerFunc) string {
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.URL
}

// redirecting is a service whose answers name a Location.
func redirecting(t *testing.T, location string) *services.Workflows {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return &services.Workflows{URL: s}
}

// TestAt reads JSON by a path.
func TestAt(t *testing.T) {
	const text = ` {"a": {"b": "x\ny", "n": 12, "t": true, "o": {"c": []}, "nil": null}, "s": "plain"}`
	for path, want := range map[string]string{"a.b": "x\ny", "a.n": "12", "a.t": "true",
		"a.o": `{"c": []}`, "s": "plain"} {
		if got, ok := at([]byte(text), path); !ok || got != want {
			t.Errorf("%s is %q (%t), want %q", path, got, ok, want)
		}
	}
	for _, c := range [][2]string{{text, "a.z"}, {text, "a.nil"}, {text, "s.x"}, {"no json", "a"}, {"[1]", "a"},
		{`{"a":1`, "a"}, {"", "a"}} {
		if got, ok := at([]byte(c[0]), c[1]); ok {
			t.Errorf("%s of %q is %q, want nothing", c[1], c[0], got)
		}
	}
	if diff := cmp.Diff([]string{"id", "answer.run.id", "created"},
		placeholders("http://h/{id}/{{no}}/{answer.run.id}/{id}?{created:2006}")); diff != "" {
		t.Error(diff)
	}
}
