package beamio

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Transform is a transform of the job file by its name, with its settings as they would stand there:
// Transform("filter", "size > 0").
func Transform(name string, config any) transforms.Spec {
	text, err := json.Marshal(config)
	must(err)
	return transforms.Spec{Name: name, Config: text}
}

// Func makes a transform of a Go function that leaves the fields of a record as they are. It registers the name, for
// job files too, so it is called while each worker's program starts: for a variable of a package.
func Func(name, summary string, each func(*record.Record) error) transforms.Spec {
	transforms.Register(transforms.Transform{Name: name, Summary: summary, Config: new(struct{}),
		Compile: func(_ json.RawMessage, in *record.Schema, _ transforms.Options) (
			transforms.Step, *record.Schema, error) {
			return transforms.Each(each), in, nil
		}})
	return Transform(name, struct{}{})
}

// Apply sends records through transforms, which are compiled for the fields of the records that come. What a
// transform drops is counted; what fails in one, or panics, goes to dead as it entered that transform.
func Apply(s beam.Scope, records beam.PCollection, chain ...transforms.Spec) (out, dead beam.PCollection) {
	s = s.Scope("reprise.Apply")
	fn := &applyFn{Now: time.Now().UTC().Truncate(time.Millisecond)}
	for _, spec := range chain {
		must(known(spec.Name))
		fn.Chain = append(fn.Chain, step{spec.Name, spec.Config})
	}
	return beam.ParDo2(s, fn, records)
}

// known refuses a transform that no worker would know either.
func known(name string) error {
	var names []string
	for _, t := range transforms.All() {
		if names = append(names, t.Name); t.Name == name {
			return nil
		}
	}
	return fail.Job("beamio.transform", "there is no transform %q; there are %v", name, names)
}

// step is a transform as it travels.
type step struct {
	Name   string
	Config []byte
}

type applyFn struct {
	Chain []step
	Now   time.Time // in expressions

	chains map[string]*transforms.Chain // by schema, as bytes
	chain  *transforms.Chain            // of the records that come
	schema *record.Schema               // that they have
}

// ProcessElement applies the chain to a copy: another step may have got the same record.
func (f *applyFn) ProcessElement(ctx context.Context, r *record.Record, emit func(*record.Record),
	dead func(*record.DeadLetter)) error {
	if r.Schema != f.schema {
		if err := f.compile(r.Schema); err != nil {
			return err
		}
	}
	var fatal error
	filtered := f.chain.Apply(r.Clone(), emit, func(in *record.Record, step string, err error) {
		if fail.ClassOf(err) == fail.Fatal {
			fatal = fmt.Errorf("%s: %w", step, err)
			return
		}
		deadCount.Inc(ctx, 1)
		dead(deadLetter(in, step, "", 1, err))
	})
	if filtered > 0 {
		filteredCount.Inc(ctx, int64(filtered))
	}
	return fatal
}

func (f *applyFn) compile(schema *record.Schema) error {
	key, err := schemaKey(schema)
	if err != nil {
		return err
	}
	chain := f.chains[key]
	if chain == nil {
		specs := make([]transforms.Spec, len(f.Chain))
		for i, s := range f.Chain {
			specs[i] = transforms.Spec{Name: s.Name, Config: s.Config}
		}
		if chain, err = transforms.Compile(specs, schema, transforms.Options{Now: f.Now}); err != nil {
			return fail.Job("beamio.transforms", "%w", err)
		}
		if f.chains == nil {
			f.chains = map[string]*transforms.Chain{}
		}
		f.chains[key] = chain
	}
	f.chain, f.schema = chain, schema
	return nil
}

// schemaKey tells schemas apart, wherever they came from.
func schemaKey(s *record.Schema) (string, error) {
	text, err := s.MarshalBinary()
	return string(text), err
}
