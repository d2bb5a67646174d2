package iotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"reprise/io/connector"
	"reprise/transforms/record"
)

// Source is what a source's own test gives to the suite.
type Source struct {
	New  func(t *testing.T) connector.Source
	Want map[string]string // KeyText → JSON of the fields, deleted keys absent
}

// TestSource checks that a source keeps the contract of package connector.
func TestSource(t *testing.T, s Source) {
	for _, c := range sourceChecks {
		t.Run(c.name, func(t *testing.T) {
			for _, problem := range s.check(t, c, 20*time.Second) {
				t.Error(problem)
			}
		})
	}
}

type sourceCheck struct {
	name string
	run  func(p *sourceProbe)
}

var sourceChecks = []sourceCheck{
	{"schema", checkSchema},
	{"plan", checkPlan},
	{"cut", checkCut},
	{"concurrent", checkConcurrent},
	{"error", checkPageError},
	{"cancel", checkReadCancel},
	{"gate", checkReadGate},
	{"find", checkFind},
}

// sourceProbe is one check at work.
type sourceProbe struct {
	problems
	Source
	source connector.Source
	ctx    context.Context
	prompt time.Duration
}

func (s Source) check(t *testing.T, c sourceCheck, prompt time.Duration) []string {
	ctx, cancel := context.WithTimeout(t.Context(), patience*prompt)
	defer cancel()
	p := &sourceProbe{Source: s, source: s.New(t), ctx: ctx, prompt: prompt}
	t.Cleanup(func() {
		if err := p.source.Close(); err != nil {
			t.Errorf("Close of the source: %v", err)
		}
	})
	c.run(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

// The schema has a key and is the same each time.
func checkSchema(p *sourceProbe) {
	first, err := p.source.Schema(p.ctx)
	if err != nil {
		p.addf("Schema: %v", err)
		return
	}
	if len(first.Key) == 0 || len(first.Fields) == 0 {
		p.addf("the schema has %d fields, %d of them in the key", len(first.Fields), len(first.Key))
	}
	again, err := p.source.Schema(p.ctx)
	if err != nil || !again.Same(first) {
		p.addf("Schema gives another schema the second time (%v)", err)
	}
}

// Whatever the size of splits, each record is in exactly one.
func checkPlan(p *sourceProbe) {
	for _, o := range []connector.PlanOptions{{}, {Rows: 10}, {Rows: 1000}, {Bytes: 10_000},
		{Rows: 100, Bytes: 1 << 30}} {
		splits := p.plan(o)
		got := p.sightings()
		for _, s := range splits {
			p.read(s, got)
		}
		p.complete(fmt.Sprintf("with %+v in %d splits", o, len(splits)), got)
	}
}

// Cutting a split at the end of any page loses and repeats nothing; a record is found from its origin's position.
func checkCut(p *sourceProbe) {
	random := rand.New(rand.NewPCG(1, 2))
	got := p.sightings()
	for _, s := range p.plan(connector.PlanOptions{}) {
		whole := p.sightings()
		pages := p.read(s, whole)
		if len(pages) == 0 {
			continue
		}
		for _, i := range []int{0, len(pages) - 1, random.IntN(len(pages)), random.IntN(len(pages))} {
			done, rest := s.Cut(pages[i].last)
			both := p.sightings()
			p.read(done, both)
			before := len(both.seen)
			p.read(rest, both)
			if i == len(pages)-1 && len(both.seen) != before {
				p.addf("split %s: %d records after the last page", s, len(both.seen)-before)
			}
			both.same(fmt.Sprintf("split %s cut after page %d of %d", s, i+1, len(pages)), whole)

			from := p.sightings()
			again := s
			if again.Start = pages[i].position; again.Start == nil {
				again.Start = s.Start
			}
			p.read(again, from)
			for id := range pages[i].ids {
				if from.seen[id] == 0 {
					p.addf("split %s: %.100q is not found again from the position in its origin", s, id)
				}
			}
		}
		got.add(whole)
	}
	p.complete("with whole splits", got)
}

// All splits at once, twice, give the same.
func checkConcurrent(p *sourceProbe) {
	splits := p.plan(connector.PlanOptions{Rows: 50})
	for range 2 {
		got := p.sightings()
		work := make(chan connector.Split)
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for s := range work {
					p.read(s, got)
				}
			})
		}
		for _, s := range splits {
			work <- s
		}
		close(work)
		readers.Wait()
		p.complete("read by several at once", got)
	}
}

// An error of page comes back as it is, and no page follows it.
func checkPageError(p *sourceProbe) {
	stop := errors.New("no more pages, please")
	for _, s := range p.plan(connector.PlanOptions{}) {
		pages := 0
		err := p.source.Read(p.ctx, s, func(connector.Page) error { pages++; return stop })
		if pages > 1 {
			p.addf("split %s: %d pages, although the first gave an error", s, pages)
		}
		if pages > 0 && err != stop {
			p.addf("split %s: Read gave %v, want page's error as it is", s, err)
		}
	}
	if err := p.source.Plan(p.ctx, connector.PlanOptions{},
		func(connector.Split) error { return stop }); !errors.Is(err, stop) {
		p.addf("Plan gave %v, want the error of its function", err)
	}
}

// A cancelled context ends Read soon.
func checkReadCancel(p *sourceProbe) {
	splits := p.plan(connector.PlanOptions{})
	if len(splits) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	var err error
	if !within(p.prompt, func() { err = p.source.Read(ctx, splits[0], func(connector.Page) error { return nil }) }) {
		p.addf("Read does not end within %s with a cancelled context", p.prompt)
	} else if !errors.Is(err, context.Canceled) {
		p.addf("Read with a cancelled context gave %v, want context.Canceled", err)
	}
	for _, s := range splits {
		ctx, cancel := context.WithCancel(p.ctx)
		after := 0
		ended := within(p.prompt, func() {
			err = p.source.Read(ctx, s, func(connector.Page) error {
				if ctx.Err() != nil {
					after++
				}
				cancel()
				return nil
			})
		})
		if !ended {
			p.addf("split %s: Read does not end within %s of its cancellation", s, p.prompt)
		} else if err == nil && after > 0 {
			p.addf("split %s: Read went on to its end after its cancellation", s)
		}
		cancel()
	}
}

func (p *sourceProbe) plan(o connector.PlanOptions) []connector.Split {
	var splits []connector.Split
	if err := p.source.Plan(p.ctx, o,
		func(s connector.Split) error { splits = append(splits, s); return nil }); err != nil {
		p.addf("Plan with %+v: %v", o, err)
	}
	names := map[string]bool{}
	for _, s := range splits {
		if names[s.String()] {
			p.addf("Plan with %+v: two splits are named %s", o, s)
		}
		names[s.String()] = true
	}
	return splits
}

// sightings are the records seen: identity → times, and what they say of each key.
type sightings struct {
	p      *sourceProbe
	mu     sync.Mutex
	schema *record.Schema
	seen   map[string]int
	newest map[string]*record.Record
}

func (p *sourceProbe) sightings() *sightings {
	return &sightings{p: p, seen: map[string]int{}, newest: map[string]*record.Record{}}
}

func identity(r *record.Record) string {
	return fmt.Sprintf("%s %s %d", r.KeyText(), r.Op, r.Version)
}

func (g *sightings) add(other *sightings) {
	for id, n := range other.seen {
		g.seen[id] += n
	}
	for _, r := range other.newest {
		g.note(r)
	}
}

func (g *sightings) note(r *record.Record) {
	key := r.KeyText()
	if old := g.newest[key]; old == nil || old.Version <= r.Version {
		g.newest[key] = r
	}
	g.schema = r.Schema
}

func (g *sightings) same(when string, want *sightings) {
	for id, n := range want.seen {
		if g.seen[id] != n {
			g.p.addf("%s: %.100q is there %d times, want %d", when, id, g.seen[id], n)
		}
	}
	for id := range g.seen {
		if want.seen[id] == 0 {
			g.p.addf("%s: %.100q is there and was not in the whole split", when, id)
		}
	}
}

// complete checks that each record was seen once and that all together say what the test wants.
func (p *sourceProbe) complete(when string, g *sightings) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, n := range g.seen {
		if n > 1 {
			p.addf("%s: %.100q came %d times", when, id, n)
		}
	}
	got := map[string]string{}
	for key, r := range g.newest {
		if r.Op == record.Upsert {
			got[key] = JSON(r)
		}
	}
	schema := g.schema
	if schema == nil {
		schema = AssetSchema()
	}
	compare(&p.problems, when, schema, got, p.Want)
}

// seenPage is what the checks need of a page.
type seenPage struct {
	last     []byte
	position []byte // in the origin of its records
	ids      map[string]bool
}

// read reads a split to its end and checks each page.
func (p *sourceProbe) read(s connector.Split, g *sightings) (pages []seenPage) {
	var last []byte
	err := p.source.Read(p.ctx, s, func(page connector.Page) error {
		if page.Last == nil || (last != nil && bytes.Compare(page.Last, last) <= 0) {
			p.addf("split %s: a page ends at %x, the page before it at %x", s, page.Last, last)
		}
		if !s.Contains(page.Last) {
			p.addf("split %s: a page ends at %x, outside of it", s, page.Last)
		}
		last = slices.Clone(page.Last)
		seen := seenPage{last: last, ids: map[string]bool{}}
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, r := range page.Records {
			id := identity(r)
			g.seen[id]++
			g.note(r)
			seen.ids[id], seen.position = true, r.Origin.Position
			p.checkRecord(s, r)
		}
		for _, dead := range page.Dead {
			if dead.Class == "" || dead.Code == "" || dead.Message == "" {
				p.addf("split %s: a dead letter without class, code or message: %+v", s, dead)
			}
		}
		pages = append(pages, seen)
		return nil
	})
	if err != nil {
		p.addf("Read of split %s: %v", s, err)
	}
	return pages
}

func (p *sourceProbe) checkRecord(s connector.Split, r *record.Record) {
	if r.Schema == nil || len(r.Values) != len(r.Schema.Fields) {
		p.addf("split %s: a record whose values do not fit its schema", s)
		return
	}
	if r.Origin.Split != s.String() {
		p.addf("split %s: %.100q has origin %q", s, r.KeyText(), r.Origin.Split)
	}
	if r.Version <= 0 {
		p.addf("split %s: %.100q has version %d", s, r.KeyText(), r.Version)
	}
	if r.Cells != nil && len(r.Cells) != len(r.Values) {
		p.addf("split %s: %.100q has %d cells for %d fields", s, r.KeyText(), len(r.Cells), len(r.Values))
	}
	for _, k := range r.Schema.Key {
		if r.Values[k].IsNull() {
			p.addf("split %s: %.100q has no value in key field %q", s, r.KeyText(), r.Schema.Fields[k].Name)
		}
	}
}
