package advise

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"reprise/io/elasticsearchio"
	"reprise/pipelines/runs"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// Advice is what a sample tells of one sink.
type Advice struct {
	Rows        int64                `json:"rows"`      // of the plan
	Sample      int                  `json:"sample"`    // rows that were read
	Documents   int                  `json:"documents"` // that they became
	JSON        int64                `json:"json"`      // bytes of the sample's documents
	PerDocument float64              `json:"per_document"`
	From        string               `json:"from"` // where the bytes of a document come from
	Refused     map[string]int       `json:"refused,omitempty"`
	Indices     []Index              `json:"indices"`
	General     []string             `json:"general,omitempty"`
	Existing    elasticsearchio.Size `json:"existing,omitzero"` // of what the alias, or the index, holds now
}

// Weigh weighs a sample of what the Elasticsearch sinks of a job would get. It writes nothing but temporary indices,
// which it deletes.
func Weigh(ctx context.Context, p *runs.Prepared, rows int) (map[string]*Advice, error) {
	splits, err := p.Plan(ctx)
	if err != nil {
		return nil, err
	}
	total := runs.TotalOf(splits)
	if total.Rows == 0 {
		return nil, fail.Job("advise.unknown", "the plan does not tell how many rows there are").
			WithFix("the source has none, or cannot estimate them")
	}
	sample, err := p.Sample(ctx, rows, 0)
	if err != nil {
		return nil, err
	}
	if len(sample) == 0 {
		return nil, fail.Job("advise.no_rows", "the source gives no rows")
	}
	// A split stands for as many rows as it has, whatever the sample took of it.
	of, taken := map[string]int64{}, map[string]int64{}
	for _, s := range splits {
		of[s.String()] = s.Rows
	}
	var known int64
	for _, r := range sample {
		if taken[r.Origin.Split]++; taken[r.Origin.Split] == 1 {
			known += of[r.Origin.Split]
		}
	}
	weight := func(r *record.Record) float64 {
		if known == 0 {
			return float64(total.Rows) / float64(len(sample))
		}
		return float64(of[r.Origin.Split]) / float64(taken[r.Origin.Split]) * float64(total.Rows) / float64(known)
	}
	all := map[string]*Advice{}
	for _, name := range slices.Sorted(maps.Keys(p.Job.Sinks)) {
		config, ok := p.Job.Sinks[name].SinkConfig.(*elasticsearchio.SinkConfig)
		if !ok {
			continue
		}
		var documents []*record.Record
		var weights []float64
		for _, r := range sample {
			dead := func(*record.Record, string, error) {} // it becomes no document
			p.Compiled.Shared.Apply(r.Clone(), func(x *record.Record) {
				p.Compiled.Sinks[name].Apply(x.Clone(), func(d *record.Record) {
					documents, weights = append(documents, d), append(weights, weight(r))
				}, dead)
			}, dead)
		}
		a, err := weigh(ctx, *config, p.Compiled.Sinks[name].Out, documents, weights)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
		a.Rows, a.Sample = total.Rows, len(sample)
		all[name] = a
	}
	if len(all) == 0 {
		return nil, fail.Job("advise.no_sink", "the job has no Elasticsearch sink")
	}
	return all, nil
}

func weigh(ctx context.Context, config elasticsearchio.SinkConfig, schema *record.Schema, documents []*record.Record,
	weights []float64) (*Advice, error) {
	if len(documents) == 0 {
		return nil, fail.Job("advise.no_documents", "no record of the sample becomes a document").
			WithFix("reprise sample shows what the transforms do")
	}
	sink := elasticsearchio.NewSink(config)
	defer sink.Close()
	w, err := sink.Weigh(ctx, schema, documents)
	if err != nil {
		return nil, err
	}
	a := &Advice{Documents: w.Documents, JSON: w.JSON, Refused: w.Refused}
	if w.Documents == 0 {
		return nil, fail.Job("advise.refused", "the index took none of the sample's documents: %v", w.Refused)
	}
	a.PerDocument = float64(w.Disk) / float64(w.Documents)
	a.From = fmt.Sprintf("an index of %d documents of the sample", w.Documents)
	for _, now := range []string{config.Alias, config.Index} {
		if a.Existing.Documents == 0 && now != "" && w.Places[0].Index == config.Index {
			if a.Existing, err = sink.Size(ctx, now); err != nil {
				return nil, err
			}
		}
	}
	var places []Document
	for i, place := range w.Places {
		if place.Index != "" {
			places = append(places, Document{Index: place.Index, Routing: place.Routing, Weight: weights[i]})
		}
	}
	a.Indices, a.General = Indices(places, a.PerDocument, w.Shards)
	return a, nil
}
