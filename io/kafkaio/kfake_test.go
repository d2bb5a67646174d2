package kafkaio

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

func fake(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, SinkConfig) {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(3, "assets")},
		opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, SinkConfig{Brokers: cluster.ListenAddrs(), Topic: "assets"}
}

// results of records, by their key.
type results struct {
	mu  sync.Mutex
	all map[string]connector.Result
}

func (r *results) settle(list []connector.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string]connector.Result{}
	}
	for _, res := range list {
		r.all[res.Record.KeyText()] = res
	}
}

var run = connector.Run{ID: "run-1", Job: "job"}

// newSink gives a sink that is closed with the test and tries again without long pauses.
func newSink(t testing.TB, c SinkConfig) *Sink {
	s := NewSink(c)
	s.retry = connector.Retry{First: time.Millisecond, Max: 50 * time.Millisecond, Deadline: time.Minute}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(t testing.TB, s *Sink, schema *record.Schema,
	records []*record.Record) (map[string]connector.Result, error) {
	t.Helper()
	var r results
	w, err := s.Open(t.Context(), run, schema, r.settle)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, rec := range records {
		if err := w.Write(t.Context(), rec); err != nil {
			return r.all, err
		}
	}
	_, err = w.Flush(t.Context())
	return r.all, err
}

// messages reads all of a topic, partition by partition.
func messages(t testing.TB, brokers []string, topic string) (all []*sarama.ConsumerMessage) {
	t.Helper()
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	s.Consumer.Return.Errors = true
	s.Consumer.MaxWaitTime = 10 * time.Millisecond
	client, err := sarama.NewClient(brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	partitions, err := client.Partitions(topic)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var reading sync.WaitGroup
	for _, partition := range partitions {
		end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		// A broker may not know yet that it leads a topic made a moment ago.
		for errors.Is(err, sarama.ErrNotLeaderForPartition) && t.Context().Err() == nil {
			time.Sleep(50 * time.Millisecond)
			end, err = client.GetOffset(topic, partition, sarama.OffsetNewest)
		}
		if err != nil {
			t.Fatal(err)
		}
		if end == 0 {
			continue
		}
		c, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer c.AsyncClose()
			for last := int64(-1); last < end-1; {
				select {
				case m := <-c.Messages():
					mu.Lock()
					all, last = append(all, m), m.Offset
					mu.Unlock()
				case err := <-c.Errors():
					t.Error(err)
					return
				}
			}
		})
	}
	reading.Wait()
	return all
}

func header(m *sarama.ConsumerMessage, key string) string {
	for _, h := range m.Headers {
		if string(h.Key) == key {
			return string(h.Value)
		}
	}
	return ""
}

func wantCode(t *testing.T, err error, code string, class fail.Class, exit int) {
	t.Helper()
	if fail.CodeOf(err) != code || fail.ClassOf(err) != class || fail.ExitOf(err) != exit {
		t.Errorf("%v (%s, exit %d), want a %s error %s, exit %d", err, fail.ClassOf(err),
			fail.ExitOf(err), class, code, exit)
	}
}

func TestMessages(t *testing.T) {
	_, c := fake(t)
	c.Batch.Rows = 2
	schema := iotest.AssetSchema()
	s := newSink(t, c)
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	records := iotest.Records(schema, 0, 5, 7)
	records = append(records, iotest.Deletion(schema, 9, 8))
	if _, err := write(t, s, schema, records); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, m := range messages(t, c.Brokers, "assets") {
		got[string(m.Key)] = []string{string(m.Value), header(m, "version"), header(m, "run"),
			header(m, "op"), header(m, "job")}
		if (m.Value == nil) != (header(m, "op") == "delete") {
			t.Errorf("%s has the value %q", m.Key, m.Value)
		}
		if age := time.Since(m.Timestamp); age > time.Hour || age < -time.Hour {
			t.Errorf("%s has the time %s", m.Key, m.Timestamp)
		}
		if want := int32(murmur2(m.Key)&0x7fffffff) % 3; m.Partition != want {
			t.Errorf("%s stands in partition %d, want %d", m.Key, m.Partition, want)
		}
	}
	want := map[string][]string{}
	for _, r := range records {
		value, op := iotest.JSON(r), "upsert"
		if r.Op == record.Delete {
			value, op = "", "delete"
		}
		want[r.KeyText()] = []string{value, strconv.FormatInt(r.Version, 10), "run-1", op, "job"}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The values are those of Kafka's own test of its hash, UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482,
		"a-little-bit-long-string":                         -985981536,
		"a-little-bit-longer-string":                       -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%s: %d, want %d", key, got, want)
		}
	}
}

// answer lets the broker answer a number of requests to write with an error.
func answer(cluster *kfake.Cluster, times int, code int16) {
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		if times == 0 {
			cluster.DropControl()
			return nil, nil, false
		}
		times--
		cluster.KeepControl()
		return refusal(request.(*kmsg.ProduceRequest), sarama.KError(code)), nil, true
	})
}

func refusal(p *kmsg.ProduceRequest, code sarama.KError) kmsg.Response {
	response := p.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range p.Topics {
		a := kmsg.NewProduceResponseTopic()
		a.Topic, a.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			b := kmsg.NewProduceResponseTopicPartition()
			b.Partition, b.ErrorCode = partition.Partition, int16(code)
			a.Partitions = append(a.Partitions, b)
		}
		response.Topics = append(response.Topics, a)
	}
	return response
}

// What passes costs nothing, whatever it does to the producer.
func TestErrorsThatPass(t *testing.T) {
	for _, code := range []sarama.KError{sarama.ErrNotLeaderForPartition, sarama.ErrRequestTimedOut,
		sarama.ErrNotEnoughReplicas,
		sarama.ErrUnknownTopicOrPartition, sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnknownProducerID,
		sarama.ErrInvalidProducerEpoch,
		sarama.ErrProducerFenced, sarama.ErrUnknown, sarama.ErrThrottlingQuotaExceeded} {
		t.Run(strconv.Itoa(int(code)), func(t *testing.T) {
			t.Parallel()
			cluster, c := fake(t)
			c.Batch.Rows = 50
			schema := iotest.AssetSchema()
			s := newSink(t, c)
			records := iotest.Records(schema, 0, 500, 1)
			answer(cluster, 3, int16(code))
			all, err := write(t, s, schema, records)
			if err != nil || len(all) != len(records) {
				t.Fatalf("%d of %d settled: %v", len(all), len(records), err)
			}
			found := map[string]bool{}
			for _, m := range messages(t, c.Brokers, "assets") {
				found[string(m.Key)] = true
			}
			for _, r := range records {
				if res := all[r.KeyText()]; res.Err != nil || !found[r.KeyText()] {
					t.Fatalf("%s: %v, in the topic: %t", r.KeyText(), res.Err, found[r.KeyText()])
				}
			}
		})
	}
}

// A batch that is refused for its size is written message by message.
func TestTooLargeBatch(t *testing.T) {
	cluster, c := fake(t)
	schema := iotest.AssetSchema()
	s := newSink(t, c)
	answer(cluster, 1, int16(sarama.ErrMessageSizeTooLarge))
	records := iotest.Records(schema, 0, 100, 1)
	all, err := write(t, s, schema, records)
	if err != nil || len(all) != 100 {
		t.Fatal(len(all), err)
	}
	for _, res := range all {
		if res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	if n := len(messages(t, c.Brokers, "assets")); n != 100 {
		t.Errorf("%d messages", n)
	}
}

func TestErrorsThatEndARun(t *testing.T) {
	schema := iotest.AssetSchema()
	for code, want := range map[sarama.KError]string{sarama.ErrTopicAuthorizationFailed: "kafka.denied",
		sarama.ErrClusterAuthorizationFailed: "kafka.denied"} {
		cluster, c := fake(t)
		answer(cluster, 100, int16(code))
		_, err := write(t, newSink(t, c), schema, iotest.Records(schema, 0, 10, 1))
		wantCode(t, err, want, fail.Fatal, fail.ExitUnreachable)
	}
	cluster, c := fake(t)
	s := newSink(t, c)
	s.retry.Deadline = time.Millisecond
	answer(cluster, 1000, int16(sarama.ErrUnknown))
	_, err := write(t, s, schema, iotest.Records(schema, 0, 10, 1))
	wantCode(t, err, "kafka.unavailable", fail.Transient, fail.ExitUnreachable)
}

func TestTopics(t *testing.T) {
	cluster, c := fake(t, kfake.AllowAutoTopicCreation())
	schema := iotest.AssetSchema()
	prepare := func(c SinkConfig, dry bool) error { return newSink(t, c).Prepare(t.Context(), run, schema, dry) }

	c.Topic = "none"
	for _, dry := range []bool{true, false} {
		wantCode(t, prepare(c, dry), "kafka.no_topic", fail.Fatal, fail.ExitJob)
	}
	c.Topic = "not/a/topic"
	wantCode(t, prepare(c, false), "kafka.topic_name", fail.Fatal, fail.ExitJob)
	c.Topic = "{nothing}"
	wantCode(t, prepare(c, true), "kafka.topic", fail.Fatal, fail.ExitJob)
	c.Topic = "of-{asset_type}"
	if err := prepare(c, false); err != nil {
		t.Error(err)
	}
	_, err := write(t, newSink(t, c), schema, iotest.Records(schema, 0, 3, 1))
	wantCode(t, err, "kafka.no_topic", fail.Fatal, fail.ExitJob)

	c.Create = &Create{Partitions: 5}
	c.Topic = "fresh"
	if err := prepare(c, true); err != nil {
		t.Error(err)
	}
	if cluster.TopicInfo("fresh") != nil {
		t.Error("Prepare with dry made the topic")
	}
	if err := prepare(c, false); err != nil {
		t.Error(err)
	}
	c.Topic = "of-{asset_type}"
	records := iotest.Records(schema, 0, 3, 1)
	records[0].Values[1], records[1].Values[1] = record.NullValue, record.String("not/a/topic")
	all, err := write(t, newSink(t, c), schema, records)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, all[records[0].KeyText()].Err, "kafka.topic", fail.Permanent, fail.ExitInternal)
	wantCode(t, all[records[1].KeyText()].Err, "kafka.topic_name", fail.Permanent, fail.ExitInternal)
	if m := messages(t, c.Brokers, "of-"+records[2].Values[1].Str()); len(m) != 1 {
		t.Errorf("%d messages in the topic of the third", len(m))
	}
}

func TestUnreachable(t *testing.T) {
	schema := iotest.AssetSchema()
	_, c := fake(t)
	c.Brokers = []string{"127.0.0.1:1"}
	wantCode(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "kafka.unavailable",
		fail.Transient, fail.ExitUnreachable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newSink(t, c).Prepare(ctx, run, schema, true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// refuseLogins answers as Kafka does; the fake one closes the connection.
func refuseLogins(cluster *kfake.Cluster) {
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		response.ErrorCode = int16(sarama.ErrSASLAuthenticationFailed)
		return response, nil, true
	})
}

func TestLogin(t *testing.T) {
	t.Setenv("KAFKA_TEST_PASSWORD", "secret")
	t.Setenv("KAFKA_TEST_WRONG", "wrong")
	schema := iotest.AssetSchema()
	for mechanism, name := range map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256",
		"scram-sha-512": "SCRAM-SHA-512"} {
		cluster, c := fake(t, kfake.EnableSASL(), kfake.Superuser(name, "user", "secret"))
		c.SASL = &SASL{Mechanism: mechanism, User: "user", Password: "env:KAFKA_TEST_PASSWORD"}
		if _, err := write(t, newSink(t, c), schema, iotest.Records(schema, 0, 10, 1)); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		c.SASL = &SASL{Mechanism: mechanism, User: "user", Password: "env:KAFKA_TEST_WRONG"}
		refuseLogins(cluster)
		wantCode(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "kafka.login",
			fail.Fatal, fail.ExitUnreachable)
		c.SASL = &SASL{Mechanism: mechanism, User: "user", Password: "env:KAFKA_TEST_NONE"}
		wantCode(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "kafka.password", fail.Fatal, fail.ExitJob)
		c.SASL = nil
		wantCode(t, newSink(t, c).Prepare(t.Context(), run, schema, true), "kafka.unavailable",
			fail.Transient, fail.ExitUnreachable)
	}
}

func TestConfig(t *testing.T) {
	for text, want := range map[string][]string{
		`{"brokers":["a:1"],"topic":"t"}`: nil,
		`{}`:                              {"brokers", "topic"},
		`{"brokers":["a"],"topic":"{","key":"}","format":"avro"}`: {
			"brokers", "key", "registry", "topic"},
		`{"brokers":["a:1"],"topic":"t","registry":{"url":"http://x"}}`: {
			"registry"},
		`{"brokers":["a:1"],"topic":"t","format":"avro","registry":{"url":"x","name":"a-b"}}`: {
			"registry.name", "registry.url"},
		`{"brokers":["a:1"],"topic":"t","batch":{"rows":5,"bytes":"1MiB","in_flight":1},"create":{"partitions":1}}`: nil,
	} {
		var c SinkConfig
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range c.Validate() {
			got = append(got, f.Path)
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

// producerIDs of the batches in a request (Kafka's record batch, version 2).
func producerIDs(p *kmsg.ProduceRequest) (ids []int64) {
	for _, topic := range p.Topics {
		for _, partition := range topic.Partitions {
			ids = append(ids, int64(binary.BigEndian.Uint64(partition.Records[43:])))
		}
	}
	return ids
}

// A producer that Kafka will hear no more is replaced.
func TestNewProducer(t *testing.T) {
	cluster, c := fake(t)
	var first atomic.Int64
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		p := request.(*kmsg.ProduceRequest)
		id := producerIDs(p)[0]
		if p.Acks != -1 || id < 0 {
			t.Errorf("a request with acks %d of producer %d, want all of an idempotent one", p.Acks, id)
		}
		if first.CompareAndSwap(0, id); first.Load() != id {
			return nil, nil, false
		}
		cluster.KeepControl()
		return refusal(p, sarama.ErrOutOfOrderSequenceNumber), nil, true
	})
	schema := iotest.AssetSchema()
	s := newSink(t, c)
	s.retry.Deadline = 10 * time.Second
	if _, err := write(t, s, schema, iotest.Records(schema, 0, 100, 1)); err != nil {
		t.Fatal(err)
	}
	if n := len(messages(t, c.Brokers, "assets")); n != 100 {
		t.Errorf("%d messages", n)
	}
}
