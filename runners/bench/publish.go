package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/gocql/gocql"

	"reprise/io/cassandraio"
	"reprise/io/connector"
	"reprise/pipelines/job"
	"reprise/transforms/record"
)

// publish measures the sink of Kafka with rows that are in memory against sarama's producer, and a job that publishes
// the keys of a table, from the start of its process to its end, against the slower of its halves by hand: reading, and
// producing the same events.
func (b *bench) publish(ctx context.Context) error {
	session, err := b.session()
	if err != nil {
		return err
	}
	defer session.Close()
	schema, records, err := b.records(ctx, few)
	if err != nil {
		return err
	}
	many := slices.Repeat(records, 5) // long enough to measure, small enough for the memory
	sink := func(inFlight int) func(int) (time.Duration, error) {
		return b.intoTopic(func(topic string) (time.Duration, error) {
			return b.intoSink(ctx, topic, inFlight, schema, many)
		})
	}
	all, err := turns(b.Rounds,
		side{"Kafka: loop", b.intoTopic(func(topic string) (time.Duration, error) {
			return timed(func() error { return b.produce(topic, many) })(0)
		})},
		side{"Kafka: sink", sink(1)}, side{"Kafka: sink, in_flight: 4", sink(4)})
	if err != nil {
		return err
	}
	n := int64(len(many))
	b.report.add(line{fmt.Sprintf("the Kafka sink, one writer, %d whole rows in memory", n), all[1].rate(n),
		"sarama's producer: " + all[0].rate(n), ratio(all[0], all[1]), atLeast(0.9)})
	b.report.add(line{what: "the same with in_flight: 4", ours: all[2].rate(n), ratio: ratio(all[0], all[2])})

	return b.eachSize(func(keyspace string, rounds int) error { return b.publishOf(ctx, session, keyspace, rounds) })
}

func (b *bench) publishOf(ctx context.Context, session *gocql.Session, keyspace string, rounds int) error {
	read := int64(0)
	sides := []side{
		{"publish: reading loop", timed(func() error { return plainLoop{session, keyspace, true}.count(ctx, &sum{}) })},
		{"publish: Reprise", b.intoTopic(func(topic string) (time.Duration, error) {
			sink, err := b.events(topic, map[string]any{"value": "key", "processor": "thumbnails"})
			if err != nil {
				return 0, err
			}
			f, err := b.reprise(ctx, &job.Job{Name: "bench-publish", Source: connector.From(b.source(keyspace)),
				Sinks: map[string]job.Sink{"events": {SinkSpec: connector.To(sink)}}})
			read = f.report.Read
			return f.took, err
		})}}
	if keyspace == skewed { // of the large one all keys do not fit
		events, err := b.keys(ctx)
		if err != nil {
			return err
		}
		sides = append(sides, side{"publish: producing loop", b.intoTopic(func(topic string) (time.Duration, error) {
			return timed(func() error { return b.produce(topic, events) })(0)
		})})
	}
	all, err := turns(rounds, sides...)
	if err != nil {
		return err
	}
	slower, half := all[0], "reading loop"
	if len(all) > 2 && all[2].median() > slower.median() {
		slower, half = all[2], "sarama's producer with keys read before"
	}
	name := fmt.Sprintf("publishing the keys of a table to Kafka, %d rows, with the start of the process", read)
	b.report.add(line{name, all[1].String(), "the slower half, " + half + ": " + slower.String(),
		ratio(slower, all[1]), atLeast(0.9)})
	return nil
}

// keys are the rows of the corpus with nothing but their keys.
func (b *bench) keys(ctx context.Context) ([]*record.Record, error) {
	_, records, err := b.records(ctx, rows)
	if err != nil {
		return nil, err
	}
	key := record.MustSchema([]record.Field{{Name: "asset_type", Type: record.Of(record.Text)},
		{Name: "bucket", Type: record.Of(record.Text)}, {Name: "id", Type: record.Of(record.TimeUUID)}},
		"asset_type", "bucket", "id")
	for i, r := range records {
		records[i] = &record.Record{Schema: key, Version: r.Version,
			Values: []record.Value{r.Get("asset_type"), r.Get("bucket"), r.Get("id")}}
	}
	return records, nil
}

// events are the settings of a topic as a sink.
func (b *bench) events(topic string, settings map[string]any) (connector.SinkConfig, error) {
	kind, _ := connector.KindOf("kafka")
	sink := kind.Sink()
	settings["brokers"], settings["topic"] = []string{b.Kafka}, topic
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	return sink, json.Unmarshal(text, sink)
}

// records are rows of the corpus, as many as are asked for.
func (b *bench) records(ctx context.Context, most int) (*record.Schema, []*record.Record, error) {
	source := cassandraio.NewSource(*b.source(skewed), connector.Need{})
	defer source.Close()
	schema, err := source.Schema(ctx)
	if err != nil {
		return nil, nil, err
	}
	var records []*record.Record
	enough := errors.New("enough")
	err = source.Plan(ctx, connector.PlanOptions{}, func(s connector.Split) error {
		return source.Read(ctx, s, func(p connector.Page) error {
			if records = append(records, p.Records...); len(records) >= most {
				records = records[:most]
				return enough
			}
			return nil
		})
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return schema, records, err
}

// intoSink writes records as a job does, and gives the time of that alone.
func (b *bench) intoSink(ctx context.Context, topic string, inFlight int, schema *record.Schema,
	records []*record.Record) (time.Duration, error) {
	run := connector.Run{ID: "run", Job: "bench-publish"}
	config, err := b.events(topic, map[string]any{"batch": map[string]int{"in_flight": inFlight}})
	if err != nil {
		return 0, err
	}
	sink, err := config.Open()
	if err != nil {
		return 0, err
	}
	defer sink.Close()
	if err := sink.Prepare(ctx, run, schema, false); err != nil {
		return 0, err
	}
	var refused atomic.Int64
	began := time.Now()
	w, err := sink.Open(ctx, run, schema, func(results []connector.Result) {
		for _, r := range results {
			if r.Err != nil {
				refused.Add(1)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	defer w.Close()
	for _, r := range records {
		if err := w.Write(ctx, r); err != nil {
			return 0, err
		}
	}
	_, err = w.Flush(ctx)
	took := time.Since(began)
	if n := refused.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d records were refused", n))
	}
	return took, err
}

// producer are the settings of the loop, those that the sink has: nothing is repeated by itself, all replicas answer.
func producer() *sarama.Config {
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	s.Net.MaxOpenRequests = 1
	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Return.Successes = true
	s.Producer.Compression = sarama.CompressionLZ4
	return s
}

// produce is the loop: it hands over all records, and waits until each is acknowledged, as one must.
func (b *bench) produce(topic string, records []*record.Record) error {
	p, err := sarama.NewAsyncProducer([]string{b.Kafka}, producer())
	if err != nil {
		return err
	}
	go func() {
		for _, r := range records {
			p.Input() <- &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(r.KeyText()),
				Value: sarama.ByteEncoder(r.AppendJSON(nil)), Headers: []sarama.RecordHeader{
					{Key: []byte("version"), Value: strconv.AppendInt(nil, r.Version, 10)},
					{Key: []byte("run"), Value: []byte("run")}, {Key: []byte("op"), Value: []byte("upsert")},
					{Key: []byte("job"), Value: []byte("bench-publish")},
					{Key: []byte("processor"), Value: []byte("thumbnails")}}}
		}
		p.AsyncClose()
	}()
	errs := make(chan error, 1)
	go func() {
		var first error
		for e := range p.Errors() {
			if first == nil {
				first = e
			}
		}
		errs <- first
	}()
	acknowledged := 0
	for range p.Successes() {
		acknowledged++
	}
	if err := <-errs; err != nil {
		return err
	}
	if acknowledged != len(records) {
		return fmt.Errorf("%d of %d messages were acknowledged", acknowledged, len(records))
	}
	return nil
}

// intoTopic makes a topic for a run, and deletes it afterwards.
func (b *bench) intoTopic(
	run func(topic string) (time.Duration, error)) func(int) (time.Duration, error) {
	return func(round int) (took time.Duration, err error) {
		topic := fmt.Sprintf("reprise-bench-%d-%d", time.Now().UnixMilli(), round)
		admin, err := sarama.NewClusterAdmin([]string{b.Kafka}, producer())
		if err != nil {
			return 0, err
		}
		defer admin.Close()
		detail := &sarama.TopicDetail{NumPartitions: 4, ReplicationFactor: 1}
		if err := admin.CreateTopic(topic, detail, false); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, admin.DeleteTopic(topic)) }()
		return run(topic)
	}
}
