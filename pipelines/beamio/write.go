package beamio

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/google/uuid"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Sink is where Write writes.
type Sink struct {
	Kind   string // as in a job file: "elasticsearch", "iceberg"
	Config any    // the settings of that kind: its own type, or anything that has the same JSON
	Name   string // in dead letters, headers, file names and snapshots; default: the kind
}

// Write writes records under the sink's version rule. Outcomes are pairs of "written", "unchanged" or "superseded"
// and the record, in the global window with the timestamps that the records came with; dead are those that the sink
// did not take.
//
// A sink that makes its writes visible by one commit (files, Iceberg) commits once, when all records have come: they
// must be bounded and of one schema. Until then "written" means staged, and what an Iceberg upsert then finds to be
// older is counted as superseded only by the metric.
func Write(s beam.Scope, records beam.PCollection, sink Sink) (outcomes, dead beam.PCollection) {
	return write(s.Scope("reprise.Write "+sink.Kind), records, sink, newRun(sink), false)
}

// DeadLetters puts dead letters into a queue, in the form that the commands of the job runner read. One that cannot
// be written ends the pipeline: nothing else would know of it.
func DeadLetters(s beam.Scope, queue Sink, dead ...beam.PCollection) {
	s = s.Scope("reprise.DeadLetters")
	if len(dead) == 0 {
		panic(fail.Job("beamio.no_letters", "DeadLetters needs the dead output of at least one step"))
	}
	all := make([]beam.PCollection, len(dead))
	for i, d := range dead {
		all[i] = beam.WindowInto(s, window.NewGlobalWindows(), d)
	}
	run := newRun(queue)
	write(s, beam.ParDo(s, &letterFn{Run: run.ID}, beam.Flatten(s, all...)), queue, run, true)
}

// newRun names what one step writes. Each has a run of its own: of two commits of one run the second would be
// refused.
func newRun(sink Sink) connector.Run {
	now := time.Now().UTC()
	return connector.Run{ID: now.Format("20060102-150405-") + uuid.NewString()[:8], Job: cmp.Or(sink.Name, sink.Kind),
		Started: now.Truncate(time.Millisecond)}
}

func write(s beam.Scope, records beam.PCollection, sink Sink, run connector.Run, all bool) (
	outcomes, dead beam.PCollection) {
	to, kind, err := travelling(sink.Kind, sink.Config, settings.sink)
	must(err)
	if r, ok := kind.(connector.Reduced); all && ok && r.Reduced() != "" {
		panic(fail.Job("beamio.queue", "%s.%s: a queue must hold its letters whole", sink.Kind, r.Reduced()).
			WithFix("leave %s out", r.Reduced()))
	}
	opened, err := kind.Open()
	must(err)
	defer opened.Close()
	if l, ok := opened.(connector.Loader); ok && l.Loads() {
		panic(fail.Job("beamio.load", "%s.load changes settings that only the job runner puts back", sink.Kind).
			WithFix("leave load out"))
	}
	w := writing{Settings: to, Name: cmp.Or(sink.Name, sink.Kind), Run: run}
	// What a bundle writes last is emitted at its end, which belongs to no other window.
	records = beam.WindowInto(s, window.NewGlobalWindows(), records)
	outcomes, dead, parts := beam.ParDo3(s, &writeFn{Writing: w, All: all}, records)
	if _, commits := opened.(connector.Committer); commits {
		beam.ParDo0(s, &commitFn{Writing: w}, beam.GroupByKey(s, beam.AddFixedKey(s, parts)))
	}
	return outcomes, dead
}

// writing is a sink as it travels.
type writing struct {
	Settings settings
	Name     string
	Run      connector.Run
}

func (w writing) open() (connector.Sink, error) {
	config, err := w.Settings.sink()
	if err != nil {
		return nil, err
	}
	return config.Open()
}

func (w writing) step() string { return "sink " + w.Name }

// part is what one bundle leaves to commit.
type part struct {
	Schema  []byte `json:"schema"`
	Body    []byte `json:"body"`
	Written int64  `json:"written"` // records, of this part and those of the same bundle that follow
}

// writeFn writes the records of a bundle in batches, several of them under way.
type writeFn struct {
	Writing writing
	All     bool // a record that the sink does not take ends the pipeline

	sink    connector.Sink
	writers map[string]*bundle // by schema, as bytes; of this bundle
	now     *bundle            // of the records that come
	schema  *record.Schema     // that they have
	ready   map[string]bool    // schemas that the sink is prepared for
}

// bundle is what one bundle writes of one schema.
type bundle struct {
	schema  *record.Schema
	writer  connector.Writer
	written int64

	mu      sync.Mutex
	settled []connector.Result
	emitted []connector.Result // its memory is that of the next
}

func (b *bundle) settle(results []connector.Result) {
	b.mu.Lock()
	b.settled = append(b.settled, results...)
	b.mu.Unlock()
}

// Setup opens the sink.
func (f *writeFn) Setup() (err error) {
	if f.sink == nil {
		f.sink, err = f.Writing.open()
	}
	f.ready = map[string]bool{}
	return err
}

// StartBundle gives up what a bundle that failed has left.
func (f *writeFn) StartBundle(context.Context, func(beam.EventTime, string, *record.Record),
	func(beam.EventTime, *record.DeadLetter), func(part)) {
	f.closeWriters()
}

func (f *writeFn) closeWriters() {
	for _, b := range f.writers {
		b.writer.Close()
	}
	f.writers, f.now, f.schema = map[string]*bundle{}, nil, nil
}

// Teardown closes the sink.
func (f *writeFn) Teardown() error {
	f.closeWriters()
	if f.sink == nil {
		return nil
	}
	return f.sink.Close()
}

// ProcessElement hands a record to the writer, and emits what has been settled meanwhile.
func (f *writeFn) ProcessElement(ctx context.Context, at beam.EventTime, r *record.Record,
	outcome func(beam.EventTime, string, *record.Record), dead func(beam.EventTime, *record.DeadLetter),
	_ func(part)) error {
	if r.Schema != f.schema {
		if err := f.open(ctx, r.Schema); err != nil {
			return fmt.Errorf("%s: %w", f.Writing.step(), err)
		}
	}
	// A copy, since another step may hold the record. Its timestamp comes back with the result.
	own := *r
	own.Schema, own.Origin.Page = f.now.schema, int64(at)
	if err := f.now.writer.Write(ctx, &own); err != nil {
		return fmt.Errorf("%s: %w", f.Writing.step(), err)
	}
	return f.emit(ctx, f.now, outcome, dead)
}

// preparing lets one step of this process at a time make what is missing.
var preparing sync.Mutex

func (f *writeFn) open(ctx context.Context, schema *record.Schema) error {
	key, err := schemaKey(schema)
	if err != nil {
		return err
	}
	b := f.writers[key]
	if b == nil {
		if err := f.prepare(ctx, key, schema); err != nil {
			return err
		}
		b = &bundle{schema: schema}
		if b.writer, err = f.sink.Open(ctx, f.Writing.Run, schema, b.settle); err != nil {
			return err
		}
		f.writers[key] = b
	}
	f.now, f.schema = b, schema
	return nil
}

func (f *writeFn) prepare(ctx context.Context, key string, schema *record.Schema) error {
	if f.ready[key] {
		return nil
	}
	preparing.Lock()
	defer preparing.Unlock()
	if f.sink.Prepare(ctx, f.Writing.Run, schema, false) != nil {
		// A worker elsewhere may have made the same at the same moment.
		if err := f.sink.Prepare(ctx, f.Writing.Run, schema, false); err != nil {
			return err
		}
	}
	f.ready[key] = true
	return nil
}

// emit emits what is settled.
func (f *writeFn) emit(ctx context.Context, b *bundle, outcome func(beam.EventTime, string, *record.Record),
	dead func(beam.EventTime, *record.DeadLetter)) error {
	b.mu.Lock()
	if len(b.settled) == 0 {
		b.mu.Unlock()
		return nil
	}
	b.emitted, b.settled = b.settled, b.emitted[:0]
	b.mu.Unlock()
	var n record.Counts
	for _, res := range b.emitted {
		at := beam.EventTime(res.Record.Origin.Page)
		if res.Err == nil {
			n[res.Outcome]++
			outcome(at, res.Outcome.String(), res.Record)
			continue
		}
		n[record.Dead]++
		if f.All {
			return fail.New(fail.Fatal, "dead_letters.not_written", "a dead letter could not be written: %w", res.Err).
				WithFix("mend the queue, then run the pipeline again")
		}
		dead(at, deadLetter(res.Record, f.Writing.step(), f.Writing.Name, res.Attempts, res.Err))
	}
	clear(b.emitted)
	b.written += n[record.Written]
	for o, c := range outcomeCounts {
		if n[o] > 0 {
			c.Inc(ctx, n[o])
		}
	}
	return nil
}

// FinishBundle waits until everything is settled.
func (f *writeFn) FinishBundle(ctx context.Context, outcome func(beam.EventTime, string, *record.Record),
	dead func(beam.EventTime, *record.DeadLetter), parts func(part)) error {
	for _, b := range f.writers {
		bodies, err := b.writer.Flush(ctx)
		if err == nil {
			err = f.emit(ctx, b, outcome, dead)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Writing.step(), err)
		}
		if _, commits := f.sink.(connector.Committer); !commits {
			continue
		}
		schema, err := b.schema.MarshalBinary()
		if err != nil {
			return err
		}
		left := part{Schema: schema, Written: b.written}
		for _, body := range bodies {
			left.Body = body
			parts(left)
			left.Written = 0
		}
		if left.Written > 0 {
			return fail.New(fail.Fatal, "internal.no_parts", "%s wrote %d records, but gave nothing to commit",
				f.Writing.step(), left.Written)
		}
	}
	f.closeWriters()
	return nil
}

// commitFn makes visible what all bundles have written.
type commitFn struct{ Writing writing }

// ProcessElement comes once, or again after it failed, which changes nothing that was committed.
func (f *commitFn) ProcessElement(ctx context.Context, _ int, next func(*part) bool) error {
	var bodies [][]byte
	var schema []byte
	var p part
	var written, committed, superseded int64
	for next(&p) {
		if schema == nil {
			schema = p.Schema
		}
		if !slices.Equal(schema, p.Schema) {
			return fail.Job("beamio.schemas", "%s commits once, but got records of different fields", f.Writing.step()).
				WithFix("bring them to the same fields first, or write each by a step of its own")
		}
		bodies = append(bodies, p.Body)
		written += p.Written
		p = part{}
	}
	of, err := record.UnmarshalSchema(schema)
	if err != nil {
		return err
	}
	sink, err := f.Writing.open()
	if err != nil {
		return err
	}
	defer sink.Close()
	err = connector.Request(ctx, connector.DefaultRetry, func() (_ int, _ int64, err error) {
		committed, err = sink.(connector.Committer).Commit(ctx, f.Writing.Run, of, bodies)
		if merger, ok := sink.(connector.Merger); ok && err == nil {
			superseded, err = merger.Superseded(ctx, f.Writing.Run)
		}
		return 0, 0, err
	})
	if err == nil && committed != written {
		err = fail.New(fail.Fatal, "beamio.unbalanced", "%d records were written, but %d committed", written, committed)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Writing.step(), err)
	}
	committedCount.Inc(ctx, committed)
	outcomeCounts[record.Superseded].Inc(ctx, superseded)
	outcomeCounts[record.Written].Dec(ctx, superseded)
	return nil
}

// letterFn gives dead letters the form of records.
type letterFn struct{ Run string }

// ProcessElement names the run, which the steps before do not know.
func (f *letterFn) ProcessElement(l *record.DeadLetter, emit func(*record.Record)) {
	own := *l
	own.Run = cmp.Or(l.Run, f.Run)
	emit(deadletter.ToRecord(&own))
}
