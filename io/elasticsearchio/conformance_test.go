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
