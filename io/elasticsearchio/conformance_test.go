package elasticsearchio

import (
	"testing"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	own := services.Own(t, services.Elasticsearch)
	testConformance(t, server{t, "http://" + own.Addr}, own)
}

// The same without outages, which look the same from here.
func TestConformanceOpenSearch(t *testing.T) {
	t.Parallel()
	testConformance(t, sharedOf(t, services.OpenSearch), nil)
}

func testConformance(t *testing.T, es server, own *services.Instance) {
	prefix := name(t)
	index := func(target string) string { return prefix + "-" + target }
	t.Cleanup(func() { es.call("DELETE", "/"+prefix+"-*", nil) })
	suite := iotest.Sink{
		New: func(t *testing.T, target string) connector.Sink {
			return NewSink(SinkConfig{URLs: []string{es.url}, Index: index(target), Create: &Create{}})
		},
		Read:       func(t *testing.T, target string) map[string]string { return es.documents(index(target)) },
		Count:      func(t *testing.T, target string) int { return es.count(index(target)) },
		Superseded: true,
		Deletes:    true,
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 1000, iotest.Base)
			r.Values[0] = record.String(string(make([]byte, 513)))
			return r
		},
	}
	if own != nil {
		suite.Server = own
	}
	iotest.TestSink(t, suite)
}

func TestEdges(t *testing.T) {
	for _, service := range []services.Service{services.Elasticsearch, services.OpenSearch} {
		t.Run(string(service), func(t *testing.T) {
			t.Parallel()
			es := sharedOf(t, service)
			index := es.index("edges")
			schema := iotest.Edges()[0].Schema
			sink := NewSink(SinkConfig{URLs: []string{es.url}, Index: index, Create: &Create{}, Refresh: "now"})
			iotest.TestEdges(t, sink, func() connector.Source {
				return es.source(index, func(c *SourceConfig) {
					c.Fields, c.Key,
						c.Refresh = schema.Fields, []string{"id"}, true
				})
			})
		})
	}
}
