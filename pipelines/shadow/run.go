package shadow

import (
	"context"
	"slices"

	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/pipelines/runs"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Run runs the transforms of two jobs over the same sample of the first one's source. Where the second reads another
// source, it gets the rows with the same keys there. Nothing is written.
func Run(ctx context.Context, was, is *job.Job, rows int, seed uint64) (Report, error) {
	old, err := runs.Prepare(ctx, was.Ended())
	if err != nil {
		return Report{}, err
	}
	defer old.Close()
	now, err := runs.Prepare(ctx, is.Ended())
	if err != nil {
		return Report{}, err
	}
	defer now.Close()
	// Both see the same `now`.
	compiled, err := is.Compile(now.Schema, transforms.Options{Now: old.Run.Started})
	if err != nil {
		return Report{}, err
	}
	records, err := old.Sample(ctx, rows, seed)
	if err != nil {
		return Report{}, err
	}
	others := records
	if same, err := sameSource(old, now); err != nil {
		return Report{}, err
	} else if !same {
		if others, err = counterparts(ctx, now, old.Schema, records); err != nil {
			return Report{}, err
		}
	}
	c := New(old.Compiled, compiled)
	for i, r := range records {
		if err := c.Add(r, others[i]); err != nil {
			return Report{}, err
		}
	}
	return c.Report(), nil
}

// sameSource tells whether two jobs read the same.
func sameSource(a, b *runs.Prepared) (bool, error) {
	was, err := a.Job.Identity(a.Schema)
	if err != nil {
		return false, err
	}
	is, err := b.Job.Identity(b.Schema)
	part := func(identity map[string]any) map[string]any {
		return map[string]any{"source": identity["Source"], "fields": identity["Fields"]}
	}
	return err == nil && len(job.Differences(part(was), part(is))) == 0, err
}

// counterparts are the rows that a job reads with the keys of some records; nil where there is none.
func counterparts(ctx context.Context, p *runs.Prepared, schema *record.Schema, records []*record.Record) (
	[]*record.Record, error) {
	finder, ok := p.Source.(connector.Finder)
	if !ok {
		return nil, fail.Job("shadow.sources", "the two jobs read different sources, "+
			"and the second one's cannot find single rows by their keys").
			WithFix("let both read the same source")
	}
	fits := slices.Equal(schema.KeyNames(), p.Schema.KeyNames())
	for i := 0; fits && i < len(schema.Key); i++ {
		fits = schema.Fields[schema.Key[i]].Type.Same(p.Schema.Fields[p.Schema.Key[i]].Type)
	}
	if !fits {
		return nil, fail.Job("shadow.keys", "the two jobs read sources with different keys").
			WithFix("let both read the same source")
	}
	const together = 100
	found := make([]*record.Record, len(records))
	for from := 0; from < len(records); from += together {
		var keys []*record.Record
		for _, r := range records[from:min(from+together, len(records))] {
			key := &record.Record{Schema: p.Schema, Values: make([]record.Value, len(p.Schema.Fields)),
				Origin: r.Origin}
			for i, k := range p.Schema.Key {
				key.Values[k] = r.Values[schema.Key[i]]
			}
			keys = append(keys, key)
		}
		err := finder.Find(ctx, keys, func(i int, page connector.Page) error {
			// Of several the same version, else the latest.
			same := records[from+i].Version
			for _, r := range page.Records {
				at := &found[from+i]
				if *at == nil || (*at).Version != same && ((*at).Version < r.Version || r.Version == same) {
					*at = r
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
