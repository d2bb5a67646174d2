package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"reprise/io/journal"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// messages are what a command that still runs has written.
type messages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.Write(p)
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.String()
}

// going is a command that goes on, and serves metrics.
type going struct {
	cmd   *exec.Cmd
	out   *messages
	said  *messages // to stderr
	ended chan error
	url   string
}

// serving starts a command and waits until it serves metrics.
func (s *scene) serving(args ...string) *going {
	s.t.Helper()
	g := &going{out: &messages{}, said: &messages{}, ended: make(chan error, 1)}
	g.cmd, _, _ = s.command(s.t.Context(), args...)
	g.cmd.Stdout, g.cmd.Stderr = g.out, g.said
	if err := g.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { g.ended <- g.cmd.Wait() }()
	address := regexp.MustCompile(`http://[^\s"]+/metrics`)
	s.until(g, func() bool {
		g.url = address.FindString(g.out.String() + g.said.String())
		return g.url != ""
	})
	return g
}

// until waits for something while a command goes on.
func (s *scene) until(g *going, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		select {
		case err := <-g.ended:
			s.t.Fatalf("it has ended: %v\n%s", err, g.said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not come to it\n%s", g.said)
		}
	}
}

// end waits for the end of a command.
func (s *scene) end(g *going, code int) {
	s.t.Helper()
	select {
	case <-g.ended:
	case <-time.After(time.Minute):
		_ = g.cmd.Process.Kill()
		s.t.Fatalf("it does not end\n%s", g.said)
	}
	if got := g.cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("exit code %d, want %d\n%s", got, code, g.said)
	}
}

// scrape is what Prometheus would see; nil: a scrape fails while the command ends.
func (s *scene) scrape(g *going) map[string]float64 {
	s.t.Helper()
	resp, err := http.Get(g.url)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if *l.Name != "run" && *l.Name != "job_name" {
					labels = append(labels, *l.Value)
				}
			}
			if (f.GetType().String() == "COUNTER") != strings.HasSuffix(name, "_total") {
				s.t.Errorf("%s is a %s", name, f.GetType())
			}
			found[name+" "+strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return found
}

func (s *scene) noneFell(before, after map[string]float64) {
	s.t.Helper()
	for name, v := range before {
		if strings.Contains(name, "_total ") && after[name] < v {
			s.t.Errorf("%s fell from %v to %v", name, v, after[name])
		}
	}
}

// asStatus compares a scrape with what status tells, once the run stands still.
func (s *scene) asStatus(got map[string]float64) {
	s.t.Helper()
	var st status
	if err := json.Unmarshal([]byte(s.want(fail.ExitDone, "status", "last", "--json").out), &st); err != nil {
		s.t.Fatal(err)
	}
	letters := 0.0
	for name, v := range got {
		if strings.HasPrefix(name, "reprise_dead_letters ") {
			letters += v
		}
	}
	want := map[string]float64{
		"reprise_run_state " + string(st.State): 1, "reprise_run_attempts ": float64(st.Attempt),
		"reprise_splits ":       float64(st.Splits),
		"reprise_rows_planned ": float64(st.Rows), "reprise_rows_read_total ": float64(st.Read),
		"reprise_workers ": float64(st.Workers),
	}
	for name, sink := range st.Sinks {
		want["reprise_splits_open "+name] = float64(sink.Open)
		for o, n := range sink.Outcomes {
			want["reprise_records_total "+record.Outcome(o).String()+" "+name] = float64(n)
		}
	}
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			s.t.Errorf("%s is %v (there: %v), and status says %v", name, g, ok, v)
		}
	}
	if letters != float64(st.DeadLetters) || letters == 0 {
		s.t.Errorf("%v dead letters, and status says %d", letters, st.DeadLetters)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	s.write("job.yaml", `
name: watched
source: {corpus: {rows: 30000}}
transforms:
  - derive: {format: string(json(payload).format)}
sinks:
  all: {files: {path: out/all}}
  few: {when: "format == 'jpg'", files: {path: out/few}}
limits: {unfinished: "400", split_rows: 1000, error_budget: {percent: 100}}
pace: {rates: {source: {records: 1000}}}
`)
	run := s.serving("run", "job.yaml", "--metrics", "127.0.0.1:0", "--log", "json")
	var first map[string]float64
	s.until(run, func() bool {
		first = s.scrape(run)
		return first["reprise_rows_read_total "] > 300
	})
	for name, want := range map[string]float64{
		"reprise_run_state running": 1, "reprise_run_attempts ": 1, "reprise_workers ": 1,
		"reprise_asked_records_per_second source": 1000, "reprise_memory_limit_bytes ": 256 << 20,
		"reprise_sink_left_behind all": 0, "reprise_system_down source": 0,
	} {
		if got, ok := first[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"reprise_rows_left ", "reprise_records_total written all",
		"reprise_system_records_total source", "reprise_system_bytes_total source",
		"reprise_requests_total source", "reprise_request_median_seconds source", "reprise_request_p99_seconds source",
		"reprise_allowed_records_per_second source", "reprise_memory_bytes "} {
		if first[name] <= 0 {
			t.Errorf("%s is %v", name, first[name])
		}
	}

	// Another process sees the same run, also when its own has ended.
	other := s.serving("metrics", "last", "--listen", "localhost:0")
	s.noneFell(first, s.scrape(other))
	s.want(fail.ExitDone, "stop", "last")
	s.end(run, fail.ExitStopped)
	var stopped map[string]float64
	s.until(other, func() bool {
		stopped = s.scrape(other)
		return stopped["reprise_run_state stopped"] == 1 && stopped["reprise_workers "] == 0
	})
	s.noneFell(first, stopped)
	s.asStatus(stopped)

	resumed := s.serving("resume", "last", "--metrics", "127.0.0.1:0")
	var second map[string]float64
	s.until(resumed, func() bool {
		second = s.scrape(resumed)
		return second["reprise_workers "] > 0
	})
	s.noneFell(stopped, second)
	s.want(fail.ExitDone, "throttle", "last", "--rows", "0")
	s.end(resumed, fail.ExitDone)
	var done map[string]float64
	s.until(other, func() bool {
		done = s.scrape(other)
		return done["reprise_run_state done"] == 1 && done["reprise_workers "] == 0
	})
	s.noneFell(second, done)
	s.asStatus(done)
	if done["reprise_rows_read_total "] < 30000 || done["reprise_splits_open all"] != 0 {
		t.Errorf("%v rows are read, %v splits open", done["reprise_rows_read_total "], done["reprise_splits_open all"])
	}
	if err := other.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.end(other, fail.ExitDone)

	checkLog(t, run.said.String())
}

// checkLog checks messages of a run with --log json: each is an object of its own, and those of the run name it.
func checkLog(t *testing.T, text string) {
	t.Helper()
	messages := 0
	for line := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		keys := map[any][]string{"run begins": {"run", "attempt"}, "progress": {"run"},
			"a record becomes a dead letter; further ones of this kind are not logged": {"run", "worker", "step",
				"split", "code"}}
		for _, key := range keys[m["msg"]] {
			messages++
			if m[key] == nil || m[key] == "" {
				t.Errorf("no %s: %s", key, line)
			}
		}
		if m["level"] == "ERROR" &&
			(m["code"] != "run.stopped" || m["class"] != "fatal" || m["exit"] != float64(fail.ExitStopped)) {
			t.Errorf("%s", line)
		}
	}
	if messages < 7 || !strings.Contains(text, "ERROR") || strings.Contains(text, "going on") {
		t.Errorf("the log: %s", text)
	}
}

// TestMetricsOfStages: each stage of a canary is an attempt of the same run, which has its metrics once.
func TestMetricsOfStages(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	s.write("job.yaml", "{name: staged, source: {corpus: {rows: 200}}, sinks: {out: {files: {path: out}}}, canary: "+
		"{stages: [10, 50], dead_letters: 100%}}")
	if r := s.want(fail.ExitDone, "run", "job.yaml", "--metrics", "127.0.0.1:0"); !strings.Contains(r.out, "balanced") {
		t.Error(r.out)
	}
}

func TestMetricsRefused(t *testing.T) {
	t.Parallel()
	s := newExample(t)
	s.env = append(s.env, "METRICS_TOKEN=sesame")
	for _, x := range []struct {
		args []string
		code string
	}{
		{[]string{"--metrics", ":0"}, "metrics.no_token"},
		{[]string{"--metrics", "0.0.0.0:0", "--metrics-token", "env:NO_SUCH_TOKEN"}, "metrics.token"},
		{[]string{"--metrics", "0.0.0.0:0", "--metrics-token", "sesame"}, "metrics.token"},
		{[]string{"--metrics", "here"}, "metrics.address"},
	} {
		r := s.want(fail.ExitJob, append([]string{"run", "job.yaml"}, x.args...)...)
		if !strings.Contains(r.err, x.code) || strings.Contains(r.err, "sesame") {
			t.Errorf("%q: %s", x.args, r.err)
		}
	}
	if names := s.files(); len(names) != 2 {
		t.Errorf("something was written: %v", names)
	}
	s.want(fail.ExitDone, "run", "job.yaml", "--metrics", ":0", "--metrics-token", "env:METRICS_TOKEN")
	if states := s.states(); fmt.Sprint(states) != fmt.Sprint([]journal.State{journal.Complete}) {
		t.Errorf("runs %v", states)
	}
	s.want(fail.ExitJob, "metrics", "last", "--listen", ":0")
	s.want(fail.ExitJob, "metrics", "last")
	s.want(fail.ExitJob, "metrics", "nobody", "--listen", "127.0.0.1:0")
}
