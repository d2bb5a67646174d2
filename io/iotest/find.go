package iotest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// A row is found by its key as Read gives it, once for each who asks; one that is not there is not found.
func checkFind(p *sourceProbe) {
	finder, ok := p.source.(connector.Finder)
	if !ok {
		return
	}
	schema, err := p.source.Schema(p.ctx)
	if err != nil {
		p.addf("Schema: %v", err)
		return
	}
	rows := p.rows()
	var keys []*record.Record
	ask := func(r *record.Record) {
		key := &record.Record{Schema: schema, Origin: r.Origin, Values: make([]record.Value, len(schema.Fields))}
		for _, k := range schema.Key {
			key.Values[k] = r.Values[k]
		}
		keys = append(keys, key)
	}
	const asked = 200
	for _, all := range rows {
		if ask(all[0]); len(keys) == asked {
			break
		}
	}
	ask(Record(schema, 1<<30, Base)) // which is not there
	if len(keys) > 1 {
		ask(keys[0])
	}

	gate := NewGate()
	ctx := connector.WithGate(p.ctx, gate)
	times := make([]int, len(keys))
	var giving sync.Mutex
	err = finder.Find(ctx, keys, func(i int, page connector.Page) error {
		if !giving.TryLock() {
			p.addf("Find gives several rows at once")
			return nil
		}
		defer giving.Unlock()
		times[i]++
		p.found(keys[i], page, rows[keys[i].KeyText()])
		return nil
	})
	if err != nil {
		p.addf("Find: %v", err)
	}
	for i, n := range times {
		if n != 1 {
			p.addf("Find gave the row of %.100q %d times", keys[i].KeyText(), n)
		}
	}
	p.passed(gate, int64(min(1, len(rows))), 0)
	p.findErrors(finder, keys)
}

// rows are the records that Read gives, by key, those of one in the order of their versions.
func (p *sourceProbe) rows() map[string][]*record.Record {
	rows := map[string][]*record.Record{}
	for _, s := range p.plan(connector.PlanOptions{}) {
		err := p.source.Read(p.ctx, s, func(page connector.Page) error {
			for _, r := range page.Records {
				rows[r.KeyText()] = append(rows[r.KeyText()], r)
			}
			return nil
		})
		if err != nil {
			p.addf("Read of split %s: %v", s, err)
		}
	}
	for _, all := range rows {
		sortVersions(all)
	}
	return rows
}

func sortVersions(records []*record.Record) {
	slices.SortFunc(records, func(a, b *record.Record) int { return int(a.Version - b.Version) })
}

// found compares what was found with what was read. Expiry is left out: sources that know how long a row still lives
// add that to the clock.
func (p *sourceProbe) found(key *record.Record, page connector.Page, want []*record.Record) {
	if len(page.Dead) > 0 || len(page.Records) != len(want) {
		p.addf("Find of %.100q gave %d records and %d dead letters, Read gave %d records", key.KeyText(),
			len(page.Records), len(page.Dead), len(want))
		return
	}
	got := slices.Clone(page.Records)
	sortVersions(got)
	for i, r := range got {
		versions := func(cells []record.Cell) (all []int64) {
			for _, c := range cells {
				all = append(all, c.Version)
			}
			return all
		}
		w := want[i]
		switch {
		case identity(r) != identity(w) || JSON(r) != JSON(w) || !slices.Equal(versions(r.Cells), versions(w.Cells)):
			p.addf("Find gave %s %.600s, Read gave %s %.600s", identity(r), JSON(r), identity(w), JSON(w))
		case !r.Schema.Same(w.Schema):
			p.addf("Find gave %.100q in another schema than Read", r.KeyText())
		case !reflect.DeepEqual(r.Origin, key.Origin):
			p.addf("Find gave %.100q with origin %v, asked for was %v", r.KeyText(), r.Origin, key.Origin)
		}
	}
}

// Errors of found come back as they are, and a cancelled context ends Find soon, at the gate as well.
func (p *sourceProbe) findErrors(finder connector.Finder, keys []*record.Record) {
	stop := errors.New("no more rows, please")
	if err := finder.Find(p.ctx, keys, func(int, connector.Page) error { return stop }); err != stop {
		p.addf("Find gave %v, want found's error as it is", err)
	}
	gate := NewGate()
	gate.Shut()
	ctx, cancel := context.WithCancel(connector.WithGate(p.ctx, gate))
	defer cancel()
	rows := 0
	ended := make(chan error, 1)
	go func() { ended <- finder.Find(ctx, keys, func(int, connector.Page) error { rows++; return nil }) }()
	if err := gate.Wait(p.ctx, func(c Passed) bool { return c.Waiting > 0 }); err != nil {
		p.addf("Find does not come to the gate: %v", err)
	}
	cancel()
	var err error
	if !within(p.prompt, func() { err = <-ended }) {
		p.addf("Find does not end within %s of its cancellation", p.prompt)
	} else if rows > 0 || !errors.Is(err, context.Canceled) {
		p.addf("Find gave %d rows and %v behind a gate that is shut", rows, err)
	}
}
