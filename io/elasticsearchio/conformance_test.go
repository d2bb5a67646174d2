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
	for _, service := range servers {
		t.Run(string(service), func(t *testing.T) {
			t.Parallel()
			testConformance(t, service)
		})
	}
}

func testConformance(t *testing.T, service services.Service) {
	own := services.Own(t, service)
	es := server{t, "http://" + own.Addr}
	prefix := name(t)
	index := func(target string) string { return prefix + "-" + target }
	iotest.TestSink(t, iotest.Sink{
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
		Server: own,
	})
}
