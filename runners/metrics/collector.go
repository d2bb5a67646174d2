package metrics

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"reprise/io/connector"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// metric is one name.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	name string
}

var all []metric

func define(kind prometheus.ValueType, name, help string, labels ...string) metric {
	// The label "job" is Prometheus' own: which of its jobs scrapes.
	m := metric{prometheus.NewDesc(name, help, append([]string{"run", "job_name"}, labels...), nil), kind, name}
	all = append(all, m)
	return m
}

func gauge(name, help string, labels ...string) metric {
	return define(prometheus.GaugeValue, name, help, labels...)
}

func counter(name, help string, labels ...string) metric {
	return define(prometheus.CounterValue, name, help, labels...)
}

var (
	runState = gauge("reprise_run_state", "1 for the state that the run is in, 0 for the others. Interrupted: "+
		"nothing ended it, but no worker has a recent heartbeat.", "state")
	runStart   = gauge("reprise_run_start_time_seconds", "When the run began, in seconds since 1970.")
	runAttempt = gauge("reprise_run_attempts", "Attempts at the run so far, resumes included.")

	workersAlive   = gauge("reprise_workers", "Workers with a recent heartbeat.")
	workersWaiting = gauge("reprise_workers_waiting", "Workers that wait, or go slower than they could, by cause.",
		"cause")
	memoryUsed = gauge("reprise_memory_bytes",
		"Memory that the largest worker process has from the operating system, by Go's count.")
	memoryLimit = gauge("reprise_memory_limit_bytes",
		"The job's limits.memory, which the garbage collector of each worker aims to stay below.")

	rowsPlanned = gauge("reprise_rows_planned", "Rows that the plan expects, an estimate.")
	rowsLeft    = gauge("reprise_rows_left", "Rows planned and not read yet, an estimate.")
	rowsRead    = counter("reprise_rows_read_total", "Rows read, through the shared transforms, and in the journal.")
	splits      = gauge("reprise_splits", "Splits of the plan.")
	splitsOpen  = gauge("reprise_splits_open", "Splits that a sink has not finished.", "sink")
	records     = counter("reprise_records_total",
		"Records that have ended, by sink and outcome, each counted once, as in the report.", "sink", "outcome")
	leftBehind = gauge("reprise_sink_left_behind",
		"1: the sink failed in this attempt, and the others go on without it.", "sink")
	deadLetters = gauge("reprise_dead_letters", "Dead letters by step, code, and whether they wait, were sent again "+
		"or are parked. Beyond 50 pairs of step and code: other.", "step", "code", "state")

	behindRecords = gauge("reprise_behind_records",
		"Of a run that goes on: records that have come and are not finished at all sinks.")
	behindSeconds   = gauge("reprise_behind_seconds", "The age of the oldest of them, at most.")
	behindPartition = gauge("reprise_partition_behind_records", "The same by partition, of the 32 with most of them.",
		"partition")
	unread = gauge("reprise_partitions_unread", "Of a run that goes on: partitions of the plan that no worker reads "+
		"now. Not there where a worker has more partitions than it names.")
	delayMedian = gauge("reprise_delay_median_seconds", "From when an event came about to its outcome at a sink, of "+
		"the last ones, of the worker where it took longest.", "sink")
	delayP99 = gauge("reprise_delay_p99_seconds", "The same, which all but one in a hundred took at most.", "sink")
	members  = gauge("reprise_members", "Members that share the run and have shown themselves lately.")

	systemRecords = counter("reprise_system_records_total",
		"Records that passed to or from a system, retries included.", "system")
	systemBytes = counter("reprise_system_bytes_total",
		"Bytes that passed to or from a system, retries included.", "system")
	requests      = counter("reprise_requests_total", "Requests to a system.", "system")
	requestErrors = counter("reprise_request_errors_total",
		"Requests that failed, by class. Those of class transient and throttled are tried again.", "system", "class")
	requestMedian = gauge("reprise_request_median_seconds",
		"How long the last requests took, of the worker where they took longest.", "system")
	requestP99 = gauge("reprise_request_p99_seconds",
		"How long all but one in a hundred of the last requests took at most, of the worker where they took longest.",
		"system")
	systemDown   = gauge("reprise_system_down", "Workers that get no answer of the system and wait for it.", "system")
	askedRecords = gauge("reprise_asked_records_per_second",
		"The rate that the job, or throttle, asks for; none: no limit.", "system")
	askedBytes     = gauge("reprise_asked_bytes_per_second", "The same in bytes.", "system")
	allowedRecords = gauge("reprise_allowed_records_per_second",
		"What the workers may do now by rate, schedule, production and resistance of the system; none: no limit.",
		"system")
	allowedBytes = gauge("reprise_allowed_bytes_per_second", "The same in bytes.", "system")
)

// interrupted is the state of a run that no worker works at although nothing ended it.
const interrupted = "interrupted"

var (
	states = []journal.State{journal.Running, interrupted, journal.Complete, journal.Failed, journal.Stopped,
		journal.Paused, journal.Incomplete, journal.Unbalanced}
	causes  = []journal.Cause{journal.ByOperator, journal.BySchedule, journal.ByProduction, journal.BySystem}
	classes = []fail.Class{fail.Transient, fail.Throttled, fail.Permanent, fail.Fatal}
)

// Collector gives the metrics of one run. A reading of the journal serves all scrapes of a second, and of ten times as
// long as it took: so scrapes take up a tenth of a core at most, however large the run.
type Collector struct {
	journal journal.Journal
	run     string

	mu    sync.Mutex
	last  []prometheus.Metric
	until time.Time          // when last is too old
	high  map[string]float64 // counters, which never fall
	kinds map[kind]bool      // of dead letters that have series of their own
}

// kind is a kind of dead letters.
type kind struct{ step, code string }

// maxKinds bounds the kinds of dead letters that have series of their own.
const maxKinds = 50

var others = kind{"other", "other"}

// NewCollector gives the metrics of a run, as long as the journal is open.
func NewCollector(j journal.Journal, run string) *Collector {
	return &Collector{journal: j, run: run, high: map[string]float64{}, kinds: map[kind]bool{}}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range all {
		to <- m.desc
	}
}

// Collect implements prometheus.Collector. A journal that does not answer makes the scrape fail.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if began := time.Now(); began.After(c.until) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r, err := c.read(ctx)
		if err != nil {
			to <- prometheus.NewInvalidMetric(runState.desc, fmt.Errorf("the metrics of run %s: %w", c.run, err))
			return
		}
		now := time.Now()
		c.last, c.until = r.metrics, now.Add(max(time.Second, 10*now.Sub(began)))
	}
	for _, m := range c.last {
		to <- m
	}
}

// reading is what one look at the journal gives.
type reading struct {
	*Collector
	info    journal.RunInfo
	job     job.Job
	metrics []prometheus.Metric
}

func (r *reading) add(m metric, value float64, labels ...string) {
	if m.kind == prometheus.CounterValue {
		key := m.name + "\x00" + strings.Join(labels, "\x00")
		value = max(value, r.high[key]) // the journal may be read in the middle of a change
		r.high[key] = value
	}
	r.metrics = append(r.metrics,
		prometheus.MustNewConstMetric(m.desc, m.kind, value, append([]string{r.run, r.info.Job}, labels...)...))
}

func (c *Collector) read(ctx context.Context) (*reading, error) {
	r := &reading{Collector: c}
	var err error
	if r.info, err = c.journal.Get(ctx, c.run); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(r.info.JobFile, &r.job); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{r.work, r.sums, r.letters} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// work is what the workers tell.
func (r *reading) work(ctx context.Context) error {
	alive, err := runs.Alive(ctx, r.journal, r.run)
	if err != nil {
		return err
	}
	beats, err := r.journal.AllBeats(ctx, r.run)
	if err != nil {
		return err
	}
	control, err := r.journal.Control(ctx, r.run)
	if err != nil {
		return err
	}
	state := r.info.State
	if state == journal.Running && r.info.Attempt > 0 && len(alive) == 0 {
		state = interrupted
	}
	for _, s := range states {
		r.add(runState, one(s == state), string(s))
	}
	r.add(runStart, float64(r.info.Started.UnixMicro())/1e6)
	r.add(runAttempt, float64(r.info.Attempt))
	r.add(workersAlive, float64(len(alive)))
	waiting := map[journal.Cause]int{}
	var memory int64
	for _, b := range alive {
		waiting[b.Cause]++
		memory = max(memory, b.Memory)
	}
	for _, cause := range causes {
		r.add(workersWaiting, float64(waiting[cause]), string(cause))
	}
	if memory > 0 {
		r.add(memoryUsed, float64(memory))
	}
	r.add(memoryLimit, float64(r.job.Limits.Memory))
	for _, sink := range r.sinks() {
		down := slices.ContainsFunc(beats, func(b journal.Beat) bool {
			_, down := b.Down[sink]
			return down && b.Attempt == r.info.Attempt
		})
		r.add(leftBehind, one(down), sink)
	}
	for _, name := range append([]string{journal.Source}, r.sinks()...) {
		r.system(name, control, beats, alive)
	}
	if r.job.Source.Follows() {
		return r.behind(ctx, alive)
	}
	return nil
}

// behind is how far the workers of a run that goes on are behind. Nothing is told while none of them tells it.
func (r *reading) behind(ctx context.Context, alive []journal.Beat) error {
	var sum journal.Behind
	delays := map[string]journal.Delay{}
	sharing := map[string]bool{}
	told, whole := false, true
	for _, b := range alive {
		if b.Member != "" {
			sharing[b.Member] = true
		}
		if b.Behind == nil {
			continue
		}
		told, whole = true, whole && len(b.Behind.Partitions) < journal.MostPartitions
		sum.Records, sum.Age = sum.Records+b.Behind.Records, max(sum.Age, b.Behind.Age)
		sum.Partitions = append(sum.Partitions, b.Behind.Partitions...)
		for sink, d := range b.Behind.Delays {
			was := delays[sink]
			delays[sink] = journal.Delay{P50: max(was.P50, d.P50), P99: max(was.P99, d.P99)}
		}
	}
	r.add(members, float64(len(sharing)))
	if !told {
		return nil
	}
	r.add(behindRecords, float64(sum.Records))
	r.add(behindSeconds, sum.Age.Seconds())
	for sink, d := range delays {
		r.add(delayMedian, d.P50.Seconds(), sink)
		r.add(delayP99, d.P99.Seconds(), sink)
	}
	if whole {
		left := map[string]bool{}
		for split, err := range r.journal.Plan(ctx, r.run) {
			if err != nil {
				return err
			}
			left[split.Partition] = true
		}
		for _, lag := range sum.Partitions {
			delete(left, lag.Partition)
		}
		r.add(unread, float64(len(left)))
	}
	slices.SortFunc(sum.Partitions, func(x, y connector.Lag) int {
		return cmp.Or(cmp.Compare(y.Records, x.Records), cmp.Compare(x.Partition, y.Partition))
	})
	seen := map[string]bool{} // one that is changing hands may be told of by two
	for _, lag := range sum.Partitions {
		if len(seen) < journal.MostPartitions && !seen[lag.Partition] {
			seen[lag.Partition] = true
			r.add(behindPartition, float64(lag.Records), lag.Partition)
		}
	}
	return nil
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (r *reading) sinks() []string { return slices.Sorted(maps.Keys(r.job.Sinks)) }

// system is what the workers tell of one system.
func (r *reading) system(name string, control journal.Control, beats, alive []journal.Beat) {
	var ever, now journal.Gauge
	errors := map[string]int64{}
	for _, b := range beats {
		g := b.Systems[name]
		ever.Records += g.Records
		ever.Bytes += g.Bytes
		ever.Requests += g.Requests
		for class, n := range g.Errors {
			errors[class] += n
		}
	}
	down := 0
	for _, b := range alive {
		g := b.Systems[name]
		now.Asked.Records += g.Asked.Records
		now.Asked.Bytes += g.Asked.Bytes
		now.P50, now.P99 = max(now.P50, g.P50), max(now.P99, g.P99)
		if g.Down {
			down++
		}
	}
	r.add(systemRecords, float64(ever.Records), name)
	r.add(systemBytes, float64(ever.Bytes), name)
	r.add(requests, float64(ever.Requests), name)
	for _, class := range classes {
		r.add(requestErrors, float64(errors[class.String()]), name, class.String())
	}
	r.add(systemDown, float64(down), name)
	if now.P99 > 0 {
		r.add(requestMedian, now.P50.Seconds(), name)
		r.add(requestP99, now.P99.Seconds(), name)
	}
	asked, ok := control.Rates[name]
	if !ok {
		asked = r.job.Pace.Rates[name]
	}
	for m, value := range map[metric]float64{askedRecords: asked.Records, askedBytes: float64(asked.Bytes),
		allowedRecords: now.Asked.Records, allowedBytes: float64(now.Asked.Bytes)} {
		if value > 0 {
			r.add(m, value, name)
		}
	}
}

// sums are what is finished.
func (r *reading) sums(ctx context.Context) error {
	total, err := r.journal.Total(ctx, r.run)
	if fail.CodeOf(err) == "journal.no_plan" {
		return nil
	}
	if err != nil {
		return err
	}
	sum, err := flow.Sum(ctx, r.journal, connector.Run{ID: r.run, Job: r.info.Job, Started: r.info.Started}, &r.job)
	if err != nil {
		return err
	}
	r.add(splits, float64(total.Splits))
	r.add(rowsRead, float64(sum.Read))
	if total.Rows > 0 && !r.job.Source.Follows() {
		r.add(rowsPlanned, float64(total.Rows))
		r.add(rowsLeft, float64(max(0, total.Rows-sum.Read)))
	}
	for name, s := range sum.Sinks {
		r.add(splitsOpen, float64(s.Open), name)
		for o, n := range s.Outcomes {
			r.add(records, float64(n), name, record.Outcome(o).String())
		}
	}
	return nil
}

// letters counts the dead letters. The first kinds that there are have series of their own, and keep them.
func (r *reading) letters(ctx context.Context) error {
	type series struct {
		kind
		state journal.LetterState
	}
	counts := map[series]int{}
	for l, err := range r.journal.Letters(ctx, r.run, journal.LetterFilter{}) {
		if err != nil {
			return err
		}
		k := kind{l.Step, l.Code}
		switch {
		case r.kinds[k]:
		case len(r.kinds) < maxKinds:
			r.kinds[k] = true
		default:
			k = others
		}
		counts[series{k, l.State}]++
	}
	for s, n := range counts {
		r.add(deadLetters, float64(n), s.step, s.code, string(s.state))
	}
	return nil
}
