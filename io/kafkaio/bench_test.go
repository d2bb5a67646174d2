package kafkaio

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/record"
)

// BenchmarkSink compares the sink with a loop over sarama's own producer, written by hand, that makes the same messages
// of the same records, on a real broker.
func BenchmarkSink(b *testing.B) {
	broker := services.Need(b, services.Kafka)
	benchmark(b, []string{broker})
}

// BenchmarkSinkOnFake does so without a broker that stores anything.
func BenchmarkSinkOnFake(b *testing.B) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BlackholeProduce())
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	benchmark(b, cluster.ListenAddrs())
}

func benchmark(b *testing.B, brokers []string) {
	const n = 200_000
	schema := iotest.AssetSchema()
	records := iotest.Records(schema, 0, n, 1)
	c := SinkConfig{Brokers: brokers, Topic: services.Name(b), Create: &Create{Partitions: 4}}
	sinks := map[string]*Sink{}
	for _, inFlight := range []int{1, 4} {
		c.Batch.InFlight = inFlight
		s := newSink(b, c)
		if err := s.Prepare(b.Context(), run, schema, false); err != nil {
			b.Fatal(err)
		}
		sinks[strconv.Itoa(inFlight)] = s
	}
	total := map[string]time.Duration{}
	timed := func(name string, f func()) {
		began := time.Now()
		f()
		total[name] += time.Since(began)
	}
	bare(b, c, records[:1000])
	rounds := 0
	for b.Loop() {
		rounds++
		timed("bare", func() { bare(b, c, records) })
		for name, s := range sinks {
			timed(name, func() { benchSink(b, s, schema, records) })
		}
	}
	for name := range sinks {
		b.ReportMetric(float64(total["bare"])/float64(total[name]), "ratio-in-flight-"+name)
		b.ReportMetric(float64(n*rounds)/total[name].Seconds()/1000, "krecords/s-in-flight-"+name)
	}
	b.ReportMetric(float64(n*rounds)/total["bare"].Seconds()/1000, "krecords/s-bare")
}

func benchSink(b *testing.B, s *Sink, schema *record.Schema, records []*record.Record) {
	settled := 0
	var mu sync.Mutex
	w, err := s.Open(b.Context(), run, schema, func(all []connector.Result) {
		mu.Lock()
		settled += len(all)
		mu.Unlock()
	})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Flush(b.Context()); err != nil || settled != len(records) {
		b.Fatal(settled, err)
	}
}

func bare(b *testing.B, c SinkConfig, records []*record.Record) {
	s, err := producing(c)
	if err != nil {
		b.Fatal(err)
	}
	p, err := sarama.NewAsyncProducer(c.Brokers, s)
	if err != nil {
		b.Fatal(err)
	}
	var acks sync.WaitGroup
	acks.Go(func() {
		n := 0
		for range p.Successes() {
			n++
		}
		if n != len(records) {
			panic(fmt.Sprintf("%d of %d acknowledged", n, len(records)))
		}
	})
	acks.Go(func() {
		for err := range p.Errors() {
			panic(err)
		}
	})
	for _, r := range records {
		p.Input() <- &sarama.ProducerMessage{Topic: c.Topic, Key: sarama.StringEncoder(r.KeyText()),
			Value: sarama.ByteEncoder(r.AppendJSON(nil)),
			Headers: []sarama.RecordHeader{
				{Key: []byte("version"), Value: strconv.AppendInt(nil, r.Version, 10)},
				{Key: []byte("run"), Value: []byte(run.ID)},
				{Key: []byte("op"), Value: []byte(r.Op.String())}, {Key: []byte("job"), Value: []byte(run.Job)}}}
	}
	p.AsyncClose()
	acks.Wait()
}
