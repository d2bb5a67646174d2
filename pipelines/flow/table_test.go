package flow

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"reprise/io/connector"
	"reprise/transforms"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// table is the source: each partition is a table in memory.
type table struct{ w *world }

func (t table) Schema(context.Context) (*record.Schema, error) { return assets, nil }
func (t table) Close() error                                   { return nil }

func (t table) Plan(context.Context, connector.PlanOptions, func(connector.Split) error) error {
	panic("the plan is in the journal")
}

func (t table) Read(ctx context.Context, s connector.Split, page func(connector.Page) error) error {
	return t.w.tables[s.Partition].Source().Read(ctx, s, func(p connector.Page) error {
		if t.w.reading != nil {
			if err := t.w.reading(t.w.tracker); err != nil {
				return err
			}
		}
		if t.w.page != nil {
			t.w.page(&p)
		}
		return page(p)
	})
}

func (t table) Find(ctx context.Context, keys []*record.Record, found func(int, connector.Page) error) error {
	for i, key := range keys {
		var all connector.Page
		for _, part := range slices.Sorted(maps.Keys(t.w.tables)) {
			of := t.w.tables[part].Source().(connector.Finder)
			err := of.Find(ctx, []*record.Record{key}, func(_ int, p connector.Page) error {
				all.Records = append(all.Records, p.Records...)
				return nil
			})
			if err != nil {
				return err
			}
		}
		if err := found(i, all); err != nil {
			return err
		}
	}
	return nil
}

// trap is a transform that does to rows, by key, what its settings say.
func compileTrap(config json.RawMessage, in *record.Schema, _ transforms.Options) (
	transforms.Step, *record.Schema, error) {
	var of map[string]string
	if err := json.Unmarshal(config, &of); err != nil {
		return nil, nil, err
	}
	return trap(of), in, nil
}

type trap map[string]string

func (t trap) Apply(r *record.Record, emit func(*record.Record)) error {
	switch t[r.KeyText()] {
	case "drop":
		return nil
	case "dead":
		return fail.New(fail.Permanent, "trap.dead", "the trap has shut")
	case "fatal":
		return fail.New(fail.Fatal, "trap.fatal", "the trap is broken")
	case "panic":
		panic("the trap has exploded")
	case "twice":
		twin := r.Clone()
		twin.Values[0] = record.String(r.KeyText() + "+")
		emit(r)
		emit(twin)
		return nil
	}
	emit(r)
	return nil
}

// traps is a transform that does something to rows.
func traps(of map[int]string) transforms.Spec {
	by := map[string]string{}
	for n, what := range of {
		by[key(n)] = what
	}
	config, _ := json.Marshal(by)
	return transforms.Spec{Name: "trap", Config: config}
}
