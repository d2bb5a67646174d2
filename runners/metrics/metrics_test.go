package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/job"
	"reprise/transforms/fail"
	"reprise/transforms/golden"
	"reprise/transforms/record"
)

// newRun begins a run of two sinks whose plan has a number of splits of 10 rows.
func newRun(t *testing.T, splits int) (journal.Journal, string) {
	t.Helper()
	return newRunOf(t, splits, "{corpus: {rows: 100}}")
}

func newRunOf(t *testing.T, splits int, source string) (journal.Journal, string) {
	t.Helper()
	ctx := t.Context()
	j, err := journal.Open(ctx, journal.Config{SQLite: filepath.Join(t.TempDir(), "journal.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	of, err := job.Parse("job.yaml", []byte(`
name: assets
source: `+source+`
sinks: {lake: {files: {path: a}}, search: {files: {path: b}}}
pace: {rates: {source: {records: 500}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	r := journal.Run{ID: "r1", Job: of.Name, Started: time.Unix(1_700_000_000, 0), JobFile: text}
	if err := j.Begin(ctx, r); err != nil {
		t.Fatal(err)
	}
	plan := func(yield func(connector.Split) bool) {
		for i := range splits {
			if !yield(split(i)) {
				return
			}
		}
	}
	if err := j.SavePlan(ctx, r.ID, plan, journal.Total{Splits: splits, Rows: int64(10 * splits)}); err != nil {
		t.Fatal(err)
	}
	return j, r.ID
}

func split(i int) connector.Split {
	return connector.Split{Partition: fmt.Sprint("p", i), Start: []byte{1}, End: []byte{2}, Rows: 10}
}

// attempt begins an attempt.
func attempt(t *testing.T, j journal.Journal, run string) int {
	t.Helper()
	n, err := j.Attempt(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// finish finishes some splits at some sinks, "" included, with one dead letter each at each sink.
func finish(t *testing.T, j journal.Journal, run string, attempt, from, to int, sinks ...string) {
	t.Helper()
	var b journal.Batch
	for i := from; i < to; i++ {
		for _, sink := range sinks {
			s := split(i)
			d := journal.Done{Sink: sink, Partition: s.Partition, Start: s.Start, End: s.End,
				Sum: journal.Sum{Read: 10}}
			if sink != "" {
				d.Sum.Outcomes[record.Written], d.Sum.Outcomes[record.Dead], d.Sum.Letters = 9, 1, 1
				b.Letters = append(b.Letters, journal.Letter{ID: fmt.Sprint(sink, i), Sink: sink, Step: "sink " + sink,
					Code: fmt.Sprint("sink.code_", i%60), State: journal.Waits})
			}
			b.Done = append(b.Done, d)
		}
	}
	if err := j.Record(t.Context(), run, attempt, b); err != nil {
		t.Fatal(err)
	}
}

func beat(t *testing.T, j journal.Journal, run string, b journal.Beat) {
	t.Helper()
	if b.At.IsZero() {
		b.At = time.Now()
	}
	b.Host = "elsewhere"
	if err := j.Beat(t.Context(), run, b); err != nil {
		t.Fatal(err)
	}
}

// samples are what a registry with the metrics of a run gives: name{label="value",...} without run and job.
func samples(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if *l.Name != "run" && *l.Name != "job_name" {
					labels = append(labels, fmt.Sprintf("%s=%q", *l.Name, *l.Value))
				}
			}
			found[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return found
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, v)
		}
	}
}

func TestValues(t *testing.T) {
	j, run := newRun(t, 10)
	c := NewCollector(j, run)
	expect(t, samples(t, c), map[string]float64{
		`reprise_run_state{state="running"}`: 1, `reprise_run_attempts{}`: 0, `reprise_workers{}`: 0,
		`reprise_splits{}`: 10, `reprise_splits_open{sink="lake"}`: 10,
		`reprise_rows_left{}`: 100, `reprise_rows_read_total{}`: 0, `reprise_system_records_total{system="source"}`: 0,
	})
	n := attempt(t, j, run)
	finish(t, j, run, n, 0, 4, "", "lake")
	finish(t, j, run, n, 0, 3, "search")
	gauge := func(records int64) journal.Gauge {
		return journal.Gauge{Records: records, Bytes: 10 * records, Requests: records / 10,
			Errors: map[string]int64{"throttled": records / 20},
			Asked:  journal.Rate{Records: 200}, P50: 10 * time.Millisecond,
			P99: time.Duration(records) * time.Millisecond}
	}
	beat(t, j, run, journal.Beat{Worker: "a", Attempt: n, Memory: 100,
		Systems: map[string]journal.Gauge{"source": gauge(40), "search": {Down: true}}, Cause: journal.BySystem})
	beat(t, j, run, journal.Beat{Worker: "b", Attempt: n, Memory: 300,
		Systems: map[string]journal.Gauge{"source": gauge(20)}, Down: map[string]string{"search": "no answer"}})
	beat(t, j, run, journal.Beat{Worker: "killed", Attempt: n, At: time.Now().Add(-time.Minute), Memory: 900,
		Systems: map[string]journal.Gauge{"source": gauge(1000)}})
	if err := j.SetControl(t.Context(), run, journal.Event{Kind: "throttle"}, func(c *journal.Control) {
		c.Rates = map[string]journal.Rate{"search": {Bytes: 4096}}
	}); err != nil {
		t.Fatal(err)
	}
	c.until = time.Time{}
	got := samples(t, c)
	expect(t, got, map[string]float64{
		`reprise_run_state{state="running"}`: 1, `reprise_run_state{state="interrupted"}`: 0,
		`reprise_run_attempts{}`: 1, `reprise_run_start_time_seconds{}`: 1_700_000_000,
		`reprise_workers{}`: 2, `reprise_workers_waiting{cause="system"}`: 1,
		`reprise_workers_waiting{cause="operator"}`: 0,
		`reprise_memory_bytes{}`:                    300, `reprise_memory_limit_bytes{}`: 256 << 20,
		`reprise_rows_planned{}`: 100, `reprise_rows_left{}`: 60, `reprise_rows_read_total{}`: 40,
		`reprise_splits_open{sink="lake"}`: 6, `reprise_splits_open{sink="search"}`: 7,
		`reprise_records_total{outcome="written",sink="lake"}`:  36,
		`reprise_records_total{outcome="dead",sink="search"}`:   3,
		`reprise_records_total{outcome="filtered",sink="lake"}`: 0,
		`reprise_sink_left_behind{sink="search"}`:               1, `reprise_sink_left_behind{sink="lake"}`: 0,
		`reprise_system_down{system="search"}`:                                    1,
		`reprise_dead_letters{code="sink.code_1",state="waits",step="sink lake"}`: 1,
		`reprise_system_records_total{system="source"}`:                           1060,
		`reprise_system_bytes_total{system="source"}`:                             10600,
		`reprise_requests_total{system="source"}`:                                 106,
		`reprise_request_errors_total{class="throttled",system="source"}`:         53,
		`reprise_request_errors_total{class="transient",system="source"}`:         0,
		`reprise_request_median_seconds{system="source"}`:                         0.01,
		`reprise_request_p99_seconds{system="source"}`:                            0.04,
		`reprise_asked_records_per_second{system="source"}`:                       500,
		`reprise_allowed_records_per_second{system="source"}`:                     400,
		`reprise_asked_bytes_per_second{system="search"}`:                         4096,
	})
	if _, ok := got[`reprise_asked_records_per_second{system="lake"}`]; ok {
		t.Error("lake has a rate, though none is asked for")
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// TestCountersNeverFall: neither when a run is resumed nor when a reading misses something.
func TestCountersNeverFall(t *testing.T) {
	j, run := newRun(t, 10)
	c := NewCollector(j, run)
	var last map[string]float64
	for i := range 4 {
		n := attempt(t, j, run)
		c.until = time.Time{}
		resumed := samples(t, c)
		finish(t, j, run, n, 2*i, 2*i+2, "", "lake", "search")
		beat(t, j, run, journal.Beat{Worker: fmt.Sprint("w", i), Attempt: n,
			Systems: map[string]journal.Gauge{"source": {Records: 20, Requests: 2}}})
		c.until = time.Time{}
		now := samples(t, c)
		for _, later := range []map[string]float64{resumed, now} {
			for name, v := range last {
				if strings.Contains(name, "_total{") && later[name] < v {
					t.Errorf("attempt %d: %s falls from %v to %v", n, name, v, later[name])
				}
			}
		}
		last = now
	}
	expect(t, last, map[string]float64{`reprise_system_records_total{system="source"}`: 80,
		`reprise_rows_read_total{}`: 80, `reprise_run_attempts{}`: 4})

	r := &reading{Collector: c}
	r.add(rowsRead, 3)
	if got := testutil.ToFloat64(constant{r.metrics[0]}); got != 80 {
		t.Errorf("a reading of 3 after 80 gives %v", got)
	}
}

// constant is a collector of one metric.
type constant struct{ prometheus.Metric }

func (c constant) Describe(to chan<- *prometheus.Desc) { to <- c.Desc() }
func (c constant) Collect(to chan<- prometheus.Metric) { to <- c.Metric }

// TestCardinality: the number of series depends on sinks alone, not on splits, workers, codes and attempts.
func TestCardinality(t *testing.T) {
	const bound = 300
	for _, splits := range []int{10, 3000} {
		j, run := newRun(t, splits)
		for range 3 {
			n := attempt(t, j, run)
			for w := range splits / 10 {
				beat(t, j, run, journal.Beat{Worker: fmt.Sprint("w", w), Attempt: n,
					Waiting: fmt.Sprint("search is down since ", w), Cause: journal.BySystem,
					Systems: map[string]journal.Gauge{"source": {Errors: map[string]int64{"transient": 1}, P99: 1},
						"lake": {P99: 1}, "search": {P99: 1}}})
			}
		}
		finish(t, j, run, 3, 0, splits, "", "lake", "search")
		got := samples(t, NewCollector(j, run))
		if len(got) > bound {
			t.Errorf("%d series for %d splits, want %d at most", len(got), splits, bound)
		}
		kinds := 0
		letters := 0.0
		for name, v := range got {
			if strings.HasPrefix(name, "reprise_dead_letters{") {
				kinds++
				letters += v
			}
		}
		if kinds > maxKinds+1 || letters != float64(2*splits) {
			t.Errorf("%d kinds of dead letters, %v letters, want %d at most and %d", kinds, letters, maxKinds+1,
				2*splits)
		}
	}
}

func TestStates(t *testing.T) {
	j, run := newRun(t, 1)
	c := NewCollector(j, run)
	attempt(t, j, run)
	for _, s := range states[1:] {
		if s != interrupted { // a run whose workers are silent
			if err := j.Finish(t.Context(), run, 1, s, nil); err != nil {
				t.Fatal(err)
			}
		}
		c.until = time.Time{}
		got := samples(t, c)
		for _, other := range states {
			if v := got[fmt.Sprintf("reprise_run_state{state=%q}", other)]; v != one(other == s) {
				t.Errorf("%s: %s is %v", s, other, v)
			}
		}
	}
}

// TestReadingsAreShared: scrapes right after each other read the journal once.
func TestReadingsAreShared(t *testing.T) {
	j, run := newRun(t, 1)
	c := NewCollector(j, run)
	samples(t, c)
	c.until = time.Now().Add(time.Hour)
	attempt(t, j, run)
	expect(t, samples(t, c), map[string]float64{`reprise_run_attempts{}`: 0})
	c.until = time.Time{}
	expect(t, samples(t, c), map[string]float64{`reprise_run_attempts{}`: 1})
	if wait := time.Until(c.until); wait <= 0 {
		t.Errorf("the next reading is %v ago", -wait)
	}
}

func TestServer(t *testing.T) {
	j, run := newRun(t, 5)
	s, err := Listen("localhost:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if code, text := get(t, s, ""); code != http.StatusOK || text != "" {
		t.Errorf("before the run: %d %s", code, text)
	}
	s.Show(j, run)
	code, text := get(t, s, "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if code != http.StatusOK || err != nil || families["reprise_splits"].GetMetric()[0].GetGauge().GetValue() != 5 {
		t.Errorf("%d %v\n%s", code, err, text)
	}

	blind, err := Listen("[::1]:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	j.Close()
	blind.Show(j, run)
	if code, text := get(t, blind, ""); code != http.StatusInternalServerError {
		t.Errorf("without the journal: %d %s", code, text)
	}
}

func get(t *testing.T, s *Server, authorization string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestToken(t *testing.T) {
	t.Setenv("METRICS_TOKEN", "open sesame")
	t.Setenv("EMPTY_TOKEN", "")
	s, err := Listen("127.0.0.1:0", "env:METRICS_TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for authorization, want := range map[string]int{"": 401, "Bearer": 401, "Bearer open": 401, "open sesame": 401,
		"Basic open sesame": 401, "Bearer open sesame ": 200, "Bearer open sesame": 200} {
		if code, text := get(t, s, authorization); code != want || code == 401 && strings.Contains(text, "sesame") {
			t.Errorf("%q: %d, want %d\n%s", authorization, code, want, text)
		}
	}
	for _, x := range []struct {
		address string
		token   connector.Secret
		code    string
	}{
		{":0", "", "metrics.no_token"}, {"0.0.0.0:0", "", "metrics.no_token"}, {"[::]:0", "", "metrics.no_token"},
		{"192.0.2.1:0", "", "metrics.no_token"},
		{"127.0.0.1:0", "env:EMPTY_TOKEN", "metrics.token"}, {":0", "env:NO_SUCH_TOKEN", "metrics.token"},
		{":0", "plain", "metrics.token"},
		{"127.0.0.1", "", "metrics.address"}, {"127.0.0.1:many", "", "metrics.address"},
		{s.listener.Addr().String(), "", "metrics.address"},
	} {
		other, err := Listen(x.address, x.token)
		if fail.CodeOf(err) != x.code || fail.ExitOf(err) != fail.ExitJob ||
			strings.Contains(fmt.Sprint(err), "plain") {
			t.Errorf("%s %s: %v, want %s", x.address, x.token, err, x.code)
		}
		if err == nil {
			other.Close()
		}
	}
	everywhere, err := Listen(":0", "env:METRICS_TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	everywhere.Close()
}

// TestARunThatGoesOn: how far it is behind, which partitions nobody reads, and how long events take, of all workers.
func TestARunThatGoesOn(t *testing.T) {
	j, run := newRunOf(t, 5, `{kafka: {brokers: ["h:1"], topic: t, key: [id], fields: {id: text}, follow: true}}`)
	n := attempt(t, j, run)
	c := NewCollector(j, run)
	got := samples(t, c)
	for name := range got {
		if strings.Contains(name, "behind_") || strings.Contains(name, "unread") ||
			strings.Contains(name, "rows_left") {
			t.Errorf("%s is told, and nobody knows", name)
		}
	}
	lag := func(partition string, records int64) connector.Lag {
		return connector.Lag{Partition: partition, Records: records}
	}
	beat(t, j, run, journal.Beat{Worker: "a", Member: "one", Attempt: n, Behind: &journal.Behind{Records: 9,
		Age: time.Minute, Partitions: []connector.Lag{lag("p0", 7), lag("p1", 2)},
		Delays: map[string]journal.Delay{"lake": {P50: time.Second, P99: 3 * time.Second}}}})
	beat(t, j, run, journal.Beat{Worker: "b", Member: "two", Attempt: n, Behind: &journal.Behind{Records: 8,
		Age: time.Second, Partitions: []connector.Lag{lag("p2", 8), lag("p1", 2)},
		Delays: map[string]journal.Delay{"lake": {P50: 2 * time.Second, P99: 2 * time.Second}}}})
	beat(t, j, run, journal.Beat{Worker: "killed", Member: "three", Attempt: n, At: time.Now().Add(-time.Minute),
		Behind: &journal.Behind{Records: 100, Age: time.Hour, Partitions: []connector.Lag{lag("p3", 100)}}})
	c.until = time.Time{}
	expect(t, samples(t, c), map[string]float64{`reprise_members{}`: 2, `reprise_behind_records{}`: 17,
		`reprise_behind_seconds{}`: 60, `reprise_partitions_unread{}`: 2,
		`reprise_partition_behind_records{partition="p0"}`: 7, `reprise_partition_behind_records{partition="p1"}`: 2,
		`reprise_partition_behind_records{partition="p2"}`: 8,
		`reprise_delay_median_seconds{sink="lake"}`:        2, `reprise_delay_p99_seconds{sink="lake"}`: 3})

	// Of many partitions those with most records have series; then a worker does not name all that it reads.
	many := &journal.Behind{}
	for i := range journal.MostPartitions {
		many.Partitions = append(many.Partitions, lag(fmt.Sprint("many", i), int64(1000-i)))
	}
	beat(t, j, run, journal.Beat{Worker: "c", Member: "two", Attempt: n, Behind: many})
	c.until = time.Time{}
	got = samples(t, c)
	series := 0
	for name := range got {
		if strings.HasPrefix(name, "reprise_partition_behind_records") {
			series++
		}
	}
	if _, told := got[`reprise_partitions_unread{}`]; told || series != journal.MostPartitions {
		t.Errorf("%d series of partitions; those that nobody reads: %t", series, told)
	}
	expect(t, got, map[string]float64{`reprise_members{}`: 2,
		`reprise_partition_behind_records{partition="many0"}`: 1000})
}

// TestAlerts holds the rules to the metrics: names, labels and values of labels that they use are there, and each says
// what to do.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, m := range all {
		found := regexp.MustCompile(`variableLabels: \{([^}]*)\}`).FindStringSubmatch(m.desc.String())
		labels[m.name] = strings.Split(found[1], ",")
	}
	values := map[string][]string{"outcome": {}, "class": {}, "cause": {}, "state": {}}
	for o := record.Written; o < record.NumOutcomes; o++ {
		values["outcome"] = append(values["outcome"], o.String())
	}
	for _, c := range classes {
		values["class"] = append(values["class"], c.String())
	}
	for _, c := range causes {
		values["cause"] = append(values["cause"], string(c))
	}
	for _, s := range states {
		values["state"] = append(values["state"], string(s))
	}
	values["state"] = append(values["state"], string(journal.Waits))
	var names []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			names = append(names, r.Alert)
			if r.Annotations["summary"] == "" || r.Annotations["action"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: summary, action and severity are needed", r.Alert)
			}
			if _, err := model.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			used := regexp.MustCompile(`(reprise_\w+)(\{(\w+)(=~?)"([^"]*)"\})?`).FindAllStringSubmatch(r.Expr, -1)
			if len(used) == 0 {
				t.Errorf("%s uses no metric", r.Alert)
			}
			for _, u := range used {
				of, ok := labels[u[1]]
				if !ok {
					t.Errorf("%s: there is no %s", r.Alert, u[1])
				}
				if u[3] == "" {
					continue
				}
				for _, v := range strings.Split(u[5], "|") {
					if !slices.Contains(of, u[3]) || !slices.Contains(values[u[3]], v) {
						t.Errorf("%s: %s has no %s %q", r.Alert, u[1], u[3], v)
					}
				}
			}
			for _, by := range regexp.MustCompile(
				`by \(([^)]*)\) \(+(?:increase\(|rate\()?(reprise_\w+)`).FindAllStringSubmatch(r.Expr, -1) {
				for _, l := range strings.Split(by[1], ", ") {
					if !slices.Contains(labels[by[2]], l) {
						t.Errorf("%s: %s has no label %s", r.Alert, by[2], l)
					}
				}
			}
			if open, closed := strings.Count(r.Expr, "("), strings.Count(r.Expr, ")"); open != closed {
				t.Errorf("%s: %d ( and %d )", r.Alert, open, closed)
			}
		}
	}
	if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) || len(names) < 8 {
		t.Errorf("alerts %v", names)
	}
}

// TestNames is the list of what dashboards may rely on.
func TestNames(t *testing.T) {
	var got []string
	for _, m := range all {
		d := m.desc.String()
		kind := map[prometheus.ValueType]string{prometheus.CounterValue: "counter",
			prometheus.GaugeValue: "gauge"}[m.kind]
		labels := regexp.MustCompile(`variableLabels: \{([^}]*)\}`).FindStringSubmatch(d)
		got = append(got, fmt.Sprintf("%s %s %s", m.name, kind, labels[1]))
	}
	slices.Sort(got)
	golden.Compare(t, "testdata/names.golden", strings.Join(got, "\n")+"\n")
}
