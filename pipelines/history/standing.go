package history

import (
	"context"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/pipelines/verify/compare"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Standing is what a system holds of a row now.
type Standing struct {
	Sink    string // "": the source
	Key     string // at the sink
	There   bool
	Version int64  // write time in microseconds since 1970, or a version field; 0: the system does not tell
	Unknown string // why it is not known; "": it is
}

// standings looks a row up at the source of a job and, by the keys of what the job makes of it, at those sinks that
// find rows by key.
func standings(ctx context.Context, of *job.Job, key string) []Standing {
	unknown := func(err error) []Standing { return []Standing{{Key: key, Unknown: err.Error()}} }
	p, err := runs.Prepare(ctx, of.Ended())
	if err != nil {
		return unknown(err)
	}
	defer p.Close()
	finder, ok := p.Source.(connector.Finder)
	if !ok {
		return []Standing{{Key: key, Unknown: "the source cannot find single rows by their keys"}}
	}
	values, err := p.Schema.ParseKey(key)
	if err != nil {
		return unknown(err)
	}
	row, err := findOne(ctx, finder, &record.Record{Schema: p.Schema, Values: values})
	if err != nil {
		return unknown(err)
	}
	if row == nil {
		return []Standing{{Key: key}}
	}
	all := []Standing{{Key: key, There: true, Version: row.Version}}
	made, failed := map[string][]*record.Record{}, map[string]string{}
	c := p.Compiled
	c.Shared.Apply(row.Clone(), func(r *record.Record) {
		for name, own := range c.Sinks {
			own.Apply(r.Clone(), func(r *record.Record) {
				made[name] = append(made[name], r)
			}, func(_ *record.Record, step string, err error) {
				failed[name] = step + ": " + err.Error()
			})
		}
	}, func(_ *record.Record, step string, err error) {
		for name := range c.Sinks {
			failed[name] = step + ": " + err.Error()
		}
	})
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		switch {
		case failed[name] != "":
			all = append(all, Standing{Sink: name, Unknown: "the row would be a dead letter of " + failed[name]})
		case len(made[name]) == 0:
			all = append(all, Standing{Sink: name, Unknown: "the job makes nothing of the row"})
		default:
			all = append(all, atSink(ctx, name, of.Sinks[name].SinkSpec, c.Sinks[name].Out, made[name])...)
		}
	}
	return all
}

// atSink looks up what a sink holds of some records that it would get.
func atSink(ctx context.Context, name string, target connector.SinkSpec, schema *record.Schema,
	records []*record.Record) []Standing {
	unknown := func(err error) []Standing { return []Standing{{Sink: name, Unknown: err.Error()}} }
	source, view, err := target.ReadBack(schema)
	if err != nil {
		return unknown(err)
	}
	finder, err := source.Finder(connector.Need{})
	if err != nil {
		return []Standing{{Sink: name, Unknown: "its target finds no rows by their keys"}}
	}
	defer finder.Close()
	there, err := finder.Schema(ctx)
	if err != nil {
		return unknown(err)
	}
	keyIn, err := compare.KeysIn(schema, there, view)
	if err != nil {
		return unknown(err)
	}
	var all []Standing
	for _, r := range records {
		key, text, err := keyIn(r)
		if err != nil {
			return append(all, unknown(err)...)
		}
		got, err := findOne(ctx, finder, key)
		if err != nil {
			return append(all, unknown(err)...)
		}
		s := Standing{Sink: name, Key: text, There: got != nil}
		if got != nil && view.Versions {
			s.Version = got.Version
		}
		all = append(all, s)
	}
	return all
}

// findOne is the latest version of a row that a source finds; nil: there is none.
func findOne(ctx context.Context, in connector.Finder, key *record.Record) (row *record.Record, err error) {
	err = in.Find(ctx, []*record.Record{key}, func(_ int, p connector.Page) error {
		for _, r := range p.Records {
			if r.Op != record.Delete && (row == nil || r.Version >= row.Version) {
				row = r
			}
		}
		if row == nil && len(p.Dead) > 0 {
			return fail.New(fail.Permanent, p.Dead[0].Code, "the row cannot be read: %s", p.Dead[0].Message)
		}
		return nil
	})
	return row, err
}
