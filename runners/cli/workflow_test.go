package cli

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reprise/io/journal"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// workflowJob triggers a workflow for each asset of some types, and waits for its end.
const workflowJob = `
name: thumbnails
source: {corpus: {rows: $ROWS}}
transforms:
  - filter: size != null && asset_type != ''
  - project: {keep: [asset_type, bucket, id, title, size]}
sinks:
  workflow:
    http:
      url: "$URL/start/thumbnails/{asset_type}/{id}"
      $SETTINGS
dead_letters: {files: {path: out/dead}}
limits: {unfinished: "400"}
pace: {outage: 2s, $PACE}
`

const polledSettings = `completion: {poll: {every: 50ms}, state: workflow.state, done: [succeeded], failed: [failed], reason: error}`

// newWorkflows has a job for a service, its settings as lines of the sink.
func newWorkflows(
	t *testing.T, o services.WorkflowOptions, rows int, settings, pace string,
) (*scene, *services.Workflows) {
	service := services.NewWorkflows(t, o)
	s := newScene(t, map[string]string{"URL": service.URL, "ROWS": fmt.Sprint(rows), "SETTINGS": settings,
		"PACE": pace})
	s.write("job.yaml", workflowJob)
	return s, service
}

// disturb starts a command that is to be disturbed, and gives the function that waits for its end.
func (s *scene) disturb(args ...string) (cmd *exec.Cmd, ended func() int) {
	s.t.Helper()
	cmd, out, errs := s.command(s.t.Context(), args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, func() int {
		_ = cmd.Wait()
		s.t.Logf("reprise %s: exit code %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), out, errs)
		return cmd.ProcessState.ExitCode()
	}
}

// TestWorkflows kills runs in the middle and resumes them: each workflow runs once, and the sums balance. What is under
// way at a kill is triggered again by the same key, or found by check where the service knows no keys.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	const rows, kills = 2000, 3
	for name, c := range map[string]struct {
		settings string
		forgets  bool
	}{
		"accepted": {"in_flight: 4", false},
		"polled":   {polledSettings, false},
		"checked": {`check: "$URL/runs/{idempotency_key}"` +
			"\n      completion: {poll: {url: \"$URL/runs/{idempotency_key}\", every: 50ms}, state: workflow.state, " +
			"done: [succeeded], failed: [failed]}", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var started atomic.Int64
			o := services.WorkflowOptions{Forgets: c.forgets,
				Takes: func(services.Workflow) time.Duration { started.Add(1); return 300 * time.Millisecond }}
			s, service := newWorkflows(t, o, rows, "", "rates: {source: {records: 700}}")
			s.vars["SETTINGS"] = strings.ReplaceAll(c.settings, "$URL", service.URL)
			s.write("job.yaml", workflowJob)
			args := []string{"run", "job.yaml", "--report", "report.json"}
			for kill := range kills {
				cmd, ended := s.disturb(args...)
				for least := started.Load() + 250; started.Load() < least && cmd.ProcessState == nil; {
					time.Sleep(5 * time.Millisecond)
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatalf("kill %d: %v", kill, err)
				}
				ended()
				args = []string{"resume", "last", "--report", "report.json"}
			}
			if r := s.want(fail.ExitDone, args...); !strings.Contains(r.out,
				"workflow: the service at "+service.URL+"/start") {
				t.Errorf("it is not told where the records went: %s", r.out)
			}
			report := s.report()
			sink := report.Sinks["workflow"]
			all := service.All()
			triggers, _, runs, _ := service.Seen()
			n := sink.Outcomes
			t.Logf("%d triggers for %d workflows; outcomes %v", triggers, len(all), n)
			deletes := report.Read - rows // which trigger nothing
			if n[record.Written]+n[record.Unchanged]-deletes != int64(len(all)) || n[record.Dead] > 0 ||
				n.Total() != report.Read || report.Attempt != kills+1 {
				t.Errorf("report %+v; %d workflows", report, len(all))
			}
			// A service that knows no keys may be asked and triggered in one moment, and killed in between: check finds
			// what it has accepted.
			if runs != len(all) {
				t.Errorf("%d workflows ran for %d assets", runs, len(all))
			}
			paths := map[string]bool{}
			for _, w := range all {
				paths[w.Path] = true
			}
			if len(paths) != len(all) {
				t.Errorf("%d keys for %d assets", len(all), len(paths))
			}

			// Another run triggers nothing again: the same keys come.
			s.want(fail.ExitDone, "run", "job.yaml", "--report", "report.json")
			if again := service.All(); len(again) != len(all) {
				t.Errorf("another run made %d new keys", len(again)-len(all))
			}
		})
	}
}

// TestWorkflowsDown: a service that answers 500 to everything, or hangs, pauses the run; nothing is lost, and resume
// does the rest.
func TestWorkflowsDown(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"errors": http.StatusInternalServerError, "hangs": -2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var well atomic.Bool
			s, service := newWorkflows(t, services.WorkflowOptions{Answer: func(n int, _ *http.Request) int {
				if n > 100 && !well.Load() {
					return status
				}
				return 0
			}}, 500, "timeout: 500ms", "")
			r := s.want(fail.ExitUnreachable, "run", "job.yaml")
			if !strings.Contains(r.err, "workflow has not answered for 2s") {
				t.Errorf("the reason is not told: %s", r.err)
			}
			if diff := cmp.Diff([]journal.State{journal.Paused}, s.states()); diff != "" {
				t.Errorf("journal: %s", diff)
			}
			well.Store(true)
			s.want(fail.ExitDone, "resume", "last", "--report", "report.json")
			report := s.report()
			n := report.Sinks["workflow"].Outcomes
			if n[record.Dead] > 0 || n[record.Written] != int64(len(service.All())) || n.Total() != report.Read {
				t.Errorf("outcomes %v, %d workflows", n, len(service.All()))
			}
		})
	}
}

// TestWorkflowsFail: workflows that fail, hang or are refused are dead letters with their reasons, beside others that
// go well; redrive with another purpose triggers them anew.
func TestWorkflowsFail(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	kind := func(path string) string {
		if well.Load() {
			return ""
		}
		return map[byte]string{'0': "failed", '1': "hangs", '2': "refused"}[path[len(path)-1]]
	}
	s, service := newWorkflows(t, services.WorkflowOptions{
		Takes: func(w services.Workflow) time.Duration {
			if kind(w.Path) == "hangs" {
				return time.Hour
			}
			return 0
		},
		State: func(w services.Workflow) string {
			if kind(w.Path) == "failed" {
				return "failed"
			}
			return "succeeded"
		},
		Answer: func(_ int, r *http.Request) int {
			if kind(r.URL.Path) == "refused" {
				return http.StatusUnprocessableEntity
			}
			return 0
		},
	}, 400, strings.Replace(polledSettings, "reason: error", "reason: error, timeout: 2s", 1), "")
	s.vars["SETTINGS"] += "\n      purpose: thumbnails"
	s.write("job.yaml", strings.Replace(workflowJob, "limits: {", "limits: {error_budget: {percent: 90}, ", 1))
	s.want(fail.ExitDone, "run", "job.yaml", "--report", "report.json")
	expected := map[string]int{}
	for _, w := range service.All() {
		expected[kind(w.Path)]++
	}
	report := s.report()
	codes := map[string]int{}
	for _, line := range s.lines("out/dead/*.jsonl") {
		for code, name := range map[string]string{"http.workflow_failed": "failed", "http.workflow_timeout": "hangs",
			"http.refused": "refused"} {
			if strings.Contains(line, `"code":"`+code+`"`) {
				codes[name]++
			}
		}
	}
	expected["refused"] = codes["refused"]
	expected[""] = int(report.Sinks["workflow"].Outcomes[record.Written])
	codes[""] = len(service.All()) - codes["failed"] - codes["hangs"]
	if diff := cmp.Diff(expected, codes); diff != "" || len(codes) != 4 || codes["refused"] == 0 {
		t.Errorf("-want +got: %s", diff)
	}

	well.Store(true)
	s.vars["SETTINGS"] = strings.Replace(s.vars["SETTINGS"], "purpose: thumbnails", "purpose: again", 1)
	s.write("again.yaml", workflowJob)
	before := service.All()
	s.want(fail.ExitDone, "redrive", "last", "--job", "again.yaml")
	new := len(service.All()) - len(before)
	if dead := codes["failed"] + codes["hangs"] + codes["refused"]; new != dead {
		t.Errorf("%d new workflows for %d dead letters", new, dead)
	}
	for id, w := range service.All() {
		if _, was := before[id]; !was && w.State != "succeeded" {
			t.Errorf("%s: %s", w.Path, w.State)
		}
	}
}

// TestWorkflowsPace: neither the rate nor the requests at once of the sink are passed over, though polls come beside.
func TestWorkflowsPace(t *testing.T) {
	t.Parallel()
	s, service := newWorkflows(t,
		services.WorkflowOptions{Takes: func(services.Workflow) time.Duration { return 100 * time.Millisecond }},
		300, polledSettings+"\n      in_flight: 64", "rates: {workflow: {records: 60}}, requests: {workflow: 3}")
	began := time.Now()
	s.want(fail.ExitDone, "run", "job.yaml")
	triggers, asked, runs, most := service.Seen()
	// The bucket may hold a quarter of a second at first, and what was missed is made up for at 1.25 times the rate.
	if least := time.Duration(float64(triggers-15) / (1.25 * 60) * float64(time.Second)); time.Since(began) < least {
		t.Errorf("%d triggers within %s, at 60 a second", triggers, time.Since(began))
	}
	if most > 3 || runs != triggers || asked < triggers {
		t.Errorf("%d requests at once, want 3; %d triggers, %d workflows, %d questions", most, triggers, runs, asked)
	}
}

// TestWorkflowsStop stops a run whose workflows take long: it ends soon, and resume waits for them without triggering
// them again.
func TestWorkflowsStop(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	slow.Store(true)
	s, service := newWorkflows(t, services.WorkflowOptions{Takes: func(services.Workflow) time.Duration {
		if slow.Load() {
			return 8 * time.Second
		}
		return 0
	}}, 300, polledSettings, "")
	_, ended := s.disturb("run", "job.yaml")
	for runs := 0; runs < 100; _, _, runs, _ = service.Seen() {
		time.Sleep(5 * time.Millisecond)
	}
	s.want(fail.ExitDone, "stop", "last")
	if code := ended(); code != fail.ExitStopped {
		t.Errorf("exit code %d", code)
	}
	slow.Store(false)
	s.want(fail.ExitDone, "resume", "last", "--report", "report.json")
	_, _, runs, _ := service.Seen()
	if n := s.report().Sinks["workflow"].Outcomes; runs != len(service.All()) || n[record.Written] != int64(runs) {
		t.Errorf("%d ran, outcomes %v", runs, n)
	}
}

// TestBadWorkflowJob: what a job says wrong about HTTP is told with line and caret.
func TestBadWorkflowJob(t *testing.T) {
	s := newScene(t, nil)
	s.write("job.yaml", `
name: bad
source:
  http: {url: "https://licences/{licence}", key: [licence], fields: {licence: text, expires: timestamp}}
sinks:
  a:
    http: {url: "http://me:swordfish@host/start", headers: {Authorization: "Bearer 123456"}, answers: {404: perhaps}, completion: {state: status}}
dead_letters: {files: {path: out/dead}}
`)
	r := s.want(fail.ExitJob, "validate", "job.yaml")
	s.golden("validate-http.golden", r.out+r.err)
	if strings.Contains(r.err, "123456") || strings.Contains(r.err, "swordfish") {
		t.Error("a secret is told")
	}
}
