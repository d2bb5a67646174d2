package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reprise/runners/services"
)

// TestAFollowingRunTriesAgain: a record that fails by what may pass is set aside while the others go on, and is sent
// again by the run itself once its delay is over.
func TestAFollowingRunTriesAgain(t *testing.T) {
	t.Parallel()
	const assets = 3000
	var mended atomic.Bool
	var mu sync.Mutex
	seen := map[string]int{}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/k5" && !mended.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		time.Sleep(10 * time.Millisecond) // so that others are answered as long as k5 is not
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.Path]++
	}))
	defer service.Close()
	s := newScene(t, map[string]string{"KAFKA": services.Need(t, services.Kafka), "TOPIC": services.Name(t),
		"SERVICE": service.URL})
	s.write("publish.yaml", `
name: publish
source: {files: {path: assets.jsonl, key: [id], fields: {id: text}}}
sinks:
  events: {kafka: {brokers: ["$KAFKA"], topic: $TOPIC, processor: hook, create: {partitions: 2}}}
journal: {sqlite: publish.db}
`)
	s.write("process.yaml", `
name: process
source:
  kafka: {brokers: ["$KAFKA"], topic: $TOPIC, key: [id], fields: {id: text}, follow: true, group: $TOPIC, processor: hook}
sinks:
  hook: {http: {url: "$SERVICE/{id}", retry_for: 1s}}
retry: {after: [1s, 1s, 1s, 1s, 1s]}
limits: {commit_every: {time: 1s}}
journal: {sqlite: process.db}
`)
	var lines strings.Builder
	for i := range assets {
		fmt.Fprintf(&lines, "{\"id\":\"k%d\"}\n", i)
	}
	s.write("assets.jsonl", lines.String())
	s.want(0, "run", "publish.yaml")

	cmd, out, errs := s.command(t.Context(), "run", "process.yaml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	until := func(what string, such func() bool) {
		t.Helper()
		for range 600 {
			if such() {
				return
			}
			select {
			case err := <-ended:
				t.Fatalf("the run ends before %s: %v\n%s%s", what, err, out, errs)
			case <-time.After(100 * time.Millisecond):
			}
		}
		t.Fatalf("not %s", what)
	}
	letters := func(state string) func() bool {
		return func() bool {
			r := s.run("dead", "list", "last", "--journal", "process.db")
			rows := strings.Split(strings.TrimSpace(r.out), "\n")
			last := strings.Fields(rows[len(rows)-1])
			return len(last) > 1 && last[1] == state
		}
	}
	until("a dead letter is there", letters("waits"))
	until("the others are through", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) >= assets-1
	})
	mended.Store(true)
	until("it was sent again", letters("sent"))
	s.want(0, "stop", "last", "--journal", "process.db")
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the run does not stop")
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out.String(), "sums: balanced so far") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	mu.Lock()
	defer mu.Unlock()
	if seen["/k5"] != 1 || seen["/k6"] != 1 {
		t.Errorf("k5 was triggered %d times, k6 %d times", seen["/k5"], seen["/k6"])
	}
}
