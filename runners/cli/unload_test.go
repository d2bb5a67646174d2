package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"reprise/io/journal"
	"reprise/runners/services"
	"reprise/transforms/fail"
)

// loadJob makes an index with a refresh interval and a replica of its own, and loads it without.
const loadJob = `
name: load
source: {corpus: {rows: 20000}}
sinks:
  search:
    elasticsearch:
      urls: ["http://$SEARCH"]
      index: $INDEX
      exclude: [thumbnail, embedding]
      create: {settings: {refresh_interval: 7s, number_of_replicas: 1}}
      load: {refresh: off, replicas: 0}
pace: {rates: {source: {records: $RATE}}}
`

// indexSettings are the refresh interval and replicas of the index: "7s 1" as the job makes it, "-1 0" during the load.
func (s *scene) indexSettings() string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.vars["SEARCH"] + "/" + s.vars["INDEX"] + "/_settings")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]struct {
		Settings struct {
			Index struct {
				Refresh  string `json:"refresh_interval"`
				Replicas string `json:"number_of_replicas"`
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil && resp.StatusCode == http.StatusOK {
		s.t.Fatal(err)
	}
	i := got[s.vars["INDEX"]].Settings.Index
	return i.Refresh + " " + i.Replicas
}

func (s *scene) untilSettings(want string) {
	s.t.Helper()
	for began := time.Now(); s.indexSettings() != want; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			s.t.Fatalf("the index has %q, want %q", s.indexSettings(), want)
		}
	}
}

// begin starts a command that goes on.
func (s *scene) begin(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	cmd, _, errs := s.command(s.t.Context(), args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, errs
}

// TestUnload pauses, stops and kills a run that has set an index up for loading, and looks at the index each time.
func TestUnload(t *testing.T) {
	t.Parallel()
	s := newScene(t, map[string]string{"SEARCH": services.Need(t, services.Elasticsearch), "INDEX": services.Name(t),
		"RATE": "500"})
	s.write("job.yaml", loadJob)
	t.Cleanup(func() {
		request, _ := http.NewRequest(http.MethodDelete, "http://"+s.vars["SEARCH"]+"/"+s.vars["INDEX"], nil)
		if resp, err := http.DefaultClient.Do(request); err == nil {
			resp.Body.Close()
		}
	})

	cmd, errs := s.begin("run", "job.yaml")
	s.untilSettings("-1 0")
	s.want(fail.ExitJob, "unload", "job.yaml") // the run goes on
	s.want(fail.ExitDone, "pause", "last")
	s.untilSettings("7s 1")
	s.want(fail.ExitDone, "resume", "last")
	s.untilSettings("-1 0")
	s.want(fail.ExitDone, "stop", "last")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != fail.ExitStopped {
		t.Fatalf("exit code %d\n%s", cmd.ProcessState.ExitCode(), errs)
	}
	if got := s.indexSettings(); got != "7s 1" {
		t.Errorf("after the stop the index has %q", got)
	}

	kill := func() {
		t.Helper()
		cmd, errs := s.begin("resume", "last")
		s.untilSettings("-1 0")
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err, errs)
		}
		cmd.Wait()
		if got := s.indexSettings(); got != "-1 0" {
			t.Errorf("after the kill the index has %q", got)
		}
	}
	kill()
	if r := s.want(fail.ExitDone, "unload", "job.yaml"); !strings.Contains(r.out, "refresh_interval 7s") {
		t.Error(r.out)
	}
	if got := s.indexSettings(); got != "7s 1" {
		t.Errorf("after reprise unload the index has %q", got)
	}
	if r := s.want(fail.ExitDone, "unload", "job.yaml"); !strings.Contains(r.out, "no settings") {
		t.Error(r.out)
	}

	kill()
	s.vars["RATE"] = "1000000"
	s.write("fast.yaml", loadJob)
	s.want(fail.ExitDone, "resume", "last", "--job", "fast.yaml")
	if got := s.indexSettings(); got != "7s 1" {
		t.Errorf("when the run is done the index has %q", got)
	}
	if states := s.states(); len(states) != 1 || states[0] != journal.Complete {
		t.Error(states)
	}

	// Another run finds what the one before it had made, and leaves the settings alone: it did not make the index.
	s.want(fail.ExitDone, "run", "fast.yaml")
	if status := s.want(fail.ExitDone, "status", "last").out; strings.Contains(status, "for loading") {
		t.Error(status)
	}

	// The journal may be gone.
	if err := os.RemoveAll(s.dir + "/.reprise"); err != nil {
		t.Fatal(err)
	}
	s.want(fail.ExitDone, "unload", "job.yaml")
}
