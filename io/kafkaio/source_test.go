package kafkaio

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
	"pgregory.net/rapid"

	"reprise/io/connector"
	"reprise/io/deadletter"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// source gives the settings that read what a sink writes, records of a schema.
func source(c SinkConfig, schema *record.Schema) SourceConfig {
	return SourceConfig{Brokers: c.Brokers, Topic: c.Topic, Key: schema.KeyNames(), Format: c.Format,
		Registry: c.Registry, Fields: schema.Fields, SASL: c.SASL, TLS: c.TLS}
}

// newSource gives a source that is closed with the test and tries again without long pauses.
func newSource(t testing.TB, c SourceConfig) *Source {
	t.Helper()
	s := NewSource(c, connector.Need{})
	s.retry = connector.Retry{First: time.Millisecond, Max: 50 * time.Millisecond, Deadline: time.Minute}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// read reads all that the plan holds, split by split.
func read(t testing.TB, s *Source, o connector.PlanOptions) (records []*record.Record, dead []*record.DeadLetter) {
	t.Helper()
	if err := s.Plan(t.Context(), o, func(split connector.Split) error {
		return s.Read(t.Context(), split, func(p connector.Page) error {
			records, dead = append(records, p.Records...), append(dead, p.Dead...)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	iotest.Places(t, s, dead)
	return records, dead
}

// same checks that records were read as they were written, but for the order and where they come from.
func same(t testing.TB, got, want []*record.Record) {
	t.Helper()
	wire := func(records []*record.Record) map[string]string {
		all := map[string]string{}
		for _, r := range records {
			c := *r
			c.Origin = record.Origin{}
			all[fmt.Sprint(r.KeyText(), r.Version)] = iotest.JSON(r) + string(record.AppendRecord(nil, &c))
		}
		return all
	}
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	if d := cmp.Diff(wire(want), wire(got)); d != "" {
		t.Error(d)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 3}, Batch: Batch{Rows: 100}}
	records := iotest.Records(schema, 0, 3000, iotest.Base)
	want := map[string]string{}
	for _, r := range records {
		want[r.KeyText()] = iotest.JSON(r)
	}
	for i := range 100 {
		r := iotest.Record(schema, i, iotest.Base+1)
		records, want[r.KeyText()] = append(records, r), iotest.JSON(r)
		gone := iotest.Deletion(schema, 1000+i, iotest.Base+1)
		records = append(records, gone)
		delete(want, gone.KeyText())
	}
	if _, err := write(t, newSink(t, c), schema, records); err != nil {
		t.Fatal(err)
	}
	iotest.TestSource(t, iotest.Source{Want: want,
		New: func(t *testing.T) connector.Source { return NewSource(source(c, schema), connector.Need{PageRows: 70}) }})
}

func allTypes(t testing.TB) *record.Schema {
	fields := []record.Field{{Name: "id", Type: record.Of(record.UUID)}, {Name: "part", Type: record.Of(record.Text)}}
	for i, text := range avroTypes {
		fields = append(fields, record.Field{Name: fmt.Sprintf("%d field", i), Type: parseType(t, text)})
	}
	return record.MustSchema(fields, "part", "id")
}

// What the sink writes the source reads as it was: all types, nulls, versions, deletes, keys with everything in them.
func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	schema := allTypes(t)
	var records []*record.Record
	for i := range 500 {
		r := iotest.Record(schema, i, iotest.Base+int64(i))
		if i%10 == 1 {
			r = iotest.Deletion(schema, i, iotest.Base+int64(i))
		}
		for j := range r.Values {
			if i%10 == 2 && j > 1 {
				r.Values[j] = record.NullValue
			}
		}
		r.Values[1] = record.String([]string{"a|b", `\`, "", "ü\x00", `a\|`}[i%5])
		records = append(records, r)
	}
	for _, c := range []SinkConfig{
		{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
			Create: &Create{Partitions: 4}, Compress: "zstd"},
		avroConfig(t),
	} {
		if _, err := write(t, newSink(t, c), schema, records); err != nil {
			t.Fatal(err)
		}
		got, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{Rows: 30})
		if len(dead) > 0 {
			t.Errorf("%s: %d dead letters, such as %+v", c.Format, len(dead), dead[0])
		}
		same(t, got, records)
	}
}

// Without fields the registry's latest schema counts, and values with an older one are read as well.
func TestRegistrySchema(t *testing.T) {
	t.Parallel()
	c := avroConfig(t)
	c.Registry.Name = "com.example.Asset"
	fields := []record.Field{{Name: "id", Type: parseType(t, "uuid")}, {Name: "n", Type: parseType(t, "bigint")},
		{Name: "at", Type: parseType(t, "timestamp")},
		{Name: "tags", Type: parseType(t, "list<text>")}, {Name: "attrs", Type: parseType(t, "map<text, double>")},
		{Name: "place", Type: parseType(t, "udt<lat:double, days:list<date>>")}}
	older := record.MustSchema(fields, "id")
	schema := record.MustSchema(append(slices.Clone(fields), record.Field{Name: "more", Type: parseType(t, "boolean")}),
		"id")
	var want []*record.Record
	for i, s := range []*record.Schema{older, schema} {
		records := iotest.Records(s, i*10, 10, iotest.Base)
		if _, err := write(t, newSink(t, c), s, records); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			w := *r
			w.Schema, w.Values = schema, append(slices.Clone(r.Values), record.Value{})[:len(schema.Fields)]
			want = append(want, &w)
		}
	}
	from := source(c, schema)
	from.Fields = nil
	s := newSource(t, from)
	got, dead := read(t, s, connector.PlanOptions{})
	if len(dead) > 0 {
		t.Errorf("%+v", dead[0])
	}
	same(t, got, want)

	from.Registry = &Registry{URL: c.Registry.URL, Subject: "record", Name: "com.example.None"}
	_, err := newSource(t, from).Schema(t.Context())
	wantCode(t, err, "kafka.no_schema", fail.Fatal, fail.ExitJob)
	from.Registry = &Registry{URL: "http://127.0.0.1:1"}
	s = newSource(t, from)
	s.retry.Deadline = 0
	_, err = s.Schema(t.Context())
	wantCode(t, err, "kafka.registry_unavailable", fail.Transient, fail.ExitUnreachable)
}

// Dead letters come back from a topic as they were.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	schema := iotest.AssetSchema()
	var letters []*record.DeadLetter
	var records []*record.Record
	for i := range 100 {
		l := &record.DeadLetter{Run: "r", Step: "sink search", Sink: "search", Class: "permanent", Code: "x.y",
			Message: fmt.Sprintf("no %d \x00 \" ü", i), Attempts: i, Split: "s(..00]", At: 1e12 + int64(i)}
		switch i % 3 {
		case 0:
			l.Record = iotest.Record(schema, i, iotest.Base)
		case 1:
			l.Record = iotest.Deletion(schema, i, iotest.Base)
		case 2:
			l.Raw = []byte{0, 0xff, byte(i)}
		}
		letters, records = append(letters, l), append(records, deadletter.ToRecord(l))
	}
	for _, c := range []SinkConfig{
		{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t), Create: &Create{Partitions: 2}},
		avroConfig(t),
	} {
		if _, err := write(t, newSink(t, c), deadletter.Schema(), records); err != nil {
			t.Fatal(err)
		}
		got, dead := read(t, newSource(t, source(c, deadletter.Schema())), connector.PlanOptions{})
		if len(dead) > 0 || len(got) != len(letters) {
			t.Fatalf("%d letters, want %d; %d of them dead again", len(got), len(letters), len(dead))
		}
		for _, r := range got {
			l, err := deadletter.FromRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			want := letters[l.At-1e12]
			if !iotest.SameLetter(l, want) {
				t.Fatalf("%+v became %+v", want, l)
			}
		}
	}
}

// transactional gives a producer whose messages count once its transaction has been committed.
func transactional(t testing.TB, c SinkConfig, id string) sarama.SyncProducer {
	t.Helper()
	s, err := producing(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Producer.Transaction.ID = id
	s.Producer.Flush.MaxMessages = 5
	p, err := sarama.NewSyncProducer(c.Brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// send writes records within a transaction, which it ends.
func send(t testing.TB, p sarama.SyncProducer, topic string, commit bool, records ...*record.Record) {
	t.Helper()
	if err := p.BeginTxn(); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(r.KeyText()),
			Value: sarama.StringEncoder(iotest.JSON(r)),
			Headers: []sarama.RecordHeader{{Key: []byte("version"),
				Value: strconv.AppendInt(nil, r.Version, 10)}}}); err != nil {
			t.Fatal(err)
		}
	}
	end := p.CommitTxn
	if !commit {
		end = p.AbortTxn
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
}

// Of transactions only what was committed is read, however the plan cuts through them; a partition may end in marks.
func TestTransactions(t *testing.T) {
	t.Parallel()
	real := SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 1}}
	cluster, fake := fake(t, kfake.SeedTopics(1, "one"))
	fake.Topic = "one"
	_ = cluster
	for name, c := range map[string]SinkConfig{"kafka": real, "fake": fake} {
		t.Run(name, func(t *testing.T) {
			schema := iotest.AssetSchema()
			records := iotest.Records(schema, 0, 100, iotest.Base)
			if _, err := write(t, newSink(t, c), schema, records[:10]); err != nil {
				t.Fatal(err)
			}
			a, b := transactional(t, c, services.Name(t)+"a"), transactional(t, c, services.Name(t)+"b")
			send(t, a, c.Topic, true, records[10:30]...)
			send(t, a, c.Topic, false, records[30:50]...)
			send(t, b, c.Topic, true, records[50:70]...)
			send(t, a, c.Topic, true, records[70:90]...)
			send(t, b, c.Topic, false, records[90:]...)
			want := slices.Concat(records[:30], records[50:90])
			for _, rows := range []int64{0, 1, 3, 7, 50} {
				got, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{Rows: rows})
				if len(dead) > 0 {
					t.Error(dead[0])
				}
				same(t, got, want)
			}

			// What an open transaction writes, and what follows it, is not there yet.
			open := transactional(t, c, services.Name(t)+"c")
			if err := open.BeginTxn(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := open.SendMessage(&sarama.ProducerMessage{Topic: c.Topic, Key: sarama.StringEncoder("open"),
				Value: sarama.StringEncoder("open")}); err != nil {
				t.Fatal(err)
			}
			if _, err := write(t, newSink(t, c), schema, iotest.Records(schema, 200, 10, iotest.Base)); err != nil {
				t.Fatal(err)
			}
			leave := source(c, schema)
			leave.OnOpen = "leave"
			got, dead := read(t, newSource(t, leave), connector.PlanOptions{})
			if len(dead) > 0 {
				t.Error(dead[0])
			}
			same(t, got, want)
			if err := open.AbortTxn(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A compacted topic has holes everywhere; each key's last message is read.
func TestCompacted(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Kafka)
	c := SinkConfig{Brokers: []string{server.Addr}, Topic: "assets", Compress: "none", Batch: Batch{Rows: 50},
		SoleWriter: true, Create: &Create{Partitions: 1, Config: map[string]string{
			"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01",
			"min.compaction.lag.ms": "0", "delete.retention.ms": "0"}}}
	schema := iotest.AssetSchema()
	s := newSink(t, c)
	const keys, rounds = 500, 30
	for version := range int64(rounds) {
		if _, err := write(t, s, schema, iotest.Records(schema, 0, keys, iotest.Base+version)); err != nil {
			t.Fatal(err)
		}
	}
	end := int64(keys * rounds)
compact:
	for {
		found := map[string]int64{}
		got, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{Rows: 333})
		if len(dead) > 0 {
			t.Fatal(dead[0])
		}
		for _, r := range got {
			found[r.KeyText()] = max(found[r.KeyText()], r.Version)
		}
		if len(found) != keys {
			t.Fatalf("%d keys, want %d", len(found), keys)
		}
		for key, version := range found {
			if version != iotest.Base+rounds-1 {
				t.Fatalf("%s has version %d", key, version)
			}
		}
		if int64(len(got)) < end/2 {
			t.Logf("%d of %d messages were left", len(got), end)
			break compact
		}
		select { // the cleaner runs every 15 s
		case <-time.After(time.Second):
		case <-t.Context().Done():
			t.Fatal("Kafka never compacted the topic")
		}
	}

	// A crash while it is read costs nothing.
	reader := newSource(t, source(c, schema))
	found, pages := map[string]int64{}, 0
	if err := reader.Plan(t.Context(), connector.PlanOptions{Rows: 2000}, func(split connector.Split) error {
		return reader.Read(t.Context(), split, func(p connector.Page) error {
			if pages++; pages == 2 {
				server.Kill()
				go server.Start()
			}
			for _, r := range p.Records {
				found[r.KeyText()] = max(found[r.KeyText()], r.Version)
			}
			return nil
		})
	}); err != nil || len(found) != keys {
		t.Errorf("%d keys, want %d: %v", len(found), keys, err)
	}
}

// fetches answers requests to read.
func fetches(cluster *kfake.Cluster, answer func(*kmsg.FetchRequest, *kmsg.FetchResponse,
	*kmsg.FetchResponseTopicPartition) bool) {
	cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		f := request.(*kmsg.FetchRequest)
		response := f.ResponseKind().(*kmsg.FetchResponse)
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, partition.Partition, partition.PreferredReadReplica = f.Topics[0].Topic,
			f.Topics[0].Partitions[0].Partition, -1
		partition.RecordBatches = []byte{}
		if !answer(f, response, &partition) {
			return nil, nil, false
		}
		topic.Partitions = append(topic.Partitions, partition)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
}

// emptyBatch is what compaction leaves of a producer's last batch.
func emptyBatch(first, last int64) []byte {
	b := kmsg.RecordBatch{FirstOffset: first, Magic: 2, LastOffsetDelta: int32(last - first), ProducerID: 7,
		FirstTimestamp: 1, MaxTimestamp: 1}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	wire := b.AppendTo(nil)
	binary.BigEndian.PutUint32(wire[17:], crc32.Checksum(wire[21:], crc32.MakeTable(crc32.Castagnoli)))
	return wire
}

// Answers without any message: empty batches, nothing before the end, a leader that is
// behind, a broker that asks for less.
func TestHoles(t *testing.T) {
	cluster, c := fake(t, kfake.SeedTopics(1, "one"))
	c.Topic = "one"
	schema := iotest.AssetSchema()
	records := iotest.Records(schema, 0, 30, iotest.Base)
	if _, err := write(t, newSink(t, c), schema, records); err != nil {
		t.Fatal(err)
	}
	var asked []int64
	behind, throttled := 3, 2
	fetches(cluster, func(f *kmsg.FetchRequest, response *kmsg.FetchResponse,
		p *kmsg.FetchResponseTopicPartition) bool {
		from := f.Topics[0].Partitions[0].FetchOffset
		asked = append(asked, from)
		p.HighWatermark, p.LastStableOffset = 30, 30
		switch {
		case from < 10:
			p.RecordBatches = append(emptyBatch(0, 4), emptyBatch(5, 9)...)
		case from == 10 && behind > 0:
			behind--
			p.HighWatermark, p.LastStableOffset = 10, 10
		case from == 10 && throttled > 0:
			throttled--
			response.ThrottleMillis = 1
		case from == 10:
			return false
		}
		return true
	})
	s := newSource(t, source(c, schema))
	whole := connector.Split{Partition: "one/0", End: position(29)}
	var got []*record.Record
	gate := iotest.NewGate()
	if err := s.Read(connector.WithGate(t.Context(), gate), whole,
		func(p connector.Page) error { got = append(got, p.Records...); return nil }); err != nil {
		t.Fatal(err)
	}
	same(t, got, records[10:])
	if d := cmp.Diff([]int64{0, 10, 10, 10, 10, 10, 10}, asked); d != "" {
		t.Error(d)
	}
	if p := gate.Passed(); p.Entered != p.Left || p.Records != 20 || p.Bytes < 20*50 || len(p.Errors) != 5 ||
		fail.CodeOf(p.Errors[0]) != "kafka.behind" || fail.ClassOf(p.Errors[4]) != fail.Throttled {
		t.Errorf("the gate saw %+v", p)
	}

	// Everything up to the end has been deleted.
	got = nil
	if err := s.Read(t.Context(), connector.Split{Partition: "one/0", Start: position(14), End: position(29)},
		func(p connector.Page) error { got = append(got, p.Records...); return nil }); err != nil || len(got) > 0 {
		t.Errorf("%d records, error %v", len(got), err)
	}
}

// The field that behindEmpty reads is none of sarama's interface.
func TestSaramaField(t *testing.T) {
	f, ok := reflect.TypeFor[sarama.FetchResponseBlock]().FieldByName("recordsNextOffset")
	if !ok || f.Type != reflect.TypeFor[*int64]() {
		t.Errorf("sarama's FetchResponseBlock has no recordsNextOffset of type *int64: %v", f.Type)
	}
}

// What a broker refuses for a while costs nothing; what it refuses for good ends the run.
func TestFetchErrors(t *testing.T) {
	schema := iotest.AssetSchema()
	for _, c := range []struct {
		answer sarama.KError
		times  int
		code   string // "": it passes
	}{
		{sarama.ErrNotLeaderForPartition, 3, ""}, {sarama.ErrUnknownTopicOrPartition, 3, ""},
		{sarama.ErrKafkaStorageError, 3, ""}, {sarama.ErrUnknown, 3, ""},
		{sarama.ErrTopicAuthorizationFailed, 1, "kafka.denied"}, {sarama.ErrOffsetOutOfRange, 1, "kafka.expired"},
	} {
		cluster, to := fake(t)
		records := iotest.Records(schema, 0, 100, iotest.Base)
		if _, err := write(t, newSink(t, to), schema, records); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		fetches(cluster, func(_ *kmsg.FetchRequest, _ *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) bool {
			mu.Lock()
			defer mu.Unlock()
			c.times--
			p.ErrorCode = int16(c.answer)
			return c.times >= 0
		})
		s := newSource(t, source(to, schema))
		var got []*record.Record
		err := s.Plan(t.Context(), connector.PlanOptions{Rows: 10}, func(split connector.Split) error {
			return s.Read(t.Context(), split,
				func(p connector.Page) error { got = append(got, p.Records...); return nil })
		})
		if fmt.Sprint(fail.CodeOf(err)) != c.code && (c.code != "" || err != nil) {
			t.Errorf("%v: %v, want %q", c.answer, err, c.code)
		}
		if err == nil {
			same(t, got, records)
		}
	}
}

func TestSourceErrors(t *testing.T) {
	_, to := fake(t)
	schema := iotest.AssetSchema()
	c := source(to, schema)
	c.Topic = "none"
	_, err := newSource(t, c).Schema(t.Context())
	wantCode(t, err, "kafka.no_topic", fail.Fatal, fail.ExitJob)
	c = source(to, schema)
	c.Fields, c.Version = connector.Fields{{Name: "id", Type: record.Of(record.Int)},
		{Name: "v", Type: record.Of(record.Text)}}, "v"
	_, err = newSource(t, c).Schema(t.Context())
	wantCode(t, err, "kafka.version", fail.Fatal, fail.ExitJob)
	c.Key = []string{"no"}
	_, err = newSource(t, c).Schema(t.Context())
	wantCode(t, err, "kafka.fields", fail.Fatal, fail.ExitJob)
	s := newSource(t, source(to, schema))
	for _, split := range []connector.Split{{Partition: "other/0"}, {Partition: "assets/x"}} {
		wantCode(t, s.Read(t.Context(), split, nil), "kafka.partition", fail.Fatal, fail.ExitInternal)
	}
	wantCode(t, s.Read(t.Context(), connector.Split{Partition: "assets/0", End: []byte{1}}, nil), "kafka.position",
		fail.Fatal, fail.ExitInternal)
	c = source(to, schema)
	c.Brokers = []string{"127.0.0.1:1"}
	s = newSource(t, c)
	s.retry.Deadline = 0
	_, err = s.Schema(t.Context())
	wantCode(t, err, "kafka.unavailable", fail.Transient, fail.ExitUnreachable)
}

// produce sends messages as they are, each to its partition.
func produce(t testing.TB, c SinkConfig, messages ...*sarama.ProducerMessage) {
	t.Helper()
	s, err := producing(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Producer.Partitioner = sarama.NewManualPartitioner
	p, err := sarama.NewSyncProducer(c.Brokers, s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, m := range messages {
		m.Topic = c.Topic
	}
	if err := p.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
}

// Messages of others: what is no record is a dead letter that holds the message, what is one
// has the version that it can have.
func TestMessagesOfOthers(t *testing.T) {
	_, to := fake(t)
	text := func(s string) sarama.Encoder { return sarama.StringEncoder(s) }
	at := time.UnixMilli(1_700_000_000_123)
	version := func(s string) []sarama.RecordHeader {
		return []sarama.RecordHeader{{Key: []byte("version"), Value: []byte(s)}}
	}
	produce(t, to,
		&sarama.ProducerMessage{Value: text(`{"id": "a", "n": 1}`), Timestamp: at},
		&sarama.ProducerMessage{Value: text(` {"n": null, "id": "b"}`), Timestamp: at, Headers: version("5")},
		&sarama.ProducerMessage{Key: text("c"), Timestamp: at, Headers: version("6")},
		&sarama.ProducerMessage{Value: text(`nonsense`)},
		&sarama.ProducerMessage{Value: text(`{"id": "d"`)},
		&sarama.ProducerMessage{Value: text(`{"id": "d", "n": "x"}`)},
		&sarama.ProducerMessage{Value: text(`{"id": "d", "x": 1}`)},
		&sarama.ProducerMessage{Value: text(`{"id": "d", "id": "e"}`)},
		&sarama.ProducerMessage{Value: text(`{"n": 1}`)},
		&sarama.ProducerMessage{Value: text(`{"id": "d"}`), Headers: version("x")},
		&sarama.ProducerMessage{Key: text("a|b")},
		&sarama.ProducerMessage{},
		&sarama.ProducerMessage{Key: text("\xff")},
		&sarama.ProducerMessage{Value: text(``)},
	)
	c := SourceConfig{Brokers: to.Brokers, Topic: to.Topic, Key: []string{"id"}}
	_ = c.Fields.UnmarshalJSON([]byte(`{"id":"text","n":"bigint"}`))
	records, dead := read(t, newSource(t, c), connector.PlanOptions{})
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %s %d", iotest.JSON(r), r.Op, r.Version))
	}
	for _, l := range dead {
		got = append(got, fmt.Sprintf("%s %s: %q", l.Code, l.Message, l.Raw))
	}
	want := []string{
		`{"id":"a","n":1} upsert 1700000000123000`,
		`{"id":"b","n":null} upsert 5`,
		`{"id":"c"} delete 6`,
		`kafka.not_json the message at offset 3 of assets/0: no JSON object: "nonsense"`,
		`kafka.not_json the message at offset 4 of assets/0: `,
		`kafka.wrong_type the message at offset 5 of assets/0: field "n": `,
		`kafka.unknown_field the message at offset 6 of assets/0: field "x" is not among the fields; name it in fields, or set ignore_unknown: "{\"id\": \"d\", \"x\": 1}"`,
		`kafka.field_twice the message at offset 7 of assets/0: field "id" stands twice: `,
		`kafka.no_key the message at offset 8 of assets/0: the key field id has no value: `,
		`kafka.version the message at offset 9 of assets/0: the header version is "x", which is no number: `,
		`kafka.key the message at offset 10 of assets/0: a tombstone: "a|b" is no key of id: it has 2 parts: "a|b"`,
		`kafka.key the message at offset 11 of assets/0: a tombstone with the key "": ""`,
		`kafka.key the message at offset 12 of assets/0: a tombstone with the key "\xff": "\xff"`,
		`kafka.not_json the message at offset 13 of assets/0: no JSON object: ""`,
	}
	if len(got) != len(want) {
		t.Fatalf("%d records and dead letters, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}

	c.IgnoreUnknown, c.Version = true, "n"
	records, dead = read(t, newSource(t, c), connector.PlanOptions{})
	got = nil
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %d", iotest.JSON(r), r.Version))
	}
	if d := cmp.Diff([]string{`{"id":"a","n":1} 1`, `{"id":"c"} 6`}, got); d != "" {
		t.Error(d)
	}
	if dead[0].Code != "kafka.no_version" {
		t.Errorf("%+v", dead[0])
	}
}

// Reading begins where the settings say.
func TestFrom(t *testing.T) {
	_, to := fake(t, kfake.SeedTopics(1, "one"))
	to.Topic = "one"
	var messages []*sarama.ProducerMessage
	for i := range 100 {
		messages = append(messages, &sarama.ProducerMessage{Value: sarama.StringEncoder(fmt.Sprintf(`{"id":%d}`, i)),
			Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))})
	}
	produce(t, to, messages[:50]...)
	produce(t, to, messages[50:]...)
	c := SourceConfig{Brokers: to.Brokers, Topic: to.Topic, Key: []string{"id"},
		Fields: connector.Fields{{Name: "id", Type: record.Of(record.Int)}}}
	for text, want := range map[string]int{`{}`: 100, `{"offset":30}`: 70, `{"offset":200}`: 0,
		`{"time":"2023-11-14T22:13:20.050Z"}`: 50, `{"time":"2030-01-01T00:00:00Z"}`: 0,
		`{"time":"2000-01-01T00:00:00+01:00"}`: 100} {
		c.From = &From{}
		if err := json.Unmarshal([]byte(text), c.From); err != nil {
			t.Fatal(err)
		}
		if got, dead := read(t, newSource(t, c), connector.PlanOptions{}); len(got) != want || len(dead) > 0 {
			t.Errorf("from %s: %d records and %d dead letters, want %d", text, len(got), len(dead), want)
		}
	}
}

func TestSourceConfig(t *testing.T) {
	for text, want := range map[string][]string{
		`{"brokers":["a:1"],"topic":"t","key":["id"],"fields":{"id":"uuid"}}`:                        nil,
		`{"brokers":["a:1"],"topic":"t","key":["id"],"format":"avro","registry":{"url":"http://x"}}`: nil,
		`{}`: {"brokers", "fields", "key", "topic"},
		`{"brokers":["a"],"topic":"t-{x}","key":["x"],"fields":{"id":"int","id":"int"},"version":"v","registry":{"url":"http://x"}}`: {"brokers", "fields.id", "key[0]", "registry", "topic", "version"},
		`{"brokers":["a:1"],"topic":"t","key":["id"],"fields":{"id":"int"},"from":{"offset":1,"time":"2026-01-01T00:00:00Z"}}`:       {"from"},
	} {
		var c SourceConfig
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

// asAvro gives how values with an Avro schema are read as records of a schema.
func asAvro(t testing.TB, text string, schema *record.Schema, ignoreUnknown bool) (*avroReader, []byte) {
	t.Helper()
	a := &avroReader{ignoreUnknown: ignoreUnknown}
	w := &writtenAs{}
	a.prepare(w, sr.Schema{Schema: text, Type: sr.TypeAvro}, 1, schema)
	a.known.Store(1, w)
	return a, []byte{0, 0, 0, 0, 1}
}

// Values that others write: each of Avro's types as what it can be read as, unknown fields passed over.
func TestAvroOfOthers(t *testing.T) {
	for _, c := range []struct {
		avro  string
		value any
		typ   string
		want  string // JSON, or words of the error
	}{
		{`"string"`, "x", "text", `"x"`},
		{`"string"`, "1.50", "decimal", `"1.50"`},
		{`"string"`, "x", "int", `not a valid int`},
		{`"int"`, int32(5), "bigint", `5`},
		{`"long"`, int64(300), "tinyint", `300 is no tinyint`},
		{`"long"`, int64(5), "double", `5`},
		{`"long"`, int64(5), "text", `an integer|Avro's long cannot be read as text`},
		{`{"type":"long","logicalType":"timestamp-micros"}`, int64(1_700_000_000_123_000), "timestamp",
			`"2023-11-14T22:13:20.123Z"`},
		{`{"type":"long","logicalType":"timestamp-micros"}`, int64(1_700_000_000_123_001), "timestamp",
			`parts of a millisecond`},
		{`{"type":"long","logicalType":"timestamp-micros"}`, int64(1_700_000_000_123_001),
			"bigint", `1700000000123001`},
		{`{"type":"int","logicalType":"time-millis"}`, int32(1500), "time", `"00:00:01.500000000"`},
		{`{"type":"long","logicalType":"time-micros"}`, int64(1500), "time", `"00:00:00.001500000"`},
		{`{"type":"int","logicalType":"date"}`, int32(1), "date", `"1970-01-02"`},
		{`"float"`, float32(0.5), "double", `0.5`},
		{`"float"`, float32(0.5), "int", `cannot be read as int`},
		{`"double"`, 0.5, "float", `cannot be read as float`},
		{`{"type":"fixed","name":"f","size":16}`, [16]byte([]byte("0123456789abcdef")), "uuid",
			`"30313233-3435-3637-3839-616263646566"`},
		{`{"type":"fixed","name":"f","size":2}`, [2]byte{1, 2}, "blob", `"AQI="`},
		{`{"type":"enum","name":"e","symbols":["A","B"]}`, "B", "text", `"B"`},
		{`["null","string",{"type":"array","items":"string"}]`, []string{"a"}, "list<text>", `["a"]`},
		{`["null","string",{"type":"array","items":"string"}]`, "a", "list<text>", `JSON|cannot|not a valid list`},
		{`"boolean"`, true, "boolean", `true`},
	} {
		schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)},
			{Name: "v", Type: parseType(t, c.typ)}}, "id")
		text := `{"type":"record","name":"r","fields":[{"name":"id","type":"int"},{"name":"v","type":` + c.avro + `},{"name":"x","type":["null",{"type":"map","values":{"type":"array","items":"r2"}}]}]}`
		text = strings.Replace(text, `"r2"`,
			`{"type":"record","name":"r2","fields":[{"name":"a","type":"double"},{"name":"b","type":["int","string"]}]}`, 1)
		writer, err := avro.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		a, head := asAvro(t, text, schema, true)
		wire, err := writer.AppendEncode(head, map[string]any{"id": int32(1), "v": c.value,
			"x": map[string]any{"k": []any{map[string]any{"a": 1.5, "b": "s"}}}})
		if err != nil {
			t.Fatalf("%s: %v", c.avro, err)
		}
		r := &record.Record{Schema: schema}
		err = a.read(t.Context(), r, wire)
		if err == nil {
			if got := string(r.Values[1].AppendJSON(nil, schema.Fields[1].Type)); got != c.want {
				t.Errorf("%s as %s: %s, want %s", c.avro, c.typ, got, c.want)
			}
			continue
		}
		if !slices.ContainsFunc(strings.Split(c.want, "|"),
			func(w string) bool { return strings.Contains(err.Error(), w) }) || fail.ClassOf(err) != fail.Permanent {
			t.Errorf("%s as %s: %v, want %s", c.avro, c.typ, err, c.want)
		}
	}
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)}}, "id")
	a, head := asAvro(t, `{"type":"record","name":"r","fields":[{"name":"id","type":"int"},{"name":"x","type":"int"}]}`,
		schema, false)
	for code, value := range map[string][]byte{"kafka.unknown_field": append(head, 2, 2),
		"kafka.not_avro": []byte("{}")} {
		if err := a.read(t.Context(), &record.Record{Schema: schema}, value); fail.CodeOf(err) != code {
			t.Errorf("%x: %v", value, err)
		}
	}
	a, _ = asAvro(t, `{"type":"enum","name":"e","symbols":["A"]}`, schema, false)
	if err := a.read(t.Context(), &record.Record{Schema: schema},
		append(head, 0)); fail.CodeOf(err) != "kafka.avro_schema" {
		t.Error(err)
	}
}

// Whatever the bytes are, reading them ends, with a value or an error.
func TestAvroDamaged(t *testing.T) {
	schema := allTypes(t)
	text, err := avroSchema("x", schema)
	if err != nil {
		t.Fatal(err)
	}
	a, head := asAvro(t, text, schema, false)
	whole, err := appendAvro(slices.Clone(head), iotest.Record(schema, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(whole[:rapid.IntRange(5, len(whole)).Draw(t, "length")])
		for range rapid.IntRange(0, 3).Draw(t, "faults") {
			b[rapid.IntRange(5, max(5, len(b)-1)).Draw(t, "at")%len(b)] = rapid.Byte().Draw(t, "byte")
		}
		if err := a.read(t.Context(), &record.Record{Schema: schema}, b); err != nil &&
			fail.ClassOf(err) != fail.Permanent && !bytes.HasPrefix(b, head) {
			t.Fatal(err)
		}
	})
}

// No value at the edge of its kind comes back as another one, as JSON or as Avro.
func TestEdges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]SinkConfig{
		"json": {Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
			Create: &Create{Partitions: 2}},
		"avro": avroConfig(t),
	} {
		t.Run(name, func(t *testing.T) {
			from := func() connector.Source { return newSource(t, source(c, iotest.Edges()[0].Schema)) }
			iotest.TestEdges(t, newSink(t, c), from)
		})
	}
}

// Microseconds are not lost without a word, but cut where the settings say so; those of the version never are.
func TestMicrosecondsAreCutByChoice(t *testing.T) {
	const micros = -1_700_000_000_123_001
	schema := record.MustSchema([]record.Field{{Name: "id", Type: record.Of(record.Int)},
		{Name: "at", Type: record.ListOf(record.Of(record.Timestamp))}, {Name: "v", Type: record.Of(record.Timestamp)}},
		"id")
	timestamp := `{"type":"long","logicalType":"timestamp-micros"}`
	text := `{"type":"record","name":"r","fields":[{"name":"id","type":"int"},
		{"name":"at","type":{"type":"array","items":` + timestamp + `}},{"name":"v","type":` + timestamp + `}]}`
	_, to := fake(t)
	c := source(to, schema)
	for _, x := range []struct {
		version   int64
		cut       bool
		want, not string
	}{
		{micros + 1, true, `["1916-02-18T01:46:39.876Z"]`, ""}, {micros, true, "", `field "v"`},
		{micros + 1, false, "", `field "at"`},
	} {
		c.CutTimestamps, c.Version = x.cut, "v"
		avroText := append([]byte{0, 0, 0, 0, 1, 2}, 2) // id 1, one element
		avroText = binary.AppendVarint(avroText, micros)
		avroText = binary.AppendVarint(append(avroText, 0), x.version)
		a := &avroReader{version: "v", cut: x.cut}
		w := &writtenAs{}
		a.prepare(w, sr.Schema{Schema: text, Type: sr.TypeAvro}, 1, schema)
		a.known.Store(1, w)
		r := &record.Record{Schema: schema}
		errAvro := a.read(t.Context(), r, avroText)
		p := &pager{s: newSource(t, c), schema: schema, readings: connector.Readings(schema, "v", x.cut)}
		j := &record.Record{Schema: schema}
		at := func(n int64) string { return time.UnixMicro(n).UTC().Format(time.RFC3339Nano) }
		errJSON := p.readJSON(j, fmt.Sprintf(`{"id":1,"at":[%q],"v":%q}`, at(micros), at(x.version)))
		for form, err := range map[string]error{"Avro": errAvro, "JSON": errJSON} {
			if r := map[string]*record.Record{"Avro": r, "JSON": j}[form]; x.want != "" {
				if err != nil || string(r.Values[1].AppendJSON(nil, schema.Fields[1].Type)) != x.want {
					t.Errorf("%s: %s, %v, want %s", form,
						r.Values[1].AppendJSON(nil, schema.Fields[1].Type), err, x.want)
				}
			} else if err == nil || !strings.Contains(err.Error(), x.not) ||
				!strings.Contains(err.Error(), "cut_timestamps") {
				t.Errorf("%s: %v", form, err)
			}
		}
	}
}
