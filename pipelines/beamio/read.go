package beamio

import (
	"cmp"
	"context"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"

	"reprise/io/connector"
	"reprise/pipelines/travel"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

const stepSource = "source" // of dead letters

// Source is what Read reads.
type Source struct {
	Kind   string // as in a job file: "cassandra", "files"
	Config any    // the settings of that kind: its own type, or anything that has the same JSON

	// RowTimes spares Cassandra the write time and expiry of each cell. A sink that is a table of Cassandra needs
	// them: without them the expiry of single cells is lost.
	RowTimes bool

	// Bundles are the parts into which the plan is dealt, for workers that read side by side: about four for each
	// slot of Flink. Prism runs one at a time. Default: 1.
	Bundles int

	Readers    int             // splits that each bundle reads at once; default: 4
	ReadAhead  connector.Bytes // of pages that each bundle holds; default: 32MiB
	SplitRows  int64           // no split is planned larger; default: 20000
	SplitBytes connector.Bytes // default: 64MiB
}

// Read reads a source to its end. The records are in the global window, with their versions as timestamps. What
// cannot be decoded goes to dead.
func Read(s beam.Scope, source Source) (records, dead beam.PCollection) {
	s = s.Scope("reprise.Read " + source.Kind)
	from, kind, err := travelling(source.Kind, source.Config, settings.source)
	must(err)
	_, err = kind.Open(connector.Need{})
	must(err)
	r := reading{Settings: from, Cells: !source.RowTimes, Started: time.Now().UTC().Truncate(time.Millisecond)}
	plan := beam.ParDo(s, &planFn{Reading: r, Bundles: max(1, source.Bundles), Rows: cmp.Or(source.SplitRows, 20_000),
		Bytes: int64(cmp.Or(source.SplitBytes, 64<<20))}, beam.Impulse(s))
	read := &readFn{Reading: r, Readers: cmp.Or(source.Readers, 4), Ahead: int64(cmp.Or(source.ReadAhead, 32<<20))}
	return beam.ParDo2(s, read, beam.Reshuffle(s, plan))
}

// reading is a source as it travels.
type reading struct {
	Settings settings
	Cells    bool
	Started  time.Time
}

func (r reading) open() (connector.Source, error) {
	config, err := r.Settings.source()
	if err != nil {
		return nil, err
	}
	return config.Open(connector.Need{Cells: r.Cells, Started: r.Started, At: stepSource})
}

// planFn gives the plan, dealt in turn, so that the parts of a wide bucket go to different workers.
type planFn struct {
	Reading     reading
	Bundles     int
	Rows, Bytes int64
}

// ProcessElement comes once.
func (f *planFn) ProcessElement(ctx context.Context, _ []byte, emit func(travel.Work)) error {
	source, err := f.Reading.open()
	if err != nil {
		return err
	}
	defer source.Close()
	all := make([]travel.Work, f.Bundles)
	n := 0
	err = source.Plan(ctx, connector.PlanOptions{Rows: f.Rows, Bytes: f.Bytes}, func(split connector.Split) error {
		w := &all[n%len(all)]
		w.Splits = append(w.Splits, split)
		n++
		return nil
	})
	if err != nil {
		return err
	}
	for _, w := range all {
		if len(w.Splits) > 0 {
			emit(w)
		}
	}
	return nil
}

// readFn reads splits, some of them side by side. It is a splittable DoFn: a page is claimed before any record of it
// is emitted, and a runner may give away what is not claimed.
type readFn struct {
	Reading reading
	Readers int
	Ahead   int64 // bytes
	source  connector.Source
}

// CreateInitialRestriction is the whole of the work.
func (f *readFn) CreateInitialRestriction(w travel.Work) travel.Work { return w }

// SplitRestriction keeps the work whole: it is dealt already.
func (f *readFn) SplitRestriction(_, r travel.Work) []travel.Work { return []travel.Work{r} }

// RestrictionSize is the number of rows that the plan expects.
func (f *readFn) RestrictionSize(_, r travel.Work) float64 { return r.Rows() }

// CreateTracker tracks by split and position.
func (f *readFn) CreateTracker(r travel.Work) *sdf.LockRTracker {
	return sdf.NewLockRTracker(travel.NewTracker(r))
}

// Setup opens the source.
func (f *readFn) Setup() (err error) {
	if f.source == nil {
		f.source, err = f.Reading.open()
	}
	return err
}

// Teardown closes the source.
func (f *readFn) Teardown() error {
	if f.source == nil {
		return nil
	}
	return f.source.Close()
}

// ProcessElement emits the records of what it can claim.
func (f *readFn) ProcessElement(ctx context.Context, rt *sdf.LockRTracker, _ travel.Work,
	emit func(beam.EventTime, *record.Record), dead func(*record.DeadLetter)) error {
	splits := rt.GetRestriction().(travel.Work).Splits
	queues := make([][]connector.Split, len(splits))
	for i, split := range splits {
		queues[i] = []connector.Split{split}
	}
	ahead := connector.ReadAhead(ctx, f.source, queues, connector.Window{Readers: f.Readers, Bytes: f.Ahead})
	defer ahead.Stop()
	for it := range ahead.Items {
		if it.Err != nil {
			return it.Err
		}
		if !rt.TryClaim(travel.Claim{Split: it.Queue, Last: it.Page.Last, End: it.End}) {
			if err := rt.GetError(); err != nil {
				return err
			}
			ahead.Drop(it.Queue) // it was given away
			ahead.Release(it.Held)
			continue
		}
		split := splits[it.Queue]
		name := split.String()
		for _, l := range it.Page.Dead {
			l.Step, l.Split, l.At, l.Attempts = stepSource, name, time.Now().UnixMilli(), max(1, l.Attempts)
			if l.Place != nil && l.Place.Partition != split.Partition {
				l.Place = nil // of a source within this one, whose places are others
			}
			dead(l)
		}
		for _, r := range it.Page.Records {
			r.Origin.Split = name
			emit(eventTime(r), r)
		}
		readCount.Inc(ctx, it.Page.Rows())
		filteredCount.Inc(ctx, it.Page.Filtered)
		deadCount.Inc(ctx, int64(len(it.Page.Dead)))
		ahead.Release(it.Held)
	}
	return ctx.Err()
}

func eventTime(r *record.Record) beam.EventTime {
	return beam.EventTime(mtime.Normalize(mtime.Time(r.Version / 1000)))
}

// deadLetter is the dead letter of a record that failed in a step.
func deadLetter(r *record.Record, step, sink string, attempts int, err error) *record.DeadLetter {
	return &record.DeadLetter{Record: r, Step: step, Sink: sink, Attempts: max(1, attempts), Split: r.Origin.Split,
		Class: fail.ClassOf(err).String(), Code: fail.CodeOf(err), Message: err.Error(), At: time.Now().UnixMilli()}
}

// must ends the building of a graph by a panic, as Beam's own functions do.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
