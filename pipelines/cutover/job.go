package cutover

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"reprise/io/elasticsearchio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/pipelines/verify"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Options say how the target of a job is cut over.
type Options struct {
	Sink     string // "": the only one with an alias
	NewAlias bool   // the alias may be new
	Full     bool   // catching up writes everything again: for versions that are no write times
	Engine   runs.Engine
	Watching Watching
}

// New gives the cut-over of one Elasticsearch sink of a job, whose steps are runs of the job. It checks that the job
// has an index to cut over to. Close is to be called.
func New(of *job.Job, o Options) (*Cutover, error) {
	if o.Sink == "" {
		var found []string
		for name, s := range of.Sinks {
			if c, ok := s.SinkConfig.(*elasticsearchio.SinkConfig); ok && c.Alias != "" {
				found = append(found, name)
			}
		}
		slices.Sort(found)
		if len(found) != 1 {
			return nil, fail.Job("cutover.sink", "%d sinks of the job have an alias: %s",
				len(found), strings.Join(found, ", ")).
				WithFix("set alias on an Elasticsearch sink, and name one of several with --sink")
		}
		o.Sink = found[0]
	}
	if of.Source.Follows() {
		return nil, fail.Job("cutover.follows", "a cut-over loads an index and then switches, and the source of %s "+
			"goes on without an end",
			of.Name).WithFix("leave out follow, or write to the new index by a run of its own")
	}
	config, _ := of.Sinks[o.Sink].SinkConfig.(*elasticsearchio.SinkConfig)
	switch {
	case config == nil:
		return nil, fail.Job("cutover.sink", "the job has no Elasticsearch sink %q", o.Sink)
	case config.Alias == "":
		return nil, fail.Job("cutover.sink", "the sink %s has no alias", o.Sink).
			WithFix("set alias to the name that searches use")
	case config.Create == nil:
		return nil, fail.Job("cutover.create", "the sink %s does not make its index", o.Sink).
			WithFix("set create: {}, with mappings and settings as the new index should have them")
	}
	admin, err := elasticsearchio.NewAdmin(*config)
	if err != nil {
		return nil, err
	}
	c := &Cutover{Admin: admin, Job: of.Name, Index: config.Index, Alias: config.Alias, NewAlias: o.NewAlias,
		Watching: o.Watching, Work: &work{of: of, sink: o.Sink, index: config.Index, full: o.Full, engine: o.Engine}}
	if config.Replaces != nil {
		there, err := elasticsearchio.NewReplacedAdmin(*config)
		if err != nil {
			admin.Close()
			return nil, err
		}
		c.From = &From{Admin: there, Name: cmp.Or(config.Replaces.Index, config.Alias)}
	}
	return c, nil
}

// Close closes the connections.
func (c *Cutover) Close() {
	c.Admin.Close()
	if c.From != nil {
		c.From.Admin.Close()
	}
}

// work is the Work of one sink of a job.
type work struct {
	of     *job.Job
	sink   string
	index  string
	full   bool
	engine runs.Engine
}

// Create implements Work. The run that makes the index is the one that fills it.
func (w *work) Create(ctx context.Context) error {
	p, err := runs.Prepare(ctx, w.of)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Targets(ctx, true); err != nil {
		return err
	}
	return p.Targets(ctx, false)
}

// journal opens the journal and finds a run; nil: there is none.
func (w *work) journal(ctx context.Context, run string) (journal.Journal, *journal.RunInfo, error) {
	j, err := journal.Open(ctx, *w.of.Journal)
	if err != nil {
		return nil, nil, err
	}
	info, err := j.Get(ctx, run)
	switch {
	case fail.CodeOf(err) == "journal.no_run":
		return j, nil, nil
	case err != nil:
		j.Close()
		return nil, nil, err
	}
	return j, &info, nil
}

// Backfilled implements Work.
func (w *work) Backfilled(ctx context.Context, run string) (*Proof, error) {
	j, info, err := w.journal(ctx, run)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if info == nil || info.State != journal.Complete {
		return nil, nil
	}
	was, err := runs.JobOf(*info)
	if err != nil {
		return nil, err
	}
	p, err := runs.Prepare(ctx, w.of)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := p.Same(*info, was); err != nil {
		return nil, fmt.Errorf("the index %s was filled by another job: %w", w.index, err)
	}
	report := &flow.Report{}
	if err := json.Unmarshal(info.Report, report); err != nil {
		return nil, err
	}
	s := report.Sinks[w.sink]
	if s.Outcomes[record.Written]+s.Outcomes[record.Unchanged]+s.Outcomes[record.Superseded] == 0 {
		return nil, fail.Job("cutover.empty",
			"the backfill %s has brought nothing to %s: %d rows read, %d filtered, %d dead",
			run, w.index, s.Read, s.Outcomes[record.Filtered], s.Outcomes[record.Dead]).
			WithFix("see what the source and when choose; then delete the index %s, which this job has made, "+
				"and begin anew", w.index)
	}
	return w.proof(report, info.Started, info.Ended)
}

// proof is that of a run's report.
func (w *work) proof(r *flow.Report, began, at time.Time) (*Proof, error) {
	if w.of.Limits.TooManyDead(r.DeadLetters, r.Read) {
		return nil, fail.Job("run.dead_letters", "run %s has %d dead letters, more than the limit of %s",
			r.Run, r.DeadLetters, w.of.Limits.DeadLetters).
			WithFix("mend what is wrong and send them again: reprise redrive %s; or raise limits.dead_letters", r.Run)
	}
	s := r.Sinks[w.sink]
	told := fmt.Sprintf("run %s: %d read", r.Run, s.Read)
	for o, n := range s.Outcomes {
		told += fmt.Sprintf(", %d %s", n, record.Outcome(o))
	}
	return &Proof{Run: r.Run, Began: began, At: at, Told: told + "; balanced"}, nil
}

// Backfill implements Work.
func (w *work) Backfill(ctx context.Context, run string) error {
	j, info, err := w.journal(ctx, run)
	if err != nil {
		return err
	}
	defer j.Close()
	if info != nil {
		p, _, err := w.engine.Resume(ctx, j, run, runs.Resumption{Job: w.of})
		if err == nil {
			p.Close()
		}
		return err
	}
	p, err := runs.Prepare(ctx, w.of)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Run.ID = run
	_, err = w.engine.Execute(ctx, p)
	return err
}

// alone is the job with this sink alone.
func (w *work) alone() *job.Job {
	of := *w.of
	sink := w.of.Sinks[w.sink]
	sink.After = nil
	of.Sinks = map[string]job.Sink{w.sink: sink}
	of.Pace.Rates, of.Pace.Requests = maps.Clone(of.Pace.Rates), maps.Clone(of.Pace.Requests)
	other := func(system string) bool { return system != w.sink && system != journal.Source }
	maps.DeleteFunc(of.Pace.Rates, func(system string, _ journal.Rate) bool { return other(system) })
	maps.DeleteFunc(of.Pace.Requests, func(system string, _ int) bool { return other(system) })
	return &of
}

// CatchUp implements Work: a pass over the whole source that writes what is new enough, since sources cannot tell
// what that is.
func (w *work) CatchUp(ctx context.Context, since time.Time) (*Proof, error) {
	of := w.alone()
	if !w.full && !since.IsZero() {
		sink := of.Sinks[w.sink]
		fresh := fmt.Sprintf("_version >= timestamp(%q)", since.UTC().Format(time.RFC3339))
		if sink.When != "" {
			fresh = "(" + sink.When + ") && " + fresh
		}
		sink.When = fresh
		of.Sinks[w.sink] = sink
	}
	p, err := runs.Prepare(ctx, of)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	report, err := w.engine.Execute(ctx, p)
	if err != nil {
		return nil, err
	}
	if report.State != journal.Complete {
		return nil, fail.Job("cutover.catch_up", "run %s has ended %s: %s", report.Run, report.State, report.Reason).
			WithFix("mend what is wrong and do this step again")
	}
	return w.proof(report, p.Run.Started, time.Now())
}

// Verify implements Work.
func (w *work) Verify(ctx context.Context) (*Proof, error) {
	of := *w.of
	of.Verify.Sinks = []string{w.sink}
	folder := filepath.Dir(of.Journal.SQLite) // which is there; "." for a journal elsewhere
	report, err := verify.Run(ctx, &of, w.engine, verify.Options{Folder: folder})
	if err != nil {
		return nil, err
	}
	s := report.Sinks[w.sink]
	if !report.Clean() || s == nil {
		e := fail.Job(NotClean, "verification %s: source and index differ: %v", report.Run, report.Sinks)
		if s != nil {
			e = fail.Job(NotClean, "verification %s: %d documents differ: %v; %d in flight, %d not looked at",
				report.Run, s.Mismatches(), s.Wrong, s.InFlight, s.Unsettled)
		}
		fix := "do live writers write to both indices, deletes too? then catch up and verify again"
		if report.Repair != "" {
			fix = "repair it (reprise run " + report.Repair + "), then catch up and verify again"
		}
		return nil, e.WithFix("%s", fix)
	}
	told := fmt.Sprintf("verification %s: %d records compared, %d documents, none differ",
		report.Run, s.Checked, s.Keys)
	return &Proof{Run: report.Run, Told: told}, nil
}
