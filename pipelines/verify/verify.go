package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"reprise/io/connector"
	"reprise/io/fileio"
	"reprise/io/journal"
	"reprise/pipelines/flow"
	"reprise/pipelines/job"
	"reprise/pipelines/pace"
	"reprise/pipelines/runs"
	"reprise/pipelines/verify/compare"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Options say how the targets of a job are verified.
type Options struct {
	Resume string // the verification to go on with, by the id of its report; "": a new one
	Folder string // where the repair job is written, made where it is missing; "": none is
}

// Run proves that the targets of a job hold what the job would write. Its error tells why that could not be found
// out; what was found wrong is in the report, whose Clean says whether anything may rely on the targets.
func Run(ctx context.Context, j *job.Job, e runs.Engine, with Options) (*Report, error) {
	v := &verification{Options: with, job: j.Ended(), engine: e}
	defer v.close()
	if err := v.open(ctx); err != nil {
		return nil, err
	}
	if err := v.openSides(ctx); err != nil {
		return nil, err
	}
	report, err := v.run(ctx)
	if err != nil {
		return nil, v.unfinished(err)
	}
	v.removeIndexes()
	text := fmt.Sprintf("verified: %d rows read, clean: %t", report.Read, report.Clean())
	return report, v.journal.Note(ctx, v.id.ID, journal.Event{Kind: "verified", Text: text})
}

// verification is one that goes on. Its passes are runs, of which the first names it and is the parent of the others;
// so each is resumed where it stood, and one that is done is not made again.
type verification struct {
	Options
	job     *job.Job
	engine  runs.Engine
	journal journal.Journal
	id      connector.Run
	begun   bool           // its first run stands in the journal
	main    *runs.Prepared // the job itself
	floors  map[string]int64
	source  connector.SourceSpec
	found   connector.Finder // rows of the source
	sinks   []*side
}

// side is one sink and its target.
type side struct {
	name    string
	target  connector.SourceSpec
	found   connector.Finder
	view    connector.View
	dead    int64 // rows of the target that cannot be read
	example string
}

func (v *verification) open(ctx context.Context) (err error) {
	if err := v.engine.Reachable(ctx); err != nil {
		return err
	}
	if v.journal, err = journal.Open(ctx, *v.job.Journal); err != nil {
		return err
	}
	if v.main, err = runs.Prepare(ctx, v.job); err != nil {
		return err
	}
	if v.floors, err = v.main.FindFloors(ctx, v.journal); err != nil {
		return err
	}
	v.id = v.main.Run
	if v.Resume == "" {
		return nil
	}
	info, err := v.journal.Get(ctx, v.Resume)
	if err != nil {
		return err
	}
	if info.Job != v.name("") {
		return fail.Job("verify.other", "run %s is no verification of the job %s", info.ID, v.job.Name)
	}
	v.begun = true
	v.id.ID, v.id.Started = info.ID, info.Started
	v.main.Compiled, err = v.job.Compile(v.main.Schema, transforms.Options{Now: v.id.Started})
	return err
}

// name is the job name of a pass.
func (v *verification) name(pass string) string { return v.job.Name + ".verify" + pass }

func (v *verification) close() {
	for _, s := range v.sinks {
		if s.found != nil {
			s.found.Close()
		}
	}
	if v.found != nil && v.found != v.main.Source {
		v.found.Close()
	}
	if v.main != nil {
		v.main.Close()
	}
	if v.journal != nil {
		v.journal.Close()
	}
}

// openSides opens the source and the targets so that rows are found in them by key; those that cannot are copied into
// an index.
func (v *verification) openSides(ctx context.Context) (err error) {
	names, err := verified(v.job)
	if err != nil {
		return err
	}
	v.source = v.job.Source
	var isFinder bool
	if v.found, isFinder = v.main.Source.(connector.Finder); !isFinder {
		v.source = connector.From(&compare.IndexedConfig{File: v.index(journal.Source)})
		if _, _, err := v.build(ctx, v.main.Source, journal.Source); err != nil {
			return err
		}
		v.found = compare.OpenIndex(v.index(journal.Source))
	}
	for _, name := range names {
		s := &side{name: name}
		v.sinks = append(v.sinks, s)
		if s.target, s.view, err = v.job.Sinks[name].ReadBack(v.main.Compiled.Sinks[name].Out); err != nil {
			return fmt.Errorf("sink %s: %w", name, err)
		}
		source, err := s.target.Open(connector.Need{Run: v.id.ID})
		if err != nil {
			return err
		}
		var ok bool
		if s.found, ok = source.(connector.Finder); ok {
			continue
		}
		s.target = connector.From(&compare.IndexedConfig{File: v.index(name)})
		s.dead, s.example, err = v.build(ctx, source, name)
		source.Close()
		if err != nil {
			return fmt.Errorf("sink %s: %w", name, err)
		}
		s.found = compare.OpenIndex(v.index(name))
	}
	return nil
}

// verified are the sinks of a job that a verification concerns, in order.
func verified(j *job.Job) ([]string, error) {
	all := slices.Sorted(maps.Keys(j.Sinks))
	for setting, names := range map[string][]string{"sinks": j.Verify.Sinks, "once": j.Verify.Once} {
		for _, name := range names {
			if !slices.Contains(all, name) {
				return nil, fail.Job("verify.no_sink", "verify.%s: the job has no sink %q", setting, name)
			}
		}
	}
	if len(j.Verify.Sinks) > 0 {
		all = slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(j.Verify.Sinks, name) })
	}
	return all, nil
}

// index is the file of the index of one side.
func (v *verification) index(name string) string {
	folder := os.TempDir()
	if file := v.job.Journal.SQLite; file != "" {
		folder = filepath.Dir(file)
	}
	return filepath.Join(folder, "verify-"+v.id.ID+"-"+name+".index")
}

func (v *verification) build(ctx context.Context, of connector.Source, name string) (
	dead int64, example string, err error) {
	if !v.engine.OneMachine() {
		return 0, "", fail.Job("verify.one_process", "%s cannot find rows by key; it is copied into an index on this "+
			"machine, which workers elsewhere do not reach", name).
			WithFix("verify with --runner prism")
	}
	return compare.BuildIndex(ctx, of, v.index(name), v.job.Limits.Readers)
}

func (v *verification) removeIndexes() {
	files, _ := filepath.Glob(v.index("*"))
	for _, file := range files {
		os.Remove(file)
	}
}

// unfinished tells how to go on after an error.
func (v *verification) unfinished(err error) error {
	if !v.begun {
		return err
	}
	return fmt.Errorf("the verification is not done: %w; go on where it stood: reprise verify JOB --resume %s", err,
		v.id.ID)
}

func (v *verification) run(ctx context.Context) (*Report, error) {
	forward, err := v.forward(ctx)
	if err != nil {
		return nil, err
	}
	report := &Report{Run: v.id.ID, Job: v.job.Name, Read: forward.Read, Dead: forward.DeadLetters,
		Sinks: map[string]*compare.SinkReport{}}
	unread := journal.LetterFilter{Steps: []string{flow.StepSource}}
	for _, err := range v.journal.Letters(ctx, v.id.ID, unread) {
		if err != nil {
			return nil, err
		}
		report.Unread++
	}
	report.Dead -= report.Unread
	repair := repair{verification: v, rows: map[string]int64{}, extras: map[string]*bytes.Buffer{}}
	for _, s := range v.sinks {
		proven, r, err := v.verify(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", s.name, err)
		}
		ended := forward.Sinks[s.name].Outcomes
		r.Checked = ended[record.Written] + ended[record.Unchanged]
		report.Sinks[s.name] = r
		if err := repair.add(ctx, s, proven); err != nil {
			return nil, err
		}
	}
	if v.Folder != "" {
		report.Repair, err = repair.write(v.Folder)
	}
	return report, err
}

// forward compares all that the job would write with the targets.
func (v *verification) forward(ctx context.Context) (*flow.Report, error) {
	j := v.pass("", v.source)
	schema, err := v.main.Schema.MarshalBinary()
	if err != nil {
		return nil, err
	}
	j.Transforms = v.job.Transforms
	for _, s := range v.sinks {
		of := v.job.Sinks[s.name]
		check := &compare.CheckConfig{Target: &s.target, View: s.view, Source: schema,
			Config: v.config(v.main.Compiled.Sinks[s.name].Out)}
		j.Sinks[s.name] = job.Sink{SinkSpec: connector.To(check),
			Route: job.Route{When: of.When, Transforms: of.Transforms}}
	}
	j.Pace = v.job.Pace
	report, _, err := v.make(ctx, j)
	return report, err
}

// config is what is to be borne at a sink: fields that other sinks alone have are left out.
func (v *verification) config(schema *record.Schema) compare.Config {
	c := v.job.Verify
	c.Sinks = nil
	if len(v.sinks) > 1 {
		c.Ignore = slices.DeleteFunc(slices.Clone(c.Ignore), func(name string) bool { return schema.Index(name) < 0 })
	}
	return c
}

// pass is the job of a pass, without sinks. What it does not do it need not resume exactly: reading again is no harm.
func (v *verification) pass(name string, source connector.SourceSpec) *job.Job {
	j := &job.Job{Name: v.name(name), Source: source, Sinks: map[string]job.Sink{}, Journal: v.job.Journal,
		Limits: v.job.Limits}
	folder := "dead-letters/" + v.name("")
	if files, ok := v.job.DeadLetters.SinkConfig.(*fileio.SinkConfig); ok {
		folder = files.Path + ".verify"
	}
	j.DeadLetters = new(connector.To(&fileio.SinkConfig{Path: folder}))
	j.Limits.ErrorBudget, j.Limits.DeadLetters, j.Limits.Unfinished = &job.ErrorBudget{}, "", "20000"
	return j
}

// make makes the run of a pass, or goes on with it.
func (v *verification) make(ctx context.Context, j *job.Job) (*flow.Report, string, error) {
	first := j.Name == v.name("")
	floors := map[string]int64{} // the other direction reads targets
	if first {
		floors = v.floors
	}
	known, err := v.known(ctx, j.Name, first)
	if err != nil {
		return nil, "", err
	}
	report := &flow.Report{}
	switch {
	case known != nil && known.State == journal.Complete:
		return report, known.ID, json.Unmarshal(known.Report, report)
	case known != nil:
		var p *runs.Prepared
		p, report, err = v.engine.Resume(ctx, v.journal, known.ID, runs.Resumption{Job: j, Floors: floors})
		if err != nil {
			return nil, "", err
		}
		defer p.Close()
	default:
		p, err := runs.Prepare(ctx, j)
		if err != nil {
			return nil, "", err
		}
		defer p.Close()
		p.Floors = floors
		if first {
			p.Run.ID, p.Run.Started = v.id.ID, v.id.Started
			v.begun = true
		} else {
			p.Parent = v.id.ID
		}
		if report, err = v.engine.Execute(ctx, p); err != nil {
			return nil, "", err
		}
	}
	if report.State != journal.Complete {
		exit := map[journal.State]int{journal.Stopped: fail.ExitStopped, journal.Incomplete: fail.ExitUnreachable,
			journal.Unbalanced: fail.ExitUnbalanced}[report.State]
		return nil, "", &fail.Error{Class: fail.Fatal, Code: "verify.not_done", Exit: exit,
			Message: fmt.Sprintf("run %s is %s: %s", report.Run, report.State, reasons(report))}
	}
	return report, report.Run, nil
}

func reasons(r *flow.Report) string {
	all := slices.Clone(r.Faults)
	if r.Reason != "" {
		all = append(all, r.Reason)
	}
	for _, s := range r.Sinks {
		if s.Reason != "" {
			all = append(all, s.Reason)
		}
	}
	return fmt.Sprint(all)
}

// known is the run of a pass that has begun; nil: it has not.
func (v *verification) known(ctx context.Context, name string, first bool) (*journal.RunInfo, error) {
	if !v.begun {
		return nil, nil
	}
	all, err := v.journal.List(ctx)
	for _, r := range all {
		if r.Job == name && (r.Parent == v.id.ID || first && r.ID == v.id.ID) {
			info, err := v.journal.Get(ctx, r.ID)
			return &info, err
		}
	}
	return nil, err
}

// collect adds up what a pass has found at a sink.
func (v *verification) collect(ctx context.Context, run, sink string) (*compare.Found, error) {
	parts, err := v.journal.Parts(ctx, run, sink)
	if err != nil {
		return nil, err
	}
	return compare.Collect(parts)
}

// verify brings the verification of one sink to its end, after the pass from source to target.
func (v *verification) verify(ctx context.Context, s *side) ([]compare.Proven, *compare.SinkReport, error) {
	forward, err := v.collect(ctx, v.id.ID, s.name)
	if err != nil {
		return nil, nil, err
	}
	own := v.main.Compiled.Sinks[s.name]
	sides := &compare.Sides{Source: v.found, Shared: v.main.Compiled.Shared, Own: own, Target: s.found, View: s.view,
		Config: v.config(own.Out), Floor: v.floors[s.name], Foreign: forward.Foreign > 0}
	sides.Scan = func(ctx context.Context, row func(*record.Record) error) error { return v.scan(ctx, v.found, row) }
	keys, extras, err := v.backward(ctx, s, sides, forward)
	if err != nil {
		return nil, nil, err
	}
	settled, err := sides.Settle(ctx, append(forward.Suspects, extras.Suspects...))
	if err != nil {
		return nil, nil, err
	}
	r := settled.Report(sides.Config)
	r.Keys, r.Unsettled = keys.Tally.Keys(), forward.Unkept+extras.Unkept
	if s.dead > 0 {
		r.Wrong[compare.Different] += s.dead
		unread := compare.Difference{Field: "(row)", Want: "a row that can be read", Got: s.example}
		r.Examples = append(r.Examples, compare.Example{Kind: compare.Different, Key: "?",
			Fields: []compare.Difference{unread}})
	}
	if index, ok := s.found.(*compare.Index); ok && (s.view.Once || slices.Contains(v.job.Verify.Once, s.name)) {
		n, keys, err := index.Doubles(ctx, 3)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 {
			r.Wrong[compare.Double] += n
		}
		for _, key := range keys {
			r.Examples = append(r.Examples, compare.Example{Kind: compare.Double, Key: key})
		}
	}
	return settled.Wrong, r, nil
}

// keys counts the keys of the target.
func (v *verification) keys(ctx context.Context, s *side, read connector.SourceSpec) (*compare.Found, error) {
	if index, ok := s.found.(*compare.Index); ok {
		t, err := index.Tally(ctx)
		return &compare.Found{Tally: t}, err
	}
	j := v.pass("-keys."+s.name, read)
	j.Sinks[s.name] = job.Sink{SinkSpec: connector.To(&compare.CheckConfig{})}
	j.Pace = swapped(v.job.Pace, s.name)
	_, run, err := v.make(ctx, j)
	if err != nil {
		return nil, err
	}
	return v.collect(ctx, run, s.name)
}

// backward counts the keys of the target, and looks for rows at the source where there are others than the pass
// before has found.
func (v *verification) backward(ctx context.Context, s *side, sides *compare.Sides, forward *compare.Found) (
	keys, extras *compare.Found, err error) {
	got, err := s.found.Schema(ctx)
	if err != nil {
		return nil, nil, err
	}
	many, err := sides.Many(ctx)
	if err != nil {
		return nil, nil, err
	}
	inverse, ok := compare.Inverse(v.main.Schema, sides.Own.Out, got, s.view)
	if ok = ok && !many; !ok {
		inverse = nil
	}
	read := s.target.Narrow(got, inverse)
	if keys, err = v.keys(ctx, s, read); err != nil {
		return nil, nil, err
	}
	segments := compare.Differ(forward.Tally, keys.Tally)
	if len(segments) == 0 {
		return keys, &compare.Found{}, nil
	}
	check := &compare.CheckConfig{Segments: segments}
	if ok {
		of := v.job.Sinks[s.name]
		schema, err := v.main.Schema.MarshalBinary()
		if err != nil {
			return nil, nil, err
		}
		check.Target, check.View, check.Config, check.Source = &s.target, s.view, sides.Config, schema
		check.Extras = &compare.ExtrasConfig{Source: v.source, Transforms: v.job.Transforms,
			Sink: compare.Own{When: of.When, Transforms: of.Transforms}, Started: v.id.Started, Inverse: inverse}
	} else {
		if many {
			read = s.target // with versions
		}
		check.Expected = v.index(s.name + "-expected")
		made := &compare.Made{Sides: sides, From: v.found, Segments: segments}
		if _, _, err := v.build(ctx, made, s.name+"-expected"); err != nil {
			return nil, nil, err
		}
	}
	j := v.pass("-extras."+s.name, read)
	j.Sinks[s.name] = job.Sink{SinkSpec: connector.To(check)}
	j.Pace = swapped(v.job.Pace, s.name)
	_, run, err := v.make(ctx, j)
	if err != nil {
		return nil, nil, err
	}
	extras, err = v.collect(ctx, run, s.name)
	return keys, extras, err
}

// scan reads all rows of a source.
func (v *verification) scan(ctx context.Context, source connector.Source, row func(*record.Record) error) error {
	var queues [][]connector.Split
	err := source.Plan(ctx, connector.PlanOptions{Rows: math.MaxInt64}, func(s connector.Split) error {
		queues = append(queues, []connector.Split{s})
		return nil
	})
	if err != nil {
		return err
	}
	window := connector.Window{Readers: v.job.Limits.Readers, Bytes: int64(v.job.Limits.ReadAhead)}
	ahead := connector.ReadAhead(ctx, source, queues, window)
	defer ahead.Stop()
	for it := range ahead.Items {
		if it.Err != nil {
			return it.Err
		}
		for _, r := range it.Page.Records {
			if err := row(r); err != nil {
				return err
			}
		}
		ahead.Release(it.Held)
	}
	return nil
}

// swapped is the pace of the other direction: there a sink's system is what is read.
func swapped(c pace.Config, sink string) pace.Config {
	rates, requests := map[string]journal.Rate{}, map[string]int{}
	for to, from := range map[string]string{sink: journal.Source, journal.Source: sink} {
		if r, ok := c.Rates[from]; ok {
			rates[to] = r
		}
		if n, ok := c.Requests[from]; ok {
			requests[to] = n
		}
	}
	c.Rates, c.Requests = rates, requests
	return c
}
