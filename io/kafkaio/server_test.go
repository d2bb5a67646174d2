package kafkaio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"reprise/io/connector"
	"reprise/io/iotest"
	"reprise/runners/services"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// newest is, of all messages of a topic, the value of the highest version for each key; a tombstone ends the key.
func newest(t *testing.T, brokers []string, topic string) map[string]string {
	t.Helper()
	type entry struct {
		version int64
		value   []byte
	}
	last := map[string]entry{}
	for _, m := range messages(t, brokers, topic) {
		version, err := strconv.ParseInt(header(m, "version"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := last[string(m.Key)]; !ok || version >= old.version {
			last[string(m.Key)] = entry{version, m.Value}
		}
	}
	fields := map[string]string{}
	for key, e := range last {
		if e.value != nil {
			fields[key] = string(e.value)
		}
	}
	return fields
}

func suite(t *testing.T, c SinkConfig) iotest.Sink {
	name := services.Name(t)
	c.Create = &Create{Partitions: 3}
	topic := func(target string) string { return name + "_" + target }
	return iotest.Sink{
		New: func(_ *testing.T, target string) connector.Sink {
			c.Topic = topic(target)
			return NewSink(c)
		},
		Read:    func(t *testing.T, target string) map[string]string { return newest(t, c.Brokers, topic(target)) },
		Count:   func(t *testing.T, target string) int { return len(messages(t, c.Brokers, topic(target))) },
		Deletes: true,
		Refused: func() *record.Record {
			r := iotest.Record(iotest.AssetSchema(), 1_000_000, iotest.Base)
			r.Values[2] = record.String(strings.Repeat("0123456789", 200_000))
			return r
		},
	}
}

func TestSink(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Kafka)
	s := suite(t, SinkConfig{Brokers: []string{server.Addr}})
	s.Server = server
	iotest.TestSink(t, s)
}

// Kafka's own consumer finds what was written, however it was compressed.
func TestConsoleConsumer(t *testing.T) {
	t.Parallel()
	broker := services.Need(t, services.Kafka)
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{broker}, Topic: services.Name(t), Create: &Create{Partitions: 2}}
	records := append(iotest.Records(schema, 0, 100, 7), iotest.Deletion(schema, 100, 8))
	for i, compress := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		c.Compress = compress
		part := records[i*20 : i*20+20]
		if i == 4 {
			part = records[i*20:]
		}
		if _, err := write(t, newSink(t, c), schema, part); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, m := range services.ConsumeKafka(t, broker, c.Topic) {
		got[string(m.Key)] = fmt.Sprintf("%s %s", m.Value, m.Headers)
		if m.Headers["op"] == "delete" && m.Value != nil {
			t.Errorf("a delete with the value %q", m.Value)
		}
	}
	want := map[string]string{}
	for _, r := range records {
		value := ""
		if r.Op == record.Upsert {
			value = iotest.JSON(r)
		}
		want[r.KeyText()] = fmt.Sprintf("%s %s", value,
			map[string]string{"version": strconv.FormatInt(r.Version, 10), "run": "run-1",
				"op": r.Op.String(), "job": "job"})
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A crash in the middle costs nothing, and neither does a producer that Kafka has forgotten.
func TestCrash(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Kafka)
	c := SinkConfig{Brokers: []string{server.Addr}, Topic: "assets", Create: &Create{Partitions: 3},
		Batch: Batch{Rows: 100}}
	schema := iotest.AssetSchema()
	s := newSink(t, c)
	s.retry.Deadline = 2 * time.Minute
	var r results
	w, err := s.Open(t.Context(), run, schema, r.settle)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	records := iotest.Records(schema, 0, 9000, 1)
	for i, rec := range records {
		switch i {
		case 3000:
			server.Kill()
			go server.Start()
		case 6000:
			if _, err := w.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			// All that the broker knows of producers lies in the partitions: they are made anew.
			deleteAndCreate(t, server.Addr, c.Topic)
			r.all = nil
		}
		if err := w.Write(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := newest(t, c.Brokers, c.Topic)
	for _, rec := range records[6000:] {
		if res := r.all[rec.KeyText()]; res.Record != rec || res.Err != nil ||
			found[rec.KeyText()] != iotest.JSON(rec) {
			t.Fatalf("%s: %+v, found %q", rec.KeyText(), res, found[rec.KeyText()])
		}
	}
}

func deleteAndCreate(t *testing.T, broker, topic string) {
	t.Helper()
	s := sarama.NewConfig()
	s.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin([]string{broker}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	for {
		err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false)
		if err == nil {
			return
		}
		if !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			t.Fatal(err)
		}
	}
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	server := services.Own(t, services.Kafka, services.Env("KAFKA_AUTH=1", "KAFKA_TLS=1"))
	secret := func(text string) connector.Secret {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return connector.Secret("file:" + path)
	}
	right, wrong := secret("test-secret"), secret("wrong-password")
	schema := iotest.AssetSchema()
	c := SinkConfig{Brokers: []string{server.Addr}, Topic: "assets", Create: &Create{Partitions: 1}}
	prepare := func(mechanism string, password connector.Secret, tls *connector.TLS) error {
		c.SASL = &SASL{Mechanism: mechanism, User: "test", Password: password}
		c.TLS = tls
		return newSink(t, c).Prepare(t.Context(), run, schema, false)
	}
	trusted := &connector.TLS{CA: server.CA}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		if err := prepare(mechanism, right, trusted); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		if _, err := write(t, newSink(t, c), schema, iotest.Records(schema, 0, 10, 1)); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		if got, dead := read(t, newSource(t, source(c, schema)), connector.PlanOptions{}); len(got)%10 != 0 ||
			len(got) == 0 || len(dead) > 0 {
			t.Errorf("%s: %d records and %d dead letters were read", mechanism, len(got), len(dead))
		}
		err := prepare(mechanism, wrong, trusted)
		wantCode(t, err, "kafka.login", fail.Fatal, fail.ExitUnreachable)
		_, errRead := newSource(t, source(c, schema)).Schema(t.Context())
		wantCode(t, errRead, "kafka.login", fail.Fatal, fail.ExitUnreachable)
		if strings.Contains(fmt.Sprint(err, errRead), "wrong-password") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	wantCode(t, prepare("plain", right, &connector.TLS{}), "kafka.certificate", fail.Fatal, fail.ExitUnreachable)
	wantCode(t, prepare("plain", right, nil), "kafka.unavailable", fail.Transient, fail.ExitUnreachable)
}

func avroConfig(t *testing.T) SinkConfig {
	return SinkConfig{Brokers: []string{services.Need(t, services.Kafka)}, Topic: services.Name(t),
		Create: &Create{Partitions: 1}, Format: "avro",
		Registry: &Registry{URL: "http://" + services.Need(t, services.SchemaRegistry) + "/apis/ccompat/v7"}}
}

// A consumer that knows the registry alone reads the values.
func TestRegistry(t *testing.T) {
	t.Parallel()
	c := avroConfig(t)
	schema := iotest.AssetSchema()
	registry, err := sr.NewClient(sr.URLs(c.Registry.URL))
	if err != nil {
		t.Fatal(err)
	}
	s := newSink(t, c)
	if err := s.Prepare(t.Context(), run, schema, true); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.SchemaByVersion(t.Context(), c.Topic+"-value", -1); err == nil {
		t.Error("Prepare with dry registered a schema")
	}
	if err := s.Prepare(t.Context(), run, schema, false); err != nil {
		t.Fatal(err)
	}
	records := iotest.Records(schema, 0, 20, 1)
	records = append(records, iotest.Deletion(schema, 30, 1))
	if _, err := write(t, s, schema, records); err != nil {
		t.Fatal(err)
	}
	byKey := map[string]*record.Record{}
	for _, r := range records {
		byKey[r.KeyText()] = r
	}
	readers := map[int]*avro.Schema{}
	for _, m := range messages(t, c.Brokers, c.Topic) {
		r := byKey[string(m.Key)]
		delete(byKey, string(m.Key))
		if r.Op == record.Delete {
			if m.Value != nil {
				t.Errorf("a delete with the value %x", m.Value)
			}
			continue
		}
		if m.Value[0] != 0 {
			t.Fatalf("value %x", m.Value)
		}
		id := int(binary.BigEndian.Uint32(m.Value[1:]))
		if readers[id] == nil {
			found, err := registry.SchemaByID(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if readers[id], err = avro.Parse(found.Schema); err != nil {
				t.Fatal(err)
			}
		}
		var got any
		if _, err := readers[id].Decode(m.Value[5:], &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{}
		for i, f := range schema.Fields {
			want[f.Name] = avroWant(r.Values[i], f.Type)
		}
		if d := cmp.Diff(any(want), plain(got)); d != "" {
			t.Error(d)
		}
	}
	if len(byKey) > 0 || len(readers) != 1 {
		t.Errorf("%d records are missing, %d schemas", len(byKey), len(readers))
	}

	// A field more is compatible, another type is not.
	fields := append([]record.Field{}, schema.Fields...)
	fields = append(fields, record.Field{Name: "more", Type: record.Of(record.Int)})
	if err := newSink(t, c).Prepare(t.Context(), run, record.MustSchema(fields, "id"), false); err != nil {
		t.Error(err)
	}
	fields[3].Type = record.Of(record.Boolean)
	for _, dry := range []bool{true, false} {
		err := newSink(t, c).Prepare(t.Context(), run, record.MustSchema(fields, "id"), dry)
		wantCode(t, err, "kafka.schema_incompatible", fail.Fatal, fail.ExitJob)
	}
}

func TestRegistryErrors(t *testing.T) {
	t.Parallel()
	c := avroConfig(t)
	schema := iotest.AssetSchema()
	prepare := func(url string) error {
		registry := *c.Registry
		registry.URL, registry.User = url, "user"
		c := c
		c.Registry = &registry
		return newSink(t, c).Prepare(t.Context(), run, schema, false)
	}
	status := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(server.Close)
		return server.URL
	}
	wantCode(t, prepare("http://127.0.0.1:1"), "kafka.registry_unavailable", fail.Transient, fail.ExitUnreachable)
	wantCode(t, prepare(status(http.StatusServiceUnavailable)), "kafka.registry_unavailable",
		fail.Transient, fail.ExitUnreachable)
	wantCode(t, prepare(status(http.StatusUnauthorized)), "kafka.registry_login", fail.Fatal, fail.ExitUnreachable)
	wantCode(t, prepare(status(http.StatusNotFound)), "kafka.registry", fail.Fatal, fail.ExitJob)
}

func TestSubjects(t *testing.T) {
	schema := iotest.AssetSchema()
	for subject, want := range map[string]string{"": "a.b-value", "topic": "a.b-value", "record": "com.x.Asset",
		"topic_record": "a.b-com.x.Asset"} {
		r, err := newRegistry(Registry{URL: "http://x", Subject: subject, Name: "com.x.Asset"}, "a.b", schema)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.subject("a.b"); got != want {
			t.Errorf("%q: %s, want %s", subject, got, want)
		}
	}
	r, err := newRegistry(Registry{URL: "http://x"}, "a.b-c", schema)
	if err != nil || r.name != "reprise.a_b_c" {
		t.Errorf("the record's name is %s (%v)", r.name, err)
	}
}
