package elasticsearchio

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// source gives a source of an index whose records are the suites' own.
func (s server) source(index string, change func(*SourceConfig)) *Source {
	s.t.Helper()
	c := SourceConfig{URLs: []string{s.url}, Index: index, Key: []string{"id"},
		Fields: iotest.AssetSchema().Fields, Refresh: true}
	if change != nil {
		change(&c)
	}
	for _, f := range c.Validate() {
		s.t.Fatalf("%s: %s", f.Path, f.Message)
	}
	source := NewSource(c, connector.Need{PageRows: 100})
	s.t.Cleanup(func() { source.Close() })
	return source
}

// put writes records by the sink, whose index is made.
func (s server) put(index string, records ...*record.Record) {
	s.t.Helper()
	c := SinkConfig{URLs: []string{s.url}, Index: index, Create: &Create{}}
	if err := prepare(s.t, c, records[0].Schema, false); err != nil {
		s.t.Fatal(err)
	}
	results, err := write(s.t, c, records...)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			s.t.Errorf("%s: %v", r.Record.KeyText(), r.Err)
		}
	}
}

// seen is what a source gave.
type seen struct {
	splits  []connector.Split
	records map[string]*record.Record // by key
	dead    []*record.DeadLetter
}

// read reads all splits, several at once.
func read(t *testing.T, s *Source, o connector.PlanOptions) seen {
	t.Helper()
	got := seen{records: map[string]*record.Record{}}
	if err := s.Plan(t.Context(), o,
		func(s connector.Split) error { got.splits = append(got.splits, s); return nil }); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	readers, ctx := errgroup.WithContext(t.Context())
	readers.SetLimit(4)
	for _, split := range got.splits {
		readers.Go(func() error {
			return s.Read(ctx, split, func(p connector.Page) error {
				mu.Lock()
				defer mu.Unlock()
				got.add(t, p)
				return nil
			})
		})
	}
	if err := readers.Wait(); err != nil {
		t.Fatal(err)
	}
	return got
}

func (g *seen) add(t *testing.T, p connector.Page) {
	g.dead = append(g.dead, p.Dead...)
	for _, r := range p.Records {
		if g.records[r.KeyText()] != nil {
			t.Errorf("%s came twice", r.KeyText())
		}
		g.records[r.KeyText()] = r
	}
}

func asJSON(records []*record.Record) map[string]string {
	all := map[string]string{}
	for _, r := range records {
		all[r.KeyText()] = iotest.JSON(r)
	}
	return all
}

func TestSource(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) server{
		"8": shared,
		"7.17": func(t *testing.T) server {
			return server{t, "http://" + services.Own(t, services.Elasticsearch,
				services.Env("ELASTICSEARCH_VERSION=7.17.15")).Addr}
		},
		"OpenSearch": func(t *testing.T) server { return sharedOf(t, services.OpenSearch) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSource(t, start(t))
		})
	}
}

func testSource(t *testing.T, es server) {
	index := es.index(name(t))
	records := iotest.Records(iotest.AssetSchema(), 0, 2000, iotest.Base)
	es.put(index, slices.Concat(records, []*record.Record{iotest.Deletion(iotest.AssetSchema(), 17, iotest.Base+1)})...)
	want := asJSON(records)
	delete(want, records[17].KeyText())
	iotest.TestSource(t, iotest.Source{Want: want,
		New: func(t *testing.T) connector.Source { return es.source(index, nil) }})
}
